"""Scores that look at several images of one prompt, or at the prompts of other images."""

import itertools

import numpy as np
import pytest
import torch

from mmbench.core.images import from_uint8
from mmbench.core.noise import Sample
from mmbench.metrics.lpips_diversity import LPIPSDiversity
from mmbench.metrics.picnet import PICNetL1, PICNetPSNR, PICNetTV
from mmbench.metrics.r_precision import RPrecision
from mmbench.metrics.tdanet import TDANetL1, TDANetSSIM

DRAWS = 3


@pytest.fixture
def drawn(pixels):
    """Images of 5 prompts, 3 draws each, and their samples."""
    return pixels(15), [Sample(f"bird/{row // DRAWS}", row // DRAWS % 2, row % DRAWS) for row in range(15)]


def fed(metric, images, samples, order, size):
    for rows in order.split(size):
        metric.update(images[rows], {"sample": [samples[row] for row in rows]})
    return metric


def test_diversity_is_the_mean_distance_of_the_draws(make_extractor, drawn):
    images, samples = drawn
    embedding = images.flatten(1)[:, :3].double().numpy()
    expected = [
        np.mean([((a - b) ** 2).sum() for a, b in itertools.combinations(embedding[3 * n : 3 * n + 3], 2)])
        for n in range(5)
    ]
    for order in (torch.arange(15), torch.randperm(15, generator=torch.Generator().manual_seed(0))):
        for size in (1, 4, 15):
            metric = fed(LPIPSDiversity(make_extractor(), DRAWS), images, samples, order, size)
            found = metric.compute()
            assert found.value == pytest.approx(np.mean(expected), rel=1e-12)
            assert found.std == pytest.approx(np.std(expected, ddof=1))
            assert found.count == 15
            assert sum(len(part) for part in metric.waiting) == 0


def test_diversity_of_one_image_drawn_again_is_zero(make_extractor, pixels):
    metric = LPIPSDiversity(make_extractor(), 2)
    metric.update(pixels(1).repeat(2, 1, 1, 1), {"sample": [Sample("a", 0, 0), Sample("a", 0, 1)]})
    assert metric.compute().value == 0


@pytest.mark.parametrize("draws", [2, 4])
def test_diversity_refuses_another_number_of_draws(make_extractor, drawn, draws):
    metric = fed(LPIPSDiversity(make_extractor(), draws), *drawn, torch.arange(15), 1)
    with pytest.raises(ValueError, match=rf"expected {draws} draws of each prompt .* found 3 of bird/"):
        metric.compute()
    with pytest.raises(ValueError, match="at least 2 draws"):
        LPIPSDiversity(make_extractor(), 1)


def r_precision(make_extractor, images, prompts, candidates=4, apart="id", **fields):
    metric = RPrecision(make_extractor(), candidates=candidates, apart=apart)
    samples = [Sample(f"{row:02d}", 0, 0) for row in range(len(images))]
    metric.update(images, {"id": [one.id for one in samples], "sample": samples, "prompt": prompts, **fields})
    return metric.compute()


def described(prompts, size=16):
    """Images whose embedding is their prompt's: its first letters."""
    images = torch.zeros(len(prompts), 3, size, size, dtype=torch.uint8)
    images[:, 0, 0, :3] = torch.tensor([[ord(letter) for letter in prompt[:3]] for prompt in prompts]).byte()
    return images


PROMPTS = [a + b + "z" for a in "AIRz" for b in "AIRz"]


def test_r_precision_of_right_and_of_wrong_images(make_extractor):
    assert r_precision(make_extractor, described(PROMPTS), PROMPTS).value == 100
    assert r_precision(make_extractor, described(PROMPTS), PROMPTS, candidates=16).value == 100
    wrong = [prompt.swapcase() for prompt in reversed(PROMPTS)]
    assert r_precision(make_extractor, described(wrong), PROMPTS, candidates=16).value < 50


def test_r_precision_of_chance_is_one_in_the_candidates(make_extractor, pixels):
    prompts = ["".join(chr(40 + n // base % 9 * 9) for base in (1, 9, 81)) for n in range(600)]
    found = r_precision(make_extractor, pixels(600), prompts, candidates=5)
    assert found.value == pytest.approx(20, abs=5)
    assert found.count == 600


def test_r_precision_draws_no_text_of_its_own_class_nor_its_own_text(make_extractor):
    """One class shares its text: were it among the candidates, or counted when equal, images of noise would lose."""
    prompts = ["AAz"] * 6 + ["zzA"] * 6
    images = described(["AAz"] * 12)
    classes = torch.tensor([0] * 6 + [1] * 6)
    found = r_precision(make_extractor, images, prompts, apart="class_id", class_id=classes)
    assert found.value == 50  # the first half is nearest to its text, the second to the other class's
    with pytest.raises(ValueError, match=r"at least 7 texts of another class_id .* found 6"):
        r_precision(make_extractor, images, prompts, candidates=8, apart="class_id", class_id=classes)


@pytest.fixture
def completed(pixels):
    """Three images, two draws each: a poor and a good one; the holes are the left half."""
    truth = pixels(3, 0, 256)
    mask = torch.zeros(6, 1, 256, 256)
    mask[..., :128] = 1
    noise = torch.zeros(6, 3, 256, 256)
    noise[..., :128] = torch.tensor([30.0, 10, 10, 30, 30, 10])[:, None, None, None]
    truth = truth.repeat_interleave(2, dim=0) // 2
    samples = [Sample(f"{row // 2}", 0, row % 2) for row in range(6)]
    return (truth + noise).byte(), {"image": from_uint8(truth), "mask": mask, "sample": samples}


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 2, 0, 1, 4, 3]])
def test_picnet_scores_the_best_draw(completed, rows_of, order):
    images, batch = completed
    order = torch.tensor(order)
    metric = PICNetL1()
    for rows in order.split(4):
        metric.update(images[rows], rows_of(batch, rows))
    assert metric.compute().value == pytest.approx(5)  # 10 levels in half of the image
    assert metric.compute().count == 6
    metric = PICNetPSNR()
    metric.update(images, batch)
    assert metric.compute().value == pytest.approx(20 * np.log10(255 / np.sqrt(50)))


def test_the_masked_input_wins_where_it_is_nearer(completed):
    images, batch = completed
    batch["image"] = from_uint8(torch.full((6, 3, 256, 256), 127, dtype=torch.uint8))
    metric = PICNetPSNR()
    metric.update(images, batch)
    assert metric.compute().value == 100
    metric = TDANetSSIM()
    metric.update(images, batch)
    with pytest.raises(ValueError, match="more than one grey level for TDANetSSIM, found a flat one"):
        metric.compute()


def test_picnets_tv_wraps_around():
    """A step from 0 to 100 in the middle is one at the border too; the masked input's loses by l1."""
    truth = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    truth[..., 128:] = 100
    metric = PICNetTV()
    metric.update(
        truth, {"image": from_uint8(truth), "mask": torch.ones(1, 1, 256, 256), "sample": [Sample("a", 0, 0)]}
    )
    assert metric.compute().value == pytest.approx(2 * 100 / 256)


def test_images_of_other_sizes_are_resized_to_256(pixels):
    truth = pixels(1, 0, 32)
    metric = TDANetL1()
    metric.update(truth, {"image": from_uint8(truth), "mask": torch.zeros(1, 1, 32, 32), "sample": [Sample("a", 0, 0)]})
    assert metric.compute() == (0, None, 1)
    with pytest.raises(ValueError, match=r"expected generated images of shape \(1, 3, 32, 32\)"):
        metric.update(pixels(1), {"image": from_uint8(truth), "mask": torch.zeros(1, 1, 32, 32)})
