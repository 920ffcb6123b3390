"""Rows that failed, are at work or were left: how tables and `mmbench status` tell them apart, and what runs again."""

import io
import re
import subprocess
import sys

import pytest
from rich.console import Console

from mmbench.commands import reproduce, status, table
from mmbench.core import progress, results
from mmbench.core.download import MissingAsset
from mmbench.core.files import is_locked, locked
from mmbench.pipeline import cells, lookup, marks, reproducing
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.standing import spoken

SMALL = ["data.source=toy", "trainer=cpu", "data.toy_images=80", "protocol.count=12"]
WORDS = SMALL[1:]
ROWS = ["experiment=demo", "method=identity,real", *SMALL]


@pytest.fixture
def failing(home, monkeypatch):
    """Lets the rows of some methods end with an error, until its set is emptied."""
    errors = {}
    own = reproducing._run

    def run(plain):
        if error := errors.get(plain["method"]["name"]):
            raise error
        return own(plain)

    monkeypatch.setattr(reproducing, "_run", run)
    return errors


def place(method, seed=0):
    experiment = load("demo").on("toy")
    [row] = [row for row in experiment.rows if row.method == method and row.weights is None]
    plain = lookup.row_config(experiment, row, "strict", "toy", seed, WORDS)
    return marks.place("runs", "demo", lookup.keys_of(plain, [seed])[seed])


def test_a_row_that_fails_is_told_from_one_that_was_not_run_and_runs_again(failing, home, capsys):
    failing |= {"real": RuntimeError("no more\nmemory"), "manigan_main": MissingAsset("expected a file")}
    assert reproduce.main(["experiment=demo", *SMALL]) == 1
    printed = capsys.readouterr()
    log = place("real").with_suffix(".log")
    assert f"| failed (RuntimeError: no more memory, {log}) |" in " ".join(printed.out.split())
    assert "not run (expected a file)" in printed.out
    assert f"  failed: RuntimeError: no more memory, {log}" in printed.err.splitlines()
    assert "no more\nmemory" in log.read_text()
    assert "Traceback" in log.read_text()
    assert [record.row["method"] for record in results.read("results", "demo")] == ["identity"], "the others go on"
    assert [path.name for path in home.glob("results/demo/*") if path.suffix != ".safetensors"] == [
        path.name for path in home.glob("results/demo/identity-*.json")
    ]
    for form in ("markdown", "latex"):
        table.main(["experiment=demo", *SMALL, f"format={form}"])
        shown = " ".join(capsys.readouterr().out.split())
        assert "RuntimeError: no more memory" in shown
        assert "failed" in shown
        assert "not run" in shown

    failing.clear()
    before = {path: path.stat().st_mtime_ns for path in home.glob("runs/identity-*/*/samples/**/*.png")}
    assert reproduce.main(ROWS) == 0
    assert len(results.read("results", "demo")) == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert marks.failures("runs", "demo") == {}
    assert not log.exists()
    assert "failed" not in capsys.readouterr().out


def test_the_other_seeds_of_a_row_that_fails_run_and_those_of_one_that_lacks_something_do_not(failing, home, capsys):
    failing |= {"real": RuntimeError("no"), "identity": MissingAsset("expected a file")}
    assert reproduce.main([*ROWS, "seeds=0,1"]) == 1
    lines = [line.partition(", seed")[2] for line in capsys.readouterr().err.splitlines() if ", seed" in line]
    assert [line.partition(":")[0].strip() for line in lines] == ["0", "0", "1"]
    assert len(marks.failures("runs", "demo")) == 2


