"""Protocol cards: they compose, every key of theirs is read, and two hashes never share a column."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import yaml

from mmbench.core import catalogue, composition, config, hashing, results
from mmbench.core.images import from_uint8, read_rgb, to_uint8, truncated
from mmbench.core.method import Method
from mmbench.core.noise import random_stream
from mmbench.core.outputs import IMAGES
from mmbench.core.protocol import Protocol, explained_fields
from mmbench.core.task import TEXT_GUIDED_INPAINTING, TEXT_TO_IMAGE, Task
from mmbench.data.views import Window
from mmbench.pipeline import evaluation, generation, lookup
from mmbench.pipeline.cells import cells_of
from mmbench.pipeline.experiment_files import load

DATA = {
    "strict": ["cub", "coco", "oxford102", "celeba_hq"],
    "strict_64": ["cub", "coco", "oxford102", "celeba_hq"],
    "strict_synthesis": ["cub", "coco", "oxford102", "celeba_hq"],
    "strict_synthesis_64": ["cub", "coco", "oxford102", "celeba_hq"],
    "strict_reconstruction": ["cub", "coco", "oxford102", "celeba_hq"],
    "vqgan_reconstruction": ["cub", "coco", "oxford102", "celeba_hq"],
    "strict_unconditional": ["cub", "coco", "oxford102", "celeba_hq"],
    "strict_layout": ["coco"],
    "strict_super_resolution": ["cub", "coco", "oxford102", "celeba_hq"],
    "strict_class_conditional": ["cub", "oxford102"],
    "strict_inpainting": ["cub", "coco", "oxford102", "celeba_hq"],
    "strict_inpainting_object": ["cub"],
    "strict_inpainting_object_coco": ["coco"],
    "strict_inpainting_strokes": ["cub", "coco"],
    "strict_inpainting_area": ["cub", "coco"],
    "strict_inpainting_irregular": ["cub", "coco"],
    "strict_guidance": ["cub"],
    "strict_guidance_coco": ["coco"],
    "picnet_centre": ["cub", "coco"],
    "manigan": ["cub", "coco"],
    "tdanet_centre": ["cub", "coco"],
    "tdanet_object": ["cub"],
    "tdanet_object_coco": ["coco"],
    "attngan": ["cub", "coco"],
    "dfgan": ["cub", "oxford102"],
    "dfgan_coco": ["coco"],
    "efficientt2i_is": ["cub", "oxford102"],
    "efficientt2i_fid": ["cub", "oxford102"],
    "stackgan": ["cub", "oxford102"],
    "stackgan_coco": ["coco"],
    "tedigan_faces": ["celeba_hq"],
    "karpathy": ["coco", "cub"],
    "strict_video": ["moving_birds"],
}
WORDS = ["data=cub", "data.source=toy", "data.toy_images=80", "trainer=cpu"]


class Painter(Method):
    """A stand-in for text to image."""

    task = TEXT_TO_IMAGE

    def generate(self, batch, noise):
        return noise.normal("picture", 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3).tanh()


class Filler(Method):
    """A stand-in for inpainting, which fills everything with one grey."""

    task = Task(TEXT_GUIDED_INPAINTING.name, ("image", "mask"), None, "image")

    def generate(self, batch, noise):
        return torch.full_like(batch["image"], 0.1)


@pytest.fixture(autouse=True)
def without_a_grid(monkeypatch):
    """Nothing here is about the picture of samples, which takes longer than all the rest."""
    monkeypatch.setattr(evaluation.grid, "write_grid", lambda path, cells, titles: None)


@pytest.fixture
def standing_in(conf):
    for name in ("Painter", "Filler"):
        (conf.folder / f"method/{name.lower()}.yaml").write_text(
            f"# A stand-in\nname: {name.lower()}\nmodule: {{_target_: test_protocols.{name}}}\n"
        )


def composed(protocol, *words):
    return config.composed([f"protocol={protocol}", *words])


def test_every_card_is_tested_here():
    assert set(DATA) == set(catalogue.names("protocol"))


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, sets in DATA.items() for data in sets])
def test_a_card_composes_for_its_data_sets_and_finds_its_judges(name, data):
    for source in ("real", "toy") if data == "cub" else ("real",):
        protocol = composed(name, "method=identity", f"data={data}", f"data.source={source}")["protocol"]
        judges = {
            metric: protocol["extractors"][node["extractor"]]
            for metric, node in protocol["metrics"].items()
            if "extractor" in node
        }
        if source == "toy":
            assert {judge["name"] for judge in judges.values()} <= {"toy"}
        elif "is" in judges and not name.startswith("strict"):
            fine_tuned = {"cub": "inception-cub", "oxford102": "inception-oxford102", "coco": "standard"}
            assert judges["is"]["name"] == fine_tuned[data]


def test_each_card_is_a_protocol_of_its_own():
    plain = {name: composition.node(f"protocol/{name}") for name in DATA}
    assert len({hashing.config_hash(protocol) for protocol in plain.values()}) == len(DATA)
    assert {name.replace("_", "-") for name in DATA} == {protocol["name"] for protocol in plain.values()}
    for name in DATA:
        text = (catalogue.shipped("conf") / f"protocol/{name}.yaml").read_text(encoding="utf-8")
        assert "Source: " in text or name.startswith("strict")
        assert yaml.safe_load(text)["name"] == plain[name]["name"]


def test_truncation_is_what_a_cast_of_numpy_does():
    images = torch.linspace(-1, 1, 3 * 40 * 40).reshape(1, 3, 40, 40)
    cast = ((images.numpy() + np.float32(1.0)) * np.float32(127.5)).astype(np.uint8)
    assert np.array_equal(truncated(images).numpy(), cast)
    difference = to_uint8(images).int() - truncated(images).int()
    assert difference.unique().tolist() == [0, 1]
    assert difference.float().mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("width", "height"), [(500, 300), (200, 400), (64, 64)])
def test_manigans_window_is_the_middle_of_those_that_theirs_draws(width, height):
    region = (0, 0, width, height)
    views = [Window().training(region, 256, random_stream(key)) for key in range(400)]
    assert {view.left for view in views} == {view.top for view in views} == set(range(48))
    assert {min(view.size) for view in views} == {304}
    middle = Window().evaluation(region, 256)
    assert (middle.left, middle.top, middle.size, middle.flipped) == (24, 24, views[0].size, False)


@pytest.mark.parametrize(("method", "size"), [("tagan", 128), ("sisgan", 64), ("manigan", 256)])
def test_methods_with_pictures_of_their_own_keep_them_in_manigans_table(method, size):
    data = composed("manigan", f"method={method}", "data=cub")["data"]
    assert data["module"]["image_size"] == size
    own = data["module"].get("preprocessing")
    window = {"_target_": "mmbench.data.views.Window"}
    assert data["evaluation"].get("preprocessing", own) == (own if method != "manigan" else window)
    assert (own is None) == (method == "manigan")
    # A card that fixes how pictures are cut fixes it for all.
    fixed = composed("tdanet_centre", f"method={method}", "data=cub")["data"]
    assert fixed["evaluation"]["preprocessing"]["_target_"] == "mmbench.data.views.Squash"


def test_a_partial_batch_of_images_is_left_out_with_all_its_captions(home):
    data = generation.prepared_data(composed("strict", "method=identity", *WORDS))
    protocol = Protocol("p", "text-guided editing", {}, count=13, captions_per_image=3, draws=2)
    whole = generation.wanted_samples(data, protocol)
    kept = generation.wanted_samples(data, replace(protocol, drop_partial_batch=5))
    assert len(whole) == 13 * 6
    assert kept == whole[: 10 * 6]
    assert len({sample.id for sample in kept}) == 10
    with pytest.raises(ValueError, match="expected at least 14 images, a whole batch of protocol p, found 13"):
        generation.wanted_samples(data, replace(protocol, drop_partial_batch=14))


def test_text_to_image_is_scored_under_attngans_card(standing_in, home):
    record, run = evaluation.evaluate(config.composed(["method=painter", "protocol=attngan", *WORDS]))
    assert set(record.metrics) == {"is@toy", "fid@toy", "r_precision@toy"}
    assert record.protocol["name"] == "attngan-toy"
    assert record.metrics["r_precision@toy"]["value"] < 50  # 10 by chance
    assert record.canary["changed"] == []
    sample = run.samples[0]
    (drawn,) = run.method.generate({}, generation.Noise(0, [sample]))
    assert torch.equal(read_rgb(run.file(sample)), truncated(drawn))


def test_known_pixels_are_put_back_and_holes_are_as_they_were_filled(standing_in, home):
    words = ["protocol=tdanet_centre", *WORDS, "protocol.count=6", "protocol.drop_partial_batch=4"]
    record, run = evaluation.evaluate(config.composed(["method=filler", *words]))
    assert record.coverage["count"] == 4
    assert set(record.metrics) == {"tdanet_l1", "tdanet_psnr", "tdanet_tv", "tdanet_ssim"}
    for item in run.items(run.samples, {"image", "mask"}):
        image, hole = read_rgb(run.file(item["sample"])), item["mask"].bool()[0]
        assert 4 * hole.sum() == hole.numel()
        assert set(image[:, hole].flatten().tolist()) == {140}  # (0.1 + 1) * 127.5 = 140.25
        assert torch.equal(image[:, ~hole], truncated(item["image"])[:, ~hole])
    assert not run.data.bird_crop
    raw, run = evaluation.evaluate(config.composed(["method=filler", *words, "protocol.composite=false"]))
    assert raw.run_key != record.run_key
    assert set(read_rgb(run.file(run.samples[0])).flatten().tolist()) == {140}


def test_known_pixels_need_a_mask(home):
    with pytest.raises(ValueError, match="expected a mask for protocol strict-toy, which puts known pixels back"):
        generation.prepared(config.composed(["method=identity", *WORDS, "protocol.composite=true"]))


def test_rounding_down_is_another_image_in_another_folder(home):
    words = ["method=real", *WORDS, "protocol.count=10"]
    rounding = "protocol.rounding._target_=mmbench.core.images.truncated"
    runs = [generation.prepared(config.composed([*words, *more])) for more in ([], [rounding])]
    assert runs[0].folder != runs[1].folder
    assert from_uint8(truncated(torch.zeros(3, 1, 1))).max() < 0 < from_uint8(to_uint8(torch.zeros(3, 1, 1))).min()


def test_a_record_of_another_protocol_is_not_in_the_column(home):
    """The value of one protocol never stands where that of another belongs, in whichever order they were made."""
    experiment = load("demo")
    (row,) = [row for row in experiment.rows if row.method == "identity"]
    words = ["data.toy_images=80", "trainer=cpu"]
    for protocol in ([], ["protocol.count=12"]):
        evaluation.evaluate(
            config.composed(["method=identity", *WORDS, *protocol, "experiment=demo", "weights=trained"])
        )
    records = results.read(home / "results", "demo")
    if records[0].coverage["count"] == 12:  # both are of one second
        records.reverse()
    assert len({record.protocol["hash"] for record in records}) == 2
    held = results.by_configuration(home / "results", "demo")

    def hashes(*more):
        found = lookup.records_of(experiment, row, "toy", [0], [*words, *more], held)
        return [record.protocol["hash"] for record in found["strict"].records]

    assert hashes() == [records[0].protocol["hash"]]
    assert hashes("protocol.count=12") == [records[1].protocol["hash"]]
    assert hashes("protocol.count=11") == []
    found = cells_of(experiment, "toy", [0], ["protocol.seed=5"], {"assets": str(home)}, held, [row])
    assert {cell.value.mean for cell in found} == {None}


def test_a_protocol_brings_images_and_the_real_ones_to_its_size(home):
    """Bilinearly, as a constant picture and a linear ramp say: twice as large, both are what they were."""
    ramp = torch.linspace(-0.5, 0.5, 8).expand(1, 3, 8, 8)
    protocol = Protocol.of({"name": "p", "task": "t", "metrics": {}, "size": 16})
    (made,) = IMAGES.finished(ramp, {}, protocol)
    assert made.shape == (3, 16, 16)
    step = 1 / 7 / 2 * 127.5
    assert (made[:, :, 2:14].float().diff(dim=2) - step).abs().max() <= 1, "rounded to levels"
    plain = config.composed(["method=real_image", *WORDS, "protocol=strict_synthesis", "protocol.size=24"])
    plain["protocol"]["metrics"] = {name: plain["protocol"]["metrics"][name] for name in ("clip_score",)}
    run = generation.prepared(plain)
    generation.generate(run)
    assert {tuple(run.output.read(run.file(sample)).shape) for sample in run.samples} == {(3, 24, 24)}
    assert run.items(run.samples[:1], {"image"})[0]["image"].shape == (3, 24, 24)


def test_what_stands_at_its_default_is_no_part_of_the_hash():
    short = Protocol.of({"name": "p", "task": "t", "metrics": {}})
    long = Protocol.of({"name": "p", "task": "t", "metrics": {}, "draws": 1, "composite": False, "data": {}})
    assert short.facts() == long.facts() == {"name": "p", "task": "t", "metrics": {}}
    assert replace(short, draws=2).facts() == {**short.facts(), "draws": 2}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "p", "task": "t", "metrics": {}, "drawz": 2}, "protocol p: expected keys of name, .*found 'drawz'"),
        ({"name": "p", "metrics": {}}, "protocol p: expected the key 'task', found none"),
        ({"name": "p", "task": "t", "metrics": {}, "size": 0}, "expected size as a whole number of 1 or more, found 0"),
        (
            {"name": "p", "task": "t", "metrics": {}, "size": 64, "composite": True},
            "expected size=null with composite, which puts pixels back where they were, found 64",
        ),
    ],
)
def test_a_protocol_with_a_key_too_many_or_too_few_is_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        Protocol.of(keys)


def test_every_field_that_can_change_a_value_says_what_it_changes_and_its_word():
    said = {one.name: one.metadata for one in explained_fields()}
    assert {one.name for one in fields(Protocol)} - said.keys() == {"name", "task", "metrics", "extractors"}
    assert {about["changes"] for about in said.values()} == {"samples", "images", "scores"}
    assert all(about["word"] for about in said.values())


def test_a_method_of_another_task_is_refused(home):
    with pytest.raises(ValueError, match="expected a protocol for text-guided editing with identity, found attn"):
        generation.prepared(config.composed(["method=identity", "protocol=attngan", *WORDS]))
    with pytest.raises(ValueError, match="which is for text-guided editing: choose protocol=picnet_centre, "):
        generation.prepared(config.composed(["method=grey_hole", *WORDS]))


def test_a_grey_hole_is_the_input_with_its_hole_left_grey(home):
    words = ["method=grey_hole", "protocol=tdanet_centre", *WORDS, "protocol.count=2"]
    _, run = evaluation.evaluate(config.composed(words))
    for item in run.items(run.samples, {"image", "mask"}):
        image, hole = read_rgb(run.file(item["sample"])), item["mask"].bool()[0]
        assert set(image[:, hole].flatten().tolist()) == {127}
        assert torch.equal(image[:, ~hole], truncated(item["image"])[:, ~hole])
