"""Toy scenes on disk as COCO 2014, AttnGAN's file lists and Karpathy's split are."""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from mmbench.core.noise import random_stream
from mmbench.core.progress import track
from mmbench.core.text import tokenise
from mmbench.data.toy import truth
from mmbench.data.toy.scenes import CATEGORIES, FLOCK, Rendering, describe, oddly, render, sample_scene

VERSION = 1  # of what `write` writes; raise it when the same arguments give other pictures or captions
FEWEST = 28  # images, of which two are in each part of every split
KARPATHY_SPLITS = ("restval", "val", "restval", "test")  # of an image of val2014, by its number there

_INFO = {"description": "Toy scenes", "url": "", "version": "1.0", "year": 2014, "contributor": "", "date_created": ""}
_LICENCES = [{"url": "", "id": 1, "name": "No photograph: drawn by a program"}]


@dataclass(frozen=True)
class _Toy:
    """The n-th toy image, from 1, and what is said of it. COCO's oddities come at fixed n.

    Attributes:
        number: its id, sparse as COCO's.
        captions: five or more, each with the colours that it names.
    """

    n: int
    number: int
    rendering: Rendering
    categories: tuple[str, ...]
    attributes: dict[str, str]
    captions: tuple[tuple[str, dict[str, str]], ...]

    @property
    def folder(self) -> str:
        return "train2014" if self.n % 4 else "val2014"

    @property
    def key(self) -> str:
        return f"COCO_{self.folder}_{self.number:012d}"

    @property
    def entry(self) -> dict[str, Any]:
        height, width = self.rendering.parts.shape
        return {
            "license": 1,
            "file_name": f"{self.key}.jpg",
            "coco_url": "",
            "height": height,
            "width": width,
            "date_captured": "2013-11-14 00:00:00",
            "flickr_url": "",
            "id": self.number,
        }


def _drawn(seed: int, n: int) -> _Toy:
    bare, flock = n % 75 in (12, 25), n % 25 == 5
    scene = sample_scene(random_stream(seed, n, "scene"), bare=bare, flock=flock)
    wording = random_stream(seed, n, "captions")
    captions = []
    for _ in range(7 if n % 300 == 46 else 6 if n % 30 == 16 else 5):
        caption, named = describe(scene, wording)
        captions.append((oddly(caption, wording), named))
    number = 31 * n + int(random_stream(seed, n, "number").integers(31))
    rendering = render(scene, random_stream(seed, n, "picture"))
    names = tuple(thing.category for thing in scene.things)
    return _Toy(n, number, rendering, names, scene.attributes, tuple(captions))


def write(root: Path, seed: int, num_images: int) -> None:
    """Writes toy scenes below `root` as COCO 2014's archives, AttnGAN's metadata and Karpathy's split lie on disk.

    Image n depends on (seed, n) alone: more images change none. Every fourth is in `val2014`. Some have six captions or
    seven, a flock of birds as a crowd of run lengths, or nothing in them at all; a few are missing from AttnGAN's test
    list. What is true of each scene lies beside, in `toy`.

    Args:
        root: the folder that is to hold `train2014`, `val2014` and `annotations`.
        seed: of all pictures and captions.
        num_images: in both folders.

    Raises:
        ValueError: too few images for every split.
    """
    if num_images < FEWEST:
        raise ValueError(f"expected at least {FEWEST} toy images, found {num_images}: ask for more")
    for folder in ("train2014", "val2014", "annotations", "coco/train", "coco/test", "toy/parts"):
        (root / folder).mkdir(parents=True)
    toys = []
    for n in track(list(range(1, num_images + 1)), "drawing toy scenes"):
        toy = _drawn(seed, n)
        Image.fromarray(toy.rendering.image).save(root / toy.folder / f"{toy.key}.jpg", quality=95, subsampling=0)
        Image.fromarray(toy.rendering.parts).save(root / "toy" / "parts" / f"{toy.key}.png")
        toys.append(toy)
    for folder in ("train2014", "val2014"):
        own = [toy for toy in toys if toy.folder == folder]
        _write_json(root / "annotations" / f"captions_{folder}.json", _captions(own, seed))
        _write_json(root / "annotations" / f"instances_{folder}.json", _instances(own))
    _write_lists(root, toys, seed)
    truth.write(root / "toy", [truth.known(toy.key, toy.attributes, toy.captions) for toy in toys])


