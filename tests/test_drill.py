"""The short fault drill: three rounds against the real command line, and what the drill itself would call a fault."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from mmbench.maintenance import drill


def test_a_short_drill_finds_no_fault(tmp_path):
    command = [sys.executable, "-m", "mmbench.maintenance.drill", "rounds=3", f"folder={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 rounds right, 0 not run, 0 at fault" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.fixture
def place(tmp_path) -> drill.Place:
    return drill.Place(tmp_path)


def ended(tmp_path, code, text) -> drill.Running:
    (tmp_path / "x.err").write_text(text)
    return drill.Running(0, tmp_path / "x.err", code)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1, "Traceback (most recent call last):\nmmbench: error: expected a, found b: c\n"),
        (0, "mmbench: error: expected a, found b: c\n"),
        (1, "something else\n"),
        (-9, ""),
    ],
)
def test_an_end_without_one_line_is_a_fault(tmp_path, code, text):
    with pytest.raises(drill.Fault):
        ended(tmp_path, code, text).require_line()
    assert ended(tmp_path, 1, "mmbench: error: a/b: expected a, found b: c\n").require_line().endswith("c")


def test_another_value_and_another_number_of_records_are_faults(tmp_path, place, monkeypatch):
    made = drill.Drill(tmp_path, {}, {}, {"page": "a", "scores": 1}, random.Random(0))
    monkeypatch.setattr(place, "found", lambda: {"page": "a", "scores": 2})
    with pytest.raises(drill.Fault, match="another scores: 2 instead of 1"):
        made.require_right(place)
    monkeypatch.undo()
    with pytest.raises(drill.Fault, match="0 records of one row"):
        place.found()


def test_a_round_at_fault_fails_the_drill_and_one_that_cannot_be_does_not(capsys):
    def wrong(_):
        raise drill.Fault("a wrong number")

    def impossible(_):
        raise drill.NotRun("no disk")

    assert drill._drilled(None, [("right", lambda _: "right table"), ("impossible", impossible)]) == 0
    assert "1 of 2 rounds right, 1 not run, 0 at fault" in capsys.readouterr().out
    assert drill._drilled(None, [("wrong", wrong)]) == 1
    assert "FAULT: a wrong number" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("damage", [drill.cut, drill.flipped])
def test_damage_changes_a_file(tmp_path, damage):
    content = Path(drill.__file__).read_bytes()
    made = drill.Drill(tmp_path, {}, {}, {}, random.Random(3))
    assert damage(made, content) != content


def test_thirty_rounds():
    assert len(drill.ROUNDS) == 30
