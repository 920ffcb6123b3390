"""The base of every method."""

from typing import Any, ClassVar

import pytorch_lightning as pl
from torch import Tensor

from mmbench.core.noise import Noise
from mmbench.core.task import Task
from mmbench.core.weights import KeyMap

Batch = dict[str, Any]


class Method(pl.LightningModule):
    """A published method: its networks, its training step and how it makes an image.

    Attributes:
        task: what goes in and what is wanted.
        official: submodule name to the map from the authors' keys; empty where no weights were published.
    """

    task: ClassVar[Task]
    official: ClassVar[dict[str, KeyMap]] = {}

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        """One image for each sample of the batch.

        Args:
            batch: the fields that `task.inputs` names.
            noise: the only source of randomness; row n belongs to sample n.

        Returns:
            (N, 3, H, W) float in [-1, 1]. Row n does not depend on the other rows.
        """
        raise NotImplementedError

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Tensor:
        return self.generate(batch, batch["noise"])
