"""Toy faces on disk as CelebAMask-HQ and the captions and lists of Multi-Modal-CelebA-HQ are."""

import pickle
from pathlib import Path

import numpy as np
from PIL import Image

from mmbench.core.noise import random_stream
from mmbench.core.progress import track
from mmbench.data.toy import truth
from mmbench.data.toy.faces import Face, describe, render, sample_face

NUM_CAPTIONS = 10
VERSION = 1  # of what `write` writes; raise it when the same arguments give other pictures or captions
# Of ten images the first eight are of CelebA's train part, one of val and one of test, by their numbers in CelebA.
_FIRST_IN_CELEBA = (*[0] * 8, 162_770, 182_637)


def write(root: Path, seed: int, num_images: int) -> None:
    """Writes toy faces below `root` as CelebAMask-HQ and Multi-Modal-CelebA-HQ lie on disk.

    Image number k depends on (seed, k) alone: more images change none. The first four fifths are for training. What is
    true of each face lies beside, in `toy`.

    Args:
        root: the folder that is to hold `CelebAMask-HQ`, `celeba-caption` and the lists of both splits.
        seed: of all pictures and captions.
        num_images: from 5 to 30,000.

    Raises:
        ValueError: fewer or more images.
    """
    if not 5 <= num_images <= 30_000:
        raise ValueError(f"expected 5 to 30000 toy faces, found {num_images}: ask for another number")
    celeba = root / "CelebAMask-HQ"
    for folder in (
        "CelebA-HQ-img",
        *(f"CelebAMask-HQ-mask-anno/{place}" for place in range(1 + (num_images - 1) // 2000)),
    ):
        (celeba / folder).mkdir(parents=True)
    for folder in ("celeba-caption", "toy/parts"):
        (root / folder).mkdir(parents=True)
    faces, facts = [], []
    for number in track(range(num_images), "drawing toy faces"):
        face = sample_face(random_stream(seed, number, "face"))
        wording = random_stream(seed, number, "captions")
        captions = [describe(face, wording) for _ in range(NUM_CAPTIONS)]
        _write_picture(root, number, face, random_stream(seed, number, "picture"))
        _write_text(root / "celeba-caption" / f"{number}.txt", [caption for caption, _ in captions])
        faces.append(face)
        facts.append(truth.known(f"{number:05d}", face.attributes, captions))
    _write_text(celeba / "CelebA-HQ-to-CelebA-mapping.txt", _mapping(num_images))
    _write_text(celeba / "CelebAMask-HQ-attribute-anno.txt", _attribute_table(faces))
    truth.write(root / "toy", facts)
    num_train = num_images * 4 // 5
    for split, numbers in (("train", range(num_train)), ("test", range(num_train, num_images))):
        names = pickle.dumps([str(number) for number in numbers], protocol=2)
        (root / f"mm_celeba_{split}_filenames.pickle").write_bytes(names)


def _write_picture(root: Path, number: int, face: Face, rng: np.random.Generator) -> None:
    image, parts, masks = render(face, rng)
    celeba = root / "CelebAMask-HQ"
    Image.fromarray(image).save(celeba / "CelebA-HQ-img" / f"{number}.jpg", quality=95, subsampling=0)
    Image.fromarray(parts).save(root / "toy" / "parts" / f"{number:05d}.png")
    for name, mask in masks.items():
        path = celeba / "CelebAMask-HQ-mask-anno" / str(number // 2000) / f"{number:05d}_{name}.png"
        Image.fromarray(np.uint8(255) * mask).convert("RGB").save(path, compress_level=1)


def _mapping(num_images: int) -> list[str]:
    rows = [(number, _FIRST_IN_CELEBA[number % 10] + number) for number in range(num_images)]
    return [
        "idx             orig_idx    orig_file",
        *(f"{idx:<15} {orig:<11} {orig + 1:06d}.jpg" for idx, orig in rows),
    ]


def _attribute_table(faces: list[Face]) -> list[str]:
    """The attributes of CelebA, of its forty, that a toy face has or has not; in the table's own format."""
    table = [_celeba_attributes(face) for face in faces]
    rows = (
        f"{number}.jpg  " + " ".join(f"{1 if yes else -1:2d}" for yes in row.values())
        for number, row in enumerate(table)
    )
    return [str(len(faces)), " ".join(table[0]), *rows]


def _celeba_attributes(face: Face) -> dict[str, bool]:
    return {
        "Bangs": face.fringe == "bangs" or face.hat != "none",
        "Black_Hair": face.hair == "black",
        "Brown_Hair": face.hair == "brown",
        "Eyeglasses": face.glasses,
        "Gray_Hair": face.hair == "grey",
        "Male": face.male,
        "Mouth_Slightly_Open": face.smiling,
        "No_Beard": True,
        "Smiling": face.smiling,
        "Wearing_Hat": face.hat != "none",
    }


def _write_text(path: Path, lines: list[str]) -> None:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
