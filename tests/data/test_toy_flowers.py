"""Toy flowers are what their attributes and captions say, in Oxford-102's layout, and the same each time."""

import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
from PIL import Image

from mmbench.core.files import sha256_file
from mmbench.core.images import to_uint8
from mmbench.core.noise import random_stream
from mmbench.data.oxford102 import ZERO_SHOT_TEST_CLASSES, ToyOxford102
from mmbench.data.toy import oxford102 as toy_oxford102
from mmbench.data.toy.birds import COLOURS, PALETTE
from mmbench.data.toy.flowers import (
    NUM_CLASSES,
    PARTS,
    PETAL_PATTERNS,
    PETAL_SHAPES,
    class_attributes,
    describe,
    render,
    sample_flower,
)
from mmbench.metrics.edit_accuracy import INSIDE, MIN_PIXELS, EditAccuracy


def _flower(index):
    return sample_flower(random_stream("flower", index))


def _picture(flower, index):
    return render(flower, random_stream("picture", index))


def _nearest_colour(pixels):
    distances = np.linalg.norm(np.array(list(PALETTE.values())) - np.median(pixels, axis=0), axis=1)
    return COLOURS[int(distances.argmin())]


def test_every_part_shows_its_colour():
    for index in range(60):
        flower = _flower(index)
        image, parts = _picture(flower, index)
        assert 110 <= min(parts.shape) <= max(parts.shape) <= 180
        assert image.shape == (*parts.shape, 3)
        assert set(np.unique(parts)) == set(range(len(PARTS) + 1))
        for number, part in enumerate(PARTS, 1):
            assert (parts == number).sum() >= 60, (index, part)
            assert _nearest_colour(image[parts == number]) == getattr(flower, part), (index, part)


@pytest.mark.parametrize("part", PARTS)
def test_a_recoloured_part_changes_nothing_else(part):
    for index in range(4):
        flower = _flower(index)
        before = _picture(flower, index)
        after = _picture(replace(flower, **{part: "red" if getattr(flower, part) != "red" else "blue"}), index)
        assert np.array_equal(before.parts, after.parts)
        changed = (before.image != after.image).any(-1)
        inside = before.parts == 1 + PARTS.index(part)
        assert changed[inside].mean() > 0.5
        # Reduced from three times the size: a pixel beside the part may hold a little of it.
        near = np.lib.stride_tricks.sliding_window_view(np.pad(inside, 1), (3, 3)).any((2, 3))
        assert (changed & ~near).sum() <= 0.02 * inside.sum()


def test_captions_name_true_attributes_only_and_say_them():
    texts, numbers = set(), Counter()
    for index in range(400):
        flower = _flower(index)
        caption, named = describe(flower, random_stream("caption", index))
        assert named.items() <= flower.attributes.items()
        assert set(named) & set(PARTS)
        words = Counter(re.findall(r"\w+", caption))
        values = {*COLOURS, *PETAL_SHAPES, *PETAL_PATTERNS}
        # Each value is said as often as it is named, and no colour, shape or pattern besides.
        assert Counter({word: count for word, count in words.items() if word in values}) == Counter(named.values())
        for part in PARTS:
            said = {"centre": {"centre", "middle"}, "stem": {"stem", "stalk"}}.get(part, {part}) & words.keys()
            assert bool(said) == (part in named or (part == "petals" and bool(named.keys() - set(PARTS))))
        assert caption == caption.lower()
        texts.add(caption)
        numbers[len(named)] += 1
    assert len(texts) > 300
    assert set(numbers) == {1, 2, 3}


def test_classes_differ_and_test_classes_combine_what_was_seen_in_training():
    prototypes = {number: class_attributes(number) for number in range(1, NUM_CLASSES + 1)}
    assert len({tuple(fixed.values()) for fixed in prototypes.values()}) == NUM_CLASSES
    for name, values in (("petals", COLOURS), ("petal_shape", PETAL_SHAPES), ("petal_pattern", PETAL_PATTERNS)):
        training = {fixed[name] for number, fixed in prototypes.items() if number not in ZERO_SHOT_TEST_CLASSES}
        assert training == set(values)
    for wrong in (0, 103):
        with pytest.raises(ValueError, match=f"expected a toy flower class from 1 to 102, found {wrong}"):
            class_attributes(wrong)


def _hashes(root):
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): sha256_file(path) for path in files}


@pytest.fixture(scope="module")
def toy_root(tmp_path_factory):
    """110 toy flowers of seed 3; not to be changed."""
    root = tmp_path_factory.mktemp("toy") / "flowers"
    toy_oxford102.write(root, 3, 110)
    return root


