"""Records: what is known of each image of a data set, and how its picture and its maps are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmbench.core.images import opened, read_rgb
from mmbench.core.text import repaired
from mmbench.data.archives import lacking
from mmbench.data.views import Region, View, square_around

Look = Callable[[Region], View]  # how a region of a picture is looked at; of `Preprocessing`, with its side
Size = tuple[int, int]  # width and height of a picture in pixels
Map = Callable[[Size], np.ndarray]  # a map of a picture of that size: (H, W) uint8; picklable, for workers


class Instance(NamedTuple):
    """One object in a picture.

    Attributes:
        class_id: the data set's own class number of objects.
        box: x, y, width, height in pixels.
        mask: where it is: (H, W) uint8, non-zero inside.
        is_crowd: whether it stands for many objects that were not told apart.
    """

    class_id: int
    box: tuple[float, float, float, float]
    mask: Map
    is_crowd: bool = False


@dataclass(frozen=True)
class Record:
    """One image of a data set and what is known of it.

    Attributes:
        id: key within the data set; a relative path without extension where the files have one.
        image: the file.
        captions: raw texts, at least as many as the data set's `num_captions`.
        class_id: the data set's own class number; a number of its own where images have no class.
        box: x, y, width, height in pixels of the object that the picture is of; None where nobody knows.
        salient: the object that the picture is of, for masks: (H, W) uint8, non-zero inside; None where nobody knows.
        layout: class of every pixel: (H, W) uint8; None where nobody knows.
        instances: the objects, where a data set lists them.
        parts: a PNG of the image's size, 0 background, 1 + p the p-th part, then what belongs to no part; or None.
        num_parts: how many parts there are.
        attributes: the true ones, where known.
        caption_attributes: for each caption, the attributes it names, with `parts` only.
        cropped: whether only the square around `box` is to be seen.
        extra: what single data sets know more, by name, for fields of their own: JSON values, or paths of files, which
            the fingerprint knows by their sizes.
    """

    id: str
    image: Path
    captions: tuple[str, ...]
    class_id: int
    box: tuple[float, float, float, float] | None = None
    salient: Map | None = None
    layout: Map | None = None
    instances: tuple[Instance, ...] = ()
    parts: Path | None = None
    num_parts: int = 0
    attributes: dict[str, str] | None = None
    caption_attributes: tuple[dict[str, str], ...] = ()
    cropped: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)


class Seen(NamedTuple):
    """A picture as it was looked at.

    Attributes:
        pixels: (side, side, 3) uint8.
        view: what was looked at.
        size: of the whole picture.
    """

    pixels: np.ndarray
    view: View
    size: Size


Reader = Callable[[Record, Look], Seen]


def decoded(record: Record, look: Look) -> Seen:
    """Reads a picture from its file.

    Its pixels are seen as they lie in the file, and EXIF turns nothing: boxes, masks and layouts of data sets belong to
    those. (`mmbench score`, which knows no boxes, turns pictures upright.)

    Raises:
        ValueError: the file is missing or damaged, or its box lies outside; names it.
    """
    with opened(record.image) as file:
        size = file.size
        view = look(region_of(record, size))
        return Seen(view.of(file), view, size)


def read_captions(path: Path, least: int, most: int | None = None) -> tuple[str, ...]:
    """The captions of an image, one on each line, `repaired`; there are `least` to `most` of them.

    Raises:
        ValueError: there is no such file, it is no text, or there are fewer or more captions; names it.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected {least} captions, {lacking(path, 'unpack the captions again', 'no file')}")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # an editor's byte order mark is no part of a caption
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected text in UTF-8, found other bytes ({error}): unpack the captions again"
        ) from None
    captions = tuple(repaired(line) for line in lines if line.strip())
    if len(captions) < least or (most is not None and len(captions) > most):
        raise ValueError(
            f"{path}: expected {least} captions, one on each line, found {len(captions)}: unpack the captions again"
        )
    return captions


def read_map(path: Path, size: Size) -> np.ndarray:
    """A map of a picture of that size from an image file: (H, W) uint8, its first channel.

    Raises:
        ValueError: the file is missing or damaged, or of another size; names it.
    """
    index = read_rgb(path)[0].numpy()
    if index.shape != size[::-1]:
        raise ValueError(
            f"{path}: expected a map of {size[0]} x {size[1]} pixels, as its image, found {index.shape[1]} x "
            f"{index.shape[0]}: unpack the archive again"
        )
    return index


def region_of(record: Record, size: Size) -> Region:
    """The part of a picture that is looked at: all of it, or the square around the record's box.

    Raises:
        ValueError: the box lies outside; names the file.
    """
    if record.box is None or not record.cropped:
        return 0, 0, *size
    try:
        return square_around(record.box, *size)
    except ValueError as error:
        raise ValueError(f"{record.image}: {error}") from None
