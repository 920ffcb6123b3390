"""Lists what a command line can choose from."""

import re
from collections.abc import Iterator

import yaml
from rich.console import Console
from rich.table import Table

from mmbench.core import catalogue, command_line

GROUPS = ("method", "data", "protocol", "metric", "mask", "preprocessing", "experiment", "trainer", "logger")

HELP = """usage: mmbench list [group=NAME]

Lists the names that a command line can choose from, with one line of help each; methods below their tasks. Groups:
method, data, protocol, metric, mask, preprocessing, experiment, trainer, logger.
"""


def _task(method: str) -> str:
    """The folder below `mmbench/methods` that a method's class is in, as its YAML says: importing it takes seconds."""
    text = (catalogue.shipped("conf") / "method" / f"{method}.yaml").read_text(encoding="utf-8")
    if found := re.search(r"_target_: mmbench\.methods\.(\w+)", text):
        return found[1]
    above = [name for name in yaml.safe_load(text).get("defaults", ()) if name in catalogue.names("method")]
    return _task(above[0]) if above else "elsewhere"


def _rows(group: str) -> Iterator[tuple[str, str, str]]:
    """The lines of a group; those of methods stand below the names of their tasks."""
    if group != "method":
        yield from ((group, name, catalogue.summary(group, name)) for name in catalogue.names(group))
        return
    tasks = {name: _task(name) for name in catalogue.names(group)}
    for task in sorted(set(tasks.values())):
        yield "", f"{task}:", ""
        yield from ((group, name, catalogue.summary(group, name)) for name in tasks if tasks[name] == task)


def main(arguments: list[str]) -> int:
    own, rest = command_line.split_options(arguments, ("group",))
    command_line.require_said(own)
    if rest:
        catalogue.unknown("option of list", rest[0].partition("=")[0], ["group"])
    if own.get("group", GROUPS[0]) not in GROUPS:
        catalogue.unknown("group", own["group"], GROUPS)
    table = Table(box=None, pad_edge=False)
    for column in ("group", "name", "what it is"):
        table.add_column(column, no_wrap=column != "what it is")
    for group in [own["group"]] if "group" in own else GROUPS:
        for row in _rows(group):
            table.add_row(*row)
    console = Console(width=None if Console().is_terminal else 160)
    with console.capture() as printed:  # rich ends the process with an error where a reader has left
        console.print(table)
    print(printed.get(), end="")
    return 0
