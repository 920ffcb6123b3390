"""Density and coverage."""

import torch
from torch import Tensor

from mmbench.metrics.base import Score
from mmbench.metrics.precision_recall import BLOCK, ROUNDING, Neighbourhoods, squared_distances, squared_radii


class Density(Neighbourhoods):
    """Density: in how many balls around real images a generated one lies, divided by k; 1 for one set with itself.

    The ball of a real image reaches to its k-th nearest neighbour among the real ones, which lies on it and is not in
    it, as in the authors' code. Higher is better; it may be above 1, where samples crowd into
    dense regions. Unlike precision, an outlier's large ball counts as one among many. Source: Naeem et al., ICML 2020,
    arXiv:2002.09797, equation 3, k = 5; https://github.com/clovaai/generative-evaluation-prdc. The paper looks through
    VGG-16. Distances are taken in float64 and block by block; no spread is defined.

    Raises:
        ValueError: on compute, there are fewer than k + 1 generated or real images, or an image came twice.
    """

    name = "density"

    def compute(self) -> Score:
        generated, real = self.sets()
        density, _ = density_and_coverage(generated, real, self.neighbours)
        return Score(density, None, len(generated))


class Coverage(Neighbourhoods):
    """Coverage: the share of real images with a generated one in their ball; in [0, 1], higher is better.

    Balls as in `Density`. Unlike recall, it does not grow with the outliers of the generated set; of two equal sets it
    is 1. It depends on the number of generated images: compare it at equal `count`. Source: Naeem et al., equation 4.

    Raises:
        ValueError: as `Density`.
    """

    name = "coverage"

    def compute(self) -> Score:
        generated, real = self.sets()
        _, coverage = density_and_coverage(generated, real, self.neighbours)
        return Score(coverage, None, len(generated))


def density_and_coverage(generated: Tensor, real: Tensor, neighbours: int) -> tuple[float, float]:
    """Both of features (N, D) and (M, D): how often a generated one lies in a real ball, and how many balls are hit."""
    radii = squared_radii(real, neighbours) * (1 - ROUNDING)  # what lies on a ball is not in it
    inside = hit = 0
    for balls, radius in zip(real.split(BLOCK), radii.split(BLOCK), strict=True):
        counts = torch.zeros(len(balls), dtype=torch.int64, device=balls.device)
        for part in generated.split(BLOCK):
            counts += (squared_distances(balls, part) < radius[:, None]).sum(dim=1)
        inside += int(counts.sum())
        hit += int((counts > 0).sum())
    return inside / (neighbours * len(generated)), hit / len(real)
