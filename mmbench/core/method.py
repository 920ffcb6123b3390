"""The base of every method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import pytorch_lightning as pl
import torch
from torch import Tensor

from mmbench.core.noise import Noise
from mmbench.core.task import Task
from mmbench.core.weights import KeyMap

Batch = dict[str, Any]


class Kept(Protocol):
    """What a method keeps beside its weights: a vocabulary, statistics of a codebook."""

    def write(self, path: Path) -> None:
        """Writes it to a file."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads what `write` wrote."""

    def require_same(self, stored: Self, source: str) -> None:
        """Raises ValueError if weights that were trained with `stored`, of the file `source`, do not go with this."""


class Method(pl.LightningModule):
    """A published method: its networks, its training step and how it makes an image.

    Where training takes several captions of an image, the constructor's argument `num_captions` says how many: data
    with fewer are refused before anything is trained.

    Attributes:
        task: what goes in and what is wanted.
        trains_on: batch fields that `training_step` reads, beside `id`, `sample` and `noise`.
        smallest_batch: images that a training batch needs at least, on each process.
        needs_gradients: whether `generate` computes gradients, as what optimises or guides by a loss does.
        accumulate: parts that a batch is cut into, whose gradients are added up before a step; set by training.
        at_once: images that `generate` is asked for at once, at most, where each takes many passes: what was finished
            is kept when a run is stopped, and progress is of so many. None: as many as are loaded at once.
        official: submodule name to the map from the authors' keys; empty where no weights were published.
    """

    task: ClassVar[Task]
    trains_on: ClassVar[frozenset[str]] = frozenset()
    smallest_batch: ClassVar[int] = 1
    needs_gradients: ClassVar[bool] = False
    at_once: ClassVar[int | None] = None
    official: ClassVar[dict[str, KeyMap]] = {}
    accumulate: int = 1

    @property
    def beside(self) -> Mapping[str, Kept]:
        """What is kept beside the weights, by the name of its file: other weights with other ones are refused."""
        return {}

    @property
    def first_part(self) -> bool:
        """Whether a batch begins with this part of it."""
        return self.accumulate == 1 or self._place % self.accumulate == 0

    @property
    def last_part(self) -> bool:
        """Whether a batch ends with this part of it, so that optimisers are stepped."""
        return self.accumulate == 1 or (self._place + 1) % self.accumulate == 0

    @property
    def _place(self) -> int:
        return self.trainer.fit_loop.epoch_loop.batch_idx

    def generate(self, batch: Batch, noise: Noise) -> Any:
        """One image, video or text for each sample of the batch, as `task.output` says.

        Args:
            batch: the fields that `task.inputs` names.
            noise: the only source of randomness; row n belongs to sample n.

        Returns:
            Images (N, 3, H, W) or videos (N, F, 3, H, W), float in [-1, 1], or a list of N texts. Row n does not
            depend on the other rows.
        """
        raise NotImplementedError

    def total(self, name: str, terms: Mapping[str, Tensor]) -> Tensor:
        """The sum of named loss terms (scalars), each logged as `name/term` and averaged over the epoch.

        Raises:
            ValueError: a term is NaN or infinite; says which, in which step, and where the last checkpoint is.
        """
        values = torch.stack(list(terms.values()))
        if not (finite := torch.isfinite(values)).all():
            term = list(terms)[int(finite.logical_not().nonzero()[0])]
            raise ValueError(
                f"expected finite losses, found {term} of {name} to be {float(terms[term].detach())} in epoch "
                f"{self.current_epoch}, step {self.trainer.fit_loop.epoch_loop.batch_idx}: lower the learning rate; "
                f"last good checkpoint: {last_checkpoint(self.trainer)}"
            )
        logged = {f"{name}/{term}": value.detach() for term, value in terms.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        return values.sum()

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Any:
        # Images do not depend on the precision of training: `trainer.precision` is no part of what a record is of.
        with torch.autocast(self.device.type, enabled=False), torch.set_grad_enabled(self.needs_gradients):
            made = self.generate(batch, batch["noise"])
        return made.detach() if isinstance(made, Tensor) else made


def last_checkpoint(trainer: pl.Trainer) -> str:
    """Where the last checkpoint of a training lies, in words."""
    return getattr(trainer.checkpoint_callback, "best_model_path", "") or "none yet"
