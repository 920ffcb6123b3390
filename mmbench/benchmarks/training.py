"""How fast training is: a step of ours beside the authors' schedule on the same networks, as a ratio in one run.

The schedules, a file `schedules_<paper>.py` each, are written after the authors' training loops, with everything that
these compute twice or for nothing.

Networks are ours in both, but that the authors' upsample first and convolve then, which ours do at once, and that
attention of theirs weighs by whole matrices. They have the published size, unless the case says otherwise, and random
weights: how fast they are does not depend on what they know. Optimisers of theirs are as PyTorch has them, not fused.
Each side has a process of its own and they take turns step by step, so that whatever else the machine does falls on
both. Both compute in float32: a graphics card rounds no product to TF32.

Beside the seconds stand the products of a step, of convolutions and matrices, forward and backward, as PyTorch counts
them. Where these take all of the time, no schedule is faster than their ratio.
"""

import copy
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader
from torch.utils.flop_counter import flop_registry

from mmbench.benchmarks.schedules import Theirs, awake, rescaled
from mmbench.benchmarks.schedules_attngan import TheirsAttnGAN
from mmbench.benchmarks.schedules_csa import TheirsCSA
from mmbench.benchmarks.schedules_dalle import TheirsDALLE
from mmbench.benchmarks.schedules_dfgan import TheirsDFGAN
from mmbench.benchmarks.schedules_ldm import TheirsLDM
from mmbench.benchmarks.schedules_manigan import TheirsManiGAN, TheirsManiGANMain
from mmbench.benchmarks.schedules_picnet import TheirsPICNet
from mmbench.benchmarks.schedules_sisgan import TheirsSISGAN
from mmbench.benchmarks.schedules_stackganpp import TheirsStackGANPP
from mmbench.benchmarks.schedules_tagan import TheirsTAGAN
from mmbench.benchmarks.schedules_tdanet import TheirsTDANet
from mmbench.benchmarks.schedules_vqgan import TheirsVQGAN
from mmbench.core import catalogue, composition, config, construction
from mmbench.core.method import Batch, Method
from mmbench.core.noise import Noise, Sample, random_stream
from mmbench.core.progress import TRAINER_OPTIONS
from mmbench.core.text import END, Vocabulary
from mmbench.pipeline.assembly import arguments

HELP = """usage: python -m mmbench.benchmarks.training [check] [METHOD[=BATCH_SIZE] ...]

Prints what a step of training takes, ours beside the authors' schedule, in seconds and in products, and the memory of
each at its peak; exits with 1 where their losses differ. Methods: manigan_main, manigan, attngan, tagan, sisgan,
tdanet, picnet, csa, stackganpp, dfgan, vqgan (its first stage, with the discriminator from the first step on), ldm
(half as wide as published, eight blocks of its text encoder), dalle (default: all, with batches that fit a computer of
16 GB). Many minutes on a CPU.

With `check` nothing is timed: both train small networks for some steps in double precision, which takes seconds.
"""
ROUNDS = 3
EXACT = 1e-7  # of losses in double precision after steps of either side: what is left is no rounding
SMALL = 64  # image size of small networks
WORDS = ("a", "bird", "with", *(f"word{number}" for number in range(500)))
CAPTION_LENGTH = 18


def without_files(node: Any) -> Any:
    """A method's plain configuration in which what comes from files is drawn at random."""
    if not isinstance(node, dict):
        return node
    if node.get("_target_") == "mmbench.networks.pretrained.frozen":
        return {"_target_": "mmbench.benchmarks.schedules.drawn", "network": node["network"]}
    if node.get("_target_") == "mmbench.core.fasttext.FastText":
        return {"_target_": "mmbench.core.fasttext.SeededVectors", "dim": node["dim"]}
    if node.get("_target_") == "mmbench.core.wordpiece.WordPieces":
        return {"_target_": "mmbench.benchmarks.training.vocabulary"}
    return {key: without_files(value) for key, value in node.items()}


def assembled(name: str, scale: str, changes: Sequence[str] = ()) -> Method:
    """A method with random weights, the same ones in every process, as words of a command line change it."""
    return _assembled(config.composed([f"method={name}", f"scale={scale}", *changes])["method"])


