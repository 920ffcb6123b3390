"""Running what a table needs: every row, under every protocol of the table, with every seed."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_only

from mmbench.core import interrupts, results
from mmbench.core.download import MissingAsset
from mmbench.core.files import is_locked
from mmbench.core.processes import divided
from mmbench.core.progress import console, with_stages, within
from mmbench.core.results import Unwritten
from mmbench.pipeline import launching, marks
from mmbench.pipeline.assembly import prepared_data
from mmbench.pipeline.evaluation import evaluate
from mmbench.pipeline.experiments import Experiment, Row
from mmbench.pipeline.generation import Run, shown
from mmbench.pipeline.grid import write_grid
from mmbench.pipeline.lookup import keys_of, row_config
from mmbench.pipeline.stages import Stage, learns, num_processes, stage
from mmbench.pipeline.standing import spoken
from mmbench.pipeline.training import trained

WIDEST = 32  # methods in a grid of one data set
Key = tuple[str, str, str]  # of a row, and a protocol


@dataclass(frozen=True)
class Job:
    """One row under one protocol with one seed.

    Attributes:
        row: key of the row, and the protocol.
        said: it in words.
        plain: its settled configuration.
        key: the hash of that, by which its record is looked up.
        grid: number of samples to show of it.
    """

    row: Key
    said: str
    plain: dict[str, Any]
    key: str
    grid: int

    @property
    def mark(self) -> Path:
        return marks.place(self.plain["paths"]["runs"], self.plain["experiment"], self.key)

    @property
    def log(self) -> Path:
        return self.mark.with_suffix(".log")

    def clear(self) -> None:
        """Forgets how it failed before, unless another run is at work on it."""
        if not is_locked(self.mark):
            self.mark.unlink(missing_ok=True)
            self.log.unlink(missing_ok=True)

    @property
    def facts(self) -> dict[str, Any]:
        """What a mark says of it."""
        return {"row": self.said, "seed": self.plain["seed"], "configuration": self.key}


@dataclass(frozen=True)
class Done:
    """What came of a job.

    Attributes:
        reason: why it did not run or failed, in one line; "" where there is a record.
        is_failed: whether that is an error that it ended with, and no asset that it lacks.
        shown: (input, prompt, output) of some samples, cells of a grid.
        example: what the inputs are called.
    """

    reason: str = ""
    is_failed: bool = False
    shown: list[tuple[Any, str, Any]] = field(default_factory=list)
    example: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of running rows.

    Attributes:
        reasons: key of a row, and a protocol, to why it did not run or failed.
        runs: key of a row to what the first run of it shows.
    """

    reasons: dict[Key, str] = field(default_factory=dict)
    runs: dict[tuple[str, str], Done] = field(default_factory=dict)


class Clock:
    """How far rows are, and how long the others may take, by those that took their time here.

    Args:
        fresh: of each job, whether it has no record yet; the others take next to none.
    """

    def __init__(self, fresh: Sequence[bool]) -> None:
        self.left, self.seconds = list(fresh), 0.0
        self.total, self.took = len(fresh), 0

    def next(self) -> str:
        """Where the next job stands among all: `row 3 of 12, about 4 min remain`."""
        place = f"row {self.total - len(self.left) + 1} of {self.total}"
        remaining = sum(self.left) * self.seconds / self.took if self.took else 0.0
        return f"{place}, about {spoken(remaining)} remain" if remaining >= 1 else place

    def ended(self, seconds: float) -> None:
        """Counts the next job, which took so long of this command's time."""
        if self.left.pop(0):
            self.seconds, self.took = self.seconds + seconds, self.took + 1


def run(
    experiment: Experiment,
    source: str,
    seeds: Sequence[int],
    rows: Sequence[Row],
    overrides: Sequence[str],
    launcher: Mapping[str, Any] | None = None,
) -> Outcome:
    """Trains and evaluates what has no record yet, and says so on standard error.

    A row that cannot run under a protocol, or fails, is left with the reason; the others go on.

    Args:
        launcher: the engine that rows and seeds are distributed over (`launching.chosen`); None: one after the other.
            What has a record is looked at here, after the jobs.

    Raises:
        ValueError: a job over an engine would be divided among processes itself.
    """
    outcome = Outcome()
    jobs = list(_jobs(experiment, source, seeds, rows, overrides, outcome))
    held = results.by_configuration(jobs[0].plain["paths"]["results"], experiment.name) if jobs else {}
    done = dict(_launched([job for job in jobs if job.key not in held], launcher)) if launcher else {}
    clock, lacking = Clock([job.key not in held for job in jobs if job.key not in done]), set()
    for job in jobs:
        if job.key not in done:
            done[job.key] = _in_turn(job, clock) if job.row not in lacking else Done(outcome.reasons[job.row])
        if done[job.key].reason:
            outcome.reasons.setdefault(job.row, done[job.key].reason)
            lacking |= set() if done[job.key].is_failed else {job.row}
        else:
            outcome.runs.setdefault(job.row[:2], done[job.key])
    return outcome


