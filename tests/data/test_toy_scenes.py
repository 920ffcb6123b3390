"""Toy scenes are what their attributes and captions say, and the same each time."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from mmbench.core.files import sha256_file
from mmbench.core.images import to_uint8
from mmbench.core.noise import random_stream
from mmbench.core.text import tokenise
from mmbench.data.coco import ToyCOCO
from mmbench.data.toy import coco as toy_coco
from mmbench.data.toy.birds import COLOURS, PALETTE
from mmbench.data.toy.scenes import CATEGORIES, PARTS, describe, oddly, render, sample_scene
from mmbench.metrics.edit_accuracy import EditAccuracy, lab

NUM_IMAGES = 28


def _scene(index, **kind):
    return sample_scene(random_stream("scene", index), **kind)


def _picture(scene, index):
    return render(scene, random_stream("picture", index))


def _area(polygons, shape):
    """Where polygons of a thing are, by COCO's rule."""
    height, width = shape
    return rle.decode(rle.merge(rle.frPyObjects([polygon.ravel().tolist() for polygon in polygons], height, width))) > 0


def test_every_part_shows_its_colour():
    palette = lab(torch.tensor(list(PALETTE.values())))
    seen = Counter()
    for index in range(60):
        scene = _scene(index)
        image, parts, _, _ = _picture(scene, index)
        for category, colour in scene.attributes.items():
            pixels = torch.from_numpy(image[parts == 1 + PARTS.index(category)]).float()
            assert len(pixels) >= 60, (index, category)
            nearest = torch.cdist(lab(pixels), palette).argmin(1)
            assert (nearest == COLOURS.index(colour)).float().mean() >= 0.9, (index, category, colour)
            seen[category] += 1
    assert set(seen) == set(PARTS)


def test_edits_are_judged_right_at_the_size_of_the_demo(tmp_path):
    """What is there already is an edit done; a quarter of the mismatched captions name what is there."""
    plain = {"split_scheme": "official", "image_size": 64, "batch_size": 4, "num_workers": 0, "seed": 0}
    data = ToyCOCO(root=tmp_path / "toy", assets=tmp_path, num_images=60, toy_seed=1, **plain)
    data.prepare_data()
    metric = EditAccuracy(PARTS, PALETTE)
    fields = {"image", "parts", "attributes", "caption_mismatched_attributes"}
    items = [*data.evaluation("train", data.samples("train"), 0, fields)]
    for item in items:
        levels = to_uint8(item["image"])[None]
        batch = {"parts": item["parts"][None], "prompt_attributes": [item["attributes"]]}
        metric.update(levels, batch)
    score = metric.compute()
    assert score.value == 1
    assert score.count == len(items) - 1  # all but the bare scene
    judged = [item["attributes"].keys() & item["caption_mismatched_attributes"].keys() for item in items]
    assert sum(map(bool, judged)) >= len(items) / 4


def test_a_recoloured_thing_changes_nothing_else():
    for index in range(8):
        scene = _scene(index)
        first, *others = scene.things
        other = replace(first, colour="red" if first.colour != "red" else "blue")
        before, after = _picture(scene, index), _picture(replace(scene, things=(other, *others)), index)
        assert np.array_equal(before.parts, after.parts)
        changed = (before.image != after.image).any(-1)
        assert changed[before.parts == 1 + PARTS.index(first.category)].mean() > 0.9
        rows, columns = np.nonzero(changed)
        corners = np.concatenate(before.polygons[0])
        low, high = corners.min(0) - 2, corners.max(0) + 2
        assert low[0] <= columns.min() <= columns.max() <= high[0]
        assert low[1] <= rows.min() <= rows.max() <= high[1]


def test_polygons_cover_the_things_and_no_thing_another():
    for index in range(60):
        scene = _scene(index)
        _, parts, polygons, crowd = _picture(scene, index)
        assert min(parts.shape) >= 120
        assert max(parts.shape) <= 190
        areas = [_area(own, parts.shape) for own in polygons]
        together = np.sum(areas, axis=0)
        assert together.max() == 1, index
        assert ((together > 0) & (parts > 0)).sum() / ((together > 0) | (parts > 0)).sum() > 0.85
        for thing, area in zip(scene.things, areas, strict=True):
            own = parts == 1 + PARTS.index(thing.category)
            assert (area & own).sum() >= 0.99 * own.sum()
        assert crowd is None
        corners = np.concatenate([corner for own in polygons for corner in own])
        assert corners.min() >= 0
        assert (corners.max(0) <= (scene.width, scene.height)).all()


