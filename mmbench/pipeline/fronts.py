"""Fronts: two metrics against each other, and the rows, or places of a curve, that no other beats in both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from mmbench.pipeline.cells import Cell, takes_part
from mmbench.pipeline.experiments import Experiment
from mmbench.pipeline.grid import write_figure
from mmbench.pipeline.sampled import directions
from mmbench.statistics.fronts import on_front

# Okabe and Ito's colours, which are told apart by colour-blind people, and markers, of another number, in turn.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = "os^vDPX*<"
ASIDE = {"markerfacecolor": "none"}  # of what is no part of the front


@dataclass(frozen=True)
class Point:
    """A row, or a place of it on a curve, in two metrics.

    Attributes:
        data, method: of the row.
        place: of the column on the axis of a curve, and `family` what else its name says; None and "" of a row.
        x, y: means over seeds.
        seeds: x and y of each seed that has both.
        compared: whether it can be on the front: references, rows that did not learn and outdated
            values cannot.
        on_front: whether it is: no other that can beats it in one metric without being worse in the other.
    """

    data: str
    method: str
    place: float | None
    family: str
    x: float
    y: float
    seeds: tuple[tuple[float, float], ...]
    compared: bool
    on_front: bool = False


def points_of(experiment: Experiment, cells: Sequence[Cell], front: Mapping[str, str]) -> list[Point]:
    """The points of one front, in the order of the table; on each data set those that are on it know so.

    Args:
        front: {"x", "y"}: metrics, of a curve those that each of its columns has.
    """
    found = {(cell.data, cell.method, cell.metric): cell for cell in cells if cell.value.mean is not None}
    points = []
    for data, method in dict.fromkeys((cell.data, cell.method) for cell in cells):
        for place, family, x, y in _places(experiment, front):
            if (data, method, x) in found and (data, method, y) in found:
                one, other = found[data, method, x], found[data, method, y]
                compared = takes_part(experiment, one) and takes_part(experiment, other)
                points.append(_point(one, other, place, family, compared))
    if not points:
        return []
    done = dict(enumerate(points))
    signs = np.array(_signs(experiment, cells, front))
    for data in dict.fromkeys(point.data for point in points):
        chosen = [index for index, point in done.items() if point.data == data and point.compared]
        if chosen:
            kept = on_front(signs * [(done[index].x, done[index].y) for index in chosen])
            done |= {index: replace(done[index], on_front=bool(one)) for index, one in zip(chosen, kept, strict=True)}
    return list(done.values())


def _places(experiment: Experiment, front: Mapping[str, str]) -> list[tuple[float | None, str, str, str]]:
    """Place, family, and the two metrics as the table shows them, of each point that a row has."""
    if not experiment.curve:
        return [(None, "", front["x"], front["y"])]
    shown = {place: name for name, place in experiment.places.items()}
    return [
        (place, family, shown[column, front["x"]], shown[column, front["y"]])
        for family, columns in experiment.families.items()
        for place, column in columns.items()
    ]


def _point(one: Cell, other: Cell, place: float | None, family: str, compared: bool) -> Point:
    seeds = [seed for seed in one.value.by_seed if seed in other.value.by_seed]
    pairs = tuple((one.value.by_seed[seed], other.value.by_seed[seed]) for seed in seeds)
    assert one.value.mean is not None
    assert other.value.mean is not None
    return Point(one.data, one.method, place, family, one.value.mean, other.value.mean, pairs, compared)


def _signs(experiment: Experiment, cells: Sequence[Cell], front: Mapping[str, str]) -> list[int]:
    """1 where higher is better, -1 where lower is, of both metrics.

    Raises:
        ValueError: nobody says it of one of them.
    """
    known, found = directions(experiment, cells), []
    for metric in (front["x"], front["y"]):
        names = [name for name, (_, published) in experiment.places.items() if metric in (name, published)]
        signs = {known[name] for name in [*names, metric] if name in known}
        if len(signs) != 1:
            raise ValueError(
                f"expected metrics with a direction for fronts of {experiment.name}, found {metric}: leave it"
            )
        found.append(signs.pop())
    return found


def figure(page: Path) -> Path:
    """Where the fronts of an experiment lie, beside its page."""
    return page.with_name(f"{page.stem}-fronts.png")


def link(page: Path) -> str:
    """The figure in Markdown, for the page."""
    return f"![fronts]({figure(page).name})"


def write(page: Path, experiment: Experiment, cells: Sequence[Cell]) -> Path | None:
    """Writes the figure beside a page: a row for each front, a column for each data set, a look for each method.

    Small points are seeds, large ones their means; those that no other beats are joined. Hollow ones bound the
    others or did not learn, and are no part of a front. Arrows say where the better values of an axis lie.

    Returns:
        where it lies; None where there is no point to show.
    """
    fronts = [points_of(experiment, cells, front) for front in experiment.fronts]
    data = list(dict.fromkeys(point.data for points in fronts for point in points))
    if not data:
        return None
    methods = list(dict.fromkeys(cell.method for cell in cells))
    looks = {
        method: {"color": COLOURS[n % len(COLOURS)], "marker": MARKERS[n % len(MARKERS)]}
        for n, method in enumerate(methods)
    }
    size = (4.4 * len(data) + 2.2, 3.8 * len(fronts))
    figure_, axes = plt.subplots(len(fronts), len(data), figsize=size, squeeze=False, layout="constrained")
    for row, (front, points) in zip(axes, zip(experiment.fronts, fronts, strict=True), strict=True):
        for axis, name in zip(row, data, strict=True):
            _draw(axis, [point for point in points if point.data == name], looks)
            _label(axis, front, _signs(experiment, cells, front))
            axis.set_title(name, fontsize=9)
    figure_.legend(handles=_legend(fronts, looks), loc="outside right center", fontsize=8)
    write_figure(figure(page), figure_)
    return figure(page)


def _draw(axis: Axes, points: Sequence[Point], looks: Mapping[str, Mapping[str, str]]) -> None:
    joined = sorted({(point.x, point.y) for point in points if point.on_front})
    axis.plot(*zip(*joined, strict=True), color="0.25", linewidth=1.4, zorder=1) if joined else None
    lines: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        look = {**looks[point.method], **({} if point.compared else ASIDE)}
        axis.plot(point.x, point.y, linestyle="", markersize=8 if point.on_front else 6, zorder=3, **look)
        if len(point.seeds) > 1:
            axis.plot(*zip(*point.seeds, strict=True), linestyle="", markersize=3, alpha=0.5, zorder=2, **look)
        if point.place is not None:
            lines.setdefault((point.method, point.family), []).append(point)
            axis.annotate(f"{point.place:g}", (point.x, point.y), (4, 4), textcoords="offset points", fontsize=6)
    for (method, _), ones in lines.items():
        way = [(point.x, point.y) for point in ones]
        axis.plot(*zip(*way, strict=True), color=looks[method]["color"], linewidth=0.8, linestyle=":", zorder=1)
    axis.grid(alpha=0.3)
    axis.tick_params(labelsize=8)


def _label(axis: Axes, front: Mapping[str, str], signs: Sequence[int]) -> None:
    told = {1: "higher is better →", -1: "← lower is better"}  # turned with the axis
    axis.set_xlabel(f"{front['x']}   ({told[signs[0]]})", fontsize=8)
    axis.set_ylabel(f"{front['y']}   ({told[signs[1]]})", fontsize=8)


def _legend(fronts: Sequence[Sequence[Point]], looks: Mapping[str, Mapping[str, str]]) -> list[Line2D]:
    """The methods that have a point, by their look, and what the line is."""
    drawn = dict.fromkeys(point.method for points in fronts for point in points)
    filled = {point.method for points in fronts for point in points if point.compared}
    found = [
        Line2D([], [], label=name, linestyle="", **{**looks[name], **({} if name in filled else ASIDE)})
        for name in drawn
    ]
    return [*found, Line2D([], [], label="no other is better in both", color="0.25", linewidth=1.4)]
