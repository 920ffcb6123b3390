"""Records, verdicts and tables."""

import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from mmbench.commands import table
from mmbench.core import results
from mmbench.core.results import Result
from mmbench.pipeline import cells, tables
from mmbench.pipeline.cells import Cell, Value, Verdict, cells_of, verdict
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.experiments import Column, Experiment, Row
from mmbench.pipeline.lookup import Found
from mmbench.pipeline.publications import Published, allowed_deviation

ROW = Row("identity", "cub", {"method": "Identity", "variant": "full", "dataset": "CUB"})
EXPERIMENT = Experiment(
    name="x",
    citation="Nobody. 2026.",
    published="manipulation",
    select={},
    columns={
        "": Column(
            "manigan", {"IS": {"cub": "is@inception-cub", "coco": "is@standard"}, "diff": "diff", "MP": "mp@damsm"}
        )
    },
    tolerance={"relative": 0.03, "absolute": {"MP": 0.001}},
    rows=[ROW],
)


def _printed(text, verified=True, uncertainty=None):
    return Published(float(text), text, uncertainty, higher_is_better=True, verified=verified, protocol="")


def _value(*values, **facts):
    return Value(dict(enumerate(values)), statistics.fmean(values) if values else None, **facts)


def _cell(metric, printed, value, source="real", **facts):
    """A cell, judged as those of `EXPERIMENT` are."""
    allowed = allowed_deviation(EXPERIMENT, metric, {metric: printed}) if printed else 0.0
    judged = verdict(value, printed, allowed, is_toy=source == "toy")
    common = {"method": "Identity", "data": "CUB", "size": (64, 64), "seeds": len(value.by_seed)}
    return Cell(**{**common, **facts}, metric=metric, published=printed, value=value, verdict=judged)


def _text(*cell, **facts):
    (line,) = tables.texts([_cell(*cell, **facts)])
    return line


def test_a_published_spread_widens_the_tolerance():
    for uncertainty, judged in ((None, "differs"), (0.2, "differs"), (0.5, "reproduced")):
        line = _text("IS", _printed("8.47", uncertainty=uncertainty), _value(9.4))
        assert line["verdict"] == judged
    assert line["published"] == "8.47 ± 0.5"


@pytest.mark.parametrize(
    ("text", "ours", "judged"),
    [
        ("8.47", 8.70, "reproduced"),  # 3 % of 8.47 is 0.254
        ("8.47", 8.73, "differs"),
        ("8.47", 5.22, "differs"),
        ("0.000", 0.0, "reproduced"),
    ],
)
def test_a_value_within_tolerance_is_reproduced(text, ours, judged):
    assert _cell("IS", _printed(text), _value(ours)).verdict == judged


def test_truncated_printing_is_within_the_absolute_tolerance():
    # MP is printed truncated: 0.0729 appears as 0.072.
    line = _text("MP", _printed("0.072"), _value(0.0729))
    assert (line["reproduced"], line["difference"], line["verdict"]) == ("0.073", "+0.001", "reproduced")


def test_a_recalled_value_is_shown_as_unverified_and_not_judged():
    line = _text("IS", _printed("8.47", verified=False), _value(1.0))
    assert (line["published"], line["verdict"]) == ("8.47 (unverified)", "unverified")


def test_toy_data_are_never_compared_with_a_paper():
    line = _text("IS", _printed("8.47"), _value(8.47), "toy")
    assert (line["difference"], line["verdict"]) == ("-", "toy data")


def test_without_a_record_the_reason_is_the_verdict():
    cell = _cell("IS", _printed("8.47"), _value(reason="no file"))
    assert (cell.verdict, cell.value.mean, cell.spread, cell.difference) == (Verdict.NOT_RUN, None, None, None)
    first, second = tables.texts([cell, replace(cell, metric="MP")])
    assert (first["reproduced"], first["verdict"]) == ("-", "not run (no file)")
    assert second["verdict"] == "not run (as for IS)"


def test_seeds_are_averaged_with_their_spread():
    cell = _cell("IS", _printed("2.00"), _value(1.9, 2.0, 2.1))
    assert cell.value.by_seed == {0: 1.9, 1: 2.0, 2: 2.1}
    assert cell.spread == pytest.approx(0.1)
    assert tables.texts([cell])[0]["reproduced"] == "2.000 ± 0.100 (3 seeds)"


def test_values_over_fewer_images_than_were_made_say_over_how_many():
    """As where a metric judges in holes, and a mask has none."""
    metrics = {
        name: {"value": 1.0, "std": 0.0, "count": count, "weights": None} for name, count in (("l1", 240), ("is", 250))
    }
    records = {0: _record(metrics=metrics, coverage={"count": 250})}
    some, all_ = (replace(_value(1.0), name=name, records=records) for name in ("l1", "is"))
    cells = [
        _cell("L1", None, some),
        _cell("LPIPS", None, some),
        _cell("IS", None, all_),
        _cell("F", None, _value(1.0)),
    ]
    told = "Over 240 of 250 images of CUB, which have what is judged: L1, LPIPS."
    assert [line for line in tables.notes(cells) if "which have" in line] == [told]


