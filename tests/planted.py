"""A table of planted values by sample, as if its rows had been evaluated."""

import numpy as np

from mmbench.core.noise import Sample
from mmbench.core.results import Result
from mmbench.pipeline import by_sample, cells
from mmbench.pipeline.experiment_files import parsed
from mmbench.pipeline.lookup import Found

CONTENT = {
    "citation": "Nobody. 2026.",
    "protocol": "manigan",
    "metrics": {"diff": "diff", "sim": "sim@standard", "IS": "is@standard"},
    "sources": ["toy"],
    "seeds": [0, 1],
}
METRICS = {"diff": "mmbench.metrics.diff.Diff", "sim": "mmbench.metrics.sim.Sim"}  # lower, and higher, is better
CONFIG = {"protocol": {"metrics": {name: {"_target_": target} for name, target in METRICS.items()}}}


def experiment(*rows, **more):
    """An experiment of rows on toy birds by their names; `reference` is one that bounds the others."""
    told = [
        {"method": "manigan", "data": "cub", "shown": {"method": name, "dataset": "birds"},
         "reference": name == "reference"}
        for name in rows
    ]  # fmt: skip
    return parsed("x", {**({} if "columns" in more else CONTENT), "rows": told, **more})


def records(values, folder):
    """A record of each seed, written below a folder.

    Args:
        values: seed to metric of the record to sample to value; that of IS, which is no mean, is a number.
    """
    found = []
    for seed, metrics in values.items():
        means = {name: float(np.mean(list(one.values()))) if isinstance(one, dict) else one
                 for name, one in metrics.items()}  # fmt: skip
        scores = {name: {"value": mean, "std": None, "count": 1, "weights": None} for name, mean in means.items()}
        row, protocol = {"method": "manigan", "data": "cub", "source": "toy"}, {"name": "manigan", "hash": "h"}
        record = Result("x", row, seed, protocol, scores, "k" * 12, "c", {"verified": True}, {}, CONFIG)
        kept = {name: one for name, one in metrics.items() if isinstance(one, dict)}
        record = by_sample.keep(record.behind(folder), kept, folder)
        record.write(folder)
        found.append(record)
    return found


def stand_in(monkeypatch, folder, values):
    """Makes the planted values those of the table's rows: row to what `records` takes."""
    found = {}
    for name, of_row in values.items():
        found[name] = records(of_row, folder)

    def records_of(_, row, *__):
        return {"manigan": Found(found.get(row.label, []))}

    monkeypatch.setattr(cells, "records_of", records_of)


def samples(values):
    """Values of images, in their order, as of one caption and draw each."""
    return {Sample(f"image-{place:04d}", 0, 0): float(value) for place, value in enumerate(values)}
