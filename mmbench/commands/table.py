"""Prints tables from the records that are there."""

from collections.abc import Sequence
from pathlib import Path

from mmbench.core import catalogue, command_line, config, results
from mmbench.core.files import RESULTS, require_writable, write_text
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.experiments import Experiment, require_all_rows, seeds_of
from mmbench.pipeline.sheets import FORMATS

BY = ("class", "attribute", "caption_length", "object_count", "mask_area")
FEWEST = 2  # images of a group: of one it is not known how they vary
HELP = f"""usage: mmbench table experiment=NAME [data.source=toy|real] [format={"|".join(FORMATS)}] [key=value ...]

  seeds=0,1,2            instead of the experiment's own seeds
  by={"|".join(BY)}
                         each cell by group of images, the worst group, how far it lies behind the best, and whether
                         that is more than chance; least=10: images that a group has at least to be either

Prints the table of an experiment from the newest records of its current configuration, and writes it below
results/tables/, with how stable the ranking of its rows is, and with figures beside it where the experiment has a
`curve` or `fronts`. Without experiment=: every experiment that has records.
"""


def _require_groups(own: dict[str, str]) -> None:
    """Refuses groups that there are not, of no table, or their least size without them.

    Raises:
        ValueError: says which.
    """
    if "by" in own and own["by"] not in BY:
        catalogue.unknown("by", own["by"], BY)
    if "by" in own and "experiment" not in own:
        raise ValueError("expected experiment=NAME beside by=, found none: name the table")
    if "least" in own:
        command_line.whole_number("least", own["least"], FEWEST)
        if "by" not in own:
            raise ValueError("expected by= beside least=, which is of groups, found none: say by=, or leave least= out")


def _by_group(
    experiment: Experiment,
    source: str,
    seeds: Sequence[int],
    words: Sequence[str],
    paths: dict[str, str],
    own: dict[str, str],
) -> int:
    """Prints the table by group and writes its page."""
    from mmbench.pipeline import grouping, sampled, tables
    from mmbench.pipeline.cells import cells_of
    from mmbench.pipeline.sheets import rendered

    by, least = own["by"], int(own.get("least", grouping.LEAST))
    held = results.by_configuration(paths["results"], experiment.name)
    cells = cells_of(experiment, source, seeds, words, paths, held, experiment.rows)
    scores = sampled.scores_of_table(experiment, cells, paths["results"])
    if not scores:
        raise ValueError(
            f"expected records of {experiment.name} with values by sample, found none: run mmbench reproduce "
            f"experiment={experiment.name} data.source={source}"
        )
    found, gaps, missing = grouping.grouped(experiment, source, words, cells, scores, by, least)
    whole = {(cell.method, cell.data, cell.metric): cell.value.mean for cell in cells}
    unlearned = {(cell.method, cell.data) for cell in cells if cell.unlearned}
    known = {metric for _, metric in scores}
    left_out = [metric for metric in experiment.metrics if metric not in known]
    missing += sampled.left_out(experiment, cells, scores, paths["results"])
    missing += tables.notes([cell for cell in cells if not cell.value.outdated])
    under = grouping.explained(by, least, gaps, missing, left_out)
    summary = grouping.summary(found, gaps, whole, unlearned)
    path = tables.page(experiment, source, seeds, paths["results"])
    path = path.with_name(f"{path.stem}-by-{by}.md")
    parts = [f"# {experiment.name} by {by.replace('_', ' ')} ({source} data)\n", rendered(summary, "markdown")]
    parts += [f"{line}\n" for line in under]
    for (data, metric), lines in grouping.crossed(found, gaps, unlearned).items():
        parts += [f"## {metric} on {data}\n", rendered(lines, "markdown", [*lines[0]][1:])]
    write_text(path, "\n".join(parts))
    form = own.get("format", "")
    if form == "csv":
        print(rendered(grouping.lines(found, gaps, unlearned), form), end="")
        return 0
    print(rendered(summary, form or "markdown", (), under), end="")
    if not form:
        print("\n".join(["", *under, "", f"groups: {path}"]))
        print(f"next: mmbench table experiment={experiment.name} data.source={source} by={by} format=csv")
    return 0


@config.remembering()
def main(arguments: list[str]) -> int:
    options = ("experiment", "format", "data.source", "seeds", "by", "least")
    own, rest = command_line.split_options(arguments, options)
    command_line.require_said(own)
    _require_groups(own)
    require_all_rows(rest)
    form = own.get("format", "")
    if form and form not in FORMATS:
        catalogue.unknown("format", form, FORMATS)
    chosen = [load(name) for name in ([own["experiment"]] if "experiment" in own else catalogue.names("experiment"))]
    seeds_of(own.get("seeds"), rest, chosen[0])  # a mistake is said at once
    source = own.get("data.source", chosen[0].sources[-1])
    paths = config.composed(["method=identity", f"data.source={source}", *rest])["paths"]
    require_writable(Path(paths["results"]) / "tables", RESULTS)
    if "by" in own:
        here = chosen[0].on(source)
        return _by_group(here, source, seeds_of(own.get("seeds"), rest, here), rest, paths, own)
    from mmbench.pipeline import marks, pages, tables  # pandas and scipy, which no mistake above needs
    from mmbench.pipeline.cells import cells_of

    known, parts = {}, {}
    for experiment in chosen:
        held = results.by_configuration(paths["results"], experiment.name)
        failed = marks.failures(paths["runs"], experiment.name)
        for source in [own["data.source"]] if "data.source" in own else experiment.sources:
            here = experiment.on(source)
            seeds = seeds_of(own.get("seeds"), rest, here)
            cells = cells_of(here, source, seeds, rest, paths, held, here.rows, failed=failed)
            if any(cell.value.mean is not None for cell in cells):
                from mmbench.pipeline import comparing  # torch, which a table without values does not need

                cells = comparing.compared(here, cells, paths["results"])
            elif "experiment" not in own:
                continue
            path = tables.page(here, source, seeds, paths["results"])
            known[path], parts[path.stem] = cells, tables.summary(here, cells)
            under = [*tables.agreements(here, cells), *tables.remarks(here)]
            if form:
                print(tables.rendered(cells, form, under), end="")
            else:
                tables.show(cells, f"{here.name} ({source} data)", under)
            made = pages.write(here, source, seeds, cells, paths["results"])
            if not form:
                print("".join(f"{name}: {place}\n" for name, place in made.items()), end="")
    if "experiment" not in own and known:
        texts = {"tables": tables.summarised(known, Path()), **parts}
        placed = {readme: tables.update_readme(Path(readme), texts) for readme in ("README.md", "results/README.md")}
        for readme, found in placed.items():
            if found:
                print(f"in {readme}: {', '.join(found)}")
    if not form:
        print("next: mmbench reproduce experiment=NAME runs what is missing")
    return 0