def test_metric_names_follow_data_set_and_source():
    assert EXPERIMENT.metric("IS", ROW, "real") == "is@inception-cub"
    assert EXPERIMENT.metric("IS", Row("identity", "coco", {"method": "Identity"}), "real") == "is@standard"
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
        "weights": {"verified": True},
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


@pytest.mark.parametrize("form", [form for form in table.FORMATS if form != "latex"])  # see test_latex.py
def test_every_format_holds_every_cell(form, monkeypatch):
    line = {column: f"{column} 50%" for column in tables.COLUMNS}
    monkeypatch.setattr(tables, "texts", lambda *_: [line])
    text = tables.rendered([_cell("IS", None, Value(), Verdict.NOT_RUN)], form)
    for value in line.values():
        assert value in text.replace("\\%", "%")


def test_a_method_that_does_not_exist_yet_is_not_run(tmp_path):
    row = Row("sculptor", "cub", {"method": "Sculptor", "dataset": "CUB"})
    found = cells_of(load("manigan"), "toy", [0], [], {"assets": str(tmp_path)}, {}, [row])
    first, *others = tables.texts(found)
    assert first["verdict"] == "not run (method sculptor is not part of this version of mmbench)"
    assert {line["verdict"] for line in others} == {"not run (as for IS)"}


def test_a_page_names_no_folder_of_its_maker(tmp_path):
    experiment = load("manigan")
    reasons = {("ManiGAN", "cub", "manigan"): f"expected {tmp_path}/home/data/cub, found none"}
    paths = {"assets": f"{tmp_path}/home"}
    found = cells_of(experiment, "real", [0], [], paths, {}, [experiment.rows[6]], reasons)
    assert found[0].value.reason == "expected $MMBENCH_HOME/data/cub, found none"


def test_tables_go_between_the_marks_of_a_readme(tmp_path):
    readme = tmp_path / "README.md"
    marks = {name: [mark.format(name) for mark in tables.MARKS] for name in ("tables", "x-toy")}
    readme.write_text("before\n" + "\nbetween\n".join(f"{first}\nold\n{last}" for first, last in marks.values()))
    judged = [_cell("IS", _printed("2.0"), _value(2.0)), _cell("MP", _printed("2.0"), _value(reason="no file"))]
    summary = tables.summarised({tmp_path / "results/tables/x.md": judged}, tmp_path)
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
        _cell(metric, None, _value(value, value, value), method=method, data=data)
        for method, found in values.items()
        for metric, value in found.items()
    ]


def test_a_judged_metric_is_ranked_beside_the_truth():
    experiment = replace(EXPERIMENT, judged={"metrics": ["MP", "kept"], "by": ["truth", "kept"]})
    ranked = {"a": (0.1, 1, 9), "b": (0.2, 2, 7), "c": (0.4, 3, 8), "d": (0.5, 40, 2)}
    found = _cells({name: dict(zip(("MP", "truth", "kept"), row, strict=True)) for name, row in ranked.items()})
    # By hand: the same order is +1; ranks (1 2 3 4) against (4 2 3 1) are 1 - 6 * 18 / 60 = -0.8.
    assert tables.agreements(experiment, found) == [
        "Rank correlation (Spearman) of MP on toy: +1.00 with truth (4 methods), -0.80 with kept (4 methods).",
        "Rank correlation (Spearman) of kept on toy: -0.80 with truth (4 methods), +1.00 with kept (4 methods).",
    ]
    rows = [Row("real", "cub", shown={"method": "d", "dataset": "toy"}, reference=True)]
    bounded = replace(experiment, judged={"metrics": ["MP"], "by": ["kept"]}, rows=rows)
    # Without the reference row: (1 2 3) against (3 1 2).
    assert tables.agreements(bounded, found) == [
        "Rank correlation (Spearman) of MP on toy: -0.50 with kept (3 methods)."
    ]
    unlearned = [replace(cell, unlearned=("why",)) if cell.method == "c" else cell for cell in found]
    assert "-1.00 with kept (3 methods)" in tables.agreements(experiment, unlearned)[0]
    assert tables.agreements(experiment, found[:6]) == []  # two methods have no ranks worth a number
    assert tables.agreements(EXPERIMENT, found) == []
    missing = [cell for cell in found if cell.metric != "MP"] + [replace(found[0], data="other")]
    assert not any("of MP" in sentence for sentence in tables.agreements(experiment, missing))


def test_a_glance_is_one_line_for_each_method_and_data_set():
    found = _cells({"a": {"sim": 0.1, "diff": 0.2}, "b": {"sim": 0.3}}) + _cells({"a": {"sim": 0.5}}, "other")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables.glance(found).splitlines()]
    assert lines[0] == ["method", "data", "size", "seeds", "sim", "diff"]
    assert lines[2:] == [
        ["a", "toy", "64 x 64", "3", "0.1000 ± 0.0000", "0.2000 ± 0.0000"],
        ["b", "toy", "64 x 64", "3", "0.3000 ± 0.0000", ""],
        ["a", "other", "64 x 64", "3", "0.5000 ± 0.0000", ""],
    ]


