"""Files of Torch7 are read as data: tables, strings, tensors; functions are passed over, and damage is named."""

import re
import struct

import numpy as np
import pytest
from torch7 import Function, Lua, t7

from mmbench.core.torch7 import read_t7


@pytest.fixture
def read(tmp_path):
    def reading(content):
        (tmp_path / "file.t7").write_bytes(content)
        return read_t7(tmp_path / "file.t7")

    return reading


def test_plain_values_come_back_as_they_were(read):
    value = {"img": "a/b.jpg", 1: True, 2: {"nothing": None, "half": 0.5}, "café": "ü"}
    assert read(t7(value)) == value


@pytest.mark.parametrize("kind", ["<f4", "<f8", "<i8", "|u1"])
def test_tensors_come_back_by_their_sizes_strides_and_offset(read, kind):
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    for written in (array, array.transpose(2, 0, 1)):
        found = read(t7(written))
        assert found.dtype == written.dtype
        assert np.array_equal(found, written)


def test_what_is_met_again_is_the_same(read):
    table = {"weight": np.ones((2, 2), np.float32)}
    table["self"] = table
    found = read(t7({1: table, 2: table}))
    assert found[1] is found[2] is found[1]["self"]


def test_objects_of_lua_are_tables_and_functions_are_nothing(read):
    module = Lua("nn.Linear", weight=np.ones(3, np.float64), forward=Function(b"\x1bLJ bytecode", {1: "upvalue"}))
    found = read(t7({"net": module, "last": 7}))
    assert found["net"].keys() == {"weight", "forward"}
    assert found["net"]["forward"] is None
    assert found["last"] == 7


def whole(*numbers):
    return struct.pack(f"<{len(numbers)}i", *numbers)


DAMAGED = {
    "nothing": b"",
    "another kind": b"\x89PNG\r\n\x1a\n",
    "cut off": t7({"txt": np.ones((3, 4), np.float32)})[:-5],
    "a string longer than the file": whole(2, 2**31 - 1),
    "a storage larger than the file": whole(4, 1) + whole(3) + b"V 1" + whole(18) + b"torch.FloatStorage" + b"\xff" * 8,
    "a tensor larger than its storage": t7(np.ones(4, np.float32)).replace(
        struct.pack("<qqq", 4, 1, 2), struct.pack("<qqq", 2**40, 0, 2)
    ),
    "tables without end": whole(3, 1, 1, 3, 2, 1) * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damage_is_one_line_that_names_the_file(read, tmp_path, content):
    path = re.escape(str(tmp_path / "file.t7"))
    with pytest.raises(
        ValueError, match=rf"^{path}: expected a file of Torch7, found a damaged one .*again$"
    ) as caught:
        read(content)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.t7: expected a file of Torch7, found none"):
        read_t7(tmp_path / "gone.t7")
