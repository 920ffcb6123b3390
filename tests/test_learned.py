"""Rows that did not learn: which are marked, where that is said, and what leaves them out."""

from dataclasses import replace

import pytest
import yaml
from rich.console import Console

from mmbench.core import catalogue
from mmbench.pipeline import tables
from mmbench.pipeline.cells import Cell, Value, Verdict, harmonic_mean, marked
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.lookup import row_config
from mmbench.pipeline.stages import known_stage, predecessors

FILE = """
citation: Nobody. 2026.
columns:
  center: {protocol: strict_inpainting, metrics: {L1: l1_in_mask, FID: fid@standard}}
  object: {protocol: strict_inpainting_object, metrics: {L1: l1_in_mask, SSIM: ssim_in_mask}}
gains: {L1 gain: [L1 center, L1 object]}
learned: {below: [L1 center, L1 object], of: [grey, mean]}
judged: {metrics: [FID], by: [L1 center, L1 object]}
sources: [toy]
seeds: [0, 1, 2]
rows:
  - {method: tdanet, data: cub, shown: {method: good, dataset: birds}}
  - {method: picnet, data: cub, shown: {method: half, dataset: birds}}
  - {method: csa, data: cub, shown: {method: bad, dataset: birds}}
  - {method: mean_colour, data: cub, reference: true, shown: {method: mean, dataset: birds}}
  - {method: grey_hole, data: cub, reference: true, shown: {method: grey, dataset: birds}}
  - {method: real, data: cub, reference: true, shown: {method: real, dataset: birds}}
"""
L1 = {"good": (0.1, 0.2), "half": (0.1, 0.45), "bad": (0.3, 0.5), "mean": (0.3, 0.4), "grey": (0.5, 0.35)}


@pytest.fixture
def holes(tmp_path, monkeypatch):
    """Makes the experiment `holes` of its file, with other keys laid over it."""
    shipped = catalogue.shipped
    monkeypatch.setattr(catalogue, "shipped", lambda name: tmp_path if "conf" not in name else shipped(name))

    def load_with(**change):
        (tmp_path / "holes.yaml").write_text(yaml.safe_dump({**yaml.safe_load(FILE), **change}))
        return load("holes")

    return load_with


def _value(*values):
    return Value(dict(enumerate(values)), sum(values) / len(values))


def _cell(method, metric, value, data="birds"):
    return Cell(method, data, (64, 64), len(value.by_seed), metric, None, value, Verdict.UNPUBLISHED)


def _cells(data="birds"):
    found = []
    for method, (center, other) in L1.items():
        values = {"L1 center": center, "FID": 10 * center, "L1 object": other, "SSIM": 0.5, "L1 gain": center - other}
        found += [_cell(method, metric, _value(value), data) for metric, value in values.items()]
    return found


def _reasons(cells, metric):
    return {cell.method: cell.unlearned for cell in cells if cell.metric == metric and cell.unlearned}


def test_a_row_has_to_beat_every_reference_row_in_each_column(holes):
    found = marked(holes(), _cells())
    center = "L1 center 0.3000 is not below the 0.3000 of mean"
    other = {name: f"L1 object {L1[name][1]:.4f} is not below the 0.3500 of grey" for name in ("half", "bad")}
    for metric in ("L1 center", "FID"):
        assert _reasons(found, metric) == {"bad": (center,)}
    for metric in ("L1 object", "SSIM"):
        assert _reasons(found, metric) == {name: (reason,) for name, reason in other.items()}
    assert _reasons(found, "L1 gain") == {"half": (other["half"],), "bad": (center, other["bad"])}
    assert marked(replace(holes(), learned={}), _cells()) == _cells()


def test_references_are_those_of_the_row_s_data_set(holes):
    flowers = [cell for cell in _cells("flowers") if cell.method not in ("mean", "grey")]
    found = marked(holes(), [*_cells(), *flowers])
    assert not any(cell.unlearned for cell in found if cell.data == "flowers"), "nothing there tells"
    lacking = [replace(cell, value=Value(reason="no file")) if cell.method == "grey" else cell for cell in _cells()]
    assert _reasons(marked(holes(), lacking), "SSIM") == {
        name: (f"L1 object {L1[name][1]:.4f} is not below the 0.4000 of mean",) for name in ("half", "bad")
    }


