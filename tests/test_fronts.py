"""Pareto fronts, and their pictures."""

import numpy as np
import pytest
from planted import CONFIG, CONTENT, experiment

from mmbench.core.images import read_rgb
from mmbench.core.results import Result
from mmbench.pipeline import experiment_files, fronts
from mmbench.pipeline.cells import Cell, Value, Verdict
from mmbench.statistics.fronts import on_front


@pytest.mark.parametrize("respects", [1, 2, 3])
def test_a_front_is_what_a_search_of_all_pairs_finds(respects):
    points = np.random.default_rng(respects).integers(0, 6, (60, respects)).astype(float)  # with ties, and equal ones
    for point, kept in zip(points, on_front(points), strict=True):
        dominated = any(all(other >= point) and any(other > point) for other in points)
        assert kept == (not dominated)


def test_of_one_respect_the_front_is_the_best_and_equal_points_share_it():
    assert on_front(np.array([[1.0], [3.0], [3.0]])).tolist() == [False, True, True]
    assert on_front(np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [0.4, 0.4]])).tolist() == [True, True, True, False]


def _cells(rows, **more):
    """Cells of rows by their names: metric to the values of its seeds; lower is better of diff."""
    table = experiment(*rows, **more)
    config = {
        "protocol": {"metrics": {**CONFIG["protocol"]["metrics"], "sim": {"_target_": "mmbench.metrics.sim.Sim"}}}
    }
    record = Result("x", {}, 0, {}, {}, "k", "c", {"verified": True}, {}, config)
    found = []
    for name, metrics in rows.items():
        for metric, values in metrics.items():
            by_seed = dict(enumerate(values))
            ours = "diff" if metric.startswith("diff") else "sim@toy"
            value = Value(by_seed, float(np.mean(values)), name=ours, records={0: record})
            found.append(Cell(name, "birds", None, 2, metric, None, value, Verdict.UNPUBLISHED))
    return table, found


ROWS = {
    "cheap": {"diff": [1, 3], "sim": [1, 1]},
    "good": {"diff": [4, 6], "sim": [8, 8]},
    "worse": {"diff": [6, 6], "sim": [7, 7]},
    "reference": {"diff": [0, 0], "sim": [9, 9]},
}


def test_rows_that_no_other_beats_in_both_metrics_are_on_the_front():
    table, found = _cells(ROWS)
    points = {point.method: point for point in fronts.points_of(table, found, {"x": "diff", "y": "sim"})}
    assert {name for name, point in points.items() if point.on_front} == {"cheap", "good"}
    assert not points["reference"].compared, "it bounds the others"
    assert (points["good"].x, points["good"].y, points["good"].seeds) == (5, 8, ((4, 8), (6, 8)))


def test_of_a_curve_places_of_all_methods_are_on_one_front():
    columns = {
        f"guidance {n}": {"protocol": "manigan", "metrics": {"diff": "diff", "sim": "sim@standard"}} for n in (1, 4)
    }
    told = {name: item for name, item in CONTENT.items() if name not in ("protocol", "metrics")}
    rows = {
        "a": {"diff guidance 1": [1], "sim guidance 1": [1], "diff guidance 4": [5], "sim guidance 4": [4]},
        "b": {"diff guidance 1": [2], "sim guidance 1": [0], "diff guidance 4": [4], "sim guidance 4": [9]},
    }
    more = {**told, "columns": columns, "curve": {"x": "scale", "metrics": {"diff": "d"}}}
    table, found = _cells(rows, **more)
    points = fronts.points_of(table, found, {"x": "diff", "y": "sim"})
    assert [(point.method, point.place) for point in points if point.on_front] == [("a", 1), ("b", 4)]


def test_the_figure_lies_beside_its_page_and_none_is_drawn_of_nothing(tmp_path):
    table, found = _cells(ROWS, fronts=[{"x": "diff", "y": "sim"}])
    path = fronts.write(tmp_path / "x.md", table, found)
    assert path == tmp_path / "x-fronts.png"
    assert read_rgb(path).shape[0] == 3
    assert fronts.link(tmp_path / "x.md") == "![fronts](x-fronts.png)"
    assert fronts.write(tmp_path / "y.md", table, []) is None


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ([{"x": "diff"}], "expected the keys x and y of each of fronts, found x"),
        ([{"x": "diff", "y": "simm"}], "expected a metric for fronts in .*found 'simm': did you mean sim"),
    ],
)
def test_a_mistake_about_fronts_is_named(told, said):
    with pytest.raises(ValueError, match=said):
        experiment_files._require_fronts(experiment("a", fronts=told), "x.yaml")
