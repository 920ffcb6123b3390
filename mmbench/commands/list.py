"""Lists what a command line can choose from."""

from rich.console import Console
from rich.table import Table

from mmbench.core import config

GROUPS = ("method", "data", "protocol", "metric", "mask", "preprocessing", "experiment", "trainer", "logger")

HELP = """usage: mmbench list [group=NAME]

Lists the names that a command line can choose from, with one line of help each. Groups: method, data, protocol, metric,
mask, preprocessing, experiment, trainer, logger.
"""


def main(arguments: list[str]) -> int:
    own, rest = config.split_options(arguments, ("group",))
    if rest:
        config.unknown("option of list", rest[0].partition("=")[0], ["group"])
    if own.get("group", GROUPS[0]) not in GROUPS:
        config.unknown("group", own["group"], GROUPS)
    table = Table(box=None, pad_edge=False)
    for column in ("group", "name", "what it is"):
        table.add_column(column, no_wrap=column != "what it is")
    for group in [own["group"]] if "group" in own else GROUPS:
        for name in config.names(group):
            table.add_row(group, name, config.summary(group, name))
    Console(width=None if Console().is_terminal else 160).print(table)
    return 0
