"""How stable the ranking of a table's rows is: over seeds, metrics, data sets, and when its images are drawn again."""

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from mmbench.pipeline import sampled
from mmbench.pipeline.cells import Cell, Verdict, takes_part
from mmbench.pipeline.experiments import Experiment
from mmbench.pipeline.sampled import common_images, directions, of_images, of_table
from mmbench.statistics.ranks import best_probabilities, tau, taus

LEAST = 3  # rows that a ranking has at least
LISTED = 6  # metrics that are listed one by one
SHOWN = 0.05  # probability of being the best that is worth a word

Table = dict[tuple[str, str], dict[str, Cell]]  # data set and metric to method to cell


def sentences(experiment: Experiment, cells: Sequence[Cell], results: str | Path) -> list[str]:
    """What stands under a table of its rankings; nothing of fewer than three rows that can be compared.

    Reference rows, and rows that did not learn what a metric measures or whose values are outdated, are left out.

    Args:
        cells: of the table.
        results: the folder of all records.

    Raises:
        ValueError: values by sample are damaged.
    """
    table = _comparable(experiment, cells)
    if not table:
        return []
    signs, values = directions(experiment, cells), of_table(experiment, cells, results)
    parts = (_over_seeds(table), _over_metrics(table, signs), _over_data(table), _over_images(table, signs, values))
    return [f"{begin}: {told}." for begin, told in parts if told]


def _comparable(experiment: Experiment, cells: Sequence[Cell]) -> Table:
    table: Table = {}
    for cell in cells:
        if cell.verdict is not Verdict.COST and takes_part(experiment, cell):
            table.setdefault((cell.data, cell.metric), {})[cell.method] = cell
    return {key: rows for key, rows in table.items() if len(rows) >= LEAST}


def _over_seeds(table: Table) -> tuple[str, str]:
    """Of the rows that have all seeds which any row has, each two seeds."""
    found = {}
    for (data, metric), rows in table.items():
        seeds = sorted({seed for cell in rows.values() for seed in cell.value.by_seed})
        whole = [cell for cell in rows.values() if all(seed in cell.value.by_seed for seed in seeds)]
        if len(seeds) > 1 and len(whole) >= LEAST:
            ranked = np.array([[cell.value.by_seed[seed] for cell in whole] for seed in seeds])
            if agreements := list(taus(ranked).values()):
                found[f"{metric} on {data}"] = float(np.mean(agreements))
    return "Kendall's tau of the ranking of rows between two seeds (1 is the same), mean of each two", _listed(found)


def _over_metrics(table: Table, signs: Mapping[str, int]) -> tuple[str, str]:
    """Each two metrics of a data set, their rankings from best to worst."""
    told = []
    for data in dict.fromkeys(data for data, _ in table):
        directed = [metric for of, metric in table if of == data and metric in signs]
        found = {}
        for first, second in combinations(directed, 2):
            one, other = table[data, first], table[data, second]
            both = sorted(one.keys() & other.keys())
            if len(both) >= LEAST:
                ranked = (signs[first] * _means(one, both), signs[second] * _means(other, both))
                found[f"{first} and {second}"] = tau(*ranked)
        found = {pair: value for pair, value in found.items() if not np.isnan(value)}
        if found:
            least = min(found, key=lambda pair: found[pair])
            mean = f"{np.mean(list(found.values())):+.2f} on {data}"
            told.append(mean + (f" (least: {least}, {found[least]:+.2f})" if len(found) > 1 else f" ({least})"))
    return "Kendall's tau between two metrics, mean of each two", "; ".join(told)


def _over_data(table: Table) -> tuple[str, str]:
    """Each two data sets that follow each other in the table, of a metric."""
    found = {}
    for metric in dict.fromkeys(metric for _, metric in table):
        data = [of for of, name in table if name == metric]
        for first, second in pairwise(data):
            both = sorted(table[first, metric].keys() & table[second, metric].keys())
            if len(both) >= LEAST:
                value = tau(*(_means(table[of, metric], both) for of in (first, second)))
                if not np.isnan(value):
                    found[f"{metric} on {first} and {second}"] = value
    return "Kendall's tau between data sets", _listed(found)


def _over_images(table: Table, signs: Mapping[str, int], values: sampled.Table) -> tuple[str, str]:
    """How often each row is the best of 2,000 draws of the images, mean over its seeds."""
    told, clear = [], []
    for (data, metric), rows in table.items():
        known = {method: values[data, metric][method] for method in rows if method in values.get((data, metric), {})}
        images = common_images(list(known.values()))
        if len(known) < LEAST or len(images) < 2 or metric not in signs:
            continue
        means = np.stack([of_images(by_seed, images).mean(axis=1) for by_seed in known.values()])
        shares = best_probabilities(signs[metric] * means, np.random.default_rng(0))
        best = sorted(zip(shares.tolist(), known, strict=True), key=lambda pair: -pair[0])
        if best[0][0] >= 1 - SHOWN:
            clear.append(f"{best[0][1]} of {metric} on {data}")
        else:
            likely = ", ".join(f"{method} {share:.2f}" for share, method in best if share >= SHOWN)
            told.append(f"{likely} of {metric} on {data}")
    if len(told) > LISTED:
        told = [*told[:LISTED], f"and {len(told) - LISTED} more columns without a clear one"]
    if clear:
        told.append(f"always or nearly so (0.95 and more) {_shortened(clear)}")
    return "How often each row is the best when images are drawn again", "; ".join(told)


def _means(rows: Mapping[str, Cell], methods: Sequence[str]) -> np.ndarray:
    return np.array([rows[method].value.mean for method in methods])


def _listed(found: Mapping[str, float]) -> str:
    """Values one by one where they are few, or their mean and the least."""
    if len(found) <= LISTED:
        return ", ".join(f"{value:+.2f} of {name}" for name, value in found.items())
    least = min(found, key=lambda name: found[name])
    return f"{np.mean(list(found.values())):+.2f} over {len(found)} columns (least: {found[least]:+.2f} of {least})"


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= LISTED else f"in {len(names)} columns"
