"""Running what a table needs: every row, under every protocol of the table, with every seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmbench.core.progress import console
from mmbench.core.results import Unwritten
from mmbench.pipeline.assembly import prepared_data
from mmbench.pipeline.evaluation import evaluate
from mmbench.pipeline.experiments import Experiment, Row
from mmbench.pipeline.generation import Run, shown
from mmbench.pipeline.grid import write_grid
from mmbench.pipeline.lookup import row_config
from mmbench.pipeline.stages import learns
from mmbench.pipeline.training import trained


@dataclass(frozen=True)
class Outcome:
    """What came of running rows.

    Attributes:
        reasons: key of a row, and a protocol, to why it did not run.
        runs: key of a row to the first run of it.
    """

    reasons: dict[tuple[str, str, str], str] = field(default_factory=dict)
    runs: dict[tuple[str, str], Run] = field(default_factory=dict)


def run(
    experiment: Experiment, source: str, seeds: Sequence[int], rows: Sequence[Row], overrides: Sequence[str]
) -> Outcome:
    """Trains and evaluates what has no record yet, and says so on standard error.

    A row that cannot run under a protocol is left with the reason; the others go on.
    """
    outcome = Outcome()
    for row in rows:
        for protocol in experiment.protocols(row.data):
            under = f" under {protocol}" if len(experiment.protocols(row.data)) > 1 else ""
            for seed in row.seeds_of(seeds):
                said = f"{experiment.name}: {row.label} on {row.data} ({source}){under}, seed {seed}"
                console.print(said, highlight=False)
                try:
                    done = _run(row_config(experiment, row, protocol, source, seed, overrides))
                except ValueError as error:
                    if isinstance(error, Unwritten):
                        for name, found in sorted(error.record.metrics.items()):
                            console.print(f"  {name} {found['value']:.4f}", highlight=False, markup=False)
                    reason = outcome.reasons[*row.key, protocol] = " ".join(str(error).split())
                    console.print(f"  not run: {reason}", style="yellow", highlight=False, markup=False)
                    break
                outcome.runs.setdefault(row.key, done)
    return outcome


def _run(plain: dict[str, Any]) -> Run:
    if plain["weights"] == "trained" and learns(plain):
        trained(plain, prepared_data(plain))
    return evaluate(plain)[1]


def write_grids(experiment: Experiment, source: str, outcome: Outcome, folder: Path) -> list[Path]:
    """Pictures with samples as rows and methods as columns, one for each data set."""
    paths = []
    for data in sorted({key[1] for key in outcome.runs}):
        chosen = {label: run for (label, run_data), run in outcome.runs.items() if run_data == data}
        samples = [list(shown(run, experiment.grid)) for run in chosen.values()]
        cells = [
            [examples[0][0], examples[0][1], *(example[2] for example in examples)]
            for examples in zip(*samples, strict=True)
        ]
        path = folder / "tables" / f"{experiment.name}-{data}{'-toy' if source == 'toy' else ''}.png"
        write_grid(path, cells, [next(iter(chosen.values())).method.task.example, "prompt", *chosen])
        paths.append(path)
    return paths