def test_flocks_fly_in_the_sky():
    for index in range(20):
        scene = _scene(index, flock=True)
        with_birds, without = _picture(scene, index), _picture(replace(scene, flock=False), index)
        assert with_birds.crowd.shape == with_birds.parts.shape
        rows, _ = np.nonzero(with_birds.crowd)
        assert rows.mean() < 0.4 * scene.height
        assert without.crowd is None


def test_scenes_differ():
    scenes = [_scene(index) for index in range(300)]
    assert Counter(len(scene.things) for scene in scenes).keys() == {1, 2, 3, 4}
    assert {category for scene in scenes for category in scene.attributes} == set(PARTS)
    assert {colour for scene in scenes for colour in scene.attributes.values()} == set(COLOURS)
    assert len({scene.ground for scene in scenes}) == 5
    assert all(len(scene.attributes) == len(scene.things) for scene in scenes)


def test_captions_name_true_colours_only_and_say_them():
    texts, numbers = set(), Counter()
    for index in range(400):
        scene = _scene(index)
        caption, named = describe(scene, random_stream("caption", index))
        assert named.items() <= scene.attributes.items()
        words = re.findall(r"\w+", caption.lower())
        assert {word for word in words if word in COLOURS} == set(named.values())
        for category, colour in named.items():
            nouns = {noun.split()[-1] for noun in CATEGORIES[category].words}
            assert any(word in nouns and colour in words[max(0, place - 2) : place] for place, word in enumerate(words))
        assert caption.endswith(".")
        assert caption[0].isupper()
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", caption.lower())
        texts.add(caption)
        numbers[len(named)] += 1
    assert len(texts) > 300
    assert set(numbers) == {1, 2, 3}


def test_what_captions_say_of_places_is_true():
    nouns = {noun: category for category, kind in CATEGORIES.items() for noun in kind.words}
    said = Counter()
    pattern = re.compile(rf"({'|'.join(nouns)}) (to the left of|to the right of|behind|in front of|flying above) an? "
                         rf"(?:(?:{'|'.join(COLOURS)}) )?({'|'.join(nouns)})")  # fmt: skip
    for index in range(400):
        scene = _scene(index)
        found = pattern.search(describe(scene, random_stream("caption", index))[0])
        if found:
            things = {thing.category: thing for thing in scene.things}
            first, second = things[nouns[found[1]]], things[nouns[found[3]]]
            assert {
                "to the left of": first.middle < second.middle,
                "to the right of": first.middle > second.middle,
                "behind": first.foot < second.foot,
                "in front of": first.foot > second.foot,
                "flying above": first.foot - first.height < second.foot - second.height or first.category == "kite",
            }[found[2]]
            said[found[2]] += 1
    assert len(said) == 5


def test_bare_scenes_name_nothing():
    scene = _scene(0, bare=True)
    caption, named = describe(scene, random_stream("caption", 0))
    assert (scene.attributes, named) == ({}, {})
    assert not set(tokenise(caption)) & {*COLOURS, *PARTS}
    assert not _picture(scene, 0).parts.any()


def test_oddities_change_no_word():
    kinds = Counter()
    for index in range(600):
        caption, _ = describe(_scene(index % 50), random_stream("caption", index))
        odd = oddly(caption, random_stream("odd", index))
        assert tokenise(odd) == tokenise(caption)
        kinds.update(
            {
                "line end": "\n" in odd,
                "two spaces": "  " in odd.strip(),
                "outer space": odd != odd.strip(),
                "capitals": odd.isupper(),
                "small": odd.islower(),
                "no stop": not odd.rstrip().endswith("."),
            }
        )
    assert all(0 < kinds[kind] < 250 for kind in kinds)
    assert 100 < kinds["no stop"] < 200


def _hashes(root):
    return {str(path.relative_to(root)): sha256_file(path) for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_more_images_change_none(tmp_path):
    for name, seed, count in (("first", 5, 28), ("again", 5, 28), ("more", 5, 32), ("other", 6, 28)):
        toy_coco.write(tmp_path / name, seed, count)
    first, again, more, other = (_hashes(tmp_path / name) for name in ("first", "again", "more", "other"))
    assert again == first
    pictures = {name for name in first if name.endswith((".jpg", ".png"))}
    assert len(pictures) == 2 * NUM_IMAGES
    assert all(more[name] == first[name] for name in pictures)
    lines = [(tmp_path / name / "toy" / "attributes.jsonl").read_text().splitlines() for name in ("first", "more")]
    assert lines[1][:NUM_IMAGES] == lines[0]
    assert not {other[name] for name in other if name.endswith(".jpg")} & {first[name] for name in pictures}


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected at least 28 toy images, found 27"):
        toy_coco.write(tmp_path / "toy", 0, 27)
