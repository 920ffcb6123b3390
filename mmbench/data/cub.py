"""Caltech-UCSD Birds 200-2011 (Wah et al., 2011) with the ten captions of each image by Reed et al. (CVPR 2016).

The layout on disk is the archives' own: `CUB_200_2011/` with images, boxes, labels and the official split; captions in
`text_c10/` (Reed) or `text/` (AttnGAN's copy), one file of ten lines for each image.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from mmbench.core.text import repaired
from mmbench.core.weights import MissingAsset
from mmbench.data import toy_birds, toy_cub
from mmbench.data.base import DataModule, Record

Value = TypeVar("Value")

# The 50 classes no text-to-image method trains on. From AttnGAN's `test/filenames.pickle`.
# fmt: off
ZERO_SHOT_TEST_CLASSES = frozenset((
    1, 4, 6, 8, 9, 14, 23, 29, 31, 33, 34, 35, 36, 37, 38, 43, 49, 51, 53, 66, 72, 79, 83, 84, 86, 91, 95, 96, 98, 101,
    102, 103, 112, 114, 119, 121, 130, 135, 138, 147, 156, 163, 165, 166, 180, 183, 185, 186, 187, 197,
))
# fmt: on
# Images for training and test.
COUNTS = {"zero_shot": (8855, 2933), "official": (5994, 5794)}
NUM_CAPTIONS = 10
TABLES = ("images", "bounding_boxes", "image_class_labels", "classes", "train_test_split")

IMAGES_ARCHIVE = (
    "CUB_200_2011.tgz (1,150,585,339 bytes, md5 97eceeb196236b17998738112f37df78) from "
    "https://data.caltech.edu/records/65de6-vp158"
)
CAPTIONS_ARCHIVE = (
    "cvpr2016_cub.tar.gz (hash unpublished) from https://drive.google.com/file/d/0B0ywwgffWnLLZW9uVHNjb2JmNlE/view"
    "?resourcekey=0-8y2UVmBHAlG26HafWYNoFQ"
)


class CUB(DataModule):
    """Birds and their captions.

    Preprocessing is the bird crop (`views.square_around`), then `View`. `class_id` is 1 to 200.

    Args:
        root: the folder that holds `CUB_200_2011` and `text_c10` or `text`.
        split_scheme: `zero_shot`, 150 classes against 50 others (Reed et al.; every text-to-image paper), or
            `official`, `train_test_split.txt` over all classes.
        complete: whether all 11,788 images must be there. False reads what the tables list, for a part of the data set.
        image_size, batch_size, num_workers, seed: as `DataModule`.

    Raises:
        ValueError: no such split scheme.
    """

    test_classes: frozenset[int] = ZERO_SHOT_TEST_CLASSES

    def __init__(
        self,
        root: str | Path,
        split_scheme: str,
        image_size: int,
        batch_size: int,
        num_workers: int,
        seed: int,
        complete: bool = True,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers, seed)
        if split_scheme not in COUNTS:
            raise ValueError(
                f"expected split_scheme of {', '.join(COUNTS)}, found {split_scheme!r}: choose one of those"
            )
        self.root = Path(root).expanduser()
        self.split_scheme = split_scheme
        self.complete = complete

    def prepare_data(self) -> None:
        """Checks that the archives lie unpacked below `root`; cannot fetch them.

        Raises:
            MissingAsset: one does not; names it, its origin and where to put it.
        """
        wanted = [*(self._table(name) for name in TABLES), self._cub / "images"]
        for path in wanted:
            if not path.exists():
                raise MissingAsset(
                    f"expected {path}, found none: unpack {IMAGES_ARCHIVE} in {self.root}; data.source=toy needs none"
                )
        self._captions_folder()

    def summary(self) -> dict[str, Any]:
        return {"folder": str(self.root), "split scheme": self.split_scheme, **super().summary()}

    @property
    def _cub(self) -> Path:
        return self.root / "CUB_200_2011"

    def _table(self, name: str) -> Path:
        return self._cub / f"{name}.txt"

    def _captions_folder(self) -> Path:
        for name in ("text_c10", "text"):
            if (self.root / name).is_dir():
                return self.root / name
        raise MissingAsset(
            f"expected the captions in {self.root / 'text_c10'} (or text), found no folder: unpack {CAPTIONS_ARCHIVE} "
            "and put its text_c10 there; data.source=toy needs none"
        )

    @cached_property
    def records(self) -> dict[str, list[Record]]:
        self.prepare_data()
        files = self._read("images", str)
        boxes = self._read("bounding_boxes", _box)
        labels = self._read("image_class_labels", int)
        official = self._read("train_test_split", int)
        classes = self._read("classes", str)
        for name, table in (
            ("bounding_boxes", boxes),
            ("image_class_labels", labels),
            ("train_test_split", official),
        ):
            if different := sorted(files.keys() ^ table.keys()):
                where, lacks = ("images", name) if different[0] in files else (name, "images")
                raise ValueError(
                    f"{self._table(lacks)}: expected the ids of {where}.txt, found no id {different[0]} "
                    f"({len(different)} differ): unpack the archive again"
                )
        if absent := sorted(set(labels.values()) - classes.keys()):
            raise ValueError(
                f"{self._table('image_class_labels')}: expected the classes of classes.txt, found class {absent[0]}: "
                "unpack the archive again"
            )
        zero_shot = self.split_scheme == "zero_shot"
        if zero_shot and (absent := sorted(self.test_classes - classes.keys())):
            raise ValueError(
                f"{self._table('classes')}: expected every test class of the {self.split_scheme} split, found no class "
                f"{absent[0]}: unpack the archive again"
            )
        records: dict[str, list[Record]] = {"train": [], "test": []}
        for number, file in files.items():
            is_test = labels[number] in self.test_classes if zero_shot else not official[number]
            records["test" if is_test else "train"].append(self._record(file, labels[number], boxes[number]))
        for split in records:
            records[split].sort(key=lambda record: record.id)
        self._check_counts(records)
        return records

    def _check_counts(self, records: dict[str, list[Record]]) -> None:
        found = (len(records["train"]), len(records["test"]))
        if self.complete and found != COUNTS[self.split_scheme]:
            raise ValueError(
                f"{self._table('images')}: expected {COUNTS[self.split_scheme]} images for training and test, found "
                f"{found}: unpack the archive again, or set data.module.complete=false to use a part of the data set"
            )

    def _record(self, file: str, class_id: int, box: tuple[float, float, float, float]) -> Record:
        """One image; `file` is its path below `images`. Folder and file name do not spell alike: never rebuild one."""
        key = str(Path(file).with_suffix(""))
        image = self._cub / "images" / file
        if not image.is_file():
            raise ValueError(f"{image}: expected an image that images.txt lists, found none: unpack the archive again")
        return Record(key, image, self._captions(key), class_id, box)

    def _captions(self, key: str) -> tuple[str, ...]:
        path = self._captions_folder() / f"{key}.txt"
        if not path.is_file():
            raise ValueError(f"{path}: expected {NUM_CAPTIONS} captions, found no file: unpack the captions again")
        captions = tuple(repaired(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip())
        if len(captions) != NUM_CAPTIONS:
            raise ValueError(
                f"{path}: expected {NUM_CAPTIONS} captions, one on each line, found {len(captions)}: unpack the "
                "archive again"
            )
        return captions

    def _read(self, name: str, value: Callable[[str], Value]) -> dict[int, Value]:
        """A table of lines `id value` by id."""
        path = self._table(name)
        table: dict[int, Value] = {}
        for line in path.read_text(encoding="ascii").splitlines():
            number, _, rest = line.strip().partition(" ")
            try:
                table[int(number)] = value(rest)
            except ValueError:
                raise ValueError(
                    f"{path}: expected lines of an id and its value, found {line!r}: unpack it again"
                ) from None
        return table


def _box(text: str) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, text.split())
    return x, y, width, height


class ToyCUB(CUB):
    """Toy birds (`toy_birds`) in the same layout, made on first use; with true attributes and part maps besides.

    Args:
        num_images: how many, over 40 classes of which 10 are test classes of the zero-shot split.
        toy_seed: of pictures and captions.
        root, split_scheme, image_size, batch_size, num_workers, seed: as `CUB`.
    """

    fields = CUB.fields | {"parts", "attributes", "caption_attributes", "caption_mismatched_attributes"}
    test_classes = frozenset(toy_birds.TEST_CLASSES)

    def __init__(
        self,
        root: str | Path,
        num_images: int,
        toy_seed: int,
        split_scheme: str,
        image_size: int,
        batch_size: int,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__(root, split_scheme, image_size, batch_size, num_workers, seed, complete=False)
        self.num_images = num_images
        self.toy_seed = toy_seed

    def prepare_data(self) -> None:
        """Writes the birds below `root` if they are not there.

        Raises:
            ValueError: other files are there.
        """
        toy_cub.write_dataset(self.root, self.toy_seed, self.num_images)

    @cached_property
    def _side_file(self) -> dict[str, dict[str, Any]]:
        lines = (self._cub / "toy" / "attributes.jsonl").read_text(encoding="utf-8").splitlines()
        return {record["id"]: record for record in map(json.loads, lines)}

    def _record(self, file: str, class_id: int, box: tuple[float, float, float, float]) -> Record:
        record = super()._record(file, class_id, box)
        known = self._side_file[record.id]
        return replace(
            record,
            parts=self._cub / "toy" / "parts" / f"{record.id}.png",
            num_parts=len(toy_birds.PARTS),
            attributes=known["attributes"],
            caption_attributes=tuple(known["captions"]),
        )
