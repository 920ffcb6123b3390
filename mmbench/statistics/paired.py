"""Is the difference of two rows more than chance? Tests on the same images, and their correction for a whole table."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from mmbench.statistics.bootstrap import Floats, mean_interval

FLIPS = 19_999
EXACT = 14  # clusters that differ up to which all patterns of signs are looked at: 16,384
BLOCK = 2**22  # signs at a time
ROUNDING = 1e-9  # sums that are equal up to float64's rounding are equal


class Tested(NamedTuple):
    """A paired comparison of two rows.

    Attributes:
        difference: mean over clusters of the differences.
        interval: its 95 % bootstrap interval.
        p: two-sided, of the permutation test.
        clusters: number of images that both rows have.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    clusters: int


def paired_tests(differences: Sequence[Floats], seed: int = 0) -> list[Tested]:
    """Paired tests, each of the (N,) differences of two rows, one for each cluster: of its mean in either.

    Seeds are not drawn: what is tested is whether these trained networks differ over images, not whether another
    training would.

    Raises:
        ValueError: a pair of rows has fewer than 2 clusters in common.
    """
    ps = permutation_p(differences, seed)
    return [
        Tested(float(one.mean()), mean_interval(one[:, None], np.ones((len(one), 1)), seed), p, len(one))
        for one, p in zip(differences, ps, strict=True)
    ]


def permutation_p(differences: Sequence[Floats], seed: int = 0) -> list[float]:
    """Two-sided p of mean differences of zero, by exchanging the rows in some of the clusters.

    Where rows do not differ, each cluster's difference might as well have the other sign: p is the share of patterns of
    signs whose sum is at least as large as the one found. All patterns are looked at where 14 clusters or fewer differ,
    else 19,999 random ones and the one found, so that p is never below 1 / 20,000.

    Args:
        differences: (N,) of each test; tests of as many clusters share the random signs.
        seed: of the signs.
    """
    found: dict[int, float] = {}
    by_count: dict[int, list[int]] = {}
    for place, one in enumerate(differences):
        differing = one[one != 0]
        if len(differing) <= EXACT:
            signs = np.array(list(product((-1.0, 1.0), repeat=len(differing))))
            found[place] = float(_at_least(signs @ differing, differing.sum(), np.abs(differing).sum()).mean())
        else:
            by_count.setdefault(len(one), []).append(place)
    for places in by_count.values():
        found |= dict(zip(places, _random_p(np.stack([differences[place] for place in places], 1), seed), strict=True))
    return [found[place] for place in range(len(differences))]


def smallest_p(count: int) -> float:
    """The smallest p that `permutation_p` gives of so many clusters, however much they differ."""
    return 2.0 ** (1 - count) if count <= EXACT else 1 / (1 + FLIPS)


def _random_p(columns: Floats, seed: int) -> list[float]:
    """p of each of M tests of N clusters, (N, M), by random signs."""
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK // len(columns))
    exceeded = np.zeros(columns.shape[1])
    for at in range(0, FLIPS, step):
        bits = rng.integers(2, size=(min(step, FLIPS - at), len(columns)), dtype=np.int8)
        sums = (2.0 * bits - 1) @ columns
        exceeded += _at_least(sums, columns.sum(axis=0), np.abs(columns).sum(axis=0)).sum(axis=0)
    return ((1 + exceeded) / (1 + FLIPS)).tolist()


def _at_least(sums: Floats, found: Floats, scale: Floats) -> np.ndarray:
    """Whether sums are at least as far from zero as the one found."""
    return np.abs(sums) >= np.abs(found) - ROUNDING * scale


def holm(ps: Sequence[float]) -> list[float]:
    """The p of several tests, corrected so that one false finding among all of them has the probability of p."""
    if not ps:
        return []
    from statsmodels.stats.multitest import multipletests  # takes a second, and most tables test nothing

    return multipletests(ps, method="holm")[1].tolist()
