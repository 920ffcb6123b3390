"""Prints tables from the records that are there."""

from pathlib import Path

from mmbench.core import config
from mmbench.core.files import write_text
from mmbench.pipeline.experiments import load
from mmbench.pipeline.tables import (
    FORMATS,
    agreements,
    document,
    glance,
    lines,
    page,
    rendered,
    show,
    summarised,
    update_readme,
)

HELP = """usage: mmbench table experiment=NAME [data.source=toy|real] [format=markdown|latex|html|csv] [key=value ...]

Prints the table of an experiment from the newest records of its current configuration, and writes it below
results/tables/. Without experiment=: every experiment that has records.
"""


def main(arguments: list[str]) -> int:
    own, rest = config.split_options(arguments, ("experiment", "format", "data.source", "seeds"))
    form = own.get("format", "")
    if form and form not in FORMATS:
        config.unknown("format", form, FORMATS)
    paths = config.composed(["method=identity", *rest])["paths"]
    pages, parts = {}, {}
    chosen = [own["experiment"]] if "experiment" in own else config.names("experiment")
    for name in chosen:
        for source in [own["data.source"]] if "data.source" in own else load(name).sources:
            experiment = load(name).on(source)
            seeds = config.integers(own["seeds"]) if "seeds" in own else experiment.seeds
            cells = lines(experiment, source, seeds, rest, paths, {}, experiment.rows)
            if "experiment" not in own and not any(line["reproduced"] != "-" for line in cells):
                continue
            path = page(experiment, source, seeds, paths["results"])
            write_text(path, document(experiment, source, seeds, cells))
            pages[path] = cells
            parts[path.stem] = "\n".join([glance(cells), *agreements(experiment, cells)])
            if form:
                print(rendered(cells, form), end="")
            else:
                show(cells, f"{name} ({source} data)")
                print(f"table: {path}")
    readme = Path("README.md")
    if "experiment" not in own and pages:
        placed = update_readme(readme, {"tables": summarised(pages, Path()), **parts})
        print(f"in {readme}: {', '.join(placed) or 'no place for tables'}")
    if not form:
        print("next: mmbench reproduce experiment=NAME runs what is missing")
    return 0
