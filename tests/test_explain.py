"""`mmbench explain`: every step is scored, and the steps add up to the difference."""

from functools import cache
from itertools import pairwise

import pytest

from mmbench.commands import explain
from mmbench.core import config, results
from mmbench.pipeline import evaluation, explaining, generation, rows
from mmbench.pipeline.explaining import Side

WORDS = ["method=real", "data=cub", "data.source=toy", "data.toy_images=80", "trainer=cpu"]
FEWER = """# The first of the test images, in two splits
defaults:
  - strict
  - _self_
name: fewer
count: 12
metrics:
  is: {splits: 2}
toy:
  name: fewer-toy
"""


@pytest.fixture(autouse=True)
def without_a_grid(monkeypatch):
    """Nothing here is about the picture of samples, which takes longer than all the rest."""
    monkeypatch.setattr(evaluation.grid, "write_grid", lambda path, cells, titles: None)


@cache  # composing takes longer than drawing and scoring twenty toy images
def composed(protocol, *words):
    common = WORDS[1:] if any(word.startswith("method=") for word in words) else WORDS
    return config.composed([*common, f"protocol={protocol}", *words])


def side(protocol, metric, *words):
    return Side(composed(protocol, *words), metric)


def scored(protocol, *words):
    record, _ = evaluation.evaluate(composed(protocol, *words))
    return {name: score["value"] for name, score in record.metrics.items()}


def check(frame, before, after):
    """Steps follow one another, from what a plain evaluation gives under one protocol to that under the other."""
    *steps, total = frame.to_dict("records")
    assert steps[0]["before"] == pytest.approx(before, rel=1e-12)
    assert steps[-1]["after"] == pytest.approx(after, rel=1e-12)
    for one, next_one in pairwise(steps):
        assert one["after"] == next_one["before"]
    assert sum(step["contribution"] for step in steps) == pytest.approx(total["contribution"], abs=1e-9)
    assert total["contribution"] == pytest.approx(after - before, abs=1e-9)
    return {step["step"]: step["contribution"] for step in steps}


def test_count_and_splits_of_the_inception_score_are_told_apart(conf):
    (conf.folder / "protocol/fewer.yaml").write_text(FEWER)
    frame = explaining.explained(side("strict", "is"), side("fewer", "is"))
    parts = check(frame, scored("strict")["is@toy"], scored("fewer")["is@toy"])
    assert list(parts) == ["count of images", "is: splits"]
    assert parts["is: splits"] > 0 > parts["count of images"]  # larger splits raise the score, fewer images lower it


def test_manigans_protocol_against_the_strict_one(home):
    frame = explaining.explained(side("strict", "diff"), side("manigan", "diff"))
    parts = check(frame, scored("strict")["diff"], scored("manigan")["diff"])
    assert list(parts) == ["resize", "captions of each image", "partial batch", "rounding"]
    # One image of another bird for all five captions: their number cannot change how far it is from the input.
    assert parts["captions of each image"] == pytest.approx(0, abs=1e-12)
    assert parts["resize"] != 0 != parts["rounding"]


def test_psnr_in_colour_against_tdanets_in_grey(home):
    words = ["method=grey_hole", "+metric@protocol.metrics.psnr=psnr", "protocol.count=12"]
    frame = explaining.explained(side("tdanet_centre", "psnr", *words), side("tdanet_centre", "tdanet_psnr", *words))
    record = scored("tdanet_centre", *words)
    parts = check(frame, record["psnr"], record["tdanet_psnr"])
    assert list(parts) == ["best of k", "grey"]
    assert parts["best of k"] >= 0  # the best is no worse than the only one


