"""edit_accuracy and preservation on toy birds whose right edit is known."""

from dataclasses import replace

import pytest
import torch

from mmbench.core.composition import node
from mmbench.core.config import composed
from mmbench.core.construction import construct
from mmbench.core.images import from_uint8, to_uint8
from mmbench.core.noise import random_stream
from mmbench.data.batches import collate
from mmbench.data.toy import faces as toy_faces
from mmbench.data.toy import flowers as toy_flowers
from mmbench.data.toy import scenes as toy_scenes
from mmbench.data.toy.birds import PALETTE, PARTS, describe, render, sample_bird
from mmbench.metrics.edit_accuracy import CaptionAccuracyInMask, EditAccuracy
from mmbench.metrics.preservation import Preservation
from mmbench.pipeline import assembly

COUNT = 40


def metric(name):
    return construct({**node(f"metric/{name}"), "parts": list(PARTS)})


def drawn(bird, number):
    image, parts, _ = render(bird, random_stream("edits", number, "picture"))
    return torch.from_numpy(image).permute(2, 0, 1)[None], torch.stack(
        [torch.from_numpy(parts == index).float() for index in range(1, len(PARTS) + 1)]
    )[None]


@pytest.fixture(scope="module")
def cases():
    """Pairs of a bird's picture and its right edit, with the batch; pictures differ in size, so one by one."""
    found = []
    for number in range(COUNT):
        rng = random_stream("edits", number)
        bird, other = sample_bird(rng), sample_bird(rng)
        _, named = describe(other, rng)
        source, parts = drawn(bird, number)
        edited, _ = drawn(replace(bird, **{part: colour for part, colour in named.items() if part in PARTS}), number)
        batch = {"image": from_uint8(source), "parts": parts, "prompt_attributes": [named]}
        found.append((source, edited, batch))
    return found


def scores(cases, of):
    accuracy, preservation = metric("edit_accuracy"), metric("preservation")
    for source, edited, batch in cases:
        accuracy.update(of(source, edited), batch)
        preservation.update(of(source, edited), batch)
    return accuracy.compute(), preservation.compute()


def test_the_right_edit_scores_one(cases):
    accuracy, preservation = scores(cases, lambda source, edited: edited)
    assert accuracy == (1.0, 0.0, COUNT)
    assert preservation.value > 0.999
    # Also when it comes a little blurred and noisy, as from a generator.
    noise = torch.Generator().manual_seed(0)
    accuracy, _ = scores(
        cases, lambda source, edited: (edited + 15 * torch.randn(edited.shape, generator=noise)).clamp(0, 255).byte()
    )
    assert accuracy.value > 0.97


def test_doing_nothing_preserves_all_and_edits_by_chance(cases):
    accuracy, preservation = scores(cases, lambda source, edited: source)
    assert preservation == (1.0, 0.0, COUNT)
    assert accuracy.value < 0.2


def test_something_else_preserves_nothing(cases):
    _, preservation = scores(cases, lambda source, edited: edited.flip(2))
    assert preservation.value < 0.35
    _, preservation = scores(cases, lambda source, edited: 255 - edited)
    assert preservation.value < 0.05


def test_preservation_of_half_the_difference_to_a_blank_is_half():
    source = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    source[..., ::2] = 200
    batch = {"image": from_uint8(source), "parts": torch.zeros(1, 1, 8, 8), "prompt_attributes": [{"crown": "red"}]}
    half, blank = (source.float() * 0.5 + 50).byte(), torch.full_like(source, 100)
    for images, expected in ((source, 1.0), (half, 0.5), (blank, 0.0), (255 - source, 0.0)):
        preservation = Preservation(["crown"])
        preservation.update(images, batch)
        assert preservation.compute().value == pytest.approx(expected)


def test_only_what_is_not_named_counts_for_preservation():
    source = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    source[..., ::2] = 200
    parts = torch.zeros(1, 2, 12, 12)
    parts[0, 0, 4:8, 4:8] = 1
    changed = source.clone()
    changed[..., 3:9, 3:9] = 77  # the part and the pixels next to it
    for named, expected in (({"crown": "red"}, 1.0), ({"wing": "red"}, None)):
        preservation = Preservation(["crown", "wing"])
        preservation.update(changed, {"image": from_uint8(source), "parts": parts, "prompt_attributes": [named]})
        value = preservation.compute().value
        assert value == 1 if expected else value < 0.9
    parts[0, 0] = 1  # a named part fills the image
    preservation = Preservation(["crown", "wing"])
    preservation.update(changed, {"image": from_uint8(source), "parts": parts, "prompt_attributes": [{"crown": "red"}]})
    with pytest.raises(ValueError, match="outside the parts that its prompt names for Preservation, found 0 of 1"):
        preservation.compute()


