"""Runs the rows of a published table and prints published beside reproduced."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from mmbench.core import config
from mmbench.core.files import write_text
from mmbench.pipeline import tables
from mmbench.pipeline.assembly import prepared_data
from mmbench.pipeline.evaluation import evaluate
from mmbench.pipeline.experiments import Experiment, Row, load
from mmbench.pipeline.generation import Run, shown
from mmbench.pipeline.grid import write_grid
from mmbench.pipeline.training import trained

console = Console(stderr=True)

HELP = """usage: mmbench reproduce experiment=NAME [data.source=real|toy] [key=value ...]

  method=A,B  data=A,B   only these rows
  seeds=0,1,2            instead of the experiment's own seeds

Runs the rows of a published table that have no record yet, prints the table and writes it below results/tables/.
Other words are handed to every row, e.g. logger=wandb or trainer=cpu.

Exit code 0 when every requested row ran (a verdict "differs" included), else 1.
"""


def selected(experiment: Experiment, methods: Sequence[str], data: Sequence[str]) -> list[Row]:
    """The rows of the named methods and data sets; all where none is named.

    Raises:
        ValueError: the experiment has no row of such a name.
    """
    for kind, wanted, valid in (
        ("method of this experiment", methods, {row.method for row in experiment.rows}),
        ("data set of this experiment", data, {row.data for row in experiment.rows}),
    ):
        for name in wanted:
            if name not in valid:
                config.unknown(kind, name, valid)
    return [
        row for row in experiment.rows if row.method in (methods or [row.method]) and row.data in (data or [row.data])
    ]


def reproduce(
    experiment: Experiment, source: str, seeds: Sequence[int], rows: Sequence[Row], overrides: Sequence[str]
) -> bool:
    """Runs the rows, prints and writes the table; returns whether every row ran."""
    paths = config.composed(["method=identity", *overrides])["paths"]
    reasons: dict[tuple[str, str], str] = {}
    first_runs: dict[tuple[str, str], Run] = {}
    for row in rows:
        for seed in row.seeds_of(seeds):
            console.print(f"{experiment.name}: {row.label} on {row.data} ({source}), seed {seed}", highlight=False)
            try:
                plain = tables.row_config(experiment, row, source, seed, overrides)
                if plain["weights"] == "trained" and "training" in plain["method"]:
                    trained(plain, prepared_data(plain))
                _, run = evaluate(plain)
            except ValueError as error:
                reasons[row.key] = " ".join(str(error).split())
                console.print(f"  not run: {reasons[row.key]}", style="yellow", highlight=False, markup=False)
                break
            first_runs.setdefault(row.key, run)
    if rank_zero_only.rank > 0:
        return not reasons
    cells = tables.lines(experiment, source, seeds, overrides, paths, reasons, rows)
    # The page has every row of the table, also when some were asked for.
    whole = tables.lines(experiment, source, seeds, overrides, paths, reasons, experiment.rows)
    path = tables.page(experiment, source, seeds, paths["results"])
    write_text(path, tables.document(experiment, source, seeds, whole))
    tables.show(cells, f"{experiment.name} ({source} data)")
    print("".join(f"{sentence}\n" for sentence in tables.agreements(experiment, cells)), end="")
    print(f"table: {path}")
    for data in sorted({key[1] for key in first_runs}):
        print(f"grid: {_grid(experiment, source, data, first_runs, Path(paths['results']))}")
    if reasons:
        print(f"{len(reasons)} of {len(rows)} rows did not run: see the last column, then run this command again")
    else:
        print(f"next: mmbench table experiment={experiment.name} data.source={source} format=latex")
    return not reasons


def _grid(experiment: Experiment, source: str, data: str, runs: dict[tuple[str, str], Run], folder: Path) -> Path:
    """Samples as rows, methods as columns; only rows of the same data set share a picture."""
    chosen = {label: run for (label, run_data), run in runs.items() if run_data == data}
    samples = [list(shown(run, experiment.grid)) for run in chosen.values()]
    cells = [
        [examples[0][0], examples[0][1], *(example[2] for example in examples)]
        for examples in zip(*samples, strict=True)
    ]
    path = folder / "tables" / f"{experiment.name}-{data}{'-toy' if source == 'toy' else ''}.png"
    write_grid(path, cells, ["input", "prompt", *chosen])
    return path


def main(arguments: list[str]) -> int:
    own, rest = config.split_options(arguments, ("experiment", "data.source", "method", "data", "seeds"))
    if "experiment" not in own:
        raise ValueError(f"expected experiment=NAME, found none: choose from {', '.join(config.names('experiment'))}")
    experiment = load(own["experiment"])
    source = own.get("data.source", experiment.sources[0])
    experiment = experiment.on(source)
    rows = selected(experiment, config.words(own.get("method", "")), config.words(own.get("data", "")))
    seeds = config.integers(own["seeds"]) if "seeds" in own else experiment.seeds
    sys.stdout.reconfigure(line_buffering=True)
    return 0 if reproduce(experiment, source, seeds, rows, rest) else 1
