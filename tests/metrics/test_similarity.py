"""Metrics through an extractor of texts or of perceptual features, on features known to the test."""

import pytest
import torch

from mmbench.metrics.clip_score import CLIPScore
from mmbench.metrics.fid import FID
from mmbench.metrics.inception_score import InceptionScore
from mmbench.metrics.lpips import LPIPS
from mmbench.metrics.mp import MP
from mmbench.metrics.sim import Sim


@pytest.fixture
def case(pixels, batch_of):
    images = pixels(4)
    return images, batch_of(pixels(4, 1), prompt=["abc", "zzz", "a b", "bird"])


def cosines(images, prompts):
    text = torch.tensor([[float(ord(letter)) for letter in prompt[:3]] for prompt in prompts])
    return torch.cosine_similarity(images.flatten(1)[:, :3].float(), text).double()


def test_sim_is_the_mean_cosine(make_extractor, case):
    images, batch = case
    metric = Sim(make_extractor())
    metric.update(images, batch)
    expected = cosines(images, batch["prompt"])
    assert metric.compute().value == pytest.approx(float(expected.mean()), rel=1e-6)
    assert metric.compute().std == pytest.approx(float(expected.std()), rel=1e-5)


@pytest.mark.parametrize("factor", [100, 2.5])
def test_clip_score_scales_and_cuts_at_zero(make_extractor, case, factor):
    images, batch = case
    metric = CLIPScore(make_extractor(), factor=factor)
    metric.update(images, batch)
    expected = factor * cosines(images, batch["prompt"])
    assert metric.compute().value == pytest.approx(float(expected.mean()), rel=1e-6)

    class Opposite(torch.nn.Module):
        def load(self, path):
            pass

        def forward(self, source):
            return {"embedding": torch.ones(len(source), 3) * (1 if isinstance(source, list) else -1)}

    metric = CLIPScore(make_extractor(Opposite()), factor=factor)
    metric.update(images, batch)
    assert metric.compute() == (0.0, 0.0, 4)


def test_mp_is_the_product_of_the_means(make_extractor, case):
    images, batch = case
    metric = MP(make_extractor())
    for rows in ([0], [1, 2, 3]):
        metric.update(images[rows], {"image": batch["image"][rows], "prompt": [batch["prompt"][row] for row in rows]})
    difference = (images.double() - (batch["image"].double() + 1) * 127.5).abs().mean() / 255
    expected = (1 - difference) * cosines(images, batch["prompt"]).mean()
    assert metric.compute().value == pytest.approx(float(expected), rel=1e-5)
    assert metric.compute().std is None
    with pytest.raises(ValueError, match="found none"):
        MP(make_extractor()).compute()


def test_lpips_is_the_squared_distance_and_zero_for_the_input(make_extractor, case, pixels, batch_of):
    images, batch = case
    metric = LPIPS(make_extractor(), against="image")
    metric.update(images, batch)
    real = pixels(4, 1)
    expected = (images.flatten(1)[:, :3].double() - real.flatten(1)[:, :3].double()).square().sum(1).mean()
    assert metric.compute().value == pytest.approx(float(expected), rel=1e-9)
    metric = LPIPS(make_extractor(), against="image")
    metric.update(real, batch)
    assert metric.compute() == (0.0, 0.0, 4)


def test_features_that_are_no_numbers_are_refused(make_extractor, case):
    images, batch = case

    class Broken(torch.nn.Module):
        num_features = 2

        def load(self, path):
            pass

        def forward(self, source):
            return dict.fromkeys(("embedding", "features", "logits"), torch.full((len(source), 2), torch.nan))

    for metric, what in (
        (Sim(make_extractor(Broken())), "Sim values"),
        (CLIPScore(make_extractor(Broken()), factor=100), "CLIPScore values"),
        (MP(make_extractor(Broken())), "MP values"),
        (LPIPS(make_extractor(Broken()), against="image"), "LPIPS values"),
        (FID(make_extractor(Broken())), "features for FID"),
        (InceptionScore(make_extractor(Broken()), splits=1), "logits for IS"),
    ):
        with pytest.raises(ValueError, match=f"expected finite {what}, found NaN"):
            metric.update(images, batch)
