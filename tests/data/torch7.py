"""Writes files as Torch7 and Python 2 did, so that their readers meet what others wrote."""

import struct
from itertools import count

import numpy as np

NONE = b"J" + struct.pack("<i", -1)  # of fields of a kind of number, its size and its alignment
CLASSES = {"<f4": "Float", "<f8": "Double", "<i8": "Long", "|u1": "Byte"}


class Lua:
    """An object of a class of Lua's: a name, and a table."""

    def __init__(self, name, **entries):
        self.name, self.entries = name, entries


class Function:
    """A function: bytecode, and what it refers to."""

    def __init__(self, bytecode, upvalues):
        self.bytecode, self.upvalues = bytecode, upvalues


def t7(value):
    """The bytes of a value as `torch.save` writes it; the same object twice is written once."""
    return _written(value, {}, count(1))


def _whole(*numbers):
    return struct.pack(f"<{len(numbers)}i", *numbers)


def _text(text):
    content = text.encode()
    return _whole(len(content)) + content


def _written(value, known, numbers):
    if value is None:
        return _whole(0)
    if isinstance(value, bool):
        return _whole(5, int(value))
    if isinstance(value, int | float):
        return _whole(1) + struct.pack("<d", value)
    if isinstance(value, str):
        return _whole(2) + _text(value)
    kind = {dict: 3, Function: 8}.get(type(value), 4)
    if id(value) in known:
        return _whole(kind, known[id(value)])
    known[id(value)] = next(numbers)
    head = _whole(kind, known[id(value)])
    if isinstance(value, Function):
        return head + _whole(len(value.bytecode)) + value.bytecode + _written(value.upvalues, known, numbers)
    if isinstance(value, dict):
        pairs = (_written(part, known, numbers) for pair in value.items() for part in pair)
        return head + _whole(len(value)) + b"".join(pairs)
    if isinstance(value, Lua):
        return head + _text("V 1") + _text(value.name) + _written(value.entries, known, numbers)
    return head + _tensor(value, next(numbers))


def _tensor(array, number):
    kind = CLASSES[array.dtype.str]
    shape = struct.pack(f"<{2 * array.ndim}q", *array.shape, *(step // array.itemsize for step in array.strides))
    # One number that is not the tensor's lies before it in its storage.
    numbers = np.concatenate([np.zeros(1, array.dtype), array.ravel(order="K")])
    storage = _whole(4, number) + _text("V 1") + _text(f"torch.{kind}Storage") + struct.pack("<q", len(numbers))
    head = _text("V 1") + _text(f"torch.{kind}Tensor") + _whole(array.ndim) + shape + struct.pack("<q", 2)
    return head + storage + numbers.tobytes()


def python2_pickle(arrays):
    """A list of arrays as Python 2 and its NumPy pickled it at protocol 2: their bytes are a string."""
    return b"\x80\x02(" + b"".join(map(_pickled, arrays)) + b"l."


def _pickled(array):
    kind = array.dtype.str[1:].encode()
    content = array.tobytes()
    size = b"(" + b"".join(b"J" + struct.pack("<i", side) for side in array.shape) + b"t"
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    numbers = (
        b"cnumpy\ndtype\n(U"
        + bytes([len(kind)])
        + kind
        + b"K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    return made + b"(K\x01" + size + numbers + b"\x89T" + struct.pack("<i", len(content)) + content + b"tb"
