"""Claims of papers, tested: does a row score better than another by more than images and seeds vary?"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
import scipy.stats

from mmbench.pipeline.cells import ALPHA, Cell
from mmbench.pipeline.comparing import Evidence, Halves, Images, direction, overlapping
from mmbench.pipeline.experiments import Claim, Experiment
from mmbench.statistics.bootstrap import Floats
from mmbench.statistics.paired import holm, paired_tests
from mmbench.statistics.resampling import judged

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
        basis: what was tested over: `700 images, seeds: 3`.
        single: whether neither of the two has more than one seed.
        overlap: whether values of single seeds of the two overlap, so that no difference is shown, whatever p is.
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
    single: bool = False
    overlap: bool = False
    reason: str = ""

    @property
    def outcome(self) -> Outcome:
        if self.adjusted is None or self.difference is None:
            return Outcome.UNDECIDED
        if self.adjusted >= ALPHA or self.overlap:
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
    def said(self) -> dict[str, str]:
        """Data set to what the tests on it amount to, and whether of one training each, as others need not be."""
        by_data: dict[str, list[Test]] = defaultdict(list)
        for test in self.tests:
            by_data[test.data].append(test)
        found = {}
        for data, tests in by_data.items():
            outcome = overall(tests)
            alone = outcome is not Outcome.UNDECIDED and any(test.single for test in tests if test.outcome is outcome)
            found[data] = f"{outcome}{' (one seed)' if alone else ''}"
        return found

    @property
    def missing(self) -> list[str]:
        """What keeps it from being decided, each reason once."""
        return list(dict.fromkeys(test.reason for test in self.tests if test.reason))


def overall(tests: Sequence[Test]) -> Outcome:
    """What several tests amount to: a claim holds where each of them does."""
    found = {test.outcome for test in tests}
    return next((outcome for outcome in Outcome if outcome in found), Outcome.UNDECIDED)


def tested(experiment: Experiment, cells: Sequence[Cell], results: str | Path) -> list[Tested]:
    """The claims of an experiment, each with its tests on the records at hand.

    Tested is as tables test their rows (`comparing.compared`): over the images that both have, each with all its
    captions, draws and seeds; where their seeds overlap no difference is shown. Where records keep nothing of images,
    over seeds, of which there have to be three (Student's t, in pairs).

    Args:
        cells: of the table.
        results: the folder of all records.

    Raises:
        ValueError: a file with values by sample is damaged; names it.
    """
    evidence = Evidence(Path(results) / experiment.name)
    known = {(cell.method, cell.data, cell.metric): cell for cell in cells}
    claims, waiting = [], []
    for claim in experiment.claims:
        tests = []
        for first, second, names in _pairs(experiment, claim):
            if first in known and second in known:
                test, apart = _test(experiment, known[first], known[second], names, evidence)
                waiting += [(len(claims), len(tests), apart)] if apart is not None else []
                tests.append(test)
        claims.append(Tested(claim, tests))
    total = len(waiting) + sum(test.p is not None for claim in claims for test in claim.tests)
    for (place, number, _), found in zip(waiting, paired_tests([apart for *_, apart in waiting], total), strict=True):
        test = claims[place].tests[number]
        claims[place].tests[number] = replace(test, difference=found.difference, interval=found.interval, p=found.p)
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


def _test(
    experiment: Experiment, first: Cell, second: Cell, names: tuple[str, str], evidence: Evidence
) -> tuple[Test, Floats | None]:
    """A test, and the differences by image that it waits for; None of one that is done, or cannot be done."""
    metric = first.metric if first.metric == second.metric else experiment.places[first.metric][1]
    sign = direction(experiment, [first, second])
    printed = None
    if sign and first.published and second.published:
        printed = sign * (first.published.value - second.published.value) > 0
    found = Test(first.data, metric, *names, printed=printed)
    for cell, name in zip((first, second), names, strict=True):
        if reason := _lacking(cell):
            return replace(found, reason=f"{name}: {reason}"), None
    if not sign:
        return replace(found, reason=f"nobody says in which direction {metric} is better"), None
    one, other = evidence.of(first.value), evidence.of(second.value)
    seeds = " and ".join(map(str, sorted({len(first.value.by_seed), len(second.value.by_seed)})))
    # Columns of one row are of the same trainings, whose seeds belong together.
    overlap = first.method != second.method and overlapping(first.value, second.value)
    found = replace(found, overlap=overlap, single=max(len(first.value.by_seed), len(second.value.by_seed)) < 2)
    basis = f"{{:,}} images, seeds: {seeds}" + (", which overlap" if overlap else "")
    if isinstance(one, Images) and isinstance(other, Images):
        both = [key for key in one.ids if key in other.means]
        if len(both) > 1:
            apart = sign * np.array([one.means[key] - other.means[key] for key in both])
            return replace(found, basis=basis.format(len(both))), apart
    if isinstance(one, Halves) and isinstance(other, Halves) and one.ids == other.ids:
        mean = sign * ((first.value.mean or 0.0) - (second.value.mean or 0.0))
        interval, p = judged(mean, sign * (one.deviations - other.deviations))
        return replace(found, difference=mean, interval=interval, p=p, basis=basis.format(one.count)), None
    return _over_seeds(replace(found, overlap=False), first, second, sign), None


def _over_seeds(found: Test, first: Cell, second: Cell, sign: int) -> Test:
    seeds = [seed for seed in first.value.by_seed if seed in second.value.by_seed]
    if len(seeds) < LEAST_SEEDS:
        return replace(
            found, reason=f"no images to test on that both have, and {len(seeds)} of {LEAST_SEEDS} seeds are here"
        )
    apart = sign * np.array([first.value.by_seed[seed] - second.value.by_seed[seed] for seed in seeds])
    mean, basis = float(apart.mean()), f"{len(seeds)} seeds only"
    if not np.ptp(apart):  # no spread, so that there is nothing that a difference could come from by chance
        return replace(found, difference=mean, interval=(mean, mean), p=float(mean == 0), basis=basis)
    test = scipy.stats.ttest_1samp(apart, 0.0)
    low, high = test.confidence_interval(0.95)
    return replace(found, difference=mean, interval=(float(low), float(high)), p=float(test.pvalue), basis=basis)


def _lacking(cell: Cell) -> str:
    """Why a cell cannot be compared; "" where it can."""
    if cell.value.mean is None:
        return cell.value.reason
    if cell.unlearned:
        return f"not trained enough ({'; '.join(cell.unlearned)})"
    return f"outdated ({cell.value.outdated})" if cell.value.outdated else ""


def _adjusted(claims: Sequence[Tested]) -> list[Tested]:
    """The claims with Holm's correction over all of their tests."""
    corrected = iter(holm([test.p for claim in claims for test in claim.tests if test.p is not None]))
    return [
        replace(
            claim,
            tests=[test if test.p is None else replace(test, adjusted=next(corrected)) for test in claim.tests],
        )
        for claim in claims
    ]
