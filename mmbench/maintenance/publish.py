"""Publishes the values of this repository's own demo, so that others can see whether their machine reproduces them.

Rewrites `results/published/toy.csv` from the newest records of the experiments that take their published values there.
A table that lacks a record keeps its lines, and a row of one seed is given the spread over seeds that another table
found. Run it after the demo has changed, and commit records and values together.
"""

import statistics
import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mmbench.core import catalogue, config, construction, results
from mmbench.core.files import write_text
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.experiments import Experiment, Row
from mmbench.pipeline.lookup import Found, records_of

SAME = ["method", "variant", "dataset", "metric"]
HELP = """usage: python -m mmbench.maintenance.publish

Writes what the records of the demo's experiments say into results/published/toy.csv, beside which others see their own
values. Run `make demo demo-seeds` first.
"""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    folder = config.composed(["method=identity"])["paths"]["results"]
    path = catalogue.shipped("results/published") / "toy.csv"
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    for experiment in (load(name) for name in catalogue.names("experiment")):
        if experiment.published != "toy":
            continue
        held = {
            key: record
            for key, record in results.by_configuration(folder, experiment.name).items()
            if not record.outdated
        }
        rows = [(row, records_of(experiment, row, "toy", experiment.seeds, [], held)) for row in experiment.rows]
        wanted = len(experiment.seeds)
        lacking = [row.label for row, found in rows if any(len(each.records) < wanted for each in found.values())]
        if lacking:
            print(f"{experiment.name}: left as it is, since records are missing of {', '.join(lacking)}")
            continue
        frame = frame[frame["table"] != experiment.select["table"]]
        new = [line for row, found in rows for line in lines_of(experiment, row, found)]
        frame = pd.concat([frame, pd.DataFrame(new, columns=frame.columns)], ignore_index=True)
        print(f"{experiment.name}: {len(new)} values of {len(rows)} rows")
    write_text(path, _with_spreads(frame).to_csv(index=False))
    print(f"values: {path}\nnext: make tables")
    return 0


def _with_spreads(frame: pd.DataFrame) -> pd.DataFrame:
    """Gives each value of one seed the spread over seeds that another table has of it.

    A training's values differ from machine to machine about as much as from seed to seed.
    """
    spread = frame[frame["uncertainty"] != ""].drop_duplicates(SAME).set_index(SAME)["uncertainty"]
    known = pd.Series([spread.get(tuple(line), "") for line in frame[SAME].itertuples(index=False)], frame.index)
    return frame.assign(uncertainty=frame["uncertainty"].where(frame["uncertainty"] != "", known))


def lines_of(experiment: Experiment, row: Row, found: Mapping[str, Found]) -> list[dict[str, Any]]:
    """The published values of a row, one line for each metric; the uncertainty is the deviation over the seeds."""
    lines = []
    for shown, (column, metric) in experiment.places.items():
        records = found[experiment.protocol_of(shown, row.data)].records
        newest, name = records[-1], experiment.metric(shown, row, "toy")
        values = [record.metrics[name]["value"] for record in records]
        better = construction.target(newest.config["protocol"]["metrics"][name.partition("@")[0]]).higher_is_better
        lines.append(
            {
                "protocol": f"{newest.protocol['name']} {newest.protocol['hash'][:12]}",
                **experiment.select,
                **row.published,
                **experiment.columns[column].published,
                "year": newest.date[:4],
                "venue": "",
                "split": newest.data["split"],
                "resolution": str(newest.size[0]),
                "metric": metric,
                "value": f"{statistics.fmean(values):.4f}",
                "uncertainty": f"{statistics.stdev(values):.4f}" if len(values) > 1 else "",
                "unit": "",
                "higher_is_better": str(better).lower(),
                "source": f"this repository at {newest.commit[:12]}, torch {newest.versions['torch']}",
                "confidence": "read",
            }
        )
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
