"""Hostile input, drawn by hypothesis: one line or the right value, never a traceback, code that runs or a wrong number.

Each case is a call in this process. The same cases come each time; `slow` has twenty times as many.
"""

import bz2
import io
import json
import pickle
import string
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from mmbench.commands.evaluate import print_scores
from mmbench.core import config, hashing, results
from mmbench.core.checkpoints import NEEDED, WholeCheckpoints
from mmbench.core.pickles import read_arrays, read_plain
from mmbench.core.prompts import read_prompts
from mmbench.core.text import END, Vocabulary
from mmbench.core.unpacking import unpack_zip
from mmbench.core.weights import encoded, load_strictly, read_state
from mmbench.data import archives, marks
from mmbench.pipeline.captions import read_captions, read_references

MORE = pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)], ids=["", "more"])


def drawn(count, strategy, check):
    """Checks so many cases of a strategy."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

    @settings(max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=quiet)
    @given(strategy)
    def run(case):
        check(case)

    run()


def line_of(function, *given):
    """What a function returns, or None where it says in one line what is wrong.

    Any other exception is a traceback for whoever runs a command.
    """
    try:
        return function(*given)
    except ValueError as error:
        said = error
    assert not isinstance(said, UnicodeError | json.JSONDecodeError), f"it names no file: {said}"
    assert "expected" in str(said), str(said)
    return None


places, pieces = st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=6)
changes = st.lists(st.tuples(st.sampled_from(["put", "insert", "delete", "cut", "turn"]), places, pieces), max_size=3)


def changed(content, steps):
    """Bytes with some of them put in the place of others, inserted, deleted, cut off at a place, or a bit turned."""
    content = bytearray(content)
    for kind, place, piece in steps:
        at = int(place * max(1, len(content)))
        if kind == "put":
            content[at : at + len(piece)] = piece
        elif kind == "insert":
            content[at:at] = piece
        elif kind == "delete":
            del content[at : at + len(piece)]
        elif kind == "cut":
            del content[at:]
        elif content:
            content[min(at, len(content) - 1)] ^= 1 << piece[0] % 8
    return bytes(content)


def deep(opening, closing, depth):
    return (opening * depth + closing * depth).encode()


# What JSON can hold that its readers seldom think of.
numbers = st.sampled_from(["NaN", "1e999", "-1e999", "-0", f"1{'0' * 400}", "1e308", "true", "null", '"1"', "[]", "{}"])
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


# Records.


@pytest.fixture
def record(tmp_path):
    """The file of a record, and the record."""
    made = results.Result(
        experiment="drill",
        row={"method": "identity", "data": "cub", "source": "toy"},
        seed=3,
        protocol={"name": "strict", "hash": "0" * 64},
        metrics={"psnr": {"value": 21.5, "std": 1.25, "count": 12, "weights": None}},
        run_key="a" * 64,
        config_hash="b" * 64,
        weights={"choice": "none needed", "sha256": None, "verified": True},
        data={"fingerprint": "c" * 64, "split": "test"},
        config={"seed": 3, "method": {"name": "identity"}},
        size=[64, 64],
        costs={"parameters": 7},
    )
    path = made.write(tmp_path)
    return path, results.read_record(path)


@MORE
def test_a_record_whose_bytes_change_is_refused_or_says_the_same(record, times):
    path, whole = record
    content = path.read_bytes()

    def check(steps):
        path.write_bytes(changed(content, steps))
        found = line_of(results.read_record, path)
        assert found is None or found == whole

    drawn(100 * times, changes, check)


@MORE
def test_a_record_from_before_it_had_a_sum_is_refused_or_can_be_shown(record, times, capsys):
    path, _ = record
    content = json.loads(path.read_text())
    del content["sha256"]
    keys = [(key,) for key in content] + [("metrics", "psnr", key) for key in content["metrics"]["psnr"]]
    keys += [
        (name, key) for name in ("row", "weights", "protocol", "data", "costs", "metrics") for key in content[name]
    ]

    def check(case):
        key, tree, number = case
        changed = json.loads(json.dumps(content))
        node = changed
        for part in key[:-1]:
            node = node[part]
        node[key[-1]] = "HERE" if number else tree
        path.write_text(json.dumps(changed).replace('"HERE"', number or ""))
        found = line_of(results.read_record, path)
        if found is not None:
            print_scores(found)
            assert found.weights["verified"] in (True, False)
            assert all(abs(score["value"]) < float("inf") for score in found.metrics.values())
            assert found.path("results").name.startswith(found.row["method"])
            assert results.by_configuration(path.parents[1], "drill").keys() == {found.config_hash}

    drawn(100 * times, st.tuples(st.sampled_from(keys), trees, st.none() | numbers), check)


# Manifests: what is written down of archives, of data sets that were checked, of words and of prompts.


@MORE
def test_manifests_are_refused_or_read(tmp_path, times):
    folder = tmp_path / "archives"
    folder.mkdir()
    receipt, mark, words, prompts = folder / "a.tgz.receipt.json", *(tmp_path / f"{name}.json" for name in "mwp")
    archive = archives.Archive("a.tgz", "https://example.org/a.tgz", None, None, "none", ("a",))
    (tmp_path / "a.tgz").write_bytes(b"archive")
    sums = archives.sums_of(tmp_path / "a.tgz")
    receipt.write_text(json.dumps({**sums._asdict(), "members": 3}))
    mark.write_text(json.dumps({"fingerprint": "a" * 64, "counts": {"test": 3}}))
    Vocabulary((END, "a", "bird")).write(words)
    prompts.write_text(json.dumps(["a red bird", "a blue bird"]))
    whole = {path: path.read_bytes() for path in (receipt, mark, words, prompts)}

    def check(case):
        path, steps, other = case
        path.write_bytes(changed(whole[path], steps) if other is None else other)
        if path is receipt:
            assert line_of(archives.checked, archive, tmp_path / "a.tgz", tmp_path) in (None, sums)
        elif path is mark:
            found = line_of(marks.read, path)
            assert found is None or isinstance(found["fingerprint"], str)
        elif path is words:
            found = line_of(Vocabulary.read, path)
            assert found is None or all(isinstance(word, str) for word in found.words)
        else:
            found = line_of(read_prompts, path)
            assert found is None or "\n".join(found).encode()
        path.write_bytes(whole[path])

    others = st.none() | trees.map(lambda tree: json.dumps(tree).encode()) | st.just(deep("[", "]", 50_000))
    drawn(100 * times, st.tuples(st.sampled_from(list(whole)), changes, others), check)


# Files of captions.

CAPTIONS = {
    ".json": b'{"a/1.png": "a red bird", "b": "a \\u00e9 bird", "c": ["one", "two"]}',
    ".csv": b'a/1.png,"a red, small bird"\nb,"a ""blue"" bird"\n',
    ".tsv": b'a/1.png\ta red bird\r\nb\t"a ""blue"" bird"\n',
}


@MORE
def test_captions_are_refused_or_read(tmp_path, times):
    def check(case):
        (suffix, content), steps, other, read = case
        path = tmp_path / f"captions{suffix}"
        path.write_bytes(changed(content, steps) if other is None else other)
        for name, value in (line_of(read, path) or {}).items():
            texts = [value] if isinstance(value, str) else value
            assert name.strip()
            assert all(text.strip() for text in texts)
            json.dumps([name, *texts], ensure_ascii=False).encode()  # as a record holds them

    rows = st.lists(st.lists(st.text(max_size=6), max_size=3).map(",".join)).map("\n".join)
    others = st.one_of(
        *(st.none(), st.none(), st.binary(max_size=40), rows.map(lambda text: text.encode("utf-8", "surrogatepass"))),
        st.dictionaries(st.text(max_size=4), trees, max_size=3).map(lambda tree: json.dumps(tree).encode()),
        st.integers(300, 1000).map(lambda depth: b'{"a": ' + deep('{"b": ', "}", depth).replace(b"}", b"1}", 1) + b"}"),
        st.just(deep("[", "]", 50_000)),
    )
    readers = st.sampled_from([read_captions, read_references])
    drawn(120 * times, st.tuples(st.sampled_from(list(CAPTIONS.items())), changes, others, readers), check)


# Words of a command line.

KEYS = (
    *("seed", "scale", "weights", "experiment", "method", "data", "protocol", "logger", "hydra.mode", "stages.a.b"),
    *("data.source", "data.root", "data.toy_images", "data.module", "data.module.image_size", "paths.runs"),
    *("paths.results", "trainer.devices", "trainer.precision", "method.module", "method.training.epochs"),
    *("protocol.count", "protocol.draws", "protocol.metrics", "protocol.metrics.is.splits", "protocol.prompts"),
    *("protocol.mask", "protocol.classes"),
)
VALUES = (
    *("${seed}", "${nowhere}", "${oc.env:NOWHERE}", "${seed", "${now:%Y}", "${data}", "${.seed}", "a,b", "range(3)"),
    *("???", "null", "true", "[]", "{}", "{a:1}", "[1,[2]]", "nan", "inf", "1e999", "-1", "0x10", "1_0", "'", '"x"'),
    "\\",
)


@MORE
def test_words_are_refused_or_composed(home, times):
    letters = st.text(string.ascii_letters + string.digits + "=+~@/.:${}[]()'\",\\ é\n\0", max_size=8)
    words = st.tuples(st.sampled_from(("", "", "+", "++", "~")), st.sampled_from(KEYS) | letters)
    values = st.sampled_from(VALUES) | letters | st.integers().map(str)
    usual = st.tuples(words.map("".join), values).map("=".join)

    def check(case):
        plain = line_of(config.composed, ["method=identity", "data.source=toy", *case])
        if plain is not None:
            assert type(plain["seed"]) is int
            line_of(hashing.config_hash, plain)

    drawn(120 * times, st.lists(usual | letters, min_size=1, max_size=2), check)


# Checkpoints.


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)


def saved(content, zipped=True):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Small()


@MORE
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors", ".ckpt"])
def test_checkpoints_are_refused_or_hold_what_was_written(tmp_path, network, suffix, times):
    state = network.state_dict()
    path = tmp_path / f"last{suffix}"
    content = {
        ".pt": lambda: saved(state),
        ".pth": lambda: saved(state, zipped=False),  # which has no sum of anything
        ".safetensors": lambda: encoded(state),
        ".ckpt": lambda: saved({**dict.fromkeys(NEEDED, 0), "state_dict": state}),
    }[suffix]()

    def read():
        if suffix == ".ckpt":
            return WholeCheckpoints(network).load_checkpoint(path, weights_only=True)["state_dict"]
        found = read_state(path)
        load_strictly(Small(), found, str(path))
        return found

    def check(steps):
        path.write_bytes(changed(content, steps))
        found = line_of(read)
        if found is not None and suffix != ".pth":
            assert found.keys() == state.keys()
            assert all(torch.equal(value, state[name]) for name, value in found.items())

    drawn(40 * times, changes, check)


FITTING = {"layer.weight": torch.zeros(2, 3), "layer.bias": torch.zeros(2)}
ODD = {
    "names that are numbers": {1: torch.zeros(2)},
    "complex numbers": {**FITTING, "layer.weight": torch.zeros(2, 3, dtype=torch.complex64)},
    "a sparse tensor": {**FITTING, "layer.weight": torch.zeros(2, 3).to_sparse()},
    "no numbers": {**FITTING, "layer.weight": torch.empty(2, 3, device="meta")},
    "text": {**FITTING, "layer.weight": "x"},
    "a list": [torch.zeros(2)],
    "numbers of 8 bits": {**FITTING, "layer.bias": torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.quint8)},
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_odd_tensors_are_one_line(tmp_path, content, zipped):
    path = tmp_path / "odd.pth"
    path.write_bytes(saved(content, zipped))
    assert line_of(lambda: load_strictly(Small(), read_state(path), "odd.pth")) is None


@pytest.mark.parametrize("states", [0, [1], {"layer.weight": 3}, {1: torch.zeros(1)}])
def test_a_checkpoint_of_odd_states_is_one_line(tmp_path, network, states):
    path = tmp_path / "last.ckpt"
    path.write_bytes(saved({**dict.fromkeys(NEEDED, 0), "state_dict": states}))
    assert line_of(WholeCheckpoints(network).load_checkpoint, path) is None


class Planted:
    """Calls a function when it is unpickled by who allows it."""

    def __init__(self, function, *given):
        self.called = function, given

    def __reduce__(self):
        return self.called


@MORE
@pytest.mark.filterwarnings("ignore")
def test_nothing_that_a_pickle_names_is_run(tmp_path, times):
    made = tmp_path / "made"
    planted = (
        Planted(Path.mkdir, made),
        Planted(exec, f"import pathlib; pathlib.Path({str(made)!r}).mkdir()"),
        Planted(eval, f"__import__('os').mkdir({str(made)!r})"),
        Planted(np.save, str(made), [1]),
    )
    path = tmp_path / "planted"

    def check(case):
        payload, protocol, form, suffix, steps = case
        content = {"layer.weight": payload, "layer.bias": torch.zeros(2)} if form != "pickle" else [payload]
        raw = pickle.dumps(content, protocol) if form == "pickle" else saved(content, zipped=form == "zip")
        file = path.with_suffix(suffix)
        file.write_bytes(changed(raw, steps))
        for read in (read_state, read_plain, read_arrays, WholeCheckpoints(Small()).load_checkpoint):
            found = line_of(read, file)
            assert found is None or steps or read in (read_plain, read_arrays)
        assert not list(tmp_path.glob("made*"))

    forms = st.sampled_from(["pickle", "zip", "old"])
    cases = st.tuples(
        *(st.sampled_from(planted), st.integers(0, 4), forms, st.sampled_from([".pt", ".pth", ".ckpt", ".pickle"])),
        changes,
    )
    drawn(60 * times, cases, check)


# Archives.


@MORE
def test_archives_are_refused_or_give_what_was_packed(tmp_path, times):
    contents = {"a/1.png": b"one" * 40, "b.txt": bytes(range(256)), "deep/er/c": b""}
    kinds = {}
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", kind) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        kinds[kind] = buffer.getvalue()
    path, number = tmp_path / "set.zip", iter(range(10**6))

    def check(case):
        kind, steps = case
        path.write_bytes(changed(kinds[kind], steps))
        folder = tmp_path / "in" / str(next(number))
        folder.mkdir(parents=True)
        if line_of(unpack_zip, path, folder) is not None:
            for file in folder.rglob("*"):
                assert file.is_dir() or file.read_bytes() in contents.values()
        assert {entry.name for entry in tmp_path.iterdir()} == {"set.zip", "in"}

    drawn(120 * times, st.tuples(st.sampled_from(list(kinds)), changes), check)


# What these tests have found, each without hypothesis.

DEEP = b"[" * 50_000


@pytest.mark.parametrize("content", [DEEP, b"\xff", b"[]", b"3", b'{"counts": 1}'])
def test_a_mark_that_is_none_counts_as_none(tmp_path, content):
    (tmp_path / "mark.json").write_bytes(content)
    assert marks.read(tmp_path / "mark.json") is None


@pytest.mark.parametrize("content", [DEEP, b"\xff", b"", b"[]", b'{"md5": 3}', b'{"md5": "0"}'])
def test_a_damaged_receipt_is_named(tmp_path, content):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / f"a.tgz{archives.RECEIPT}").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tgz\.receipt\.json: expected what was written down .*: remove it"):
        archives.receipts(tmp_path)


@pytest.mark.parametrize("content", [DEEP, b"\xff", b'{"words": "<end>", "captions_sha256": ""}', b"[]"])
def test_a_damaged_vocabulary_is_named(tmp_path, content):
    (tmp_path / "words.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"words\.json: expected a vocabulary in JSON, found another file"):
        Vocabulary.read(tmp_path / "words.json")


@pytest.mark.parametrize("content", [DEEP, b'["a bird", 1' + b"0" * 5000 + b"]", b'["half a \\ud800"]'])
def test_damaged_prompts_are_named(tmp_path, content):
    (tmp_path / "prompts.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"prompts\.json: expected prompts .*: correct the file"):
        read_prompts(tmp_path / "prompts.json")


def test_captions_that_lie_deep_in_each_other_are_one_line(tmp_path):
    path = tmp_path / "captions.json"
    path.write_bytes(b'{"a": ' + b'{"b": ' * 900 + b"1" + b"}" * 901)
    with pytest.raises(ValueError, match=r"captions\.json: expected \{name: text\}"):
        read_captions(path)


@pytest.mark.parametrize("word", ["seed=${seed}", "seed=${nowhere}", "experiment=${oc.env:NOWHERE}", "seed.x=3"])
def test_a_word_that_refers_to_nothing_is_one_line(home, word):
    with pytest.raises(ValueError, match=r"^expected a ") as caught:
        config.composed(["method=identity", "data.source=toy", word])
    assert "\n" not in str(caught.value)


def turned(content, marked):
    """A file with one bit turned behind a mark in it."""
    at = content.index(marked) + len(marked) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_one_bit_of_a_weight_is_found_out(tmp_path, network):
    state = network.state_dict()
    weight = state["layer.weight"].numpy().tobytes()
    for suffix, content in ((".pt", saved(state)), (".safetensors", encoded(state))):
        path = tmp_path / f"net{suffix}"
        path.write_bytes(content)
        assert torch.equal(read_state(path)["layer.weight"], state["layer.weight"])
        path.write_bytes(turned(content, weight))
        with pytest.raises(ValueError, match=f"net{suffix}: expected .*: fetch it again"):
            read_state(path)
    path = tmp_path / "last.ckpt"
    path.write_bytes(turned(saved({**dict.fromkeys(NEEDED, 0), "state_dict": state}), weight))
    with pytest.raises(ValueError, match="found a damaged file or one of another kind"):
        WholeCheckpoints(network).load_checkpoint(path, weights_only=True)


def test_safetensors_of_others_have_no_sum_and_are_read(tmp_path, network):
    (tmp_path / "net.safetensors").write_bytes(save(network.state_dict()))
    assert read_state(tmp_path / "net.safetensors").keys() == network.state_dict().keys()


def test_a_damaged_archive_of_bzip2_is_one_line(tmp_path):
    content = bz2.compress(b"picture" * 100)
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.png", b"picture" * 100)
    raw = (tmp_path / "set.zip").read_bytes()
    (tmp_path / "set.zip").write_bytes(raw.replace(content[:10], content[:4] + b"????" + content[8:10]))
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=r"set\.zip: a\.png: expected a whole archive, found Invalid data stream"):
        unpack_zip(tmp_path / "set.zip", tmp_path / "out")


def test_strides_of_torch7_that_overflow_are_one_line(tmp_path):
    numbers = {"i": "<i4", "q": "<i8", "f": "<f4"}

    def packed(*values):
        return b"".join(np.array(value, numbers[kind]).tobytes() for kind, value in values)

    def text(word):
        return packed(("i", len(word))) + word.encode()

    huge = 2**62  # four times it is nothing, to 64 bits
    tensor = packed(("i", 4), ("i", 1)) + text("V 1") + text("torch.FloatTensor")
    tensor += packed(("i", 1), ("q", 5), ("q", huge), ("q", 1))
    storage = packed(("i", 4), ("i", 2)) + text("V 1") + text("torch.FloatStorage")
    storage += packed(("q", 8), ("f", [0.5] * 8))
    path = tmp_path / "net.t7"
    path.write_bytes(tensor + storage)
    with pytest.raises(ValueError, match=r"net\.t7: expected a file of Torch7, found a damaged one"):
        read_state(path)
