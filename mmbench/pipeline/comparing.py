"""Cells beside each other: intervals over images, which is best, and which of them differ by more than chance.

An image is a cluster: all its captions, draws and seeds are drawn, or exchanged, together. Seeds are not drawn: their
spread is shown beside, and rows whose seeds overlap are not told apart, whatever the images say of these trainings.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mmbench.core import construction
from mmbench.core.noise import Sample
from mmbench.core.results import Result
from mmbench.pipeline import by_sample
from mmbench.pipeline.cells import Cell, Comparison, Value, Verdict, takes_part
from mmbench.pipeline.experiments import Experiment
from mmbench.statistics.bootstrap import Floats, mean_interval
from mmbench.statistics.paired import Tested, holm, paired_tests
from mmbench.statistics.resampling import judged

UNKNOWN = "not run (the record has no values by sample: evaluate again)"
GONE = "not run (the file of values by sample is not beside the record: evaluate again)"
NOT_KEPT = "not run (the record keeps nothing to draw images from: evaluate again)"

Values = Mapping[int, Mapping[Sample, float]]  # by seed


class Images:
    """Values of a cell by image.

    Attributes:
        ids: the images, sorted.
        sums: (N, K), of an image's values in each seed.
        counts: (N, K), how many these are.
    """

    def __init__(self, values: Values) -> None:
        self.ids = sorted({sample.id for found in values.values() for sample in found})
        places = {key: place for place, key in enumerate(self.ids)}
        self.sums = np.zeros((len(places), len(values)))
        self.counts = np.zeros_like(self.sums)
        for seed, found in enumerate(values.values()):
            rows = np.array([places[sample.id] for sample in found], np.int64)
            np.add.at(self.sums[:, seed], rows, np.array(list(found.values()), np.float64))
            np.add.at(self.counts[:, seed], rows, 1)

    @cached_property
    def means(self) -> dict[str, float]:
        """The mean of each image: over the seeds that have a value of it, of the mean in each."""
        known = self.counts > 0
        of_seeds = np.divide(self.sums, self.counts, out=np.zeros_like(self.sums), where=known)
        return dict(zip(self.ids, (of_seeds.sum(axis=1) / known.sum(axis=1)).tolist(), strict=True))


class Halves:
    """How the score of a whole set of images varies with them.

    Attributes:
        ids: tells which images they were, and that those of two cells are the same.
        count: how many.
        deviations: (100,), mean over seeds.
    """

    def __init__(self, name: str, found: Sequence[by_sample.Varying]) -> None:
        self.ids, self.count = found[0].ids, found[0].count
        self.deviations: Floats = np.mean([one.deviations[name] for one in found], axis=0)


class Evidence:
    """What the records of an experiment keep beside their scores; each file is read once.

    Args:
        folder: where the records lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: dict[str, tuple[dict[str, dict[Sample, float]], by_sample.Varying | None]] = {}

    def of(self, value: Value) -> Images | Halves | str:
        """What is known of a value that a table shows; or why nothing is, "" where it needs no saying."""
        records = [*value.records.values(), *(one for part in value.parts for one in part.records.values())]
        if not records or value.mean is None:
            return ""
        for record in records:
            if not record.samples:
                return UNKNOWN
            if not (self.folder / record.samples["file"]).is_file():
                return GONE
        values = self.values(value)
        if values and all(values.values()):
            return Images(values)
        if value.parts:
            return ""
        varying = [self._read(record)[1] for record in value.records.values()]
        known = [one for one in varying if one and value.name in one.deviations]
        if len(known) < len(varying) or len({one.ids for one in known}) > 1:
            return NOT_KEPT
        return Halves(value.name, known)

    def values(self, value: Value, within: Collection[Sample] | None = None) -> Values:
        """Seed to the values by sample that a table's value is the mean of; empty where it is no mean.

        A gain is a mean of differences. MP is a product of means: its values are those of its linear part, of which it
        is the mean, and which vary with the images as it does. So it is with a harmonic mean of two means, which is
        the sum of both times its slopes (Euler's theorem on homogeneous functions).

        Args:
            within: the only samples to look at, about whose means a product is linear then; None of all. A harmonic
                mean has its slopes about the means over all (`sampled.Scores` has those of some).
        """
        if value.parts:
            first, second = (self.values(part, within) for part in value.parts)
            both = [seed for seed in value.slopes if seed in first and seed in second]
            return {seed: weighted(first[seed], second[seed], value.slopes[seed]) for seed in both}
        found = {seed: self._of_record(record, value.name, within) for seed, record in value.records.items()}
        return {} if any(one is None for one in found.values()) else {seed: one for seed, one in found.items() if one}

    def _of_record(self, record: Result, name: str, within: Collection[Sample] | None) -> Mapping[Sample, float] | None:
        values, _ = self._read(record)
        metric, _, extractor = name.partition("@")
        if metric == "mp" and {f"sim@{extractor}", "diff"} <= values.keys():
            return _product(*(_only(values[part], within) for part in (f"sim@{extractor}", "diff")))
        return _only(values[name], within) if name in values else None

    def _read(self, record: Result) -> tuple[dict[str, dict[Sample, float]], by_sample.Varying | None]:
        key = record.samples["sha256"]
        if key not in self.held:
            self.held[key] = by_sample.read(record, self.folder), by_sample.varying(record, self.folder)
        return self.held[key]


