"""Reads the file of an experiment, and refuses one that says what its table cannot have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mmbench.core import catalogue
from mmbench.core.catalogue import unknown
from mmbench.pipeline.experiments import COSTS, NUMBER, SIDES, Claim, Column, Experiment, Row


def load(name: str) -> Experiment:
    """Reads `experiments/<name>.yaml`.

    Raises:
        ValueError: there is no such experiment; a key in its file is unknown or missing; a metric is computed from one
            that the table does not have; metrics of toy data are to go into several columns; columns are no
            places of a curve; a comparison, or a claim, is one of metrics or with rows that the table does not have.
    """
    if name not in catalogue.names("experiment"):
        unknown("experiment", name, catalogue.names("experiment"))
    path = catalogue.shipped("experiments") / f"{name}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        experiment = parsed(name, content)
        experiment.on(experiment.sources[-1])  # to look at the keys of its block `toy`
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected the keys of Experiment and Row, found {error}: correct the file") from None
    for shown, sources in experiment.computed.items():
        for source in sources:
            if source not in experiment.places:
                unknown(f"metric for {shown} in {path}", source, experiment.places)
    if "metrics" in experiment.toy and len(experiment.columns) > 1:
        raise ValueError(f"{path}: expected toy.metrics beside one protocol, found {len(experiment.columns)} columns")
    _require_curve(experiment, path)
    _require_fronts(experiment, path)
    _require_comparisons(experiment, path)
    _require_claims(experiment, path)
    return experiment


def parsed(name: str, content: Mapping[str, Any]) -> Experiment:
    """An experiment from what its file says.

    Raises:
        TypeError, KeyError: a key is unknown or missing.
    """
    content = dict(content)
    rows = [Row(**row) for row in content.pop("rows")]
    if "columns" in content:
        columns = {column: Column(**facts) for column, facts in content.pop("columns").items()}
    else:
        columns = {"": Column(content.pop("protocol"), content.pop("metrics"))}
    claims = [Claim(**claim) for claim in content.pop("claims", [])]
    found = Experiment(name=name, rows=rows, columns=columns, claims=claims, **content)
    if any(row.published for row in rows) and not (found.published and found.select and found.tolerance):
        raise TypeError("published rows without `published`, `select` and `tolerance`")
    return found


def costs_of(name: str) -> set[str]:
    """The keys of costs that an experiment's table shows, on any source; none where there is no such experiment."""
    if name not in catalogue.names("experiment"):
        return set()
    experiment = load(name)
    return {COSTS[shown][0] for source in experiment.sources for shown in experiment.on(source).costs}


def _require_curve(experiment: Experiment, path: Path) -> None:
    """Refuses a curve without words for its axis, or of columns that have no place on it or lack a metric of it."""
    if not experiment.curve:
        return
    if experiment.curve.keys() != {"x", "metrics"}:
        raise ValueError(
            f"{path}: expected the keys x and metrics of curve, found {', '.join(experiment.curve)}: correct"
        )
    for name, column in experiment.columns.items():
        if len(NUMBER.findall(name)) != 1:
            raise ValueError(
                f"{path}: expected one number in the name of each column of a curve, found {name!r}: rename"
            )
        for metric in experiment.curve["metrics"]:
            if metric not in column.metrics:
                unknown(f"metric of the column {name} for a curve in {path}", metric, column.metrics)


def _require_fronts(experiment: Experiment, path: Path) -> None:
    """Refuses fronts of anything but two metrics that the table, or each column of a curve, has."""
    known = [*experiment.metrics, *experiment.toy.get("metrics", {})]
    if experiment.curve:
        everywhere = (column.metrics.keys() for column in experiment.columns.values())
        known = sorted(set.intersection(*map(set, everywhere)))
    for front in experiment.fronts:
        if front.keys() != {"x", "y"}:
            raise ValueError(f"{path}: expected the keys x and y of each of fronts, found {', '.join(front)}: correct")
        for metric in front.values():
            if metric not in known:
                unknown(f"metric for fronts in {path}", metric, known)


def _require_comparisons(experiment: Experiment, path: Path) -> None:
    """Refuses comparisons of metrics, or with rows, that the table does not have."""
    judged, floors = experiment.judged, experiment.floors
    for floor in floors:
        if len(floor.keys() & SIDES.keys()) != 1 or floor.keys() - SIDES - {"spreads", "everywhere"} != {"of"}:
            raise ValueError(
                f"{path}: expected above or below, of and maybe spreads and everywhere in learned, found "
                f"{', '.join(floor)}: correct"
            )
    if judged and (judged.keys() - {"rows"} != {"metrics", "by"} or judged.get("rows", "all") != "all"):
        found = ", ".join(f"{key}={value}" if key == "rows" else key for key, value in judged.items())
        raise ValueError(f"{path}: expected the keys metrics and by of judged, maybe rows=all, found {found}: correct")
    known = [*experiment.metrics, *experiment.toy.get("metrics", {})]
    compared = {"judged": [*judged.get("metrics", []), *judged.get("by", [])]}
    compared["learned"] = [name for floor in floors for side in floor.keys() & SIDES.keys() for name in floor[side]]
    for key, wanted in compared.items():
        for name in wanted:
            if name not in known:
                unknown(f"metric for {key} in {path}", name, known)
    shown = {"costs": (experiment.costs, COSTS), "brief": (experiment.brief, [*known, *experiment.costs])}
    for key, (wanted, choices) in shown.items():
        for name in wanted:
            if name not in choices:
                unknown(f"name for {key} in {path}", name, choices)
    labels = [row.label for row in experiment.rows]
    if experiment.compared_with and experiment.compared_with not in labels:
        unknown(f"row for compared_with in {path}", experiment.compared_with, labels)
    for data in {row.data for row in experiment.rows}:
        references = [row.label for row in experiment.rows if row.data == data and row.reference]
        for label in (label for floor in floors for label in floor["of"]):
            if label not in references:
                unknown(f"row with `reference: true` on {data} for learned in {path}", label, references)


def _require_claims(experiment: Experiment, path: Path) -> None:
    """Refuses claims of rows, metrics, columns or data sets that the table does not have, or that compare nothing."""
    places = set(experiment.places.values())
    for claim in experiment.claims:
        wanted = [
            ("row", claim.rows, {row.label for row in experiment.rows}),
            ("data set", claim.data, {row.dataset for row in experiment.rows}),
            ("column", claim.columns, experiment.columns),
            (
                "metric",
                claim.metrics,
                {metric for _, metric in places if all((column, metric) in places for column in claim.columns)}
                if claim.columns
                else [*experiment.metrics, *experiment.toy.get("metrics", {})],
            ),
        ]
        for kind, names_of, known in wanted:
            for name in names_of:
                if name not in known:
                    unknown(f"{kind} for a claim in {path}", name, known)
        if len(claim.columns or claim.rows) < 2 or not claim.metrics:
            raise ValueError(f"{path}: expected a claim of two rows, or columns, and a metric, found {claim.text!r}")
