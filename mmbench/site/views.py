"""Tables and ledgers as the templates show them: words, numbers to sort by, and what stands in a hint."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from mmbench.core import catalogue, composition
from mmbench.core.results import Result
from mmbench.pipeline import comparing, tables
from mmbench.pipeline.cells import Cell, Verdict
from mmbench.pipeline.claims import Outcome, Tested
from mmbench.pipeline.experiments import COSTS
from mmbench.site.gathering import Entry, Page

DIGITS = 12  # of a hash, where it is shown
SHOWN = (  # verdicts in the order of an overview
    Verdict.REPRODUCED, Verdict.DIFFERS, Verdict.UNVERIFIED, Verdict.TOY, Verdict.UNPUBLISHED, Verdict.OUTDATED,
    Verdict.FAILED, Verdict.NOT_RUN,
)  # fmt: skip


@dataclass(frozen=True)
class CellView:
    """A cell: its number, spread and mark, what was printed, its verdict as a word, its hint, the value that sorts."""

    text: str
    spread: str
    mark: str
    printed: str
    verdict: str
    hint: str
    value: float | None
    rank: int | None


@dataclass(frozen=True)
class RowView:
    """A row: its names, size, number of seeds, whether it is a reference, why it counts as not having learned."""

    method: str
    data: str
    size: str
    seeds: int
    is_reference: bool
    unlearned: list[str]
    cells: list[CellView]


@dataclass(frozen=True)
class Column:
    """A metric or cost, and in which direction it is better: "higher", "lower" or ""."""

    name: str
    better: str


@dataclass(frozen=True)
class RunView:
    """A record of a row: where its copy lies, and what tells it from others."""

    method: str
    data: str
    protocol: str
    seed: int
    commit: str
    run_key: str
    weights: str
    device: str
    date: str
    path: str


@dataclass(frozen=True)
class Card:
    """A protocol as it was used: its name, hash and facts, as YAML."""

    name: str
    hash: str
    facts: str


@dataclass(frozen=True)
class Overview:
    """A line of the overview: a table with its counts."""

    page: str
    experiment: str
    about: str
    source: str
    rows: int
    values: int
    counts: dict[str, int]
    claims: dict[str, int] = field(default_factory=dict)


def columns(page: Page) -> list[Column]:
    """The metrics and costs of a table, in its order."""
    found: dict[str, list[Cell]] = defaultdict(list)
    for cell in page.cells:
        found[cell.metric].append(cell)
    words = {1: "higher", -1: "lower", 0: ""}
    return [
        Column(name, "" if name in page.experiment.costs else words[comparing.direction(page.experiment, cells)])
        for name, cells in found.items()
    ]


def rows(page: Page) -> list[RowView]:
    """The rows of a table."""
    marks = tables.daggers(page.cells)
    directions = {column.name: column.better for column in columns(page)}
    found: dict[tuple[str, str], list[tuple[Cell, dict[str, str]]]] = defaultdict(list)
    for cell, line in zip(page.cells, tables.texts(page.cells), strict=True):
        found[cell.method, cell.data].append((cell, line))
    shown = []
    for key, pairs in found.items():
        cell, line = pairs[0]
        unlearned = dict.fromkeys(reason for one, _ in pairs for reason in one.unlearned)
        cells = [
            CellView(
                *_short(one, line["reproduced"]),
                _mark(one, marks),
                line["published"],
                str(one.verdict),
                _hint(one, line, directions[one.metric]),
                one.value.mean,
                one.rank,
            )
            for one, line in pairs
        ]
        is_reference = page.rows[key].reference
        shown.append(RowView(*key, line["size"], cell.seeds, is_reference, list(unlearned), cells))
    return shown


def _plain(line: Mapping[str, str]) -> str:
    """What was found, in the words of a table, without its interval."""
    return line["reproduced"].partition(" [")[0]


def _mark(cell: Cell, marks: Mapping[str, str]) -> str:
    """What stands behind a number: that no difference is shown, and why it is outdated."""
    return " ".join(filter(None, [tables.tie(cell), marks.get(cell.value.outdated, "")]))


def _short(cell: Cell, text: str) -> tuple[str, str]:
    """The number and its spread in as many digits as tell something: those that were printed, else four in all."""
    if cell.value.mean is None or cell.verdict is Verdict.COST:
        return text, ""
    mean, size = cell.value.mean, abs(cell.value.mean) or 1.0
    digits = min(4, max(0, 3 - math.floor(math.log10(size))))
    if cell.published:
        digits = len(cell.published.text.partition(".")[2])
    return f"{mean:.{digits}f}", "" if cell.spread is None else f"{cell.spread:.{digits}f}"


def _hint(cell: Cell, line: Mapping[str, str], better: str) -> str:
    """Lines about a cell."""
    what = cell.metric + (f" ({better} is better)" if better else "")
    if cell.verdict is Verdict.COST:
        what = f"{cell.metric}: {COSTS[cell.metric][1]}"
    lines = [f"{cell.method} on {cell.data}", what]
    if cell.value.mean is not None:
        lines.append(f"found {_plain(line)}")
    if cell.interval:
        lines.append(f"95 % over images: {cell.interval[0]:.4g} to {cell.interval[1]:.4g}")
    elif cell.without_interval:
        lines.append(f"interval over images: {cell.without_interval}")
    if len(cell.value.by_seed) > 1:
        lines.append("by seed: " + ", ".join(f"{value:.4g}" for value in cell.value.by_seed.values()))
    if test := cell.compared:
        low, high = test.interval
        lines.append(
            f"minus {test.with_}: {test.difference:+.4g} ({low:+.4g} to {high:+.4g}), {test.said}, {_p(test.adjusted)}"
        )
    if cell.untested:
        lines.append(f"not tested against {cell.untested}")
    if cell.published:
        lines.append(f"published {line['published']}")
    if cell.difference is not None:
        lines.append(f"difference {line['difference']}")
    if cell.verdict is not Verdict.COST:
        lines.append(
            str(cell.verdict) + (f": {reason}" if (reason := cell.value.reason or cell.value.outdated) else "")
        )
    return "\n".join(lines)


def _p(adjusted: float) -> str:
    return "p < 0.001" if adjusted < 0.001 else f"p = {adjusted:.3f}"


def counts(page: Page) -> dict[str, int]:
    """How many values of a table have each verdict; those that none has are left out."""
    found = Counter(cell.verdict for cell in page.cells)
    return {str(verdict): found[verdict] for verdict in SHOWN if found[verdict]}


def overview(page: Page) -> Overview:
    outcomes = Counter(claim.outcome for claim in page.claims)
    return Overview(
        page.name,
        page.experiment.name,
        catalogue.summary("experiment", page.experiment.name),
        page.source,
        len(page.experiment.rows),
        sum(cell.verdict is not Verdict.COST for cell in page.cells),
        counts(page),
        {str(outcome): outcomes[outcome] for outcome in Outcome if outcomes[outcome]},
    )


def statuses(entries: Sequence[Entry]) -> dict[str, int]:
    """How many published numbers have each status, the most frequent first."""
    return dict(Counter(entry.status for entry in entries).most_common())


def reasons(entries: Sequence[Entry]) -> dict[str, int]:
    """Each reason why a published number has no value here, numbered from 1."""
    found = dict.fromkeys(entry.reason for entry in entries if entry.reason)
    return {reason: number + 1 for number, reason in enumerate(found)}


def claimed(pages: Sequence[Page]) -> list[list[tuple[str, str, Tested]]]:
    """Each claim once, decided ones first: source, page and what its tests came to, on each source."""
    found: dict[tuple[str, int], list[tuple[str, str, Tested]]] = defaultdict(list)
    for page in pages:
        for place, tested in enumerate(page.claims):
            found[page.experiment.name, place].append((page.source, page.name, tested))
    order = (Outcome.HOLDS, Outcome.FAILS, Outcome.NO_DIFFERENCE, Outcome.UNDECIDED)
    return sorted(found.values(), key=lambda sources: min(order.index(tested.outcome) for *_, tested in sources))


def runs(page: Page) -> list[RunView]:
    """The records of a table."""
    return [
        RunView(
            row.label, row.dataset, protocol, record.seed, record.commit[:DIGITS], record.run_key[:DIGITS],
            (record.weights.get("sha256") or "none")[:DIGITS], record.device, record.date, copied(record),
        )
        for row, protocol, record in page.found()
    ]  # fmt: skip


def copied(record: Result) -> str:
    """Where the copy of a record lies in the site."""
    return f"records/{record.experiment}/{record.path('').name}"


def configurations(page: Page) -> dict[str, str]:
    """Row to the configuration of its first record, as YAML."""
    found: dict[str, dict[str, Any]] = {}
    for row, _, record in page.found():
        found.setdefault(f"{row.label} on {row.dataset}", record.config)
    return {row: _yaml({key: one for key, one in facts.items() if key != "protocol"}) for row, facts in found.items()}


def cards(page: Page) -> list[Card]:
    """The protocols of a table, as its records have them; of a table without records as they are now."""
    found: dict[str, Result] = {}
    for _, _, record in page.found():
        found.setdefault(record.protocol["hash"], record)
    if found:
        return [
            Card(record.protocol["name"], known, _yaml(record.config.get("protocol", {})))
            for known, record in found.items()
        ]
    names = dict.fromkeys(name for row in page.experiment.rows for name in page.experiment.protocols(row.data))
    return [Card(name, "", _yaml(composition.node(f"protocol/{name.split()[0]}"))) for name in names]


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=True, allow_unicode=True, width=110)
