"""What changed outside the region that was to change: known pairs, and scikit-image's numbers."""

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mmbench.core.composition import node
from mmbench.core.construction import construct
from mmbench.metrics.l1 import L1
from mmbench.metrics.lpips import LPIPS
from mmbench.metrics.outside_mask import L1OutsideMask, LPIPSOutsideMask, PSNROutsideMask, SSIMOutsideMask
from mmbench.metrics.psnr import PSNR
from mmbench.metrics.ssim import SSIM


def score(metric, images, batch):
    metric.update(images, batch)
    return metric.compute()


@pytest.fixture
def edit(pixels, batch_of):
    """Images of which everything in the upper half, the hole, is another, and 10 levels are added in the lower one."""
    source = pixels(3).clamp(max=200)
    output = source + 10
    output[:, :, :8] = pixels(3, 1)[:, :, :8]
    mask = torch.zeros(3, 1, 16, 16)
    mask[:, :, :8] = 1
    return output, batch_of(source, mask=mask)


def test_l1_outside_a_mask_counts_what_is_outside_only(edit):
    output, batch = edit
    assert score(L1OutsideMask(), output, batch).value == pytest.approx(10 / 255)
    batch["mask"] = torch.zeros(3, 1, 16, 16)
    assert score(L1OutsideMask(), output, batch) == score(L1(against="image"), output, batch)


def test_an_image_that_its_mask_fills_is_passed_over(edit, make_extractor):
    output, batch = edit
    batch["mask"][0] = 1
    assert score(L1OutsideMask(), output, batch).count == 2
    batch["mask"][:] = 1
    empty = (
        "expected at least one image with pixels outside the hole of its mask.* for {}, found 0 of 3: turn the masks"
    )
    for metric in (L1OutsideMask(), PSNROutsideMask(), SSIMOutsideMask(), LPIPSOutsideMask(make_extractor())):
        with pytest.raises(ValueError, match=empty.format(type(metric).__name__)):
            score(metric, output, batch)
    batch |= {"parts": torch.ones(3, 1, 16, 16), "prompt_attributes": [{"crown": "red"}] * 3}
    with pytest.raises(ValueError, match=r"outside the parts that its prompt names .* found 0 of 3: leave"):
        score(L1OutsideMask(["crown"]), output, batch)


@pytest.fixture
def inpainted(pixels, batch_of):
    """Pictures of 32 x 32 pixels that differ from their sources everywhere, with a hole each in another place."""
    mask = torch.zeros(3, 1, 32, 32)
    mask[0, :, 8:20, 10:30], mask[1, :, :16], mask[2, :, 25:, 28:] = 1, 1, 1
    source = pixels(3, 0, 32)
    return (0.7 * source + 0.3 * pixels(3, 1, 32)).byte(), batch_of(source, mask=mask), source, mask[:, 0] == 0


def test_psnr_outside_a_mask_is_that_of_the_pixels_there(inpainted):
    images, batch, source, outside = inpainted
    metric = construct(node("metric/psnr_outside_mask"))
    found = score(metric, images, batch)
    expected = [
        peak_signal_noise_ratio(real[:, places].numpy(), image[:, places].numpy(), data_range=255)
        for real, image, places in zip(source, images, outside, strict=True)
    ]
    assert metric.sample_values.tolist() == pytest.approx(expected, rel=1e-12)
    assert found.value == pytest.approx(sum(expected) / 3, rel=1e-12)
    assert found.count == 3


def test_ssim_outside_a_mask_is_the_mean_of_its_map_there(inpainted):
    images, batch, source, outside = inpainted
    metric = construct(node("metric/ssim_outside_mask"))
    score(metric, images, batch)
    expected = []
    for real, image, places in zip(source.numpy(), images.numpy(), outside.numpy(), strict=True):
        image[:, ~places] = real[:, ~places]
        options = {"channel_axis": 0, "data_range": 255, "gaussian_weights": True, "use_sample_covariance": False}
        _, places_of = structural_similarity(real, image, full=True, **options)
        expected.append(places_of[:, 5:-5, 5:-5][:, places[5:-5, 5:-5]].mean())
    assert metric.sample_values.tolist() == pytest.approx(expected, abs=1e-12)
    assert max(expected) < 0.95


def test_what_fills_a_hole_does_not_count_outside(inpainted):
    images, batch, source, outside = inpainted
    filled = torch.where(outside[:, None], source, images)
    assert score(SSIMOutsideMask(), filled, batch).value == 1
    assert score(PSNROutsideMask(), filled, batch).value == pytest.approx(10 * math.log10(255**2 * 12))


def test_outside_of_no_hole_is_the_picture(inpainted):
    images, batch, _, _ = inpainted
    batch["mask"] = torch.zeros_like(batch["mask"])
    for outside, whole in ((PSNROutsideMask(), PSNR(against="image")), (SSIMOutsideMask(), SSIM(against="image"))):
        assert score(outside, images, batch).value == pytest.approx(score(whole, images, batch).value, rel=1e-12)


def test_what_cannot_be_scored_outside_is_passed_over(inpainted):
    images, batch, _, _ = inpainted
    batch["mask"][0] = 1
    batch["mask"][1], batch["mask"][1, :, 0] = 1, 0  # all but the first row, where SSIM has no window
    assert score(PSNROutsideMask(), images, batch).count == 2
    assert score(SSIMOutsideMask(), images, batch).count == 1
    small = {"image": batch["image"][..., :9, :9], "mask": batch["mask"][..., :9, :9]}
    with pytest.raises(ValueError, match="at least 11 x 11 pixels for SSIMOutsideMask, found 9 x 9"):
        score(SSIMOutsideMask(), images[..., :9, :9], small)


def test_lpips_outside_a_mask_sees_no_change_inside(edit, make_extractor):
    output, batch = edit
    batch["mask"] = 1 - batch["mask"]  # the embedding of the test's extractor is the first row, now outside
    extractor = make_extractor()
    whole = score(LPIPS(extractor, against="image"), output, batch).value
    assert score(LPIPSOutsideMask(extractor), output, batch).value == pytest.approx(whole)
    batch["mask"] = 1 - batch["mask"]
    assert score(LPIPSOutsideMask(extractor), output, batch).value == 0


def test_the_region_may_be_the_parts_that_the_prompt_names(edit, make_extractor):
    output, batch = edit
    parts = torch.zeros(3, 2, 16, 16)
    parts[:, 0, :8] = 0.5
    batch |= {"parts": parts, "prompt_attributes": [{"crown": "red"}] * 3}
    names = ["crown", "belly"]
    metric = L1OutsideMask(names)
    assert metric.needs == ("image", "parts", "prompt_attributes")
    assert score(metric, output, batch).value == pytest.approx(10 / 255)
    assert score(PSNROutsideMask(names), output, batch).value == pytest.approx(20 * math.log10(255 / 10))
    assert score(LPIPSOutsideMask(make_extractor(), names), output, batch).value == 0
    batch["prompt_attributes"] = [{"belly": "red"}] * 3
    assert score(L1OutsideMask(names), output, batch) == score(L1(against="image"), output, batch)
