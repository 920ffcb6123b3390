"""A table under several protocols: columns by data set, and differences between them."""

import csv

import pytest
import yaml

from mmbench.core import catalogue, results
from mmbench.pipeline import experiment_files, experiments, publications, reproducing, tables
from mmbench.pipeline.cells import Value, Verdict, cells_of, difference, gain

WORDS = ["trainer=cpu", "data.toy_images=40", "protocol.count=6"]
FILE = """
citation: Nobody. 2026.
published: holes
select: {table: holes}
columns:
  center:
    protocol: tdanet_centre
    published: {protocol: center mask}
    metrics: {L1: tdanet_l1, PSNR: tdanet_psnr}
  object:
    protocol: {cub: tdanet_object, coco: tdanet_object_coco}
    published: {protocol: object mask}
    metrics: {L1: tdanet_l1}
differences:
  L1 delta: [L1 center, L1 object]
tolerance: {relative: 0.1, absolute: {L1: 0.2, L1 delta: 0.3}}
sources: [toy]
seeds: [0, 1]
rows:
  - {method: grey_hole, data: cub, published: {method: Grey, dataset: CUB}}
  - {method: grey_hole, data: coco, seeds: [0], published: {method: Same on scenes, dataset: COCO}}
"""
NUMBERS = [("L1", "4.00", "center mask"), ("L1", "5.00", "object mask"), ("L1 delta", "1.00", "|center - object|")]


