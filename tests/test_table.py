"""Records, verdicts and tables."""

import json
from dataclasses import replace

import pytest

from mmbench.core import results
from mmbench.core.results import Result
from mmbench.pipeline import tables
from mmbench.pipeline.experiments import Experiment, Published, Row, load

ROW = Row("identity", "cub", {"method": "Identity", "variant": "full", "dataset": "CUB"})
EXPERIMENT = Experiment(
    name="x",
    citation="Nobody. 2026.",
    published="manipulation",
    select={},
    protocol="manigan",
    metrics={"IS": {"cub": "is@inception-cub", "coco": "is@standard"}, "diff": "diff", "MP": "mp@damsm"},
    tolerance={"relative": 0.03, "absolute": {"MP": 0.001}},
    rows=[ROW],
)


def _printed(text, verified=True, uncertainty=None):
    return Published(float(text), text, uncertainty, higher_is_better=True, verified=verified, protocol="")


def test_a_published_spread_widens_the_tolerance():
    for uncertainty, verdict in ((None, "differs"), (0.2, "differs"), (0.5, "reproduced")):
        cells = tables._judged(EXPERIMENT, "IS", _printed("8.47", uncertainty=uncertainty), [9.4], "", "real")
        assert cells["verdict"] == verdict
    assert cells["published"] == "8.47 ± 0.5"


@pytest.mark.parametrize(
    ("text", "ours", "verdict"),
    [
        ("8.47", 8.70, "reproduced"),  # 3 % of 8.47 is 0.254
        ("8.47", 8.73, "differs"),
        ("8.47", 5.22, "differs"),
        ("0.000", 0.0, "reproduced"),
    ],
)
def test_a_value_within_tolerance_is_reproduced(text, ours, verdict):
    assert tables._judged(EXPERIMENT, "IS", _printed(text), [ours], "", "real")["verdict"] == verdict


def test_truncated_printing_is_within_the_absolute_tolerance():
    # MP is printed truncated: 0.0729 appears as 0.072.
    cells = tables._judged(EXPERIMENT, "MP", _printed("0.072"), [0.0729], "", "real")
    assert (cells["reproduced"], cells["difference"], cells["verdict"]) == ("0.073", "+0.001", "reproduced")


def test_a_recalled_value_is_shown_as_unverified_and_not_judged():
    cells = tables._judged(EXPERIMENT, "IS", _printed("8.47", verified=False), [1.0], "", "real")
    assert (cells["published"], cells["verdict"]) == ("8.47 (unverified)", "unverified")


def test_toy_data_are_never_compared_with_a_paper():
    cells = tables._judged(EXPERIMENT, "IS", _printed("8.47"), [8.47], "", "toy")
    assert (cells["difference"], cells["verdict"]) == ("-", "toy data")


def test_without_a_record_the_reason_is_the_verdict():
    cells = tables._judged(EXPERIMENT, "IS", _printed("8.47"), [], "no file", "real")
    assert (cells["reproduced"], cells["verdict"]) == ("-", "not run (no file)")


def test_seeds_are_averaged_with_their_spread():
    cells = tables._judged(EXPERIMENT, "IS", _printed("2.00"), [1.9, 2.0, 2.1], "", "real")
    assert cells["reproduced"] == "2.000 ± 0.100 (3 seeds)"


def test_metric_names_follow_data_set_and_source():
    assert EXPERIMENT.metric("IS", ROW, "real") == "is@inception-cub"
    assert EXPERIMENT.metric("IS", Row("identity", "coco", {}), "real") == "is@standard"
    assert EXPERIMENT.metric("IS", ROW, "toy") == "is@toy"
    assert EXPERIMENT.metric("diff", ROW, "toy") == "diff"


def _record(**changes):
    fields = {
        "experiment": "x",
        "row": {"method": "identity", "data": "cub", "source": "toy"},
        "seed": 0,
        "protocol": {"name": "manigan", "hash": "h"},
        "metrics": {"diff": {"value": 0.0, "std": 0.0, "count": 1, "weights": None}},
        "run_key": "k" * 64,
        "config_hash": "c",
        "weights": {},
        "data": {},
        "config": {},
    }
    return Result(**{**fields, **changes})


