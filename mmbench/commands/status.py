"""Says how far the rows of a table are."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from mmbench.commands.reproduce import selected
from mmbench.core import catalogue, checking, command_line, config
from mmbench.pipeline import marks
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.experiments import require_own_protocols, seeds_of
from mmbench.pipeline.marks import Mark
from mmbench.pipeline.standing import Places, Standing, places_of, spoken, standings

COLUMNS = ("method", "data", "protocol", "done", "running", "failed", "missing", "which")
PAUSE = 2.0  # seconds between two looks
WIDTH = 160  # of a table that goes into no terminal
HELP = """usage: mmbench status [experiment=NAME] [data.source=real|toy] [key=value ...]

  method=A,B  data=A,B   only these rows
  seeds=0,1,2            instead of the experiment's own seeds

Says of each row of a table how many seeds have a record, are at work (where, and since when), failed (why, and where
more stands) and are missing. Words that change the rows are given as to `mmbench reproduce`. On a terminal the table is
drawn again every two seconds as long as a row is at work. Without experiment=: every experiment that has begun.
"""

Wanted = dict[tuple[str, str], list[Places]]  # experiment and source to its rows


def main(arguments: list[str]) -> int:
    own, rest = command_line.split_options(arguments, ("experiment", "data.source", "method", "data", "seeds"))
    command_line.require_said(own)
    require_own_protocols(rest)
    checking.check(rest)
    paths = config.folders(rest)
    wanted = _wanted(own, rest, paths)
    first = _looked(wanted, paths)
    # What was not asked for by name is shown where something is known of it.
    is_named = {"experiment", "data.source"} <= own.keys()
    shown = {key: wanted[key] for key, found in first.items() if is_named or any(map(_is_begun, found))}
    if not shown:
        print("nothing has begun: mmbench reproduce experiment=NAME")
        return 0
    console = Console()
    if console.is_terminal:
        _watch(shown, paths, console)
    else:
        Console(width=WIDTH).print(_drawn({key: first[key] for key in shown}))
    print("next: mmbench reproduce experiment=NAME runs what is missing or failed")
    return 0


def _wanted(own: Mapping[str, str], words: Sequence[str], paths: Mapping[str, str]) -> Wanted:
    found = {}
    for name in [own["experiment"]] if "experiment" in own else _begun(paths):
        experiment = load(name)
        for source in [own["data.source"]] if "data.source" in own else experiment.sources:
            here = experiment.on(source)
            methods, data = (command_line.listed(own.get(key, "")) for key in ("method", "data"))
            rows = selected(here, methods, data)
            found[name, source] = places_of(here, source, seeds_of(own.get("seeds"), words, here), rows, words)
    return found


def _begun(paths: Mapping[str, str]) -> list[str]:
    """Experiments of which there is a record or a mark: composing the rows of all takes half a minute."""
    return [
        name
        for name in catalogue.names("experiment")
        if (Path(paths["results"]) / name).is_dir() or marks.folder(paths["runs"], name).is_dir()
    ]


def _is_begun(found: Standing) -> bool:
    return bool(found.done or found.running or found.failed)


def _looked(wanted: Wanted, paths: Mapping[str, str]) -> dict[tuple[str, str], list[Standing]]:
    return {(name, source): standings(places, name, paths) for (name, source), places in wanted.items()}


def _watch(wanted: Wanted, paths: Mapping[str, str], console: Console) -> None:
    """Draws the tables again and again until no row is at work."""
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            found = _looked(wanted, paths)
            live.update(_drawn(found), refresh=True)
            if not any(one.running for standing in found.values() for one in standing):
                return
            time.sleep(PAUSE)


def _drawn(found: Mapping[tuple[str, str], Sequence[Standing]]) -> Group:
    return Group(*(_table(name, source, standing) for (name, source), standing in found.items()))


def _table(name: str, source: str, found: Sequence[Standing]) -> Table:
    """A line for each row and protocol; above them, how far the whole is."""
    counts = {
        column: sum(len(getattr(one, column)) for one in found) for column in ("done", "running", "failed", "missing")
    }
    told = ", ".join(f"{count} {column}" for column, count in counts.items())
    table = Table(title=f"{name} ({source} data): {told}", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in counts else "left", overflow="fold")
    for one in found:
        style = "red" if one.failed else "cyan" if one.running else "" if one.missing else "green"
        numbers = [str(len(getattr(one, column)) or "-") for column in counts]
        lines = "\n".join(map(escape, _lines(one)))
        table.add_row(one.places.method, one.places.data, one.places.protocol, *numbers, lines, style=style)
    return table


def _lines(found: Standing) -> list[str]:
    """Which seeds are at work and where, and which failed and why; or why the row is no run at all."""
    running = [f"seed {seed}: on {_host(mark)}" for seed, mark in found.running.items()]
    failed = [f"seed {seed}: failed ({mark.told})" for seed, mark in found.failed.items()]
    return [*running, *failed, *filter(None, [found.places.reason])]


def _host(mark: Mark) -> str:
    return f"{mark.host} for {spoken(max(0.0, time.time() - mark.since))}"
