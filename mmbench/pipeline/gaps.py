"""How far the worst of several groups of images lies behind the best: an interval, and whether it is more than chance.

The best and the worst are chosen by what they are compared by, so that their gap is never below 0 and too large on
average, most of all where groups are equal. A plain bootstrap of it is wrong then: it adds the noise a second time.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmbench.core.noise import Sample
from mmbench.pipeline.comparing import Images
from mmbench.statistics.bootstrap import LEVEL, Floats, multiplicities
from mmbench.statistics.paired import ROUNDING, num_flips

BLOCK = 2**22  # memberships that are exchanged at a time


def gap_interval(of_groups: Sequence[Images]) -> tuple[float, tuple[float, float]]:
    """The range of the means of groups, and the 95 % interval of that of the true means, which is 0 or above.

    The range of means differs from that of the true ones by no more than the range of their errors, since it is a
    seminorm: |range(m) - range(mu)| <= range(m - mu). The interval is the gap plus and minus the 95 % quantile of the
    latter, of 2,000 draws of images about the means that were found: of simultaneous intervals of all differences
    of two groups (Tukey's), and so it holds for the one that was selected. It is wide where groups are many, and of
    two that have ten images each, of which one varies more than the other, it holds in nine of ten cases.

    Args:
        of_groups: values of each, of two images or more; an image is drawn with all that was made for it, in all of its
            groups.
    """
    ids = sorted({key for group in of_groups for key in group.ids})
    places = {key: place for place, key in enumerate(ids)}
    weights = multiplicities(len(ids), 0).astype(np.float64)
    means, errors = [], []
    for group in of_groups:
        drawn = weights[:, [places[key] for key in group.ids]]
        counts = drawn @ group.counts
        ratios = np.divide(drawn @ group.sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
        means.append(float((group.sums.sum(axis=0) / group.counts.sum(axis=0)).mean()))
        few = len(group.ids)
        errors.append((ratios.mean(axis=1) - means[-1]) * (few / (few - 1)) ** 0.5)  # draws vary less than samples do
    ranges = np.ptp(np.array(errors), axis=0)
    apart = float(np.quantile(ranges[np.isfinite(ranges)], LEVEL))  # a draw without a group has no range
    gap = max(means) - min(means)
    return gap, (max(0.0, gap - apart), gap + apart)


def gap_p(
    values: Floats, samples: Sequence[Sample], member: NDArray[np.bool_], tests: int = 1, seed: int = 0
) -> list[float]:
    """p of the gaps of C cells, if groups had nothing to do with values: of exchanging the groups among the images.

    Each pattern of exchanges has a best and a worst group of its own, so that the gaps to which the one found is
    compared are selected as it is (as with the largest of several statistics: Westfall and Young, Resampling-Based
    Multiple Testing, 1993). An image keeps all that was made for it together: what is exchanged are the groups of all
    its samples, between images with the same captions and draws. p is (1 + gaps at least as large) / (1 + patterns),
    which is never 0 (Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010).

    What is tested is that groups are alike in all, not in their means alone: where a small group varies more than the
    others, its mean lies far off more often than p says.

    Args:
        values: (C, S), of S samples.
        samples: of these images.
        member: (S, G), which samples are in which groups; each group has one.
        tests: how many p are corrected together, which says how many patterns it takes.
        seed: of the exchanges.
    """
    by_image: dict[str, list[int]] = defaultdict(list)
    for row in sorted(range(len(samples)), key=lambda row: samples[row]):
        by_image[samples[row].id].append(row)
    alike: Mapping[tuple[tuple[int, int], ...], list[list[int]]] = defaultdict(list)
    for rows in by_image.values():
        alike[tuple((samples[row].caption, samples[row].draw) for row in rows)].append(rows)
    strata = [np.array(rows) for rows in alike.values()]  # (images, samples of each)
    centred = (values - values.mean(axis=1, keepdims=True)).T  # (S, C)
    sizes = member.sum(axis=0)[:, None]
    labels = member.T.astype(np.float64)  # (G, S)
    least = np.ptp(labels @ centred / sizes, axis=0) - ROUNDING * np.abs(centred).max(axis=0)
    rng, patterns = np.random.default_rng(seed), num_flips(tests)
    step = max(1, BLOCK // labels.size)
    exceeded = np.zeros(len(values))
    for at in range(0, patterns, step):
        count = min(step, patterns - at)
        sums = np.zeros((len(labels), count, len(values)))
        for rows in strata:
            places = rng.permuted(np.tile(np.arange(len(rows)), (count, 1)), axis=1)
            moved = labels[:, rows][:, places].reshape(len(labels) * count, rows.size)  # as the samples of `rows`
            sums += (moved @ centred[rows.ravel()]).reshape(sums.shape)
        exceeded += (np.ptp(sums / sizes[:, None], axis=0) >= least).sum(axis=0)
    return ((1 + exceeded) / (1 + patterns)).tolist()
