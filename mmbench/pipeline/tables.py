"""Tables as text, the only place where cells get words: published beside reproduced, the difference and a verdict."""

import html
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import scipy.stats
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from mmbench.core.files import write_text
from mmbench.pipeline import latex
from mmbench.pipeline.cells import ALPHA, Cell, Comparison, Verdict
from mmbench.pipeline.experiments import COSTS, Experiment
from mmbench.pipeline.publications import Published, listed

MARKS = ("<!-- begin {}: made by `make tables` -->", "<!-- end {} -->")
COLUMNS = ("method", "data", "size", "metric", "published", "reproduced", "difference", "verdict")
NUMBERS = ("published", "reproduced", "difference")
COMPARED = "compared"  # a column more, of tables whose rows were compared
PLAIN = (  # columns more of CSV, numbers as they are
    "mean", "spread", "interval low", "interval high", "rank", "compared with", "apart", "apart low", "apart high", "p",
    "p adjusted", "images", "seeds overlap",
)  # fmt: skip
EMPHASIS = {  # what stands around the best value of a column, and around the second
    "text": {},
    "markdown": {1: ("**", "**"), 2: ("<u>", "</u>")},
    "html": {1: ("<b>", "</b>"), 2: ("<u>", "</u>")},
    "terminal": {1: ("[bold]", "[/bold]"), 2: ("[underline]", "[/underline]")},
}
COMMANDS = {1: "textbf", 2: "underline"}  # of LaTeX
DAGGER = "†"  # behind an outdated value; two for the second reason on a page, and so on
UNLEARNED = "‡"  # behind a method that counts as not having learned
TIED = "≈"  # behind a value that is not shown to differ from the best
UNTESTED = "°"  # behind one of which that was not tested
LACKING = (Verdict.NOT_RUN, Verdict.FAILED)  # which say why
UNVERIFIED = "unverified: the published value was recalled and seen in no source, so no verdict."
STAR = "*: made with weights whose hash nobody published."
LEGEND = (
    "reproduced: the difference is within the tolerance of the experiment. differs: it is not. not run: what is "
    f"missing and how to get it. {UNVERIFIED} "
    "toy data: computed on procedural data, which a number published for photographs cannot be compared with. "
    f"{STAR}"
)
INTERVAL = (
    "[a, b]: 95 % interval of the mean over seeds, over images, each drawn with all that was made for it; of scores of "
    "whole sets (FID, IS) over halves of the images, about the value that as many images give. ±: standard deviation "
    "over seeds, which is no part of the interval."
)
RANKED = (
    "Bold: the best value of a metric and data set; underlined: the second, by the metric's direction. Rows that are "
    "no part of comparisons have neither: references, those that did not learn, outdated values."
)
FAILED = "failed: the error that the row ended with, and its log."


def daggers(cells: Iterable[Cell]) -> dict[str, str]:
    """Why values of the table are outdated, each reason with the mark that stands behind them."""
    reasons = dict.fromkeys(cell.value.outdated for cell in cells if cell.value.outdated)
    return {reason: DAGGER * (place + 1) for place, reason in enumerate(reasons)}


def notes(cells: Sequence[Cell]) -> list[str]:
    """What stands under a table with marks and intervals."""
    return [*_of_marks(cells), *_of_counts(cells), *_of_intervals(cells), *_of_comparisons(cells)]


def _of_marks(cells: Sequence[Cell]) -> list[str]:
    """A line for each reason of outdated values, and one of what did not learn."""
    lines = [f"{mark}: {reason}" for reason, mark in daggers(cells).items()]
    unlearned: dict[str, dict[str, None]] = {}
    for cell in cells:
        unlearned.setdefault(f"{cell.method} on {cell.data}", {}).update(dict.fromkeys(cell.unlearned))
    rows = [f"{row} ({', '.join(reasons)})" for row, reasons in unlearned.items() if reasons]
    if rows:
        lines.append(f"{UNLEARNED}: counts as not having learned, and is no part of comparisons: {'; '.join(rows)}.")
    return lines


