"""L1."""

import torch
from torch import Tensor

from mmbench.metrics.base import AgainstReal, Batch, compared


class L1(AgainstReal):
    """Mean absolute difference between a generated image and a real one, of values in [0, 1].

    L1 = mean over channels and pixels of |a - b| / 255, in [0, 1], then mean over images. Tables in per cent print
    100 times this.

    Args:
        against: the batch field to compare with, (N, 3, H, W) float in [-1, 1].
    """

    higher_is_better = False

    def update(self, images: Tensor, batch: Batch) -> None:
        self.record(mean_absolute_difference(images, batch[self.against]))


def mean_absolute_difference(images: Tensor, real: Tensor) -> Tensor:
    """Mean |a - b| of each pair of images, of values in [0, 1]: (N,) float64."""
    first, second = compared(images, real, torch.int16)
    # A sum of whole numbers is exact, so that the rounding happens once, whatever the batch.
    return torch.sub(first, second).abs().sum(dim=(1, 2, 3)).double() / (255 * first[0].numel())
