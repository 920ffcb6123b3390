"""Every method learns on several processes what it learns on one: the same samples, losses, gradients and weights.

By Lightning's own trainer and DDP, in float64, with SGD in the place of each optimiser, whose step is linear.
"""

import mmbench.core.torchvision_schema  # noqa: F401  (before torchvision)

# isort: split

import copy
import io
import os
import traceback
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.multiprocessing
from pytorch_lightning.callbacks import Callback
from test_contract import is_variant, learns, subject
from torch import nn

from mmbench.core import catalogue, config
from mmbench.core.adversarial import Adversarial
from mmbench.core.learner import Learner
from mmbench.losses.stylegan2 import StyledGAN
from mmbench.methods.synthesis.published_embeddings import PublishedEmbeddings
from mmbench.pipeline import stages, training

RELATIVE, OF_THE_WHOLE = 1e-6, 1e-9  # of a parameter's gradient, and of all of them, where a parameter's is none
SGD = partial(torch.optim.SGD, lr=0.01)
PATIENCE = 60  # seconds that processes wait for each other


def still(method):
    """Without dropout, the one thing that is drawn by each process for itself and not for a sample."""
    for module in method.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.RNNBase):
            module.dropout = 0.0
    return method


class Recorded(Callback):
    """What a step is of and what comes of it: samples, and every gradient that an optimiser is stepped with."""

    def __init__(self):
        self.samples, self.gradients = [], []

    def on_train_batch_start(self, trainer, method, batch, step):
        self.samples += [tuple(sample) for sample in batch["sample"]]
        for field, value in batch.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                batch[field] = value.double()

    def on_before_optimizer_step(self, trainer, method, optimizer):
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        named = [(name, one.grad) for name, one in method.named_parameters() if id(one) in held]
        self.gradients.append({name: grad.clone() for name, grad in named if grad is not None})


def in_float64(method):
    """A copy whose parameters, and published embeddings, are of float64, and whose optimisers are SGD."""
    method = still(copy.deepcopy(method)).double()
    for module in method.modules():
        if isinstance(module, PublishedEmbeddings):
            module.embeddings = partial(widened, module.embeddings)
    if isinstance(method, Adversarial):
        method.partials = dict.fromkeys(method.partials, SGD)
    else:
        assert isinstance(method, Learner), "whose optimiser is swapped"
        method.optimizer = SGD
    return method


def widened(embeddings, texts):
    return embeddings(texts).double()


def images_of_each(method):
    """Images of a batch for each process.

    As many as those have whose deviation StyleGAN2's discriminators see: a group of them is of one process. Else an odd
    number, so that the halves of a batch are not those of its parts.
    """
    return 4 if isinstance(method, StyledGAN) else 3


def learned(of_it, hardware, processes):
    """One step of training on some hardware, on a batch for so many processes: all that is to be the same on any."""
    batch_size = processes * images_of_each(of_it.method)
    settings = {**of_it.plain["method"], "training": {**of_it.plain["method"]["training"], "batch_size": batch_size}}
    plain = {**of_it.plain, "method": settings, "trainer": hardware}
    method, data, recorded = in_float64(of_it.method), of_it.data, Recorded()
    data.training_fields = method.trains_on
    torch.set_default_dtype(torch.float64)
    try:
        trainer = stages.trainer_of(
            plain,
            max_epochs=1,
            limit_train_batches=1,
            callbacks=[training.SeededSteps(plain["seed"]), recorded],
            logger=False,
            enable_checkpointing=False,
        )
        training.divide(plain, method, data, trainer)
        trainer.fit(method, datamodule=data)
    finally:
        torch.set_default_dtype(torch.float32)
    return {
        "samples": recorded.samples,
        "stream": streamed(data),
        "losses": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "gradients": recorded.gradients,
        "weights": {name: value.clone() for name, value in method.state_dict().items()},
    }


def streamed(data):
    """The batches of two epochs, as places in the order of each."""
    loader, found = data.train_dataloader(), []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        order = list(loader.sampler)
        found.append([order[start : start + loader.batch_size] for start in range(0, len(order), loader.batch_size)])
    assert [len(batches) for batches in found] == [len(loader)] * 2
    return found


def hardware_of(*words):
    return config.composed(["method=identity", *words])["trainer"]


