"""Intervals of means over images: images are drawn again, each with all that was made for it."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

LEVEL = 0.95
RESAMPLES = 2000
BLOCK = 2**22  # weights that are multiplied at a time

Floats = NDArray[np.float64]


def mean_interval(sums: Floats, counts: Floats, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean whose values come in clusters.

    Values of one image (its captions, draws and seeds) are alike, so that whole images are drawn, with replacement,
    2,000 times. The interval is BCa's: percentiles corrected for the bias of the draws and for how their spread changes
    with the mean (Efron, JASA 1987), the acceleration from leaving out one cluster at a time.

    Args:
        sums: (N, K), of the values of N clusters in each of K seeds.
        counts: (N, K), how many values these are; 0 where a cluster has none. The mean is that over seeds of
            sum / count over all clusters, as a table shows it; seeds are not drawn.
        seed: of the draws.

    Returns:
        Lower and upper end; both the mean where all clusters are equal.

    Raises:
        ValueError: there are fewer than 2 clusters, or a seed without a value.
    """
    if len(sums) < 2 or not (counts.sum(axis=0) > 0).all():
        raise ValueError(f"expected values in 2 clusters or more, found {len(sums)}: score more images")
    mean = float(_ratios(sums.sum(axis=0), counts.sum(axis=0)))
    draws = _ratios(*(_weighted(columns, seed) for columns in (sums, counts)))
    draws = draws[np.isfinite(draws)]  # a draw of clusters without values has no mean
    if np.ptp(draws) <= 1e-12 * max(1.0, abs(mean)):
        return mean, mean
    below = (np.mean(draws < mean) + np.mean(draws <= mean)) / 2
    bias = ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    without = _ratios(sums.sum(axis=0) - sums, counts.sum(axis=0) - counts)
    ends = bias + ndtri([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    shares = ndtr(bias + ends / (1 - _acceleration(without[np.isfinite(without)]) * ends))
    low, high = np.quantile(draws, shares)
    return float(low), float(high)


def _ratios(sums: Floats, counts: Floats) -> Floats:
    """Mean over the last axis, that of seeds, of sum / count; NaN where one has no value."""
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0).mean(axis=-1)


def _acceleration(without: Floats) -> float:
    """A sixth of the skewness of the mean, from its values without each of the clusters."""
    apart = without.mean() - without
    spread = float((apart**2).sum())
    return float((apart**3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0


def _weighted(columns: Floats, seed: int) -> Floats:
    """Sums of (N, K) over the clusters of every draw: (R, K)."""
    weights = multiplicities(len(columns), seed)
    step = max(1, BLOCK // len(columns))
    return np.concatenate([weights[at : at + step].astype(np.float64) @ columns for at in range(0, RESAMPLES, step)])


@lru_cache(maxsize=2)  # all cells of a table have as many images
def multiplicities(count: int, seed: int) -> NDArray[np.uint8]:
    """How often each of N clusters is in each of the draws: (R, N), read-only, rows that add up to N."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((RESAMPLES, count), np.uint8)  # 255 times the same one of many does not happen
    for row in drawn:
        row[:] = np.bincount(rng.integers(count, size=count), minlength=count)
    drawn.setflags(write=False)
    return drawn
