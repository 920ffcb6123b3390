"""Prompts that no image was captioned with, and domains that are classes."""

import json

import pytest
import torch

from mmbench.core import config
from mmbench.core.images import read_rgb
from mmbench.core.method import Method
from mmbench.core.prompts import read_prompts
from mmbench.core.protocol import Protocol
from mmbench.core.task import TEXT_TO_IMAGE
from mmbench.pipeline import evaluation, generation

PROMPTS = ["a bird made of glass", "ein roter Vogel", "鳥"]
WORDS = ["data=cub", "data.source=toy", "data.toy_images=80", "trainer=cpu"]


class Lettered(Method):
    """Paints a grey that says how long its prompt is."""

    task = TEXT_TO_IMAGE

    def generate(self, batch, noise):
        return torch.stack([torch.full((3, 64, 64), len(text) / 255) for text in batch["caption"]])


@pytest.fixture(autouse=True)
def without_a_grid(monkeypatch):
    monkeypatch.setattr(evaluation.grid, "write_grid", lambda path, cells, titles: None)


@pytest.fixture
def lettered(conf, home):
    (conf.folder / "method/lettered.yaml").write_text(
        "# Letters\nname: lettered\nmodule: {_target_: test_prompts.Lettered}\n"
    )
    (conf.folder / "protocol/levels.yaml").write_text(
        "# TV alone\ndefaults: [/metric@metrics.tv: tv, _self_]\nname: levels\ntask: text-to-image synthesis\n"
    )
    return conf


def greys(run):
    return {read_rgb(run.file(sample)).unique().item() for sample in run.samples}


def test_prompts_take_the_place_of_captions_and_no_picture_belongs_to_them(lettered):
    words = ["method=lettered", "protocol=levels", *WORDS]
    record, run = evaluation.evaluate(config.composed([*words, f"protocol.prompts={PROMPTS}"]))
    assert record.coverage["count"] == 3
    assert [sample.id for sample in run.samples] == ["prompt-00000", "prompt-00001", "prompt-00002"]
    assert greys(run) == {round(127.5 * (1 + len(text) / 255)) for text in PROMPTS}
    assert len(run.data.reference("test")) == len(run.data.origin.split("test")), "the real set stays"
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert [sample["prompt"] for sample in manifest["samples"]] == PROMPTS
    assert evaluation.evaluate(config.composed(words))[0].config_hash != record.config_hash


def test_a_method_is_told_another_caption_than_it_is_judged_by(lettered):
    words = ["method=lettered", "protocol=levels", *WORDS, "protocol.count=5"]
    runs = {
        caption: evaluation.evaluate(config.composed([*words, f"protocol.caption={caption}"]))
        for caption in ("right", "mismatched", "none")
    }
    assert runs["right"][0].config_hash == evaluation.evaluate(config.composed(words))[0].config_hash
    assert len({run.folder for _, run in runs.values()}) == 3
    for caption, (record, run) in runs.items():
        texts = run.data.texts("test", run.samples, 0)
        told = {"right": texts["caption"], "mismatched": texts["caption_mismatched"], "none": [""] * 5}[caption]
        manifest = json.loads((run.folder / "manifest.json").read_text())
        assert [sample["prompt"] for sample in manifest["samples"]] == told
        made = [read_rgb(run.file(sample)).unique().item() for sample in run.samples]
        assert made == [round(127.5 * (1 + len(text) / 255)) for text in told]
        seen = run.items(run.samples, {"caption", "caption_attributes"})
        assert [item["caption"] for item in seen] == texts["caption"], "what it is judged by"
        assert record.config["protocol"].get("caption", "right") == caption


def test_a_caption_that_cannot_be_told_is_one_line(home):
    with pytest.raises(ValueError, match=r"protocol levels: expected caption as one of right, .*, found 'wrong'"):
        Protocol.of({"name": "levels", "task": "t", "metrics": {}, "caption": "wrong"})
    words = ["method=identity", *WORDS, "protocol.caption=none"]
    with pytest.raises(ValueError, match=r"captions with protocol.caption=none, found text-guided editing on "):
        generation.prepared(config.composed(words))


def test_a_file_of_prompts_counts_by_what_it_says(lettered, home):
    (home / "one.txt").write_text("\ufeff" + "\r\n".join([*PROMPTS, "", " "]), encoding="utf-8")
    (home / "other.json").write_text(json.dumps(PROMPTS))
    found = [
        config.composed(["method=lettered", "protocol=levels", *WORDS, f"protocol.prompts={name}"])["protocol"]
        for name in ("one.txt", "other.json")
    ]
    assert found[0] == found[1]
    assert found[0]["prompts"] == PROMPTS


