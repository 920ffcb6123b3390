"""Files of Torch7 (`.t7`), Torch in Lua, which wrote them by `torch.save`: numbers, strings, tables and tensors.

The format is a tree of values, each behind a number that says its kind; tables and objects are numbered, so that one
that is met again is named by its number. Nothing of a file is run: functions, whose bytecode may be among the values,
are passed over, and objects of Lua's classes are read as the tables that they were written as.
https://github.com/torch/torch7/blob/master/doc/serialization.md describes it; files are little-endian.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

NIL, NUMBER, STRING, TABLE, OBJECT, BOOLEAN, OLDEST_FUNCTION, OLD_FUNCTION, FUNCTION = range(9)
# What tensors and their storages hold; those of a graphics card are written as those of a processor.
NUMBERS = {
    "Byte": "<u1",
    "Char": "<i1",
    "Short": "<i2",
    "Int": "<i4",
    "Long": "<i8",
    "Float": "<f4",
    "Double": "<f8",
    "Cuda": "<f4",
    "CudaDouble": "<f8",
    "CudaLong": "<i8",
}
STORAGES = {f"torch.{kind}Storage": number for kind, number in NUMBERS.items()}
TENSORS = {f"torch.{kind}Tensor": number for kind, number in NUMBERS.items()}
MAX_DIMENSIONS = 32  # of NumPy's arrays


def read_t7(path: str | Path) -> Any:
    """What a file of Torch7 holds.

    Returns:
        A value: None, float, bool, str (bytes that are no UTF-8 as Latin-1), dict of a table's or an object's entries,
        NumPy array of a tensor. Whole numbers that are keys of a table are ints.

    Raises:
        ValueError: there is no such file, or it is damaged or of another kind.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _Reader(file, path.stat().st_size).value()
    except FileNotFoundError:
        found = "none"
    except (ValueError, KeyError, RecursionError, OverflowError) as error:
        found = f"a damaged one or one of another kind ({error or type(error).__name__})"
    raise ValueError(f"{path}: expected a file of Torch7, found {found}: fetch it again")


def parameters(content: Any) -> dict[str, np.ndarray]:
    """The weights and biases of a network that `read_t7` has read, by the places of its modules.

    A module's parts are numbered from 1 in its table `modules`; `encoder.2.1.weight` is the weight of the first part of
    the second part of what the file calls `encoder`. What a module keeps besides, gradients and graphs, is passed over.
    """
    found: dict[str, np.ndarray] = {}
    visited: set[int] = set()

    def visit(table: Mapping[Any, Any], prefix: str) -> None:
        if id(table) in visited:
            return
        visited.add(id(table))
        own = {name: table[name] for name in ("weight", "bias") if isinstance(table.get(name), np.ndarray)}
        found.update({f"{prefix}{name}": value for name, value in own.items()})
        parts = table["modules"] if isinstance(table.get("modules"), Mapping) else {} if own else table
        for name, part in parts.items():
            if isinstance(part, Mapping):
                visit(part, f"{prefix}{name}.")

    if isinstance(content, Mapping):
        visit(content, "")
    return found


class _Reader:
    """Reads values one after the other, and knows what it has read by its number."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.known: dict[int, Any] = {}

    def value(self) -> Any:
        kind = self.whole()
        if kind == NIL:
            return None
        if kind == NUMBER:
            return float(self.numbers("<f8", 1)[0])
        if kind == STRING:
            return self.text()
        if kind == BOOLEAN:
            return bool(self.whole())
        if kind == OLDEST_FUNCTION:
            return self.function()
        if kind in (TABLE, OBJECT, FUNCTION, OLD_FUNCTION):
            return self.numbered(kind)
        raise ValueError(f"a value of kind {kind}")

    def numbered(self, kind: int) -> Any:
        number = self.whole()
        if number in self.known:
            return self.known[number]
        if kind == TABLE:
            return self.table(number)
        if kind == OBJECT:
            return self.object(number)
        self.known[number] = None
        return self.function()

    def function(self) -> None:
        """Passes over a function: its bytecode, and the values that it refers to."""
        self.bytes(self.whole())
        self.value()

    def table(self, number: int) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        self.known[number] = table  # before its entries, which may name it
        for _ in range(self.whole()):
            key, value = self.value(), self.value()
            key = int(key) if isinstance(key, float) and key.is_integer() else key
            if isinstance(key, dict | np.ndarray):
                raise ValueError("a table whose key is a table")
            table[key] = value
        return table

    def object(self, number: int) -> Any:
        name = self.text()
        if name.startswith("V "):  # a version, before the name
            name = self.text()
        if name in TENSORS:
            self.known[number] = self.tensor()
        elif name in STORAGES:
            self.known[number] = self.numbers(STORAGES[name], self.whole("<i8"))
        else:  # an object of a class of Lua's, written as a table, which may name it
            entries: dict[Any, Any] = {}
            self.known[number] = entries
            found = self.value()
            if not isinstance(found, Mapping):
                raise ValueError(f"an object of {name} that is no table")
            entries.update(found)
        return self.known[number]

    def tensor(self) -> np.ndarray:
        dimensions = self.whole()
        if not 0 <= dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        shape, strides = self.numbers("<i8", dimensions), self.numbers("<i8", dimensions)
        start = self.whole("<i8") - 1  # Lua counts from 1
        storage = self.value()
        if storage is None or not dimensions:
            return np.empty(0, np.float32)
        # Python's own numbers, which do not overflow into a place that looks right.
        last = start + sum((size - 1) * step for size, step in zip(shape.tolist(), strides.tolist(), strict=True))
        if not isinstance(storage, np.ndarray) or (shape < 1).any() or (strides < 0).any() or start < 0:
            raise ValueError("a tensor of another layout")
        if max(last + 1, math.prod(shape.tolist())) > len(storage):
            raise ValueError(f"a tensor of {shape.tolist()} numbers in a storage of {len(storage)}")
        view = np.lib.stride_tricks.as_strided(storage[start:], shape, strides * storage.itemsize)
        return np.array(view)

    def text(self) -> str:
        content = self.bytes(self.whole())
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return content.decode("latin-1")

    def whole(self, kind: str = "<i4") -> int:
        return int(self.numbers(kind, 1)[0])

    def numbers(self, kind: str, count: int) -> np.ndarray:
        return np.frombuffer(self.bytes(count * np.dtype(kind).itemsize), kind)

    def bytes(self, count: int) -> bytes:
        """So many bytes, no more than the file has: a damaged count reserves no memory."""
        if not 0 <= count <= self.size - self.file.tell():
            raise ValueError(f"{count} bytes where {self.size - self.file.tell()} are left")
        return self.file.read(count)