def one_process(rank, processes, folder, subjects, connections):
    """Works through all methods as one of several processes, as a launcher starts them; ends at the first fault."""
    torch.set_num_threads(1)
    elastic = {"TORCHELASTIC_RUN_ID": "0", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": str(processes)}
    os.environ |= elastic | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    try:
        torch.distributed.init_process_group(
            "gloo", f"file://{folder}/store", timedelta(seconds=PATIENCE), rank=rank, world_size=processes
        )
        hardware = hardware_of("trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={processes}")
        for of_it in subjects.values():
            content = io.BytesIO()
            torch.save(learned(of_it, hardware, processes), content)
            connections[rank].send(content.getvalue())
        torch.distributed.barrier()
    except BaseException:
        connections[rank].send(traceback.format_exc())
    os._exit(0)  # nothing of the tests' own process is to be ended here


class Processes:
    """Several processes that work through methods."""

    def __init__(self, processes, folder, subjects):
        folder.mkdir()
        pairs = [torch.multiprocessing.get_context("fork").Pipe(duplex=False) for _ in range(processes)]
        self.receiving, sending = zip(*pairs, strict=True)
        self.context = torch.multiprocessing.start_processes(
            one_process, (processes, folder, subjects, sending), processes, join=False, start_method="fork"
        )

    def results(self):
        """What each of them found of the next method.

        Raises:
            RuntimeError: one of them failed; says at what.
        """
        found = []
        for connection in self.receiving:
            said = connection.recv() if connection.poll(PATIENCE) else "it hangs"
            if isinstance(said, str):
                raise RuntimeError(said)
            found.append(torch.load(io.BytesIO(said), weights_only=True))
        return found

    def end(self):
        for process in self.context.processes:
            process.kill()
            process.join()


def interleaved(parts):
    """Rows of processes that take them in turn."""
    return [row for rows in zip(*parts, strict=True) for row in rows]


def require_same(parts, whole):
    """Processes have divided a batch, and have each learned from all of it."""
    assert interleaved([part["samples"] for part in parts]) == whole["samples"], "other samples"
    for epoch, batches in enumerate(whole["stream"]):
        shares = [part["stream"][epoch] for part in parts]
        assert {len(share) for share in shares} == {len(batches)}, "another number of steps"
        assert [interleaved(step) for step in zip(*shares, strict=True)] == batches, "another stream of samples"
    for part in parts:
        assert part["losses"] == pytest.approx(whole["losses"], rel=1e-6, abs=1e-12)
        assert len(part["gradients"]) == len(whole["gradients"]), "another number of steps of optimisers"
        for step, (found, expected) in enumerate(zip(part["gradients"], whole["gradients"], strict=True)):
            require_close(found, expected, f"gradient of step {step}")
        require_close(part["weights"], whole["weights"], "weight")


def require_close(found, expected, what):
    assert found.keys() == expected.keys(), f"{what}: of others: {min(found.keys() ^ expected.keys())}"
    found, expected = ({name: one.double() for name, one in those.items()} for those in (found, expected))
    size = sum(one.square().sum() for one in expected.values()).sqrt()
    for name, one in expected.items():
        far = (found[name] - one).norm()
        assert far <= RELATIVE * one.norm() + OF_THE_WHOLE * size, f"{what} {name}: {far / one.norm():.1e} of its size"


def compared(names, processes, folder):
    """Faults by the name of a method."""
    # Built once, before the processes are forked: half of the time would go there.
    subjects = {name: subject(name) for name in names}
    faults, others = {}, None
    for name in names:
        if others is None:
            rest = {key: of_it for key, of_it in subjects.items() if names.index(key) >= names.index(name)}
            others = Processes(processes, folder / name, rest)
        try:
            whole = learned(subjects[name], hardware_of("trainer=cpu"), processes)
            require_same(others.results(), whole)
        except RuntimeError as error:
            faults[name] = str(error)
            others = others.end()
        except AssertionError as error:
            faults[name] = str(error)
    if others:
        others.end()
    return faults


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_method_learns_on_several_processes_what_it_learns_on_one(home, processes):
    """Variants of a class are among four processes alone."""
    names = [name for name in filter(learns, catalogue.names("method")) if processes > 2 or not is_variant(name)]
    faults = compared(names, processes, home)
    assert not faults, "\n".join(f"{name}: {fault}" for name, fault in faults.items())
