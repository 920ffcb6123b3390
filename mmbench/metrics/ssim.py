"""SSIM."""

import math

import torch
from torch import Tensor

from mmbench.metrics.base import AgainstReal, Batch, compared

RADIUS = 5
SIGMA = 1.5


class SSIM(AgainstReal):
    """Structural similarity of 8-bit RGB images, per image, then averaged; 1 for an unchanged image.

    SSIM = (2 m_a m_b + C1)(2 s_ab + C2) / ((m_a^2 + m_b^2 + C1)(s_a^2 + s_b^2 + C2)) at each pixel that an 11 x 11
    Gaussian window of sigma 1.5 fits around, C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2, averaged over these pixels and
    the channels. Source: Wang et al., 2004; the numbers are scikit-image's with `gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=255`.

    Args:
        against: the batch field to compare with, (N, 3, H, W) float in [-1, 1]; H and W at least 11.
    """

    higher_is_better = True
    least_size = 2 * RADIUS + 1

    def update(self, images: Tensor, batch: Batch) -> None:
        self.require_size(*images.shape[:-3:-1])
        self.record(structural_similarity(*compared(images, batch[self.against])))


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """SSIM of pairs of images, (N, C, H, W) float64 in [0, 255]: (N,) float64."""
    # One pair at a time stays in a processor's cache, and takes a tenth of the time.
    return torch.stack([similarity_map(one, other).mean() for one, other in zip(first, second, strict=True)])


def similarity_map(first: Tensor, second: Tensor) -> Tensor:
    """SSIM of a pair of images, (C, H, W) float64 in [0, 255], where the window fits: (C, H - 10, W - 10)."""
    maps = _blur(torch.stack((first, second, first * first, second * second, first * second)))
    mean_1, mean_2, square_1, square_2, product = maps
    variance_1, variance_2 = square_1 - mean_1**2, square_2 - mean_2**2
    covariance = product - mean_1 * mean_2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_1 * mean_2 + c1) / (mean_1**2 + mean_2**2 + c1)
    structure = (2 * covariance + c2) / (variance_1 + variance_2 + c2)
    return luminance * structure


def _blur(maps: Tensor) -> Tensor:
    """Gaussian mean around each pixel that the window fits around."""
    offsets = range(-RADIUS, RADIUS + 1)
    window = [math.exp(-(offset**2) / (2 * SIGMA**2)) for offset in offsets]
    for dim in (-1, -2):
        room = maps.shape[dim] - 2 * RADIUS
        blurred = torch.zeros_like(maps.narrow(dim, 0, room), memory_format=torch.contiguous_format)
        for place, weight in enumerate(window):
            blurred.add_(maps.narrow(dim, place, room), alpha=weight / sum(window))
        maps = blurred
    return maps
