"""What fills a hole beside what was there: known pairs, and the choice among draws."""

import math

import pytest
import torch
from skimage.metrics import structural_similarity

from mmbench.core.composition import node
from mmbench.core.config import composed
from mmbench.core.construction import construct
from mmbench.core.images import from_uint8
from mmbench.core.noise import Sample
from mmbench.metrics.inside_mask import (
    BestL1InMask,
    BestLPIPSInMask,
    BestPSNRInMask,
    BestSSIMInMask,
    L1InMask,
    LPIPSInMask,
    PSNRInMask,
    SSIMInMask,
)
from mmbench.metrics.l1 import L1
from mmbench.metrics.lpips import LPIPS
from mmbench.metrics.psnr import PSNR
from mmbench.metrics.ssim import SSIM

DRAWS = 3


def score(metric, images, batch):
    metric.update(images, batch)
    return metric.compute()


def masked(rows, columns, count=1, side=16):
    mask = torch.zeros(count, 1, side, side)
    mask[:, :, rows, columns] = 1
    return mask


@pytest.fixture
def filled(pixels, batch_of):
    """Three fills that are 10 levels off in a hole of 4 x 6 pixels, and far off everywhere else."""
    truth = pixels(3).clamp(max=200)
    mask = masked(slice(2, 6), slice(4, 10), 3)
    return torch.where(mask > 0, truth + 10, 255 - truth).byte(), batch_of(truth, mask=mask)


def test_what_lies_outside_of_the_hole_does_not_count(filled):
    images, batch = filled
    assert score(L1InMask(), images, batch).value == pytest.approx(10 / 255)
    assert score(PSNRInMask(), images, batch).value == pytest.approx(20 * math.log10(255 / 10))


def test_a_mean_is_over_the_pixels_of_the_hole_and_its_channels(batch_of):
    """By hand: of two pixels, one is 30 levels off in one channel alone; 30 / 6 = 5, 900 / 6 = 150."""
    truth = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    image = truth.clone()
    image[0, 1, 3, 3] = 130
    batch = batch_of(truth, mask=masked(3, slice(3, 5)))
    assert score(L1InMask(), image, batch).value == pytest.approx(5 / 255)
    assert score(PSNRInMask(), image, batch).value == pytest.approx(10 * math.log10(255**2 / 150))


def test_a_hole_that_is_the_picture_scores_as_the_picture(pixels, batch_of, make_extractor):
    images, batch = pixels(3, 1), batch_of(pixels(3), mask=torch.ones(3, 1, 16, 16))
    extractor = make_extractor()
    for inside, whole in (
        (L1InMask(), L1(against="image")),
        (PSNRInMask(), PSNR(against="image")),
        (SSIMInMask(), SSIM(against="image")),
        (LPIPSInMask(extractor), LPIPS(extractor, against="image")),
    ):
        assert score(inside, images, batch).value == pytest.approx(score(whole, images, batch).value, rel=1e-12)