def _only(values: Mapping[Sample, float], within: Collection[Sample] | None) -> Mapping[Sample, float]:
    return values if within is None else {sample: values[sample] for sample in within if sample in values}


def weighted(
    first: Mapping[Sample, float], second: Mapping[Sample, float], weights: tuple[float, float]
) -> dict[Sample, float]:
    """The sum of two values of each sample that has both, times their weights."""
    one, other = weights
    return {sample: one * value + other * second[sample] for sample, value in first.items() if sample in second}


def _product(sim: Mapping[Sample, float], diff: Mapping[Sample, float]) -> dict[Sample, float]:
    """(1 - mean diff) * mean sim as the mean of its first-order expansion about the two means."""
    both = [sample for sample in sim if sample in diff]
    if not both:
        return {}
    mean_sim, kept = float(np.mean([sim[sample] for sample in both])), 1 - float(np.mean([diff[one] for one in both]))
    return {sample: kept * sim[sample] + mean_sim * (1 - kept - diff[sample]) for sample in both}


def compared(experiment: Experiment, cells: Sequence[Cell], results: str | Path) -> list[Cell]:
    """The cells with intervals, ranks and comparisons; they are all those of a page.

    Compared are rows that are no references, have learned what the metric tells and are not outdated, each with the
    best of its data set (or with the row that the experiment names in `compared_with`), on the images that both have.
    The p of all tests are corrected together; where the best is the one that these images show, for all pairs of a
    column, since whichever is best by chance would have been compared. Rows whose seeds overlap are not told apart.

    Args:
        results: the folder of all records.

    Raises:
        ValueError: values by sample are damaged.
    """
    evidence = Evidence(Path(results) / experiment.name)
    found = [evidence.of(cell.value) for cell in cells]
    done = [_with_interval(cell, one) for cell, one in zip(cells, found, strict=True)]
    pairs: list[tuple[int, int]] = []
    for places in _columns(cells).values():
        if not (sign := direction(experiment, [cells[place] for place in places])):
            continue
        taking = [place for place in places if takes_part(experiment, cells[place])]
        if len(taking) < 2:
            continue
        for place, rank in zip(taking, _ranks([cells[place] for place in taking], sign), strict=True):
            done[place] = replace(done[place], rank=rank if rank <= 2 else None)
        best = max(taking, key=lambda place: sign * (cells[place].value.mean or 0.0))
        against = _named(experiment.compared_with, cells, places) if experiment.compared_with else best
        pairs += [(place, against) for place in taking if against is not None and place != against]
    tests, number = _tested(found, done, pairs, bool(experiment.compared_with))
    adjusted = holm([test.p for test in tests.values()], number)
    least = holm([test.smallest for test in tests.values()], number)
    for ((place, other), test), p, smallest in zip(tests.items(), adjusted, least, strict=True):
        overlap = overlapping(cells[place].value, cells[other].value)
        facts = Comparison(
            done[other].method, test.difference, test.interval, test.p, p, test.clusters, smallest, overlap, number
        )
        done[place] = replace(done[place], compared=facts)
    for place, other in pairs:
        if (place, other) not in tests:
            done[place] = replace(done[place], untested=done[other].method)
    return done