def test_records_are_appended_and_the_newest_of_the_current_key_counts(tmp_path):
    for date, key in (("2026-01-01T00:00:00+00:00", "old"), ("2026-01-03", "new"), ("2026-01-02", "new")):
        _record(date=date, run_key=key).write(tmp_path)
    assert len(list((tmp_path / "x").glob("*.json"))) == 3
    assert results.newest(tmp_path, "x", run_key="new").date == "2026-01-03"
    assert results.newest(tmp_path, "x", run_key="other") is None
    assert results.newest(tmp_path, "y", run_key="new") is None


def test_a_record_knows_where_it_came_from(tmp_path):
    path = _record().write(tmp_path)
    content = json.loads(path.read_text())
    assert len(content["commit"].rstrip("+")) in (40, len("unknown"))
    assert content["versions"]["torch"].startswith("2.")
    assert content["device"].startswith("cpu") or content["device"]


def test_a_damaged_record_is_named(tmp_path):
    path = _record().write(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match=f"{path.name}: expected a record"):
        results.read(tmp_path, "x")


@pytest.mark.parametrize("form", tables.FORMATS)
def test_every_format_holds_every_cell(form):
    cells = {column: f"{column} 50%" for column in tables.COLUMNS}
    text = tables.rendered([cells], form)
    for value in cells.values():
        assert value in text.replace("\\%", "%")


def test_a_method_that_does_not_exist_yet_is_not_run(tmp_path):
    experiment = load("manigan")
    row = Row("sculptor", "cub", {"method": "Sculptor", "dataset": "CUB"})
    paths = {"results": str(tmp_path), "assets": str(tmp_path)}
    first, *others = tables.lines(experiment, "toy", [0], [], paths, {}, [row])
    assert first["verdict"] == "not run (method sculptor is not part of this version of mmbench)"
    assert {line["verdict"] for line in others} == {"not run (as for IS)"}


def test_a_page_names_no_folder_of_its_maker(tmp_path):
    experiment = load("manigan")
    reason = f"expected {tmp_path}/home/data/cub, found none"
    paths = {"results": str(tmp_path), "assets": f"{tmp_path}/home"}
    cells = tables.lines(experiment, "real", [0], [], paths, {("ManiGAN", "cub"): reason}, [experiment.rows[6]])
    assert cells[0]["verdict"] == "not run (expected $MMBENCH_HOME/data/cub, found none)"


def test_tables_go_between_the_marks_of_a_readme(tmp_path):
    readme = tmp_path / "README.md"
    marks = {name: [mark.format(name) for mark in tables.MARKS] for name in ("tables", "x-toy")}
    readme.write_text("before\n" + "\nbetween\n".join(f"{first}\nold\n{last}" for first, last in marks.values()))
    verdicts = [{"verdict": "reproduced"}, {"verdict": "not run (no file)"}]
    summary = tables.summarised({tmp_path / "results/tables/x.md": verdicts}, tmp_path)
    assert tables.update_readme(readme, {"tables": summary, "x-toy": "of x", "y": "of y"}) == ["tables", "x-toy"]
    text = readme.read_text()
    assert text.startswith("before\n")
    assert "\nbetween\n" in text
    assert text.endswith(f"{marks['x-toy'][0]}\nof x\n{marks['x-toy'][1]}")
    assert "old" not in text
    assert "of y" not in text
    assert "| [x](results/tables/x.md) | 2        | 1            |" in text
    readme.write_text("no marks")
    assert tables.update_readme(readme, {"tables": summary}) == []
    assert readme.read_text() == "no marks"


def _cells(values, data="toy"):
    return [
        {
            "method": method,
            "data": data,
            "size": "64 x 64",
            "seeds": "3",
            "metric": metric,
            "reproduced": f"{value:.2f} (3 seeds)",
        }
        | {"value": value}
        for method, found in values.items()
        for metric, value in found.items()
    ]