def test_ssim_is_the_mean_of_its_map_in_the_hole(pixels, batch_of):
    truth, images = pixels(1, 0, 32), pixels(1, 1, 32)
    mask = masked(slice(7, 15), slice(2, 20), side=32)  # three columns of it have no window
    _, found = structural_similarity(
        truth[0].numpy(),
        images[0].numpy(),
        channel_axis=0,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    expected = found[:, 7:15, 5:20].mean()
    assert score(SSIMInMask(), images, batch_of(truth, mask=mask)).value == pytest.approx(expected, abs=1e-12)


def test_lpips_sees_no_change_outside_and_is_by_the_share_of_the_hole(pixels, batch_of, make_extractor):
    """The embedding of the test's extractor is the first three pixels of the first row."""
    truth, images = pixels(2), pixels(2, 1)
    extractor = make_extractor()
    whole = score(LPIPS(extractor, against="image"), images, batch_of(truth)).value
    first_row = batch_of(truth, mask=masked(0, slice(None), 2))
    assert score(LPIPSInMask(extractor), images, first_row).value == pytest.approx(16 * whole)
    elsewhere = batch_of(truth, mask=masked(5, slice(None), 2))
    assert score(LPIPSInMask(extractor), images, elsewhere).value == 0
    # An image that has its known pixels already is the one that other metrics have shown the extractor.
    images, calls = torch.where(first_row["mask"] > 0, images, truth), extractor.network.calls
    extractor(images)
    score(LPIPSInMask(extractor), images, first_row)
    assert extractor.network.calls == calls + 1  # the truth was shown before


def test_an_image_without_a_hole_or_with_one_that_cannot_be_scored_is_passed_over(pixels, batch_of, make_extractor):
    batch = batch_of(pixels(3), mask=masked(slice(2, 12), slice(2, 12), 3))
    batch["mask"][0] = 0
    for metric in (L1InMask(), PSNRInMask(), SSIMInMask(), LPIPSInMask(make_extractor())):
        assert score(metric, pixels(3, 1), batch).count == 2
    batch["mask"][1] = masked(0, slice(None))[0]  # on the border, where SSIM has no window
    assert score(SSIMInMask(), pixels(3, 1), batch).count == 1
    with pytest.raises(ValueError, match="mask, off the outermost 5 pixels, for SSIMInMask, found 0 of 1: turn"):
        score(SSIMInMask(), pixels(1, 1), {key: value[1:2] for key, value in batch.items()})
    batch["mask"][:] = 0
    empty = "expected at least one image with a hole in its mask for {}, found 0 of 3: turn the masks round if 1"
    for metric in (L1InMask(), PSNRInMask(), LPIPSInMask(make_extractor()), BestL1InMask(1)):
        with pytest.raises(ValueError, match=empty.format(type(metric).__name__)):
            score(metric, pixels(3, 1), batch)


def test_small_images_and_images_of_another_size_are_one_line(pixels, batch_of):
    with pytest.raises(ValueError, match="at least 11 x 11 pixels for SSIMInMask, found 8 x 8"):
        score(SSIMInMask(), pixels(1, 1, 8), batch_of(pixels(1, 0, 8), mask=torch.ones(1, 1, 8, 8)))
    with pytest.raises(ValueError, match=r"expected generated images of shape \(1, 3, 32, 32\)"):
        score(L1InMask(), pixels(1), batch_of(pixels(1, 0, 32), mask=torch.ones(1, 1, 32, 32)))


@pytest.fixture
def drawn(pixels):
    """Four images with three draws each; in the hole the second is nearest by L1, and the third by squares."""
    truth = pixels(4).repeat_interleave(DRAWS, dim=0) // 2
    mask = masked(slice(4, 12), slice(4, 12), 12)
    error = torch.zeros(12, 1, 16, 16)
    error[0::3, :, 4:12, 4:12] = 40
    error[1::3, :, 4:8, 4:6] = 80  # L1 10, MSE 800
    error[2::3, :, 4:12, 4:12] = 20  # L1 20, MSE 400
    samples = [Sample(f"bird/{row // DRAWS}", 1, row % DRAWS) for row in range(12)]
    return (truth + error).byte(), {"image": from_uint8(truth), "mask": mask, "sample": samples}


@pytest.mark.parametrize("order", [list(range(12)), [11, 0, 4, 3, 8, 1, 2, 10, 5, 9, 7, 6]])
def test_one_draw_is_chosen_by_l1_for_all_metrics(drawn, rows_of, make_extractor, order):
    images, batch = drawn
    order = torch.tensor(order)
    extractor = make_extractor()
    plain = {L1InMask(): BestL1InMask(DRAWS), PSNRInMask(): BestPSNRInMask(DRAWS), SSIMInMask(): BestSSIMInMask(DRAWS)}
    plain[LPIPSInMask(extractor)] = BestLPIPSInMask(DRAWS, extractor=extractor)
    second = torch.arange(1, 12, DRAWS)
    for of_one, best in plain.items():
        for rows in order.split(5):
            best.update(images[rows], rows_of(batch, rows))
        of_one.update(images[second], rows_of(batch, second))
        found, expected = best.compute(), of_one.compute()
        assert found.value == expected.value, type(best).__name__
        assert (found.std, found.count) == (expected.std, 12)


def test_the_mean_of_draws_is_over_them_all(drawn):
    images, batch = drawn
    assert score(L1InMask(), images, batch).value == pytest.approx((40 + 10 + 20) / 3 / 255)
    assert score(BestL1InMask(DRAWS), images, batch).value == pytest.approx(10 / 255)
    assert score(BestPSNRInMask(DRAWS), images, batch).value == pytest.approx(10 * math.log10(255**2 / 800))


def test_the_values_of_a_best_draw_lie_at_that_draw(drawn):
    images, batch = drawn
    metric = BestL1InMask(DRAWS)
    score(metric, images, batch)
    assert (~metric.sample_values.isnan()).nonzero().flatten().tolist() == [1, 4, 7, 10]


def test_of_equal_draws_it_is_the_first_and_of_one_draw_it_is_the_plain_metric(drawn, rows_of):
    images, batch = drawn
    same = images[::3].repeat_interleave(DRAWS, dim=0)
    metric = BestPSNRInMask(DRAWS)
    assert score(metric, same, batch).value == score(PSNRInMask(), same, batch).value
    assert (~metric.sample_values.isnan()).nonzero().flatten().tolist() == [0, 3, 6, 9]
    single = rows_of(batch, torch.arange(0, 12, 3))
    assert score(BestPSNRInMask(1), images[::3], single).value == score(PSNRInMask(), images[::3], single).value


def test_draws_of_an_image_without_a_hole_are_not_counted(drawn):
    images, batch = drawn
    batch["mask"][3:6] = 0
    found = score(BestL1InMask(DRAWS), images, batch)
    assert (found.value, found.count) == (pytest.approx(10 / 255), 9)
    assert score(L1InMask(), images, batch).count == 9


def test_another_number_of_draws_is_refused(drawn):
    with pytest.raises(ValueError, match="expected 2 draws of each prompt for BestL1InMask, found 3 of bird/0: set"):
        score(BestL1InMask(2), *drawn)


def test_the_metrics_take_the_draws_of_their_protocol():
    words = ["method=mean_colour", "protocol=strict_inpainting", "data.source=toy"]
    for more, draws in (([], 5), (["protocol.draws=2"], 2)):
        metrics = composed([*words, *more])["protocol"]["metrics"]
        best = {name: facts for name, facts in metrics.items() if name.startswith("best_")}
        assert len(best) == 4
        assert {facts["draws"] for facts in best.values()} == {draws}
    assert construct(node("metric/best_l1_in_mask")).draws == 1
