"""Caption truth and recall: what a caption states, and of which scene it is true."""

import pytest
import torch

from mmbench.core.noise import Sample
from mmbench.data.coco import ToyCOCO
from mmbench.metrics import MetricSuite

# A car to the left of a cup, in one row, and a kite in the air above a boat behind both.
COLOURS = {"car": "red", "cup": "blue", "kite": "green", "boat": "white"}
NUMBERS = {"car": 3, "cup": 47, "kite": 38, "boat": 9}
BOXES = {
    "car": (2.0, 40.0, 20.0, 20.0),
    "cup": (40.0, 42.0, 16.0, 18.0),
    "kite": (36.0, 4.0, 10.0, 10.0),
    "boat": (40.0, 14.0, 18.0, 18.0),
}


def judged(caption, *names):
    things = names or tuple(COLOURS)
    suite = MetricSuite.named("caption_truth", "caption_recall")
    batch = {
        "sample": [Sample("scene", 0, 0)],
        "attributes": [{thing: COLOURS[thing] for thing in things}],
        "boxes": [torch.tensor([BOXES[thing] for thing in things])],
        "box_labels": [torch.tensor([NUMBERS[thing] for thing in things])],
    }
    suite.update([caption], batch)
    return {name: list(values.values()) for name, values in suite.by_sample().items()}


@pytest.mark.parametrize(
    ("caption", "truth"),
    [
        ("a red car", 1),
        ("A RED AUTOMOBILE.", 1),
        ("a blue car", 1 / 2),
        ("a car and a mug", 1),
        ("a vase", 0),
        ("a red vase", 0),
        ("a red car and a red car and a blue car", 2 / 3),
        ("a car to the left of a cup", 1),
        ("a car to the right of a blue cup", 3 / 4),
        ("a cup next to a car", 1),
        ("a cup beside a boat", 2 / 3),
        ("a boat behind a cup", 1),
        ("a cup in front of a boat", 1),
        ("a boat in front of a cup", 2 / 3),
        ("a car behind a cup", 2 / 3),
        ("a green kite flying above a white boat", 1),
        ("a boat under a kite", 1),
        ("a car in the air above a boat", 2 / 3),
        ("a car behind a vase", 1 / 3),
        ("a car left of a cup", 1),  # no phrase of the grammar: nothing is stated of where they lie
        ("", 0),
        ("a picture of the grass", 0),
    ],
)
def test_the_share_of_what_is_stated_that_is_true(caption, truth):
    assert judged(caption)["caption_truth"] == [pytest.approx(truth)]


def test_to_say_nothing_is_true_where_nothing_is_and_there_is_nothing_to_recall():
    suite = MetricSuite.named("caption_truth", "caption_recall")
    nothing = {"attributes": [{}], "boxes": [torch.empty(0, 4)], "box_labels": [torch.empty(0, dtype=torch.int64)]}
    red_car = {"attributes": [{"car": "red"}], "boxes": [torch.ones(1, 4)], "box_labels": [torch.tensor([3])]}
    suite.update(["a view of a snowy field with nothing on it"], {"sample": [Sample("bare", 0, 0)], **nothing})
    suite.update(["a red car"], {"sample": [Sample("bare too", 0, 0)], **nothing})
    suite.update(["a red car"], {"sample": [Sample("car", 0, 0)], **red_car})
    assert list(suite.by_sample()["caption_truth"].values()) == [1, 0, 1]
    assert suite.by_sample()["caption_recall"] == {Sample("car", 0, 0): 1}


def test_recall_is_of_things_and_colours():
    assert judged("a red car")["caption_recall"] == [2 / 8]
    assert judged("a blue car and a cup")["caption_recall"] == [2 / 8]
    assert judged("a red car and a blue cup", "car", "cup")["caption_recall"] == [1]


def test_everything_that_toy_captions_state_is_true(toy_assets):
    """People's captions of toy scenes are true in all that is read of them, and something is read of each kind."""
    data = ToyCOCO(
        root=toy_assets / "data" / "coco-truth",
        assets=toy_assets,
        num_images=80,
        toy_seed=3,
        split_scheme="karpathy",
        image_size=64,
        batch_size=8,
        num_workers=0,
        seed=0,
    )
    data.prepare_data()
    suite, relations = MetricSuite.named("caption_truth"), set()
    for split in data.records:
        samples = data.samples(split, captions_per_image=5)
        items = data.evaluation(split, samples, 0, {"caption", *suite.needs})
        for place in range(len(items)):
            item = items[place]
            relations |= {fact[1] for fact in suite.metrics["caption_truth"].stated(item["caption"]) if fact[2:]}
            suite.update([item["caption"]], {field: [value] for field, value in item.items()})
    assert suite.compute()["caption_truth"].value == 1
    assert relations == {"left", "right", "behind", "front", "beside", "above", "below"}