def test_toy_data_have_more_seeds_and_the_truth_beside_the_published_metrics():
    real, toy = (load("manigan").on(source) for source in ("real", "toy"))
    assert real.seeds == [0]
    assert toy.seeds == [0, 1, 2]
    assert toy.metrics[: len(real.metrics)] == real.metrics
    assert {"edit accuracy", "preservation"} <= set(toy.metrics) - set(real.metrics)
    found = {row.data: row.seeds_of(toy.seeds) for row in toy.rows}
    assert found == {"cub": [0, 1, 2], "coco": [0]}
    with pytest.raises(ValueError, match=r"expected a data\.source of experiment demo, found 'real'"):
        load("demo").on("real")


PAGE = Path("here/results/tables/x.md").absolute()
SCORE = {"value": 0.5, "std": None, "count": 1, "weights": None}


def _rows(monkeypatch, records, seeds=(0,)):
    """The cells of `EXPERIMENT`'s row where these are its records."""
    monkeypatch.setattr(cells, "records_of", lambda *_: {"manigan": Found(records)})
    return cells_of(EXPERIMENT, "toy", list(seeds), [], {"assets": "home"}, {}, [ROW])


def test_the_size_of_the_scored_images_is_printed(monkeypatch):
    for sizes, printed in (([[], [64, 48]], "64 x 48"), ([[]], "-")):
        records = [
            _record(metrics={"diff": SCORE}, weights={"verified": True}, size=size, seed=seed)
            for seed, size in enumerate(sizes)
        ]
        assert {line["size"] for line in tables.texts(_rows(monkeypatch, records))} == {printed}


@pytest.mark.parametrize(("verified", "marked"), [([True, True], False), ([True, False], True)])
def test_weights_whose_hash_nobody_published_are_marked(monkeypatch, verified, marked):
    records = [
        _record(metrics={"diff": SCORE}, weights={"verified": known}, seed=seed) for seed, known in enumerate(verified)
    ]
    found = _rows(monkeypatch, records, (0, 1))
    lines = {line["metric"]: line for line in tables.texts(found)}
    assert lines["diff"]["reproduced"] == "0.5000 ± 0.0000 (2 seeds)" + (" *" if marked else "")
    assert ("0.5000 ± 0.0000 *" in tables.glance(found)) == marked
    assert lines["IS"]["reproduced"] == "-"
    assert lines["IS"]["verdict"] == "not run (is@toy is not among the metrics of protocol manigan)"
    assert "hash nobody published" in tables.LEGEND


def test_an_outdated_value_is_shown_with_its_reason_and_not_judged(monkeypatch):
    reason = "trained through an older toy VGG"
    records = [_record(metrics={"diff": SCORE}, weights={"verified": True}, outdated=reason)]
    found = [
        *_rows(monkeypatch, records),
        _cell("MP", _printed("0.500"), _value(0.5, outdated="scored before a mend"), method="Other"),
        _cell("MP", _printed("0.500"), _value(0.5), method="Other yet"),
    ]
    lines = {(line["method"], line["metric"]): line for line in tables.texts(found)}
    old, older, kept = lines["Identity", "diff"], lines["Other", "MP"], lines["Other yet", "MP"]
    assert (old["reproduced"], old["difference"], old["verdict"]) == ("0.5000 †", "-", "outdated")
    assert (older["reproduced"], older["difference"], older["verdict"]) == ("0.500 ††", "-", "outdated")
    assert (kept["reproduced"], kept["verdict"]) == ("0.500", "reproduced")
    assert tables.notes(found) == [f"†: {reason}", "††: scored before a mend"]
    page = tables.document(EXPERIMENT, "toy", [0], found)
    assert page.count("0.5000 †") == page.count("0.500 ††") == 2, "at a glance and in the table"
    assert (
        page.index("outdated") < page.index(f"\n†: {reason}\n") < page.index("††: scored") < page.index(tables.LEGEND)
    )
    assert f"†: {reason}" in tables.summary(EXPERIMENT, found)
    counted = tables.summarised({PAGE: found}, PAGE.parents[2])
    assert [line.split("|")[-2].strip() for line in counted.splitlines()][::2] == ["outdated", "2"]


def test_a_record_is_up_to_date_unless_it_says_otherwise(tmp_path):
    path = _record().write(tmp_path)
    content = json.loads(path.read_text())
    assert content.pop("outdated") == ""
    del content["sha256"]
    path.write_text(json.dumps(content))  # as those written before there were such words
    assert [record.outdated for record in results.read(tmp_path, "x")] == [""]
    path.write_text(json.dumps({**content, "outdated": "why"}))
    assert [record.outdated for record in results.by_configuration(tmp_path, "x").values()] == ["why"]
