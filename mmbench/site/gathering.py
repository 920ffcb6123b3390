"""What a site shows: the tables of all experiments with their records and what became of their claims."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmbench.core import catalogue, results
from mmbench.core.results import Result
from mmbench.pipeline import claims, marks, tables
from mmbench.pipeline.cells import Cell, Verdict, cells_of
from mmbench.pipeline.claims import Records, Tested
from mmbench.pipeline.experiments import Experiment, Row, listed, load
from mmbench.pipeline.lookup import records_of


@dataclass(frozen=True)
class Page:
    """A table: an experiment on a data source.

    Attributes:
        experiment: as it is on that source.
        source: `real` or `toy`.
        cells: of the table.
        records: of its rows; empty where there is no record of the experiment.
        claims: what the tests of its claims came to.
    """

    experiment: Experiment
    source: str
    cells: list[Cell]
    records: Records
    claims: list[Tested]

    @property
    def name(self) -> str:
        """Of its file, as that of the page in results/tables/."""
        return tables.page(self.experiment, self.source, self.experiment.seeds, "").stem

    @property
    def is_first(self) -> bool:
        """Whether it is of the data that the published numbers are of."""
        return self.source == self.experiment.sources[0]

    @property
    def rows(self) -> dict[tuple[str, str], Row]:
        return {(row.label, row.dataset): row for row in self.experiment.rows}

    def found(self) -> Iterator[tuple[Row, str, Result]]:
        """Every record of the table, with its row and the protocol as the experiment names it."""
        for key, by_protocol in self.records.items():
            for protocol, found in by_protocol.items():
                for record in found.records:
                    yield self.rows[key], protocol, record


@dataclass(frozen=True)
class Entry:
    """A published number, and what became of it.

    Attributes:
        page: the table that it is compared in.
        method, data, metric, published: as the table shows them.
        ours, difference: "-" where there is none.
        status: a verdict, or that it cannot be reproduced.
        reason: what is missing.
        toy: what the toy counterpart of the table has in its place; "-" where there is none.
    """

    page: str
    method: str
    data: str
    metric: str
    published: str
    ours: str
    difference: str
    status: str
    reason: str
    toy: str


IMPOSSIBLE = "cannot be reproduced"


def gathered(names: Sequence[str], words: Sequence[str], paths: Mapping[str, str]) -> list[Page]:
    """The tables of experiments on all of their sources.

    Args:
        names: of the experiments.
        words: as `mmbench table` takes them, for all rows.
        paths: `paths` of the configuration.

    Raises:
        ValueError: a record, or a file with values by sample, is damaged; names it.
    """
    found = []
    for name in names:
        experiment = load(name)
        held = results.by_configuration(paths["results"], name)
        failed = marks.failures(paths["runs"], name)
        for source in experiment.sources:
            here = experiment.on(source)
            cells = cells_of(here, source, here.seeds, words, paths, held, here.rows, failed=failed)
            records = {}
            if held:
                records = {
                    (row.label, row.dataset): records_of(here, row, source, here.seeds, words, held)
                    for row in here.rows
                }
            tested = claims.tested(here, cells, records, Path(paths["results"]) / name, source)
            found.append(Page(here, source, cells, records, tested))
    return found


def ledger(pages: Sequence[Page]) -> list[Entry]:
    """Every published number of the tables, each once: on the data that it was published for."""
    toy = {
        (page.experiment.name, cell.method, cell.data, cell.metric): line["reproduced"]
        for page in pages
        if not page.is_first
        for cell, line in zip(page.cells, tables.texts(page.cells), strict=True)
    }
    entries = []
    for page in pages:
        if not page.is_first:
            continue
        for cell, line in zip(page.cells, tables.texts(page.cells), strict=True):
            if cell.published:
                key = (page.experiment.name, cell.method, cell.data, cell.metric)
                status, reason = _standing(page, cell)
                entries.append(
                    Entry(
                        page.name, cell.method, cell.data, cell.metric, line["published"], line["reproduced"],
                        line["difference"], status, reason, toy.get(key, "-"),
                    )
                )  # fmt: skip
        entries += _listed(page)
    return entries


def _standing(page: Page, cell: Cell) -> tuple[str, str]:
    """What became of a published number, and why: a method that is not here is no row that was not run."""
    row = page.rows[cell.method, cell.data]
    if cell.verdict is Verdict.NOT_RUN and row.method not in catalogue.names("method"):
        return IMPOSSIBLE, cell.value.reason
    return str(cell.verdict), cell.value.reason or cell.value.outdated


def _listed(page: Page) -> Iterator[Entry]:
    """Published numbers that nothing here computes."""
    for name, lines in listed(page.experiment).items() if page.experiment.listed else ():
        for line in lines:
            reason = f"{name}: nothing here computes it"
            yield Entry(
                page.name, line["method"], line["dataset"], line["metric"], line["value"], "-", "-", IMPOSSIBLE,
                reason, "-",
            )  # fmt: skip