def test_a_judged_metric_is_ranked_beside_the_truth():
    experiment = replace(EXPERIMENT, judged={"metric": "MP", "by": ["truth", "kept"]})
    ranked = {"a": (0.1, 1, 9), "b": (0.2, 2, 7), "c": (0.4, 3, 8), "d": (0.5, 40, 2)}
    cells = _cells({name: dict(zip(("MP", "truth", "kept"), row, strict=True)) for name, row in ranked.items()})
    (sentence,) = tables.agreements(experiment, cells)
    # By hand: the same order is +1; ranks (1 2 3 4) against (4 2 3 1) are 1 - 6 * 18 / 60 = -0.8.
    assert sentence == (
        "Rank correlation (Spearman) of MP on toy: +1.00 with truth (4 methods), -0.80 with kept (4 methods)."
    )
    assert tables.agreements(experiment, cells[:6]) == []  # two methods have no ranks worth a number
    assert tables.agreements(EXPERIMENT, cells) == []
    missing = [cell for cell in cells if cell["metric"] != "MP"] + [{**cells[0], "data": "other"}]
    assert tables.agreements(experiment, missing) == []


def test_a_glance_is_one_line_for_each_method_and_data_set():
    cells = _cells({"a": {"sim": 0.1, "diff": 0.2}, "b": {"sim": 0.3}}) + _cells({"a": {"sim": 0.5}}, "other")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables.glance(cells).splitlines()]
    assert lines[0] == ["method", "data", "size", "seeds", "sim", "diff"]
    assert lines[2:] == [
        ["a", "toy", "64 x 64", "3", "0.10", "0.20"],
        ["b", "toy", "64 x 64", "3", "0.30", ""],
        ["a", "other", "64 x 64", "3", "0.50", ""],
    ]


def test_toy_data_have_more_seeds_and_the_truth_beside_the_published_metrics():
    real, toy = (load("manigan").on(source) for source in ("real", "toy"))
    assert real.seeds == [0]
    assert toy.seeds == [0, 1, 2]
    assert list(toy.metrics)[: len(real.metrics)] == list(real.metrics)
    assert {"edit accuracy", "preservation"} <= toy.metrics.keys() - real.metrics.keys()
    found = {row.data: row.seeds_of(toy.seeds) for row in toy.rows}
    assert found == {"cub": [0, 1, 2], "coco": [0]}
    with pytest.raises(ValueError, match=r"expected a data\.source of experiment demo, found 'real'"):
        load("demo").on("real")


def test_the_size_of_the_scored_images_is_printed(tmp_path, monkeypatch):
    score = {"value": 0.5, "std": None, "count": 1, "weights": None}
    for sizes, printed in (([[], [64, 48]], "64 x 48"), ([[]], "-")):
        records = [_record(metrics={"diff": score}, weights={"verified": True}, size=size) for size in sizes]
        monkeypatch.setattr(tables, "records_of", lambda *_, found=records: (found, ""))
        paths = {"results": str(tmp_path), "assets": str(tmp_path)}
        cells = tables.lines(EXPERIMENT, "toy", [0], [], paths, {}, [ROW])
        assert {cell["size"] for cell in cells} == {printed}


@pytest.mark.parametrize(("verified", "marked"), [([True, True], False), ([True, False], True)])
def test_weights_whose_hash_nobody_published_are_marked(tmp_path, monkeypatch, verified, marked):
    score = {"value": 0.5, "std": None, "count": 1, "weights": None}
    records = [_record(metrics={"diff": score}, weights={"verified": known}) for known in verified]
    monkeypatch.setattr(tables, "records_of", lambda *_: (records, ""))
    cells = tables.lines(EXPERIMENT, "toy", [0, 1], [], {"results": str(tmp_path), "assets": str(tmp_path)}, {}, [ROW])
    (line,) = [line for line in cells if line["metric"] == "diff"]
    assert line["reproduced"].startswith("0.500")
    assert line["reproduced"].endswith(" *") == marked
    assert [line["reproduced"] for line in cells if line["metric"] == "IS"] == ["-"]
    assert "hash nobody published" in tables.LEGEND
