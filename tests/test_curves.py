"""Curves: a table whose columns are places on an axis, drawn along it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.colors import to_hex
from PIL import Image

from mmbench.commands import reproduce, table
from mmbench.core import catalogue
from mmbench.pipeline import curves, experiment_files, tables
from mmbench.pipeline.cells import Cell, Value, Verdict

FILE = """
citation: Nobody. 2026.
columns:
  strokes 30 %:
    protocol: strict_inpainting_irregular protocol.mask.area=0.3
    metrics: &inside {L1: l1_in_mask, PSNR: psnr_in_mask}
  rectangle 30 %:
    protocol: strict_inpainting_area protocol.mask.area=0.3
    metrics: *inside
  rectangle 7.5 %:
    protocol: strict_inpainting_area protocol.mask.area=0.075
    metrics: *inside
curve: {x: "area, %", metrics: {L1: "L1, levels"}}
sources: [toy]
rows:
  - {method: grey_hole, data: cub, shown: {method: Grey, dataset: birds}}
  - {method: mean_colour, data: cub, shown: {method: Mean, dataset: birds}}
  - {method: grey_hole, data: coco, shown: {method: Grey, dataset: scenes}}
"""
STROKES, LARGE, SMALL = "L1 strokes 30 %", "L1 rectangle 30 %", "L1 rectangle 7.5 %"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes the experiment `areas` with some keys changed, and loads it."""
    shipped = catalogue.shipped
    monkeypatch.setattr(catalogue, "shipped", lambda name: tmp_path if "conf" not in name else shipped(name))

    def write(**changes):
        (tmp_path / "areas.yaml").write_text(yaml.safe_dump({**yaml.safe_load(FILE), **changes}, sort_keys=False))
        return experiment_files.load("areas")

    return write


def cell(method, data, metric, *values, outdated=""):
    mean = sum(values) / len(values) if values else None
    value = Value(dict(enumerate(values)), mean, outdated=outdated)
    return Cell(method, data, None, len(values), metric, None, value, Verdict.UNPUBLISHED)


CELLS = [
    cell("Grey", "birds", STROKES, 9.0),
    cell("Grey", "birds", LARGE, 6.0, 8.0),
    cell("Grey", "birds", SMALL, 4.0),
    cell("Grey", "birds", "PSNR rectangle 30 %", 20.0),
    cell("Mean", "birds", STROKES),
    cell("Mean", "birds", LARGE),
    cell("Mean", "birds", SMALL),
    cell("Grey", "scenes", STROKES),
    cell("Grey", "scenes", LARGE, 5.0),
    cell("Grey", "scenes", SMALL),
]


def test_columns_are_places_of_families_by_the_numbers_in_their_names(written):
    assert written().families == {
        "strokes": {30: "strokes 30 %"},
        "rectangle": {7.5: "rectangle 7.5 %", 30: "rectangle 30 %"},
    }
    assert list(written().families["rectangle"]) == [7.5, 30], "from small to large, whatever the table's order"
    columns = {f"{steps} steps": {"protocol": "strict", "metrics": {"L1": "l1"}} for steps in (50, 4)}
    assert written(columns=columns).families == {"steps": {4: "4 steps", 50: "50 steps"}}


def test_the_places_of_the_shipped_curve_are_the_areas_of_its_holes():
    experiment = experiment_files.load("inpainting_area")
    assert set(experiment.families) == {"rectangle", "strokes"}
    for family, places in experiment.families.items():
        protocol = {"rectangle": "strict_inpainting_area", "strokes": "strict_inpainting_irregular"}[family]
        assert list(places) == [5, 10, 20, 30, 40, 50]
        for percent, column in places.items():
            name, _, area = experiment.columns[column].protocol.partition(" protocol.mask.area=")
            assert name == protocol
            assert float(area) == pytest.approx(percent / 100)


def test_a_curve_has_the_mean_and_spread_of_each_place_that_has_a_value(written):
    found = curves.curves_of(written(), CELLS)
    assert [(curve.data, curve.method, curve.family) for curve in found] == [
        ("birds", "Grey", "strokes"),
        ("birds", "Grey", "rectangle"),
        ("scenes", "Grey", "rectangle"),
    ]
    assert {curve.metric for curve in found} == {"L1"}, "of the table's two metrics"
    assert found[1].x == [7.5, 30]
    assert found[1].mean == [4, 7]
    assert np.isnan(found[1].spread[0]), "one seed"
    assert found[1].spread[1] == pytest.approx(2**0.5)
    assert (found[2].x, found[2].mean) == ([30], [5])