@pytest.fixture
def holes(tmp_path, monkeypatch):
    """The experiment `holes`, with its file and its published numbers."""
    shipped = catalogue.shipped
    monkeypatch.setattr(catalogue, "shipped", lambda name: tmp_path if "conf" not in name else shipped(name))
    (tmp_path / "holes.yaml").write_text(FILE)
    columns = ["table", "method", "dataset", "metric", "value", "protocol", "uncertainty", "higher_is_better"]
    with (tmp_path / "holes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "confidence"])
        for metric, value, mask in NUMBERS:
            writer.writerow(["holes", "Grey", "CUB", metric, value, mask, "", "false", "read"])
    return experiment_files.load("holes")


def test_metrics_belong_to_columns_and_protocols_to_columns_and_data_sets(holes):
    assert holes.metrics == ["L1 center", "PSNR", "L1 object", "L1 delta"], (
        "only what several columns have is told apart"
    )
    assert [holes.protocols(row.data) for row in holes.rows] == [
        ["tdanet_centre", "tdanet_object"],
        ["tdanet_centre", "tdanet_object_coco"],
    ]
    assert holes.protocol_of("L1 object", "coco") == "tdanet_object_coco"
    assert holes.metric("L1 object", holes.rows[0], "toy") == "tdanet_l1"
    numbers = publications.published(holes, holes.rows[0])
    assert {shown: number.text for shown, number in numbers.items()} == {
        "L1 center": "4.00",
        "L1 object": "5.00",
        "L1 delta": "1.00",
    }
    assert publications.published(holes, holes.rows[1]) == {}
    # By hand: 0.1 * 4 and 0.1 * 5, and their sum for the difference, for which 0.1 * 1 and 0.3 are less.
    assert [publications.allowed_deviation(holes, shown, numbers) for shown in numbers] == pytest.approx(
        [0.4, 0.5, 0.9]
    )


def test_every_protocol_is_run_and_differences_are_computed(holes, home):
    outcome = reproducing.run(holes, "toy", holes.seeds, holes.rows, WORDS)
    assert outcome.reasons == {}
    held = results.by_configuration(home / "results", "holes")
    assert len(held) == 2 * 2 + 2 * 1, "protocols and seeds of each row"
    cells = cells_of(holes, "toy", holes.seeds, WORDS, {"assets": str(home)}, held, holes.rows)
    found = {(cell.method, cell.metric): cell for cell in cells}
    center, other, delta = (found["Grey", name] for name in ("L1 center", "L1 object", "L1 delta"))
    assert center.value.mean > 0 < other.value.mean != center.value.mean
    assert delta.value.mean == pytest.approx(abs(center.value.mean - other.value.mean))
    for seed in holes.seeds:
        assert delta.value.by_seed[seed] == abs(center.value.by_seed[seed] - other.value.by_seed[seed])
    assert found["Same on scenes", "L1 delta"].verdict is Verdict.UNPUBLISHED
    page = tables.document(holes, "toy", holes.seeds, cells)
    assert "Protocols `tdanet_centre`, `tdanet_object`, `tdanet_object_coco`, seeds 0, 1." in page
    assert [cell.strip() for cell in page.splitlines()[6].split("|")[5:9]] == holes.metrics

    gone = {key: record for key, record in held.items() if record.protocol["name"] != "tdanet-object-toy"}
    left = cells_of(holes, "toy", holes.seeds, WORDS, {"assets": str(home)}, gone, holes.rows)
    verdicts = [line["verdict"] for line in tables.texts(left)[:4]]
    assert verdicts[2:] == ["not run (no record yet)", "not run (as for L1 object)"]
    assert left[0].value == center.value


def test_a_row_that_fails_under_one_protocol_is_run_under_the_others(holes, home):
    words = [*WORDS[:2], "data.module.image_size=32", "++protocol.drop_partial_batch=60"]
    outcome = reproducing.run(holes, "toy", [0], holes.rows[:1], words)
    assert set(outcome.reasons) == {("Grey", "cub", "tdanet_centre"), ("Grey", "cub", "tdanet_object")}
    cells = cells_of(holes, "toy", [0], words, {"assets": str(home)}, {}, holes.rows[:1], outcome.reasons)
    assert "expected at least 60 images" in cells[0].value.reason


def test_a_gain_is_the_first_minus_the_second():
    first, second = Value({0: 1.0, 1: 3.0, 2: 5.0}, 3.0), Value({0: 2.0, 1: 2.5}, 2.25, outdated="old")
    # Of the seeds that both have, as its interval and its test are: the means of all seeds differ by +0.75.
    assert gain(first, second) == Value({0: -1.0, 1: 0.5}, -0.25, outdated="old")
    assert gain(second, first) == Value({0: 1.0, 1: -0.5}, 0.25, outdated="old")
    assert gain(Value({3: 3.0}, 3.0), Value({0: 0.75}, 0.75)).mean == 2.25  # no seed in common
    assert gain(Value(reason="no file"), first) == Value(reason="no file")


@pytest.fixture
def remarked(holes, tmp_path):
    """The experiment with a row, a gain and a column that nobody has published, and with what stands under it."""
    content = yaml.safe_load(FILE)
    content["columns"]["small"] = {
        "protocol": "tdanet_centre protocol.mask.margin=4",
        "metrics": {"L1": "tdanet_l1"},
        "published": {"protocol": "small mask"},
    }
    content["rows"] = [{"method": "mean_colour", "data": "cub", "shown": {"method": "Mean", "dataset": "CUB"}}]
    more = {
        "gains": {"L1 gain": ["L1 small", "L1 center"]},
        "notes": ["One is misprinted."],
        "listed": {"user study": {"table": "people"}},
        "seeds": [0],
    }
    (tmp_path / "holes.yaml").write_text(yaml.safe_dump({**content, **more}))
    with (tmp_path / "holes.csv").open("a") as file:
        file.write("people,Grey,CUB,rank,2.5,naturalness,,false,read\n")
    return experiment_files.load("holes")


def test_a_row_that_nobody_published_is_run_and_shown_under_its_own_name(remarked, home):
    (row,) = remarked.rows
    assert (row.key, row.dataset) == (("Mean", "cub"), "CUB")
    assert publications.published(remarked, row) == {}
    assert reproducing.run(remarked, "toy", [0], remarked.rows, WORDS).reasons == {}
    held = results.by_configuration(home / "results", "holes")
    assert len(held) == 3, "a protocol with another word is another"
    cells = cells_of(remarked, "toy", [0], WORDS, {"assets": str(home)}, held, remarked.rows)
    assert {cell.verdict for cell in cells} == {Verdict.UNPUBLISHED}
    assert {(cell.method, cell.data) for cell in cells} == {("Mean", "CUB")}
    value = {cell.metric: cell.value.mean for cell in cells}
    assert value["L1 gain"] == value["L1 small"] - value["L1 center"] < 0, "a smaller hole of the same picture"
    for text in (tables.document(remarked, "toy", [0], cells), tables.summary(remarked, cells)):
        assert "One is misprinted." in text
        assert "Published and not computed here, user study on CUB, rank: Grey 2.5 (naturalness)." in text


def test_a_difference_is_the_size_of_that_of_the_means():
    first, second = Value({0: 1.0, 1: 3.0}, 2.0), Value({0: 2.0, 1: 2.5}, 2.25, verified=False, outdated="old")
    for found in (difference(first, second), difference(second, first)):
        assert found == Value({0: 1.0, 1: 0.5}, 0.25, verified=False, outdated="old")
    assert difference(first, Value(reason="no file")) == Value(reason="no file")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"differences": {"L1 delta": ["L1 center", "L1 objct"]}},
            "expected a metric for L1 delta .*did you mean L1 obj",
        ),
        ({"gains": {"gain": ["L1", "L1 center"]}}, "expected a metric for gain .*found 'L1': choose from L1 center"),
        ({"rows": [{"method": "real", "data": "cub"}]}, "`published` and `shown` for real on cub, of which one is"),
        ({"tolerance": {}}, "found published rows without `published`, `select` and `tolerance`"),
        ({"toy": {"metrics": {"SSIM": "ssim"}}}, "expected toy.metrics beside one protocol, found 2 columns"),
        ({"protocol": "strict"}, "expected the keys of Experiment and Row, found .*'protocol'"),
    ],
)
def test_a_mistake_in_a_file_is_named(holes, tmp_path, change, said):
    (tmp_path / "holes.yaml").write_text(yaml.safe_dump({**yaml.safe_load(FILE), **change}))
    with pytest.raises(ValueError, match=said):
        experiment_files.load("holes")


def test_a_data_set_that_a_column_does_not_name_is_one_line():
    with pytest.raises(ValueError, match="expected a choice for the data set coco, found cub: add it"):
        experiments._on({"cub": "tdanet_object"}, "coco")
