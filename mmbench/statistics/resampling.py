"""Intervals of scores of whole sets of images (FID, KID, IS, precision and recall), from halves of the images.

Drawing images again with replacement, as for means, puts images into a set twice: such a set is less diverse than any
that the generator makes, and FID is biased upwards by it, far beyond its spread. Here parts are drawn without
replacement (subsampling; with half of the images, the delete-half jackknife of Shao and Wu, Ann. Stat. 1989).
A score of m of n images varies about that of all n as 1 / m - 1 / n, for m = n / 2 thus as 1 / n: as the score of all n
varies about that of the generator. Deviations are scaled by the root of m / (n - m), which is 1 for even n.

A score that depends on the number of images (FID falls by about c / n, IS rises) has another mean over halves. The
deviations are taken from that mean, so that an interval says what other images in the same number would give, and not
what infinitely many would: tables compare rows with as many images. The real set is not drawn again.
"""

from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from mmbench.statistics.bootstrap import LEVEL, Floats

HALVES = 100


class Deviations(NamedTuple):
    """How a score, or the difference of two, varies with the images.

    Attributes:
        interval: 95 %, about the score.
        p: two-sided, of a true difference of zero.
    """

    interval: tuple[float, float]
    p: float


def halves(count: int, seed: int = 0) -> NDArray[np.int64]:
    """Halves of N images, or of clusters of them: (100, N // 2) places, each sorted; the same ones for the same N.

    Raises:
        ValueError: there are fewer than 4, of which no half has a spread.
    """
    if count < 4:
        raise ValueError(f"expected 4 images or more for halves of them, found {count}: score more images")
    rng = np.random.default_rng(seed)
    return np.stack([np.sort(rng.choice(count, count // 2, replace=False)) for _ in range(HALVES)])


def deviations(scores: Floats, count: int) -> Floats:
    """What the scores (100,) of halves of N images say of the score of all: deviations (100,) of mean 0.

    Those of several seeds, or of two rows with the same images, may be averaged or subtracted.
    """
    half = count // 2
    return (scores - scores.mean()) * np.sqrt(half / (count - half))


def judged(value: float, found: Floats) -> Deviations:
    """Interval and p of a score or a difference, of which the deviations (100,) are known; by Student's t.

    With no deviation at all the interval is the value, and p 1 of zero and 0 of any other difference.
    """
    spread = float(found.std(ddof=1))
    apart = float(scipy.stats.t.ppf((1 + LEVEL) / 2, len(found) - 1)) * spread
    if spread == 0:
        return Deviations((value, value), float(value == 0))
    return Deviations((value - apart, value + apart), float(2 * scipy.stats.t.sf(abs(value) / spread, len(found) - 1)))