def _assembled(described: dict[str, Any]) -> Method:
    stages = {argument: _assembled(before["method"]) for argument, before in described.get("stages", {}).items()}
    given = {"vocabulary": vocabulary()} if "vocabulary" in described.get("from_data", []) else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method: Method = construction.construct(without_files(arguments(described)), **stages, **given)
        if hasattr(method, "image_encoder"):
            rescaled(method.image_encoder)
        if hasattr(method, "unet"):
            awake(method.unet)
    return method


def vocabulary() -> Vocabulary:
    """The words that captions are drawn from."""
    return Vocabulary((END, *WORDS))


def random_batch(size: int, batch_size: int) -> Batch:
    """A batch of images (batch_size, 3, size, size) with captions, all random, each of a class of its own."""
    rng = random_stream("bench_train", size, batch_size)
    captions = [[" ".join(rng.choice(WORDS, CAPTION_LENGTH)) for _ in range(batch_size)] for _ in range(2)]
    samples = [Sample(str(number), 0, 0) for number in range(batch_size)]
    return {
        "id": [sample.id for sample in samples],
        "image": torch.from_numpy(rng.uniform(-1, 1, (batch_size, 3, size, size))).float(),
        "caption": captions[0],
        "caption_mismatched": captions[1],
        "image_mismatched": random_images("mismatched", size, batch_size),
        "class_id": torch.arange(batch_size),
        "mask": random_holes(size, batch_size),
        "sample": samples,
        "noise": Noise(0, samples),
    }


def random_images(name: str, size: int, batch_size: int) -> Tensor:
    """Images (batch_size, 3, size, size) in [-1, 1] of random pixels, others for each name."""
    rng = random_stream("bench_train", name, size, batch_size)
    return torch.from_numpy(rng.uniform(-1, 1, (batch_size, 3, size, size))).float()


