"""Prepared pictures: those of a split, decoded and resized once, for every epoch and every run.

What is kept is what `View.resized` gives: the whole region at its new size, on which no random choice depends. A folder
holds `pixels.npy`, the bytes of all pictures one after another (uint8, memory-mapped), and `index.npy`, a row of int64
for each picture in the order of the records: where its bytes begin, its height and width, the width and height of the
picture in its file, and the CRC-32 of its bytes, which is compared the first time that they are read. Samples are those
of files, bit by bit. Any such folder may be removed when no run uses it.
"""

import errno
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mmbench.core.files import held, sha256_json
from mmbench.core.images import decoder, opened, rgb
from mmbench.core.progress import track
from mmbench.data.records import Look, Record, Seen, region_of

VERSION = 2  # of the folder's format
COLUMNS = 6  # of `index.npy`

Value = TypeVar("Value")


def prepared(
    cache: Path, name: str, identity: Any, records: Sequence[Record], look: Look, num_threads: int
) -> "Cached":
    """The reader of prepared pictures; they are made first if they are not there.

    They appear whole or not at all, also when two runs want them at once or one is killed.

    Args:
        cache: the folder of all prepared pictures.
        name: for people, the beginning of the folder's name.
        identity: a JSON value that says which pictures these are and how large; `core.images.decoder` is
            added to it.
        records: of the pictures, in a fixed order.
        look: how they are looked at: the region and the size count, not the square.
        num_threads: that decode at once; 0 counts as 1.

    Raises:
        ValueError: there are no records; a picture is missing or damaged; the disk is too small.
    """
    if not records:
        raise ValueError(f"{cache / name}: expected images to prepare, found none: choose a split that has some")
    key = sha256_json([VERSION, identity, decoder()])
    folder = cache / f"{name}-{key[:16]}"
    if not folder.is_dir():
        with held(folder):  # not `locked`: every process of a distributed run comes here by itself
            if not folder.is_dir():
                _build(folder, records, look, max(1, num_threads))
    return Cached(folder, records)


class Cached:
    """Reads prepared pictures: a drop-in for `records.decoded`, with the same result.

    Memory-mapped: processes share one copy, and only the rows of the square are touched.

    Raises:
        ValueError: the folder is damaged.
    """

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        self.folder = folder
        self.index = self._loaded("index.npy")
        self.rows = {record.id: row for row, record in enumerate(records)}
        self.sound = np.zeros(len(records), bool)
        if (shape := self.index.shape) != (len(records), COLUMNS):
            raise self._damaged(f"{len(records)} rows of {COLUMNS} numbers in index.npy", str(shape))
        if (found := self.pixels.shape) != (expected := (int((self.index[:, 1] * self.index[:, 2] * 3).sum()),)):
            raise self._damaged(f"{expected} bytes in pixels.npy", str(found))

    @cached_property
    def pixels(self) -> np.ndarray:
        return self._loaded("pixels.npy", mmap_mode="r")

    def _loaded(self, file: str, **how: Any) -> np.ndarray:
        try:
            return np.asarray(np.load(self.folder / file, **how))
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(f"an array in {file}", str(error)) from None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "pixels"}

    def __call__(self, record: Record, look: Look) -> Seen:
        row = self.rows[record.id]
        begin, height, width, *size, crc = self.index[row].tolist()
        view = look(region_of(record, (size[0], size[1])))
        if view.size != (width, height):
            raise self._damaged(f"{record.id} of {view.size}", f"it of {(width, height)}")
        content = self.pixels[begin : begin + height * width * 3]
        if not self.sound[row] and zlib.crc32(content) != crc:
            raise self._damaged(f"the pixels of {record.id} as they were written", "others")
        self.sound[row] = True
        whole = content.reshape(height, width, 3)
        return Seen(view.window(whole), view, (size[0], size[1]))

    def _damaged(self, expected: str, found: str) -> ValueError:
        return ValueError(f"{self.folder}: expected {expected}, found {found}: remove the folder, it is made again")


def _build(folder: Path, records: Sequence[Record], look: Look, num_threads: int) -> None:
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a killed owner of the lock
    index = _index(records, look, num_threads)
    total = int((index[:, 1] * index[:, 2] * 3).sum()) + index.nbytes
    if total > (free := shutil.disk_usage(folder.parent).free):
        raise _no_room(folder, total, f"{free:,}")
    try:
        temporary.mkdir()
        pixels = _in_order(partial(_resized, look=look), records, num_threads)
        pictures = zip(track(records, "preparing images"), pixels, strict=True)
        sums = _write(temporary / "pixels.npy", total - index.nbytes, pictures)
        np.save(temporary / "index.npy", np.column_stack([index, sums]))
        temporary.replace(folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _no_room(folder, total, "less") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _no_room(folder: Path, total: int, found: str) -> ValueError:
    return ValueError(
        f"{folder}: expected {total:,} bytes of free disk for prepared images, found {found}: free some, set "
        "paths.assets to a larger disk, or set data.module.cache=false"
    )


def _index(records: Sequence[Record], look: Look, num_threads: int) -> np.ndarray:
    """Rows of `index.npy` from the headers of the files."""
    facts = np.array(list(_in_order(partial(_measured, look=look), records, num_threads)), np.int64)
    sizes = facts[:, 0] * facts[:, 1] * 3
    return np.column_stack([np.cumsum(sizes) - sizes, facts])


def _measured(record: Record, look: Look) -> tuple[int, int, int, int]:
    """Height and width it is resized to, width and height of the picture."""
    with opened(record.image) as file:
        width, height = look(region_of(record, file.size)).size
        return height, width, *file.size


def _resized(record: Record, look: Look) -> np.ndarray:
    with opened(record.image) as file:
        return look(region_of(record, file.size)).resized(rgb(file))


def _in_order(
    function: Callable[[Record], Value], records: Sequence[Record], num_threads: int, ahead: int = 16
) -> Iterator[Value]:
    """The function of each record, by several threads (Pillow releases the lock), `ahead` of each in memory."""
    step = ahead * num_threads
    with ThreadPoolExecutor(num_threads) as pool:
        for start in range(0, len(records), step):
            yield from pool.map(function, records[start : start + step])


def _write(path: Path, total: int, pictures: Iterator[tuple[Record, np.ndarray]]) -> list[int]:
    """CRC-32 of each picture. Written and not memory-mapped: a full disk is then an error and not the process's end."""
    sums = []
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (total,)})
        for _, pixels in pictures:
            content = np.ascontiguousarray(pixels)
            file.write(content.data)
            sums.append(zlib.crc32(content))
        file.flush()
        os.fsync(file.fileno())
    return sums
