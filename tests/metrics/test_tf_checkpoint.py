"""Checkpoints that TensorFlow wrote are read without it, and nothing else is."""

import shutil
import struct

import google_crc32c
import numpy as np
import pytest
import torch
import write_tf_fixtures as written
from write_tf_fixtures import FIXTURES, VARIABLES

from mmbench.networks import tf_checkpoint
from mmbench.networks.tf_checkpoint import read_tf_checkpoint

V1, V2 = "v1/model.ckpt", "v2/model.ckpt.index"


@pytest.mark.parametrize("kind", [V1, V2])
def test_every_variable_is_as_tensorflow_wrote_it(kind):
    found = read_tf_checkpoint(FIXTURES / kind)
    assert found.keys() == VARIABLES.keys()
    for name in VARIABLES:
        expected = torch.from_numpy(np.array(written.values(name)))
        assert found[name].dtype == expected.dtype
        assert torch.equal(found[name], expected), name


def test_both_kinds_hold_the_parts_of_a_partitioned_variable():
    for name, (rows, columns) in written.PARTS.items():
        assert rows * columns == 2
        assert all(size % parts == 0 for size, parts in zip(VARIABLES[name][1], (rows, columns), strict=True))
    assert (FIXTURES / V2).read_bytes().count(b"partitioned\0\1") >= 1, "keys of its parts"


def test_snappy_is_undone():
    compressed = (FIXTURES / "snappy.bin").read_bytes()
    assert len(compressed) < len(written.repetitive()) - 600, "it has copies"
    assert tf_checkpoint._unsnapped(memoryview(compressed)) == written.repetitive()


def varint(number):
    head = []
    while number > 127:
        head.append(number & 127 | 128)
        number >>= 7
    return bytes([*head, number])


def field(number, value):
    """A protocol buffer's field: an integer, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def table(entries, compressed=False):
    """A table as table_format.txt describes it, with one block for each entry."""
    content, places = b"", []

    def add(pairs):
        nonlocal content
        block = b"".join(varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in pairs)
        block += struct.pack("<II", 0, 1)
        if compressed:  # one literal
            block = varint(len(block)) + b"\xf4" + struct.pack("<H", len(block) - 1) + block
        place = varint(len(content)) + varint(len(block))
        block += bytes([compressed])
        crc = google_crc32c.value(block)
        content += block + struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
        return place

    places = [(key, add([(key, value)])) for key, value in entries]
    footer = (add([]) + add(places)).ljust(40, b"\0")
    return content + footer + bytes.fromhex("57fb808b247547db")


def saved(shape, parts, dtype=1):
    """The entries of a V1 checkpoint of one tensor, `x`, in parts of (extents, numbers)."""
    sizes = b"".join(field(2, field(1, size)) for size in shape)
    meta = field(1, b"x") + field(2, sizes) + field(3, dtype)
    entries = [(b"", field(1, field(1, meta)))]
    for number, (extents, numbers) in enumerate(parts):
        place = b"".join(field(1, field(1, start) + field(2, length)) for start, length in extents)
        tensor = field(1, dtype) + field(5, np.array(numbers, "<f4").tobytes())
        entries.append((b"x%d" % number, field(2, field(1, b"x") + field(2, place) + field(3, tensor))))
    return entries


@pytest.mark.parametrize("compressed", [False, True])
def test_parts_come_together_from_blocks_of_both_kinds(tmp_path, compressed):
    path = tmp_path / "model.ckpt"
    path.write_bytes(table(saved((2, 3), [([(0, 2), (0, 1)], [1, 4]), ([(0, 2), (1, 2)], [2, 3, 5, 6])]), compressed))
    assert read_tf_checkpoint(path)["x"].tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (saved((2,), [([(0, 2)], [1])]), "1 values in a part of x of 2"),
        (saved((2,), [([(0, 1)], [1])]), "other values than those of its shape in x"),
        (saved((2,), []), "other values than those of its shape in x"),
        (saved((2**60, 2**60), [([(0, 1), (0, 1)], [1])]), "other values than those of its shape in x"),
        (saved((2,), [([(1, 2)], [1, 2])]), "a part beyond the end of x"),
        (saved((2,), [([(0, 1), (0, 1)], [1])]), "a part of 2 dimensions in x, which has 1"),
        (saved((2,), [([(0, 1)], [1]), ([(0, 1)], [1])]), "parts of x that overlap"),
        (saved((1,), [([(0, 1)], [1])], dtype=8), "type number 8 in x"),
        ([(b"", b"\x0a\xff")], "an end too early"),
        ([(b"", b"\x0a" + b"\xff" * 11)], "a number of more than 64 bits"),
        ([(b"", b"\x0b")], "a field of kind 3"),
        ([(b"", field(1, 5))], "a number in field 1, which holds bytes"),
        ([(b"", field(1, field(1, field(3, b"float"))))], "bytes in field 3, which holds a number"),
        ([(b"", field(1, field(1, field(1, b"\xff") + field(3, 1))))], "a name that is no text"),
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_one_line(tmp_path, entries, message):
    path = tmp_path / "model.ckpt"
    path.write_bytes(table(entries))
    with pytest.raises(ValueError, match=rf"model\.ckpt: expected a TensorFlow checkpoint, found {message}") as caught:
        read_tf_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [V1, V2])
def test_a_damaged_byte_anywhere_is_found(tmp_path, kind):
    """Blocks carry checksums and the end a number; before that are the places of two blocks, and padding."""
    shutil.copytree(FIXTURES / "v2", tmp_path, dirs_exist_ok=True)
    path = tmp_path / (FIXTURES / kind).name
    whole = (FIXTURES / kind).read_bytes()
    for place in [*range(0, len(whole) - 48, 37), *range(len(whole) - 8, len(whole))]:
        content = bytearray(whole)
        content[place] ^= 0x10
        path.write_bytes(content)
        with pytest.raises(ValueError, match="expected a TensorFlow checkpoint, found"):
            read_tf_checkpoint(path)


@pytest.mark.parametrize("kind", [V1, V2])
def test_a_checkpoint_cut_off_anywhere_is_refused(tmp_path, kind):
    whole = (FIXTURES / kind).read_bytes()
    path = tmp_path / (FIXTURES / kind).name
    for length in (0, 5, 47, 48, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="found another file: fetch it again"):
            read_tf_checkpoint(path)


def test_data_beside_the_index_are_checked(tmp_path):
    shutil.copytree(FIXTURES / "v2", tmp_path, dirs_exist_ok=True)
    path, shard = tmp_path / "model.ckpt.index", tmp_path / "model.ckpt.data-00000-of-00001"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(ValueError, match="found a wrong checksum"):
        read_tf_checkpoint(path)
    shard.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"found an end of model\.ckpt\.data-00000-of-00001 before that of wide"):
        read_tf_checkpoint(path)
    shard.unlink()
    with pytest.raises(ValueError, match=r"data-00000-of-00001: expected a file of a TensorFlow checkpoint, found non"):
        read_tf_checkpoint(path)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"\x05\x00a", "another length"),
        (b"\x01\x04ab", "another length"),
        (b"\x05\x00a\x01\x05", "a copy from before its beginning"),
        (b"\x05\x00a\x01\x00", "a copy from before its beginning"),
        (b"\x05\xf0", "an end too early"),
        (b"\xff\xff\xff\xff\x0f\x00a", "another length"),
    ],
)
def test_a_compressed_block_gives_no_more_than_it_states(stream, message):
    with pytest.raises(tf_checkpoint._Damaged, match=message):
        tf_checkpoint._unsnapped(memoryview(stream))
