"""How far raters agree: Kendall's W and Krippendorff's alpha, and intervals over items of any statistic."""

from collections.abc import Callable

import evalica
import numpy as np
import pandas as pd
from scipy.stats import rankdata

RESAMPLES = 1000


def kendalls_w(ratings: np.ndarray) -> float:
    """Kendall's coefficient of concordance, with his correction for ties.

    Args:
        ratings: (M, K) float, of M raters for K things, all present; ranks, or what can be ranked.

    Returns:
        1 where all raters put the things in one order, 0 where their orders cancel out; NaN of fewer than two raters
        or things, and where nobody tells any two things apart.
    """
    raters, things = ratings.shape
    if raters < 2 or things < 2:
        return float("nan")
    ranks = rankdata(ratings, axis=1)
    totals = ranks.sum(axis=0)
    spread = ((totals - totals.mean()) ** 2).sum()
    ties = sum(float((counts**3 - counts).sum()) for row in ranks for counts in [np.unique(row, return_counts=True)[1]])
    largest = raters**2 * (things**3 - things) - raters * ties
    return float(12 * spread / largest) if largest > 0 else float("nan")


def krippendorffs_alpha(ratings: np.ndarray, level: str) -> float:
    """Krippendorff's alpha: 1 of perfect agreement, 0 of what chance gives, below 0 of less.

    Args:
        ratings: (M, U) float, of M raters for U units; NaN where a rater has not seen a unit.
        level: of measurement, `nominal`, `ordinal` or `interval`.

    Returns:
        alpha; NaN where no unit has two ratings, and where all ratings are one value, which tells nothing of agreement.
    """
    shared = ratings[:, (~np.isnan(ratings)).sum(axis=0) >= 2]
    if shared.size == 0 or len(np.unique(shared[~np.isnan(shared)])) < 2:
        return float("nan")
    return float(evalica.alpha(pd.DataFrame(shared), level).alpha)


def interval_over_items(
    statistic: Callable[[np.ndarray], np.ndarray | float],
    num_items: int,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """A percentile bootstrap over items: all that was said of an item is drawn, or left out, together.

    Args:
        statistic: of places of items (N,) int64, of which some come several times; a number, or an array of them.
        num_items: N.
        generator: of the resamples.

    Returns:
        lower and upper ends, each of the statistic's shape; NaN of fewer than two items, and where more than half of
        the resamples give no number.
    """
    if num_items < 2:
        nothing = np.full(np.shape(statistic(np.arange(num_items))), np.nan)
        return nothing, nothing
    draws = generator.integers(num_items, size=(resamples, num_items))
    found = np.array([statistic(places) for places in draws], np.float64)
    lacking = np.isnan(found).mean(axis=0) > 0.5
    tail = (1 - level) / 2
    ends = np.nanquantile(np.where(lacking, 0.0, found), [tail, 1 - tail], axis=0)
    low, high = np.where(lacking, np.nan, ends)
    return low, high
