"""COCO's annotation files, read economically: captions, and objects whose outlines stay on disk until they are wanted.

`instances_train2014.json` holds 605,000 objects in a third of a gigabyte of text, as Python objects some gigabytes. It
is walked once, an object at a time, into an index of 62 bytes a row that names the place of each object in the file.
The index is kept below `assets` and mapped into memory, so that later runs start at once and workers share it.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle

from mmbench.core.files import locked, sha256_json, written_atomically
from mmbench.core.text import repaired
from mmbench.data.archives import lacking
from mmbench.data.records import Instance, Size

REMEDY = "unpack the archive again"

_BETWEEN = re.compile(r"[\s,:]*")
_ROW = np.dtype(
    [("image", "<i8"), ("id", "<i8"), ("category", "u1"), ("crowd", "?")]
    + [(name, "<f8") for name in ("x", "y", "width", "height")]
    + [("start", "<i8"), ("length", "<i4")]
)


class Entry(NamedTuple):
    """An item of a list that is a value of a JSON file's outermost object.

    Attributes:
        section: key of the list.
        value: the item.
        start, end: where its text lies in the file, in characters.
    """

    section: str
    value: Any
    start: int
    end: int


def entries(path: Path, encoding: str = "utf-8") -> Iterator[Entry]:
    """Walks the lists of a JSON file, with one item in memory at a time beside the text.

    Raises:
        ValueError: the file is missing or is no whole JSON object; names it.
    """
    wanted = f"{path}: expected a whole JSON object"
    try:
        text = path.read_bytes().decode(encoding)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ValueError(f"{wanted}, {lacking(path, REMEDY, 'no file')}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{wanted}, found bytes that are no {encoding}: {REMEDY}") from None
    if not text.lstrip().startswith("{"):
        raise ValueError(f"{wanted}, found a file that begins with {text.lstrip()[:20]!r}: {REMEDY}")
    try:
        yield from _walk(text)
    except (json.JSONDecodeError, IndexError):
        raise ValueError(f"{wanted}, found {len(text):,} characters that break off or are damaged: {REMEDY}") from None


def _walk(text: str) -> Iterator[Entry]:
    decode = json.JSONDecoder().raw_decode

    def after(place: int) -> int:
        return _BETWEEN.match(text, place).end()  # type: ignore[union-attr]

    place = after(text.index("{") + 1)
    while text[place] != "}":
        section, end = decode(text, place)
        place = after(end)
        if text[place] != "[":
            _, end = decode(text, place)
        else:
            place = after(place + 1)
            while text[place] != "]":
                value, end = decode(text, place)
                yield Entry(section, value, place, end)
                place = after(end)
            end = place + 1
        place = after(end)


@contextmanager
def expecting(path: Path, what: str, entry: Entry) -> Iterator[None]:
    """Names file and entry where an entry lacks what it is expected to have."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{path}: expected {what} in each of {entry.section}, found {str(entry.value)[:120]!r}: {REMEDY}"
        ) from None


class Captioned(NamedTuple):
    """An image as the captions file lists it.

    Attributes:
        file: its name.
        size: width and height in pixels.
        captions: the first ones by annotation id.
    """

    file: str
    size: Size
    captions: tuple[str, ...]


