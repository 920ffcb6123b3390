"""The published numbers of an experiment: of its rows, how far ours may lie from them, and those that it lists."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmbench.core import catalogue
from mmbench.core.results import Result
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.experiments import Experiment, Row


@dataclass(frozen=True)
class Published:
    """A published number.

    Attributes:
        value: as printed, in the table's unit.
        text: as printed.
        uncertainty: the spread that was printed with it; None where there was none.
        higher_is_better: as the row states it.
        verified: False where the number was recalled and seen in no source.
        protocol: what the source says about how it was measured.
    """

    value: float
    text: str
    uncertainty: float | None
    higher_is_better: bool
    verified: bool
    protocol: str


def published(experiment: Experiment, row: Row) -> dict[str, Published]:
    """The published numbers of a row by metric as the table shows it; empty where the paper has none.

    Raises:
        ValueError: the CSV lacks a column, or holds two numbers for one metric of the row.
    """
    if not row.published:
        return {}
    parts: dict[tuple[tuple[str, str], ...], list[tuple[str, str]]] = {}
    for shown, (column, metric) in experiment.places.items():
        parts.setdefault(tuple(experiment.columns[column].published.items()), []).append((shown, metric))
    if experiment.differences:
        parts.setdefault((), []).extend((shown, shown) for shown in experiment.differences)
    found = {}
    for selected, wanted in parts.items():
        numbers = _numbers(experiment, row, dict(selected), {metric for _, metric in wanted})
        found |= {shown: numbers[metric] for shown, metric in wanted if metric in numbers}
    return found


def allowed_deviation(experiment: Experiment, shown: str, numbers: Mapping[str, Published]) -> float:
    """How far from its published value a reproduced one may lie; at least twice the spread it was published with.

    A difference may lie as far off as its two sources together.

    Args:
        numbers: the published numbers of the row.
    """
    number = numbers[shown]
    name = experiment.places[shown][1] if shown in experiment.places else shown
    absolute = experiment.tolerance["absolute"].get(name, 0.0)
    sources = sum(
        allowed_deviation(experiment, source, numbers)
        for source in experiment.differences.get(shown, ())
        if source in numbers
    )
    return max(experiment.tolerance["relative"] * abs(number.value), absolute, 2 * (number.uncertainty or 0.0), sources)


def printed(record: Result) -> dict[str, float]:
    """The published numbers that a record's scores are compared with, by the names of these; often none."""
    if record.experiment not in catalogue.names("experiment"):
        return {}
    experiment, source = load(record.experiment), record.row["source"]
    if source != experiment.sources[0]:
        return {}
    found: dict[str, float] = {}
    for row in experiment.on(source).rows:
        if (row.method, row.data) != (record.row["method"], record.row["data"]):
            continue
        for shown, number in published(experiment, row).items():
            if shown in experiment.places:
                name, protocol = experiment.metric(shown, row, source), experiment.protocol_of(shown, row.data)
                if name in record.metrics and protocol == record.protocol["name"]:
                    found.setdefault(name, number.value)
    return found


def listed(experiment: Experiment) -> dict[str, list[dict[str, str]]]:
    """The published numbers that the experiment lists without computing them, as the CSV has them, by its names."""
    path = catalogue.shipped("results/published") / f"{experiment.published}.csv"
    return {
        name: [
            line
            for line in _lines(path, path.stat().st_mtime_ns)
            if all(line[column] == value for column, value in {**experiment.select, **selected}.items())
        ]
        for name, selected in experiment.listed.items()
    }


def _numbers(experiment: Experiment, row: Row, selected: Mapping[str, str], wanted: set[str]) -> dict[str, Published]:
    """The numbers of some metrics by published name, in the lines of the CSV that the row and `selected` select."""
    path = catalogue.shipped("results/published") / f"{experiment.published}.csv"
    lines: Sequence[dict[str, str]] = _lines(path, path.stat().st_mtime_ns)
    for column, value in {**experiment.select, **row.published, **selected}.items():
        if lines and column not in lines[0]:
            raise ValueError(f"{experiment.published}.csv: expected the column {column}, found {', '.join(lines[0])}")
        lines = [line for line in lines if line[column] == value]
    found: dict[str, Published] = {}
    for line in lines:
        if line["metric"] not in wanted:
            continue
        if line["metric"] in found:
            raise ValueError(
                f"{experiment.published}.csv: expected one {line['metric']} for {row.label} on {row.data}, found two"
            )
        found[line["metric"]] = Published(
            value=float(line["value"]),
            text=line["value"],
            uncertainty=float(line["uncertainty"]) if line["uncertainty"] else None,
            higher_is_better=line["higher_is_better"] == "true",
            verified=line["confidence"] == "read",
            protocol=line["protocol"],
        )
    return found


@cache  # every row of a table asks
def _lines(path: Path, written: int) -> list[dict[str, str]]:
    """The lines of a CSV that was `written` then (ns), every value as it stands there."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
