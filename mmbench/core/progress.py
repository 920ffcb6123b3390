"""Progress of long work: a bar on a terminal, one line for each pass elsewhere."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar
from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")

PATIENCE = 30.0  # seconds without a line, of work whose parts take long
# Of the processes of a distributed run one speaks. A line is one line, however long a folder's name.
console = Console(stderr=True, soft_wrap=True, quiet=os.environ.get("LOCAL_RANK", "0") != "0")


_places: list[str] = []  # where in a longer work this is, from the outside in
_stages: list[str] = []  # folders of the trainings that are to come in it


@contextmanager
def within(place: str) -> Iterator[None]:
    """Says in every bar and line of the block where in a longer work it is: `row 3 of 12`, `stage 1 of 2`."""
    _places.append(place)
    try:
        yield
    finally:
        _places.pop()


@contextmanager
def with_stages(folders: Sequence[str | Path]) -> Iterator[None]:
    """Says of every training of the block which of these it is, by its folder: `stage 1 of 2`."""
    _stages[:] = map(str, folders)
    try:
        yield
    finally:
        _stages.clear()


def placed(what: str, trainer: pl.Trainer | None = None) -> str:
    """What a bar or line says, of a training say, behind where in a longer work it is."""
    places = list(_places)
    if trainer and (folder := str(trainer.default_root_dir)) in _stages:
        places.append(f"stage {_stages.index(folder) + 1} of {len(_stages)}")
    return f"{', '.join(places)}: {what}" if places else what


def track(items: Iterable[Item], what: str) -> Iterator[Item]:
    """Yields the items, showing how far it is; `items` must have a length."""
    what = placed(what)
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
        self.start = self.said = time.monotonic()
        self.made = 0

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.made += len(batch["id"]) * trainer.world_size
        count, now = len(trainer.predict_dataloaders.dataset), time.monotonic()  # type: ignore[union-attr]
        if now - self.said > PATIENCE and self.made < count:
            self.said, each = now, (now - self.start) / self.made
            left = timedelta(seconds=round(each * (count - self.made)))
            self._say(trainer, f"generating: {self.made} of {count}, {left} to go")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        terms = " ".join(f"{name} {float(value):.4g}" for name, value in sorted(trainer.callback_metrics.items()))
        self._say(trainer, f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: {terms}")

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._say(trainer, f"generating: {sum(trainer.num_predict_batches)} batches")

    def _say(self, trainer: pl.Trainer, line: str) -> None:
        if trainer.is_global_zero:
            _say(placed(line, trainer), self.start)


class Bar(RichProgressBar):
    """Lightning's bar, which says where in a longer work it is."""

    @property
    def validation_description(self) -> str:
        return placed(super().validation_description)

    @property
    def predict_description(self) -> str:
        return placed(super().predict_description)

    def _get_train_description(self, current_epoch: int) -> str:
        return placed(f"epoch {current_epoch + 1} of {self.trainer.max_epochs}", self.trainer)


def progress_bar() -> list[Any]:
    """The callback that fits where standard error goes."""
    return [Bar(leave=False)] if console.is_terminal else [EpochLines()]


# For every Trainer: Lightning's own bar only where there is a terminal, and no table of submodules.
TRAINER_OPTIONS = {"enable_progress_bar": console.is_terminal, "enable_model_summary": False}