def test_pictures_are_edited_by_a_protocols_prompts(home):
    words = ["method=identity", *WORDS, "protocol.count=4", "protocol.captions_per_image=3"]
    run = generation.prepared(config.composed([*words, f"protocol.prompts={PROMPTS}"]))
    items = run.items(run.samples, {"image", "caption_mismatched"})
    assert [items[place]["caption_mismatched"] for place in range(3)] == PROMPTS
    assert len(run.samples) == 12
    assert "caption_mismatched_attributes" not in run.data.fields
    with pytest.raises(ValueError, match="expected captions_per_image from 1 to 3, found 4"):
        generation.prepared(config.composed([*words, f"protocol.prompts={PROMPTS}", "protocol.captions_per_image=4"]))


def test_holes_are_filled_by_a_protocols_prompts(conf, home):
    (conf.folder / "protocol/levels.yaml").write_text(
        "# TV alone\ndefaults: [/metric@metrics.tv: tv, _self_]\nname: levels\ntask: text-guided inpainting\n"
        "prompts: [a]\n"
    )
    run = generation.prepared(
        config.composed(["method=grey_hole", "protocol=levels", *WORDS, "+mask@protocol.mask=centre"])
    )
    assert {item["caption"] for item in (run.items(run.samples, {"caption"})[at] for at in range(5))} == {"a"}


def test_prompts_alone_are_a_data_set(lettered, home):
    (home / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    words = ["method=lettered", "protocol=levels", "data=prompts", "trainer=cpu"]
    record, run = evaluation.evaluate(config.composed(words))
    assert record.coverage["count"] == 3
    assert greys(run) == {round(127.5 * (1 + len(text) / 255)) for text in PROMPTS}
    lacking = (
        "expected the fields caption_mismatched, image for text-guided editing with identity, found prompts without"
    )
    with pytest.raises(ValueError, match=lacking):
        generation.prepared(config.composed(["method=identity", "data=prompts"]))
    with pytest.raises(ValueError, match="expected real images to compare with, found a data set without"):
        run.data.reference("test")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (None, "p.txt", "found no file that can be read"),
        (b"", "p.txt", "found none: add one"),
        (b" \n\n", "p.txt", "found none: add one"),
        ("zw\u00f6lf".encode("latin-1"), "p.txt", "found byte 0xf6 at 2: save it as UTF-8"),
        ("a bird".encode("utf-16"), "p.txt", "found byte 0xff at 0: save it as UTF-8"),
        (b'{"a": "b"}', "p.json", "found another JSON value"),
        (b"[1]", "p.json", "found another JSON value"),
        (b"[", "p.json", "found no JSON"),
    ],
)
def test_a_file_that_has_no_prompts_is_one_line(tmp_path, content, name, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_prompts(path)
    assert str(caught.value).startswith(f"{path}: expected prompts in UTF-8")
    assert "\n" not in str(caught.value)


def test_domains_are_classes_so_that_fid_of_one_to_the_other_is_of_the_other(conf, home):
    (conf.folder / "protocol/domains.yaml").write_text(
        "# FID alone\ndefaults: [/network/inception@extractors.inception: toy, /metric@metrics.fid: fid, _self_]\n"
        "name: domains\ntask: text-guided editing\n"
    )
    words = ["method=identity", "protocol=domains", *WORDS]
    data = generation.prepared_data(config.composed(words))
    classes = sorted({record.class_id for record in data.split("test")})
    one, other = classes[: len(classes) // 2], classes[len(classes) // 2 :]
    run = generation.prepared(config.composed([*words, f"protocol.classes={one}"]))
    assert {sample.id for sample in run.samples} == {r.id for r in data.split("test") if r.class_id in one}
    wanted = data.reference("test", other)
    assert {wanted[at]["id"] for at in range(len(wanted))} == {r.id for r in data.split("test") if r.class_id in other}

    def fid(reference):
        chosen = [f"protocol.classes={one}", f"protocol.reference_classes={reference}"]
        return evaluation.evaluate(config.composed([*words, *chosen]))[0].metrics["fid@toy"]["value"]

    assert fid(one) == pytest.approx(0, abs=1e-3)
    assert fid(other) > 1
    with pytest.raises(ValueError, match="expected images of class 999 in test, found none"):
        generation.prepared(config.composed([*words, "protocol.classes=[999]"]))
