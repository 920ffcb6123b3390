"""Values by sample of a table's cells, and which way each of its metrics is better."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmbench.core import config
from mmbench.core.noise import Sample
from mmbench.core.results import Result
from mmbench.pipeline import by_sample
from mmbench.pipeline.cells import Cell
from mmbench.pipeline.experiments import Experiment, Row
from mmbench.pipeline.lookup import Found, records_of

BySeed = dict[int, dict[Sample, float]]  # seed to sample to value


def higher_is_better(experiment: Experiment, shown: str) -> bool:
    """The direction of a metric as the table shows it; a gain has that of the metric whose gain it is.

    Raises:
        KeyError: the table has no such metric, or it is the size of a difference, which is better in neither way.
    """
    shown = experiment.gains[shown][0] if shown in experiment.gains else shown
    column, name = experiment.places[shown]
    ours = experiment.columns[column].metrics[name]
    ours = ours if isinstance(ours, str) else next(iter(ours.values()))
    better: bool = config.target(config.node(f"metric/{ours.partition('@')[0].partition('(')[0]}")).higher_is_better
    return better


def values_of(
    experiment: Experiment, row: Row, source: str, found: Mapping[str, Found], results: str | Path
) -> dict[str, BySeed]:
    """Metric of a row as the table shows it to its values by seed and sample; gains by sample too.

    Metrics that are no mean over images are left out, and so are records without values by sample and outdated ones.

    Args:
        found: the row's records by protocol (`lookup.records_of`).
        results: the folder of all records.

    Raises:
        ValueError: as `by_sample.read`.
    """
    told = {
        protocol: {record.seed: _read(record, results) for record in held.records if record.samples}
        for protocol, held in found.items()
    }
    values: dict[str, BySeed] = {}
    for shown in experiment.places:
        name, protocol = experiment.metric(shown, row, source), experiment.protocol_of(shown, row.data)
        by_seed = {seed: scores[name] for seed, scores in told[protocol].items() if name in scores}
        if by_seed:
            values[shown] = by_seed
    for shown, (first, second) in experiment.gains.items():
        if first in values and second in values:
            values[shown] = _gains(values[first], values[second])
    return values


def _read(record: Result, results: str | Path) -> dict[str, dict[Sample, float]]:
    return {} if record.outdated else by_sample.read(record, Path(results) / record.experiment)


def _gains(first: BySeed, second: BySeed) -> BySeed:
    """The first minus the second, of the seeds and samples that both have."""
    return {
        seed: {sample: value - second[seed][sample] for sample, value in values.items() if sample in second[seed]}
        for seed, values in first.items()
        if seed in second
    }


def of_table(
    experiment: Experiment,
    source: str,
    seeds: Sequence[int],
    overrides: Sequence[str],
    held: Mapping[str, Result],
    results: str | Path,
) -> dict[tuple[str, str], dict[str, BySeed]]:
    """Data set and metric, as the table shows them, to method to its values, of all rows and metrics that have some.

    Args:
        held: the experiment's records by configuration (`results.by_configuration`).
        results: the folder of all records.
    """
    found: dict[tuple[str, str], dict[str, BySeed]] = {}
    for row in experiment.rows:
        records = records_of(experiment, row, source, seeds, overrides, held)
        for shown, by_seed in values_of(experiment, row, source, records, results).items():
            found.setdefault((row.dataset, shown), {})[row.label] = by_seed
    return found


def compared(
    experiment: Experiment, cells: Sequence[Cell], values: Mapping[tuple[str, str], Mapping[str, BySeed]]
) -> dict[tuple[str, str], dict[str, BySeed]]:
    """The values of the rows that comparisons have a part for.

    Reference rows, and rows that did not learn what the metric measures, are left out.

    Args:
        cells: of the table.
        values: as `of_table` gives them.
    """
    out = {(cell.data, cell.metric, cell.method) for cell in cells if cell.unlearned}
    out |= {(row.dataset, shown, row.label) for row in experiment.rows if row.reference for shown in experiment.metrics}
    return {
        (data, shown): {method: by_seed for method, by_seed in rows.items() if (data, shown, method) not in out}
        for (data, shown), rows in values.items()
    }


def of_images(by_seed: BySeed, seeds: Sequence[int], images: Sequence[str]) -> np.ndarray:
    """The mean of each image over its captions and draws: (N images, S seeds) float64.

    Args:
        images: ids that every seed has a value of.
    """
    places = {key: place for place, key in enumerate(images)}
    found = np.empty((len(images), len(seeds)))
    for column, seed in enumerate(seeds):
        samples = [(places[sample.id], value) for sample, value in by_seed[seed].items() if sample.id in places]
        index, values = (np.array(part) for part in zip(*samples, strict=True))
        found[:, column] = np.bincount(index, values, len(images)) / np.bincount(index, minlength=len(images))
    return found


def common_images(values: Sequence[BySeed]) -> list[str]:
    """The ids that all of several cells have a value of under each of their seeds, sorted."""
    sets = [{sample.id for sample in samples} for by_seed in values for samples in by_seed.values()]
    return sorted(set.intersection(*sets)) if sets else []
