"""Metrics of pixels: known pairs, and the numbers of scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mmbench.core.images import from_uint8
from mmbench.metrics.diff import Diff
from mmbench.metrics.edit_accuracy import lab
from mmbench.metrics.l1 import L1
from mmbench.metrics.psnr import PSNR
from mmbench.metrics.ssim import SSIM
from mmbench.metrics.tv import TV


def score(metric, images, batch):
    metric.update(images, batch)
    return metric.compute()


def arrays(images):
    return images.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("size", [11, 64])
def test_ssim_equals_scikit_image(pixels, batch_of, size):
    first = pixels(4, 0, size)
    second = (first.float() * 0.7 + pixels(4, 1, size).float() * 0.3).byte()
    expected = [
        structural_similarity(
            *pair, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
        )
        for pair in zip(arrays(first), arrays(second), strict=True)
    ]
    found = score(SSIM(against="image"), second, batch_of(first))
    assert found.value == pytest.approx(np.mean(expected), abs=1e-9)
    assert found.std == pytest.approx(np.std(expected, ddof=1), abs=1e-9)
    assert found.count == 4


def test_psnr_equals_scikit_image_as_a_mean_over_images(pixels, batch_of):
    first = pixels(3)
    second = (first.float() * torch.tensor([0.99, 0.8, 0.2])[:, None, None, None]).byte()
    pairs = zip(arrays(first), arrays(second), strict=True)
    expected = [peak_signal_noise_ratio(*pair, data_range=255) for pair in pairs]
    assert score(PSNR(against="image"), second, batch_of(first)).value == pytest.approx(np.mean(expected), rel=1e-9)


def test_known_pairs(batch_of):
    black = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    batch = batch_of(black)
    assert score(PSNR(against="image"), black + 255, batch).value == pytest.approx(0, abs=1e-12)
    assert score(PSNR(against="image"), black + 5, batch).value == pytest.approx(20 * math.log10(51), rel=1e-12)
    assert score(L1(against="image"), black + 51, batch).value == pytest.approx(0.2, rel=1e-12)
    assert score(Diff(), black + 255, batch).value == 1


def test_an_unchanged_image_has_no_difference(pixels, batch_of):
    images = pixels(3)
    batch = batch_of(images)
    assert score(Diff(), images, batch) == (0.0, 0.0, 3)
    assert score(L1(against="image"), images, batch) == (0.0, 0.0, 3)
    assert score(SSIM(against="image"), images, batch).value == pytest.approx(1, abs=1e-12)
    assert score(PSNR(against="image"), images, batch).value == pytest.approx(10 * math.log10(255**2 * 12), rel=1e-12)


def test_the_field_to_compare_with_is_an_argument(pixels, batch_of):
    images, target = pixels(2), pixels(2, 1)
    batch = batch_of(images, image_mismatched=from_uint8(target))
    for metric in (L1, PSNR, SSIM):
        assert metric(against="image_mismatched").needs == ("image_mismatched",)
        assert score(metric(against="image_mismatched"), target, batch) == score(metric(against="image"), images, batch)
        assert score(metric(against="image_mismatched"), images, batch).value != pytest.approx(
            score(metric(against="image"), images, batch).value
        )


def test_tv_of_stripes_of_one_pixel_is_one(batch_of):
    stripes = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    stripes[..., ::2] = 255
    assert score(TV(), stripes, {}).value == 1
    assert score(TV(), stripes.transpose(2, 3), {}).value == 1
    stripes[..., ::2, :] ^= 255  # a chess board changes in both directions
    assert score(TV(), stripes, {}).value == 2
    assert score(TV(), torch.full((1, 3, 8, 8), 77, dtype=torch.uint8), {}) == (0.0, None, 1)


def test_scores_do_not_depend_on_batch_size_or_order(pixels, batch_of, rows_of):
    images, batch = pixels(12), batch_of(pixels(12, 1))
    for make in (lambda: L1(against="image"), lambda: PSNR(against="image"), lambda: SSIM(against="image"), TV, Diff):
        together, apart = make(), make()
        together.update(images, batch)
        for rows in torch.randperm(12, generator=torch.Generator().manual_seed(3)).split(5):
            apart.update(images[rows], rows_of(batch, rows))
        assert together.compute() == apart.compute()


def test_lab_equals_scikit_image():
    levels = torch.randint(0, 256, (200, 3), generator=torch.Generator().manual_seed(0))
    assert np.abs(lab(levels).numpy() - rgb2lab(levels.numpy() / 255)).max() < 1e-3


def test_errors_say_what_to_do(pixels, batch_of):
    with pytest.raises(ValueError, match="expected images to score by L1, found none"):
        L1(against="image").compute()
    with pytest.raises(ValueError, match=r"generated images of shape \(2, 3, 16, 16\), found \(2, 3, 32, 32\)"):
        L1(against="image").update(pixels(2, size=32), batch_of(pixels(2)))
    with pytest.raises(ValueError, match="at least 11 x 11"):
        SSIM(against="image").update(pixels(1, size=8), batch_of(pixels(1, size=8)))
    with pytest.raises(ValueError, match="expected finite pixel values"):
        Diff().update(pixels(1), {"image": torch.full((1, 3, 16, 16), torch.nan)})
