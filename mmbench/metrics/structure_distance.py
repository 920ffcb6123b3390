"""Structure distance."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.metrics.base import AgainstReal, Batch, row_means
from mmbench.metrics.features import one_thread


class StructureDistance(AgainstReal):
    """Mean squared difference of the self-similarities of DINO's keys in a generated image and in a real one.

    S[i, j] = cos(key i, key j) over all tokens of an image, the class token's among them; the distance is the mean over
    all pairs (i, j) of (S - S')^2, in [0, 4], 0 for an unchanged image, the same with the images exchanged; averaged
    over images. What a key says does not count, only which places are alike: keys that are turned or scaled as one
    have the same self-similarity. Source: Tumanyan et al., Splice, CVPR 2022, arXiv:2201.00424, equation 3, as a loss;
    as a metric: Ju et al., PnP Inversion, ICLR 2024, arXiv:2310.01506, whose tables print 1000 times this.

    PIE-Bench's evaluation shows DINO levels of 0 to 255 where values in [0, 1] were meant, and resizes without
    anti-aliasing (torchvision 0.13): its numbers are another metric, `pie_structure_distance`, the same class on
    another extractor. https://github.com/cure-lab/PnPInversion/blob/f480116/evaluation/matrics_calculator.py

    Args:
        extractor: gives `keys` (N, T, D).
        against: the batch field to compare with, (N, 3, H, W) float in [-1, 1].
    """

    higher_is_better = False

    def update(self, images: Tensor, batch: Batch) -> None:
        assert self.extractor is not None
        ours, real = (self.extractor(pictures)["keys"] for pictures in (images, batch[self.against]))
        self.record(structure_distance(ours, real))


def structure_distance(ours: Tensor, real: Tensor) -> Tensor:
    """Mean squared difference of self-similarities, of keys (N, T, D): (N,) float64, one image after the other."""
    with one_thread():
        apart = [self_similarity(one) - self_similarity(other) for one, other in zip(ours, real, strict=True)]
        return row_means(torch.stack(apart).square())


def self_similarity(keys: Tensor) -> Tensor:
    """Cosine of each key with each other one: (T, D) to (T, T) float64."""
    directions = F.normalize(keys.double(), dim=-1)
    return directions @ directions.T
