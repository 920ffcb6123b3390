"""Toy birds on disk as CUB-200-2011 and Reed's captions are."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from mmbench.core.noise import random_stream
from mmbench.core.progress import track
from mmbench.data.toy import truth
from mmbench.data.toy.birds import NUM_CLASSES, Bird, class_name, describe, render, sample_bird

NUM_CAPTIONS = 10
VERSION = 2  # of what `write` writes; raise it when the same arguments give other pictures or captions
JPEG = {"format": "JPEG", "quality": 95, "subsampling": 0}  # how pictures are written


def write(root: Path, seed: int, num_images: int) -> None:
    """Writes toy birds below `root` as CUB-200-2011, its segmentations and Reed's captions lie on disk.

    Image number k of class c depends on (seed, c, k) alone: more images add to a class and change none. What is true of
    each bird lies beside, in `CUB_200_2011/toy`.

    Args:
        root: the folder that is to hold `CUB_200_2011`, `segmentations` and `text_c10`.
        seed: of all pictures and captions.
        num_images: spread evenly over the classes; at least one each.

    Raises:
        ValueError: fewer images than classes.
    """
    if num_images < NUM_CLASSES:
        raise ValueError(f"expected at least {NUM_CLASSES} toy images, one per class, found {num_images}: ask for more")
    cub = root / "CUB_200_2011"
    names = [class_name(bird_class) for bird_class in range(1, NUM_CLASSES + 1)]
    for name in names:
        for folder in (cub / "images", cub / "toy" / "parts", root / "segmentations", root / "text_c10"):
            (folder / name).mkdir(parents=True)
    tables: dict[str, list[str]] = {
        table: [] for table in ("images", "bounding_boxes", "image_class_labels", "train_test_split")
    }
    facts = []
    images = track(list(_numbered(num_images)), "drawing toy birds")
    for image_id, (bird_class, number) in enumerate(images, 1):
        folder = names[bird_class - 1]
        # CUB's own quirk: folder and file name do not spell alike.
        name = folder.partition(".")[2].replace("_crowned_", "_Crowned_")
        key = f"{folder}/{name}_{number:04d}_{1000 * bird_class + number:06d}"
        bird = _bird(seed, bird_class, number)
        image, parts, box = render(bird, random_stream(seed, bird_class, number, "picture"))
        wording = random_stream(seed, bird_class, number, "captions")
        captions = [describe(bird, wording) for _ in range(NUM_CAPTIONS)]
        text = "".join(f"{caption}\n" for caption, _ in captions)
        Image.fromarray(image).save(cub / "images" / f"{key}.jpg", **JPEG)
        Image.fromarray(parts).save(cub / "toy" / "parts" / f"{key}.png")
        Image.fromarray((parts > 0).astype(np.uint8) * 255).save(root / "segmentations" / f"{key}.png")
        (root / "text_c10" / f"{key}.txt").write_bytes(text.encode())
        tables["images"].append(f"{image_id} {key}.jpg")
        tables["bounding_boxes"].append(" ".join([str(image_id), *(f"{value:.1f}" for value in box)]))
        tables["image_class_labels"].append(f"{image_id} {bird_class}")
        tables["train_test_split"].append(f"{image_id} {number % 2}")
        facts.append(truth.known(key, bird.attributes, captions))
    tables["classes"] = [f"{bird_class} {name}" for bird_class, name in enumerate(names, 1)]
    for table, lines in tables.items():
        (cub / f"{table}.txt").write_bytes("".join(f"{line}\n" for line in lines).encode())
    truth.write(cub / "toy", facts)


def redrawn(seed: int, key: str, colours: Mapping[str, str], elsewhere: bool = False) -> bytes:
    """A picture that `write` has written with this seed, drawn again with other colours of parts: as JPEG.

    Pixels of the picture that no recoloured part touches are those of the file, but for what JPEG spreads over the
    8 x 8 pixels that have one.

    Args:
        seed: of the data set.
        key: id of the image.
        colours: part of the bird to its colour; the others keep theirs.
        elsewhere: whether the background is another one, too.
    """
    bird_class, number = divmod(int(key.rpartition("_")[2]), 1000)
    scenery = random_stream(seed, bird_class, number, "elsewhere") if elsewhere else None
    bird = replace(_bird(seed, bird_class, number), **colours)
    image = render(bird, random_stream(seed, bird_class, number, "picture"), scenery).image
    file = BytesIO()
    Image.fromarray(image).save(file, **JPEG)
    return file.getvalue()


def _bird(seed: int, bird_class: int, number: int) -> Bird:
    return sample_bird(random_stream(seed, bird_class, number, "bird"), bird_class)


def _numbered(num_images: int) -> Iterator[tuple[int, int]]:
    """(class, number within the class) of every image in the order of the index, both from 1."""
    for bird_class in range(1, NUM_CLASSES + 1):
        count = num_images // NUM_CLASSES + (bird_class <= num_images % NUM_CLASSES)
        yield from ((bird_class, number) for number in range(1, count + 1))
