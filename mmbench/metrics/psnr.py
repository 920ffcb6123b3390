"""PSNR."""

import math

import torch
from torch import Tensor

from mmbench.metrics.base import AgainstReal, Batch, compared

ROUNDING_ERROR = 1 / 12  # variance of what rounding to whole levels hides


class PSNR(AgainstReal):
    """Peak signal-to-noise ratio in dB, per image, then averaged.

    PSNR = 10 log10(255^2 / max(MSE, 1/12)) with MSE over channels and pixels of 8-bit levels. 1/12 is the mean
    squared error that rounding to 8 bits itself makes: two images that differ by less cannot be told apart, and an
    unchanged image has 58.92 dB instead of infinity, which neither a mean nor a record can hold. The mean is over the
    images' values, as in inpainting papers, not over their errors.

    Args:
        against: the batch field to compare with, (N, 3, H, W) float in [-1, 1].
    """

    higher_is_better = True
    unit = "dB"

    def update(self, images: Tensor, batch: Batch) -> None:
        first, second = compared(images, batch[self.against], torch.int32)
        errors = (first - second).square().sum(dim=(1, 2, 3)).double() / first[0].numel()
        self.record(decibels(errors))


def decibels(errors: Tensor) -> Tensor:
    """PSNR of mean squared errors of levels, of at least 1/12: (N,) float64."""
    return 10 * (255**2 / errors.clamp(min=ROUNDING_ERROR)).log() / math.log(10)
