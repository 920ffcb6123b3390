"""Caltech-UCSD Birds 200-2011 (Wah et al., 2011) with the ten captions of each image by Reed et al. (CVPR 2016).

The layout on disk is the archives' own: `CUB_200_2011/` with images, boxes, labels and the official split; captions in
`text_c10/` (Reed) or `text/` (AttnGAN's copy), one file of ten lines for each image.
"""

import math
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from mmbench.data.archives import Archive, lacking
from mmbench.data.embeddings import Embedded
from mmbench.data.fields import Field
from mmbench.data.records import Record, read_captions, read_map
from mmbench.data.sources.cub import ARCHIVES
from mmbench.data.toy import birds as toy_birds
from mmbench.data.toy import cub as toy_cub
from mmbench.data.toy import edits
from mmbench.data.toy.base import TRUTH, Toy

Value = TypeVar("Value")

# The 50 classes no text-to-image method trains on. From AttnGAN's `test/filenames.pickle`.
# fmt: off
ZERO_SHOT_TEST_CLASSES = frozenset((
    1, 4, 6, 8, 9, 14, 23, 29, 31, 33, 34, 35, 36, 37, 38, 43, 49, 51, 53, 66, 72, 79, 83, 84, 86, 91, 95, 96, 98, 101,
    102, 103, 112, 114, 119, 121, 130, 135, 138, 147, 156, 163, 165, 166, 180, 183, 185, 186, 187, 197,
))
# fmt: on
REMEDY = "unpack the archive again"
TABLES = ("images", "bounding_boxes", "image_class_labels", "classes", "train_test_split")


class CUB(Embedded):
    """Birds and their captions.

    Preprocessing is the bird crop (`views.square_around`), then `preprocessing`. `class_id` is 1 to 200.

    Args:
        bird_crop: whether the bird's box is cut out first. TDANet shows the whole picture.
        common: as `Embedded`. `root` holds `CUB_200_2011`, `text_c10` or `text`, and `segmentations` for masks; the
            split schemes are `zero_shot`, 150 classes against 50 others (Reed et al.; every text-to-image paper), and
            `official`, `train_test_split.txt` over all classes.
    """

    archives = ARCHIVES
    counts: ClassVar = {"zero_shot": {"train": 8855, "test": 2933}, "official": {"train": 5994, "test": 5794}}
    num_captions = 10
    test_classes: frozenset[int] = ZERO_SHOT_TEST_CLASSES

    def __init__(self, *, bird_crop: bool = True, **common: Any) -> None:
        super().__init__(**common)
        self.bird_crop = bird_crop

    def holds(self, archive: Archive) -> bool:
        # AttnGAN's copy of the captions is as good.
        return super().holds(archive) or (archive.contents == ("text_c10",) and (self.root / "text").is_dir())

    @property
    def _cub(self) -> Path:
        return self.root / "CUB_200_2011"

    def _table(self, name: str) -> Path:
        return self._cub / f"{name}.txt"

    @cached_property
    def _captions_folder(self) -> Path:
        text = self.root / "text"
        return text if text.is_dir() and not (self.root / "text_c10").is_dir() else self.root / "text_c10"

    def read_records(self) -> dict[str, list[Record]]:
        files = self._read("images", str)
        boxes = self._read("bounding_boxes", _box)
        labels = self._read("image_class_labels", int)
        official = self._read("train_test_split", _flag)
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
        some_suffice = not self.complete and bool(self.test_classes & classes.keys())
        if zero_shot and not some_suffice and (absent := sorted(self.test_classes - classes.keys())):
            raise ValueError(
                f"{self._table('classes')}: expected every test class of the {self.split_scheme} split, found no class "
                f"{absent[0]}: unpack the archive again"
            )
        records: dict[str, list[Record]] = {"train": [], "test": []}
        for number, file in files.items():
            is_test = labels[number] in self.test_classes if zero_shot else not official[number]
            records["test" if is_test else "train"].append(self._record(file, labels[number], boxes[number]))
        return records

    def _record(self, file: str, class_id: int, box: tuple[float, float, float, float]) -> Record:
        """One image; `file` is its path below `images`. Folder and file name do not spell alike: never rebuild one."""
        key = str(Path(file).with_suffix(""))
        image = self._cub / "images" / file
        if not image.is_file():
            raise ValueError(f"{image}: expected an image that images.txt lists, {lacking(image, REMEDY)}")
        mask = self.root / "segmentations" / f"{key}.png"
        salient = partial(read_map, mask) if mask.is_file() else None
        captions = read_captions(self._captions_folder / f"{key}.txt", self.num_captions, self.num_captions)
        extra = self.embedded(key)
        return Record(key, image, captions, class_id, box, salient, cropped=self.bird_crop, extra=extra)

    def _read(self, name: str, value: Callable[[str], Value]) -> dict[int, Value]:
        """A table of lines `id value` by id."""
        path = self._table(name)
        if not path.is_file():
            raise ValueError(f"expected {path.relative_to(self.root)} in {self.root}, {lacking(path, REMEDY)}")
        table: dict[int, Value] = {}
        for line in path.read_text(encoding="utf-8-sig", errors="backslashreplace").splitlines():
            number, _, rest = line.strip().partition(" ")
            try:
                key, found = int(number), value(rest)
            except ValueError:
                raise ValueError(
                    f"{path}: expected lines of an id and its value, found {line!r}: unpack it again"
                ) from None
            if key in table:
                raise ValueError(f"{path}: expected each id once, found {key} twice: {REMEDY}")
            table[key] = found
        return table


def _box(text: str) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, text.split())
    if not all(map(math.isfinite, (x, y))) or not (0 < width < math.inf and 0 < height < math.inf):
        raise ValueError
    return x, y, width, height


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError
    return text == "1"


class ToyCUB(Toy, CUB):
    """Toy birds (`toy_birds`) in the same layout, made on first use; with true attributes and part maps besides.

    40 classes, of which 10 are test classes of the zero-shot split. Birds can be drawn again: see `toy.edits`.
    """

    write = staticmethod(toy_cub.write)
    version = toy_cub.VERSION
    part_names = toy_birds.PARTS
    truth_folder = "CUB_200_2011/toy"

    fields = CUB.fields | TRUTH
    test_classes = frozenset(toy_birds.TEST_CLASSES)

    @property
    def own_fields(self) -> dict[str, Field]:  # type: ignore[override]
        redraw = partial(toy_cub.redrawn, self.toy_seed)
        return edits.fields(redraw, toy_birds.PARTS, toy_birds.COLOURS)
