"""Tables: published beside reproduced, with the difference and a verdict, rendered from records."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import scipy.stats
from rich.console import Console
from rich.table import Table

from mmbench.core import config, results
from mmbench.core.files import write_text
from mmbench.core.results import Result
from mmbench.pipeline import rows
from mmbench.pipeline.experiments import Experiment, Published, Row, published
from mmbench.pipeline.generation import prepared

MARKS = ("<!-- begin {}: made by `make tables` -->", "<!-- end {} -->")
COLUMNS = ("method", "data", "size", "metric", "published", "reproduced", "difference", "verdict")
FORMATS = ("markdown", "latex", "html", "csv")
LEGEND = (
    "reproduced: the difference is within the tolerance of the experiment. differs: it is not. not run: what is "
    "missing and how to get it. unverified: the published value was recalled and seen in no source, so no verdict. "
    "toy data: computed on procedural data, which a number published for photographs cannot be compared with. "
    "*: made with weights whose hash nobody published."
)


def row_config(experiment: Experiment, row: Row, source: str, seed: int, overrides: Sequence[str]) -> dict[str, Any]:
    """The settled configuration of one row and seed.

    Raises:
        ValueError: a name or key in `overrides`, or the row's method or data set, does not exist.
    """
    for group, name in (("method", row.method), ("data", row.data)):
        if name not in config.names(group):
            raise ValueError(f"{group} {name} is not part of this version of mmbench")
    own = [
        f"method={row.method}",
        f"data={row.data}",
        f"protocol={experiment.protocol}",
        f"data.source={source}",
        f"seed={seed}",
        f"experiment={experiment.name}",
        f"weights={row.weights or ('trained' if source == 'toy' else 'official')}",
    ]
    return config.composed([*own, *overrides])


def lines(
    experiment: Experiment,
    source: str,
    seeds: Sequence[int],
    overrides: Sequence[str],
    paths: Mapping[str, str],
    reasons: Mapping[tuple[str, str], str],
    rows: Sequence[Row],
) -> list[dict[str, Any]]:
    """The cells of the table, one dict of `COLUMNS` for each row and metric; `value` is the mean over seeds, if any.

    Args:
        reasons: key of a row to why that row could not run; derived here for rows that are not in it.
        paths: `paths` of the configuration; where the records are, and what the page calls $MMBENCH_HOME.
    """
    cells = []
    for row in rows:
        records, reason = records_of(experiment, row, source, row.seeds_of(seeds), overrides, paths["results"])
        reason = reasons.get(row.key, reason)
        reason = reason.replace(str(Path(paths["assets"]).expanduser()), "$MMBENCH_HOME")
        numbers = published(experiment, row)
        said = next(iter(experiment.metrics))
        for metric in experiment.metrics:
            name = experiment.metric(metric, row, source)
            scored = [record for record in records if name in record.metrics]
            found = [record.metrics[name]["value"] for record in scored]
            if metric != said:
                reason = f"as for {said}"
            missing = reason if not records else f"{name} is not among the metrics of protocol {experiment.protocol}"
            judged = _judged(experiment, metric, numbers.get(metric), found, missing, source)
            if any(not record.weights["verified"] for record in scored):
                judged["reproduced"] += " *"
            facts = {"method": row.label, "data": row.published.get("dataset", row.data), "size": _size(records)}
            facts["seeds"] = str(len(records) or "-")
            value = {"value": statistics.fmean(found)} if found else {}
            cells.append({**facts, "metric": metric, **judged, **value})
    return cells


def _size(records: Sequence[Result]) -> str:
    """Height and width of the images that were scored, in pixels."""
    return next((" x ".join(map(str, record.size)) for record in reversed(records) if record.size), "-")


def records_of(
    experiment: Experiment,
    row: Row,
    source: str,
    seeds: Sequence[int],
    overrides: Sequence[str],
    folder: str | Path,
) -> tuple[list[Result], str]:
    found = []
    reason = "no record yet"
    for seed in seeds:
        try:
            cfg = row_config(experiment, row, source, seed, overrides)
        except ValueError as error:
            return [], str(error)
        wanted = config.config_hash(rows.described(cfg))
        if record := results.newest(folder, experiment.name, config_hash=wanted):
            found.append(record)
        elif source != "toy":
            reason = missing_asset(cfg) or reason
    return found, reason


def missing_asset(cfg: dict[str, Any]) -> str | None:
    """Why a row cannot run on this machine; None if nothing is missing."""
    try:
        prepared(cfg)
    except ValueError as error:
        return str(error)
    return None


def _judged(
    experiment: Experiment,
    metric: str,
    printed: Published | None,
    found: Sequence[float],
    reason: str,
    source: str,
) -> dict[str, str]:
    digits = len(printed.text.partition(".")[2]) if printed else 4
    digits = max(digits, 3)
    cells = {"published": "-", "reproduced": "-", "difference": "-", "verdict": ""}
    if printed:
        cells["published"] = (
            printed.text if printed.uncertainty is None else f"{printed.text} ± {printed.uncertainty:g}"
        )
        cells["published"] += "" if printed.verified else " (unverified)"
    if not found:
        return {**cells, "verdict": f"not run ({reason})"}
    value = statistics.fmean(found)
    cells["reproduced"] = f"{value:.{digits}f}"
    if len(found) > 1:
        cells["reproduced"] += f" ± {statistics.stdev(found):.{digits}f} ({len(found)} seeds)"
    if printed is None:
        return {**cells, "verdict": "no published value"}
    if source != experiment.sources[0]:
        return {**cells, "verdict": "toy data"}
    cells["difference"] = f"{round(value - printed.value, digits) + 0.0:+.{digits}f}"
    if not printed.verified:
        return {**cells, "verdict": "unverified"}
    within = abs(value - printed.value) <= experiment.allowed(metric, printed)
    return {**cells, "verdict": "reproduced" if within else "differs"}


def rendered(cells: Sequence[Mapping[str, Any]], form: str) -> str:
    """The table as Markdown, LaTeX, HTML or CSV."""
    frame = pd.DataFrame(list(cells), columns=list(COLUMNS))
    if form == "markdown":
        return frame.to_markdown(index=False, disable_numparse=True) + "\n"
    if form == "latex":
        return frame.style.hide(axis="index").format(escape="latex").to_latex(hrules=True)
    if form == "html":
        return frame.to_html(index=False, border=0) + "\n"
    return frame.to_csv(index=False)


def glance(cells: Sequence[Mapping[str, Any]]) -> str:
    """What was reproduced as Markdown, one line for each method and data set, one column for each metric."""
    first = ("method", "data", "size", "seeds")
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for cell in cells:
        key = tuple(cell[column] for column in first)
        rows.setdefault(key, {})[cell["metric"]] = cell["reproduced"].partition(" (")[0]
    frame = pd.DataFrame([{**dict(zip(first, key, strict=True)), **rows[key]} for key in rows])
    return frame.fillna("").to_markdown(index=False, disable_numparse=True) + "\n"


def agreements(experiment: Experiment, cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """How far the judged metric ranks methods as those do that it is to agree with: a sentence for each data set.

    Spearman's rank correlation over the rows that have both, each its mean over seeds.
    """
    if not experiment.judged:
        return []
    metric, others = experiment.judged["metric"], experiment.judged["by"]
    values: dict[str, dict[str, dict[str, float]]] = {}
    for cell in cells:
        if "value" in cell:
            values.setdefault(cell["data"], {}).setdefault(cell["metric"], {})[cell["method"]] = cell["value"]
    sentences = []
    for data, found in values.items():
        correlations = []
        for other in others:
            first, second = found.get(metric, {}), found.get(other, {})
            both = sorted(first.keys() & second.keys())
            if len(both) >= 3:
                rho = scipy.stats.spearmanr([first[name] for name in both], [second[name] for name in both]).statistic
                correlations.append(f"{rho:+.2f} with {other} ({len(both)} methods)")
        if correlations:
            sentences.append(f"Rank correlation (Spearman) of {metric} on {data}: {', '.join(correlations)}.")
    return sentences


def document(experiment: Experiment, source: str, seeds: Sequence[int], cells: Sequence[Mapping[str, Any]]) -> str:
    """The page results/tables/<name>.md: citation, how it was made, table, legend."""
    return "\n".join(
        [
            f"# {experiment.name} ({source} data)",
            "",
            experiment.citation.strip(),
            "",
            f"Protocol `{experiment.protocol}`, seeds {', '.join(map(str, seeds))}. Made by "
            f"`make reproduce-{experiment.name} DATA={source}`; see `results/{experiment.name}/` for the records.",
            "",
            glance(cells),
            *(f"{sentence}\n" for sentence in agreements(experiment, cells)),
            rendered(cells, "markdown"),
            LEGEND,
            "",
        ]
    )


def summarised(pages: Mapping[Path, Sequence[Mapping[str, Any]]], root: Path) -> str:
    """One line for each table: how many of its values were reproduced, and where it is."""
    verdicts = ("reproduced", "differs", "unverified", "toy data", "not run")
    counted = [
        {
            "table": f"[{path.stem}]({path.relative_to(root).as_posix()})",
            "values": str(len(cells)),
            **{verdict: str(sum(cell["verdict"].startswith(verdict) for cell in cells)) for verdict in verdicts},
        }
        for path, cells in pages.items()
    ]
    return pd.DataFrame(counted).to_markdown(index=False, disable_numparse=True)


def update_readme(path: Path, parts: Mapping[str, str]) -> list[str]:
    """Puts texts by their names between their two marks in a README; returns the names that it has marks for."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    placed = []
    for name, part in parts.items():
        first, last = (mark.format(name) for mark in MARKS)
        before, begin, rest = text.partition(first)
        _, end, after = rest.partition(last)
        if begin and end:
            text = f"{before}{begin}\n{part.strip()}\n{end}{after}"
            placed.append(name)
    if placed:
        write_text(path, text)
    return placed


def page(experiment: Experiment, source: str, seeds: Sequence[int], folder: str | Path) -> Path:
    """Where the page of an experiment lies; other seeds than its own have a page of their own."""
    name = experiment.name + ("-toy" if source == "toy" else "")
    if list(seeds) != experiment.seeds:
        name += "-seeds-" + "-".join(map(str, seeds))
    return Path(folder) / "tables" / f"{name}.md"


def show(cells: Sequence[Mapping[str, Any]], title: str) -> None:
    """Prints the table on standard output, coloured on a terminal."""
    console = Console()
    if not console.is_terminal:
        print(rendered(cells, "markdown"), end="")
        return
    colours = {"reproduced": "green", "differs": "red", "not run": "yellow"}
    table = Table(title=title)
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in ("published", "reproduced", "difference") else "left")
    for line in cells:
        style = next((colour for word, colour in colours.items() if line["verdict"].startswith(word)), None)
        table.add_row(*(line[column] for column in COLUMNS), style=style)
    console.print(table)
