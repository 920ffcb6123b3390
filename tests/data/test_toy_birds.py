"""Toy birds are what their attributes and captions say, in CUB's layout, and the same each time."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mmbench.core.files import sha256_file
from mmbench.core.noise import random_stream
from mmbench.data.archives import receipts
from mmbench.data.toy import birds as toy_birds
from mmbench.data.toy import cub as toy_cub
from mmbench.data.toy.birds import COLOURS, NUM_CLASSES, PALETTE, PARTS, TEST_CLASSES, describe, render, sample_bird


def _bird(index):
    return sample_bird(random_stream("bird", index))


def _picture(bird, index):
    return render(bird, random_stream("picture", index))


def _nearest_colour(pixels):
    distances = np.linalg.norm(np.array(list(PALETTE.values())) - np.median(pixels, axis=0), axis=1)
    return COLOURS[int(distances.argmin())]


def test_every_part_shows_its_colour():
    for index in range(60):
        bird = _bird(index)
        image, parts, _ = _picture(bird, index)
        for index, part in enumerate(PARTS, 1):
            mask = parts == index
            assert mask.sum() >= 12, (index, part)
            assert _nearest_colour(image[mask]) == getattr(bird, part), (index, part)


def test_a_recoloured_part_changes_nothing_else():
    for index in range(8):
        bird = _bird(index)
        before = _picture(bird, index)
        after = _picture(replace(bird, wing="red" if bird.wing != "red" else "blue"), index)
        assert np.array_equal(before.parts, after.parts)
        changed = (before.image != after.image).any(-1)
        wing = before.parts == 1 + PARTS.index("wing")
        assert changed[wing].mean() > 0.5
        # Reduced from three times the size: a pixel beside the wing may hold a little of it.
        near = np.pad(wing, 1)
        near = np.max([np.roll(near, shift, (0, 1)) for shift in np.ndindex(3, 3)], axis=0)[2:, 2:]
        beside = changed & ~near
        assert beside.sum() <= 0.02 * wing.sum()


def test_the_box_is_the_extent_of_the_bird():
    for index in range(20):
        image, parts, (x, y, width, height) = _picture(_bird(index), index)
        assert 110 <= min(parts.shape) <= max(parts.shape) <= 180
        assert image.shape == (*parts.shape, 3)
        inside = parts[y : y + height, x : x + width]
        assert (inside > 0).sum() == (parts > 0).sum()
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()


def test_palette_is_well_separated():
    colours = np.array(list(PALETTE.values()), dtype=float)
    distances = np.linalg.norm(colours[:, None] - colours, axis=-1) + 1000 * np.eye(len(colours))
    assert distances.min() > 75


def test_captions_name_true_attributes_only_and_say_them():
    texts, subsets = set(), Counter()
    for index in range(300):
        bird = _bird(index)
        caption, named = describe(bird, random_stream("caption", index))
        assert named.items() <= bird.attributes.items()
        words = set(re.findall(r"\w+", caption))
        assert set(named.values()) <= words
        # No colour, shape or pattern is said that is not named.
        values = {*COLOURS, *toy_birds.BILL_SHAPES, *toy_birds.WING_PATTERNS}
        assert words & values == set(named.values())
        assert caption == caption.lower()
        texts.add(caption)
        subsets[sum(part in named for part in PARTS)] += 1
    assert len(texts) > 250
    assert set(subsets) == {1, 2, 3}


def test_classes_differ_and_every_colour_is_seen_in_training():
    prototypes = [tuple(toy_birds.class_attributes(number).values()) for number in range(1, NUM_CLASSES + 1)]
    assert len(set(prototypes)) == NUM_CLASSES
    assert len({toy_birds.class_name(number) for number in range(1, NUM_CLASSES + 1)}) == NUM_CLASSES
    assert len(TEST_CLASSES) == NUM_CLASSES // 4
    training = [toy_birds.class_attributes(n) for n in range(1, NUM_CLASSES + 1) if n not in TEST_CLASSES]
    assert {fixed["crown"] for fixed in training} == {fixed["belly"] for fixed in training} == set(COLOURS)
    with pytest.raises(ValueError, match="expected a toy bird class from 1 to 40, found 41"):
        toy_birds.class_name(41)


def _hashes(root):
    """Of what `write` wrote; the archives and what is written down of them aside."""
    files = (path for folder in ("CUB_200_2011", "segmentations", "text_c10") for path in (root / folder).rglob("*"))
    return {str(path.relative_to(root)): sha256_file(path) for path in files if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(toy_root, toy, tmp_path):
    toy(root=tmp_path / "again").prepare_data()
    first = _hashes(toy_root)
    assert _hashes(tmp_path / "again") == first
    sums = [
        {name: receipt["sha256"] for name, receipt in receipts(root).items()} for root in (toy_root, tmp_path / "again")
    ]
    assert sums[0] == sums[1]
    assert len(sums[0]) == 3
    toy(root=tmp_path / "other", toy_seed=4).prepare_data()
    changed = {name for name, value in _hashes(tmp_path / "other").items() if first[name] != value}
    assert len({name for name in changed if name.endswith(".jpg")}) == 80


def test_more_images_change_none(toy_root, tmp_path):
    toy_cub.write(tmp_path / "fewer", 3, 40)
    fewer, all_ = _hashes(tmp_path / "fewer"), _hashes(toy_root)
    names = [name for name in fewer if name.endswith((".jpg", ".png")) or name.startswith("text_c10")]
    assert len(names) == 4 * 40
    assert all(all_[name] == fewer[name] for name in names)


def test_written_data_are_left_alone_and_others_refused(toy_root, toy, tmp_path):
    stamps = {path: path.stat().st_mtime_ns for path in toy_root.rglob("*")}
    toy().prepare_data()
    assert stamps == {path: path.stat().st_mtime_ns for path in toy_root.rglob("*")}
    with pytest.raises(ValueError, match=r"expected toy data .*'images': 81.* found .*'images': 80") as error:
        toy(num_images=81).prepare_data()
    assert "\n" not in str(error.value)
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "mine.jpg").touch()
    with pytest.raises(ValueError, match="found other files"):
        toy(root=tmp_path / "photographs").prepare_data()
    with pytest.raises(ValueError, match="expected at least 40 toy images"):
        toy(root=tmp_path / "few", num_images=39).prepare_data()
    assert not (tmp_path / "few").exists()


def test_what_a_killed_writer_left_is_no_data_set(toy_root, toy, tmp_path):
    left = tmp_path / ".birds.partial" / "tree" / "CUB_200_2011"
    left.mkdir(parents=True)
    (left / "images.txt").write_text("1 half\n")
    toy(root=tmp_path / "birds").prepare_data()
    assert _hashes(tmp_path / "birds") == _hashes(toy_root)
    assert not left.exists()


def test_layout_is_the_one_of_the_archives(toy_root):
    cub = toy_root / "CUB_200_2011"
    index = [line.split(" ") for line in (cub / "images.txt").read_text().splitlines()]
    assert [int(number) for number, _ in index] == list(range(1, 81))
    for table in ("bounding_boxes", "image_class_labels", "train_test_split"):
        content = (cub / f"{table}.txt").read_bytes()
        assert content.endswith(b"\n")
        assert b"\r" not in content
        assert len(content.splitlines()) == 80
    assert re.fullmatch(r"1 \d+\.0 \d+\.0 \d+\.0 \d+\.0", (cub / "bounding_boxes.txt").read_text().splitlines()[0])
    for _, file in index:
        key = file.removesuffix(".jpg")
        folder, name = key.split("/")
        assert not name.startswith(folder.partition(".")[2])  # CUB's quirk: the two do not spell alike
        assert name.lower().startswith(folder.partition(".")[2].lower())
        lines = (toy_root / "text_c10" / f"{key}.txt").read_bytes()
        assert lines.endswith(b"\n")
        assert len(lines.decode().splitlines()) == 10
        with (
            Image.open(cub / "images" / file) as image,
            Image.open(toy_root / "segmentations" / f"{key}.png") as mask,
            Image.open(cub / "toy" / "parts" / f"{key}.png") as parts,
        ):
            assert image.size == mask.size == parts.size
            assert set(np.unique(mask)) == {0, 255}
            assert np.array_equal(np.asarray(parts) > 0, np.asarray(mask) > 0)
