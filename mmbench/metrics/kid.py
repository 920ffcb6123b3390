"""KID."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from mmbench.core.noise import Sample
from mmbench.metrics.base import Score
from mmbench.metrics.feature_sets import FeatureSets
from mmbench.metrics.features import Extractor

BLOCK = 1024  # rows of a kernel matrix at a time
SEED = 2020  # torch-fidelity's


class KID(FeatureSets):
    """Kernel distance between the features of generated and of real images; lower is better, about 0 for one set.

    KID = mean over random subsets, m generated images x and m real ones y, of the unbiased squared MMD
    (sum_{i != j} k(x_i, x_j) + sum_{i != j} k(y_i, y_j)) / (m (m - 1)) - 2 sum_{i, j} k(x_i, y_j) / m^2, with
    k(a, b) = (a . b / D + 1)^3. `value` is the mean over subsets, `std` the standard deviation over them (divided by
    their number); no unit; slightly negative values are right where the sets are alike. Source: Binkowski et al.,
    ICLR 2018, arXiv:1801.01401. Images are sorted by sample, and subsets drawn as torch-fidelity draws them (seed
    2020): the value is torch-fidelity's on the same features in float64. In float32, as it comes out of its
    extractor, its own kernel sums are off by some 1e-7 of k, which can be 1e-4 of a small KID.

    Args:
        extractor: gives `features` (N, D); for the published metric, Inception's pool3 of 2048.
        subsets: number of subsets; 100 in torch-fidelity.
        subset_size: images of each kind in a subset; 1000 in torch-fidelity.

    Raises:
        ValueError: a subset has fewer than two images of each kind; on compute, there are fewer generated or real
            images than a subset has, or an image came twice.
    """

    higher_is_better = False
    name = "KID"
    fewer = ", or set protocol.metrics.kid.subset_size=N to fewer (the score is another one then, and is named so)"

    def __init__(self, extractor: Extractor, subsets: int, subset_size: int) -> None:
        super().__init__(extractor)
        if subset_size < 2:
            raise ValueError(f"expected KID's subset_size from 2, which make a pair, found {subset_size}: raise it")
        self.subsets = subsets
        self.subset_size = subset_size

    @property
    def least_count(self) -> int:
        return self.subset_size

    def part(self, samples: Sequence[Sample], held: Mapping[str, Tensor]) -> Self:
        """As `Metric.part`; where there are fewer images than a subset has, with them all: the mean is the same."""
        part = super().part(samples, held)
        part.subset_size = min(self.subset_size, len(samples))
        return part

    def compute(self) -> Score:
        generated, real = self.generated(self.subset_size), self.real(self.subset_size)
        return kernel_distance(generated, real, self.subsets, self.subset_size)


def kernel_distance(generated: Tensor, real: Tensor, subsets: int, subset_size: int) -> Score:
    """KID of features (N, D) and (M, D) in the order of samples."""
    stream = np.random.RandomState(SEED)
    drawn = [
        [stream.choice(len(features), subset_size, replace=False) for features in (generated, real)]
        for _ in range(subsets)
    ]
    x, y = (torch.from_numpy(np.stack(rows)).to(generated.device) for rows in zip(*drawn, strict=True))  # (S, m)
    within = _without_diagonal(generated, x) + _without_diagonal(real, y)
    across = subset_sums(generated, real, x, y)
    distances = within / (subset_size * (subset_size - 1)) - 2 * across / subset_size**2
    return Score(float(distances.mean()), float(distances.std(correction=0)), len(generated))


def _without_diagonal(features: Tensor, rows: Tensor) -> Tensor:
    norms = torch.cat([part.double().square().sum(dim=1) for part in features.split(BLOCK)])  # (N,)
    diagonal = (norms / features.shape[1] + 1) ** 3
    return subset_sums(features, features, rows, rows) - diagonal[rows].sum(dim=1)


def subset_sums(first: Tensor, second: Tensor, rows_1: Tensor, rows_2: Tensor) -> Tensor:
    """Sum of the kernel over all pairs of each subset, (S,) float64.

    Args:
        first, second: features, (N, D) and (M, D).
        rows_1, rows_2: what of them is in each subset, (S, m) int64, no row twice.
    """
    if len(first) * len(second) > rows_1.numel() * rows_2.shape[1]:
        return torch.stack([kernel(first[one], second[two]).sum() for one, two in zip(rows_1, rows_2, strict=True)])
    # Subsets overlap so much that each pair of images is better looked at once, for all of them.
    inside_1, inside_2 = _membership(rows_1, len(first)), _membership(rows_2, len(second))
    sums = torch.zeros(len(rows_1), dtype=torch.float64, device=first.device)
    for part, inside in zip(first.split(BLOCK), inside_1.split(BLOCK, dim=1), strict=True):
        sums += ((inside @ kernel(part, second)) * inside_2).sum(dim=1)
    return sums


def _membership(rows: Tensor, count: int) -> Tensor:
    """(S, count) float64: 1 for what is in a subset."""
    return torch.zeros(len(rows), count, dtype=torch.float64, device=rows.device).scatter_(1, rows, 1)


def kernel(first: Tensor, second: Tensor) -> Tensor:
    """(a . b / D + 1)^3 of all pairs of rows: (N, M) float64."""
    return (first.double() @ second.double().T).div_(first.shape[1]).add_(1).pow_(3)
