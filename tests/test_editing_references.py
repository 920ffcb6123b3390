"""Reference rows of editing: what each returns, that metrics see it so, and which data it needs."""

import pytest
import torch

from mmbench.core import config, construction
from mmbench.core.images import to_uint8
from mmbench.core.method import Method
from mmbench.core.task import TEXT_GUIDED_EDITING
from mmbench.data.batches import collate
from mmbench.data.fields import EDITED
from mmbench.data.toy import cub as toy_cub
from mmbench.data.toy.birds import PARTS
from mmbench.pipeline import generation

WORDS = ["data=cub", "data.source=toy", "data.toy_images=80", "trainer=cpu", "protocol=strict_64"]


class Small(Method):
    """Returns its input, at which it was trained in pictures of 32 pixels."""

    task = TEXT_GUIDED_EDITING

    def generate(self, batch, noise):
        assert batch["image"].shape[-2:] == (32, 32)
        return batch["image"]


def prepared(method, *words):
    return generation.prepared(config.composed([f"method={method}", *WORDS, *words]))


def scored(method, *words):
    """Edit accuracy and preservation of a reference row over all test birds."""
    run = prepared(method, *words)
    told = collate(list(run.items(run.samples, set(run.method.task.inputs), told=True)))
    images = to_uint8(run.method.generate(told, None))
    batch = collate(list(run.items(run.samples, {"image", "parts", "caption_mismatched_attributes"})))
    batch["prompt_attributes"] = batch["caption_mismatched_attributes"]
    scores = []
    for name in ("edit_accuracy", "preservation", "l1"):
        metric = construction.construct(run.plain["protocol"]["metrics"][name])
        metric.update(images, batch)
        scores.append(metric.compute().value)
    return scores


def test_reference_rows_bound_what_an_edit_can_score(home):
    accuracy, preservation, error = scored("edit_oracle")
    assert accuracy == 1
    # What recoloured parts blend into beyond their neighbours, and what JPEG spreads over its blocks.
    assert 0.995 < preservation < 1
    chance, kept, _ = scored("identity")
    assert (chance < 0.3, kept) == (True, 1)
    misplaced, kept, _ = scored("edit_misplaced")
    assert misplaced == chance
    assert 0.5 < kept < 0.95
    everything, kept, _ = scored("edit_everything")
    assert everything == 1
    assert kept < 0.1
    half, kept, half_error = scored("edit_half")
    assert chance < half < 1
    assert preservation < kept < 1
    assert half_error == pytest.approx(error / 2, rel=0.05)
    assert scored("edit_blank")[1] < 0.01


def test_after_its_own_caption_the_right_edit_is_the_image_itself(home):
    for method in ("edit_oracle", "edit_half", "real", "identity"):
        assert scored(method, "protocol.caption=own")[2] == pytest.approx(0, abs=1e-6), method
    assert scored("edit_misplaced", "protocol.caption=own")[2] > 0.005
    assert scored("edit_blank", "protocol.caption=own")[2] == scored("edit_blank")[2]


def test_an_editor_is_told_its_image_s_own_caption_and_judged_by_the_other(home):
    run = prepared("identity", "protocol.caption=own", "protocol.count=5")
    seen = run.items(run.samples, {"caption", "caption_mismatched"})
    told = run.items(run.samples, {"caption", "caption_mismatched"}, told=True)
    for judged, item in zip(seen, told, strict=True):
        assert item["caption_mismatched"] == item["caption"] == judged["caption"] != judged["caption_mismatched"]
    texts = run.told.texts("test", run.samples, 0)
    assert texts["caption_mismatched"] == [item["caption"] for item in seen]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method=mean_colour", "protocol=strict_inpainting", "protocol.caption=own"], "text-guided inpainting on"),
        (["method=identity", "protocol=strict", "protocol.caption=mismatched"], "text-guided editing on"),
    ],
)
def test_a_caption_that_a_task_cannot_be_told_is_one_line(home, words, said):
    with pytest.raises(ValueError, match=rf"expected a task .* with protocol.caption=\w+, found {said}"):
        generation.prepared(config.composed([*WORDS[:-1], *words]))


def test_a_picture_drawn_again_is_its_file_but_for_the_recoloured_parts(home):
    run = prepared("edit_oracle")
    for record in run.data.split("test")[:5]:
        own = {part: record.attributes[part] for part in PARTS}
        assert toy_cub.redrawn(0, record.id, own) == record.image.read_bytes()
        assert toy_cub.redrawn(0, record.id, {"belly": "red" if own["belly"] != "red" else "blue"}) != own
        assert toy_cub.redrawn(0, record.id, {}, elsewhere=True) != record.image.read_bytes()


def test_data_that_cannot_be_drawn_again_are_one_line(home):
    words = ["method=edit_oracle", "data=coco", "data.source=toy", "data.toy_images=40", "protocol=strict_64"]
    with pytest.raises(ValueError, match=r"expected the fields image_edited for text-guided editing with edit_orac"):
        generation.prepared(config.composed(words))
    with pytest.raises(ValueError, match=r"expected the fields image_edited_everywhere for .*, found cub without them"):
        generation.prepared(
            config.composed(["method=edit_everything", "data=cub", "data.source=real", "protocol=strict_64"])
        )
    run = prepared("identity", "protocol.prompts=[a bird of glass]")
    assert not run.data.fields & set(EDITED), "nobody knows what a bird of glass looks like"


def test_a_method_that_learned_sees_its_own_size_and_is_judged_at_the_protocol_s(home, conf):
    (conf.folder / "method/small.yaml").write_text(
        "# A stand-in\nname: small\nmodule: {_target_: test_editing_references.Small}\n"
        "training: {epochs: 1, batch_size: 4}\ntoy: {data: {module: {image_size: 32}}}\n"
    )
    run = prepared("small", "weights=none", "protocol.count=3")
    generation.generate(run)
    for sample, item in zip(run.samples, run.items(run.samples, {"image"}), strict=True):
        assert run.read(sample).shape == item["image"].shape == (3, 64, 64)
    wide = prepared("identity", "data.module.image_size=32", "protocol.count=1")
    (item,) = wide.items(wide.samples, {"image"}, told=True)
    assert torch.Size((3, 64, 64)) == item["image"].shape, "what learned nothing has no size of its own"
