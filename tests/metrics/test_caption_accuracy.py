"""caption_accuracy: near one on the real image, chance on another one, and nothing where there is no bird or flower."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import get_class
from torch import nn

from mmbench.core import config
from mmbench.core.composition import node
from mmbench.core.construction import construct
from mmbench.core.noise import random_stream
from mmbench.data.toy import birds as toy_birds
from mmbench.data.toy import flowers as toy_flowers
from mmbench.maintenance.toy_networks import shuffled
from mmbench.maintenance.toy_pictures import view_of_bird, view_of_flower
from mmbench.metrics.caption_accuracy import MIN_PIXELS
from mmbench.metrics.suite import MetricSuite, build_suite
from mmbench.pipeline import evaluation

COUNT = 120
TESTED = {"cub": 420, "oxford102": 520}  # as many as leave 100 test images, which KID wants
KINDS = {"cub": ("parts/toy", toy_birds), "oxford102": ("parts/toy_flowers", toy_flowers)}


def metric_of(data):
    network, kind = KINDS[data]
    metric = {**node("metric/caption_accuracy"), "parts": list(kind.PARTS)}
    return build_suite({"caption_accuracy": metric}, {"parts": node(f"network/{network}")}, "unused").metrics[
        "caption_accuracy"
    ]


def score(data, images, named):
    metric = metric_of(data)
    metric.update(images, {"prompt_attributes": named})
    return metric.compute().value


def view(data, thing, number):
    if data == "cub":
        return view_of_bird(thing, "caption accuracy of a test", number, 0.7)[0]
    return view_of_flower(thing, "caption accuracy of a test", number)[0]


def sampled(data, count=COUNT):
    """Things of classes, and what a caption names of each."""
    sample, describe = (
        (toy_birds.sample_bird, toy_birds.describe)
        if data == "cub"
        else (toy_flowers.sample_flower, toy_flowers.describe)
    )
    streams = [random_stream("caption accuracy of a test", data, number) for number in range(count)]
    things = [sample(stream) for stream in streams]
    return things, [describe(thing, stream)[1] for thing, stream in zip(things, streams, strict=True)]


@pytest.fixture(scope="module", params=list(KINDS))
def seen(request):
    things, named = sampled(request.param)
    return request.param, torch.stack([view(request.param, thing, n) for n, thing in enumerate(things)]), named


def test_the_real_image_has_what_its_caption_names_and_another_has_it_by_chance(seen):
    data, images, named = seen
    assert score(data, images, named) > 0.95
    assert score(data, images, named[1:] + named[:1]) < 0.2


@pytest.mark.parametrize("side", [32, 48, 128, 256])
def test_images_of_other_sizes_are_judged(seen, side):
    data, images, named = seen
    resized = F.interpolate(images[:60].float(), (side, side), mode="bilinear", antialias=True).round().byte()
    assert score(data, resized, named[:60]) > 0.9


def test_what_shows_nothing_has_nothing(seen):
    data, images, named = seen
    stream = torch.Generator().manual_seed(torch.seed())
    count, shape = len(images), images.shape
    # Every image has the very colour that its caption names first, and no bird or flower.
    colours = torch.tensor(
        [toy_birds.PALETTE[next(value for value in one.values() if value in toy_birds.PALETTE)] for one in named]
    )[:, :, None, None]
    noise = torch.randn(shape, generator=stream)
    for kind, made in {
        "flat": colours.expand(shape),
        "noise of the colour": colours + 40 * noise,
        "noise": 128 + 60 * noise,
        "half of each": torch.where(torch.arange(64) < 32, colours, colours.roll(1, 0)),
        "coarse noise": F.interpolate(128 + 60 * noise[..., ::8, ::8], (64, 64), mode="bilinear"),
    }.items():
        assert score(data, made.round().clamp(0, 255).byte(), named) < 0.05, kind
    pieces = [shuffled(images[n : n + 1], 8)[0] for n in range(count)]
    assert score(data, torch.stack(pieces), named) < 0.1


def test_colours_in_the_wrong_places_count_as_wrong(seen):
    data, _, _ = seen
    things, _ = sampled(data, 40)
    parts = KINDS[data][1].PARTS
    asked = [dict(zip(parts, ("red", "green", "blue", "yellow", "black"), strict=False))] * len(things)
    right = [replace(thing, **asked[0]) for thing in things]
    moved = dict(zip(parts, [*list(asked[0].values())[1:], asked[0][parts[0]]], strict=True))
    wrong = [replace(thing, **moved) for thing in things]
    one = [replace(thing, **{**asked[0], parts[1]: "purple"}) for thing in things]
    views = [torch.stack([view(data, thing, n) for n, thing in enumerate(kind)]) for kind in (right, wrong, one)]
    found = [score(data, images, asked) for images in views]
    assert found[0] > 0.95
    assert found[1] < 0.1
    assert found[2] == pytest.approx(found[0] - 1 / len(parts), abs=0.03)


def test_values_depend_neither_on_the_batch_nor_on_the_order(seen):
    data, images, named = seen
    order = torch.randperm(30)
    whole, parted = metric_of(data), metric_of(data)
    whole.update(images[:30], {"prompt_attributes": named[:30]})
    for rows in order.split(7):
        parted.update(images[rows], {"prompt_attributes": [named[row] for row in rows]})
    assert whole.compute() == parted.compute()
    assert torch.equal(parted.sample_values[order.argsort()], whole.sample_values)


class Known(nn.Module):
    """Two parts: the first in the upper rows, as many pixels as the first level says; the second nowhere."""

    def load(self, path):
        pass

    def forward(self, images):
        parts = torch.zeros(len(images), 2, 64, 64)
        for row, image in enumerate(images):
            parts[row, 0].view(-1)[: int(image[0, 0, 0])] = 0.9
        return {"parts": parts, "levels": images.float()}


def test_a_part_of_too_few_pixels_is_not_there(make_extractor, batch_of):
    described = {**node("metric/caption_accuracy"), "parts": ["crown", "wing"]}
    del described["extractor"]

    def values(images, named):
        metric = construct(described, extractor=make_extractor(Known()))
        metric.update(images, batch_of(images, prompt_attributes=named))
        return metric.compute()

    black = torch.tensor([26, 26, 30]).byte()[None, :, None, None].repeat(2, 1, 64, 64)
    black[:, 0, 0, 0] = torch.tensor([MIN_PIXELS - 1, MIN_PIXELS])
    assert values(black, [{"crown": "black"}] * 2) == (0.5, pytest.approx(0.5**0.5), 2)
    assert values(black, [{"crown": "black", "wing": "black", "wing_pattern": "plain"}] * 2).value == 0.25
    assert values(black, [{"wing_pattern": "plain"}, {"crown": "black"}]) == (1.0, None, 1), "the first names no part"
    with pytest.raises(ValueError, match="expected the crown to be named one of red, orange"):
        values(black, [{"crown": "mauve"}] * 2)


def test_a_network_of_other_parts_is_one_line():
    metric = {**node("metric/caption_accuracy"), "parts": list(toy_flowers.PARTS)}
    suite = build_suite({"caption_accuracy": metric}, {"parts": node("network/parts/toy")}, "unused")
    wanted = "^expected a network that finds the 4 parts petals, .*, found one of 5: choose the one that was trained on"
    with pytest.raises(ValueError, match=wanted):
        suite.metrics["caption_accuracy"].update(
            torch.zeros(1, 3, 64, 64, dtype=torch.uint8), {"prompt_attributes": [{"petals": "red"}]}
        )


def test_networks_that_no_photograph_is_judged_by_are_named():
    wanted = "^expected an extractor of toy, toy_flowers for the metric caption_accuracy, found standard: choose one of"
    with pytest.raises(ValueError, match=wanted):
        MetricSuite.named("caption_accuracy")


@pytest.mark.parametrize("data", ["coco", "celeba_hq"])
def test_data_of_which_nothing_is_known_are_refused_before_an_image_is_made(home, monkeypatch, data):
    words = ["method=real_image", f"data={data}", "data.source=toy", "data.toy_images=40", "trainer=cpu"]
    judge = [
        "+metric@protocol.metrics.caption_accuracy=caption_accuracy",
        "+network/parts@protocol.extractors.parts=toy",
    ]
    plain = config.composed([*words, "protocol=strict_synthesis", *judge, "weights=none"])
    kind = get_class(plain["data"]["module"]["_target_"])
    monkeypatch.setattr(kind, "fields", kind.fields - {"caption_attributes"})  # as of photographs
    with pytest.raises(ValueError, match=f"^expected the fields prompt_attributes .*, found {data} without them"):
        evaluation.evaluate(plain)
    assert not list(home.glob("runs/**/*.png"))


@pytest.mark.parametrize("data", list(KINDS))
def test_reference_rows_say_how_far_it_is_to_be_trusted(home, monkeypatch, data):
    monkeypatch.setattr(evaluation.grid, "write_grid", lambda path, cells, titles: None)
    found = {}
    for method in ("real_image", "other_image"):
        words = [f"method={method}", f"data={data}", f"data.toy_images={TESTED[data]}", "protocol=strict_synthesis"]
        record, _ = evaluation.evaluate(config.composed([*words, "data.source=toy", "trainer=cpu", "weights=none"]))
        found[method] = {key: score["value"] for key, score in record.metrics.items()}
    real, other = found["real_image"], found["other_image"]
    assert real["fid@toy"] == pytest.approx(0, abs=1e-3)
    assert real["caption_accuracy@toy"] > 0.9
    assert other["caption_accuracy@toy"] < 0.3
    for key in ("r_precision@toy", "clip_score@toy"):
        assert real[key] > 2 * other[key], "networks of birds judge birds, and those of flowers flowers"
