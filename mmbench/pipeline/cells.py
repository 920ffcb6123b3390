"""The cells of a table: what was published, what was found, and what that amounts to; no words but reasons."""

import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from mmbench.core import catalogue, config
from mmbench.core.results import Result
from mmbench.pipeline.experiments import COSTS, SIDES, Experiment, Row
from mmbench.pipeline.lookup import Found, records_of
from mmbench.pipeline.marks import Mark
from mmbench.pipeline.publications import Published, allowed_deviation, published
from mmbench.pipeline.stages import learns

ALPHA = 0.05  # of all tests of a page together


class Verdict(StrEnum):
    """What the values of a cell amount to."""

    REPRODUCED = "reproduced"
    DIFFERS = "differs"
    UNVERIFIED = "unverified"
    TOY = "toy data"
    UNPUBLISHED = "no published value"
    OUTDATED = "outdated"
    NOT_RUN = "not run"
    FAILED = "failed"
    COST = "cost"


@dataclass(frozen=True)
class Value:
    """A metric of a row, before it is judged.

    Attributes:
        by_seed: seed to value.
        mean: over the seeds; None where there is no value.
        verified: whether every value was made with weights whose hash is published, or with none.
        reason: why there is no value.
        is_failed: whether that is an error that the row ended with.
        outdated: why the value is not what this version would compute; "" where it is.
        name: of the metric in its records, with the extractor; "" of what is computed from other values.
        records: seed to the record.
        parts: the two values that a gain, or a harmonic mean, is computed from.
        slopes: seed to how fast that grows with each of the two.
    """

    by_seed: Mapping[int, float] = field(default_factory=dict)
    mean: float | None = None
    verified: bool = True
    reason: str = ""
    is_failed: bool = False
    outdated: str = ""
    name: str = ""
    records: Mapping[int, Result] = field(default_factory=dict, compare=False, repr=False)
    parts: tuple["Value", ...] = field(default=(), compare=False, repr=False)
    slopes: Mapping[int, tuple[float, float]] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Comparison:
    """A cell tested against another row on the images that both have.

    Attributes:
        with_: the label of the other row.
        difference: this row's mean over images minus the other's.
        interval: its 95 % interval over images.
        p: two-sided, of this test alone.
        adjusted: p corrected by Holm's method for all `tests` of the page.
        images: how many images both rows have.
        least: the smallest that `adjusted` can be of as many tests on as many images, whatever the values.
        overlap: whether values of single seeds of the two overlap (`comparing.overlapping`).
        tests: how many p are corrected together. Where the images say which row is best they choose the pairs, too, and
            each pair of a column counts.
    """

    with_: str
    difference: float
    interval: tuple[float, float]
    p: float
    adjusted: float
    images: int
    least: float
    overlap: bool
    tests: int

    @property
    def shown(self) -> bool:
        """Whether a difference is shown, of which one among all tests of a page is false by chance in 1 of 20."""
        return self.adjusted < ALPHA and not self.overlap

    @property
    def said(self) -> str:
        """What it amounts to, with the reason where images alone would have shown a difference."""
        if self.shown:
            return "differs"
        return "no difference shown" + (" (seeds overlap)" if self.adjusted < ALPHA else "")


@dataclass(frozen=True)
class Cell:
    """A metric of a row, or a cost, which has the verdict that it is one.

    Attributes:
        method: its published name, with the variant.
        data: the data set's published name.
        size: height and width of the images that were scored, in pixels; None where there are none.
        seeds: number of seeds of which the row has a record.
        metric: as the table shows it; of a cost its name in `COSTS`.
        published: the number that was printed; None where none was.
        value: what was found.
        verdict: what that amounts to.
        unlearned: why the row counts as not having learned what this part of the table measures, a reason for each
            metric that tells; none where it has, and of a reference row.
        interval: where the mean over seeds lies with 95 % over images; None where values by sample are not known.
        without_interval: why there is none, where there might be one.
        rank: 1 of the best among the rows that are compared, as printed, 2 of the second; None of all others.
        compared: the cell against the best row, or the one that the experiment names; None where nothing was tested.
        untested: the label of that row where nothing could be tested; "" of all other cells.
    """

    method: str
    data: str
    size: tuple[int, ...] | None
    seeds: int
    metric: str
    published: Published | None
    value: Value
    verdict: Verdict
    unlearned: tuple[str, ...] = ()
    interval: tuple[float, float] | None = None
    without_interval: str = ""
    rank: int | None = None
    compared: Comparison | None = None
    untested: str = ""

    @property
    def digits(self) -> int:
        """How many decimals are shown: as many as were published, and no fewer than three."""
        return max(3, len(self.published.text.partition(".")[2]) if self.published else 4)

    @property
    def spread(self) -> float | None:
        """The standard deviation over the seeds; None of fewer than two."""
        found = list(self.value.by_seed.values())
        return statistics.stdev(found) if len(found) > 1 else None

    @property
    def difference(self) -> float | None:
        """The mean minus the published number; None where the two cannot be compared."""
        if self.published is None or self.value.mean is None:
            return None
        comparable = self.verdict in (Verdict.REPRODUCED, Verdict.DIFFERS, Verdict.UNVERIFIED)
        return self.value.mean - self.published.value if comparable else None


