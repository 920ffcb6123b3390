"""Authors' pickles are read as data; nothing in them runs."""

import pickle

import numpy as np
import pytest

from mmbench.core.pickles import read_captions, read_list, read_plain

WORDS = {0: "<end>", 1: "a", 2: "bird"}
INDICES = {word: index for index, word in WORDS.items()}
CAPTIONS = [[[1, 2], [2]], [[2, 1]], WORDS, INDICES]


class Malicious:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return open, (str(self.victim), "w")


def _written(path, value, protocol=2):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 2])
def test_plain_data_come_back_as_they_were(tmp_path, protocol):
    value = {"words": ["a", "bird"], "counts": [1, 2**40, -3], "table": {1: "x"}}
    assert read_plain(_written(tmp_path / "plain.pickle", value, protocol)) == value


def test_python_2_strings_are_latin_1(tmp_path):
    # What Python 2 wrote for ["caf\xe9", 7L] at protocol 2 and for ["a"] at protocol 0.
    (tmp_path / "two").write_bytes(b"\x80\x02]q\x00(U\x04caf\xe9q\x01\x8a\x01\x07e.")
    assert read_plain(tmp_path / "two") == ["caf\xe9", 7]
    (tmp_path / "zero").write_bytes(b"(lp0\nS'a'\np1\na.")
    assert read_plain(tmp_path / "zero") == ["a"]


@pytest.mark.parametrize("protocol", [0, 2])
def test_a_malicious_pickle_runs_nothing(tmp_path, protocol):
    victim = tmp_path / "written-by-pickle"
    path = _written(tmp_path / "evil.pickle", [Malicious(victim)], protocol)
    with pytest.raises(ValueError, match=r"evil.pickle: expected a pickle of lists.*found the name .*open") as error:
        read_plain(path)
    assert not victim.exists()
    assert "\n" not in str(error.value)
    pickle.loads(path.read_bytes())[0].close()
    assert victim.exists()  # the ordinary loader would have run it


COMMANDS = {
    "reduce": b"cos\nsystem\n(S'touch %s'\ntR.",
    "within a list": b"(lp0\ncos\nsystem\n(S'touch %s'\ntRa.",
    "as the key of a dict": b"(dcos\nsystem\n(S'touch %s'\ntRI1\ns.",
    "instance of protocol 0": b"(S'touch %s'\nios\nsystem\n.",
    "object of protocol 1": b"(cos\nsystem\nS'touch %s'\no.",
    "after the real content": b"(lp0\n(lp1\nacos\nsystem\n(S'touch %s'\ntR0.",
    "by protocol 4": b"\x80\x04\x8c\x02os\x8c\x06system\x93(S'touch %s'\ntR.",
    "through builtins": b'c__builtin__\neval\n(S\'__import__("os").system("touch %s")\'\ntR.',
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_no_shell_is_reached_whatever_the_opcodes(tmp_path, command):
    victim = tmp_path / "victim"
    path = tmp_path / "captions.pickle"
    path.write_bytes(command.replace(b"%s", str(victim).encode()))
    with pytest.raises(
        ValueError, match=r"captions.pickle: expected a pickle of lists.*found the name \w+\.\w+: fetch"
    ):
        read_captions(path)
    assert not victim.exists()
    pickle.loads(path.read_bytes())
    assert victim.exists()  # the ordinary loader runs it


@pytest.mark.parametrize("value", [np.int64(3), np.arange(3), 1.5, None, True, b"bytes", (1, 2), {1, 2}])
def test_other_values_are_refused(tmp_path, value):
    for nested in ([value], {"key": [value]}):
        with pytest.raises(ValueError, match="expected a pickle of lists, dicts, strings and integers, found"):
            read_plain(_written(tmp_path / "other.pickle", nested))


def test_damaged_and_absent_files_are_named(tmp_path):
    whole = _written(tmp_path / "whole.pickle", CAPTIONS).read_bytes()
    (tmp_path / "cut.pickle").write_bytes(whole[:-9])
    for name in ("cut.pickle", "absent.pickle"):
        with pytest.raises(ValueError, match=f"{name}: expected a pickle .*fetch it again") as error:
            read_plain(tmp_path / name)
        assert "\n" not in str(error.value)


def test_converted_line_ends_are_noticed(tmp_path):
    crlf = pickle.dumps(["001.Albatross/1"], 0).replace(b"\n", b"\r\n")
    (tmp_path / "filenames.pickle").write_bytes(crlf)
    with pytest.raises(ValueError, match=r"filenames\.pickle"):
        read_plain(tmp_path / "filenames.pickle")


def test_a_circular_list_ends(tmp_path):
    circle = [1]
    circle.append(circle)
    found = read_plain(_written(tmp_path / "circle.pickle", circle))
    assert found[1] is found


def test_captions_pickle(tmp_path):
    found = read_captions(_written(tmp_path / "captions.pickle", CAPTIONS))
    assert found.train == [[1, 2], [2]]
    assert found.test == [[2, 1]]
    assert found.vocabulary.words == ("<end>", "a", "bird")
    assert found.vocabulary.encode("A bird", 18) == [1, 2]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (CAPTIONS[:3], "other parts"),
        ([[], [], WORDS, INDICES], "no captions"),
        ([[[1]], [], {0: "<end>", 2: "bird"}, {"<end>": 0, "bird": 2}], "without gaps"),
        ([[[1]], [], WORDS, {**INDICES, "bird": 1}], "two tables of words that differ"),
        ([[[3]], [], WORDS, INDICES], "no list of word indices"),
        ([["a"], [], WORDS, INDICES], "no list of word indices"),
    ],
)
def test_a_captions_pickle_that_contradicts_itself_is_refused(tmp_path, content, problem):
    with pytest.raises(ValueError, match=f"captions.pickle: expected .*, found .*{problem}"):
        read_captions(_written(tmp_path / "captions.pickle", content))


def test_lists_of_names_and_classes(tmp_path):
    names = _written(tmp_path / "filenames.pickle", ["001.A/B_1", "002.C/D_2"], 0)
    classes = _written(tmp_path / "class_info.pickle", [1, 2], 0)
    assert read_list(names, str) == ["001.A/B_1", "002.C/D_2"]
    assert read_list(classes, int) == [1, 2]
    for path, kind in ((names, int), (_written(tmp_path / "empty.pickle", []), str)):
        with pytest.raises(ValueError, match=f"expected a list of {kind.__name__}"):
            read_list(path, kind)