def test_a_value_within_spreads_of_the_reference_has_not_been_learned(holes):
    rule = {"above": ["L1 center"], "of": ["mean"], "spreads": 2}
    # The untrained row: 0.2 with a standard deviation of 0.1, so that 0.4 is the last value that is not above it.
    rows = {"mean": (0.1, 0.2, 0.3), "good": (0.5,), "half": (0.35,), "bad": (0.2, 0.5, 0.8)}
    found = marked(holes(learned=rule), [_cell(method, "L1 center", _value(*row)) for method, row in rows.items()])
    told = "is not above the 0.2000 of mean by more than 2 standard deviations over seeds"
    assert _reasons(found, "L1 center") == {
        "half": (f"L1 center 0.3500 {told} (0.2000)",),
        "bad": (f"L1 center 0.5000 {told} (0.6000)",),  # its own spread is the larger one
    }


def test_a_value_has_to_be_better_than_all_references_by_spreads(holes):
    rule = {"above": ["L1 center"], "of": ["grey", "mean"], "spreads": 2}
    # An untrained row that scores 0 in every seed, and one of chance: 0.3 in one seed. Deviations are 0.05 and 0.1.
    rows = {
        "grey": (0.0, 0.0, 0.0),
        "mean": (0.3,),
        "good": (0.4, 0.45, 0.5),
        "half": (0.4, 0.4),
        "bad": (0.1, 0.2, 0.3),
    }
    found = marked(holes(learned=rule), [_cell(method, "L1 center", _value(*row)) for method, row in rows.items()])
    told = "is not above the 0.3000 of mean by more than 2 standard deviations over seeds"
    # 0.45 > 0.3 + 2 * 0.05, 0.4 > 0.3 + 0; 0.2 is no more than 0 + 2 * 0.1 either, but chance is the better reference.
    assert _reasons(found, "L1 center") == {"bad": (f"L1 center 0.2000 {told} (0.2000)",)}


def test_without_several_seeds_a_value_has_to_be_better_alone(holes):
    rule = {"above": ["L1 center"], "of": ["mean"], "spreads": 2}
    rows = {"mean": (0.3,), "good": (0.301,), "bad": (0.3,)}
    found = marked(holes(learned=rule), [_cell(method, "L1 center", _value(*row)) for method, row in rows.items()])
    assert _reasons(found, "L1 center") == {
        "bad": ("L1 center 0.3000 is not above the 0.3000 of mean, whose standard deviations over seeds are not known",)
    }


def test_what_is_never_trained_has_nothing_to_learn(holes):
    rows = [
        *yaml.safe_load(FILE)["rows"],
        {"method": "telea", "data": "cub", "shown": {"method": "old", "dataset": "birds"}},
    ]
    cells = [*_cells(), _cell("old", "L1 center", _value(0.6)), _cell("old", "L1 object", _value(0.6))]
    assert _reasons(marked(holes(rows=rows), cells), "L1 center").keys() == {"bad"}


def test_marks_stand_in_every_form_and_are_explained_once(holes, monkeypatch, capsys):
    experiment = holes()
    found = marked(experiment, _cells())
    explained = (
        "‡: counts as not having learned, and is no part of comparisons: half on birds (L1 object 0.4500 is not below "
        "the 0.3500 of grey); bad on birds (L1 center 0.3000 is not below the 0.3000 of mean, L1 object 0.5000 is not "
        "below the 0.3500 of grey)."
    )
    assert tables.notes(found) == [explained]
    assert tables.notes(_cells()) == []
    page, glance = tables.document(experiment, "toy", [0], found), tables.summary(experiment, found)
    tables.show(found, "holes")
    printed = capsys.readouterr().out
    monkeypatch.setattr(tables, "Console", lambda: Console(force_terminal=True, width=400, color_system=None))
    tables.show(found, "holes")
    for text in (page, glance, printed, capsys.readouterr().out):
        assert text.count(explained) == 1
        assert {name for name in L1 if f" {name} ‡ " in text} == {"half", "bad"}
        assert all(f" {name} " in text for name in L1)
    latex = tables.rendered(found, "latex")
    assert latex.count(r"half \ensuremath{\ddagger} & birds") == 5
    assert r"\noindent \ensuremath{\ddagger}: counts as not having learned" in latex
    assert "half ‡" in tables.rendered(found, "csv")


