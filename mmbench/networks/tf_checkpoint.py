"""Reading the tensors of a TensorFlow checkpoint without TensorFlow.

Both kinds are LevelDB tables, sorted keys and values in checksummed blocks. In the older one (V1, until TensorFlow 1.0)
the values are the tensors themselves; in the newer one (V2) they say where in the `.data` files beside the table each
tensor lies. Sources, all at tensorflow/tensorflow v2.21.0: tensorflow/core/lib/io/table_format.txt;
tensorflow/core/util/saved_tensor_slice.proto and tensorflow/core/protobuf/tensor_bundle.proto for the values;
google/snappy, format_description.txt, for the compression of V1.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np
import torch
from torch import Tensor

MAGIC = 0xDB4775248B80FB57
FOOTER = 48
STRING = 7

# TensorFlow's number of a type to ours, and the field of a TensorProto that holds its values.
DTYPES = {
    1: (np.dtype("<f4"), 5),
    2: (np.dtype("<f8"), 6),
    3: (np.dtype("<i4"), 7),
    4: (np.dtype("u1"), 7),
    5: (np.dtype("<i2"), 7),
    6: (np.dtype("i1"), 7),
    9: (np.dtype("<i8"), 10),
    10: (np.dtype("?"), 11),
    19: (np.dtype("<f2"), 13),
}
FIXED_WIDTH = {1, 2}  # the other types are lists of varints


class _Damaged(Exception):
    """What was found instead, in a few words."""


def read_tf_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by the names of their variables; a partitioned variable comes in one piece.

    Texts, which TensorFlow 2 keeps about its objects, are left out. Every block and tensor is checked against its
    CRC-32C.

    Args:
        path: the file itself of a V1 checkpoint (`model.ckpt-5000`), or the `.index` of a V2 checkpoint, whose
            `.data-?????-of-?????` lie beside it.

    Raises:
        ValueError: a file is missing, damaged, or no checkpoint, or holds numbers of a kind that a network has none of.
    """
    path = Path(path)
    try:
        arrays = _read_bundle(path) if path.suffix == ".index" else _read_saved_slices(path)
    except FileNotFoundError as error:
        raise ValueError(
            f"{error.filename}: expected a file of a TensorFlow checkpoint, found none: put it there"
        ) from None
    except _Damaged as error:
        raise ValueError(f"{path}: expected a TensorFlow checkpoint, found {error}: fetch it again") from None
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


class _Cursor:
    """Takes bytes from the front, and no more than there are."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.place = 0

    def __bool__(self) -> bool:
        return self.place < len(self.data)

    def take(self, count: int) -> memoryview:
        if count > len(self.data) - self.place:
            raise _Damaged("an end too early")
        self.place += count
        return self.data[self.place - count : self.place]

    def integer(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.integer(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (1 << 64) - 1
        raise _Damaged("a number of more than 64 bits")


def _table(path: Path) -> Iterator[tuple[bytes, memoryview]]:
    """Keys and values of a table, in order."""
    data = memoryview(path.read_bytes())
    if len(data) < FOOTER or int.from_bytes(data[-8:], "little") != MAGIC:
        raise _Damaged("another file")
    footer = _Cursor(data[-FOOTER:-8])
    _block(data, *_handle(footer))  # of filters, which TensorFlow leaves empty
    for _, place in _entries(_block(data, *_handle(footer))):
        yield from _entries(_block(data, *_handle(_Cursor(place))))


def _handle(cursor: _Cursor) -> tuple[int, int]:
    return cursor.varint(), cursor.varint()


def _block(data: memoryview, offset: int, size: int) -> memoryview:
    if offset + size + 5 > len(data):
        raise _Damaged("a block beyond its end")
    content, compression = data[offset : offset + size], data[offset + size]
    _check(data[offset : offset + size + 1], int.from_bytes(data[offset + size + 1 : offset + size + 5], "little"))
    if compression > 1:
        raise _Damaged(f"compression number {compression}")
    return memoryview(_unsnapped(content)) if compression else content


def _check(data: memoryview, masked: int) -> None:
    """Compares with a CRC-32C that was rotated and shifted, so that a checksum of checksums is a good one."""
    crc = google_crc32c.value(bytes(data))
    if ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF != masked:
        raise _Damaged("a wrong checksum")


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Keys and values of a block; a key begins with so many bytes of the one before."""
    num_restarts = _Cursor(block[-4:]).integer(4)
    end = len(block) - 4 - 4 * num_restarts
    if end < 0:
        raise _Damaged("a block shorter than its own index")
    cursor, key = _Cursor(block[:end]), b""
    while cursor:
        shared, added, size = cursor.varint(), cursor.varint(), cursor.varint()
        if shared > len(key):
            raise _Damaged("a key without its beginning")
        key = key[:shared] + bytes(cursor.take(added))
        yield key, cursor.take(size)