def overlapping(one: Value, other: Value) -> bool:
    """Whether neither of two values lies, in each of its seeds, above all seeds of the other.

    Where neither has several, or one has none of its own, nothing is known, and they do not overlap.
    """
    first, second = one.by_seed.values(), other.by_seed.values()
    if max(len(first), len(second)) < 2 or not (first and second):
        return False
    return max(first) >= min(second) and max(second) >= min(first)


def _columns(cells: Sequence[Cell]) -> dict[tuple[str, str], list[int]]:
    """Data set and metric to the places of their cells."""
    columns: dict[tuple[str, str], list[int]] = {}
    for place, cell in enumerate(cells):
        if cell.verdict is not Verdict.COST:
            columns.setdefault((cell.data, cell.metric), []).append(place)
    return columns


def direction(experiment: Experiment, column: Iterable[Cell]) -> int:
    """1 where higher is better in a metric's cells, -1 where lower is, 0 where nobody says.

    The paper says it, or else the metric; of a gain or a harmonic mean, both its metrics alike.
    """
    cells = list(column)
    printed = {cell.published.higher_is_better for cell in cells if cell.published}
    better = printed or {
        found
        for cell in cells
        for part in cell.value.parts or (cell.value,)
        for record in list(part.records.values())[:1]
        if (found := _higher_is_better(record.config, part.name)) is not None
    }
    return (1 if better.pop() else -1) if len(better) == 1 else 0


def _higher_is_better(plain: Mapping[str, Any], name: str) -> bool | None:
    described = plain.get("protocol", {}).get("metrics", {}).get(name.partition("@")[0].partition("(")[0])
    return None if described is None else construction.target(described).higher_is_better


def _ranks(cells: Sequence[Cell], sign: int) -> list[int]:
    """Places from 1; values that print alike share one."""
    digits = max(cell.digits for cell in cells)
    values = [round(sign * (cell.value.mean or 0.0), digits) for cell in cells]
    return [1 + sum(other > value for other in values) for value in values]


def _named(label: str, cells: Sequence[Cell], places: Sequence[int]) -> int | None:
    """The cell of a row in a column, of a reference too; None where nothing can be tested against its value."""
    for place in places:
        cell = cells[place]
        if cell.method == label and cell.value.mean is not None and not (cell.value.outdated or cell.unlearned):
            return place
    return None


def _with_interval(cell: Cell, found: Images | Halves | str) -> Cell:
    if cell.verdict is Verdict.COST or cell.value.mean is None:
        return cell
    if isinstance(found, Images):
        if len(found.ids) < 2:
            return cell
        return replace(cell, interval=mean_interval(found.sums, found.counts))
    if isinstance(found, Halves):
        return replace(cell, interval=judged(cell.value.mean, found.deviations).interval)
    return cell if cell.value.outdated else replace(cell, without_interval=found)  # its own reason comes first


def _tested(
    found: Sequence[Images | Halves | str], cells: Sequence[Cell], pairs: Sequence[tuple[int, int]], named: bool
) -> tuple[dict[tuple[int, int], Tested], int]:
    """The tests of those pairs of cells of which enough is known, and for how many their p are to be corrected.

    Args:
        named: whether the experiment, and not the images, says with which row others are compared.
    """
    differences: dict[tuple[int, int], Floats] = {}
    tests: dict[tuple[int, int], Tested] = {}
    for place, other in pairs:
        one, two = found[place], found[other]
        if isinstance(one, Images) and isinstance(two, Images):
            both = [key for key in one.ids if key in two.means]
            if len(both) > 1:
                differences[place, other] = np.array([one.means[key] - two.means[key] for key in both])
        elif isinstance(one, Halves) and isinstance(two, Halves) and one.ids == two.ids:
            apart = (cells[place].value.mean or 0.0) - (cells[other].value.mean or 0.0)
            interval, p = judged(apart, one.deviations - two.deviations)
            tests[place, other] = Tested(apart, interval, p, one.count)
    against = Counter(other for _, other in (*tests, *differences))
    number = sum(count if named else count * (count + 1) // 2 for count in against.values())
    tests |= dict(zip(differences, paired_tests(list(differences.values()), number), strict=True))
    return {pair: tests[pair] for pair in pairs if pair in tests}, number
