"""Builds the site: all tables, and what became of each claim and published number, in one folder without a server."""

from pathlib import Path

from mmbench.core import catalogue, checking, command_line, config
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.experiments import require_all_rows

OUT = "site"
HELP = """usage: mmbench report [out=site] [experiment=NAME,NAME] [key=value ...]

  out=FOLDER             where to: a new or empty folder, or a site that was made before, which is replaced
  experiment=NAME,NAME   these alone, instead of all

Makes pages of the tables of experiments from the records that are there: an overview, a ledger of published numbers and
claims, and of each table its samples, charts, protocols, configurations and records. Open index.html; nothing is asked
of any network.
"""


def main(arguments: list[str]) -> int:
    own, rest = command_line.split_options(arguments, ("out", "experiment"))
    command_line.require_said(own)
    require_all_rows(rest)
    names = list(dict.fromkeys(command_line.listed(own.get("experiment", "")))) or catalogue.names("experiment")
    for name in names:
        load(name)  # a mistake is said at once
    out = Path(own.get("out", OUT))
    checking.check(rest)
    paths = config.folders(rest)
    from mmbench.site import building  # pandas, scipy and torch, which no mistake above needs

    pages = building.build(names, rest, paths, out)
    print(f"site: {pages} pages in {out}: open {out / 'index.html'}")
    return 0