def _captions(toys: list[_Toy], seed: int) -> dict[str, Any]:
    """A captions file; as in COCO's, an image's captions do not lie together."""
    found = [
        {"image_id": toy.number, "id": 10 * toy.n + place, "caption": caption}
        for toy in toys
        for place, (caption, _) in enumerate(toy.captions)
    ]
    order = random_stream(seed, "order of captions").permutation(len(found))
    images = [toy.entry for toy in toys]
    return {"info": _INFO, "images": images, "licenses": _LICENCES, "annotations": [found[place] for place in order]}


def _instances(toys: list[_Toy]) -> dict[str, Any]:
    categories = [
        {"supercategory": category.supercategory, "id": category.number, "name": name}
        for name, category in CATEGORIES.items()
    ]
    categories.append({"supercategory": "animal", "id": FLOCK, "name": "bird"})
    return {
        "info": _INFO,
        "images": [toy.entry for toy in toys],
        "licenses": _LICENCES,
        "annotations": [annotation for toy in toys for annotation in _annotations(toy)],
        "categories": sorted(categories, key=lambda category: category["id"]),
    }


def _annotations(toy: _Toy) -> list[dict[str, Any]]:
    """The objects of an image: polygons, a crowd as uncompressed run lengths."""
    height, width = toy.rendering.parts.shape
    found = []
    for place, (name, outlines) in enumerate(zip(toy.categories, toy.rendering.polygons, strict=True)):
        polygons = [np.round(outline, 2).ravel().tolist() for outline in outlines]
        corners = np.concatenate(polygons).reshape(-1, 2)
        (x, y), (across, down) = corners.min(0), np.ptp(corners, axis=0)
        area = rle.area(rle.merge(rle.frPyObjects(polygons, height, width)))
        found.append({
            "segmentation": polygons,
            "area": float(area),
            "iscrowd": 0,
            "image_id": toy.number,
            "bbox": [round(float(value), 2) for value in (x, y, across, down)],
            "category_id": CATEGORIES[name].number,
            "id": 10 * toy.n + place,
        })  # fmt: skip
    if (crowd := toy.rendering.crowd) is not None:
        found.append({
            "segmentation": {"counts": _run_lengths(crowd), "size": [height, width]},
            "area": float(crowd.sum()),
            "iscrowd": 1,
            "image_id": toy.number,
            "bbox": rle.toBbox(rle.encode(np.asfortranarray(crowd))).tolist(),
            "category_id": FLOCK,
            "id": 900_000_000_000 + toy.n,
        })  # fmt: skip
    return found


def _run_lengths(mask: np.ndarray) -> list[int]:
    """How many pixels in a row are alike, down the columns from the left, beginning with background."""
    pixels = np.concatenate(([0], mask.ravel(order="F"), [2]))
    return np.diff(np.flatnonzero(np.diff(pixels, prepend=0)), prepend=1).tolist()


def _write_lists(root: Path, toys: list[_Toy], seed: int) -> None:
    """AttnGAN's lists, which are not sorted and lack a few test images, and Karpathy's split."""
    listed = {
        "train": [toy.key for toy in toys if toy.n % 4],
        "test": [toy.key for toy in toys if toy.n % 4 == 0 and toy.n % 160 != 8],
    }
    for split, keys in listed.items():
        order = random_stream(seed, split, "order of files").permutation(len(keys))
        path = root / "coco" / split / "filenames.pickle"
        path.write_bytes(pickle.dumps([keys[place] for place in order], protocol=2))
    images = [
        {
            "filepath": toy.folder,
            "filename": f"{toy.key}.jpg",
            "split": "train" if toy.n % 4 else KARPATHY_SPLITS[toy.n // 4 % 4],
            "cocoid": toy.number,
            "imgid": toy.n - 1,
            "sentids": [10 * toy.n + place for place in range(len(toy.captions))],
            "sentences": [
                {"tokens": tokenise(caption), "raw": caption, "imgid": toy.n - 1, "sentid": 10 * toy.n + place}
                for place, (caption, _) in enumerate(toy.captions)
            ],
        }
        for toy in toys
    ]
    _write_json(root / "dataset_coco.json", {"images": images, "dataset": "coco"})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_bytes(json.dumps(content).encode())