def test_another_metric_scores_the_images_that_are_there(home, capsys):
    assert reproduce.main(["experiment=demo", "method=real", *SMALL]) == 0
    images = {path: path.stat().st_mtime_ns for path in home.glob("runs/real-*/*/samples/**/*.png")}
    assert images
    assert reproduce.main(["experiment=demo", "method=real", *SMALL, "protocol.metrics.is.splits=1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in home.glob("runs/real-*/*/samples/**/*.png")} == images
    assert len(results.read("results", "demo")) == 2


def test_a_row_that_was_interrupted_leaves_no_mark(home):
    path, found = place("real"), []

    def interrupted():
        with marks.at_work(path, {}):
            found.append(marks.read(path).is_held)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert found == [True]
    assert not path.exists()


HOLD = """
import sys, time
from pathlib import Path
from mmbench.pipeline import marks
with marks.at_work(Path(sys.argv[1]), {}):
    print("held", flush=True)
    time.sleep(600)
"""


def test_status_tells_done_running_failed_and_missing_apart(failing, home, capsys, monkeypatch):
    failing["real"] = RuntimeError("no")
    assert reproduce.main(ROWS) == 1
    running = place("identity", seed=1)
    owner = subprocess.Popen([sys.executable, "-c", HOLD, str(running)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout.readline() == "held\n"
        assert is_locked(running)
        capsys.readouterr()
        words = [*ROWS, "seeds=0,1"]
        assert status.main(words) == 0
        out = capsys.readouterr().out
        assert "demo (toy data): 1 done, 1 running, 1 failed, 1 missing" in out
        assert re.search(rf"seed 1: on {re.escape(marks.read(running).host)} for \d+ (s|min)", out)
        assert "seed 0: failed (RuntimeError: no" in out

        # A terminal is drawn again as long as a row is at work: here its owner is killed meanwhile.
        monkeypatch.setattr(status, "PAUSE", 0)
        monkeypatch.setattr(status.time, "sleep", lambda _: (owner.kill(), owner.wait()))
        terminal = Console(file=io.StringIO(), force_terminal=True, width=160)
        monkeypatch.setattr(status, "Console", lambda **_: terminal)
        assert status.main(words) == 0
        drawn = terminal.file.getvalue()
        assert "1 running" in drawn
        assert "1 done, 0 running, 1 failed, 2 missing" in drawn, "whose owner is gone counts for nothing"
    finally:
        owner.kill()
        owner.wait()


def test_status_of_nothing_and_of_what_is_misspelt(home, capsys):
    assert status.main([]) == 0
    assert capsys.readouterr().out.startswith("nothing has begun")
    with pytest.raises(ValueError, match="did you mean demo"):
        status.main(["experiment=demmo"])
    with pytest.raises(ValueError, match="did you mean trainer"):
        status.main(["experiment=demo", "trainr=cpu"])


def test_a_damaged_mark_counts_for_nothing(home):
    path = place("real")
    path.parent.mkdir(parents=True)
    for text in ("", "{", "[]", '{"host": "a"}', '{"host": "a", "since": 0, "reason": "", "log": ""}'):
        path.write_text(text)
        assert marks.read(path) is None


def test_a_lock_is_seen_and_not_taken(tmp_path):
    assert not is_locked(tmp_path / "a")
    with locked(tmp_path / "a"):
        assert is_locked(tmp_path / "a")
    assert not is_locked(tmp_path / "a")


def test_what_remains_is_estimated_from_the_rows_that_took_their_time():
    clock = reproducing.Clock([True, False, True, True])
    assert clock.next() == "row 1 of 4"
    clock.ended(60)
    assert clock.next() == "row 2 of 4, about 2 min remain", "two of the three others have no record"
    clock.ended(0)
    assert clock.next() == "row 3 of 4, about 2 min remain"
    clock.ended(180)
    assert clock.next() == "row 4 of 4, about 2 min remain"
    assert [spoken(seconds) for seconds in (1, 119, 120, 7200, 2 * 86400)] == ["1 s", "119 s", "2 min", "2 h", "2 d"]


def test_every_line_says_which_row_and_stage_it_is_of(home, capfd):
    class Trainer:
        default_root_dir = home / "b"

    with progress.within("row 3 of 12"), progress.with_stages([home / "a", home / "b"]):
        assert list(progress.track([1, 2], "scoring")) == [1, 2]
        assert progress.placed("epoch 1 of 5", Trainer) == "row 3 of 12, stage 2 of 2: epoch 1 of 5"
    assert capfd.readouterr().err.startswith("row 3 of 12: scoring: 2 of 2 in ")
    assert progress.placed("scoring") == "scoring"


def test_a_value_that_failed_is_no_value_that_was_not_run():
    value = cells.Value(reason="no", is_failed=True)
    assert cells.verdict(value, None, 0.0, is_toy=True) is cells.Verdict.FAILED
    assert cells.gain(value, cells.Value({0: 1.0}, 1.0)).is_failed
    assert not cells.gain(cells.Value(reason="file"), value).is_failed
