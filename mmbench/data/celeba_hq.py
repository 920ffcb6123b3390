"""CelebAMask-HQ (Lee et al., CVPR 2020) with the captions of Multi-Modal-CelebA-HQ (Xia et al., CVPR 2021).

The layout on disk is the archives' own: `CelebAMask-HQ/` with images `<i>.jpg`, a mask for each part of each face, and
tables; ten captions of image i in `celeba-caption/<i>.txt` (also `text/celeba-caption/` or `text/`).
"""

import re
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from mmbench.core.images import read_rgb
from mmbench.core.pickles import read_list
from mmbench.data.archives import Archive, lacking
from mmbench.data.base import DataModule
from mmbench.data.records import Record, Size, read_captions
from mmbench.data.sources.celeba_hq import ARCHIVES
from mmbench.data.toy import celeba_hq as toy_celeba_hq
from mmbench.data.toy import faces as toy_faces
from mmbench.data.toy.base import TRUTH, Toy

# Class 1 is the first; 0 is what no mask covers. Painted in this order, a later one over an earlier one.
# https://github.com/switchablenorms/CelebAMask-HQ/blob/17e609391f135add2ba8e4009d4a2e718b77fcc0/face_parsing/Data_preprocessing/g_mask.py#L9
LAYOUT_CLASSES = (
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
NUM_IMAGES = 30_000
REMEDY = "unpack CelebAMask-HQ.zip again"
MASKS_PER_FOLDER = 2_000
FIRST_TEST = 24_000  # of TediGAN's split: https://github.com/IIGROUP/MM-CelebA-HQ-Dataset/issues/6
# CelebA's own partition, by an image's number there: the first of each part, and what follows the last.
CELEBA_PARTITION = {"train": 0, "val": 162_770, "test": 182_637}
NUM_CELEBA = 202_599


class CelebAHQ(DataModule):
    """Faces, their parts and their captions.

    `id` is the image's number from 00000 to 29999, padded so that ids sort as numbers; `class_id` is that number: each
    image is its own class. `layout` is 0 or 1 + the place of a part in `LAYOUT_CLASSES`; `attributes` are those of
    CelebA, each `yes` or `no`.

    Args:
        common: as `DataModule`. The split schemes are `mm_celeba`, TediGAN's 24,000 against 6,000 images, by the lists
            of Multi-Modal-CelebA-HQ or, where there are none, by their author's word that the last 6,000 are test; and
            `official`, CelebA's train, val and test through the mapping to its numbers.
    """

    archives = ARCHIVES
    counts: ClassVar = {
        "mm_celeba": {"train": 24_000, "test": 6_000},
        "official": {"train": 24_183, "val": 2_993, "test": 2_824},
    }
    num_captions = 10
    fields = DataModule.fields | {"layout", "attributes"}

    def holds(self, archive: Archive) -> bool:
        # A copy of Multi-Modal-CelebA-HQ as its authors lay it out is as good.
        if archive.contents == ("celeba-caption",):
            return self._captions_folder is not None
        elsewhere = {f"mm_celeba_{split}_filenames.pickle": self._published_list(split) for split in ("train", "test")}
        return super().holds(archive) or (archive.file in elsewhere and elsewhere[archive.file].is_file())

    @property
    def _celeba(self) -> Path:
        return self.root / "CelebAMask-HQ"

    @property
    def _images(self) -> Path:
        return self._celeba / "CelebA-HQ-img"

    @property
    def _masks(self) -> Path:
        return self._celeba / "CelebAMask-HQ-mask-anno"

    @property
    def _captions_folder(self) -> Path | None:
        places = (self.root / "celeba-caption", self.root / "text" / "celeba-caption", self.root / "text")
        return next((folder for folder in places if folder.is_dir()), None)

    def _published_list(self, split: str) -> Path:
        return self.root / split / "filenames.pickle"

    def read_records(self) -> dict[str, list[Record]]:
        there = self._numbers_of_images()
        splits = self._celeba_splits() if self.split_scheme == "official" else self._mm_celeba_splits(there)
        attributes = read_attributes(self._celeba / "CelebAMask-HQ-attribute-anno.txt")
        captions = self._captions_folder
        assert captions is not None
        for folder in sorted({number // MASKS_PER_FOLDER for numbers in splits.values() for number in numbers}):
            if not (self._masks / str(folder)).is_dir():
                first, last = folder * MASKS_PER_FOLDER, (folder + 1) * MASKS_PER_FOLDER - 1
                raise ValueError(
                    f"{self._masks / str(folder)}: expected the masks of images {first} to {last}, "
                    f"{lacking(self._masks / str(folder) / 'any', REMEDY, 'no folder')}"
                )
        return {
            split: [self._record(number, there, attributes, captions) for number in numbers]
            for split, numbers in splits.items()
        }

    def _numbers_of_images(self) -> frozenset[int]:
        """The images that are there.

        Other copies of CelebA-HQ number them from 1, or by their files in CelebA; their faces would get the masks and
        captions of others.
        """
        names = sorted(path.name for path in self._images.glob("*.jpg"))
        right = f"{self._images}: expected 0.jpg to {NUM_IMAGES - 1}.jpg, as in CelebAMask-HQ.zip"
        if not names:
            raise ValueError(f"{right}, {lacking(self._images / '0.jpg', REMEDY, 'no .jpg')}")
        for name in names:
            stem = name.removesuffix(".jpg")
            if not stem.isdecimal() or stem != str(int(stem)) or int(stem) >= NUM_IMAGES:
                raise ValueError(
                    f"{right}, found {name}, as in copies numbered from 1 or as CelebA is, which masks and captions "
                    "do not fit: unpack CelebAMask-HQ.zip instead"
                )
        return frozenset(int(name.removesuffix(".jpg")) for name in names)

    def _record(
        self, number: int, there: frozenset[int], attributes: dict[int, dict[str, str]], captions: Path
    ) -> Record:
        image = self._images / f"{number}.jpg"
        if number not in there:
            raise ValueError(f"{image}: expected an image of the {self.split_scheme} split, {lacking(image, REMEDY)}")
        if number not in attributes:
            raise ValueError(
                f"{self._celeba / 'CelebAMask-HQ-attribute-anno.txt'}: expected a row of {number}.jpg, found none: "
                "unpack CelebAMask-HQ.zip again"
            )
        return Record(
            id=f"{number:05d}",
            image=image,
            captions=read_captions(captions / f"{number}.txt", self.num_captions),
            class_id=number,
            layout=partial(read_layout, self._masks / str(number // MASKS_PER_FOLDER), number),
            attributes=attributes[number],
        )

    def _celeba_splits(self) -> dict[str, list[int]]:
        splits: dict[str, list[int]] = {split: [] for split in CELEBA_PARTITION}
        for number, original in read_mapping(self._celeba / "CelebA-HQ-to-CelebA-mapping.txt").items():
            splits[[split for split, first in CELEBA_PARTITION.items() if original >= first][-1]].append(number)
        return splits

    def _mm_celeba_splits(self, there: frozenset[int]) -> dict[str, list[int]]:
        lists = {split: self._list(split) for split in ("train", "test")}
        absent = [split for split, path in lists.items() if not path.is_file()]
        if len(absent) == 2:
            return {
                "train": [number for number in there if number < FIRST_TEST],
                "test": [number for number in there if number >= FIRST_TEST],
            }
        if absent:
            raise ValueError(
                f"{lists[absent[0]]}: expected the list of {absent[0]} images beside that of the other split, found "
                "none: fetch it too, or remove the other to split by number"
            )
        splits = {split: _read_numbers(path) for split, path in lists.items()}
        self._refuse_swapped(splits, lists)
        if both := sorted(set(splits["train"]) & set(splits["test"])):
            raise ValueError(
                f"{lists['test']}: expected other images than in {lists['train']}, found {both[0]} in both "
                f"({len(both)} are): fetch both again"
            )
        return splits

    def _list(self, split: str) -> Path:
        published = self._published_list(split)
        return published if published.is_file() else self.root / f"mm_celeba_{split}_filenames.pickle"

    def _refuse_swapped(self, splits: dict[str, list[int]], lists: dict[str, Path]) -> None:
        """Both lists bear the same name, and are said to have been swapped when they were uploaded."""
        found = {split: len(numbers) for split, numbers in splits.items()}
        expected = self.counts["mm_celeba"]
        by_count = found == {"train": expected["test"], "test": expected["train"]}
        if by_count or min(splits["train"]) >= FIRST_TEST > max(splits["test"]):
            raise ValueError(
                f"{lists['train']}: expected {expected['train']} train images, and {expected['test']} test images in "
                f"{lists['test']}, found {found['train']} and {found['test']}, swapped: exchange the two files"
            )


def read_layout(masks: Path, number: int, size: Size) -> np.ndarray:
    """The part of a face that every pixel shows, for a picture of that size: (H, W) uint8, as `LAYOUT_CLASSES`.

    A part without a file is not to be seen. A mask covers where it is not 0, as its authors' `g_mask.py` has it. Masks
    have half the width and height of the pictures as published: the map is resized to the nearest.

    Args:
        masks: the folder with the masks of this image.
        number: of the image.
        size: width and height of the picture.

    Raises:
        ValueError: there is no mask, one is damaged, or they differ in shape from one another or from the picture.
    """
    layout: np.ndarray | None = None
    for class_id, name in enumerate(LAYOUT_CLASSES, 1):
        path = masks / f"{number:05d}_{name}.png"
        if not path.is_file():
            continue
        covered = read_rgb(path)[0].numpy() > 0
        height, width = covered.shape
        layout = np.zeros(covered.shape, np.uint8) if layout is None else layout
        if layout.shape != covered.shape or width * size[1] != height * size[0]:
            raise ValueError(
                f"{path}: expected a mask like the image's others, of the shape of its {size[0]} x {size[1]} pixels, "
                f"found {width} x {height}: unpack CelebAMask-HQ.zip again"
            )
        layout[covered] = class_id
    if layout is None:
        raise ValueError(
            f"{masks / f'{number:05d}_skin.png'}: expected masks of the parts of image {number}, found none of "
            f"{len(LAYOUT_CLASSES)}: unpack CelebAMask-HQ.zip again"
        )
    return np.asarray(Image.fromarray(layout).resize(size, Image.Resampling.NEAREST))


def read_mapping(path: Path) -> dict[int, int]:
    """`CelebA-HQ-to-CelebA-mapping.txt`: number of an image to its number in CelebA, which counts from 0.

    Rows are `idx orig_idx orig_file`, and the file's name counts from 1. Many copies lack the header.

    Raises:
        ValueError: no such file, or a row that is none, contradicts itself, or repeats an image.
    """
    lines = _lines(path)
    mapping: dict[int, int] = {}
    for line in lines[lines[0].startswith("idx") :]:
        row = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\d+)\.jpg\s*", line)
        number, original, file = map(int, row.groups()) if row else (0, 0, 0)
        if file != original + 1 or not 0 <= original < NUM_CELEBA or not 0 <= number < NUM_IMAGES or number in mapping:
            raise ValueError(
                f"{path}: expected rows `idx orig_idx orig_file`, each idx once and orig_file = orig_idx + 1, found "
                f"{line!r}: unpack CelebAMask-HQ.zip again"
            )
        mapping[number] = original
    return mapping


def read_attributes(path: Path) -> dict[int, dict[str, str]]:
    """`CelebAMask-HQ-attribute-anno.txt`: number of an image to its attributes, each `yes` or `no`.

    The first line is the number of rows, the second the names; rows are `<i>.jpg` and 1 or -1 for each name.

    Raises:
        ValueError: no such file, another number of rows than it says, or a row that is none.
    """
    lines = _lines(path)
    count, names, rows = lines[0].strip(), lines[1].split() if len(lines) > 1 else [], lines[2:]
    if count != str(len(rows)):
        raise ValueError(
            f"{path}: expected as many rows as its first line says, {count!r}, found {len(rows)}: unpack "
            "CelebAMask-HQ.zip again"
        )
    said = {"1": "yes", "-1": "no"}
    attributes = {}
    for row in rows:
        file, *values = row.split()
        if not re.fullmatch(r"\d+\.jpg", file) or len(values) != len(names) or not set(values) <= said.keys():
            raise ValueError(
                f"{path}: expected rows of a file `<i>.jpg` and {len(names)} values 1 or -1, found {row[:60]!r}: "
                "unpack CelebAMask-HQ.zip again"
            )
        attributes[int(file.removesuffix(".jpg"))] = {name: said[value] for name, value in zip(names, values)}
    return attributes


def _lines(path: Path) -> list[str]:
    """The lines of a table that are not empty, at least one."""
    if not path.is_file():
        raise ValueError(f"{path}: expected a table of CelebAMask-HQ, {lacking(path, REMEDY, 'no file')}")
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path}: expected a table, found an empty file: unpack CelebAMask-HQ.zip again")
    return lines


def _read_numbers(path: Path) -> list[int]:
    names = read_list(path, str)
    for name in names:
        if not name.isdecimal() or int(name) >= NUM_IMAGES:
            raise ValueError(
                f"{path}: expected numbers of images from 0 to {NUM_IMAGES - 1}, found {name!r}: fetch it again"
            )
    numbers = [int(name) for name in names]
    if len(set(numbers)) != len(numbers):
        raise ValueError(
            f"{path}: expected each image once, found {len(set(numbers))} different ones in {len(numbers)} rows: fetch "
            "it again"
        )
    return numbers


class ToyCelebAHQ(Toy, CelebAHQ):
    """Toy faces (`toy_faces`) in the same layout, made on first use; with part maps and what captions name besides.

    `attributes` are those that captions may name, not CelebA's.
    """

    archives = (*CelebAHQ.archives, Archive("toy.zip", "made here", None, None, "none", ("toy",)))
    write = staticmethod(toy_celeba_hq.write)
    version = toy_celeba_hq.VERSION
    part_names = toy_faces.PARTS

    fields = CelebAHQ.fields | TRUTH