def test_the_same_seed_gives_the_same_bytes_and_more_images_change_none(toy_root, tmp_path, monkeypatch):
    toy_oxford102.write(tmp_path / "again", 3, 102)
    again, more = _hashes(tmp_path / "again"), _hashes(toy_root)
    names = [name for name in again if name.endswith((".jpg", ".png", ".txt"))]
    assert len(names) == 4 * 102
    assert all(more[name] == again[name] for name in names)
    sets = {root: scipy.io.loadmat(root / "setid.mat") for root in (toy_root, tmp_path / "again")}
    for key in ("trnid", "valid", "tstid"):
        assert set(sets[tmp_path / "again"][key][0]) == {n for n in sets[toy_root][key][0] if n <= 102}
    monkeypatch.setattr(toy_oxford102, "_write_image", lambda root, seed, number: f"{seed} {number}\n")
    toy_oxford102.write(tmp_path / "tables", 3, 110)
    tables = ("imagelabels.mat", "setid.mat")  # SciPy writes the date into such files
    assert [sha256_file(tmp_path / "tables" / name) for name in tables] == [more[name] for name in tables]


def test_another_seed_gives_other_pictures(toy_root, tmp_path):
    for folder in ("jpg", "segmim", "toy/parts", "text_c10/class_00001"):
        (tmp_path / folder).mkdir(parents=True)
    toy_oxford102._write_image(tmp_path, 4, 1)
    for name in _hashes(tmp_path):
        assert sha256_file(tmp_path / name) != sha256_file(toy_root / name)


@pytest.mark.parametrize("count", [101, 100_000])
def test_numbers_of_images_that_cannot_be(tmp_path, count):
    with pytest.raises(ValueError, match=f"expected 102 to 99,999 toy flowers, at least one per class, found {count}"):
        toy_oxford102.write(tmp_path, 0, count)
    assert not list(tmp_path.iterdir())


def test_layout_is_the_one_of_the_archives(toy_root):
    labels = scipy.io.loadmat(toy_root / "imagelabels.mat")["labels"]
    sets = scipy.io.loadmat(toy_root / "setid.mat")
    assert (labels.shape, labels.dtype, labels.min(), labels.max()) == ((1, 110), np.uint8, 1, 102)
    for key in ("trnid", "valid", "tstid"):
        assert (len(sets[key]), sets[key].dtype) == (1, np.uint16)
        assert sets[key].size > 10
    assert sorted(np.concatenate([sets[key][0] for key in ("trnid", "valid", "tstid")])) == list(range(1, 111))
    known = [json.loads(line) for line in (toy_root / "toy" / "attributes.jsonl").read_text().splitlines()]
    for number, class_id in enumerate(labels[0], 1):
        key = f"image_{number:05d}"
        lines = (toy_root / "text_c10" / f"class_{class_id:05d}" / f"{key}.txt").read_bytes()
        assert lines.endswith(b"\n")
        assert len(lines.decode().splitlines()) == 10
        assert known[number - 1]["id"] == key
        assert class_attributes(int(class_id)).items() <= known[number - 1]["attributes"].items()
        with (
            Image.open(toy_root / "jpg" / f"{key}.jpg") as image,
            Image.open(toy_root / "segmim" / f"segmim_{number:05d}.jpg") as mask,
            Image.open(toy_root / "toy" / "parts" / f"{key}.png") as parts,
        ):
            assert image.size == mask.size == parts.size
            assert (image.format, mask.format) == ("JPEG", "JPEG")
            blue = np.asarray(mask.convert("RGB"))[np.asarray(parts) == 0]
            assert np.median(blue, axis=0).tolist() == [0, 0, 254]


def test_every_part_can_be_judged_at_64_pixels_and_has_its_colour(toy_root):
    """The true image is a right edit by edit accuracy's rule: that is what flowers are for."""
    common = {"image_size": 64, "batch_size": 4, "num_workers": 0, "seed": 0, "split_scheme": "zero_shot"}
    data = ToyOxford102(root=toy_root, assets=toy_root.parent, num_images=110, toy_seed=3, **common)
    metric = EditAccuracy(PARTS, PALETTE)
    for split in data.records:
        for item in data.evaluation(split, data.samples(split), 0):
            parts = item["parts"]
            assert parts.shape == (len(PARTS), 64, 64)
            assert (parts.sum(0) <= 1.02).all()
            assert ((parts >= INSIDE).sum((1, 2)) >= 2 * MIN_PIXELS).all()
            named = {part: item["attributes"][part] for part in PARTS}
            batch = {"parts": parts[None], "prompt_attributes": [named]}
            metric.update(to_uint8(item["image"])[None], batch)
    assert metric.compute()[::2] == (1, 110)