def verdict(value: Value, printed: Published | None, allowed: float, is_toy: bool) -> Verdict:
    """Judges a value.

    Args:
        allowed: how far from the published number it may lie.
        is_toy: whether it was computed on other data than the published number.
    """
    if value.mean is None:
        return Verdict.FAILED if value.is_failed else Verdict.NOT_RUN
    if value.outdated:
        return Verdict.OUTDATED
    if printed is None:
        return Verdict.UNPUBLISHED
    if is_toy:
        return Verdict.TOY
    if not printed.verified:
        return Verdict.UNVERIFIED
    return Verdict.REPRODUCED if abs(value.mean - printed.value) <= allowed else Verdict.DIFFERS


def takes_part(experiment: Experiment, cell: Cell) -> bool:
    """Whether a cell is compared with others: no reference's, of what has been learned, and not outdated."""
    is_reference = (cell.method, cell.data) in experiment.references
    return not (cell.value.mean is None or cell.value.outdated or cell.unlearned or is_reference)


def cells_of(
    experiment: Experiment,
    source: str,
    seeds: Sequence[int],
    overrides: Sequence[str],
    paths: Mapping[str, str],
    held: Mapping[str, Result],
    rows: Sequence[Row],
    reasons: Mapping[tuple[str, str, str], str] | None = None,
    failed: Mapping[str, Mark] | None = None,
) -> list[Cell]:
    """The cells of the table, one for each row and metric.

    Args:
        paths: `paths` of the configuration; what reasons are to call $MMBENCH_HOME.
        held: the experiment's records by configuration (`results.by_configuration`).
        reasons: key of a row, and a protocol, to why it could not run; derived here where it is not among them.
        failed: marks of rows that failed (`marks.failures`).
    """
    cells = []
    home = str(Path(paths["assets"]).expanduser())
    for row in rows:
        found = records_of(experiment, row, source, seeds, overrides, held, failed)
        for protocol, held_here in found.items():
            reason = (reasons or {}).get((*row.key, protocol), held_here.reason)
            found[protocol] = replace(held_here, reason=reason.replace(home, "$MMBENCH_HOME"))
        cells += _row(experiment, row, source, found)
    return marked(experiment, cells)


def marked(experiment: Experiment, cells: Sequence[Cell]) -> list[Cell]:
    """The cells, with the reasons of those rows that count as not having learned; they may be those of some rows.

    Rows that are references, and methods that are never trained, have nothing to learn.
    """
    if not experiment.floors:
        return list(cells)
    found = {(cell.method, cell.data, cell.metric): cell for cell in cells}
    learning = {(row.label, row.dataset) for row in experiment.rows if not row.reference and _is_trained(row.method)}
    done = []
    for cell in cells:
        reasons = []
        for floor in experiment.floors if (cell.method, cell.data) in learning else []:
            (side,) = floor.keys() & SIDES.keys()
            for metric in floor[side]:
                own = found.get((cell.method, cell.data, metric))
                if own and _tells(experiment, floor, metric, cell.metric):
                    others = [found.get((label, cell.data, metric)) for label in floor["of"]]
                    reasons += _unlearned(own, [other for other in others if other], side, floor)
        done.append(replace(cell, unlearned=tuple(reasons)))
    return done


def _is_trained(method: str) -> bool:
    """Whether a method, or a stage of it, has a training; nothing is shown of one that is not there yet."""
    return method in catalogue.names("method") and learns(config.composed([f"method={method}"]))


def _tells(experiment: Experiment, floor: Mapping[str, Any], metric: str, shown: str) -> bool:
    """Whether a metric tells what was learned of another: where they, or what they are computed from, share a column.

    One of a floor that holds everywhere tells it of all.
    """
    if shown in experiment.costs:
        return False
    columns = [
        {experiment.places[source][0] for source in experiment.computed.get(one, (one,))} for one in (metric, shown)
    ]
    return floor.get("everywhere", False) or bool(columns[0] & columns[1])


def _unlearned(own: Cell, others: Sequence[Cell], side: str, rule: Mapping[str, Any]) -> list[str]:
    """Why a cell's value is not on the better `side` of all others, by the best of those that it does not beat."""
    spreads, sign = rule.get("spreads", 0), SIDES[side]
    beaten: list[tuple[float, str]] = []
    for other in others:
        if own.value.mean is None or other.value.mean is None:
            continue
        apart = spreads * max(own.spread or 0.0, other.spread or 0.0)
        if sign * (own.value.mean - other.value.mean) <= apart:
            by = f" by more than {spreads:g} standard deviations over seeds ({apart:.4f})" if spreads else ""
            if spreads and own.spread is None and other.spread is None:
                by = ", whose standard deviations over seeds are not known"
            values = f"{own.value.mean:.4f} is not {side} the {other.value.mean:.4f} of {other.method}"
            beaten.append((sign * other.value.mean, f"{own.metric} {values}{by}"))
    return [max(beaten)[1]] if beaten else []


