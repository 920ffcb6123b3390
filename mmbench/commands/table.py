"""Prints tables from the records that are there."""

from collections.abc import Sequence
from pathlib import Path

from mmbench.core import catalogue, command_line, config, results
from mmbench.core.files import RESULTS, require_writable, write_text
from mmbench.pipeline.experiments import load, require_own_protocols, seeds_of

FORMATS = ("markdown", "latex", "html", "csv")
HELP = f"""usage: mmbench table experiment=NAME [data.source=toy|real] [format={"|".join(FORMATS)}] [key=value ...]

  seeds=0,1,2            instead of the experiment's own seeds

Prints the table of an experiment from the newest records of its current configuration, and writes it below
results/tables/, with a figure beside it where the experiment has a `curve`. Without experiment=: every experiment
that has records.
"""


def _require_heard(words: Sequence[str]) -> None:
    """Refuses words that choose a row: a page has all rows of its experiment.

    Raises:
        ValueError: names the word.
    """
    require_own_protocols(words)
    if chosen := [word for word in words if word.startswith(("method=", "data="))]:
        raise ValueError(f"expected words for all rows of a table, found {chosen[0]}: `mmbench reproduce` takes it")


def main(arguments: list[str]) -> int:
    own, rest = command_line.split_options(arguments, ("experiment", "format", "data.source", "seeds"))
    command_line.require_said(own)
    _require_heard(rest)
    form = own.get("format", "")
    if form and form not in FORMATS:
        catalogue.unknown("format", form, FORMATS)
    chosen = [load(name) for name in ([own["experiment"]] if "experiment" in own else catalogue.names("experiment"))]
    seeds_of(own.get("seeds"), rest, chosen[0])  # a mistake is said at once
    source = own.get("data.source", chosen[0].sources[-1])
    paths = config.composed(["method=identity", f"data.source={source}", *rest])["paths"]
    require_writable(Path(paths["results"]) / "tables", RESULTS)
    from mmbench.pipeline import comparing, marks, tables  # pandas and scipy, which no mistake above needs
    from mmbench.pipeline.cells import cells_of

    pages, parts = {}, {}
    for experiment in chosen:
        held = results.by_configuration(paths["results"], experiment.name)
        failed = marks.failures(paths["runs"], experiment.name)
        for source in [own["data.source"]] if "data.source" in own else experiment.sources:
            here = experiment.on(source)
            seeds = seeds_of(own.get("seeds"), rest, here)
            cells = cells_of(here, source, seeds, rest, paths, held, here.rows, failed=failed)
            cells = comparing.compared(here, cells, paths["results"])
            if "experiment" not in own and all(cell.value.mean is None for cell in cells):
                continue
            path = tables.page(here, source, seeds, paths["results"])
            pages[path], parts[path.stem] = cells, tables.summary(here, cells)
            under = [*tables.agreements(here, cells), *tables.remarks(here)]
            if form:
                print(tables.rendered(cells, form, under), end="")
            else:
                tables.show(cells, f"{here.name} ({source} data)", under)
            write_text(path, tables.document(here, source, seeds, cells))
            if not form:
                print(f"table: {path}")
            if here.curve:
                from mmbench.pipeline import curves  # matplotlib, which other tables do not need

                if (drawn := curves.write(path, here, cells)) and not form:
                    print(f"curve: {drawn}")
    readme = Path("README.md")
    if "experiment" not in own and pages:
        placed = tables.update_readme(readme, {"tables": tables.summarised(pages, Path()), **parts})
        print(f"in {readme}: {', '.join(placed) or 'no place for tables'}")
    if not form:
        print("next: mmbench reproduce experiment=NAME runs what is missing")
    return 0
