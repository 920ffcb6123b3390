"""Files of captions as people have them: read as they are meant, or refused with what was found."""

import csv
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mmbench.commands import evaluate, score
from mmbench.core.results import Result
from mmbench.networks.open_clip import OpenCLIP, open_clip  # by way of it, since it can be imported anywhere
from mmbench.networks.toy import ToyCLIP
from mmbench.pipeline.captions import read_captions, read_references

PIECES = ["a bird", "red", ",", '"', '12"', "'", "\n", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "  ", "ü", "鳥", ";"]


@pytest.fixture
def drawn() -> dict[str, str]:
    """Captions of marks, quotes and ends of lines, drawn anew each time."""
    rng = random.Random()
    texts = ["start " + "".join(rng.choices(PIECES, k=12)) + " end" for _ in range(rng.randint(3, 9))]
    return {f"set/{number:02d}": text for number, text in enumerate(texts)}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_a_csv_keeps_what_stands_between_quotes(tmp_path, drawn, encoding, end, quoting):
    path = tmp_path / "captions.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, lineterminator=end, quoting=quoting)
        for name, text in drawn.items():
            writer.writerow([f"{name}.png", text])
            file.write(end)  # an empty line is no row
    assert read_captions(path) == drawn


@pytest.mark.parametrize("name", ["captions.json", "captions.JSON"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_json_object_is_read_as_it_is(tmp_path, drawn, name, encoding):
    (tmp_path / name).write_text(json.dumps(drawn, ensure_ascii=False), encoding=encoding)
    assert read_captions(tmp_path / name) == drawn
    assert read_references(tmp_path / name) == {key: [text] for key, text in drawn.items()}


def test_a_tsv_has_no_quoting_but_what_a_spreadsheet_puts_around_a_field(tmp_path, drawn):
    path = tmp_path / "captions.tsv"
    plain = {name: text.replace("\n", " ") for name, text in drawn.items()} | {"q": '12" wings" end', "r": '"big bird'}
    path.write_bytes("\r\n".join(f"{name}.png\t{text}" for name, text in plain.items()).encode("utf-8-sig"))
    assert read_captions(path) == plain
    path.write_text('a\t"a bird, red"\nb\t"a ""red"" bird"\n')
    assert read_captions(path) == {"a": "a bird, red", "b": 'a "red" bird'}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", "a,one\nb,two\n".encode("utf-16"), "found UTF-16: save it as UTF-8"),
        ("c.csv", "a,one\n".encode("utf-16-le"), "found UTF-16 without a byte order mark"),
        ("c.tsv", "a\tone\n".encode("utf-32"), "found UTF-32"),
        ("c.csv", "a,gr\u00fcn\n".encode("latin-1"), "found UnicodeDecodeError (byte 0xfc at 4)"),
        (
            "c.json",
            b'[{"file_name": "a.png", "text": "one"}]',
            "found a list, no object: write one object",
        ),
        ("c.json", b'"one"', "found 'one', no object"),
        ("c.json", b'{"a": "one"}\n{"b": "two"}\n', "found JSON Lines, one object in each line"),
        ("c.jsonl", b'{"file_name": "a.png", "text": "one"}\n', "found JSON Lines, one object in each line"),
        ("c.json", b'{"a": "one"', "found no JSON (Expecting"),
        ("c.json", b"", "found no JSON"),
        ("c.json", b"{}", "found none"),
        ("c.csv", b"\n \n", "found none"),
        ("c.json", b'{"a": "one", "b": "two", "a": "three"}', "found 'a' twice, in entry 1 and entry 3"),
        ("c.json", b'{"a.png": "one", "a.jpg": "two"}', "found 'a' twice, in entry 1 and entry 2 (names count without"),
        ("c.csv", b"a.png,one\n\nb,two\na,three\n", "found 'a' twice, in line 1 and line 4"),
        ("c.csv", b'a,"one\ntwo"\nb\n', "found ('b',) in line 3"),
        ("c.csv", b"a,one,two\n", "found ('a', 'one', 'two') in line 1"),
        ("c.csv", b'a,one\nb,"two\nc,three\n', "a row that is no CSV from line 2 on"),
        ("c.csv", b"a, \n", "found ('a', ' ') in line 1"),
        ("c.csv", b",one\n", "found ('', 'one') in line 1"),
        ("c.tsv", b"a,one\n", "found ('a,one',) in line 1"),
        ("c.csv", b"File_Name,Caption\na.png,one\n", "without a header, found File_Name,Caption in line 1: remove"),
        ("c.tsv", b"image\ttext\na.png\tone\n", "without a header, found image,text in line 1"),
    ],
)
def test_what_is_no_file_of_captions_is_one_line_that_says_what_it_is(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"expected \{name: text\} in .json, or name and text in each line") as caught:
        read_captions(tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_path_below_a_file_are_no_files(tmp_path):
    with pytest.raises(ValueError, match="found a folder: name a file in it"):
        read_captions(tmp_path)
    (tmp_path / "file").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"found Not a directory"):
        read_captions(tmp_path / "file" / "captions.csv")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> OpenCLIP:
    path = tmp_path_factory.mktemp("configs") / "mmbench-short.json"
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    path.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(path)
    return OpenCLIP("mmbench-short")