def _row(experiment: Experiment, row: Row, source: str, found: Mapping[str, Found]) -> list[Cell]:
    numbers = published(experiment, row)
    records = [record for held in found.values() for record in held.records]
    size = next((tuple(record.size) for record in reversed(records) if record.size), None)
    num_seeds = len({record.seed for record in records})
    values = {shown: _value(experiment, shown, row, source, found) for shown in experiment.places}
    for shown, (first, second) in experiment.differences.items():
        values[shown] = difference(values[first], values[second])
    for shown, (first, second) in experiment.gains.items():
        values[shown] = gain(values[first], values[second])
    for shown, (first, second) in experiment.harmonic_means.items():
        values[shown] = harmonic_mean(values[first], values[second])
    is_toy = source != experiment.sources[0]
    cells = []
    for shown, value in values.items():
        printed = numbers.get(shown)
        allowed = allowed_deviation(experiment, shown, numbers) if printed else 0.0
        judged = verdict(value, printed, allowed, is_toy)
        cells.append(Cell(row.label, row.dataset, size, num_seeds, shown, printed, value, judged))
    for shown in experiment.costs:
        cells.append(Cell(row.label, row.dataset, size, num_seeds, shown, None, _cost(shown, records), Verdict.COST))
    return cells


def _cost(shown: str, records: Sequence[Result]) -> Value:
    """A cost by seed: under each protocol that a seed has a record of it is the same."""
    key, _ = COSTS[shown]
    by_seed = {record.seed: record.costs[key] for record in records if key in record.costs}
    return Value(by_seed, statistics.fmean(by_seed.values()) if by_seed else None)


def _value(experiment: Experiment, shown: str, row: Row, source: str, found: Mapping[str, Found]) -> Value:
    protocol, name = experiment.protocol_of(shown, row.data), experiment.metric(shown, row, source)
    records = found[protocol].records
    if not records:
        return Value(reason=found[protocol].reason, is_failed=found[protocol].is_failed)
    scored = {record.seed: record for record in records if name in record.metrics}
    if not scored:
        others = {
            key for record in records for key in record.metrics if key.partition("(")[0] == name.partition("@")[0]
        }
        told = f", which has {', '.join(sorted(others))}" if others else ""
        return Value(reason=f"{name} is not among the metrics of protocol {protocol}{told}")
    by_seed = {seed: record.metrics[name]["value"] for seed, record in scored.items()}
    return Value(
        by_seed,
        statistics.fmean(by_seed.values()),
        verified=all(record.weights["verified"] for record in scored.values()),
        outdated=next((record.outdated for record in scored.values() if record.outdated), ""),
        name=name,
        records=scored,
    )


def difference(first: Value, second: Value) -> Value:
    """The size of the difference of two values: of their means, as a paper takes it of printed ones, and by seed."""
    found = gain(first, second)
    by_seed = {seed: abs(value) for seed, value in found.by_seed.items()}
    mean = None if first.mean is None or second.mean is None else abs(first.mean - second.mean)
    return replace(found, by_seed=by_seed, mean=mean, parts=())


def gain(first: Value, second: Value) -> Value:
    """The first of two values minus the second: by seed, and the mean over the seeds that both have."""
    return _of_both(first, second, operator.sub, lambda one, other: (1.0, -1.0))


def harmonic_mean(first: Value, second: Value) -> Value:
    """The harmonic mean of two values from 0, which is 0 where one of them is: by seed, and the mean over seeds."""
    return _of_both(first, second, lambda one, other: float(statistics.harmonic_mean((one, other))), _harmonic_slopes)


def _harmonic_slopes(one: float, other: float) -> tuple[float, float]:
    total = one + other
    return (2 * (other / total) ** 2, 2 * (one / total) ** 2) if total else (0.0, 0.0)


def _of_both(
    first: Value,
    second: Value,
    compute: Callable[[float, float], float],
    slopes: Callable[[float, float], tuple[float, float]],
) -> Value:
    """What is computed of two values: by seed, and its mean over the seeds that both have, else of their means."""
    if first.mean is None or second.mean is None:
        lacking = first if first.mean is None else second
        return Value(reason=lacking.reason, is_failed=lacking.is_failed)
    both = [seed for seed in first.by_seed if seed in second.by_seed]
    by_seed = {seed: compute(first.by_seed[seed], second.by_seed[seed]) for seed in both}
    return Value(
        by_seed,
        statistics.fmean(by_seed.values()) if both else compute(first.mean, second.mean),
        first.verified and second.verified,
        outdated=first.outdated or second.outdated,
        parts=(first, second),
        slopes={seed: slopes(first.by_seed[seed], second.by_seed[seed]) for seed in both},
    )
