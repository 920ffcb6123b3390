"""What a method costs: parameters, time and memory of its images; steps and CPU time of its training with its stages.

None of it is part of a key: it says how a value was come by, and not what the value is.
"""

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import psutil
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmbench.core.files import write_json
from mmbench.core.method import Batch, Method
from mmbench.data.base import DataModule
from mmbench.pipeline.stages import Stage, stage

READ, TIMED, CARD = "parameters.json", "generating.json", "card.json"  # beside the images of a run
WARM_UP, NUM_IMAGES = 2, 8  # of the card: images one at a time, the first ones neither timed nor looked at
OF_CARD = ("image_seconds", "process_memory_GiB", "gpu_memory_GiB")
PROCESS = Path("/proc/self")  # of Linux, which alone forgets the most that a process held
OF_TRAINING = ("trained_parameters", "steps", "cpu_seconds")


class Reads(TorchDispatchMode):
    """Notes which memory the operations inside read, so that it is known which parameters took part in a result."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for one in tree_leaves((args, kwargs)):
            if isinstance(one, Tensor) and one.layout is torch.strided:
                self.places.add(one.untyped_storage().data_ptr())
        return func(*args, **(kwargs or {}))

    def parameters_of(self, module: torch.nn.Module) -> int:
        """How many numbers the parameters of a module have that were read, each once."""
        return sum(one.numel() for one in module.parameters() if one.untyped_storage().data_ptr() in self.places)


class ParametersRead(Callback):
    """Writes how many parameters the first batch of images is made with, unless that is known already.

    Pretrained networks and stages that images pass through are among them, and what is there for training alone is not:
    discriminators, or a generator whose average makes the images.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / READ
        self.watching = ExitStack()

    def on_predict_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        if trainer.is_global_zero and not self.path.is_file():
            self.reads = self.watching.enter_context(Reads())

    def on_predict_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        self.watching.close()
        if trainer.is_global_zero and not self.path.is_file():
            write_json(self.path, {"parameters": self.reads.parameters_of(pl_module)})

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.watching.close()


class GeneratingTime(Callback):
    """Writes how long images took: CPU time of the first process, over all runs that made some of them.

    A batch during which parameters are counted takes longer, and is left out.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.counting = folder / TIMED, folder / READ
        self.start: float | None = None

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.spent = {"cpu_seconds": 0.0, "images": 0, **_read(self.path)}

    def on_predict_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        self.start = process_time() if self.counting.is_file() else None

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *rest: Any
    ) -> None:
        if self.start is not None:
            self.spent["cpu_seconds"] += process_time() - self.start
            self.spent["images"] += len(batch["id"])

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero and self.spent["images"]:
            write_json(self.path, self.spent)


def on_card(method: Method, batches: Sequence[Batch]) -> dict[str, float]:
    """Seconds and memory of images by a fixed card: batches of one on one device, the first `WARM_UP` for nothing.

    By the clock, so that waiting counts, and whatever else the machine does: compare values of one idle machine. What a
    method tunes for an input is done before. Memory of the process is all that it holds, Python, libraries and the
    networks of metrics among it; it is known on Linux alone. That of a GPU is what tensors held, without the context.

    Args:
        method: with its weights, in evaluation mode.
        batches: of one image each, on the method's device, more than `WARM_UP`.

    Returns:
        Those of `OF_CARD` that are known.
    """
    device = method.device
    with torch.inference_mode(not method.needs_gradients):
        for batch in batches[:WARM_UP]:
            method.predict_step(batch)
        _forget_peaks(device)
        start = perf_counter()
        for batch in batches[WARM_UP:]:
            method.predict_step(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent = perf_counter() - start
    found = {"image_seconds": spent / len(batches[WARM_UP:])}
    with suppress(OSError):
        lines = (PROCESS / "status").read_text().splitlines()
        (most,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        found["process_memory_GiB"] = int(most) / 2**20
    if device.type == "cuda":
        found["gpu_memory_GiB"] = torch.cuda.max_memory_allocated(device) / 2**30
    return {key: float(f"{value:.4g}") for key, value in found.items()}


def _forget_peaks(device: torch.device) -> None:
    """Begins the most that the process, and tensors, hold anew."""
    with suppress(OSError):
        (PROCESS / "clear_refs").write_text("5")
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)


class CpuTime(Callback):
    """The CPU time of a training, of all its processes, threads and data workers; part of checkpoints.

    A training that goes on adds to what its checkpoint has. What a run did after its last checkpoint before it was
    stopped is lost, and not counted.

    Attributes:
        seconds: until the last epoch that is done; None where the checkpoint it went on from does not say its own.
    """

    def __init__(self) -> None:
        self.start = cpu_seconds()
        self.before: float | None = 0.0
        self.seconds: float | None = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.before = self.seconds = checkpoint["callbacks"].get(self.state_key, {}).get("seconds")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        own = torch.tensor(cpu_seconds() - self.start, device=pl_module.device)
        spent = float(trainer.strategy.reduce(own, reduce_op="sum"))
        self.seconds = None if self.before is None else self.before + spent


def cpu_seconds() -> float:
    """The CPU time that this process and its workers have used so far, those that have ended among them."""
    workers = [worker.pid for worker in multiprocessing.active_children()]
    found = 0.0
    for pid in [None, *workers]:
        with suppress(psutil.NoSuchProcess):  # one that has just ended is among the children of this one
            times = psutil.Process(pid).cpu_times()
            found += times.user + times.system + times.children_user + times.children_system
    return found


def of_fit(trainer: pl.Trainer, accumulate: int) -> dict[str, Any]:
    """What a training that is done has cost, for its `training.json`.

    Args:
        trainer: of this training.
        accumulate: parts of a batch, which make one step together.

    Returns:
        trained_parameters: numbers that an optimiser changed; steps: batches, whatever was optimised in each;
        cpu_seconds.
    """
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    trained = {id(one): one.numel() for group in groups for one in group["params"]}
    batches = trainer.fit_loop.epoch_loop.batch_progress.total.completed  # of checkpoints before as well
    (time,) = (callback for callback in trainer.callbacks if isinstance(callback, CpuTime))  # type: ignore[attr-defined]
    known = {} if time.seconds is None else {"cpu_seconds": round(time.seconds, 1)}
    return {"trained_parameters": sum(trained.values()), "steps": batches // accumulate, **known}


def of_run(plain: dict[str, Any], data: DataModule, folder: Path) -> dict[str, Any]:
    """What a record says of costs: of the images in `folder`, and `OF_TRAINING` summed over all stages.

    Each stage counts once. What is not known, of one of the stages even, is left out, and so is all of training where
    the weights were not trained here.
    """
    found = _read(folder / READ) | _read(folder / CARD)
    if timed := _read(folder / TIMED):
        found["image_cpu_seconds"] = round(timed["cpu_seconds"] / timed["images"], 4)
    if plain["weights"] == "trained":
        trainings = {one.key: one for one in _trainings(stage(plain, data))}
        ended = all(one.weights == one.final for one in trainings.values())  # of a part of one nothing is known
        told = [_read(one.folder / "training.json") for one in trainings.values()] if ended else []
        found |= {key: sum(one[key] for one in told) for key in OF_TRAINING if told and all(key in one for one in told)}
    return found


def _trainings(wanted: Stage) -> Iterator[Stage]:
    """The trainings that weights come from, stages before those that stand on them."""
    for before in wanted.before.values():
        if before.plain["weights"] not in ("official", "none"):
            yield from _trainings(before)
    if "training" in wanted.plain["method"]:
        yield wanted


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
