"""Numbers of a data set, counted a second time from its files."""

import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from mmbench.data import statistics
from mmbench.data.cub import CUB
from mmbench.data.records import Instance
from mmbench.data.statistics import PUBLISHED, measured, report
from mmbench.data.views import Squash


def _filled(size):
    return np.full(size[::-1], 255, np.uint8)


def _left_half(size):
    index = np.zeros(size[::-1], np.uint8)
    index[:, : size[0] // 2] = 1
    return index


@pytest.fixture
def numbers(toy):
    data = toy()
    return data, measured(data)


def test_texts_are_those_of_the_files(numbers, toy_root):
    _, found = numbers
    texts = [line for path in (toy_root / "text_c10").rglob("*.txt") for line in path.read_text().splitlines()]
    words = [re.findall("[a-z0-9]+", text.lower()) for text in texts]
    assert (found["train images"], found["test images"], found["captions"]) == (60, 20, 800)
    assert found["vocabulary"] == len({word for caption in words for word in caption}) + 1
    assert found["words of a caption, mean"] == pytest.approx(sum(map(len, words)) / 800)
    assert found["words of a caption, most"] == max(map(len, words))


def test_sizes_are_those_of_the_pictures(numbers, toy_root):
    _, found = numbers
    sizes = []
    for path in (toy_root / "CUB_200_2011" / "images").rglob("*.jpg"):
        with Image.open(path) as picture:
            sizes.append(np.asarray(picture).shape)
    heights, widths, _ = np.array(sizes).T
    for name, values in (("width", widths), ("height", heights)):
        assert found[f"image {name}, least"] == values.min()
        assert found[f"image {name}, median"] == np.median(values)
        assert found[f"image {name}, most"] == values.max()


def test_mask_areas_are_those_of_the_batches(numbers, toy):
    _, found = numbers
    assert found["mask area, centre (%)"] == 25
    assert "mask area, largest object (%)" not in found
    assert "objects of an image" not in found
    for name in ("object", "rectangles", "strokes"):
        data = toy(mask=statistics.MASKS[name])
        holes = [item["mask"].mean().item() for item in data.evaluation("test", data.samples("test"), 0, {"mask"})]
        assert found[f"mask area, {name} (%)"] == pytest.approx(100 * np.mean(holes), rel=1e-5)


def test_the_whole_picture_has_less_of_the_object_than_the_crop(numbers, toy):
    _, found = numbers
    whole = measured(toy(bird_crop=False, preprocessing=Squash()))
    assert whole["mask area, object (%)"] < found["mask area, object (%)"]


def test_objects_are_counted_over_images_that_have_any(toy):
    data = toy(preprocessing=Squash())
    one, crowd = Instance(1, (0, 0, 9, 9), _left_half), Instance(1, (0, 0, 9, 9), _filled, is_crowd=True)
    kinds = [(one, one, crowd), (one,), (crowd,), ()]
    for split, records in data.records.items():
        data.records[split] = [
            replace(record, instances=kinds[place % 4], box=None, salient=partial(_filled))
            for place, record in enumerate(records)
        ]
    found = measured(data)
    assert found["objects of an image"] == pytest.approx((3 + 1 + 1) / 3)
    # Only images with an object that is no crowd; a pixel that is touched is hole.
    assert 50 <= found["mask area, largest object (%)"] <= 100 * 17 / 32
    assert found["mask area, object (%)"] == 100


def test_the_table_shows_published_numbers_for_real_data_only(numbers, real_copy, read):
    data, found = numbers
    assert "34.59" not in report(data)
    real = read(real_copy)
    assert type(real) is CUB
    table = report(real)
    rows = {cells[1].strip(): cells[2:4] for cells in (line.split("|") for line in table.splitlines())}
    assert set(PUBLISHED["CUB"]) <= rows.keys()
    for name, text in (
        ("vocabulary", "5,450"),
        ("words of a caption, mean", "15.23"),
        ("mask area, object (%)", "34.59"),
    ):
        assert rows[name][1].strip() == text
    assert rows["vocabulary"][0].strip() == f"{found['vocabulary']:,}"
    assert rows["mask area, strokes (%)"][1].strip() == ""


def test_published_numbers_go_by_names_that_are_measured(numbers):
    _, found = numbers
    for published in PUBLISHED.values():
        assert published.keys() <= found.keys() | {"objects of an image"}


def test_an_unreadable_picture_is_named(real_copy, read):
    data = read(real_copy)
    path = data.split("test")[0].image
    path.write_bytes(b"<html>quota exceeded</html>")
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: expected a whole image, found what is no image"):
        measured(data)


@pytest.mark.assets
def test_of_the_real_birds(shared_real, read):
    found = measured(read(shared_real / "cub", image_size=64))
    assert (found["train images"], found["test images"], found["captions"]) == (6, 6, 120)
    assert min(found["image width, least"], found["image height, least"]) == 121
    assert 12 < found["words of a caption, mean"] < 19
    assert "mask area, object (%)" not in found  # no segmentations there
