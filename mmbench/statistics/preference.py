"""What preferences say of the things that were compared: wins, win rates, and Bradley-Terry strengths."""

from itertools import combinations

import evalica
import numpy as np

PRIOR = 0.1  # wins of each thing against each other that nobody gave


def wins_of_ranks(ranks: np.ndarray) -> np.ndarray:
    """What a ranking says of each pair: 1 for the one that is ahead, half for both where they are level.

    Args:
        ranks: (K,) float, smaller is better; NaN of what was not ranked.

    Returns:
        (K, K) float64, wins of the first over the second.
    """
    ahead, level = ranks[:, None] < ranks[None, :], ranks[:, None] == ranks[None, :]
    np.fill_diagonal(level, False)
    return ahead + 0.5 * level


def win_rates(wins: np.ndarray) -> np.ndarray:
    """Share of its comparisons that each thing won, ties as half a win: (K, K) wins to (K,) in [0, 1].

    NaN of what was not compared.
    """
    won, lost = wins.sum(axis=1), wins.sum(axis=0)
    return np.divide(won, won + lost, out=np.full(len(wins), np.nan), where=won + lost > 0)


def bradley_terry(wins: np.ndarray, prior: float = PRIOR) -> np.ndarray:
    """Strengths of the model of Bradley and Terry (Biometrika 39, 1952), by maximum likelihood.

    The odds that i is preferred to j are exp(strength i - strength j). A tie counts as half a win of each. A few wins
    that nobody gave keep strengths finite where a thing won or lost all of its comparisons, and draw all of them a
    little towards each other.

    Args:
        wins: (K, K) float, wins of the first over the second, halves of ties among them.
        prior: wins that are added to each thing against each other; 0 for plain maximum likelihood.

    Returns:
        (K,) float64 with mean 0; NaN of what was not compared.
    """
    known = np.flatnonzero(wins.sum(axis=0) + wins.sum(axis=1)).tolist()
    strengths = np.full(len(wins), np.nan)
    if not known:
        return strengths
    pairs = [*combinations(known, 2)]
    firsts, seconds = [i for i, _ in pairs] * 2, [j for _, j in pairs] * 2
    winners = [evalica.Winner.X] * len(pairs) + [evalica.Winner.Y] * len(pairs)
    weights = [wins[i, j] + prior for i, j in pairs] + [wins[j, i] + prior for i, j in pairs]
    fitted = evalica.bradley_terry(firsts, seconds, winners, weights=weights, tolerance=1e-10, limit=10_000)
    found = np.log(fitted.scores.reindex(known).to_numpy(np.float64))
    strengths[known] = found - found.mean()
    return strengths
