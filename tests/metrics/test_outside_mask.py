"""What changed outside the region that was to change: known pairs."""

import pytest
import torch

from mmbench.metrics.l1 import L1
from mmbench.metrics.lpips import LPIPS
from mmbench.metrics.outside_mask import L1OutsideMask, LPIPSOutsideMask


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


def test_an_image_that_its_mask_fills_is_passed_over(edit):
    output, batch = edit
    batch["mask"][0] = 1
    assert score(L1OutsideMask(), output, batch).count == 2
    batch["mask"][:] = 1
    with pytest.raises(ValueError, match="found none"):
        score(L1OutsideMask(), output, batch)


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
    assert score(LPIPSOutsideMask(make_extractor(), names), output, batch).value == 0
    batch["prompt_attributes"] = [{"belly": "red"}] * 3
    assert score(L1OutsideMask(names), output, batch) == score(L1(against="image"), output, batch)