def read_captions(path: Path, num_captions: int) -> dict[int, Captioned]:
    """The images that a captions file lists, by number.

    Raises:
        ValueError: the file is damaged, or an image has fewer than `num_captions`; names both.
    """
    images: dict[int, tuple[str, Size]] = {}
    captions: dict[int, list[tuple[int, str]]] = {}
    for entry in entries(path):
        value = entry.value
        if entry.section == "images":
            with expecting(path, "id, file_name, width and height", entry):
                number, size = int(value["id"]), (int(value["width"]), int(value["height"]))
                file = str(value["file_name"])
            if number in images:
                raise ValueError(f"{path}: expected each image once, found {number} twice: {REMEDY}")
            images[number] = file, size
        elif entry.section == "annotations":
            with expecting(path, "id, image_id and caption", entry):
                # One space for every run of white space: a line end would break files of one caption a line.
                caption = " ".join(repaired(value["caption"]).split())
                captions.setdefault(int(value["image_id"]), []).append((int(value["id"]), caption))
    if strangers := sorted(captions.keys() - images.keys()):
        raise ValueError(f"{path}: expected captions of listed images, found some of image {strangers[0]}: {REMEDY}")
    listed = {}
    for number, (file, size) in images.items():
        own = [caption for _, caption in sorted(captions.get(number, ())) if caption]
        if len(own) < num_captions:
            raise ValueError(
                f"{path}: expected at least {num_captions} captions of image {number}, found {len(own)}: {REMEDY}"
            )
        listed[number] = Captioned(file, size, tuple(own[:num_captions]))
    if not listed:
        raise ValueError(f"{path}: expected images with captions, found none: {REMEDY}")
    return listed


