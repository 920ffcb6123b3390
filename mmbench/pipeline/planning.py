"""What a table can show: the smallest difference between two of its rows, and what it takes to show a wanted one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mmbench.pipeline.sampled import BySeed, common_images, of_images
from mmbench.statistics.paired import num_exact, smallest_p
from mmbench.statistics.power import Components, components, needed, smallest_difference

ALPHA, POWER = 0.05, 0.8
RIGHT = (
    *("rows", "images", "seeds", "sd over images", "sd over seeds"),
    *("smallest difference", "of any pair", "over seeds", "images needed", "seeds needed"),
)
EXPLAINED = (
    "Smallest difference: what the typical pair of rows (the median of those with most seeds) must differ by to be "
    f"shown with power {POWER:g} by a paired test over images, two-sided, alpha {ALPHA:g} by Holm over "
    "{comparisons}; the trainings are taken as they are. Of any pair: what the noisiest pair must differ by. Over "
    "seeds: what other trainings of the typical pair would show too, tested over its seeds. A table asks besides that "
    "no seed of the one row lies among those of the other: a difference that is small beside the standard deviation "
    "over seeds is not shown, however many its images.",
    "Standard deviations are of the difference of the typical pair: over images within a seed, and over seeds beyond "
    "what their images explain. -: with so few images or seeds, or so many comparisons, no difference can be shown.",
)


@dataclass(frozen=True)
class Plan:
    """A metric of a table on one data set, and what differences of it can be shown.

    Attributes:
        data, metric: what it is of.
        rows: how many rows are compared.
        images, seeds: what the typical pair of rows has: images of both, seeds of the row that has fewer.
        noise: of the difference of that pair.
        smallest: what the typical pair must differ by, over images; infinite where their test cannot show any.
        noisiest: what any pair must differ by; likewise.
        over_seeds: what the typical pair must differ by over seeds; NaN of one seed.
        images_needed, seeds_needed: for the wanted difference; None where none was asked for, where no
            number of images shows any (their test has no p below alpha), or of one seed.
    """

    data: str
    metric: str
    rows: int
    images: int
    seeds: int
    noise: Components
    smallest: float
    noisiest: float
    over_seeds: float
    images_needed: int | None = None
    seeds_needed: int | None = None


def plans(
    values: Mapping[tuple[str, str], Mapping[str, BySeed]],
    comparisons: int,
    metric: str | None = None,
    wanted: float | None = None,
) -> list[Plan]:
    """What a metric, or each, can show on each data set.

    Args:
        values: data set and metric to row to its values by seed and sample; rows that are no part of comparisons are
            not among them.
        comparisons: how many the whole table makes.
        metric: the only one to look at.
        wanted: a difference to show.
    """
    chosen = {key: rows for key, rows in values.items() if len(rows) > 1 and metric in (None, key[1])}
    found = [_plan(*key, rows, comparisons, wanted) for key, rows in chosen.items()]
    return [plan for plan in found if plan]


def _plan(data: str, metric: str, rows: Mapping[str, BySeed], comparisons: int, wanted: float | None) -> Plan | None:
    alpha = ALPHA / comparisons
    pairs = []
    for both in combinations(rows.values(), 2):
        if len(images := common_images(both)) > 1:
            noise = components(*(of_images(row, images) for row in both))
            num_seeds = min(map(len, both))
            smallest = np.inf  # no difference gives so few images a p below alpha
            if smallest_p(len(images), comparisons) < alpha:
                smallest = smallest_difference(noise.of_image(num_seeds), len(images), alpha, POWER)
            pairs.append((smallest, len(images), num_seeds, noise))
    if not pairs:
        return None
    pairs.sort(key=lambda pair: pair[0])
    most = max(num_seeds for _, _, num_seeds, _ in pairs)
    typical = [pair for pair in pairs if pair[2] == most]
    smallest, images_in_common, num_seeds, noise = typical[len(typical) // 2]
    of_seed = noise.of_seed(images_in_common)
    for_images = _images_needed(wanted, noise.of_image(num_seeds), comparisons) if wanted else None
    for_seeds = needed(wanted, of_seed, alpha, POWER) if wanted and num_seeds > 1 else None
    over_seeds = smallest_difference(of_seed, num_seeds, alpha, POWER)
    return Plan(
        data, metric, len(rows), images_in_common, num_seeds, noise, smallest, pairs[-1][0], over_seeds, for_images,
        for_seeds,
    )  # fmt: skip


def _images_needed(wanted: float, deviation: float, comparisons: int) -> int | None:
    """How many images show a difference; None where their test has no p below alpha, whatever their number."""
    alpha = ALPHA / comparisons
    counts = range(2, num_exact(comparisons) + 2)
    fewest = next((count for count in counts if smallest_p(count, comparisons) < alpha), None)
    return None if fewest is None else max(fewest, needed(wanted, deviation, alpha, POWER))


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
            "smallest difference": _number(plan.smallest),
            "of any pair": _number(plan.noisiest),
            "over seeds": _number(plan.over_seeds),
        }
        needs = {"images needed": plan.images_needed, "seeds needed": plan.seeds_needed}
        if any(number is not None for number in needs.values()):
            line |= {name: "-" if number is None else f"{number:,}" for name, number in needs.items()}
        lines.append(line)
    return lines


def explained(comparisons: int) -> list[str]:
    """What stands under the table."""
    told = "1 comparison" if comparisons == 1 else f"the {comparisons:,} comparisons of the table"
    return [EXPLAINED[0].format(comparisons=told), EXPLAINED[1]]


def _number(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.3g}"
