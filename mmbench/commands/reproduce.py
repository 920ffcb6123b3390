"""Runs the rows of a published table and prints published beside reproduced."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mmbench.core import catalogue, command_line, config, results
from mmbench.core.files import RESULTS, RUNS, require_assets, require_writable
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.experiments import Experiment, Row, require_own_protocols, seeds_of

HELP = """usage: mmbench reproduce experiment=NAME [data.source=real|toy] [key=value ...]

  method=A,B  data=A,B   only these rows
  seeds=0,1,2            instead of the experiment's own seeds
  hydra/launcher=NAME    rows and seeds at once: joblib (on this machine), slurm, ray; hydra.launcher.KEY=VALUE sets
                         n_jobs (all processors by default), partition and the like

Runs the rows of a published table that have no record yet, under every protocol that the table needs, prints the table
and writes it below results/tables/, with grids of images and, where the experiment has a `curve`, a figure. Other words
are handed to every row, e.g. logger=wandb or trainer=cpu.

A row that ends with an error is "failed", with the error and its log, and the others go on. The same command again
runs what has no record, failed rows among it; a training goes on from its last checkpoint, images that are there are
used as they are, and only what a changed word touches is done again. `mmbench status` says how far everything is.

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
                catalogue.unknown(kind, name, valid)
    return [
        row for row in experiment.rows if row.method in (methods or [row.method]) and row.data in (data or [row.data])
    ]


def reproduce(
    experiment: Experiment,
    source: str,
    seeds: Sequence[int],
    rows: Sequence[Row],
    overrides: Sequence[str],
    launching: Sequence[str],
) -> bool:
    """Runs the rows, over the engine that the words `launching` choose; prints and writes the table.

    Returns:
        Whether every row ran.
    """
    plain = config.composed(["method=identity", f"data.source={source}", *overrides])
    paths = plain["paths"]
    for folder in (experiment.name, "tables"):
        require_writable(Path(paths["results"]) / folder, RESULTS)
    require_writable(paths["runs"], RUNS)
    require_assets(paths)
    from pytorch_lightning.utilities import rank_zero_only  # and torch, which no mistake in a word needs

    from mmbench.pipeline import comparing, marks, pages, reproducing, tables
    from mmbench.pipeline.cells import cells_of
    from mmbench.pipeline.launching import chosen
    from mmbench.pipeline.mirrors import require_loggers, show_table
    from mmbench.pipeline.stages import require_hardware

    require_hardware(plain)
    require_loggers(plain["logger"])
    launcher = chosen([*launching, *(word for word in overrides if word.startswith("paths."))]) if launching else None
    outcome = reproducing.run(experiment, source, seeds, rows, overrides, launcher)
    if rank_zero_only.rank > 0:
        return not outcome.reasons
    held = results.by_configuration(paths["results"], experiment.name)
    # The page has every row of the table, also when some were asked for.
    failed = marks.failures(paths["runs"], experiment.name)
    whole = cells_of(experiment, source, seeds, overrides, paths, held, experiment.rows, outcome.reasons, failed)
    whole = comparing.compared(experiment, whole, paths["results"])
    asked = {(row.label, row.dataset) for row in rows}
    cells = [cell for cell in whole if (cell.method, cell.data) in asked]
    under = [*tables.agreements(experiment, cells), *tables.remarks(experiment)]
    tables.show(cells, f"{experiment.name} ({source} data)", under)
    for name, place in pages.write(experiment, source, seeds, whole, paths["results"]).items():
        print(f"{name}: {place}")
    grids = reproducing.write_grids(experiment, source, outcome, Path(paths["results"]))
    for grid in grids:
        print(f"grid: {grid}")
    show_table(experiment, source, seeds, plain, whole, grids)
    if outcome.reasons:
        lacking = len({key[:2] for key in outcome.reasons})
        print(f"{lacking} of {len(rows)} rows did not run: see the last column, then run this command again")
    else:
        print(f"next: mmbench table experiment={experiment.name} data.source={source} format=latex")
    return not outcome.reasons


def main(arguments: list[str]) -> int:
    own, rest = command_line.split_options(arguments, ("experiment", "data.source", "method", "data", "seeds"))
    command_line.require_said(own)
    require_own_protocols(rest)
    if any(word.startswith("objective=") for word in rest):
        raise ValueError("expected words for the rows of a table, found objective=, which is for `mmbench evaluate`")
    if "experiment" not in own:
        known = ", ".join(catalogue.names("experiment"))
        raise ValueError(f"expected experiment=NAME, found none: choose from {known}")
    experiment = load(own["experiment"])
    source = own.get("data.source", experiment.sources[0])
    experiment = experiment.on(source)
    rows = selected(experiment, command_line.listed(own.get("method", "")), command_line.listed(own.get("data", "")))
    seeds = seeds_of(own.get("seeds"), rest, experiment)
    sys.stdout.reconfigure(line_buffering=True)
    start = time.monotonic()
    launching = [word for word in rest if word.startswith(("hydra/launcher=", "hydra.launcher."))]
    complete = reproduce(experiment, source, seeds, rows, [word for word in rest if word not in launching], launching)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(f"took {minutes} min {seconds} s", file=sys.stderr)
    return 0 if complete else 1