def test_a_readme_shows_what_is_brief_and_a_page_everything(holes):
    experiment = holes(brief=["L1 center", "L1 gain"])
    head = tables.summary(experiment, _cells()).splitlines()[0]
    assert [name for name in ("L1 center", "L1 object", "SSIM", "L1 gain") if name in head] == ["L1 center", "L1 gain"]
    assert "SSIM" in tables.document(experiment, "toy", [0], _cells())


def test_what_did_not_learn_is_no_part_of_rank_correlations(holes):
    rows = {"a": (1, 5, 3), "b": (2, 6, 2), "c": (3, 7, 1), "good": (4, 1, 4), "half": (5, 9, 9), "mean": (9, 8, 0)}
    found = [
        _cell(method, metric, _value(value))
        for method, values in rows.items()
        for metric, value in zip(("FID", "L1 center", "L1 object"), values, strict=True)
    ]
    experiment = holes(learned={"below": ["L1 center"], "of": ["mean"]})
    # By hand: without half, which is not below the mean row, and without that row: (1 2 3 4) against (2 3 4 1)
    # and (3 2 1 4).
    (sentence,) = tables.agreements(experiment, marked(experiment, found))
    assert sentence.endswith(" of FID on birds: -0.20 with L1 center (4 methods), +0.20 with L1 object (4 methods).")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learned": {"below": ["L1 centre"], "of": ["mean"]}}, "expected a metric for learned .*did you mean L1 cent"),
        (
            {"learned": {"below": ["L1 center"], "of": ["good"]}},
            "expected a row with `reference: true` on cub .*good",
        ),
        ({"learned": {"below": ["SSIM"], "above": ["FID"], "of": []}}, "expected above or below, of .*, found .*above"),
        ({"learned": {"below": ["SSIM"]}}, "expected above or below, .* in learned, found below: "),
        (
            {"learned": {"below": ["SSIM"], "of": [], "spread": 2}},
            "expected above or below, .* found below, of, spread",
        ),
        ({"judged": {"metrics": ["IS"], "by": ["FID"]}}, "expected a metric for judged .*found 'IS'"),
        (
            {"judged": {"metric": "FID", "by": ["SSIM"]}},
            "expected the keys metrics and by of judged, maybe rows=all, found by, metric",
        ),
        ({"judged": {"metrics": ["FID"], "by": ["SSIM"], "rows": "some"}}, "of judged, maybe rows=all, .* rows=some: "),
        ({"learned": [{"below": ["SSIM"], "of": []}, {"below": ["MSE"], "of": []}]}, "expected a metric for learned"),
        ({"harmonic_means": {"both": ["SSIM", "MSE"]}}, "expected a metric for both .*found 'MSE'"),
    ],
)
def test_a_mistake_in_a_comparison_is_named(holes, change, said):
    with pytest.raises(ValueError, match=said):
        holes(**change)


def test_every_floor_counts_and_one_that_holds_everywhere_tells_of_all_columns(holes):
    center = {"below": ["L1 center"], "of": ["mean"]}
    floors = holes(learned=[center, {"below": ["L1 object"], "of": ["grey"], "everywhere": True}])
    found = marked(floors, _cells())
    center = "L1 center 0.3000 is not below the 0.3000 of mean"
    half, bad = (f"L1 object {value} is not below the 0.3500 of grey" for value in ("0.4500", "0.5000"))
    for metric in ("L1 center", "FID", "L1 gain"):
        assert _reasons(found, metric) == {"half": (half,), "bad": (center, bad)}
    for metric in ("L1 object", "SSIM"):
        assert _reasons(found, metric) == {"half": (half,), "bad": (bad,)}