def _unsnapped(data: memoryview) -> bytes:
    """What Snappy compressed: literals, and copies of what is there already."""
    cursor = _Cursor(data)
    length = cursor.varint()
    found = bytearray()
    while cursor:
        tag = cursor.integer(1)
        count = (tag >> 2) + 1
        if tag & 3 == 0:
            found += cursor.take(count if count <= 60 else cursor.integer(count - 60) + 1)
        else:
            if tag & 3 == 1:
                count, back = (tag >> 2 & 7) + 4, tag >> 5 << 8 | cursor.integer(1)
            else:
                back = cursor.integer(2 if tag & 3 == 2 else 4)
            if not 0 < back <= len(found):
                raise _Damaged("a copy from before its beginning")
            start = len(found) - back
            # A copy may run into itself: then what there is repeats.
            found += (found[start : start + count] * (count // back + 1))[:count]
        if len(found) > length:
            break
    if len(found) != length:
        raise _Damaged("compressed data of another length than they state")
    return bytes(found)


def _fields(message: memoryview) -> dict[int, list[int | memoryview]]:
    """A protocol buffer's fields by number: integers, and bytes of whatever is longer."""
    cursor = _Cursor(message)
    found: dict[int, list[int | memoryview]] = {}
    while cursor:
        tag = cursor.varint()
        value: int | memoryview
        match tag & 7:
            case 0:
                value = cursor.varint()
            case 1 | 5 as kind:
                value = cursor.integer(8 if kind == 1 else 4)
            case 2:
                value = cursor.take(cursor.varint())
            case kind:
                raise _Damaged(f"a field of kind {kind}")
        found.setdefault(tag >> 3, []).append(value)
    return found


class _Message:
    """A protocol buffer read by the numbers of its fields; an absent number is 0."""

    def __init__(self, data: memoryview) -> None:
        self.fields = _fields(data)

    def number(self, field: int) -> int:
        value = self.fields.get(field, [0])[-1]
        if not isinstance(value, int):
            raise _Damaged(f"bytes in field {field}, which holds a number")
        return value

    def parts(self, field: int) -> list[memoryview]:
        values = self.fields.get(field, [])
        if any(isinstance(value, int) for value in values):
            raise _Damaged(f"a number in field {field}, which holds bytes")
        return values  # type: ignore[return-value]

    def message(self, field: int) -> "_Message":
        return _Message((self.parts(field) or [memoryview(b"")])[-1])

    def messages(self, field: int) -> "list[_Message]":
        return [_Message(part) for part in self.parts(field)]

    def text(self, field: int) -> str:
        try:
            return str((self.parts(field) or [memoryview(b"")])[-1], "utf-8")
        except UnicodeDecodeError:
            raise _Damaged("a name that is no text") from None


class _Kind(NamedTuple):
    """Type and shape that a checkpoint states of a tensor."""

    name: str
    dtype: int
    shape: tuple[int, ...]

    @classmethod
    def read(cls, name: str, dtype: int, shape: _Message) -> "_Kind":
        if dtype not in DTYPES:
            raise _Damaged(f"type number {dtype} in {name}")
        sizes = tuple(size.number(1) for size in shape.messages(2))
        if len(sizes) > 32:
            raise _Damaged(f"{len(sizes)} dimensions in {name}")
        return cls(name, dtype, sizes)


def _extent(kind: _Kind, part: _Message) -> tuple[slice, ...]:
    """The part of a tensor that a TensorSliceProto names."""
    extents = part.messages(1)
    if len(extents) != len(kind.shape):
        raise _Damaged(f"a part of {len(extents)} dimensions in {kind.name}, which has {len(kind.shape)}")
    place = []
    for size, extent in zip(kind.shape, extents, strict=True):
        start, length = extent.number(1), extent.number(2) if 2 in extent.fields else size
        if start + length > size:
            raise _Damaged(f"a part beyond the end of {kind.name}")
        place.append(slice(start, start + length))
    return tuple(place)


def _shape(place: Iterable[slice]) -> tuple[int, ...]:
    return tuple(extent.stop - extent.start for extent in place)


def _assembled(kind: _Kind, parts: list[tuple[tuple[slice, ...], np.ndarray]]) -> np.ndarray:
    """A tensor from its parts, which cover it exactly once."""
    if sum(part.size for _, part in parts) != math.prod(kind.shape):
        raise _Damaged(f"other values than those of its shape in {kind.name}")
    if len(parts) == 1:
        return parts[0][1].reshape(kind.shape)
    whole, covered = np.zeros(kind.shape, parts[0][1].dtype), np.zeros(kind.shape, bool)
    for place, part in parts:
        whole[place], covered[place] = part, True
    if not covered.all():
        raise _Damaged(f"parts of {kind.name} that overlap")
    return whole


def _read_saved_slices(path: Path) -> dict[str, np.ndarray]:
    """V1: the first value lists all tensors, each of the others holds a part of one."""
    kinds: dict[str, _Kind] = {}
    parts: dict[str, list[tuple[tuple[slice, ...], np.ndarray]]] = {}
    for _, value in _table(path):
        saved = _Message(value)
        for tensor in saved.message(1).messages(1):
            if tensor.number(3) != STRING:
                name = tensor.text(1)
                kinds[name] = _Kind.read(name, tensor.number(3), tensor.message(2))
        for part in saved.messages(2):
            if kind := kinds.get(part.text(1)):
                place = _extent(kind, part.message(2))
                parts.setdefault(kind.name, []).append((place, _values(kind, place, part.message(3))))
    return {name: _assembled(kind, parts.get(name, [])) for name, kind in kinds.items()}


def _values(kind: _Kind, place: tuple[slice, ...], tensor: _Message) -> np.ndarray:
    """The numbers of a TensorProto."""
    dtype, field = DTYPES[kind.dtype]
    packed = (tensor.parts(field) or [memoryview(b"")])[-1]
    if kind.dtype in FIXED_WIDTH:
        if len(packed) % dtype.itemsize:
            raise _Damaged(f"half a number in {kind.name}")
        numbers = np.frombuffer(packed, dtype).copy()
    else:
        numbers = _integers(kind, packed)
    if numbers.size != math.prod(_shape(place)):
        raise _Damaged(f"{numbers.size} values in a part of {kind.name} of {math.prod(_shape(place))}")
    return numbers.reshape(_shape(place))


def _integers(kind: _Kind, packed: memoryview) -> np.ndarray:
    """Varints as the integers or truth values that they are, or as the bits of 16-bit floats."""
    dtype = DTYPES[kind.dtype][0]
    cursor, found = _Cursor(packed), []
    while cursor:
        value = cursor.varint()
        found.append(value - (1 << 64) if value >> 63 else value)
    bits = np.dtype("<u2") if dtype.kind == "f" else dtype
    try:
        return np.array(found, bits).view(dtype)
    except OverflowError:
        raise _Damaged(f"a number that is no {dtype} in {kind.name}") from None


def _read_bundle(path: Path) -> dict[str, np.ndarray]:
    """V2: values say where in which file each tensor, or part of one, lies."""
    entries = dict(_table(path))
    header = _Message(entries.pop(b"", memoryview(b"")))
    num_shards = header.number(1)
    if not num_shards or header.number(2):
        raise _Damaged("numbers of big-endian machines" if num_shards else "no header")
    arrays = {}
    for key, value in entries.items():
        entry = _Message(value)
        if key.startswith(b"\0") or entry.number(1) == STRING:  # a part, which its whole asks for, or a text
            continue
        kind = _Kind.read(key.decode(errors="replace"), entry.number(1), entry.message(2))
        parts = []
        for part in entry.messages(7):
            held = entries.get(_part_key(key, part))
            if held is None:
                raise _Damaged(f"no values of a part of {kind.name}")
            place = _extent(kind, part)
            parts.append((place, _stored(path, num_shards, kind, _Message(held)).reshape(_shape(place))))
        if not parts:
            whole = tuple(slice(0, size) for size in kind.shape)
            parts.append((whole, _stored(path, num_shards, kind, entry).reshape(kind.shape)))
        arrays[kind.name] = _assembled(kind, parts)
    return arrays


def _stored(path: Path, num_shards: int, kind: _Kind, entry: _Message) -> np.ndarray:
    """The numbers that an entry of the index points to, as many as its own shape says."""
    shape = _Kind.read(kind.name, entry.number(1), entry.message(2)).shape
    dtype, size = DTYPES[kind.dtype][0], entry.number(5)
    if entry.number(1) != kind.dtype or size != math.prod(shape) * dtype.itemsize:
        raise _Damaged(f"{size} bytes in {kind.name} {shape} of {dtype}")
    shard = path.with_name(f"{path.stem}.data-{entry.number(3):05}-of-{num_shards:05}")
    with shard.open("rb") as file:
        file.seek(min(entry.number(4), shard.stat().st_size))
        data = bytearray(file.read(size))
    if len(data) != size:
        raise _Damaged(f"an end of {shard.name} before that of {kind.name}")
    _check(memoryview(data), entry.number(6))
    return np.frombuffer(data, dtype).reshape(shape)


def _part_key(name: bytes, part: _Message) -> bytes:
    """The key of a part's own entry: name and place in an encoding that sorts as they do.

    Source: tensorflow/core/util/saved_tensor_slice_util.cc, EncodeTensorNameSlice, and core/lib/strings/ordered_code.cc
    """
    escaped = b"".join({0: b"\0\xff", 255: b"\xff\0"}.get(byte, bytes([byte])) for byte in name)
    extents = part.messages(1)
    bounds = [(extent.number(1), extent.number(2) if 2 in extent.fields else -1) for extent in extents]
    dims = bytes([1, len(bounds)]) if bounds else b"\0"
    return b"\0" + escaped + b"\0\x01" + dims + b"".join(_ordered(number) for pair in bounds for number in pair)


def _ordered(number: int) -> bytes:
    """An integer as bytes that sort as integers do: as many leading bits flipped as there are bytes."""
    count = (number if number >= 0 else ~number).bit_length() // 7 + 1
    if count > 8:
        raise _Damaged(f"a part that begins at {number}")
    flipped = (1 << 8) - (1 << 8 - count)
    return (number % (1 << 8 * count) ^ flipped << 8 * (count - 1)).to_bytes(count)
