"""Power of a paired comparison: the smallest difference that it can show, and what it takes to show a wanted one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import variance

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import chi2, t

NODES, WEIGHTS = (part / 2 for part in np.polynomial.legendre.leggauss(200))
NODES = NODES + 0.5  # of quadrature over (0, 1)
MOST = 10**12  # images, beyond which nobody goes


@dataclass(frozen=True)
class Components:
    """Variances of the difference of two rows, in the squared unit of the metric; none is below 0.

    Attributes:
        image: over images, of what all seeds share.
        seed: over seeds, of what all images share; NaN of one seed.
        rest: of an image and seed beyond both; NaN of one seed, where `image` has it.
    """

    image: float
    seed: float
    rest: float

    def of_image(self, seeds: int) -> float:
        """The standard deviation over images of an image's mean over so many seeds, the trainings as they are."""
        return float(np.sqrt(self.image + (0.0 if np.isnan(self.rest) else self.rest / seeds)))

    def of_seed(self, images: int) -> float:
        """The standard deviation over seeds of a seed's mean over so many images, the images as they are."""
        return float(np.sqrt(self.seed + self.rest / images))


def components(first: np.ndarray, second: np.ndarray) -> Components:
    """Variances of one row of a table minus another, images paired and seeds not: a training has no partner.

    Each row's are estimated from the mean squares of images and seeds without replicates, both random, and add up;
    those over images are of the difference. One seed of either leaves `seed` unknown.

    Args:
        first, second: (N images, S seeds) float64, the images the same, of seeds any number each.

    Raises:
        ValueError: there are fewer than two images.
    """
    if len(first) < 2:
        raise ValueError(f"expected the values of 2 images or more, found {len(first)}: evaluate more")
    of_images = float((first.mean(axis=1) - second.mean(axis=1)).var(ddof=1))
    if min(first.shape[1], second.shape[1]) < 2:
        return Components(of_images, float("nan"), float("nan"))
    rests = [_rest(row) for row in (first, second)]
    seeds = [row.mean(axis=0).var(ddof=1) - rest / len(row) for row, rest in zip((first, second), rests, strict=True)]
    shared = of_images - sum(rest / row.shape[1] for row, rest in zip((first, second), rests, strict=True))
    return Components(max(0.0, shared), max(0.0, float(sum(seeds))), sum(rests))


def _rest(row: np.ndarray) -> float:
    """The mean square of what neither images nor seeds explain."""
    centred = row - row.mean(axis=1, keepdims=True) - row.mean(axis=0) + row.mean()
    return float(np.square(centred).sum() / ((row.shape[0] - 1) * (row.shape[1] - 1)))


def power(difference: float, deviation: float, count: int, alpha: float) -> float:
    """How often a paired two-sided t test of `count` differences finds their true mean.

    The noncentral t distribution by quadrature over the variance that is estimated: SciPy's own, which statsmodels
    stands on, has no value, or a wrong one, where few differences meet a small alpha.

    Args:
        difference: the true mean.
        deviation: the true standard deviation.
        count: of differences, 2 or more.
        alpha: of the test.
    """
    if deviation == 0:
        return 1.0 if difference else alpha
    free = count - 1
    limits = t.isf(alpha / 2, free) * np.sqrt(chi2.ppf(NODES, free) / free)
    shift = abs(difference) / deviation * np.sqrt(count)
    return float(WEIGHTS @ (ndtr(shift - limits) + ndtr(-shift - limits)))


def smallest_difference(deviation: float, count: int, alpha: float = 0.05, wanted: float = 0.8) -> float:
    """The smallest true mean that is found with the `wanted` power; NaN of fewer than two differences.

    Args:
        deviation, count, alpha: as of `power`; divided by the number of comparisons, alpha is the first one of Holm's.
    """
    if count < 2 or np.isnan(deviation):
        return float("nan")
    if deviation == 0:
        return 0.0
    highest = 1.0
    while power(highest, 1.0, count, alpha) < wanted:
        highest *= 2
    return deviation * brentq(lambda size: power(size, 1.0, count, alpha) - wanted, 0.0, highest, xtol=1e-10)


def needed(difference: float, deviation: float, alpha: float = 0.05, wanted: float = 0.8) -> int:
    """How many differences it takes to find a true mean with the `wanted` power; at least 2.

    Raises:
        ValueError: the difference is 0, which no number shows, or so small that it takes more than 10^12.
    """
    if not difference:
        raise ValueError("expected a difference other than 0, found 0, which no number of images shows: name one")
    most = 2
    while power(difference, deviation, most, alpha) < wanted:
        if most > MOST:
            raise ValueError(
                f"expected a difference that some number of images shows, found {difference:g} beside a deviation of "
                f"{deviation:g}: name a larger one"
            )
        most *= 2
    least = most // 2
    while most - least > 1:
        middle = (least + most) // 2
        if middle > 1 and power(difference, deviation, middle, alpha) >= wanted:
            most = middle
        else:
            least = middle
    return max(most, 2)


def spread_over_seeds(rows: Sequence[Sequence[float]]) -> float:
    """The standard deviation over seeds within rows: the pooled one of those with several; NaN where none has.

    sqrt(sum of (S - 1) s^2 / sum of (S - 1)) over rows of S seeds with variance s^2, as in an analysis of variance.

    Args:
        rows: values of each row by seed.
    """
    several = [row for row in rows if len(row) > 1]
    freedom = sum(len(row) - 1 for row in several)
    return float(np.sqrt(sum((len(row) - 1) * variance(row) for row in several) / freedom)) if several else float("nan")


@lru_cache
def seeds_apart(first: int, second: int, wanted: float = 0.8) -> float:
    """By how many standard deviations over seeds two rows must differ for their seeds not to overlap.

    Of S seeds of the lower row and T of the higher one, normal with the same deviation and d deviations apart, the
    lowest of T lies above the highest of S with probability

        P(d) = integral over u in (0, 1) of [1 - Phi(Phi^-1(u^(1 / S)) - d)]^T,

    u being the distribution function of the highest of S, Phi^S (David and Nagaraja, Order Statistics, 2003, section
    2.1). Returned is the d with P(d) = `wanted`; NaN of one seed each, of which a table does not ask it.

    Args:
        first, second: how many seeds the rows have; P is the same the other way round.
    """
    if max(first, second) < 2:
        return float("nan")
    highest = ndtri(NODES ** (1 / first))

    def short(apart: float) -> float:
        return float(WEIGHTS @ ndtr(apart - highest) ** second) - wanted

    return float(brentq(short, 0.0, 20.0, xtol=1e-10))