def test_a_floor_of_a_gain_tells_of_both_columns_it_is_computed_from(holes):
    gain = holes(learned={"below": ["L1 gain"], "of": ["mean"]})
    found = marked(gain, [cell for cell in _cells() if cell.method != "good"] + _good_without_gain())
    for metric in ("SSIM", "FID", "L1 gain"):
        assert _reasons(found, metric) == {"good": ("L1 gain 0.2000 is not below the -0.1000 of mean",)}


def _good_without_gain():
    return [_cell("good", metric, _value(value)) for metric, value in (("SSIM", 0.5), ("FID", 1.0), ("L1 gain", 0.2))]


def test_metrics_are_judged_by_all_rows_where_the_experiment_says_so(holes):
    rows = {"a": (1, 5, 3), "b": (2, 6, 2), "good": (4, 1, 4), "half": (5, 9, 9), "mean": (9, 8, 0)}
    found = [
        _cell(method, metric, _value(value))
        for method, values in rows.items()
        for metric, value in zip(("FID", "L1 center", "L1 object"), values, strict=True)
    ]
    judged = {"metrics": ["FID"], "by": ["L1 center"], "rows": "all"}
    experiment = holes(learned={"below": ["L1 center"], "of": ["mean"]}, judged=judged)
    # By hand, half and the mean row among them: (1 2 3 4 5) against (2 3 1 5 4), squares 1 1 4 1 1, 1 - 6 * 8 / 120.
    (sentence,) = tables.agreements(experiment, marked(experiment, found))
    assert sentence.endswith(" of FID on birds: +0.60 with L1 center (5 rows).")


def test_harmonic_means_are_of_each_seed():
    both = harmonic_mean(_value(1.0, 0.5, 0.0), _value(0.5, 0.5, 1.0))
    assert both.by_seed == {0: pytest.approx(2 / 3), 1: 0.5, 2: 0.0}
    assert both.mean == pytest.approx(7 / 18)
    assert harmonic_mean(_value(0.5), Value(reason="no file")) == Value(reason="no file")
    apart = harmonic_mean(Value({0: 1.0}, 1.0), Value({1: 0.5}, 0.5))
    assert (apart.by_seed, apart.mean) == ({}, pytest.approx(2 / 3)), "of the means, where no seed has both"


def test_a_harmonic_mean_is_a_metric_of_the_table(holes):
    experiment = holes(harmonic_means={"both": ["SSIM", "FID"]}, judged={"metrics": ["both"], "by": ["SSIM"]})
    assert experiment.metrics[-2:] == ["L1 gain", "both"]


def test_manipulation_is_learned_where_it_edits_and_reconstructs():
    experiment = load("manipulation_toy")
    assert [floor["everywhere"] for floor in experiment.floors] == [True, True]
    assert experiment.judged["rows"] == "all"
    assert sum(not row.reference for row in experiment.rows) == 9


def test_a_row_s_own_words_reach_its_configuration_and_a_command_line_outweighs_them():
    experiment = load("manipulation_toy").on("toy")
    rows = {row.label: row for row in experiment.rows}

    def shown(label, *words):
        protocol = experiment.protocol_of("MP", "cub")
        return row_config(experiment, rows[label], protocol, "toy", 0, ["trainer=cpu", *words])

    alone, before = shown("ManiGAN w/o DCM"), predecessors(shown("ManiGAN"))["main"]
    assert alone["data"]["module"]["image_size"] == 32
    assert alone["method"]["training"]["epochs"] == 132
    assert known_stage(before, "").key == known_stage(alone, "").key, "trained once for both rows"
    assert shown("ManiGAN w/o DCM", "method.training.epochs=1")["method"]["training"]["epochs"] == 1


def test_inpainting_is_learned_where_it_beats_a_flat_colour():
    experiment = load("inpainting_hole")
    assert {row.label for row in experiment.rows if row.reference} == {"mean colour", "grey hole"}
    assert experiment.learned == {"below": ["L1 center", "L1 object"], "of": ["mean colour"]}