def test_clip_tells_which_captions_it_cuts(clip):
    rng = random.Random()
    lengths = [1, 74, 75, 76, 77, 300, *rng.choices(range(1, 200), k=20)]
    texts = [" ".join(rng.choices(["bird", "red", "wing", "a"], k=length)) for length in lengths]  # a token each
    assert clip.is_cut(texts).tolist() == [length + 2 > 77 for length in lengths]
    assert clip.limit == "CLIP's 77 tokens"


class Short(ToyCLIP):
    """A toy CLIP that says it reads so many words alone."""

    limit = "CLIP's 5 words"

    def is_cut(self, texts):
        return torch.tensor([len(text.split()) > 5 for text in texts])


@pytest.fixture
def short(monkeypatch) -> None:
    """The toy CLIP with a limit, in the place of the one without."""
    assert issubclass(Short, nn.Module)
    monkeypatch.setattr("mmbench.networks.toy.ToyCLIP", Short)


def test_captions_that_are_cut_are_counted_in_record_and_output(home, short, capsys):
    rng = np.random.default_rng()
    long = int(rng.integers(1, 6))
    (home / "fake").mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(home / f"fake/{number}.png")
    texts = {str(number): "a red bird" + " and more of it" * (number < long) for number in range(6)}
    (home / "captions.json").write_text(json.dumps({**texts, "unused": "a b c d e f g"}))
    words = ["fake=fake", "metrics=clip_score,sim", "extractor=toy", "captions=captions.json", "out=record.json"]
    assert score.main(words) == 0
    assert f"note: captions cut at CLIP's 5 words: {long}" in capsys.readouterr().out
    record = Result(**json.loads((home / "record.json").read_text()))
    assert record.data["notes"] == {"captions cut at CLIP's 5 words": long}


def test_evaluation_counts_them_too(home, short, capsys):
    evaluate.main(["method=identity", "data=cub", "data.source=toy", "data.toy_images=40", "trainer=cpu"])
    (path,) = (home / "results/identity").glob("*.json")
    record = Result(**json.loads(path.read_text(encoding="utf-8")))
    (run,) = (home / "runs/identity-cub-toy").glob("*/manifest.json")
    prompts = [sample["prompt"] for sample in json.loads(run.read_text(encoding="utf-8"))["samples"]]
    assert record.data["notes"] == {"captions cut at CLIP's 5 words": sum(len(text.split()) > 5 for text in prompts)}
    assert "note: captions cut at CLIP's 5 words" in capsys.readouterr().out