def object_index(path: Path, assets: Path) -> np.ndarray:
    """Every object of an instances file by image and annotation id: (K,) of `_ROW`, mapped from a file below `assets`.

    The file is made where it is lacking, and made anew when the annotations change.

    Raises:
        ValueError: the annotations are damaged; names them.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected a whole JSON object, {lacking(path, REMEDY, 'no file')}")
    status = path.stat()
    key = sha256_json([str(path.resolve()), status.st_size, status.st_mtime_ns, _ROW.descr])
    index = assets / "instances" / f"{path.stem}-{key[:12]}.npy"
    with locked(index):
        if not index.is_file():
            rows = _indexed(path)
            with written_atomically(index) as partial:
                np.save(partial, rows)
    return np.load(index, mmap_mode="r")


def _indexed(path: Path) -> np.ndarray:
    categories: set[int] = set()

    def rows() -> Iterator[tuple]:
        # Latin-1 has one character for each byte, so that places in the text are places in the file.
        for entry in entries(path, "latin-1"):
            if entry.section == "categories":
                with expecting(path, "an id from 1 to 255", entry):
                    categories.add(int(entry.value["id"]))
            elif entry.section == "annotations":
                with expecting(path, "image_id, id, category_id, iscrowd, bbox of four and segmentation", entry):
                    yield _row(entry)

    found = np.fromiter(rows(), _ROW)
    if strangers := sorted(set(found["category"].tolist()) - categories):
        raise ValueError(f"{path}: expected objects of listed categories, found category {strangers[0]}: {REMEDY}")
    return found[np.lexsort((found["id"], found["image"]))]


def _row(entry: Entry) -> tuple:
    value = entry.value
    x, y, width, height = map(float, value["bbox"])
    category = int(value["category_id"])
    outlined = isinstance(value["segmentation"], list | dict)
    if not (1 <= category <= 255 and outlined and all(map(math.isfinite, (x, y, width, height)))):
        raise ValueError
    numbers = int(value["image_id"]), int(value["id"]), category, bool(value["iscrowd"])
    return *numbers, x, y, width, height, entry.start, entry.end - entry.start


class Instances(Sequence[Instance]):
    """The objects of one image, made from rows of the index when they are looked at.

    Args:
        annotations: the instances file.
        size: of the image, as the annotations have it.
        rows: (K,) of the index.
    """

    def __init__(self, annotations: Path, size: Size, rows: np.ndarray) -> None:
        self.annotations, self.size, self.rows = annotations, size, rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def any_single(self) -> bool:
        """Whether one of them is no crowd."""
        return not all(self.rows["crowd"].tolist())

    def __iter__(self) -> Iterator[Instance]:
        return self._made(self.rows)

    def __getitem__(self, place: Any) -> Any:
        return tuple(self._made(self.rows[place])) if isinstance(place, slice) else next(self._made(self.rows[[place]]))

    def _made(self, rows: np.ndarray) -> Iterator[Instance]:
        for _, _, category, crowd, x, y, width, height, start, length in rows.tolist():
            yield Instance(category, (x, y, width, height), Outline(self.annotations, self.size, start, length), crowd)


@dataclass(frozen=True)
class Outline:
    """Where one object is: a `Map`, read from its annotation when it is called.

    Attributes:
        annotations: the instances file.
        size: of the image, as the annotations have it.
        start, length: where the object's text lies in the file, in bytes.
    """

    annotations: Path
    size: Size
    start: int
    length: int

    def __call__(self, size: Size) -> np.ndarray:
        """(H, W) uint8, 1 inside.

        Raises:
            ValueError: the image has another size than its annotations say, or the outline is damaged.
        """
        if size != self.size:
            raise ValueError(
                f"{self.annotations}: expected an image of {self.size[0]} x {self.size[1]} pixels, found one of "
                f"{size[0]} x {size[1]}: outlines fit the images as COCO publishes them only; unpack them again"
            )
        with self.annotations.open("rb") as file:
            file.seek(self.start)
            text = file.read(self.length)
        try:
            return rasterised(json.loads(text)["segmentation"], size)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.annotations}: expected polygons or run lengths in the object at byte {self.start}, found "
                f"{' '.join(str(error).split())}: {REMEDY}"
            ) from None


def rasterised(segmentation: list[list[float]] | dict[str, Any], size: Size) -> np.ndarray:
    """An object from its polygons or run lengths by COCO's own rule, in an image of that size: (H, W) uint8, 1 inside.

    Run lengths go down the columns, from the left, and begin with background; as a list, or compressed as text.

    Raises:
        ValueError: they do not fit the size, or are damaged.
    """
    width, height = size
    if isinstance(segmentation, dict):
        return rle.decode(_compressed(segmentation, width, height))
    if any(len(polygon) % 2 for polygon in segmentation):
        raise ValueError("a polygon with half a point")
    # Fewer than three points enclose nothing, and pycocotools would take two for a box.
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
    if not polygons:
        return np.zeros((height, width), np.uint8)
    return rle.decode(rle.merge(rle.frPyObjects(polygons, height, width)))


def _compressed(segmentation: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    counts = segmentation["counts"]
    if segmentation["size"] != [height, width]:
        raise ValueError(f"run lengths for {segmentation['size']} rows and columns, not {[height, width]}")
    if not isinstance(counts, list):
        return segmentation
    if min(counts, default=-1) < 0 or sum(counts) != width * height:
        raise ValueError(f"run lengths of {sum(counts)} pixels in all, not {width * height}")
    return rle.frPyObjects(segmentation, height, width)


def label_map(instances: Sequence[Instance], size: Size) -> np.ndarray:
    """Class of every pixel of an image of that size: (H, W) uint8, 0 where there is no object.

    Where objects overlap, the one with the smaller box is on top; crowds are below all others.
    """
    index = np.zeros(size[::-1], np.uint8)
    for instance in sorted(instances, key=lambda one: (not one.is_crowd, -one.box[2] * one.box[3])):
        index[instance.mask(size) > 0] = instance.class_id
    return index


def largest_box(instances: Sequence[Instance], size: Size) -> np.ndarray:
    """The largest box of an object that is no crowd, filled: (H, W) uint8, 1 inside; the first of equals.

    As TDANet's masks of objects, whose corners are whole pixels (here truncated); which of several objects its authors'
    list holds, crowds among them or not, is not published.
    https://github.com/idealwhite/TDANet/blob/b3ea9c4/dataloader/data_loader.py
    """
    boxes = [instance.box for instance in instances if not instance.is_crowd]
    corners = [(int(x), int(y), int(x + width), int(y + height)) for x, y, width, height in boxes]
    left, top, right, bottom = max(corners, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    mask = np.zeros(size[::-1], np.uint8)
    mask[max(0, top) : bottom, max(0, left) : right] = 1
    return mask
