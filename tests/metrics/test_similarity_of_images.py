"""DINO similarity, CLIP-I and directional CLIP: by hand on known features, and on toy edits whose truth is known."""

from dataclasses import replace

import pytest
import torch

from mmbench.core.composition import node
from mmbench.core.config import with_extractors
from mmbench.core.images import from_uint8
from mmbench.core.noise import Sample, random_stream
from mmbench.data.toy.birds import PARTS, describe, render, sample_bird
from mmbench.metrics import MetricSuite, build_suite
from mmbench.metrics.directional_clip import DirectionalCLIP
from mmbench.metrics.image_similarity import ImageSimilarity

NAMES = ("dino", "clip_i", "directional_clip")
COUNT = 12


def vectors(images):
    return images.flatten(1).double()


def test_similarity_of_images_is_the_mean_cosine_of_features(make_extractor, pixels, batch_of):
    made, real = pixels(4), pixels(4, 1)
    metric = ImageSimilarity(make_extractor(), against="image")
    metric.update(made, batch_of(real))
    expected = torch.cosine_similarity(vectors(made)[:, :5], vectors(real)[:, :5])
    assert metric.compute().value == pytest.approx(float(expected.mean()), rel=1e-6)
    assert torch.allclose(metric.sample_values, expected)
    metric.reset()
    metric.update(real, batch_of(real))
    assert metric.compute().value == pytest.approx(1, abs=1e-12)
    other = ImageSimilarity(make_extractor(), against="image_mismatched")
    assert other.needs == ("image_mismatched",)


def letters(texts):
    return torch.tensor([[float(ord(letter)) for letter in text] for text in texts]).double()


def test_directional_clip_is_the_cosine_of_two_differences(make_extractor, pixels, batch_of):
    made, real = pixels(3), pixels(3, 1)
    captions, prompts = ["abc", "xyz", "red"], ["bbd", "axz", "tan"]
    metric = DirectionalCLIP(make_extractor())
    metric.update(made, batch_of(real, caption=captions, prompt=prompts))
    moved = vectors(made)[:, :3] - vectors(real)[:, :3]
    expected = torch.cosine_similarity(moved, letters(prompts) - letters(captions))
    assert metric.compute().value == pytest.approx(float(expected.mean()), rel=1e-9)
    assert metric.compute().count == 3


def test_what_has_no_direction(make_extractor, pixels, batch_of):
    real = pixels(4, 1)
    made = real.clone()
    made[:2] = pixels(2)
    metric = DirectionalCLIP(make_extractor())
    texts = {"caption": ["abc", "abc", "abc", "abc"], "prompt": ["abd", "abc", "abd", "abc"]}
    metric.update(made, batch_of(real, **texts))
    score = metric.compute()
    assert score.count == 2, "what asks for nothing is not counted"
    assert metric.sample_values.isnan().tolist() == [False, True, False, True]
    assert metric.sample_values[2] == 0, "an image that was not changed is neither right nor wrong"
    assert score.value == pytest.approx(float(metric.sample_values[0]) / 2)
    metric.reset()
    metric.update(made, batch_of(real, caption=texts["caption"], prompt=texts["caption"]))
    with pytest.raises(ValueError, match=r"whose prompt differs from its caption .* found 0 of 4: it is for"):
        metric.compute()


def drawn(bird, number):
    image, _, _ = render(bird, random_stream("directions", number, "picture"))
    return torch.from_numpy(image).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def edits():
    """What an editor does: to its scores over toy birds, pictures of several sizes one by one."""
    metrics = {name: node(f"metric/{name}") for name in NAMES}
    editors = ("nothing", "right edit", "wrong edit", "another bird")
    suites = {editor: build_suite(metrics, with_extractors(metrics, {}, "toy"), "unused") for editor in editors}
    for number in range(COUNT):
        rng = random_stream("directions", number)
        bird, other, third = sample_bird(rng), sample_bird(rng), sample_bird(rng)
        (caption, _), (prompt, named), (_, wrong) = (describe(one, rng) for one in (bird, other, third))
        source = drawn(bird, number)
        made = {
            "nothing": source,
            "right edit": drawn(replace(bird, **colours(named)), number),
            "wrong edit": drawn(replace(bird, **colours(wrong)), number),
            "another bird": drawn(third, number + 1000),
        }
        for editor, image in made.items():
            batch = {
                "id": [str(number)],
                "sample": [Sample(str(number), 0, 0)],
                "image": from_uint8(source),
                "caption": [caption],
                "prompt": [prompt],
            }
            suites[editor].update(image if image.shape == source.shape else fitted(image, source), batch)
    return {editor: suite.compute() for editor, suite in suites.items()}


def colours(named):
    return {part: colour for part, colour in named.items() if part in PARTS}


def fitted(image, like):
    return torch.nn.functional.interpolate(image.float(), like.shape[-2:], mode="bilinear").round().byte()


@pytest.mark.parametrize("name", ["dino@toy", "clip_i@toy"])
def test_an_unchanged_bird_is_most_similar_and_another_one_least(edits, name):
    values = {editor: scores[name].value for editor, scores in edits.items()}
    assert values["nothing"] == pytest.approx(1, abs=1e-12)
    assert values["nothing"] > values["right edit"] > values["another bird"]


def test_directional_clip_prefers_the_right_edit(edits):
    values = {editor: scores["directional_clip@toy"].value for editor, scores in edits.items()}
    assert values["nothing"] == 0
    assert values["right edit"] > values["wrong edit"] + 0.2
    assert values["right edit"] > 0.4


def test_what_both_look_at_is_looked_at_once(make_extractor, pixels, batch_of):
    extractor = make_extractor()
    metrics = {"clip_i": ImageSimilarity(extractor, against="image"), "directional_clip": DirectionalCLIP(extractor)}
    suite = MetricSuite(metrics)
    suite.update(pixels(3), batch_of(pixels(3, 1), caption=["abc"] * 3, prompt=["abd"] * 3))
    assert extractor.network.calls == 4  # made, real, captions, prompts
    assert suite.needs == {"image", "caption", "prompt"}
