"""How far raters agree: Kendall's W and Krippendorff's alpha, and intervals over items of any statistic."""

from collections.abc import Callable

import evalica
import numpy as np
import pandas as pd
from scipy.stats import rankdata

RESAMPLES = 1000
SHUFFLES = 9_999  # of all orders, so that p is never below 1 / 10,000


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


def chance_of_w(ranks: np.ndarray, generator: np.random.Generator) -> tuple[float, float]:
    """What the mean of Kendall's W over items is of raters who have nothing in common, and how often it is as large.

    Of m such raters W is 1 / m in expectation: half of what it can be, where two have ranked. p is of a permutation
    test, in which the things are named anew for each rater, alike on all items: a rater may prefer one thing to another
    everywhere without anybody else doing so. Shuffles at each item would take such a taste for as many votes as there
    are items. The chi-square m (k - 1) W with k - 1 degrees of freedom finds too little where raters are few
    (P. Legendre, Species associations: the Kendall coefficient of concordance revisited, J. Agric. Biol. Environ. Stat.
    10, 2005, who recommends to shuffle). The ranks found are counted among the others, so that p is not 0; of two
    raters and k things it is never below 1 / k! by much.

    Args:
        ranks: (M, N, K) float, each of 1 to K once, NaN of an item that a rater has not ranked.

    Returns:
        the expectation and p; NaN where no item has two raters.
    """
    raters, _, things = ranks.shape
    numbers = (~np.isnan(ranks).any(axis=2)).sum(axis=0)  # of raters, by item
    ranks, numbers = ranks[:, numbers > 1], numbers[numbers > 1]
    if not len(numbers):
        return float("nan"), float("nan")
    centred = np.where(np.isnan(ranks), 0.0, ranks - (things + 1) / 2)
    weights = 12 / (numbers**2 * (things**3 - things)) / len(numbers)
    names = np.broadcast_to(np.arange(things), (SHUFFLES, raters, things))
    names = np.concatenate([names[:1], generator.permuted(names, axis=2)])  # the first as they were
    found = [weights @ (_renamed(centred, of_all) ** 2).sum(axis=1) for of_all in names]
    return float((1 / numbers).mean()), float((found >= found[0] - 1e-9).mean())


def _renamed(centred: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Sums over raters of (M, N, K) ranks, of each of them by names (M, K) of the things: (N, K)."""
    return np.take_along_axis(centred, names[:, None], axis=2).sum(axis=0)


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
