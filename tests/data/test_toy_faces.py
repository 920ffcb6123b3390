"""Toy faces are what their attributes and captions say, and the same each time."""

import pickle
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mmbench.core.files import sha256_file
from mmbench.core.noise import random_stream
from mmbench.data.toy import celeba_hq as toy_celeba_hq
from mmbench.data.toy.birds import COLOURS, PALETTE
from mmbench.data.toy.faces import PARTS, REGIONS, SIDE, describe, render, sample_face
from mmbench.data.views import View


def _face(index):
    return sample_face(random_stream("face", index))


def _picture(face, index):
    return render(face, random_stream("picture", index))


def _nearest_colour(pixels):
    distances = np.linalg.norm(np.array(list(PALETTE.values())) - np.median(pixels, axis=0), axis=1)
    return COLOURS[int(distances.argmin())]


def test_every_part_shows_its_colour_also_at_64_pixels():
    at_64 = View.centred((0, 0, SIDE, SIDE), 64)
    for index in range(60):
        face = _face(index)
        image, parts, _ = _picture(face, index)
        small = at_64(Image.fromarray(image))
        for place, part in enumerate(PARTS, 1):
            colour, mask = getattr(face, part), parts == place
            assert mask.any() == (colour != "none"), (index, part)
            if mask.any():
                assert _nearest_colour(image[mask]) == colour, (index, part)
                # What judges of edits look at: six pixels or more that are covered to nine tenths.
                inside = at_64(Image.fromarray(np.uint8(255) * mask)) >= 0.9 * 255
                assert inside.sum() >= 6, (index, part)
                assert _nearest_colour(small[inside]) == colour, (index, part)


def test_colours_can_be_told_from_skin_and_hair_from_what_it_lies_on():
    worn = Counter()
    for index in range(300):
        face = _face(index)
        colours = [PALETTE[getattr(face, part)] for part in PARTS if getattr(face, part) != "none"]
        assert min(np.linalg.norm(np.subtract(colour, face.skin)) for colour in colours) >= 60
        assert face.hair not in (face.hat, face.cloth)
        worn[face.hat != "none"] += 1
        worn[face.hair] += 1
    assert 60 < worn[True] < 180
    assert all(worn[colour] for colour in COLOURS)


@pytest.mark.parametrize(("part", "colours"), [("cloth", ("red", "blue")), ("hair", ("green", "white"))])
def test_a_recoloured_part_changes_nothing_else(part, colours):
    for index in range(4):
        before, after = (_picture(replace(_face(index), **{part: colour}), index) for colour in colours)
        assert np.array_equal(before.parts, after.parts)
        changed = (before.image != after.image).any(-1)
        recoloured = before.parts == 1 + PARTS.index(part)
        assert changed[recoloured].mean() > 0.9
        # Reduced from three times the size, under outlines: a pixel beside the part may hold a little of it.
        near = np.pad(recoloured, 2)
        near = np.max([np.roll(near, shift, (0, 1)) for shift in np.ndindex(5, 5)], axis=0)[4:, 4:]
        assert (changed & ~near).sum() <= 0.01 * recoloured.sum()


