"""What every metric is spared: images that are no levels, and pixels that are no numbers."""

import pytest

from mmbench.metrics import MetricSuite
from mmbench.metrics.psnr import PSNR


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_no_numbers_are_an_error_with_their_id(pixels, batch_of, value):
    batch = batch_of(pixels(3))
    batch["image"][1, 0, 5, 5] = value
    with pytest.raises(ValueError, match=r"found NaN or infinity in bird/0001: ") as error:
        MetricSuite({"psnr": PSNR(against="image")}).update(pixels(3), batch)
    assert "bird/0000" not in str(error.value)


def test_generated_images_are_levels(pixels, batch_of):
    with pytest.raises(
        ValueError, match=r"expected generated images as uint8 levels, found torch\.float32: round them"
    ):
        MetricSuite({"psnr": PSNR(against="image")}).update(pixels(3) / 255, batch_of(pixels(3)))
