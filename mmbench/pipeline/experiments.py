"""One published table: its citation, its rows, how its numbers map to ours, and when a number counts as reproduced."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import yaml

from mmbench.core.config import names, shipped, unknown


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        method: a name in `conf/method/`; a table may list methods that mmbench does not have yet.
        data: a name in `conf/data/`.
        published: columns of the published CSV that select this row's numbers, e.g. {"method", "variant", "dataset"}.
        weights: as on the command line; None: the authors' on real data, our own on toy data.
        seeds: the only seeds that the row is run with; None: all seeds of the experiment.
    """

    method: str
    data: str
    published: dict[str, str]
    weights: str | None = None
    seeds: list[int] | None = None

    def seeds_of(self, asked: Sequence[int]) -> list[int]:
        """Those of the asked seeds that the row is run with."""
        return [seed for seed in asked if self.seeds is None or seed in self.seeds]

    @property
    def key(self) -> tuple[str, str]:
        """What tells this row from the others of its table: label and data set."""
        return self.label, self.data

    @property
    def label(self) -> str:
        """The published name of the method, with its variant where that says more than where the number was taken."""
        variant = self.published.get("variant", "")
        plain_variant = variant in ("", "full", "re-evaluation", "quoted", "reference")
        return self.published["method"] + ("" if plain_variant else f" {variant}")


@dataclass(frozen=True)
class Experiment:
    """A published table as data; read from `experiments/<name>.yaml`.

    Attributes:
        name: name of the file.
        citation: authors, title, venue, year, link.
        published: name of the CSV in `results/published/`.
        select: columns of the CSV that select the table, e.g. {"paper", "table"}.
        protocol: a name in `conf/protocol/`.
        metrics: published metric to ours, `name@extractor`, or to a mapping from data set to that. On toy data the toy
            extractors stand in, whatever the name says.
        tolerance: {"relative": share of the published value, "absolute": {metric: value}}; the larger one counts.
        rows: the rows, in the table's order.
        sources: the data sources that can be asked for; the published numbers belong to the first.
        seeds: seeds to run when the command line names none.
        grid: number of samples to show in the grid of images.
        judged: {"metric", "by"}: a metric of the table, and those that it is to agree with in how they rank the rows.
        toy: other keys where the source is toy data; `metrics` are more metrics, beside the published ones.
    """

    name: str
    citation: str
    published: str
    select: dict[str, str]
    protocol: str
    metrics: dict[str, str | dict[str, str]]
    tolerance: dict[str, Any]
    rows: list[Row]
    sources: list[str] = field(default_factory=lambda: ["real", "toy"])
    seeds: list[int] = field(default_factory=lambda: [0])
    grid: int = 8
    judged: dict[str, Any] = field(default_factory=dict)
    toy: dict[str, Any] = field(default_factory=dict)

    def on(self, source: str) -> "Experiment":
        """The experiment as it is on a data source: with its block `toy` laid over it, or without.

        Raises:
            ValueError: the experiment has no such source.
        """
        if source not in self.sources:
            unknown(f"data.source of experiment {self.name}", source, self.sources)
        if source != "toy":
            return self
        return replace(self, **{**self.toy, "metrics": {**self.metrics, **self.toy.get("metrics", {})}})

    def metric(self, published: str, row: Row, source: str) -> str:
        """Our name, with extractor, of a published metric in a row."""
        ours = self.metrics[published]
        name = ours if isinstance(ours, str) else ours[row.data]
        return f"{name.partition('@')[0]}@toy" if source == "toy" and "@" in name else name

    def allowed(self, metric: str, published: "Published") -> float:
        """How far from a published value a reproduced one may lie; at least twice the spread it was published with."""
        absolute = self.tolerance["absolute"].get(metric, 0.0)
        return max(self.tolerance["relative"] * abs(published.value), absolute, 2 * (published.uncertainty or 0.0))


def load(name: str) -> Experiment:
    """Reads `experiments/<name>.yaml`.

    Raises:
        ValueError: there is no such experiment, or a key in its file is unknown or missing.
    """
    if name not in names("experiment"):
        unknown("experiment", name, names("experiment"))
    path = shipped("experiments") / f"{name}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        rows = [Row(**row) for row in content.pop("rows")]
        experiment = Experiment(name=name, rows=rows, **content)
        experiment.on(experiment.sources[-1])  # to look at the keys of its block `toy`
        return experiment
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected the keys of Experiment and Row, found {error}: correct the file") from None


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
    """The published numbers of a row by metric name; empty where the paper has none.

    Raises:
        ValueError: the CSV lacks a column, or holds two numbers for one metric of the row.
    """
    path = shipped("results/published") / f"{experiment.published}.csv"
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    for column, value in {**experiment.select, **row.published}.items():
        if column not in frame:
            raise ValueError(f"{path.name}: expected the column {column}, found {', '.join(frame.columns)}")
        frame = frame[frame[column] == value]
    found: dict[str, Published] = {}
    for line in frame.to_dict("records"):
        if line["metric"] in found:
            raise ValueError(f"{path.name}: expected one {line['metric']} for {row.label} on {row.data}, found two")
        found[line["metric"]] = Published(
            value=float(line["value"]),
            text=line["value"],
            uncertainty=float(line["uncertainty"]) if line["uncertainty"] else None,
            higher_is_better=line["higher_is_better"] == "true",
            verified=line["confidence"] == "read",
            protocol=line["protocol"],
        )
    return found
