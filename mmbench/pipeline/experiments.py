"""One published table: its citation, its rows, how its numbers map to ours, and when a number counts as reproduced."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from mmbench.core.catalogue import unknown
from mmbench.core.command_line import integers

NUMBER = re.compile(r"\d+(?:\.\d+)?")
COSTS = {  # as a table shows them: key of a record's `costs`, and what they are
    "parameters": ("parameters", "those that images are made with, of stages and pretrained networks too"),
    "trained parameters": ("trained_parameters", "those that optimisers changed, of all stages"),
    "steps": ("steps", "batches of training, of all stages"),
    "CPU seconds": ("cpu_seconds", "of training, all stages, threads and processes"),
    "CPU seconds an image": ("image_cpu_seconds", "of generation, all threads"),
    "seconds an image": ("image_seconds", "by the clock, one image at a time, mean of 8 after 2 others"),
    "process memory GiB": (
        "process_memory_GiB",
        "the most that the process held while it drew these, Python, libraries and networks of metrics too",
    ),
    "GPU memory GiB": ("gpu_memory_GiB", "the most that tensors held on the GPU while it drew these"),
}
SIDES = {"above": 1, "below": -1}  # where the better values lie


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        method: a name in `conf/method/`; a table may list methods that mmbench does not have yet.
        data: a name in `conf/data/`.
        published: columns of the published CSV that select this row's numbers, e.g. {"method", "variant", "dataset"}.
        shown: in its place, of a row that nobody has published: what the table calls "method" and "dataset".
        weights: as on the command line; None: the authors' on real data, our own on toy data.
        seeds: the only seeds that the row is run with; None: all seeds of the experiment.
        reference: whether the row bounds the others, as one does that learns nothing: it is no part of comparisons.
        words: as on the command line, where the table has its method otherwise than the method's file says, e.g.
            `method.training.epochs=100`; a command line outweighs them.

    Raises:
        TypeError: it has both `published` and `shown`, or neither.
    """

    method: str
    data: str
    published: dict[str, str] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    weights: str | None = None
    seeds: list[int] | None = None
    reference: bool = False
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if bool(self.published) == bool(self.shown):
            raise TypeError(f"`published` and `shown` for {self.method} on {self.data}, of which one is expected")

    def seeds_of(self, asked: Sequence[int]) -> list[int]:
        """Those of the asked seeds that the row is run with."""
        return [seed for seed in asked if self.seeds is None or seed in self.seeds]

    @property
    def key(self) -> tuple[str, str]:
        """What tells this row from the others of its table: label and data set."""
        return self.label, self.data

    @property
    def dataset(self) -> str:
        """What the table calls the data set."""
        return (self.published or self.shown).get("dataset", self.data)

    @property
    def label(self) -> str:
        """The published name of the method, with its variant where that says more than where the number was taken."""
        if self.shown:
            return self.shown["method"]
        variant = self.published.get("variant", "")
        plain_variant = variant in ("", "full", "re-evaluation", "quoted", "reference")
        return self.published["method"] + ("" if plain_variant else f" {variant}")


@dataclass(frozen=True)
class Column:
    """A part of the table that is made under one protocol.

    Attributes:
        protocol: a name in `conf/protocol/`, with words behind it where it is changed (`strict_guidance
            protocol.caption=none`), or where methods sample otherwise (`strict_synthesis_64
            method.sampling.guidance=4`); or a mapping from data set to that.
        metrics: published metric to ours, `name@extractor`, or to a mapping from data set to that. On toy data the toy
            extractors stand in, whatever the name says.
        published: columns of the published CSV that select this part's numbers, beside those of the row.
    """

    protocol: str | dict[str, str]
    metrics: dict[str, str | dict[str, str]]
    published: dict[str, str] = field(default_factory=dict)

    def protocol_on(self, data: str) -> str:
        """The protocol that this part is made under on a data set."""
        return _on(self.protocol, data)


