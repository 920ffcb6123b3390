"""What a table can show: the smallest difference between two of its rows, and what it takes to show a wanted one.

A table shows a difference where its images do and no seed of the one row lies among those of the other. Both are
planned, each with the wanted power, and the larger is the answer; where they are alike both hold together less often.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from mmbench.pipeline.sampled import BySeed, WholeSet, common_images, of_images
from mmbench.statistics.paired import num_exact, smallest_p
from mmbench.statistics.power import (
    Components,
    components,
    needed,
    seeds_apart,
    smallest_difference,
    spread_over_seeds,
)
from mmbench.statistics.resampling import FEWEST

ALPHA, POWER = 0.05, 0.8
RIGHT = (
    *("rows", "images", "seeds", "sd over images", "sd over seeds", "over images", "seeds apart"),
    *("smallest difference", "of any pair", "other trainings", "images needed", "seeds needed"),
)
ONE_SEED = "one seed: not known"
EXPLAINED = (
    "Smallest difference: what the typical pair of rows (the median of those with most seeds) must differ by to be "
    f"shown, the larger of two, each with power {POWER:g}. Over images: by a paired test, two-sided, alpha {ALPHA:g} "
    "by Holm over {comparisons}; the trainings are taken as they are. Seeds apart: for no seed of the one row to lie "
    "among those of the other, which a table asks besides, by normal theory from the deviation over seeds that all "
    "rows share, which few rows of few seeds tell roughly: with two or three rows of three seeds the power is near "
    "0.7. More seeds ask for more. Of any pair: the larger of two for the pair whose images are noisiest. Other "
    "trainings: what other trainings of the typical pair would show too, tested over its seeds.",
    "Standard deviations are of the difference of the typical pair: over images within a seed, and over seeds beyond "
    "what their images explain. -: with so few images or seeds, or so many comparisons, no difference can be shown. "
    "Images and seeds needed are for the tests over each alone: a difference below that of seeds apart is not shown, "
    "however many the images.",
)
OF_WHOLE_SETS = (
    "Of scores of whole sets ({metrics}) the deviation over images is what the table's test sees: of the difference "
    "over halves of the same images, times the root of their number; that over seeds has what images explain in it. "
    "The error of such a score falls with the root of the number of images to first order only, and the score itself "
    "moves with that number (FID's bias falls as 1 / n): images needed are an approximation, for rows of as many "
    "images."
)
OF_PRODUCTS = (
    "Of products and harmonic means ({metrics}) the deviations are those of their linear part about the means of a "
    "row, which is what the table tests."
)


@dataclass(frozen=True)
class Plan:
    """A metric of a table on one data set, and what differences of it can be shown.

    Attributes:
        data, metric: what it is of.
        rows: how many rows are compared.
        images, seeds: what the typical pair of rows has: images of both, seeds of the row that has fewer.
        noise: of the difference of that pair.
        over_images: what the typical pair must differ by for its images; infinite where their test cannot show any.
        seeds_apart: what it must differ by for its seeds not to overlap; NaN where no row has several.
        noisiest: what any pair must differ by for both.
        over_seeds: what the typical pair must differ by over seeds; NaN of one seed.
        is_whole: whether its scores are of whole sets of images.
        images_needed, seeds_needed: for the wanted difference; None where none was asked for, where no
            number of images shows any (their test has no p below alpha), or of one seed.
    """

    data: str
    metric: str
    rows: int
    images: int
    seeds: int
    noise: Components
    over_images: float
    seeds_apart: float
    noisiest: float
    over_seeds: float
    is_whole: bool = False
    images_needed: int | None = None
    seeds_needed: int | None = None

    @property
    def smallest(self) -> float:
        """What the typical pair must differ by for both, where both are known."""
        return float(np.fmax(self.over_images, self.seeds_apart))


@dataclass(frozen=True)
class Pair:
    """Two rows, and what their difference must be.

    Attributes:
        images, seeds: what both have; of seeds the fewer.
        noise: of the difference.
        over_images: what it must be for the images; infinite where their test cannot show any.
        seeds_apart: what it must be for seeds not to overlap, in standard deviations over seeds; NaN of one seed each.
        is_whole: whether it is of scores of whole sets.
    """

    images: int
    seeds: int
    noise: Components
    over_images: float
    seeds_apart: float
    is_whole: bool


def plans(
    values: Mapping[tuple[str, str], Mapping[str, BySeed | WholeSet]],
    comparisons: int,
    metric: str | None = None,
    wanted: float | None = None,
) -> list[Plan]:
    """What a metric, or each, can show on each data set.

    Args:
        values: data set and metric to row to its values by seed and sample, or to how its score of a whole set
            varies (`sampled.varying_of_table`); rows that are no part of comparisons are not among them.
        comparisons: how many the whole table makes.
        metric: the only one to look at.
        wanted: a difference to show.
    """
    chosen = {key: rows for key, rows in values.items() if len(rows) > 1 and metric in (None, key[1])}
    found = [_plan(*key, rows, comparisons, wanted) for key, rows in chosen.items()]
    return [plan for plan in found if plan]


def _plan(
    data: str, metric: str, rows: Mapping[str, BySeed | WholeSet], comparisons: int, wanted: float | None
) -> Plan | None:
    alpha = ALPHA / comparisons
    both = combinations(rows.values(), 2)
    pairs = [pair for one, other in both if (pair := _pair(one, other, comparisons))]
    if not pairs:
        return None
    pairs.sort(key=lambda pair: pair.over_images)
    spread = spread_over_seeds([_by_seed(row) for row in rows.values()])
    most = max(pair.seeds for pair in pairs)
    of_most = [pair for pair in pairs if pair.seeds == most]
    typical = of_most[len(of_most) // 2]
    of_seed = typical.noise.of_seed(typical.images)
    return Plan(
        data, metric, len(rows), typical.images, typical.seeds, typical.noise, typical.over_images,
        seeds_apart=typical.seeds_apart * spread,
        noisiest=max(float(np.fmax(pair.over_images, pair.seeds_apart * spread)) for pair in pairs),
        over_seeds=smallest_difference(of_seed, typical.seeds, alpha, POWER),
        is_whole=typical.is_whole,
        images_needed=_images_needed(wanted, typical, comparisons) if wanted else None,
        seeds_needed=needed(wanted, of_seed, alpha, POWER) if wanted and typical.seeds > 1 else None,
    )  # fmt: skip


def _pair(first: BySeed | WholeSet, second: BySeed | WholeSet, comparisons: int) -> Pair | None:
    """Two rows that a table can test; None of others."""
    if isinstance(first, WholeSet) and isinstance(second, WholeSet):
        return _of_whole_sets(first, second, comparisons)
    if isinstance(first, WholeSet) or isinstance(second, WholeSet):
        return None
    if len(images := common_images((first, second))) < 2:
        return None
    noise = components(of_images(first, images), of_images(second, images))
    num_seeds = min(len(first), len(second))
    smallest = np.inf  # no difference gives so few images a p below alpha
    if smallest_p(len(images), comparisons) < ALPHA / comparisons:
        smallest = smallest_difference(noise.of_image(num_seeds), len(images), ALPHA / comparisons, POWER)
    return Pair(len(images), num_seeds, noise, smallest, seeds_apart(len(first), len(second)), is_whole=False)


def _of_whole_sets(first: WholeSet, second: WholeSet, comparisons: int) -> Pair | None:
    """Two scores of whole sets of the same images.

    Their table's test is Student's t over the deviations of 100 halves (`resampling.judged`): the smallest difference
    is what that finds, about (z of alpha / 2 and z of the power) times the standard error, as of a mean.
    """
    if first.halves.ids != second.halves.ids:
        return None
    apart = first.halves.deviations - second.halves.deviations
    error, halves, count = float(apart.std(ddof=1)), len(apart), first.halves.count
    num_seeds = min(len(first.by_seed), len(second.by_seed))
    of_seeds = float("nan")
    if num_seeds > 1:
        of_seeds = sum(float(np.var(list(row.by_seed.values()), ddof=1)) for row in (first, second))
    smallest = smallest_difference(error * np.sqrt(halves), halves, ALPHA / comparisons, POWER)
    apart_by = seeds_apart(len(first.by_seed), len(second.by_seed))
    return Pair(count, num_seeds, Components(error**2 * count, of_seeds, 0.0), smallest, apart_by, is_whole=True)


def _by_seed(row: BySeed | WholeSet) -> list[float]:
    """The value of each seed."""
    if isinstance(row, WholeSet):
        return [*row.by_seed.values()]
    return [fmean(values.values()) for values in row.values()]


def _images_needed(wanted: float, pair: Pair, comparisons: int) -> int | None:
    """How many images show a difference; None where their test has no p below alpha, whatever their number."""
    if pair.is_whole:
        return max(FEWEST, int(np.ceil(pair.images * (pair.over_images / wanted) ** 2)))
    alpha = ALPHA / comparisons
    counts = range(2, num_exact(comparisons) + 2)
    fewest = next((count for count in counts if smallest_p(count, comparisons) < alpha), None)
    return None if fewest is None else max(fewest, needed(wanted, pair.noise.of_image(pair.seeds), alpha, POWER))


def texts(found: Sequence[Plan]) -> list[dict[str, str]]:
    """The words of each plan by their columns; what nobody knows is "-"."""
    lines = []
    for plan in found:
        line = {
            "data": plan.data,
            "metric": plan.metric,
            "rows": str(plan.rows),
            "images": f"{plan.images:,}",
            "seeds": str(plan.seeds),
            "sd over images": _number(np.sqrt(np.nansum([plan.noise.image, plan.noise.rest]))),
            "sd over seeds": _number(np.sqrt(plan.noise.seed)),
            "over images": _number(plan.over_images),
            "seeds apart": ONE_SEED if np.isnan(plan.seeds_apart) else _number(plan.seeds_apart),
            "smallest difference": _number(plan.smallest),
            "of any pair": _number(plan.noisiest),
            "other trainings": _number(plan.over_seeds),
        }
        needs = {"images needed": plan.images_needed, "seeds needed": plan.seeds_needed}
        if any(number is not None for number in needs.values()):
            line |= {name: "-" if number is None else f"{number:,}" for name, number in needs.items()}
        lines.append(line)
    return lines


def explained(comparisons: int, found: Sequence[Plan], products: Sequence[str]) -> list[str]:
    """What stands under the table.

    Args:
        products: metrics of the table that are products or harmonic means of means.
    """
    told = "1 comparison" if comparisons == 1 else f"the {comparisons:,} comparisons of the table"
    lines = [EXPLAINED[0].format(comparisons=told), EXPLAINED[1]]
    if whole := dict.fromkeys(plan.metric for plan in found if plan.is_whole):
        lines.append(OF_WHOLE_SETS.format(metrics=", ".join(whole)))
    if shown := [name for name in products if name in {plan.metric for plan in found}]:
        lines.append(OF_PRODUCTS.format(metrics=", ".join(shown)))
    return lines


def _number(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.3g}"
