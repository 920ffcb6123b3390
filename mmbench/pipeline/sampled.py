"""What a table's cells rest on by row: values by sample, or halves; and which way each of its metrics is better."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from mmbench.core.noise import Sample
from mmbench.pipeline.cells import Cell, Value, harmonic_mean, takes_part
from mmbench.pipeline.comparing import Evidence, Halves, Images, direction, weighted
from mmbench.pipeline.experiments import Experiment

BySeed = Mapping[int, Mapping[Sample, float]]  # seed to sample to value
Table = dict[tuple[str, str], dict[str, BySeed]]  # data set and metric, as a table shows them, to method to its values


class WholeSet(NamedTuple):
    """A score of a whole set of images, as FID is.

    Attributes:
        by_seed: seed to score.
        halves: how it varies with the images.
    """

    by_seed: Mapping[int, float]
    halves: Halves


Varying = dict[tuple[str, str], dict[str, BySeed | WholeSet]]  # likewise, of every score that is known to vary


def varying_of_table(experiment: Experiment, cells: Sequence[Cell], results: str | Path) -> Varying:
    """What the tests of a table see of each cell: values by sample, or halves; outdated cells are left out.

    Of products and harmonic means the values are those of their linear part (`Evidence.values`).

    Args:
        results: the folder of all records.

    Raises:
        ValueError: values by sample are damaged.
    """
    evidence, table = Evidence(Path(results) / experiment.name), Varying()
    for cell in cells:
        known = "" if cell.value.outdated else evidence.of(cell.value)
        if isinstance(known, Images):
            table.setdefault((cell.data, cell.metric), {})[cell.method] = evidence.values(cell.value)
        elif isinstance(known, Halves):
            table.setdefault((cell.data, cell.metric), {})[cell.method] = WholeSet(cell.value.by_seed, known)
    return table


def of_table(experiment: Experiment, cells: Sequence[Cell], results: str | Path) -> Table:
    """The values of all cells that are means over images; outdated ones are left out, and products and harmonic means.

    Args:
        results: the folder of all records.

    Raises:
        ValueError: values by sample are damaged.
    """
    means = [cell for cell in cells if not is_product(experiment, cell)]
    table = Table()
    for key, methods in varying_of_table(experiment, means, results).items():
        if found := {method: one for method, one in methods.items() if not isinstance(one, WholeSet)}:
            table[key] = found
    return table


def is_product(experiment: Experiment, cell: Cell) -> bool:
    """Whether a cell is a product or a harmonic mean of means over images, and none itself."""
    return cell.value.name.partition("@")[0] == "mp" or cell.metric in experiment.harmonic_means


class Scores:
    """What a cell is the mean of, by sample: of all that was made, and of groups of it.

    Args:
        evidence: of the experiment.
        is_harmonic: whether the cell is a harmonic mean of its two parts.
    """

    def __init__(self, evidence: Evidence, value: Value, is_harmonic: bool = False) -> None:
        self.evidence, self.value, self.is_harmonic = evidence, value, is_harmonic

    def within(self, samples: Collection[Sample] | None = None) -> BySeed:
        """Values by seed and sample, whose mean in a seed is the metric over these samples; None is all of them.

        Of a product of means, and of a harmonic mean, it is the one of the means over these samples, and the values
        are its linear part about them (`Evidence.values`).
        """
        if not self.is_harmonic or samples is None:
            return self.evidence.values(self.value, samples)
        first, second = (self.evidence.values(part, samples) for part in self.value.parts)
        means = [{seed: fmean(one.values()) for seed, one in part.items()} for part in (first, second)]
        if not all(means):
            return {}
        both = harmonic_mean(*(Value(of, fmean(of.values())) for of in means))
        return {seed: weighted(first[seed], second[seed], slopes) for seed, slopes in both.slopes.items()}


def scores_of_table(
    experiment: Experiment, cells: Sequence[Cell], results: str | Path
) -> dict[tuple[str, str], dict[str, Scores]]:
    """Data set and metric to row to its scores, of all cells that are means, products or harmonic means of means.

    Outdated cells are left out, and those of scores of whole sets.

    Args:
        results: the folder of all records.

    Raises:
        ValueError: values by sample are damaged.
    """
    evidence, table = Evidence(Path(results) / experiment.name), dict[tuple[str, str], dict[str, Scores]]()
    for cell in cells:
        if not cell.value.outdated and isinstance(evidence.of(cell.value), Images):
            found = Scores(evidence, cell.value, cell.metric in experiment.harmonic_means)
            table.setdefault((cell.data, cell.metric), {})[cell.method] = found
    return table


def left_out(
    experiment: Experiment, cells: Sequence[Cell], table: Mapping[tuple[str, str], Collection[str]], results: str | Path
) -> list[str]:
    """A line for each row with a value and none by sample, of metrics of which others have them, and why.

    Args:
        cells: of the table.
        table: data set and metric to the rows that have values.
        results: the folder of all records.
    """
    evidence = Evidence(Path(results) / experiment.name)
    found: dict[str, list[str]] = {}
    for cell in cells:
        methods = table.get((cell.data, cell.metric), ())
        if not methods or cell.method in methods or cell.value.mean is None:
            continue
        known = evidence.of(cell.value)
        reason = f"outdated ({cell.value.outdated})" if cell.value.outdated else known if isinstance(known, str) else ""
        found.setdefault(f"{cell.method} on {cell.data} is left out, {reason}", []).append(cell.metric)
    return [f"{said}: {', '.join(metrics)}." for said, metrics in found.items()]


def taking_part(experiment: Experiment, cells: Sequence[Cell], values: Varying) -> Varying:
    """The values of the rows that comparisons have a part for: of no references, and of what has been learned.

    Args:
        cells: of the table.
        values: as `varying_of_table` gives them.
    """
    kept = {(cell.data, cell.metric, cell.method) for cell in cells if takes_part(experiment, cell)}
    return {
        (data, shown): {method: by_seed for method, by_seed in rows.items() if (data, shown, method) in kept}
        for (data, shown), rows in values.items()
    }


def directions(experiment: Experiment, cells: Sequence[Cell]) -> dict[str, int]:
    """Metric as the table shows it to 1 where higher is better, -1 where lower is; without those of no direction."""
    columns: dict[str, list[Cell]] = {}
    for cell in cells:
        columns.setdefault(cell.metric, []).append(cell)
    signs = {metric: direction(experiment, column) for metric, column in columns.items()}
    return {metric: sign for metric, sign in signs.items() if sign}


def of_images(by_seed: BySeed, images: Sequence[str]) -> np.ndarray:
    """The mean of each image over its captions and draws: (N images, S seeds) float64.

    Args:
        images: ids that every seed has a value of.
    """
    places = {key: place for place, key in enumerate(images)}
    found = np.empty((len(images), len(by_seed)))
    for column, samples in enumerate(by_seed.values()):
        known = [(places[sample.id], value) for sample, value in samples.items() if sample.id in places]
        index, values = (np.array(part) for part in zip(*known, strict=True))
        found[:, column] = np.bincount(index, values, len(images)) / np.bincount(index, minlength=len(images))
    return found


def common_images(values: Sequence[BySeed]) -> list[str]:
    """The ids that all of several cells have a value of under each of their seeds, sorted."""
    sets = [{sample.id for sample in samples} for by_seed in values for samples in by_seed.values()]
    return sorted(set.intersection(*sets)) if sets else []
