"""Tables by group of images."""

from dataclasses import replace
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from planted import experiment, samples, stand_in

from mmbench.commands import table
from mmbench.core import config
from mmbench.core.noise import Sample
from mmbench.pipeline import assembly, cells, grouping, tables
from mmbench.pipeline.comparing import Images
from mmbench.pipeline.grouping import Gap, Group, Lacking, Part, groups

WORDS = ["method=manigan", "data.source=toy", "data.toy_images=40", "trainer=cpu"]
NAMES = ("a", "birds", "diff")


def parts(by_seed, found, names, least, sign):
    """The parts of a cell that is a mean."""
    members = grouping.split(found)
    of_groups = {
        group: Images({seed: {one: values[one] for one in ones} for seed, values in by_seed.items()})
        for group, ones in members.items()
    }
    done = grouping.parts(of_groups, names, least, sign)
    return grouping.with_intervals(done, [*of_groups.values()])


def test_means_of_groups_are_those_of_pandas():
    rng = np.random.default_rng(0)
    keys = [Sample(f"i{place // 4}", place % 2, place // 2 % 2) for place in range(80)]  # 20 images of 4 samples
    found = {sample: (Group(place, f"g{place}"),) for sample, place in zip(keys, rng.integers(0, 4, 80), strict=True)}
    by_seed = {seed: {sample: float(rng.normal()) for sample in keys} for seed in (0, 3)}
    lines = [
        {"seed": seed, "group": found[sample][0].name, "image": sample.id, "value": value}
        for seed, one in by_seed.items()
        for sample, value in one.items()
    ]
    frame = pd.DataFrame(lines)
    means = frame.groupby(["group", "seed"]).value.mean().unstack()
    done = parts(by_seed, found, NAMES, 5, 1)
    assert {part.group.name: part.mean for part in done} == pytest.approx(means.mean(axis=1).to_dict())
    assert {part.group.name: part.spread for part in done} == pytest.approx(means.std(axis=1).to_dict())
    assert {part.group.name: part.images for part in done} == frame.groupby("group").image.nunique().to_dict()


@pytest.mark.parametrize(("sign", "best", "worst"), [(1, "c", "b"), (-1, "b", "c"), (0, None, None)])
def test_the_worst_group_is_by_the_metric_s_direction_and_never_a_small_one(sign, best, worst):
    values = samples([0, 0, 5, 5, 7, 7, 99, -99])
    names = "bbxxccyz"
    found = {sample: (Group(ord(name), name),) for sample, name in zip(values, names, strict=True)}
    done = {part.group.name: part for part in parts({0: values}, found, NAMES, 2, sign)}
    assert {part.standing: name for name, part in done.items() if part.standing not in ("", "few")} == (
        {"best": best, "worst": worst} if best else {}
    )
    assert done["y"].standing == done["z"].standing == "few", "shown, and never the worst"
    gaps = {NAMES: Gap(7.0, (5.0, 9.0), 0.0004)} if best else {}
    (line,) = grouping.summary(list(done.values()), gaps, {NAMES: 1.0}, ())
    assert line["gap"] == ("7.0000 [5.0000, 9.0000]" if best else "-")
    assert line["more than chance"] == ("yes, p < 0.001" if best else "-")


def test_no_group_is_the_best_or_the_worst_where_all_print_alike():
    values = samples([0.2, 0.2, 0.2 + 1e-6, 0.2, 0.9])
    found = {sample: (Group(ord(name), name),) for sample, name in zip(values, "bbccx", strict=True)}
    done = parts({0: values}, found, NAMES, 2, 1)
    assert [part.standing for part in done] == ["", "", "few"]
    (line,) = grouping.summary(done, {}, {NAMES: 1.0}, ())
    assert (line["best"], line["worst"], line["gap"], line["more than chance"]) == ("-", "-", "-", "-")


def test_groups_of_a_gap_that_may_be_chance_are_not_marked_and_rows_that_did_not_learn_are():
    ends = {"best": 0.9, "worst": 0.1}
    done = [
        Part(method, "birds", "diff", Group(mean, end), 20, mean, None, end, (mean - 0.05, mean + 0.05))
        for method in "ab"
        for end, mean in ends.items()
    ]
    gaps = {("a", "birds", "diff"): Gap(0.8, (0.7, 0.9), 0.01), ("b", "birds", "diff"): Gap(0.8, (0, 1.6), 0.2)}
    (lines,) = grouping.crossed(done, gaps, {("b", "birds")}).values()
    assert [line["a"] for line in lines] == ["0.1000 [0.0500, 0.1500] (worst)", "0.9000 [0.8500, 0.9500] (best)"]
    assert [line[f"b {tables.UNLEARNED}"] for line in lines] == ["0.1000 [0.0500, 0.1500]", "0.9000 [0.8500, 0.9500]"]
    summary = grouping.summary(done, gaps, {}, {("b", "birds")})
    assert [line["method"] for line in summary] == ["a", f"b {tables.UNLEARNED}"]
    assert [line["more than chance"] for line in summary] == ["yes, p = 0.010", "not shown, p = 0.200"]
    listed = grouping.lines(done, gaps, {("b", "birds")})
    assert [line["gap p adjusted"] for line in listed] == ["0.01", "0.01", "0.2", "0.2"]


def test_intervals_of_groups_are_those_of_their_images():
    rng = np.random.default_rng(0)
    values = samples(rng.normal(size=60))
    found = {sample: (Group(place % 2, "ab"[place % 2]),) for place, sample in enumerate(values)}
    for part, one in zip(parts({0: values}, found, NAMES, 2, 1), "ab", strict=True):
        of_group = [value for sample, value in values.items() if found[sample][0].name == one]
        low, high = part.interval
        assert low < np.mean(of_group) < high
        assert high - low == pytest.approx(4 * np.std(of_group) / 30**0.5, rel=0.15)


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """The configuration of a row on toy birds, its data, and a sample of each test image."""
    home = tmp_path_factory.mktemp("birds")
    plain = config.composed([*WORDS, f"paths.assets={home}"])
    data = assembly.prepared_data(plain, evaluation=True)
    return plain, data, data.samples("test", captions_per_image=2)


def test_groups_are_what_the_data_set_says_of_its_images(birds):
    plain, data, keys = birds
    texts = data.texts("test", keys, plain["protocol"]["seed"])["caption_mismatched"]  # what an edit is to follow
    named = groups("attribute", plain, keys)
    for sample, text in zip(keys, texts, strict=True):
        for group in named[sample]:
            assert group.name.split()[-1] in text, "the colour of the part is in the text"
    lengths = groups("caption_length", plain, keys)
    for sample, text in zip(keys, texts, strict=True):
        low, high = (int(word) for word in lengths[sample][0].name.split() if word.isdecimal())
        assert low <= len(text.split()) <= high


def test_a_class_is_called_by_its_folder_where_that_is_its_own():
    make = grouping.KINDS["class"][1]
    items = [{"id": f"{name}/{place}", "class_id": number} for place, (name, number) in enumerate(["a1", "b2", "a1"])]
    assert make([{**item, "class_id": int(item["class_id"])} for item in items], "caption") == [
        (Group(1, "a"),), (Group(2, "b"),), (Group(1, "a"),),
    ]  # fmt: skip
    alike = [{"id": f"jpg/{place}", "class_id": place % 2} for place in range(3)]
    assert [group.name for (group,) in make(alike, "caption")] == ["class 0", "class 1", "class 0"]


def test_holes_are_grouped_by_their_area(tmp_path, birds):
    words = ["data.source=toy", "data.toy_images=40", "method=telea", f"paths.assets={birds[0]['paths']['assets']}"]
    plain = config.composed([*words, "protocol=strict_inpainting_area", "protocol.mask.area=0.2"])
    keys = birds[1].samples("test")
    assert {group.name for found in groups("mask_area", plain, keys).values() for group in found} <= {
        "hole 10 to 20 %", "hole 20 to 30 %",
    }  # fmt: skip


def test_objects_are_counted(tmp_path):
    words = ["data=coco", "data.source=toy", "data.toy_images=40", "method=manigan", f"paths.assets={tmp_path}"]
    plain = config.composed(words)
    data = assembly.prepared_data(plain, evaluation=True)
    keys = data.samples("test")
    for sample, record in zip(keys, data.split("test"), strict=True):
        (group,) = groups("object_count", plain, keys)[sample]
        assert group.place == len(record.instances) < 5
    with pytest.raises(Lacking, match=r"expected classes of several images for by=class, .* in coco: choose by=attr"):
        groups("class", plain, keys)


def test_a_field_that_a_data_set_lacks_is_named_in_one_line(birds):
    with pytest.raises(
        Lacking, match="expected the field mask for by=mask_area, found cub without it: choose by=class"
    ):
        groups("mask_area", *birds[::2])
    with pytest.raises(Lacking, match="expected the field box_labels for by=object_count, found cub without it"):
        groups("object_count", *birds[::2])


def test_the_command_writes_a_page_and_prints_each_form(home, birds, monkeypatch, capsys):
    plain, data, keys = birds
    rng = np.random.default_rng(0)
    rows = {
        name: {seed: {"diff": {sample: float(rng.random()) for sample in keys}, "is@toy": 3.0} for seed in (0, 1)}
        for name in ("a", "b")
    }
    stand_in(monkeypatch, "results", rows)
    monkeypatch.setattr(table, "load", lambda name: experiment("a", "b"))
    assets = f"paths.assets={plain['paths']['assets']}"
    words = ["experiment=x", "by=attribute", "least=2", "data.toy_images=40", assets]
    assert table.main(words) == 0
    out = capsys.readouterr().out
    page = (home / "results/tables/x-toy-by-attribute.md").read_text()
    assert out.splitlines()[0] in page
    assert "groups: results/tables/x-toy-by-attribute.md" in out
    assert "Not by group: sim, IS; scores of whole sets (FID, IS) depend on" in out
    assert "corrected by Holm's method for 2 gaps" in out
    assert "## diff on birds" in page
    assert "(worst)" not in page, "of noise no group is the worst"
    assert table.main([*words, "format=csv"]) == 0
    found = pd.read_csv(StringIO(capsys.readouterr().out))
    field = "caption_mismatched_attributes"  # of what an edit is to follow
    items = data.evaluation("test", keys, plain["protocol"]["seed"], {field})
    frame = pd.DataFrame(
        {
            "group": [[f"{part} {value}" for part, value in items[index][field].items()] for index in range(len(keys))],
            **{str(seed): list(rows["a"][seed]["diff"].values()) for seed in (0, 1)},
        }
    ).explode("group")
    expected = frame.dropna().groupby("group")[["0", "1"]].mean().mean(axis=1)
    of_a = found[found.method == "a"].set_index("group").value
    assert of_a.to_dict() == pytest.approx(expected.to_dict(), abs=1e-4)


def test_products_of_a_group_are_of_its_means_and_a_row_that_did_not_learn_is_marked(home, birds, monkeypatch, capsys):
    plain, _, keys = birds
    rng, rows = np.random.default_rng(0), {}
    for name in "ab":
        sim, diff = (dict(zip(keys, rng.random(len(keys)).tolist(), strict=True)) for _ in range(2))
        rows[name] = {0: {"sim@toy": sim, "diff": diff, "mp@toy": 0.25}}
    stand_in(monkeypatch, "results", rows)
    metrics = {"MP": "mp@standard", "sim": "sim@standard", "diff": "diff"}
    means = {"both": ["sim", "diff"]}
    monkeypatch.setattr(table, "load", lambda name: experiment("a", "b", metrics=metrics, harmonic_means=means))
    known = cells.marked

    def marked(experiment, found):
        return [
            replace(one, unlearned=("it knows nothing",) if one.method == "b" else ())
            for one in known(experiment, found)
        ]

    monkeypatch.setattr(cells, "marked", marked)
    assets = f"paths.assets={plain['paths']['assets']}"
    words = ["experiment=x", "by=attribute", "least=2", "data.toy_images=40", assets]
    assert table.main([*words, "format=csv"]) == 0
    found = pd.read_csv(StringIO(capsys.readouterr().out)).set_index(["method", "metric", "group"]).value
    named = groups("attribute", plain, keys)
    for group in {one for ones in named.values() for one in ones}:
        ones = [key for key in keys if group in named[key]]
        sim, diff = (np.mean([rows["a"][0][name][key] for key in ones]) for name in ("sim@toy", "diff"))
        assert found["a", "MP", group.name] == pytest.approx((1 - diff) * sim, abs=1e-4)
        assert found["a", "both", group.name] == pytest.approx(2 * sim * diff / (sim + diff), abs=1e-4)
    assert f"b {tables.UNLEARNED}" in found.index.get_level_values("method")
    assert table.main(words) == 0
    out = capsys.readouterr().out
    assert f"| b {tables.UNLEARNED} " in out
    assert "‡: counts as not having learned, and is no part of comparisons: b on birds (it knows nothing)." in out
    assert "Not by group" not in out


def test_a_row_without_values_by_sample_is_named(home, birds, monkeypatch, capsys):
    plain, _, keys = birds
    rows = {name: {0: {"diff": dict.fromkeys(keys, 0.5)}} for name in ("a", "b")}
    stand_in(monkeypatch, "results", rows)
    monkeypatch.setattr(table, "load", lambda name: experiment("a", "b"))
    sorted((home / "results/x").glob("*.safetensors"))[0].unlink()
    assets = f"paths.assets={plain['paths']['assets']}"
    assert table.main(["experiment=x", "by=attribute", "least=2", "data.toy_images=40", assets]) == 0
    out = capsys.readouterr().out
    assert " on birds is left out, not run (the file of values by sample is not beside the record" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["by=colour", "experiment=x"], "expected a by, found 'colour': "),
        (["by=class"], "expected experiment=NAME beside by=, found none"),
        (["least=5", "experiment=x"], "expected by= beside least="),
        (["least=1", "by=class", "experiment=x"], "expected least=N, a whole number of 2 or more, found '1'"),
        (["least=none", "by=class", "experiment=x"], "expected least=N, a whole number of 2 or more, found 'none'"),
        (
            ["by=class", "experiment=x"],
            "expected records of x with values by sample, found none: run mmbench reproduce",
        ),
    ],
)
def test_a_mistake_is_one_line(home, monkeypatch, words, said):
    stand_in(monkeypatch, "results", {})
    monkeypatch.setattr(table, "load", lambda name: experiment("a"))
    with pytest.raises(ValueError, match=said):
        table.main(words)
