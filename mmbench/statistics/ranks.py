"""How stable a ranking is: Kendall's tau between rankings, and how often each of several is the best."""

from itertools import combinations

import numpy as np
from scipy.stats import kendalltau


def tau(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's tau-b of two lists of values of the same rows, (R,) each; NaN where one of them is constant."""
    return float(kendalltau(first, second).statistic)


def taus(values: np.ndarray) -> dict[tuple[int, int], float]:
    """Kendall's tau-b of each two of K rankings: the places of both to it, without those that have none.

    Args:
        values: (K, R), what each of K rankings ranks R rows by, in one direction.
    """
    found = {pair: tau(values[pair[0]], values[pair[1]]) for pair in combinations(range(len(values)), 2)}
    return {pair: value for pair, value in found.items() if not np.isnan(value)}


def best_probabilities(values: np.ndarray, rng: np.random.Generator, draws: int = 2000) -> np.ndarray:
    """How often each row is the best when images are drawn again with replacement, all rows on the same ones.

    Args:
        values: (R rows, N images) float64, higher is better.
        rng: draws the images.
        draws: how often.

    Returns:
        (R,) shares that add up to 1; where several are the best of a draw it counts for all of them alike.
    """
    images = values.shape[1]
    counts = rng.multinomial(images, np.full(images, 1 / images), draws)
    means = counts @ (values - values.mean()).T / images  # (draws, R); centred, so that ties are ties
    best = np.isclose(means, means.max(axis=1, keepdims=True), rtol=0, atol=1e-12 * max(1.0, np.abs(values).max()))
    return (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
