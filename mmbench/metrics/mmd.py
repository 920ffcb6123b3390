"""MMD with a Gaussian kernel, of which CMMD is one; biased and unbiased."""

import math

from torch import Tensor

from mmbench.metrics.base import Score
from mmbench.metrics.feature_sets import FeatureSets
from mmbench.metrics.features import Extractor, one_thread
from mmbench.metrics.precision_recall import squared_distances

BLOCK = 1024  # rows of a kernel matrix at a time


class BiasedMMD(FeatureSets):
    """Squared maximum mean discrepancy of generated and real images; lower is better, 0 for one set with itself.

    factor * (mean_{i,j} k(x_i, x_j) + mean_{i,j} k(y_i, y_j) - 2 mean_{i,j} k(x_i, y_j)) over all pairs, a feature with
    itself included, with k(a, b) = exp(-|a - b|^2 / (2 sigma^2)). The pairs of a feature with itself make it too large,
    by about factor * (1 - mean k) (1/n + 1/m), which falls as the sets grow.

    CMMD is this with sigma 10, factor 1000 and CLIP's unit embeddings of ViT-L/14 at 336 pixels. Source: Jayasumana et
    al., CVPR 2024, arXiv:2401.09603; estimator and resizing are those of the authors' code and of its port,
    https://github.com/sayakpaul/cmmd-pytorch/blob/49fb717/distance.py, whose float32 sums differ from one version of
    PyTorch to the next: CLIP's features lie so close, beside sigma, that each k is nearly 1. Here k - 1 is added up, in
    float64, in the order of samples, and the ones cancel exactly. No spread is defined.

    Args:
        extractor: gives `features` (N, D).
        sigma: width of the kernel, in units of the features; 10 in CMMD.
        factor: 1000 in CMMD, for numbers that are easy to read.

    Raises:
        ValueError: on compute, there are fewer than 2 generated or real images, or an image came twice.
    """

    higher_is_better = False
    least_count = 2  # a pair
    name = "MMD"

    def __init__(self, extractor: Extractor, sigma: float, factor: float) -> None:
        super().__init__(extractor)
        self.sigma = sigma
        self.factor = factor

    def compute(self) -> Score:
        generated, real = self.generated(self.least_count), self.real(self.least_count)
        with one_thread():
            within = [self.mean_within(kernel_sum(one, one, self.sigma), len(one)) for one in (generated, real)]
            across = kernel_sum(generated, real, self.sigma) / (len(generated) * len(real))
        return Score(self.factor * (sum(within) - 2 * across), None, len(generated))

    def mean_within(self, total: float, count: int) -> float:
        """Mean of k - 1 over the pairs of one set, from its sum over all of them; those of one feature add 0."""
        return total / count**2


class UnbiasedMMD(BiasedMMD):
    """As `BiasedMMD`, without the pairs of a feature with itself: its expectation is right for any number of images.

    (sum_{i != j} k(x_i, x_j)) / (n (n - 1)) and alike for y, minus 2 mean k(x_i, y_j). It may be below 0 where the sets
    are alike. Source: Gretton et al., JMLR 2012, equation 3. No published table of CMMD that we know is made with it.
    """

    def mean_within(self, total: float, count: int) -> float:
        return total / (count * (count - 1))


def kernel_sum(first: Tensor, second: Tensor, sigma: float) -> float:
    """Sum of k - 1 over all pairs of rows of (N, D) and (M, D), in float64."""
    sums = []
    for part in first.split(BLOCK):
        for others in second.split(BLOCK):
            sums.append(float(squared_distances(part, others).div_(-2 * sigma**2).expm1_().sum()))
    return math.fsum(sums)