@dataclass(frozen=True)
class Claim:
    """What a paper says of its table, in the form of a comparison that can be tested (`mmbench/pipeline/claims.py`).

    Attributes:
        text: the claim, in our words.
        where: the place in the paper.
        rows: labels. The first is said to be better than each of the others; with `columns` each row is compared with
            itself.
        metrics: as the table shows them, each in its own direction; with `columns` without the column's name.
        columns: names of columns, of which the first is said to be better than each of the others.
        data: what the table calls the data sets that it is said of; none: all that have the rows.
    """

    text: str
    where: str
    rows: list[str]
    metrics: list[str]
    columns: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Experiment:
    """A published table as data, or one of ours in the same form; read from `experiments/<name>.yaml`.

    Attributes:
        name: name of the file.
        citation: authors, title, venue, year, link.
        published: name of the CSV in `results/published/`; "" where no row has published numbers.
        select: columns of the CSV that select the table, e.g. {"paper", "table"}.
        columns: name to what is made under one protocol. A file whose table needs one protocol alone says `protocol`
            and `metrics` in its place, which make a column without a name.
        tolerance: {"relative": share of the published value, "absolute": {published metric: value}}; the larger one
            counts.
        rows: the rows, in the table's order.
        differences: published metric to the two metrics, as `metrics` has them, of whose difference it is the size.
        gains: metric to the two metrics of which it is the first minus the second.
        notes: sentences under the table, of what is to be known of the published numbers.
        listed: a name to the columns of the CSV that select published numbers which nothing here computes, a user
            study's say: they are listed under the table as what they are.
        sources: the data sources that can be asked for; the published numbers belong to the first.
        seeds: seeds to run when the command line names none.
        grid: number of samples to show in the grid of images.
        curve: {"x", "metrics"}: what a figure beside the table has on its horizontal axis, in words, and the metrics
            that it shows, which every column has, each to the words of its own axis. Columns are places on the
            horizontal one, by the one number in each name (`rectangle 5 %`); those whose names are otherwise equal are
            one family, of one style of line.
        harmonic_means: metric to the two metrics, both of values from 0, of which it is the harmonic mean in each seed.
        fronts: {"x", "y"} each: two metrics of the table, or of a curve, whose every column has them, in which figures
            beside the table show the rows, or the places of the curve, that no other beats in both.
        judged: {"metrics", "by", "rows"}: metrics of the table, and those that they are to agree with in how they rank
            rows. With `rows: all` these are reference rows and rows that did not learn, too: the pictures of any row
            tell what a metric measures.
        learned: {"above" or "below", "of", "spreads", "everywhere"}: a row counts as having learned where its value of
            each named metric lies on that side of every row that `of` names (reference rows, by their labels) on its
            data set, by more than so many standard deviations over seeds (0 where none is said), the larger one of the
            two rows; where neither has several seeds no deviation is known, and lying on that side is enough.
            Which of several columns it did not learn is told by those of the metrics; with `everywhere: true` it is
            all of them. A list of several such floors asks for all of them.
        compared_with: the label of the row that every other one is tested against; "": the best one of each column.
        costs: of `COSTS`, those that the table shows behind the metrics of each row, as means over seeds. They are
            judged by nothing, and no part of comparisons.
        claims: what the paper says of its table, or papers of their methods, as comparisons that can be tested.
        pictures: files in results/pictures that show its toy data, each to what is to be seen in it.
        brief: the metrics and costs of a wide table that are shown at a glance in `results/README.md`; none: all.
        toy: other keys where the source is toy data; `metrics` are more metrics of the only column, beside the
            published ones.
    """

    name: str
    citation: str
    columns: dict[str, Column]
    rows: list[Row]
    published: str = ""
    select: dict[str, str] = field(default_factory=dict)
    tolerance: dict[str, Any] = field(default_factory=dict)
    differences: dict[str, tuple[str, str]] = field(default_factory=dict)
    gains: dict[str, tuple[str, str]] = field(default_factory=dict)
    harmonic_means: dict[str, tuple[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    listed: dict[str, dict[str, str]] = field(default_factory=dict)
    sources: list[str] = field(default_factory=lambda: ["real", "toy"])
    seeds: list[int] = field(default_factory=lambda: [0])
    grid: int = 8
    curve: dict[str, Any] = field(default_factory=dict)
    fronts: list[dict[str, str]] = field(default_factory=list)
    judged: dict[str, Any] = field(default_factory=dict)
    learned: dict[str, Any] | list[dict[str, Any]] = field(default_factory=dict)
    compared_with: str = ""
    costs: list[str] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)
    brief: list[str] = field(default_factory=list)
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
        more = self.toy.get("metrics", {})
        columns = {name: replace(column, metrics={**column.metrics, **more}) for name, column in self.columns.items()}
        return replace(self, **{key: value for key, value in self.toy.items() if key != "metrics"}, columns=columns)

    @cached_property
    def places(self) -> dict[str, tuple[str, str]]:
        """Metric as the table shows it to its column and its published name.

        A metric that several columns have is shown with the column's name behind its own.
        """
        everywhere = [metric for column in self.columns.values() for metric in column.metrics]
        return {
            f"{metric} {name}" if everywhere.count(metric) > 1 else metric: (name, metric)
            for name, column in self.columns.items()
            for metric in column.metrics
        }

    @cached_property
    def references(self) -> frozenset[tuple[str, str]]:
        """Label and published data set of each row that others are measured by."""
        return frozenset((row.label, row.dataset) for row in self.rows if row.reference)

    @cached_property
    def families(self) -> dict[str, dict[float, str]]:
        """Of a curve: what a column's name is beside its number, to that number and the column, from small to large."""
        found: dict[str, dict[float, str]] = {}
        for name in self.columns:
            (number,) = NUMBER.findall(name)
            found.setdefault(" ".join(NUMBER.sub("", name).strip("% ").split()), {})[float(number)] = name
        return {family: dict(sorted(places.items())) for family, places in found.items()}

    @property
    def metrics(self) -> list[str]:
        """Every metric as the table shows it, in its order; those that are computed from others are last."""
        return [*self.places, *self.computed]

    @property
    def computed(self) -> dict[str, tuple[str, str]]:
        """Metrics that are computed from two others, which are named."""
        return {**self.differences, **self.gains, **self.harmonic_means}

    @property
    def floors(self) -> list[dict[str, Any]]:
        """What `learned` asks for, one after the other."""
        listed = self.learned if isinstance(self.learned, list) else [self.learned]
        return [floor for floor in listed if floor]

    def metric(self, shown: str, row: Row, source: str) -> str:
        """Our name, with extractor, of a metric in a row; of no difference."""
        column, published = self.places[shown]
        name = _on(self.columns[column].metrics[published], row.data)
        return f"{name.partition('@')[0]}@toy" if source == "toy" and "@" in name else name

    def protocols(self, data: str) -> list[str]:
        """The protocols that a row of a data set needs, each once."""
        return list(dict.fromkeys(column.protocol_on(data) for column in self.columns.values()))

    def protocol_of(self, shown: str, data: str) -> str:
        """The protocol that a metric is made under on a data set."""
        return self.columns[self.places[shown][0]].protocol_on(data)


def _on(choice: str | Mapping[str, str], data: str) -> str:
    if isinstance(choice, str):
        return choice
    if data not in choice:
        raise ValueError(
            f"expected a choice for the data set {data}, found {', '.join(choice)}: add it to the experiment"
        )
    return choice[data]


def seeds_of(asked: str | None, words: Sequence[str], experiment: Experiment) -> list[int]:
    """The seeds that a command line asks for by `seeds=`, else the experiment's own.

    Raises:
        ValueError: they are no integers from 0, or one is named twice; another word sets the one seed of a run.
    """
    if any(word.startswith("seed=") for word in words):
        raise ValueError("expected seeds=0,1,2 for the rows of a table, found seed=: write seeds=")
    if asked is None:
        return experiment.seeds
    seeds = integers(asked)
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(f"expected seeds=0,1,2, whole numbers from 0, each once, found seeds={asked}: correct them")
    return seeds


def require_own_protocols(words: Sequence[str]) -> None:
    """Refuses a choice of protocol: a table has its own, for each of its columns.

    Raises:
        ValueError: a word chooses one.
    """
    if chosen := [word for word in words if word.startswith("protocol=")]:
        raise ValueError(f"expected the protocols of the experiment, found {chosen[0]}: evaluate a method under it")


def require_all_rows(words: Sequence[str]) -> None:
    """Refuses words that choose a row or a protocol: a page has all rows of its experiment, under its own protocols.

    Raises:
        ValueError: names the word.
    """
    require_own_protocols(words)
    if chosen := [word for word in words if word.startswith(("method=", "data="))]:
        raise ValueError(f"expected words for all rows of a table, found {chosen[0]}: `mmbench reproduce` takes it")
