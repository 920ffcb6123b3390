"""What a site shows: the tables of all experiments with their records and what became of their claims."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmbench.core import catalogue, results
from mmbench.core.results import Result
from mmbench.pipeline import claims, comparing, marks, tables
from mmbench.pipeline.cells import Cell, Verdict, cells_of
from mmbench.pipeline.claims import Tested
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.experiments import Experiment, Row
from mmbench.pipeline.publications import listed


@dataclass(frozen=True)
class Page:
    """A table: an experiment on a data source.

    Attributes:
        experiment: as it is on that source.
        source: `real` or `toy`.
        cells: of the table.
        claims: what the tests of its claims came to.
    """

    experiment: Experiment
    source: str
    cells: list[Cell]
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
        """Every record of the table, each once, with its row and the protocol as the experiment names it."""
        seen = set()
        for cell in self.cells:
            row = self.rows[cell.method, cell.data]
            for record in cell.value.records.values():
                protocol = self.experiment.protocol_of(cell.metric, row.data)
                if (key := (row.key, protocol, record.seed)) not in seen:
                    seen.add(key)
                    yield row, protocol, record


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
OURS = "mmbench"  # the paper of this repository's own values, which check a machine and reproduce nobody's table


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
            cells = comparing.compared(here, cells, paths["results"])
            found.append(Page(here, source, cells, claims.tested(here, cells, paths["results"])))
    return found


def ledger(pages: Sequence[Page]) -> list[Entry]:
    """Every number of the tables that others published, each once: on the data that it was published for."""
    toy = {
        (page.experiment.name, cell.method, cell.data, cell.metric): line["reproduced"].partition(" [")[0]
        for page in pages
        if not page.is_first
        for cell, line in zip(page.cells, tables.texts(page.cells), strict=True)
    }
    entries = []
    for page in pages:
        if not page.is_first or page.experiment.select.get("paper") == OURS:
            continue
        for cell, line in zip(page.cells, tables.texts(page.cells), strict=True):
            if cell.published:
                key = (page.experiment.name, cell.method, cell.data, cell.metric)
                status, reason = _standing(page, cell)
                entries.append(
                    Entry(
                        page.name, cell.method, cell.data, cell.metric, line["published"],
                        line["reproduced"].partition(" [")[0],
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
