"""Toy flowers on disk as Oxford-102, its segmentations and Reed's captions are."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

from mmbench.core.noise import random_stream
from mmbench.core.progress import track
from mmbench.data.toy import truth
from mmbench.data.toy.flowers import NUM_CLASSES, Rendering, describe, render, sample_flower

NUM_CAPTIONS = 10
VERSION = 1  # of what `write` writes; raise it when the same arguments give other pictures or captions

BLUE = (0, 0, 254)  # what lies around the flower in a segmentation


def write(root: Path, seed: int, num_images: int) -> None:
    """Writes toy flowers below `root` as Oxford-102, its segmentations and Reed's captions lie on disk.

    The classes take turns: image number i is of class 1 + (i - 1) % 102 and depends on (seed, i) alone, so that more
    images change none. What is true of each flower lies beside, in `toy`.

    Args:
        root: the folder that is to hold `jpg`, `segmim`, `text_c10`, `imagelabels.mat` and `setid.mat`.
        seed: of all pictures and captions.
        num_images: spread evenly over the classes; at least one each.

    Raises:
        ValueError: fewer images than classes, or more than five digits number.
    """
    if not NUM_CLASSES <= num_images <= 99_999:
        raise ValueError(
            f"expected {NUM_CLASSES} to 99,999 toy flowers, at least one per class, found {num_images}: change it"
        )
    for folder in ("jpg", "segmim", "toy/parts", *(f"text_c10/{_folder(c)}" for c in range(1, NUM_CLASSES + 1))):
        (root / folder).mkdir(parents=True)
    numbers = range(1, num_images + 1)
    truth.write(root / "toy", [_write_image(root, seed, number) for number in track(numbers, "drawing toy flowers")])
    labels = np.array([[_class(number) for number in numbers]], np.uint8)
    (root / "imagelabels.mat").write_bytes(mat(labels=labels))
    by_class = sorted(numbers, key=lambda number: (_class(number), number))  # the real sets are not sorted by id either
    sets: dict[str, list[int]] = {"trnid": [], "valid": [], "tstid": []}
    for number in by_class:
        sets[_set(number)].append(number)
    ids = np.uint16 if num_images <= np.iinfo(np.uint16).max else np.uint32
    (root / "setid.mat").write_bytes(mat(**{name: np.array([members], ids) for name, members in sets.items()}))


def _class(number: int) -> int:
    return 1 + (number - 1) % NUM_CLASSES


def _folder(flower_class: int) -> str:
    return f"class_{flower_class:05d}"


def _set(number: int) -> str:
    """The official set of an image: an eighth trains and an eighth validates, about as in the real one."""
    rounds, place = divmod(number - 1, NUM_CLASSES)
    return {0: "trnid", 1: "valid"}.get((rounds + place) % 8, "tstid")


def _write_image(root: Path, seed: int, number: int) -> dict[str, Any]:
    """Everything of one image; returns what is true of it."""
    key = f"image_{number:05d}"
    flower = sample_flower(random_stream(seed, number, "flower"), _class(number))
    rendering = render(flower, random_stream(seed, number, "picture"))
    wording = random_stream(seed, number, "captions")
    captions = [describe(flower, wording) for _ in range(NUM_CAPTIONS)]
    Image.fromarray(rendering.image).save(root / "jpg" / f"{key}.jpg", quality=95, subsampling=0)
    Image.fromarray(rendering.parts).save(root / "toy" / "parts" / f"{key}.png")
    _segmentation(rendering).save(root / "segmim" / f"segmim_{number:05d}.jpg")
    text = "".join(f"{caption}\n" for caption, _ in captions)
    (root / "text_c10" / _folder(_class(number)) / f"{key}.txt").write_bytes(text.encode())
    return truth.known(key, flower.attributes, captions)


def _segmentation(rendering: Rendering) -> Image.Image:
    """The flower before blue, of the picture's size."""
    return Image.fromarray(np.where(rendering.parts[..., None] > 0, rendering.image, np.array(BLUE, np.uint8)))


def mat(**arrays: np.ndarray) -> bytes:
    """A compressed MATLAB file, version 5, without the date that `scipy.io.savemat` writes into its first 116 bytes."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, arrays, do_compression=True)
    return b"MATLAB 5.0 MAT-file".ljust(116) + buffer.getvalue()[116:]