def test_masks_are_of_what_is_there():
    assert len(set(REGIONS)) == 18
    seen = Counter()
    for index in range(60):
        face = _face(index)
        _, parts, masks = _picture(face, index)
        seen.update(masks)
        assert ("hat" in masks) == (face.hat != "none")
        assert ("eye_g" in masks) == face.glasses
        assert ("mouth" in masks) == face.smiling
        assert ("l_ear" in masks) == ("r_ear" in masks) == (face.hair_length == "short")
        assert ("neck_l" in masks) == (face.necklace and face.collar != "high")
        assert {"skin", "nose", "l_eye", "r_eye", "u_lip", "l_lip", "hair", "cloth"} <= masks.keys()
        # The person's own right lies on the left.
        assert np.nonzero(masks["r_eye"])[1].mean() < np.nonzero(masks["l_eye"])[1].mean()
        assert (masks["nose"] <= masks["skin"]).all()
        assert sum(mask.astype(int) for name, mask in masks.items() if name != "skin").max() == 1
        # Half the picture's size: what hair covers whole there is hair here, what it does not touch is none.
        drawn = (parts == 1 + PARTS.index("hair")).reshape(SIDE // 2, 2, SIDE // 2, 2).mean((1, 3))
        wrong = np.isin(drawn, (0, 1)) & (masks["hair"] != drawn)
        assert wrong.sum() <= 0.01 * masks["hair"].sum()
    assert seen.keys() == set(REGIONS)


def test_captions_name_true_attributes_only_and_say_them():
    texts, counts, sentences = set(), Counter(), Counter()
    for index in range(400):
        face = _face(index)
        caption, named = describe(face, random_stream("caption", index))
        assert named.items() <= face.attributes.items()
        words = set(re.findall(r"\w+", caption.lower()))
        # No colour is said that is not named; what is not there is not spoken of.
        assert words & set(COLOURS) == {named[name] for name in (*PARTS, "eyes") if name in named}
        assert words & {"long", "short"} == {named[name] for name in ("hair_length",) if name in named}
        assert ("eyeglasses" in words) == ("glasses" in named)
        assert ("smiling" in words) == ("smiling" in named)
        assert not {"no", "none"} & (words | set(named.values()))
        for thing in ("hair", "hat", "lips", "eyes"):
            assert (thing in words) == (thing in named)
        assert bool(words & {"man", "he"}) == face.male != bool(words & {"woman", "she"})
        assert set(PARTS) & named.keys()
        assert re.fullmatch(r"[A-Z][^.]+\.( (He|She) [^.]+\.)?", caption)
        texts.add(caption)
        counts[len(named.keys() - {"hair_length"})] += 1
        sentences[caption.count(".")] += 1
    assert len(texts) > 300
    assert set(counts) == {1, 2, 3}
    assert min(sentences[1], sentences[2]) > 50


def _hashes(root):
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in files}


def test_the_same_seed_gives_the_same_bytes_and_more_images_change_none(tmp_path):
    for name, seed, count in (("once", 3, 8), ("again", 3, 8), ("more", 3, 10), ("other", 4, 8)):
        toy_celeba_hq.write(tmp_path / name, seed, count)
    once, more, other = _hashes(tmp_path / "once"), _hashes(tmp_path / "more"), _hashes(tmp_path / "other")
    assert _hashes(tmp_path / "again") == once
    own = [name for name in once if re.search(r"(\d+\.(jpg|txt)|\.png)$", name)]
    assert len(own) > 8 * 12
    assert all(more[name] == once[name] for name in own)
    assert all(other[name] != once[name] for name in own if name.endswith(".jpg"))


def test_files_are_as_those_of_the_archives(tmp_path):
    toy_celeba_hq.write(tmp_path, 3, 5)
    celeba = tmp_path / "CelebAMask-HQ"
    for number in range(5):
        with Image.open(celeba / "CelebA-HQ-img" / f"{number}.jpg") as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIDE, SIDE))
        assert len((tmp_path / "celeba-caption" / f"{number}.txt").read_text().splitlines()) == 10
    for path in (celeba / "CelebAMask-HQ-mask-anno" / "0").iterdir():
        assert re.fullmatch(rf"0000[0-4]_({'|'.join(REGIONS)})\.png", path.name)
        with Image.open(path) as mask:
            assert (mask.mode, mask.size) == ("RGB", (SIDE // 2, SIDE // 2))
            assert set(np.unique(np.asarray(mask))) == {0, 255}
    mapping = (celeba / "CelebA-HQ-to-CelebA-mapping.txt").read_text().splitlines()
    assert mapping[0].split() == ["idx", "orig_idx", "orig_file"]
    assert mapping[1].split() == ["0", "0", "000001.jpg"]
    table = (celeba / "CelebAMask-HQ-attribute-anno.txt").read_text().splitlines()
    assert table[0] == "5"
    assert {len(row.split()) for row in table[2:]} == {1 + len(table[1].split())}
    lists = [pickle.loads((tmp_path / f"mm_celeba_{name}_filenames.pickle").read_bytes()) for name in ("train", "test")]
    assert lists == [["0", "1", "2", "3"], ["4"]]


@pytest.mark.parametrize("count", [4, 30_001])
def test_too_few_and_too_many(tmp_path, count):
    with pytest.raises(ValueError, match=f"expected 5 to 30000 toy faces, found {count}: ask for another number"):
        toy_celeba_hq.write(tmp_path / "faces", 3, count)
    assert not (tmp_path / "faces").exists()
