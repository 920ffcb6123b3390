"""Progress of long work: a bar on a terminal, one line for each pass elsewhere."""

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar
from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")

# Of the processes of a distributed run one speaks. A line is one line, however long a folder's name.
console = Console(stderr=True, soft_wrap=True, quiet=os.environ.get("LOCAL_RANK", "0") != "0")


def track(items: Iterable[Item], what: str) -> Iterator[Item]:
    """Yields the items, showing how far it is; `items` must have a length."""
    if console.is_terminal:
        yield from rich_track(items, what, console=console, transient=True)
        return
    start = time.monotonic()
    count = 0
    for count, item in enumerate(items, 1):  # noqa: B007  (the last count is printed)
        yield item
    _say(f"{what}: {count} of {count}", start)


def _say(what: str, start: float) -> None:
    console.print(f"{what} in {time.monotonic() - start:.1f} s", highlight=False, markup=False)


class EpochLines(Callback):
    """One line for each epoch of training and for each pass of prediction."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = time.monotonic()

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        terms = " ".join(f"{name} {float(value):.4g}" for name, value in sorted(trainer.callback_metrics.items()))
        self._say(trainer, f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: {terms}")

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._say(trainer, f"generating: {sum(trainer.num_predict_batches)} batches")

    def _say(self, trainer: pl.Trainer, line: str) -> None:
        if trainer.is_global_zero:
            _say(line, self.start)


def progress_bar() -> list[Any]:
    """The callback that fits where standard error goes."""
    return [RichProgressBar(leave=False)] if console.is_terminal else [EpochLines()]


# For every Trainer: Lightning's own bar only where there is a terminal, and no table of submodules.
TRAINER_OPTIONS = {"enable_progress_bar": console.is_terminal, "enable_model_summary": False}