def random_holes(size: int, batch_size: int) -> Tensor:
    """Masks (batch_size, 1, size, size) of a square each, a fourth of the image, 1 = hole."""
    mask = torch.zeros(batch_size, 1, size, size)
    corners = random_stream("bench_train holes", size, batch_size).integers(size // 2, size=(batch_size, 2))
    for one, (top, left) in zip(mask, corners, strict=True):
        one[:, top : top + size // 2, left : left + size // 2] = 1
    return mask


class Case(NamedTuple):
    """What is measured of a method.

    Attributes:
        theirs: the authors' schedule.
        size: height and width of the images.
        batch_size: images of a step; the published 32 and 64 do not fit everywhere.
        goal: how many times as fast as theirs ours is to be.
        changes: what is not as published on both sides, as words of a command line.
        small_changes: the same, of the small networks of `check`.
        tolerance: relative, of the losses of the first step, in float32.
    """

    theirs: type[Theirs]
    size: int
    batch_size: int
    goal: float = 1.3
    changes: tuple[str, ...] = ()
    small_changes: tuple[str, ...] = ()
    tolerance: float = 1e-5


CASES = {
    "manigan_main": Case(TheirsManiGANMain, 256, 2),
    "manigan": Case(TheirsManiGAN, 256, 2),
    "attngan": Case(TheirsAttnGAN, 256, 4),
    "tagan": Case(TheirsTAGAN, 128, 4),
    "sisgan": Case(TheirsSISGAN, 64, 8),
    "tdanet": Case(TheirsTDANet, 256, 2),
    "picnet": Case(TheirsPICNet, 256, 2),
    "csa": Case(TheirsCSA, 256, 1),
    "stackganpp": Case(TheirsStackGANPP, 256, 2),
    "dfgan": Case(TheirsDFGAN, 256, 2),
    # The adversarial term is weighed by the norm of a gradient, which in float32 lies 2e-4 from that of float64.
    "vqgan": Case(TheirsVQGAN, 256, 1, 1.2, ("method.module.discriminator_start=0",), tolerance=5e-4),
    "ldm": Case(
        TheirsLDM,
        256,
        2,
        1.2,
        changes=(
            "stages.first_stage.module.width=64",
            "method.module.unet.width=160",
            "method.module.unet.blocks.context_dim=640",
            "method.module.text_encoder.depth=8",
        ),
        small_changes=(
            "method.module.optimizer.lr=0.001",
            "method.module.predicts._target_=mmbench.diffusion.denoisers.predicted_noise",
        ),
    ),
    "dalle": Case(TheirsDALLE, 128, 1, 1.2, small_changes=(f"method.module.image_size={SMALL}",)),
}


class StillAtFirst:
    """Lets the first step of every optimiser change nothing, so that all losses of it are of the same weights.

    Adam's first step has its full size however small a gradient is, and makes weights of what was rounding.
    """

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __call__(self, optimizer: Optimizer, *arguments: Any) -> None:
        rate = optimizer.defaults["lr"] if id(optimizer) in self.seen else 0.0
        self.seen.add(id(optimizer))
        for group in optimizer.param_groups:
            group["lr"] = rate


class Products(TorchDispatchMode):
    """Counts the products of convolutions and matrices (PyTorch's own counter refuses the gradient of a gradient)."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if counted := flop_registry.get(func._overloadpacket):
            self.count += counted(*args, **(kwargs or {}), out_val=made) // 2  # it counts sums as well
        return made


class Clock:
    """Waits before each step until it is this side's turn; then says what it took, and its terms.

    Of the first step that is the number of its products, of the others seconds.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.products: Products | None = Products()

    def start(self) -> None:
        self.connection.recv()
        if self.products:
            self.products.__enter__()
        self.began = time.perf_counter()

    def stop(self) -> None:
        if self.products:
            self.products.__exit__(None, None, None)
            self.took, self.products = float(self.products.count), None
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.took = time.perf_counter() - self.began

    def say(self, terms: Mapping[str, Tensor]) -> None:
        self.connection.send((self.took, {name: float(term.detach()) for name, term in terms.items()}))


class Turns(Callback):
    """Has a step timed from the batch that is there to the weights that it makes."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, step: int) -> None:
        self.clock.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *step: Any) -> None:
        self.clock.stop()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.clock.say(trainer.callback_metrics)


def train_ours(method: Method, batch: Batch, rounds: int, callback: Callback) -> None:
    """Epochs of one step each, as `mmbench train` makes them."""
    trainer = construction.construct(
        composition.node("trainer/auto"),
        max_epochs=rounds,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        **TRAINER_OPTIONS,
    )
    trainer.fit(method, DataLoader(dataset=[batch], batch_size=None))


def train_theirs(theirs: type[Theirs], method: Method, batch: Batch, rounds: int, clock: Clock) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    method.to(device).train()
    schedule = theirs(method)
    batch = {field: value.to(device) if hasattr(value, "to") else value for field, value in batch.items()}
    for _ in range(rounds):
        clock.start()
        losses = schedule.step(batch)
        clock.stop()
        clock.say(losses)


def side(connection: Connection, name: str, batch_size: int, ours: bool) -> None:
    """The process of one side: a step each time it is its turn, at the end the memory at its peak in GB."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    case, method, clock = CASES[name], assembled(name, "published", CASES[name].changes), Clock(connection)
    register_optimizer_step_pre_hook(StillAtFirst())
    batch = random_batch(case.size, batch_size)
    if ours:
        train_ours(method, batch, 1 + ROUNDS, Turns(clock))
    else:
        train_theirs(case.theirs, method, batch, 1 + ROUNDS, clock)
    connection.send(peak_memory())


def peak_memory() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def largest_difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """Of any term, relative to it, or to a thousandth of all terms where it is smaller than that.

    A divergence from a standard normal starts near 0, as a difference of numbers near 1.
    """
    assert ours.keys() == theirs.keys(), f"other terms: {sorted(ours.keys() ^ theirs.keys())}"
    least = sum(map(abs, theirs.values())) / 1000
    return max(abs(ours[name] - value) / max(abs(value), least) for name, value in theirs.items())


class DoubleNoise(Noise):
    """The same numbers, for networks of double precision."""

    def normal(self, name: str, *shape: int) -> Tensor:
        return super().normal(name, *shape).double()


@contextmanager
def new_tensors_in_double() -> Iterator[None]:
    """Inside, what networks make of whole numbers, as the sinusoids of a time, is of double precision, too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Terms(Callback):
    """Keeps the terms of each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.steps.append({name: float(term) for name, term in trainer.callback_metrics.items()})


def check(name: str, batch_size: int) -> bool:
    """Whether both sides train small networks alike, and train them at all; prints the differences of losses."""
    ours, batch = assembled(name, "tiny", CASES[name].small_changes).double(), random_batch(SMALL, batch_size)
    batch |= {field: batch[field].double() for field in ("image", "image_mismatched")}
    batch["noise"] = DoubleNoise(0, batch["sample"])
    with new_tensors_in_double():
        theirs, kept = CASES[name].theirs(copy.deepcopy(ours).train()), Terms()
        train_ours(ours, batch, ROUNDS, kept)
        expected = [{term: float(loss.detach()) for term, loss in theirs.step(batch).items()} for _ in kept.steps]
    difference = max(map(largest_difference, kept.steps, expected))  # of later steps, after what those before changed
    change = largest_difference(kept.steps[-1], kept.steps[0])
    print(f"{name}: in {ROUNDS} steps losses change by {change:.2f} and differ by {difference:.1e} (at most {EXACT})")
    return difference < EXACT and change > 0.01


def turn(connection: Connection) -> tuple[float, dict[str, float]]:
    connection.send("step")
    return connection.recv()


def bench(name: str, batch_size: int) -> bool:
    """Measures a method and prints it; whether the losses of the first step, which is not timed, are the same.

    That both train the same over several steps is for `check` to show, in double precision.
    """
    context = multiprocessing.get_context("spawn")
    sides, processes = [], []
    for ours in (True, False):
        connection, other_end = context.Pipe()
        processes.append(context.Process(target=side, args=(other_end, name, batch_size, ours), daemon=True))
        processes[-1].start()
        other_end.close()  # so that a side that fails is heard of
        sides.append(connection)
    (our_products, our_terms), (their_products, their_terms) = map(turn, sides)
    difference = largest_difference(our_terms, their_terms)
    case = CASES[name]
    what = ", ".join((f"{name}, {case.size} pixels, batch of {batch_size}", *map(_shown, case.changes)))
    if difference > case.tolerance:
        terms = ", ".join(f"{name} {ours:.6g} for {their_terms[name]:.6g}" for name, ours in our_terms.items())
        print(f"{what}: expected equal losses in the first step, found them {difference:.1e} apart: {terms}")
        for process in processes:
            process.kill()
        return False
    seconds = [[turn(connection)[0] for connection in sides] for _ in range(ROUNDS)]
    ours, theirs = map(median, zip(*seconds, strict=True))
    memory = [connection.recv() for connection in sides]
    print(
        f"{what:<45} authors' schedule / ours {theirs / ours:5.2f} x  goal >= {case.goal}  "
        f"products {their_products / our_products:5.2f} x  {theirs:.2f} s / {ours:.2f} s, "
        f"{memory[1]:.2f} GB / {memory[0]:.2f} GB, relative difference of losses {difference:.1e}",
        flush=True,
    )
    return True


def _shown(change: str) -> str:
    """A word of a command line as it is printed."""
    return change.removeprefix("method.").removeprefix("module.")


def _batch_size(name: str, text: str) -> int:
    """The number of a word, for a method that needs so many images or fewer.

    Raises:
        ValueError: it is no number, or fewer.
    """
    smallest = construction.target(config.composed([f"method={name}"])["method"]["module"]).smallest_batch
    if not text.isdecimal() or int(text) < smallest:
        raise ValueError(f"expected {name}=N, a batch of {smallest} images or more, found {text!r}: correct it")
    return int(text)


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    checked = "check" in arguments
    words = [word for word in arguments if word != "check"]
    chosen = [word.partition("=") for word in words] or [(name, "", "") for name in CASES]
    for name, _, _ in chosen:
        if name not in CASES:
            catalogue.unknown("method", name, CASES)
    sizes = {name: _batch_size(name, count) if equals else CASES[name].batch_size for name, equals, count in chosen}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{device}, PyTorch {torch.__version__}, float32")
    equal = [(check if checked else bench)(*case) for case in sizes.items()]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ValueError as error:
        sys.exit(f"mmbench: error: {' '.join(str(error).split())}")