def _jobs(
    experiment: Experiment,
    source: str,
    seeds: Sequence[int],
    rows: Sequence[Row],
    overrides: Sequence[str],
    outcome: Outcome,
) -> Iterator[Job]:
    """The jobs of rows, in the order of the table; a row that is no run yet is left with the reason."""
    counted: dict[str, int] = {}
    for row in rows:
        counted[row.data] = counted.get(row.data, 0) + 1
        grid = experiment.grid if counted[row.data] <= WIDEST else 0
        protocols = experiment.protocols(row.data)
        for protocol in protocols if row.seeds_of(seeds) else ():
            under = f" under {protocol}" if len(protocols) > 1 else ""
            said = f"{experiment.name}: {row.label} on {row.data} ({source}){under}"
            wanted = row.seeds_of(seeds)
            try:
                plain = row_config(experiment, row, protocol, source, wanted[0], overrides)
            except ValueError as error:
                reason = outcome.reasons[*row.key, protocol] = marks.one_line(error)
                console.print(f"{said}\n  not run: {reason}", style="yellow", highlight=False, markup=False)
                continue
            for seed, key in keys_of(plain, wanted).items():
                own = plain if seed == wanted[0] else row_config(experiment, row, protocol, source, seed, overrides)
                yield Job((*row.key, protocol), f"{said}, seed {seed}", own, key, grid)


def _in_turn(job: Job, clock: Clock) -> Done:
    place = clock.next()
    console.print(f"{job.said}: {place}", highlight=False, markup=False)
    job.clear()
    start = time.monotonic()
    with within(place):
        done = work(job)
    clock.ended(time.monotonic() - start)
    _say(done)
    return done


def _say(done: Done) -> None:
    if done.reason:
        verdict, style = ("failed", "red") if done.is_failed else ("not run", "yellow")
        console.print(f"  {verdict}: {done.reason}", style=style, highlight=False, markup=False)


def _launched(jobs: Sequence[Job], launcher: Mapping[str, Any]) -> Iterator[tuple[str, Done]]:
    """Key of each job that an engine ran, and what came of it."""
    if jobs and (processes := num_processes(jobs[0].plain)) > 1:
        raise ValueError(
            f"expected one process for each row with hydra/launcher, found {processes} by trainer.devices or "
            "trainer.num_nodes: leave one of the two out"
        )
    for job in jobs:
        job.clear()
    works = [launching.Work.of(work, job, job.log, job.mark.absolute()) for job in jobs]
    clock, start = Clock([True] * len(jobs)), time.monotonic()
    for ended in launching.launched(works, launcher):
        job, done = jobs[ended.index], ended.result
        if ended.died:
            done = Done(marks.failed(job.mark, job.facts, ended.died, ended.log or str(job.log)).told, is_failed=True)
        console.print(f"{job.said}: {clock.next()}", highlight=False, markup=False)
        _say(done)
        clock.ended(time.monotonic() - start)
        start = time.monotonic()
        yield job.key, done


def work(job: Job) -> Done:
    """Trains, generates and scores what a job has no record of, in this process."""
    try:
        with marks.at_work(job.mark, job.facts):
            run = _run(job.plain)
            cells = list(shown(run, job.grid)) if job.grid and rank_zero_only.rank == 0 else []
            return Done(shown=cells, example=run.method.task.example)
    except MissingAsset as error:
        return Done(marks.one_line(error))
    except Exception as error:
        if divided() and not isinstance(error, ValueError):  # the other processes are elsewhere now, or gone
            interrupts.wait_for_loss()
            raise
        if isinstance(error, Unwritten):
            for name, found in sorted(error.record.metrics.items()):
                console.print(f"  {name} {found['value']:.4f}", highlight=False, markup=False)
        mark = marks.read(job.mark)
        return Done(mark.told if mark else marks.one_line(error), is_failed=True)


def _run(plain: dict[str, Any]) -> Run:
    if plain["weights"] == "trained" and learns(plain):
        data = prepared_data(plain)
        with with_stages([one.folder for one in _untrained(stage(plain, data))]):
            trained(plain, data)
    return evaluate(plain)[1]


def _untrained(wanted: Stage) -> list[Stage]:
    """The trainings that a stage still needs, in their order, each once."""
    before = [one for earlier in wanted.before.values() for one in _untrained(earlier)]
    own = [wanted] if "training" in wanted.plain["method"] and not wanted.weights.is_file() else []
    return list({one.folder: one for one in [*before, *own]}.values())


def write_grids(experiment: Experiment, source: str, outcome: Outcome, folder: Path) -> list[Path]:
    """Pictures with samples as rows and methods as columns, one for each data set."""
    paths = []
    for data in sorted({key[1] for key, done in outcome.runs.items() if done.shown}):
        chosen = {label: run for (label, run_data), run in outcome.runs.items() if run_data == data and run.shown}
        cells = [
            [examples[0][0], examples[0][1], *(example[2] for example in examples)]
            for examples in zip(*(run.shown for run in chosen.values()), strict=True)
        ]
        path = folder / "tables" / f"{experiment.name}-{data}{'-toy' if source == 'toy' else ''}.png"
        write_grid(path, cells, [next(iter(chosen.values())).example, "prompt", *chosen])
        paths.append(path)
    return paths