def test_the_votes_of_a_part_decide_and_small_parts_are_passed_over():
    images = torch.tensor(PALETTE["red"], dtype=torch.uint8)[None, :, None, None].repeat(1, 1, 8, 8)
    # An outline, three rows of eight.
    images[:, :, :3] = torch.tensor(PALETTE["black"], dtype=torch.uint8)[None, :, None, None]
    parts = torch.zeros(1, 2, 8, 8)
    parts[0, 0] = 1
    parts[0, 1, 0, :5] = 1  # five pixels
    batch = {"parts": parts}
    for colour, expected in (("red", 1.0), ("black", 0.0)):
        accuracy = EditAccuracy(["crown", "bill"], PALETTE)
        accuracy.update(
            images, {**batch, "prompt_attributes": [{"crown": colour, "bill": colour, "bill_shape": "long"}]}
        )
        assert accuracy.compute() == (expected, None, 1)
    accuracy = EditAccuracy(["crown", "bill"], PALETTE)
    accuracy.update(images, {**batch, "prompt_attributes": [{"bill": "red"}]})
    with pytest.raises(ValueError, match="large enough in it for EditAccuracy, found 0 of 1: leave"):
        accuracy.compute()
    with pytest.raises(ValueError, match=r"expected the crown to be named one of red, .*, found 'mauve'"):
        accuracy.update(images, {**batch, "prompt_attributes": [{"crown": "mauve"}]})


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ("cub", PARTS),
        ("coco", toy_scenes.PARTS),
        ("oxford102", toy_flowers.PARTS),
        ("celeba_hq", toy_faces.PARTS),
    ],
)
def test_palette_and_parts_are_the_toys(data, parts):
    metrics = composed(["method=identity", f"data={data}", "data.source=toy"])["protocol"]["metrics"]
    assert metrics["edit_accuracy"]["palette"] == {name: list(levels) for name, levels in PALETTE.items()}
    assert metrics["edit_accuracy"]["parts"] == metrics["preservation"]["parts"] == list(parts)


@pytest.mark.parametrize(("data", "protocol"), [("cub", "strict_guidance"), ("coco", "strict_guidance_coco")])
def test_caption_accuracy_is_one_of_the_truth_and_chance_of_other_captions(home, data, protocol):
    """At the size and in the holes that the guidance of a text is measured in."""
    words = ["method=mean_colour", f"data={data}", f"protocol={protocol}", "data.source=toy", "data.toy_images=200"]
    plain = composed(words)
    birds = assembly.prepared_data(plain, evaluation=True)
    samples = birds.samples("test")
    fields = {"image", "mask", "parts", "caption_attributes", "caption_mismatched_attributes"}
    batch = collate(list(birds.evaluation("test", samples, 0, fields)))
    truth, hole = to_uint8(batch["image"]), batch["mask"] > 0
    wrong = {**batch, "caption_attributes": batch["caption_mismatched_attributes"]}

    def accuracy(images, of):
        judge = construct(plain["protocol"]["metrics"]["caption_accuracy_in_mask"])
        judge.update(images, of)
        return judge.compute()

    assert accuracy(truth, batch).value > 0.99
    assert accuracy(truth, batch).count > 0.5 * len(samples)
    noisy = truth + 15 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    assert accuracy(noisy.clamp(0, 255).byte(), batch).value > 0.95, "as a generator would paint them"
    assert accuracy(torch.where(hole, 255 - truth, truth), batch).value < 0.3
    assert accuracy(torch.where(hole, truth, 255 - truth), batch).value > 0.99, "what was known does not count"
    assert accuracy(truth, wrong).value < 0.3


def test_only_pixels_of_the_hole_are_looked_at():
    red, blue = (torch.tensor(PALETTE[name], dtype=torch.uint8)[:, None, None] for name in ("red", "blue"))
    images = torch.cat((red.expand(3, 8, 4), blue.expand(3, 8, 4)), dim=2)[None]
    batch = {"parts": torch.ones(1, 1, 8, 8), "mask": torch.zeros(1, 1, 8, 8)}
    batch["mask"][..., 4:] = 1
    for colour, expected in (("blue", 1.0), ("red", 0.0)):
        accuracy = CaptionAccuracyInMask(["crown"], PALETTE)
        accuracy.update(images, {**batch, "caption_attributes": [{"crown": colour}]})
        assert accuracy.compute().value == expected
    batch["mask"][:, :, 1:] = 0  # four pixels are left
    accuracy = CaptionAccuracyInMask(["crown"], PALETTE)
    accuracy.update(images, {**batch, "caption_attributes": [{"crown": "blue"}]})
    with pytest.raises(ValueError, match="in the hole of its mask for CaptionAccuracyInMask, found 0 of 1"):
        accuracy.compute()
