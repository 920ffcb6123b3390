"""Claims of papers, tested: does a row score better than another by more than images and seeds vary?"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from pathlib import Path

import numpy as np
import scipy.stats
from statsmodels.stats.multitest import multipletests

from mmbench.core import config
from mmbench.core.results import Result
from mmbench.pipeline import by_sample
from mmbench.pipeline.cells import Cell
from mmbench.pipeline.experiments import Claim, Experiment
from mmbench.pipeline.lookup import Found

Records = Mapping[tuple[str, str], Mapping[str, Found]]  # label and data set of a row, and a protocol, to what there is
LEVEL = 0.05  # what an adjusted p is to be below
LEAST_SEEDS = 3  # of two there is no spread to speak of


class Outcome(StrEnum):
    """What the tests of a claim amount to, the one that outweighs the others first."""

    FAILS = "does not hold"
    UNDECIDED = "not decided"
    NO_DIFFERENCE = "no difference shown"
    HOLDS = "holds"


@dataclass(frozen=True)
class Test:
    """One comparison of a claim: two cells of a metric on a data set.

    Attributes:
        data, metric: what is compared, as the table calls it.
        better, worse: rows, or columns of one row, as the claim has them.
        printed: whether the printed numbers differ as the claim says; None where one of them is not printed.
        difference: by how much the better one is better, in the metric's own direction: below 0 it is worse.
        interval: of the difference, 95 %.
        p: two-sided, of no difference; None where nothing was tested.
        adjusted: the same after Holm over all tests of the table's claims.
        basis: what was tested over: `700 images, 3 seeds`.
        reason: why nothing was tested.
    """

    data: str
    metric: str
    better: str
    worse: str
    printed: bool | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    adjusted: float | None = None
    basis: str = ""
    reason: str = ""

    @property
    def outcome(self) -> Outcome:
        if self.adjusted is None or self.difference is None:
            return Outcome.UNDECIDED
        if self.adjusted >= LEVEL:
            return Outcome.NO_DIFFERENCE
        return Outcome.HOLDS if self.difference > 0 else Outcome.FAILS


@dataclass(frozen=True)
class Tested:
    """A claim with its tests."""

    claim: Claim
    tests: list[Test] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        return overall(self.tests)

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """Data set to what the tests on it amount to."""
        found: dict[str, list[Test]] = defaultdict(list)
        for test in self.tests:
            found[test.data].append(test)
        return {data: overall(tests) for data, tests in found.items()}

    @property
    def missing(self) -> list[str]:
        """What keeps it from being decided, each reason once."""
        return list(dict.fromkeys(test.reason for test in self.tests if test.reason))


def overall(tests: Sequence[Test]) -> Outcome:
    """What several tests amount to: a claim holds where each of them does."""
    found = {test.outcome for test in tests}
    return next((outcome for outcome in Outcome if outcome in found), Outcome.UNDECIDED)


def tested(
    experiment: Experiment, cells: Sequence[Cell], records: Records, folder: str | Path, source: str
) -> list[Tested]:
    """The claims of an experiment, each with its tests on the records at hand.

    A metric with values by sample is tested over images: of each image the mean over captions, draws and seeds, in
    pairs (Student's t). Any other is tested over seeds, of which there have to be three.

    Args:
        cells: of the table.
        records: of its rows.
        folder: where the records lie.
        source: of the data.

    Raises:
        ValueError: a file with values by sample is damaged; names it.
    """
    values = Values(experiment, source, records, Path(folder))
    known = {(cell.method, cell.data, cell.metric): cell for cell in cells}
    claims = []
    for claim in experiment.claims:
        tests = [
            _test(experiment, known[one], known[other], names, values)
            for one, other, names in _pairs(experiment, claim)
            if one in known and other in known
        ]
        claims.append(Tested(claim, tests))
    return _adjusted(claims)


Place = tuple[str, str, str]  # label of a row, data set, metric as the table shows it


def _pairs(experiment: Experiment, claim: Claim) -> Iterator[tuple[Place, Place, tuple[str, str]]]:
    """The better and the worse cell of each comparison, and what to call the two."""
    shown = {place: name for name, place in experiment.places.items()}
    for data in claim.data or dict.fromkeys(row.dataset for row in experiment.rows):
        for metric in claim.metrics:
            if claim.columns:
                first, *others = claim.columns
                for row in claim.rows:
                    for other in others:
                        places = ((row, data, shown[first, metric]), (row, data, shown[other, metric]))
                        yield *places, (f"{row}, {first}", f"{row}, {other}")
            else:
                first, *others = claim.rows
                for other in others:
                    yield (first, data, metric), (other, data, metric), (first, other)


def higher_is_better(experiment: Experiment, shown: str) -> bool:
    """The direction of a metric as the table shows it; a difference of two columns is better where it is smaller."""
    if shown in experiment.differences:
        return False
    if shown in experiment.gains:
        return higher_is_better(experiment, experiment.gains[shown][0])
    column, metric = experiment.places[shown]
    choice = experiment.columns[column].metrics[metric]
    name = choice if isinstance(choice, str) else next(iter(choice.values()))
    return _direction(name.partition("@")[0].partition("(")[0])


@cache  # each composes a file and imports a module
def _direction(metric: str) -> bool:
    found: bool = config.target(config.node(f"metric/{metric}")).higher_is_better
    return found


class Values:
    """Values by sample of the records of a table; each file is read once."""

    def __init__(self, experiment: Experiment, source: str, records: Records, folder: Path) -> None:
        self.experiment, self.source, self.records, self.folder = experiment, source, records, folder
        self.rows = {(row.label, row.dataset): row for row in experiment.rows}
        self.read: dict[str, dict] = {}

    def by_image(self, cell: Cell) -> dict[str, float]:
        """Image id to the mean over captions, draws and seeds; empty where a record has no values by sample."""
        if cell.metric not in self.experiment.places:
            return {}
        row = self.rows[cell.method, cell.data]
        name = self.experiment.metric(cell.metric, row, self.source)
        found = self.records[cell.method, cell.data][self.experiment.protocol_of(cell.metric, row.data)].records
        values: dict[str, list[float]] = defaultdict(list)
        for record in found:
            scores = self._of(record).get(name)
            if not scores:
                return {}
            for sample, value in scores.items():
                values[sample.id].append(value)
        return {key: float(np.mean(ones)) for key, ones in values.items()}

    def _of(self, record: Result) -> dict:
        if not record.samples:
            return {}
        name = record.samples["file"]
        if name not in self.read:
            self.read[name] = by_sample.read(record, self.folder)
        return self.read[name]


def _test(experiment: Experiment, first: Cell, second: Cell, names: tuple[str, str], values: Values) -> Test:
    higher = higher_is_better(experiment, first.metric)
    sign = 1 if higher else -1
    printed = None
    if first.published and second.published:
        printed = sign * (first.published.value - second.published.value) > 0
    metric = first.metric if first.metric == second.metric else experiment.places[first.metric][1]
    found = Test(first.data, metric, *names, printed=printed)
    for cell, name in zip((first, second), names, strict=True):
        if reason := _lacking(cell):
            return replace(found, reason=f"{name}: {reason}")
    one, other = values.by_image(first), values.by_image(second)
    both = sorted(one.keys() & other.keys())
    if len(both) > 1:
        seeds = sorted({len(first.value.by_seed), len(second.value.by_seed)})
        basis = f"{len(both):,} images, {' and '.join(map(str, seeds))} seed{'s' * (seeds[-1] > 1)}"
        return _over(found, sign * np.array([one[key] - other[key] for key in both]), basis)
    seeds = [seed for seed in first.value.by_seed if seed in second.value.by_seed]
    if len(seeds) < LEAST_SEEDS:
        reason = f"no values by sample of {metric}, and {len(seeds)} of {LEAST_SEEDS} seeds"
        return replace(found, reason=reason)
    apart = [first.value.by_seed[seed] - second.value.by_seed[seed] for seed in seeds]
    return _over(found, sign * np.array(apart), f"{len(seeds)} seeds only")


def _lacking(cell: Cell) -> str:
    """Why a cell cannot be compared; "" where it can."""
    if cell.value.mean is None:
        return cell.value.reason
    if cell.unlearned:
        return f"not trained enough ({'; '.join(cell.unlearned)})"
    return f"outdated ({cell.value.outdated})" if cell.value.outdated else ""


def _over(found: Test, apart: np.ndarray, basis: str) -> Test:
    """A test of paired differences, (N,) float64."""
    mean = float(apart.mean())
    if not np.ptp(apart):  # no spread, so that there is nothing that a difference could come from by chance
        return replace(found, difference=mean, interval=(mean, mean), p=float(mean == 0), basis=basis)
    test = scipy.stats.ttest_1samp(apart, 0.0)
    low, high = test.confidence_interval(0.95)
    return replace(found, difference=mean, interval=(float(low), float(high)), p=float(test.pvalue), basis=basis)


def _adjusted(claims: Sequence[Tested]) -> list[Tested]:
    """The claims with Holm's correction over all of their tests."""
    raw = [test.p for claim in claims for test in claim.tests if test.p is not None]
    corrected = iter(multipletests(raw, method="holm")[1].tolist() if raw else [])
    return [
        replace(
            claim,
            tests=[test if test.p is None else replace(test, adjusted=next(corrected)) for test in claim.tests],
        )
        for claim in claims
    ]
