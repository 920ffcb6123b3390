"""Curves: metrics of a table whose columns are places on an axis, against that axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from mmbench.pipeline import tables
from mmbench.pipeline.cells import Cell
from mmbench.pipeline.experiments import Experiment
from mmbench.pipeline.grid import write_figure

STYLES = ("-", "--", ":", "-.")  # of families of columns
MARKERS = "os^vDPX*"  # of methods, in turn, so that colour is not all that tells them apart


@dataclass(frozen=True)
class Curve:
    """A metric of one method on one data set, along one family of columns.

    Attributes:
        data, metric, method, family: what it is of.
        x: places, from small to large; those without a value are left out.
        mean: of the seeds, at each place.
        spread: the standard deviation over the seeds; NaN where there are fewer than two.
    """

    data: str
    metric: str
    method: str
    family: str
    x: list[float]
    mean: list[float]
    spread: list[float]


def curves_of(experiment: Experiment, cells: Sequence[Cell]) -> list[Curve]:
    """The curves of a table, in the order of its rows; a method without any value has none."""
    found = {(cell.data, cell.method, cell.metric): cell for cell in cells if cell.value.mean is not None}
    shown = {place: name for name, place in experiment.places.items()}
    curves = []
    for data, method in dict.fromkeys((cell.data, cell.method) for cell in cells):
        for metric in experiment.curve["metrics"]:
            for family, columns in experiment.families.items():
                places = {
                    x: found[key]
                    for x, column in columns.items()
                    if (key := (data, method, shown[column, metric])) in found
                }
                if places:
                    means = [cell.value.mean for cell in places.values()]
                    spreads = [float("nan") if cell.spread is None else cell.spread for cell in places.values()]
                    curves.append(Curve(data, metric, method, family, list(places), means, spreads))
    return curves


def write(page: Path, experiment: Experiment, cells: Sequence[Cell]) -> Path | None:
    """Writes the figure beside a page: a row for each metric, a column for each data set, a colour for each method.

    Families of columns have styles of line; a band is the standard deviation over several seeds. Behind a method with
    outdated values stands the mark that they have in the table.

    Returns:
        where it lies; None where there is no value to show.
    """
    curves = curves_of(experiment, cells)
    if not curves:
        return None
    metrics, data = list(experiment.curve["metrics"]), list(dict.fromkeys(curve.data for curve in curves))
    size = (4.2 * len(data) + 1.8, 3.0 * len(metrics) + 0.2)
    figure, axes = plt.subplots(len(metrics), len(data), figsize=size, squeeze=False, layout="constrained", sharex=True)
    # Of all rows, so that a method keeps its colour when others are run.
    methods = list(dict.fromkeys(cell.method for cell in cells))
    looks = {method: {"color": f"C{n % 10}", "marker": MARKERS[n % len(MARKERS)]} for n, method in enumerate(methods)}
    styles = {family: STYLES[n % len(STYLES)] for n, family in enumerate(experiment.families)}
    for curve in curves:
        axis = axes[metrics.index(curve.metric)][data.index(curve.data)]
        _draw(axis, curve, linestyle=styles[curve.family], **looks[curve.method])
    for axis, name in zip(axes[0], data, strict=True):
        axis.set_title(name, fontsize=9)
    for row, metric in zip(axes, metrics, strict=True):
        row[0].set_ylabel(experiment.curve["metrics"][metric], fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel(experiment.curve["x"], fontsize=8)
    figure.legend(handles=_legend(cells, curves, looks, styles), loc="outside right center", fontsize=8)
    write_figure(tables.figure(page), figure)
    return tables.figure(page)


def _legend(
    cells: Sequence[Cell],
    curves: Sequence[Curve],
    looks: Mapping[str, Mapping[str, str]],
    styles: Mapping[str, str],
) -> list[Line2D]:
    """The methods that have a curve, by colour, and the families, where there are several, by style."""
    drawn, marks = {curve.method for curve in curves}, tables.daggers(cells)
    outdated = {cell.method: f" {marks[cell.value.outdated]}" for cell in cells if cell.value.outdated}
    methods = [
        Line2D([], [], label=name + outdated.get(name, ""), linestyle="", **look)
        for name, look in looks.items()
        if name in drawn
    ]
    families = [Line2D([], [], label=name, color="black", linestyle=style) for name, style in styles.items()]
    return methods + (families if len(families) > 1 else [])


def _draw(axis: Axes, curve: Curve, color: str, **look: str) -> None:
    axis.plot(curve.x, curve.mean, color=color, linewidth=1.2, markersize=4, **look)
    mean, spread = np.array(curve.mean), np.array(curve.spread)
    axis.fill_between(curve.x, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)
    axis.grid(alpha=0.3)
    axis.tick_params(labelsize=8)
