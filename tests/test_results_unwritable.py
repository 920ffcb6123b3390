"""Folders that cannot be written are found out before the work, and values are not lost should writing fail later."""

import errno
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmbench.commands import evaluate, prepare, reproduce, score, table, train
from mmbench.core import files
from mmbench.core.files import CannotWrite, locked, require_writable, written_atomically

DATA = ["data=cub", "data.source=toy", "data.toy_images=40"]
COMMANDS = {
    "score": (score, ["fake=fake", "metrics=tv"]),
    "evaluate": (evaluate, ["method=identity", *DATA, "trainer=cpu"]),
    "train": (train, ["method=damsm", *DATA, "trainer=cpu"]),
    "reproduce": (reproduce, ["experiment=demo", "data.source=toy", "data.toy_images=40", "trainer=cpu"]),
    "table": (table, ["experiment=demo", "data.source=toy"]),
    "prepare": (prepare, DATA),
}
NEEDED = [
    ("score", "results"), ("score", "assets"), ("evaluate", "results"), ("evaluate", "runs"), ("evaluate", "assets"),
    ("train", "runs"), ("train", "assets"), ("reproduce", "results"), ("reproduce", "runs"), ("reproduce", "assets"),
    ("table", "results"), ("prepare", "assets"),
]  # fmt: skip


@pytest.fixture
def fake(home) -> Path:
    rng = np.random.default_rng()
    (home / "fake").mkdir()
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(home / f"fake/{number}.png")
    return home / "fake"


@pytest.fixture
def idle(monkeypatch) -> None:
    """Lets everything that is work fail."""

    def worked(*_, **__):
        raise AssertionError("work was done before the folder was looked at")

    for name in (
        "mmbench.pipeline.folders.score",
        "mmbench.pipeline.evaluation.evaluate",
        "mmbench.pipeline.reproducing.run",
        "mmbench.pipeline.training.trained",
        "mmbench.pipeline.assembly.prepared_data",
        "mmbench.pipeline.cells.cells_of",
        "mmbench.data.toy.base.Toy.make",
    ):
        monkeypatch.setattr(name, worked)


def said(command: str, words: list[str]) -> str:
    """The one line that a command ends with."""
    main, given = COMMANDS[command]
    with pytest.raises((SystemExit, ValueError)) as caught:
        main.main([*given, *words])
    message = str(caught.value.code if isinstance(caught.value, SystemExit) else caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("command", "key"), NEEDED)
@pytest.mark.parametrize("place", ["file", "file/below", "/proc/below", "broken/below"])
def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(fake, idle, command, key, place):
    Path("file").write_text("no folder")
    Path("broken").symlink_to("nowhere")
    message = said(command, [f"paths.{key}={place}"])
    variable = {"assets": "MMBENCH_HOME", "runs": "MMBENCH_RUNS", "results": "MMBENCH_RESULTS"}[key]
    assert f"expected a folder for paths.{key}= (or {variable})" in message
    assert f"found {place}" in message
    left = {path.name for path in Path().iterdir()} - {"file", "broken", "fake"}
    assert left <= ({"runs"} if command in ("train", "evaluate") else set()), "but the folder of Hydra"


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (".", "expected a file for out=, found the folder ."),
        ("fake", "expected a file for out=, found the folder fake"),
        ("new/", "expected a file for out=, found the folder new/"),
        ("fake/0.png/record.json", "expected a folder for out= that can be written, found fake/0.png"),
        ("/proc/record.json", "expected a folder for out= that can be written, found /proc"),
        ("", "expected out=VALUE, found ''"),
    ],
)
def test_a_record_that_has_no_place_is_found_out_before_the_work(fake, idle, out, message):
    assert message in said("score", [f"out={out}"])


def test_a_place_that_is_not_there_yet_is_made(fake):
    assert score.main(["fake=fake", "metrics=tv", "out=a/b/record.json"]) == 0
    assert json.loads(Path("a/b/record.json").read_text(encoding="utf-8"))["metrics"]["tv"]["count"] == 3
    assert score.main(["fake=fake", "metrics=tv", "paths.results=c/d"]) == 0
    assert list(Path("c/d/score").glob("*.json"))


def test_looking_for_a_place_leaves_nothing(tmp_path):
    require_writable(tmp_path / "a" / "b", "paths.results=")
    require_writable(tmp_path, "paths.results=")
    assert not list(tmp_path.iterdir())


def full_below(folder: Path, monkeypatch) -> None:
    """Lets the disk be full for files below a folder."""
    mkstemp = tempfile.mkstemp

    def full(*given, prefix, **where):
        place = Path(where["dir"]).resolve()
        if prefix != ".mmbench-" and folder.resolve() in (place, *place.parents):
            raise OSError(errno.ENOSPC, "No space left on device")
        return mkstemp(*given, prefix=prefix, **where)

    monkeypatch.setattr(files.tempfile, "mkstemp", full)


@pytest.mark.parametrize(("command", "metric"), [("score", "tv"), ("evaluate", "preservation")])
def test_a_disk_that_is_full_at_the_end_loses_no_value(fake, monkeypatch, capsys, command, metric):
    full_below(Path("results"), monkeypatch)
    message = said(command, [])
    assert "results" in message
    assert "found No space left on device: make room" in message
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert any(line and line[0] == metric and float(line[1]) >= 0 for line in printed), printed


def test_a_table_is_printed_before_its_page_is_written(home, monkeypatch, capsys):
    full_below(Path("results"), monkeypatch)
    assert "No space left" in said("table", [])
    assert "| method" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "x.json", tmp_path / "folder", tmp_path / ("x" * 300)):
        with (
            pytest.raises(CannotWrite, match="expected to write this file"),
            written_atomically(path) as partial,
        ):
            partial.write_text("content")
    with pytest.raises(CannotWrite), locked(tmp_path / "file" / "x"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_other_errors_of_what_is_written_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), written_atomically(tmp_path / "x"):
        (tmp_path / "absent").read_text()
    assert not list(tmp_path.iterdir())
