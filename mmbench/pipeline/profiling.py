"""Where the time of a training goes, how many images it takes in a second, and the memory that it needs."""

import re
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.profilers import Profiler
from rich.table import Table
from torch import Tensor

OTHER = "other"
# Part of a training to the actions that begin it, by the names that Lightning or this file gives them; any other action
# belongs to the part that it happens in. Gradients that a loss is made of, those of a penalty say, are of forward.
PARTS = {
    "data": r".*dataloader_next|.*\.batch_to_device|\[LightningDataModule\].*",
    "forward": r"\[Strategy\]\w+\.training_step",
    "backward": r"(\[Strategy\]\w+\.)?backward",
    "optimiser": r".*optimizer_step|.*optimizer_zero_grad|average",
    "metrics": r"\[Callback\]Selection\.on_train_epoch_end",
    "writing": r"\[Callback\]ModelCheckpoint.*|save_checkpoint|log",
}
SPEED, MEMORY = "images_per_second", "peak_memory_GiB"


class Parts(Profiler):
    """The seconds of each part of a training; each moment counts once, for the innermost action that has a part.

    Attributes:
        device: whose work is waited for wherever one part ends and another begins.
        seconds: by part, from the making of this object on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cpu")
        self.seconds = dict.fromkeys([*PARTS, OTHER], 0.0)
        self._inside = [OTHER]
        self._since = time.perf_counter()

    def start(self, action_name: str) -> None:
        outer = self._inside[-1]
        part = next((part for part, names in PARTS.items() if re.fullmatch(names, action_name)), outer)
        if part != outer:
            self.count()
        self._inside.append(part)

    def stop(self, action_name: str) -> None:
        if self._inside[-1] != self._inside[-2]:
            self.count()
        self._inside.pop()

    def count(self) -> None:
        """Adds the time since the last change to the part that goes on."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[self._inside[-1]] += now - self._since
        self._since = now

    def shares(self) -> dict[str, float]:
        """The share of each part in the time so far; they add up to 1."""
        self.count()
        whole = sum(self.seconds.values())
        return {part: seconds / whole for part, seconds in self.seconds.items()}


class Profile(Callback):
    """Tells `Parts` what Lightning does not, logs the shares when training ends, and keeps them.

    Attributes:
        shares: by part; empty until training ends.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.shares: dict[str, float] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.parts.device = pl_module.device

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self.parts.start("backward")  # which has no action of its own where optimisers are stepped by hand

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.parts.stop("backward")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.shares = self.parts.shares()
        told = {f"profile/{part}": share for part, share in self.shares.items()}
        for logger in trainer.loggers:
            logger.log_metrics(told, step=trainer.fit_loop.epoch_loop.total_batch_idx + 1)

    def table(self, name: str) -> Table:
        """The shares as a table for a terminal."""
        table = Table(title=f"where the time of {name} went")
        table.add_column("part")
        for heading in ("seconds", "share"):
            table.add_column(heading, justify="right")
        for part, share in self.shares.items():
            table.add_row(part, f"{self.parts.seconds[part]:.1f}", f"{share:.1%}")
        return table


class Log(CSVLogger):
    """Lightning's log as a CSV file, whose writing `Parts` sees."""

    def __init__(self, folder: Any, profiler: Profiler) -> None:
        super().__init__(folder, name="log")
        self.profiler = profiler

    def save(self) -> None:
        with self.profiler.profile("log"):
            super().save()


class Throughput(Callback):
    """Logs, after each epoch, the images that all processes together trained on in a second, waits for data included.

    On a GPU it also logs the largest memory that tensors have had at a time, of the process that had most.

    Attributes:
        found: what was logged last.
    """

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.images, self.start = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: dict[str, Any], step: int
    ) -> None:
        self.images += len(batch["id"]) * trainer.world_size

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if is_cuda := pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.found = {SPEED: self.images / (time.perf_counter() - self.start)}
        pl_module.log(SPEED, self.found[SPEED], prog_bar=True, sync_dist=True)
        if is_cuda:
            self.found[MEMORY] = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
            pl_module.log(MEMORY, self.found[MEMORY], prog_bar=True, sync_dist=True, reduce_fx="max")
