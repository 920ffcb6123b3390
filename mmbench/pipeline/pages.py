"""The page of a table, and the figures beside it."""

from collections.abc import Sequence
from pathlib import Path

from mmbench.core.files import write_text
from mmbench.pipeline import tables
from mmbench.pipeline.cells import Cell
from mmbench.pipeline.experiments import Experiment


def write(
    experiment: Experiment, source: str, seeds: Sequence[int], cells: Sequence[Cell], results: str | Path
) -> dict[str, Path]:
    """Writes the page, its curve and its fronts below the folder of results.

    Args:
        cells: of all rows, compared with each other.
        results: the folder of all records.

    Returns:
        `table`, `curve` and `fronts` to where they lie; without a figure that the experiment has not, or no value for.
    """
    path = tables.page(experiment, source, seeds, results)
    made, under = {"table": path}, []
    if any(cell.value.mean is not None for cell in cells):
        from mmbench.pipeline import stability  # torch, which a table without values does not need

        under = stability.sentences(experiment, cells, results)
        if experiment.curve:
            from mmbench.pipeline import curves  # matplotlib, which other tables do not need

            made |= {"curve": drawn} if (drawn := curves.write(path, experiment, cells)) else {}
        if experiment.fronts:
            from mmbench.pipeline import fronts

            if drawn := fronts.write(path, experiment, cells):
                made["fronts"], under = drawn, [fronts.link(path), *under]
    write_text(path, tables.document(experiment, source, seeds, cells, under))
    return made