def _of_counts(cells: Sequence[Cell]) -> list[str]:
    """A line for each number of images that values are over whose metrics pass some over."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        for record in cell.value.records.values() if cell.value.name else ():
            count, images = record.counts(cell.value.name)
            if count != images:
                found.setdefault(f"Over {count:,} of {images:,} images of {cell.data}", {})[cell.metric] = None
    return [f"{said}, which have what is judged: {', '.join(metrics)}." for said, metrics in found.items()]


def _of_intervals(cells: Sequence[Cell]) -> list[str]:
    """What intervals are, and of which metrics there is none for which reason."""
    lines = []
    if any(cell.interval for cell in cells):
        lines.append(INTERVAL)
    reasons: dict[str, dict[str, None]] = {}
    for cell in cells:
        if cell.without_interval:
            reasons.setdefault(cell.without_interval, {}).setdefault(cell.metric)
    return [*lines, *(f"No interval of {', '.join(metrics)}: {reason}." for reason, metrics in reasons.items())]


def _of_comparisons(cells: Sequence[Cell]) -> list[str]:
    """What the marks of the best and of ties mean."""
    tests = [cell.compared for cell in cells if cell.compared]
    lines = []
    if any(cell.rank for cell in cells):
        lines.append(RANKED)
    if tests:
        images = sorted({test.images for test in tests})
        counted = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
        rows = ", ".join(dict.fromkeys(test.with_ for test in tests))
        lines.append(
            f"{TIED}: no difference is shown from the row that a value is compared with ({rows}); that is a result, "
            f"and not that they are equal. Tests are paired, on the {counted} images that both rows have: of means by "
            "permutation, of scores of whole sets by Student's t over halves of the images; p is corrected by Holm's "
            f"method for {_counted(tests)}. Images are drawn, seeds are not: rows "
            "whose seeds overlap are not told apart, either."
        )
        if blind := sum(test.least >= ALPHA for test in tests):
            lines.append(
                f"{blind:,} of {len(tests):,} tests could show no difference, however large: with so many tests, or on "
                f"so few images, the smallest p that they can have is corrected to {ALPHA:g} or more."
            )
    if rows := dict.fromkeys(cell.untested for cell in cells if cell.untested):
        lines.append(
            f"{UNTESTED}: not tested against the row that a value would be compared with ({', '.join(rows)}), since "
            "the records of one of them tell nothing of single images, or the two share too few."
        )
    return lines


def _counted(tests: Sequence[Comparison]) -> str:
    """For what p are corrected."""
    number = tests[0].tests
    if number == len(tests):
        return f"all {number:,} tests of this page"
    return f"all {number:,} pairs of rows in its columns, of which images chose these {len(tests):,}"


def _methods(cells: Sequence[Cell]) -> list[str]:
    """The method of each cell, with a mark where its row did not learn something of the table."""
    unlearned = {(cell.method, cell.data) for cell in cells if cell.unlearned}
    return [f"{cell.method} {UNLEARNED}" if (cell.method, cell.data) in unlearned else cell.method for cell in cells]


def texts(cells: Sequence[Cell], form: str = "text") -> list[dict[str, str]]:
    """The words of every cell by `COLUMNS` and `COMPARED`, marked as `form` is.

    A reason that a row has given already is "as for" the metric there.

    Args:
        form: one of `EMPHASIS`.
    """
    marks, given = daggers(cells), {}
    lines = []
    for cell, method in zip(cells, _methods(cells), strict=True):
        known = given.setdefault((cell.method, cell.data, cell.value.reason), cell.metric)
        reason = cell.value.reason if known == cell.metric else f"as for {known}"
        line = {
            "method": method,
            "data": cell.data,
            "size": _size(cell),
            "metric": cell.metric,
            "published": _printed(cell.published),
            "reproduced": "",
            "difference": "-" if cell.difference is None else _signed(cell.difference, cell.digits),
            "verdict": f"{cell.verdict} ({reason})" if cell.verdict in LACKING else str(cell.verdict),
            COMPARED: _compared(cell),
        }
        line = {column: _escaped(text, form) for column, text in line.items()}
        lines.append({**line, "reproduced": _emphasised(cell, _number(cell, True), _behind(cell, marks, True), form)})
    return lines


def _escaped(text: str, form: str) -> str:
    if form == "html":
        return html.escape(text, quote=False)
    return escape(text) if form == "terminal" else text


def _emphasised(cell: Cell, number: str, behind: str, form: str) -> str:
    before, after = EMPHASIS[form].get(cell.rank or 0, ("", ""))
    return f"{before}{_escaped(number, form)}{after}{_escaped(behind, form)}"


def _signed(number: float, digits: int) -> str:
    return f"{round(number, digits) + 0.0:+.{digits}f}"


def _size(cell: Cell) -> str:
    return " x ".join(map(str, cell.size)) if cell.size else "-"


def _printed(printed: Published | None) -> str:
    if printed is None:
        return "-"
    spread = "" if printed.uncertainty is None else f" ± {printed.uncertainty:g}"
    return printed.text + spread + ("" if printed.verified else " (unverified)")


def _number(cell: Cell, counted: bool) -> str:
    """Mean and spread; `counted`: with the number of seeds, where there are several."""
    value, digits = cell.value, cell.digits
    if value.mean is None:
        return "-"
    if cell.verdict is Verdict.COST:
        return _cost(cell.metric, value.mean)
    text = f"{value.mean:.{digits}f}"
    if cell.spread is not None:
        text += f" ± {cell.spread:.{digits}f}" + (f" ({len(value.by_seed)} seeds)" if counted else "")
    return text


def tie(cell: Cell) -> str:
    """The mark of a value that is not shown to differ from the one that it is compared with, or was not tested."""
    if cell.untested:
        return UNTESTED
    return TIED if cell.compared and not cell.compared.shown else ""


def _behind(cell: Cell, marks: Mapping[str, str], bounded: bool) -> str:
    """What stands behind a number: its interval where it is to be `bounded`, and its marks."""
    value = cell.value
    if value.mean is None or cell.verdict is Verdict.COST:
        return ""
    text = f" [{', '.join(f'{end:.{cell.digits}f}' for end in cell.interval)}]" if bounded and cell.interval else ""
    text += f" {mark}" if (mark := tie(cell)) else ""
    return text + (f" {marks[value.outdated]}" if value.outdated else "") + ("" if value.verified else " *")


def _compared(cell: Cell) -> str:
    """What the comparison of a cell amounts to."""
    test = cell.compared
    if cell.untested:
        return f"not tested against {cell.untested}"
    if test is None:
        return "best" if cell.rank == 1 else "-"
    ends = ", ".join(_signed(end, cell.digits) for end in test.interval)
    p = f"p = {test.adjusted:.2g}" if test.adjusted >= 0.0001 else "p < 0.0001"
    found = f"{_signed(test.difference, cell.digits)} [{ends}] from {test.with_}, {p}"
    return found if test.shown else f"{test.said}: {found}"


def columns(cells: Sequence[Cell]) -> list[str]:
    """The columns that the table has: one for comparisons where there are some."""
    return [*COLUMNS, *([COMPARED] if any(cell.compared or cell.untested for cell in cells) else [])]


def _cost(shown: str, mean: float) -> str:
    """A cost in words: `1.2 M` parameters, `0.035` seconds or GiB of an image, `3,000` of others."""
    if COSTS[shown][0] in ("image_cpu_seconds", "image_seconds", "process_memory_GiB", "gpu_memory_GiB") and mean < 10:
        return f"{mean:.2g}"
    if COSTS[shown][0] not in ("parameters", "trained_parameters") or mean < 1000:
        return f"{mean:,.0f}"
    sizes = {"k": mean / 1e3, "M": mean / 1e6, "G": mean / 1e9}
    unit = next((unit for unit, size in sizes.items() if round(size, 1) < 1000), "G")
    return f"{sizes[unit]:.1f} {unit}"


def rendered(cells: Sequence[Cell], form: str, under: Sequence[str] = ()) -> str:
    """The table as Markdown, HTML or CSV, or as LaTeX, which has the notes below it: sentences `under` it first."""
    if form == "latex":
        return _latex(cells, under)
    if form == "csv":
        plain = [dict(zip(PLAIN, _plain(cell), strict=True)) for cell in cells]
        lines: list[dict[str, Any]] = [{**one, **more} for one, more in zip(texts(cells), plain, strict=True)]
        return pd.DataFrame(lines, columns=[*COLUMNS, *PLAIN]).to_csv(index=False)
    frame = pd.DataFrame(texts(cells, form), columns=columns(cells))
    if form == "markdown":
        return frame.to_markdown(index=False, disable_numparse=True) + "\n"
    return frame.to_html(index=False, border=0, escape=False) + "\n"


def _plain(cell: Cell) -> list[Any]:
    """Of a cell what `PLAIN` names; None of what there is not."""
    low, high = cell.interval or (None, None)
    test = cell.compared
    tested = [test.with_, test.difference, *test.interval, test.p, test.adjusted, test.images] if test else [None] * 7
    tested.append(test.overlap if test else None)
    rank = None if cell.rank is None else str(cell.rank)  # pandas would write 1.0
    return [cell.value.mean, cell.spread, low, high, rank, *tested]


def _latex(cells: Sequence[Cell], under: Sequence[str]) -> str:
    """The table as LaTeX, where a reason is a note below it: each once, whatever has it."""
    reasons = {cell.value.reason: cell.verdict for cell in cells if cell.value.reason}
    marks = {reason: latex.raised(letter) for reason, letter in zip(reasons, latex.letters(), strict=False)}
    lines = [
        {**line, "size": line["size"].replace(" x ", " \N{MULTIPLICATION SIGN} "), "verdict": str(cell.verdict)}
        for cell, line in zip(cells, texts(cells), strict=True)
    ]
    for cell, line in zip(cells, lines, strict=True):
        if cell.rank in COMMANDS:
            line["reproduced"] = latex.Emphasised(
                COMMANDS[cell.rank], _number(cell, True), _behind(cell, daggers(cells), True)
            )
    shown = columns(cells)
    rows = [[line[column] for column in shown] for line in lines]
    behind = [marks.get(cell.value.reason, "") for cell in cells]
    below = [f"{mark} {reasons[reason]}: {latex.escaped(reason)}" for reason, mark in marks.items()]
    explained = [
        *under,
        *notes(cells),
        *([STAR] if any(cell.value.mean is not None and not cell.value.verified for cell in cells) else []),
        *([UNVERIFIED] if any(cell.published and not cell.published.verified for cell in cells) else []),
    ]
    return latex.table(shown, NUMBERS, rows, behind, [*below, *map(latex.escaped, explained)])


def glance(cells: Sequence[Cell]) -> str:
    """What was reproduced as Markdown, one line for each method and data set, one column for each metric."""
    marks = daggers(cells)
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for cell, method in zip(cells, _methods(cells), strict=True):
        key = (method, cell.data, _size(cell), str(cell.seeds or "-"))
        rows.setdefault(key, {})[cell.metric] = _emphasised(
            cell, _number(cell, False), _behind(cell, marks, False), "markdown"
        )
    first = ("method", "data", "size", "seeds")
    frame = pd.DataFrame([{**dict(zip(first, key, strict=True)), **rows[key]} for key in rows])
    return frame.fillna("").to_markdown(index=False, disable_numparse=True) + "\n"


def agreements(experiment: Experiment, cells: Sequence[Cell]) -> list[str]:
    """How far judged metrics rank methods as those do that they are to agree with: a sentence for each, and data set.

    Spearman's rank correlation over the rows that have both, each its mean over seeds; reference rows and those that
    did not learn are left out unless the experiment says `rows: all`.
    """
    if not experiment.judged:
        return []
    whole = experiment.judged.get("rows") == "all"
    values: dict[str, dict[str, dict[str, float]]] = {}
    for cell in cells:
        compared = whole or (not cell.unlearned and (cell.method, cell.data) not in experiment.references)
        if cell.value.mean is not None and compared:
            values.setdefault(cell.data, {}).setdefault(cell.metric, {})[cell.method] = cell.value.mean
    sentences = []
    for (data, found), metric in product(values.items(), experiment.judged["metrics"]):
        correlations = []
        for other in experiment.judged["by"]:
            first, second = found.get(metric, {}), found.get(other, {})
            both = sorted(first.keys() & second.keys())
            if len(both) >= 3:
                rho = scipy.stats.spearmanr([first[name] for name in both], [second[name] for name in both]).statistic
                correlations.append(f"{rho:+.2f} with {other} ({len(both)} {'rows' if whole else 'methods'})")
        if correlations:
            sentences.append(f"Rank correlation (Spearman) of {metric} on {data}: {', '.join(correlations)}.")
    return sentences


def remarks(experiment: Experiment) -> list[str]:
    """What stands under every table: notes, what its costs are, and published numbers that nothing here computes."""
    under = list(experiment.notes)
    if experiment.costs:
        told = "; ".join(f"{shown}, {COSTS[shown][1]}" for shown in experiment.costs)
        under.append(f"Costs, a mean over seeds each, which nothing judges: {told}.")
    for name, lines in listed(experiment).items():
        numbers = "; ".join(f"{line['method']} {line['value']} ({line['protocol']})" for line in lines)
        data = ", ".join(dict.fromkeys(line["dataset"] for line in lines))
        under.append(f"Published and not computed here, {name} on {data}, {lines[0]['metric']}: {numbers}.")
    return under


def summary(experiment: Experiment, cells: Sequence[Cell]) -> str:
    """The table at a glance, or what is brief of it, with what stands under it."""
    under = [*remarks(experiment), *_of_marks(cells), *_of_comparisons(cells)]
    shown = [cell for cell in cells if not experiment.brief or cell.metric in experiment.brief]
    return "\n".join([glance(shown), *agreements(experiment, cells), *(f"\n{note}" for note in under)])


def document(
    experiment: Experiment, source: str, seeds: Sequence[int], cells: Sequence[Cell], under: Sequence[str] = ()
) -> str:
    """The page results/tables/<name>.md: citation, how it was made, table, legend; paragraphs `under` the glance."""
    drawn = experiment.curve and any(cell.value.mean is not None for cell in cells)
    protocols = dict.fromkeys(name for row in experiment.rows for name in experiment.protocols(row.data))
    listed = ", ".join(f"`{name}`" for name in protocols)
    return "\n".join(
        [
            f"# {experiment.name} ({source} data)",
            "",
            experiment.citation.strip(),
            "",
            f"Protocol{'s' if len(protocols) > 1 else ''} {listed}, seeds {', '.join(map(str, seeds))}. Made by "
            f"`make reproduce-{experiment.name} DATA={source}`; see `results/{experiment.name}/` for the records.",
            "",
            glance(cells),
            *([f"![curve]({figure(page(experiment, source, seeds, '')).name})", ""] if drawn else []),
            *(f"{sentence}\n" for sentence in [*agreements(experiment, cells), *under]),
            rendered(cells, "markdown"),
            *(f"{note}\n" for note in [*remarks(experiment), *notes(cells)]),
            LEGEND + (f" {FAILED}" if any(cell.verdict is Verdict.FAILED for cell in cells) else ""),
            "",
        ]
    )


def summarised(pages: Mapping[Path, Sequence[Cell]], root: Path) -> str:
    """One line for each table: how many of its values were reproduced, and where it is."""
    counted = [Verdict.REPRODUCED, Verdict.DIFFERS, Verdict.UNVERIFIED, Verdict.TOY, Verdict.NOT_RUN]
    found = {cell.verdict for cells in pages.values() for cell in cells}
    counted += [rare for rare in (Verdict.FAILED, Verdict.OUTDATED) if rare in found]
    lines = [
        {
            "table": f"[{path.stem}]({path.relative_to(root).as_posix()})",
            "values": str(sum(cell.verdict is not Verdict.COST for cell in cells)),
            **{str(verdict): str(sum(cell.verdict is verdict for cell in cells)) for verdict in counted},
        }
        for path, cells in pages.items()
    ]
    return pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)


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


def figure(page: Path) -> Path:
    """Where the curve of an experiment lies, beside its page."""
    return page.with_name(f"{page.stem}-curve.png")


def show(cells: Sequence[Cell], title: str, under: Sequence[str] = ()) -> None:
    """Prints the table and what stands `under` it on standard output, coloured on a terminal."""
    console = Console()
    below = "".join(f"{note}\n" for note in [*under, *notes(cells)])
    if not console.is_terminal:
        print(rendered(cells, "markdown") + below, end="")
        return
    colours = {
        Verdict.REPRODUCED: "green",
        Verdict.DIFFERS: "red",
        Verdict.NOT_RUN: "yellow",
        Verdict.FAILED: "bold red",
        Verdict.OUTDATED: "yellow",
    }
    table = Table(title=title)
    for column in (shown := columns(cells)):
        is_number = column in NUMBERS
        table.add_column(column, justify="right" if is_number else "left", no_wrap=is_number)
    for cell, line in zip(cells, texts(cells, "terminal"), strict=True):
        table.add_row(*(line[column] for column in shown), style=colours.get(cell.verdict))
    if Measurement.get(console, console.options.update(max_width=sys.maxsize), table).minimum > console.width:
        print(rendered(cells, "markdown") + below, end="")  # a narrow terminal breaks lines, where rich cuts numbers
        return
    console.print(table)
    print(below, end="")