def test_methods_have_colours_families_styles_and_seeds_a_band(written, monkeypatch):
    drawn = []
    monkeypatch.setattr(curves, "write_figure", lambda path, figure: drawn.append((path, figure)))
    experiment = written(curve={"x": "area, %", "metrics": {"L1": "L1, levels", "PSNR": "PSNR, dB"}})
    more = [cell("Mean", "birds", LARGE, 3.0, outdated="old"), cell("Mean", "birds", SMALL, 1.0, 2.0)]
    cells = [one for one in CELLS if (one.method, one.metric) not in {(new.method, new.metric) for new in more}] + more
    assert curves.write(Path("a/areas-toy.md"), experiment, cells) == Path("a/areas-toy-curve.png")
    ((path, figure),) = drawn
    assert path == Path("a/areas-toy-curve.png")
    grey, scenes, psnr, _ = figure.axes
    looks = {(line.get_linestyle(), to_hex(line.get_color())) for line in grey.lines}
    assert len(grey.lines) == 3
    assert len(looks) == 3
    assert {style for style, _ in looks} == {"-", "--"}
    assert len({colour for _, colour in looks}) == 2, "of two methods"
    assert to_hex(scenes.lines[0].get_color()) == to_hex(grey.lines[0].get_color())
    assert (grey.get_title(), scenes.get_title()) == ("birds", "scenes")
    assert (grey.get_ylabel(), psnr.get_ylabel(), psnr.get_xlabel()) == ("L1, levels", "PSNR, dB", "area, %")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Grey", "Mean †", "strokes", "rectangle"]
    band = np.concatenate([path.vertices for band in grey.collections[1:2] for path in band.get_paths()])
    assert band[:, 1].min() == pytest.approx(7 - 2**0.5)
    assert band[:, 1].max() == pytest.approx(7 + 2**0.5)


def test_a_page_shows_its_curve_where_there_is_a_value(written, tmp_path):
    experiment, page = written(), tmp_path / "areas-toy.md"
    empty = [replace(one, value=Value()) for one in CELLS]
    assert curves.write(page, experiment, empty) is None
    assert "curve" not in tables.document(experiment, "toy", [0], empty)
    path = curves.write(page, experiment, CELLS)
    assert f"![curve]({path.name})" in tables.document(experiment, "toy", [0], CELLS)
    assert Image.open(path).format == "PNG"
    other = tables.document(experiment, "toy", [0, 1], CELLS)
    assert "![curve](areas-toy-seeds-0-1-curve.png)" in other, "beside its own page"
    assert "![curve]" not in tables.document(replace(experiment, curve={}), "toy", [0], CELLS)


def test_both_commands_write_the_curve(written, home, capsys):
    columns = yaml.safe_load(FILE)["columns"]
    columns = {"rectangle 30 %": columns["rectangle 30 %"]}
    written(columns=columns, rows=[{"method": "grey_hole", "data": "cub", "shown": {"method": "Grey"}}])
    words = ["experiment=areas", "data.source=toy", "trainer=cpu", "data.toy_images=40", "protocol.count=3"]
    said = "curve: results/tables/areas-toy-curve.png"
    assert reproduce.main(words) == 0
    assert said in capsys.readouterr().out
    (path,) = Path("results/tables").glob("*-curve.png")
    path.unlink()
    assert table.main(words) == 0
    assert said in capsys.readouterr().out
    assert f"![curve]({path.name})" in path.with_name("areas-toy.md").read_text()
    path.unlink()
    assert table.main([*words, "format=csv"]) == 0
    assert "curve:" not in capsys.readouterr().out
    assert path.is_file()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"curve": {"x": "area"}}, "expected the keys x and metrics of curve, found x: correct"),
        ({"curve": {"x": "area", "metrics": {"L2": "L2"}}}, "metric of the column strokes 30 % for a curve in .*'L2'"),
        ({"columns": {"centre": {"protocol": "strict", "metrics": {"L1": "l1"}}}}, "one number .*, found 'centre': re"),
        (
            {"columns": {"5 of 10": {"protocol": "strict", "metrics": {"L1": "l1"}}}},
            "expected one number in the name of each",
        ),
    ],
)
def test_a_mistake_in_a_curve_is_named(written, change, said):
    with pytest.raises(ValueError, match=said):
        written(**change)
