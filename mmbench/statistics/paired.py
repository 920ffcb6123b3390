"""Is the difference of two rows more than chance? Tests on the same images, and their correction for a whole table."""

import gc
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mmbench.statistics.bootstrap import Floats, mean_interval

FLIPS, MOST_FLIPS = 19_999, 199_999
FINER = 100  # flips for each of many tests: the smallest p is then a fifth of what Holm's first step asks for at 0.05
BLOCK = 2**22  # signs, or sums of signs, at a time
ROUNDING = 1e-9  # sums that are equal up to float64's rounding are equal


class Tested(NamedTuple):
    """A paired comparison of two rows.

    Attributes:
        difference: mean over clusters of the differences.
        interval: its 95 % bootstrap interval.
        p: two-sided, of the permutation test.
        clusters: number of images that both rows have.
        smallest: the smallest p that so many clusters give; 0 of a test that has none.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    clusters: int
    smallest: float = 0.0


def paired_tests(differences: Sequence[Floats], tests: int, seed: int = 0) -> list[Tested]:
    """Paired tests, each of the (N,) differences of two rows, one for each cluster: of its mean in either.

    Seeds are not drawn: what is tested is whether these trained networks differ over images, not whether another
    training would.

    Args:
        tests: how many p are corrected together.

    Raises:
        ValueError: a pair of rows has fewer than 2 clusters in common.
    """
    ps = permutation_p(differences, tests, seed)
    intervals = [mean_interval(one[:, None], np.ones((len(one), 1)), seed) for one in differences]
    return [
        Tested(float(one.mean()), interval, p, len(one), smallest_p(len(one), tests))
        for one, interval, p in zip(differences, intervals, ps, strict=True)
    ]


def num_flips(tests: int) -> int:
    """How many random patterns of signs are looked at where so many p are corrected together: more for more tests, or
    the smallest p times their number would never be small."""
    return min(max(FLIPS, FINER * tests - 1), MOST_FLIPS)


def num_exact(tests: int) -> int:
    """The clusters that differ up to which all patterns of signs are looked at, since they are not more than flips."""
    return (1 + num_flips(tests)).bit_length() - 1


def permutation_p(differences: Sequence[Floats], tests: int = 1, seed: int = 0) -> list[float]:
    """Two-sided p of mean differences of zero, by exchanging the rows in some of the clusters.

    Where rows do not differ, each cluster's difference might as well have the other sign: p is the share of patterns of
    signs whose sum is at least as large as the one found. All patterns are looked at where few clusters differ
    (`num_exact`), else `num_flips` random ones and the one found: 19,999 of few tests, so that p is never below
    1 / 20,000.

    Args:
        differences: (N,) of each test; tests of as many clusters share the random signs.
        tests: how many p are corrected together.
        seed: of the signs.
    """
    flips, exact = num_flips(tests), num_exact(tests)
    found: dict[int, float] = {}
    by_count: dict[int, list[int]] = {}
    for place, one in enumerate(differences):
        differing = one[one != 0]
        if len(differing) <= exact:
            sums = _patterns(len(differing)) @ differing
            found[place] = float(_at_least(sums, differing.sum(), np.abs(differing).sum()).mean())
        else:
            by_count.setdefault(len(one), []).append(place)
    for places in by_count.values():
        columns = np.stack([differences[place] for place in places], 1)
        found |= dict(zip(places, _random_p(columns, flips, seed), strict=True))
    return [found[place] for place in range(len(differences))]


@lru_cache(maxsize=1)  # most tests of a page are of as many clusters
def _patterns(count: int) -> Floats:
    """All patterns of signs of so many clusters: (2 ** N, N), read-only."""
    signs = 2.0 * (np.arange(2**count)[:, None] >> np.arange(count) & 1) - 1
    signs.setflags(write=False)
    return signs


def smallest_p(count: int, tests: int) -> float:
    """The smallest p that `permutation_p` gives of so many clusters, however much they differ."""
    return 2.0 ** (1 - count) if count <= num_exact(tests) else 1 / (1 + num_flips(tests))


def _random_p(columns: Floats, flips: int, seed: int) -> list[float]:
    """p of each of M tests of N clusters, (N, M), by random signs."""
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK // max(columns.shape))
    exceeded = np.zeros(columns.shape[1])
    for at in range(0, flips, step):
        bits = rng.integers(2, size=(min(step, flips - at), len(columns)), dtype=np.int8)
        sums = (2.0 * bits - 1) @ columns
        exceeded += _at_least(sums, columns.sum(axis=0), np.abs(columns).sum(axis=0)).sum(axis=0)
    return ((1 + exceeded) / (1 + flips)).tolist()


def _at_least(sums: Floats, found: Floats, scale: Floats) -> np.ndarray:
    """Whether sums are at least as far from zero as the one found."""
    return np.abs(sums) >= np.abs(found) - ROUNDING * scale


def holm(ps: Sequence[float], tests: int = 0) -> list[float]:
    """The p of several tests, corrected so that one false finding among all of them has the probability of p.

    Args:
        tests: how many are corrected together, where there are more than these: the others count as showing nothing.
    """
    if not ps:
        return []
    from statsmodels.stats.multitest import multipletests  # takes a second, and most tables test nothing

    gc.freeze()  # it collects garbage each time, which took a fifth of the time of a large site
    try:
        return multipletests([*ps, *[1.0] * (tests - len(ps))], method="holm")[1][: len(ps)].tolist()
    finally:
        gc.unfreeze()