def test_between_two_tasks_all_that_the_data_module_is_told_changes_in_order():
    first, second = side("strict", "psnr"), side("tdanet_centre", "tdanet_psnr")
    found = list(explaining.steps(first, second))
    assert [step.what for step in found] == [
        *("resize", "view of the data set", "mask", "rounding", "known pixels put back", "best of k", "grey"),
    ]
    modules = [explaining.under(first.plain, step.protocol)["data"]["evaluation"] for step in found]
    assert modules[-1] == second.plain["data"]["evaluation"]
    assert [module.get("bird_crop", True) for module in modules[:2]] == [True, False]
    last = {
        key: value for key, value in found[-1].protocol.items() if key not in ("name", "task", "metrics", "extractors")
    }
    assert last == {key: second.protocol[key] for key in last}


def test_a_record_is_explained_with_its_own_images(conf, home, monkeypatch, capsys):
    (conf.folder / "protocol/fewer.yaml").write_text(FEWER)
    value = scored("strict")["lpips@toy"]
    (record,) = (home / "results/real").glob("*.json")
    before = {image: image.stat().st_mtime_ns for image in home.rglob("samples/**/*.png")}
    assert len(before) == 20
    monkeypatch.setattr(generation, "trainer_of", lambda *_, **__: pytest.fail("drew an image again"))
    assert explain.main([f"record={record}", "against=fewer", "metric=lpips", "trainer=cpu"]) == 0
    printed = capsys.readouterr().out
    assert f"{value:.6g}" in printed
    assert "| count of images |" in " ".join(printed.split())
    assert all(image.stat().st_mtime_ns == stamp for image, stamp in before.items())


def test_a_published_number_is_explained_as_far_as_the_card_goes(home, capsys):
    words = ["method=identity", *WORDS[1:]]
    assert explain.main(["record=manigan", "against=published", "experiment=demo", "metric=diff", *words]) == 0
    printed = capsys.readouterr().out
    assert "diff of identity: published 0.000" in printed
    assert "| rounding " in printed
    assert "not explained by protocol: +0 (0.0000 - 0)" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["record=strict"], "expected against=RECORD.json or against=PROTOCOL, found none"),
        (["record=strikt", "against=manigan", *WORDS], "expected a protocol, found 'strikt': did you mean strict"),
        (["record=strict", "against=tdanet_centre", *WORDS], "expected a metric that both protocols have, found none"),
        (["record=strict", "against=manigan", "metric=psnr", *WORDS], "expected a metric of manigan-toy, found 'psnr'"),
        (["record=nowhere.json", "against=strict"], "nowhere.json: expected a record of this version"),
        (["record=strict", "against=published", *WORDS], "expected experiment=NAME with against=published"),
        (
            ["record=strict", "against=published", "experiment=manigan", *WORDS],
            "expected a row of manigan for real on cub, found none",
        ),
    ],
)
def test_what_cannot_be_explained_is_said_in_one_line(words, message, home):
    with pytest.raises(ValueError, match="expected") as error:
        explain.main(words)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_records_of_different_rows_are_no_matter_of_protocol(home):
    scored("strict")
    evaluation.evaluate(config.composed(["method=identity", *WORDS[1:], "protocol.count=12"]))
    paths = [next((home / "results" / name).glob("*.json")) for name in ("real", "identity")]
    assert len(results.read(home / "results", "real")) == 1
    with pytest.raises(ValueError, match="expected two records of one row"):
        explain.main([f"record={paths[0]}", f"against={paths[1]}"])
    other = results.read_record(paths[0])
    other.config["method"]["module"]["_target_"] = "mmbench.methods.reference.Other"
    other.write("", paths[0])
    with pytest.raises(ValueError, match=f"{paths[0]}: expected the method as this version composes it, found another"):
        explain.main([f"record={paths[0]}", "against=manigan"])


def test_a_record_is_composed_at_its_own_scale(home, tmp_path):
    words = ["method=tagan", "data.source=toy", "data.toy_images=40", "weights=none", "scale=tiny"]
    plain = config.composed(words)
    row = {"method": "tagan", "data": "cub", "source": "toy"}
    record = results.Result("x", row, 0, {}, {}, "", "", {"verified": True}, {}, rows.described(plain))
    composed, found = explain._side(str(record.write(tmp_path)), [])
    assert explaining.as_recorded(composed, found, "x")["scale"] == "tiny"
