"""The twelve real images, wherever they are: the greyscale one, the small one, an overrunning box, a broken caption."""

import json

import pytest
import torch

from mmbench.core.images import from_uint8, read_rgb, to_uint8, write_png
from mmbench.core.text import tokenise

pytestmark = pytest.mark.assets


@pytest.fixture
def birds(shared_real, read):
    return read(shared_real / "cub", image_size=256)


def test_splits_and_captions(birds):
    assert [len(birds.split(name)) for name in ("train", "test")] == [6, 6]
    assert {record.class_id for record in birds.split("test")} <= {1, 4, 6, 8, 9}
    assert all("\ufffd" not in caption for split in birds.records.values() for r in split for caption in r.captions)
    broken = next(r for split in birds.records.values() for r in split if r.id.endswith("0029_796357"))
    repaired = next(caption for caption in broken.captions if caption.startswith("this bird has a dark grey belly"))
    assert tokenise(repaired)[:7] == ["this", "bird", "has", "a", "dark", "grey", "belly"]
    assert len(birds.vocabulary()) > 100


def test_official_split(shared_real, read):
    data = read(shared_real / "cub", split_scheme="official")
    rows = (shared_real / "cub/CUB_200_2011/train_test_split.txt").read_text().splitlines()
    assert len(data.split("train")) == sum(row.endswith(" 1") for row in rows)


@pytest.mark.parametrize("size", [64, 256])
def test_all_images_through_both_crops(shared_real, read, size, tmp_path):
    for scheme in ("zero_shot", "official"):
        data = read(shared_real / "cub", image_size=size, split_scheme=scheme, batch_size=2)
        seen = 0
        for split in ("train", "test"):
            for item in data.evaluation(split, data.samples(split), 0):
                assert item["image"].shape == item["image_mismatched"].shape == (3, size, size)
                assert -1 <= item["image"].min() < item["image"].max() <= 1
                write_png(tmp_path / "image.png", to_uint8(item["image"]))
                assert torch.equal(from_uint8(read_rgb(tmp_path / "image.png")), item["image"])
                seen += 1
        assert seen == 12
        for batch in data.train_dataloader():
            assert batch["image"].shape == (2, 3, size, size)


def test_the_greyscale_image_has_three_equal_channels(birds):
    images = {item["id"]: item["image"] for item in birds.reference("test")}
    grey = next(image for key, image in images.items() if key.endswith("0028_2682"))
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[1], grey[2])
    assert any(not torch.equal(image[0], image[1]) for image in images.values())


def test_zero_shot_test_images_do_not_train(birds):
    ids = [record.id for split in birds.records.values() for record in split]
    assert len(ids) == len(set(ids)) == 12
    assert json.dumps(sorted(ids))  # plain strings
