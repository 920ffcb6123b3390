"""The fault drill: what happens to runs on real machines is done to small ones, and what they end with is compared.

Each round takes what an undisturbed run made, disturbs one command and lets it and those behind it run again. Then
there is the undisturbed run's table, or a command said in one line what is wrong; in that case what the line advises is
done, and there is the table. Anything else, a lock that blocks or a lost or second record among it, is a fault.

Commands run in processes that are forked from this one, which has imported everything: a round takes seconds.
"""

import gc
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import psutil
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

from mmbench.__main__ import COMMANDS
from mmbench.__main__ import main as mmbench
from mmbench.core import catalogue, command_line, composition, results

HELP = """usage: python -m mmbench.maintenance.drill [rounds=N] [seed=N] [folder=FOLDER]

Disturbs small runs on toy data (killed, damaged files, a full disk, a clock set back, two at once, stale locks) and
compares what they end with with an undisturbed one. Prints a line for each round. Exit code 1 where one is at fault.

  rounds   the first N of 30; 5 are a short drill
  seed     of the moments of killing and the places of damage
  folder   where the runs lie, which is removed at the end; below the system's folder of temporary files by default
"""

IMAGES, EPOCHS = 40, 2
TOY = ["data=cub", "data.source=toy", f"data.toy_images={IMAGES}"]
RUN = ["method=tagan", *TOY, "trainer=cpu", "scale=tiny", "data.module.cache=true"]
# In the order in which they build upon each other.
WORDS: dict[str, list[str]] = {
    "prepare": TOY,
    "train": RUN,
    "evaluate": [*RUN, "weights=trained", "experiment=drill"],
    "score": ["fake=fake", "real=real", "metrics=psnr,fid", "extractor=toy", "out=results/scored/record.json"],
    "table": ["experiment=drill", *(word for word in RUN if not word.startswith(("method=", "data=")))],
}
EXPERIMENT = {
    "citation": "None: rows of a drill.",
    "protocol": "strict",
    "metrics": {"L1": "l1", "PSNR": "psnr", "FID": "fid@standard"},
    "sources": ["toy"],
    "rows": [
        {"method": name, "data": "cub", "shown": {"method": name, "dataset": "birds"}} for name in ("tagan", "real")
    ],
}
LIMIT = 900.0  # seconds, after which a command counts as one that hangs; an idle machine needs five
LATE = timedelta(days=3650)


class NotRun(Exception):
    """This machine does not allow a round; says why."""


class Fault(Exception):
    """What must not come of a disturbance; says what did."""


@dataclass
class Running:
    """A command in a process of its own."""

    pid: int
    errors: Path
    code: int | None = None

    def poll(self) -> int | None:
        """Its exit code; None as long as it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    @property
    def seconds(self) -> float:
        """What it has used of the processors; that of other programs does not count."""
        with suppress(psutil.Error):
            times = psutil.Process(self.pid).cpu_times()
            return times.user + times.system
        return 0.0

    def ended(self) -> "Running":
        """Itself, once it has ended.

        Raises:
            Fault: it does not.
        """
        until = time.monotonic() + LIMIT
        while self.poll() is None:
            if time.monotonic() > until:
                os.killpg(self.pid, signal.SIGKILL)
                raise Fault(f"still at work after {LIMIT:.0f} s: {self.said}")
            time.sleep(0.01)
        return self

    @property
    def said(self) -> str:
        """The last line of its standard error."""
        return (self.errors.read_text(encoding="utf-8").splitlines() or ["nothing"])[-1]

    def require_line(self) -> str:
        """The one line that it ended with.

        Raises:
            Fault: it ended otherwise.
        """
        text = self.errors.read_text(encoding="utf-8")
        is_line = self.said.startswith("mmbench: error: ") and "expected " in self.said
        if self.code != 1 or "Traceback" in text or not is_line:
            raise Fault(f"exit code {self.code}: {self.said}")
        return self.said


class Place:
    """A folder that commands run in, with data, runs and results of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.running: list[Running] = []

    def leave(self) -> None:
        """Ends what still runs here."""
        for run in self.running:
            if run.poll() is None:
                os.kill(run.pid, signal.SIGKILL)
                run.ended()

    def start(self, command: str, words: Sequence[str] = (), before: Callable[[], Any] = lambda: None) -> Running:
        """Starts a command of `WORDS` with further words; `before` comes first in its process."""
        errors = self.root / f"{command}-{len(list(self.root.glob('*.err')))}.err"
        errors.touch()  # it may be asked for before the process has written anything
        sys.stdout.flush()
        sys.stderr.flush()
        if pid := os.fork():
            self.running.append(Running(pid, errors))
            return self.running[-1]
        code: Any = 70
        try:
            os.setsid()
            os.chdir(self.root)
            for number in (1, 2):
                os.dup2(os.open(errors if number == 2 else os.devnull, os.O_WRONLY | os.O_CREAT, 0o644), number)
            os.environ.update(MMBENCH_HOME=str(self.root / "assets"))
            sys.argv = ["mmbench", command, *WORDS[command], *words]
            before()
            mmbench()
        except SystemExit as error:  # as Python itself takes it
            code = error.code if isinstance(error.code, int) else 1
            if isinstance(error.code, str):
                print(error.code, file=sys.stderr)
        except BaseException:
            importlib.import_module("traceback").print_exc()
        finally:
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            os._exit(code)

    def run(self, command: str, words: Sequence[str] = (), before: Callable[[], Any] = lambda: None) -> Running:
        """Runs a command to its end."""
        return self.start(command, words, before).ended()

    def finish(self, command: str) -> None:
        """Runs a command and all that build upon it.

        Raises:
            Fault: one of them fails.
        """
        for name in list(WORDS)[list(WORDS).index(command) :]:
            ended = self.run(name)
            if ended.code:
                raise Fault(f"{name} ended with exit code {ended.code}: {ended.said}")

    def first(self, pattern: str) -> Path:
        """The first file of a pattern that is no part of a file."""
        found = sorted(path for path in self.root.glob(pattern) if not path.name.startswith("."))
        assert found, pattern
        return found[0]

    def found(self) -> dict[str, Any]:
        """What a run ended with: its scores, those of the folders, and the page of the table.

        Raises:
            Fault: there is no record, or more than one.
        """
        records = results.read(self.root / "results", "drill")
        if len(records) != 1:
            raise Fault(f"{len(records)} records of one row")
        page = (self.root / "results/tables/drill-toy.md").read_text(encoding="utf-8")
        scored = results.read_record(self.root / "results/scored/record.json")
        return {"record": _values(records[0]), "scores": _values(scored), "page": page}


def _values(record: results.Result) -> dict[str, Any]:
    return {"metrics": record.metrics, "coverage": record.coverage, "weights": record.weights, "key": record.run_key}


@dataclass
class Drill:
    """An undisturbed run, and what rounds need to know of it.

    Attributes:
        folder: of all places.
        stages: command to what there is before it has run.
        seconds: command to what it used of a processor.
        right: what the run ended with.
        rng: of moments and places.
    """

    folder: Path
    stages: dict[str, Path]
    seconds: dict[str, float]
    right: dict[str, Any]
    rng: random.Random

    @contextmanager
    def place(self, command: str) -> Iterator[Place]:
        """A place where all has been done that a command builds upon."""
        with tempfile.TemporaryDirectory(dir=self.folder) as root:
            shutil.copytree(self.stages[command], root, dirs_exist_ok=True)
            place = Place(Path(root))
            try:
                yield place
            finally:
                place.leave()

    def require_right(self, place: Place) -> None:
        """Raises Fault where a place has other values than the undisturbed run."""
        found = place.found()
        for what, value in self.right.items():
            if found[what] != value:
                raise Fault(f"another {what}: {found[what]!r} instead of {value!r}"[:400])


def undisturbed(folder: Path, seed: int) -> Drill:
    """Runs all commands once.

    Raises:
        Fault: one of them fails.
    """
    place = Place(folder / "undisturbed")
    place.root.mkdir()
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 6, 48, 48, 3), np.uint8)
    for what, pictures in zip(("fake", "real"), pixels, strict=True):
        (place.root / what).mkdir()
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(place.root / what / f"{number}.png")
    stages, seconds = {}, {}
    for command in WORDS:
        stages[command] = folder / f"before-{command}"
        shutil.copytree(place.root, stages[command])
        before = os.times()
        ended = place.run(command)
        after = os.times()
        if ended.code:
            raise Fault(f"undisturbed, {command} ended with exit code {ended.code}: {ended.said}")
        seconds[command] = after.children_user + after.children_system - before.children_user - before.children_system
    stages[""] = place.root
    told = ", ".join(f"{command} {spent:.1f} s" for command, spent in seconds.items())
    print(f"undisturbed: {told} of a processor", file=sys.stderr)
    return Drill(folder, stages, seconds, place.found(), random.Random(seed))


# Rounds: functions of a drill that return what came of them, in words.


def killed(drill: Drill, command: str, *words: str) -> str:
    """SIGKILL at a random moment, the process alone and not what it started."""
    with drill.place(command) as place:
        share = drill.rng.random()
        run = place.start(command, words)
        while run.poll() is None and run.seconds < share * drill.seconds[command]:
            time.sleep(0.002)
        early = run.poll() is None
        if early:
            os.kill(run.pid, signal.SIGKILL)
        run.ended()
        place.finish(command)
        drill.require_right(place)
        return f"right table, killed at {share:.0%} of it" if early else "right table, it had ended before"


def damaged(drill: Drill, command: str, pattern: str, damage: Callable[[Drill, bytes], bytes], *absent: str) -> str:
    """A file that commands find there is another; what is `absent` in their place is to be made from it.

    Where a command says so in one line, the file is removed, or what it lies in where the line says that.
    """
    with drill.place("") as place:
        path = place.first(pattern)
        path.write_bytes(damage(drill, path.read_bytes()))
        for other in absent:
            place.first(other).unlink()
        line = ""
        ended = place.run(command)
        if ended.code:
            line = ended.require_line()
            if str(path.relative_to(place.root)) not in line and path.parent.name not in line:
                raise Fault(f"it names another file: {line}")
            shutil.rmtree(path.parent) if "remove the folder" in line else path.unlink()
        place.finish("train")
        drill.require_right(place)
        return f"right table after one line: {_shortened(line, place)}" if line else "right table"


def cut(drill: Drill, content: bytes) -> bytes:
    """The beginning of a file."""
    return content[: drill.rng.randrange(len(content))]


def flipped(drill: Drill, content: bytes) -> bytes:
    """A file with one bit turned, in its second half, where it has data rather than names."""
    place = drill.rng.randrange(len(content) // 2, len(content) - 100)
    return content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]


def altered(drill: Drill, content: bytes) -> bytes:
    """A record of which somebody has improved a value."""
    record = json.loads(content)
    record["metrics"]["psnr"]["value"] += 1
    return json.dumps(record).encode()


def read_only(drill: Drill) -> str:
    """Results that can be read alone."""
    with drill.place("evaluate") as place, _read_only(place.root / "results"):
        lines = [place.run(command).require_line() for command in ("evaluate", "score", "table")]
        made = list(place.root.glob("runs/tagan-*/*/samples"))
        if made:
            raise Fault("pictures were made that no record could be written of")
    with drill.place("evaluate") as place:
        place.finish("evaluate")
        drill.require_right(place)
    return f"right table after one line: {_shortened(lines[0], place)}"


def full(drill: Drill, command: str, folder: str, kilobytes: int) -> str:
    """A disk on which there is too little room."""
    with drill.place(command) as place:
        with _small(place.root / folder, kilobytes):
            line = place.run(command).require_line()
        place.finish(command)
        drill.require_right(place)
        return f"right table after one line: {_shortened(line, place)}"


def clock_set_back(drill: Drill) -> str:
    """All that is there is from years ahead; then the data change, so that there is a newer record."""
    with drill.place("") as place:
        path = place.first("results/drill/*.json")
        ahead = replace(results.read_record(path), date=(datetime.now(UTC) + LATE).isoformat(timespec="seconds"))
        path.unlink()
        ahead.write(place.root / "results")
        for file in place.root.rglob("*"):
            os.utime(file, (time.time() + LATE.total_seconds(),) * 2, follow_symlinks=False)
        place.finish("train")
        drill.require_right(place)
        caption = sorted(place.root.glob("assets/data/cub-*/text_c10/*/*.txt"))[0]
        caption.write_text(caption.read_text(encoding="utf-8").replace("bird", "animal"), encoding="utf-8")
        place.finish("train")
        first, second = results.read(place.root / "results", "drill")
        shown = (place.root / "results/tables/drill-toy.md").read_text(encoding="utf-8")
        if first.run_key != ahead.run_key or f"{second.metrics['psnr']['value']:.4f}" not in shown:
            raise Fault("the table has the record of before the clock was set back")
        return "right table, and the newer record's after a change"


def two_at_once(drill: Drill, command: str) -> str:
    """Two identical runs."""
    with drill.place(command) as place:
        for run in [place.start(command), place.start(command)]:
            if run.ended().code:
                raise Fault(f"one ended with exit code {run.code}: {run.said}")
        place.finish(command)
        drill.require_right(place)
        return "right table, one record"


def stale_locks(drill: Drill) -> str:
    """The files of all locks are there, as an owner that is gone left them."""
    with drill.place("prepare") as place:
        for lock in drill.stages[""].rglob(".*.lock"):
            left = place.root / lock.relative_to(drill.stages[""])
            left.parent.mkdir(parents=True, exist_ok=True)
            left.write_text("99999999\ngone\n")
        place.finish("prepare")
        drill.require_right(place)
        return "right table"


def stale_locks_of_another_machine(drill: Drill) -> str:
    """A file system that locks nothing: the file is the lock, and its owner died on another machine."""
    with drill.place("evaluate") as place:
        for lock in place.root.rglob(
            ".*.lock"
        ):  # which the system's own locks leave behind, and such a system does not
            lock.unlink()
        samples = next(drill.stages[""].glob("runs/tagan-*/*/samples"))
        left = place.root / samples.parent.parent.relative_to(drill.stages[""]) / f".{samples.parent.name}.lock"
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_text("99999999\ngone\n")
        run = place.start("evaluate", before=_without_locks)
        until = time.monotonic() + LIMIT
        while f"remove {left.relative_to(place.root)}" not in run.said:
            if run.poll() is not None or time.monotonic() > until:
                raise Fault(f"nothing was said of the lock: {run.said}")
            time.sleep(0.05)
        line = run.said
        left.unlink()
        if run.ended().code:
            raise Fault(f"exit code {run.code}: {run.said}")
        place.finish("evaluate")
        drill.require_right(place)
        return f"right table after one line: {_shortened(line, place)}"


def _without_locks() -> None:
    import filelock._unix

    def refused(*_: Any) -> NoReturn:
        raise OSError(38, "Function not implemented")

    filelock._unix.fcntl.flock = refused


@contextmanager
def _mounted(folder: Path, *options: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    for words in options:
        done = subprocess.run(["mount", *words.split(), str(folder)], capture_output=True, text=True)
        if done.returncode:
            raise NotRun(f"no mount here: {' '.join(done.stderr.split())}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _small(folder: Path, kilobytes: int) -> Any:
    _require_mounts()
    return _mounted(folder, f"-t tmpfs -o size={kilobytes}k none")


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    _require_mounts()
    with _mounted(folder, "-t tmpfs none", "-o remount,ro"):
        yield


def _require_mounts() -> None:
    if os.geteuid() or not shutil.which("mount"):
        raise NotRun("only root may mount a disk")


def _shortened(line: str, place: Place) -> str:
    return line.removeprefix("mmbench: error: ").replace(f"{place.root}/", "")


Round = tuple[str, Callable[[Drill], str]]
CHECKPOINT, WEIGHTS = "runs/train/tagan-*/*/last.ckpt", "runs/train/tagan-*/*/weights.safetensors"
RECORD, CACHED = "results/drill/*.json", "assets/cache/*-test-evaluation-*/pixels.npy"
ROUNDS: list[Round] = [
    ("training killed", partial(killed, command="train")),
    ("record altered", lambda drill: damaged(drill, "table", RECORD, altered)),
    ("evaluation killed", partial(killed, command="evaluate")),
    ("prepared pictures damaged", lambda drill: damaged(drill, "evaluate", CACHED, flipped, RECORD)),
    ("two evaluations at once", partial(two_at_once, command="evaluate")),
    ("checkpoint cut", lambda drill: damaged(drill, "train", CHECKPOINT, cut, WEIGHTS)),
    ("checkpoint damaged", lambda drill: damaged(drill, "train", CHECKPOINT, flipped, WEIGHTS)),
    ("weights cut", lambda drill: damaged(drill, "evaluate", WEIGHTS, cut)),
    ("weights damaged", lambda drill: damaged(drill, "evaluate", WEIGHTS, flipped)),
    ("record cut", lambda drill: damaged(drill, "table", RECORD, cut)),
    ("record emptied", lambda drill: damaged(drill, "table", RECORD, lambda *_: b"")),
    ("prepared pictures cut", lambda drill: damaged(drill, "evaluate", CACHED, cut, RECORD)),
    (
        "statistics damaged",
        lambda drill: damaged(drill, "evaluate", "assets/statistics/*.safetensors", flipped, RECORD),
    ),
    ("results read-only", read_only),
    ("disk full in training", partial(full, command="train", folder="runs", kilobytes=200)),
    ("disk full at the record", partial(full, command="evaluate", folder="results", kilobytes=4)),
    ("clock set back", clock_set_back),
    ("two trainings at once", partial(two_at_once, command="train")),
    ("stale locks", stale_locks),
    ("stale lock of another machine", stale_locks_of_another_machine),
    ("preparation killed", partial(killed, command="prepare")),
    ("preparation killed", partial(killed, command="prepare")),
    ("training killed", partial(killed, command="train")),
    ("training killed", partial(killed, command="train")),
    ("training with workers killed", lambda drill: killed(drill, "train", "data.module.num_workers=1")),
    ("evaluation killed", partial(killed, command="evaluate")),
    ("evaluation killed", partial(killed, command="evaluate")),
    ("evaluation with workers killed", lambda drill: killed(drill, "evaluate", "data.module.num_workers=1")),
    ("scoring killed", partial(killed, command="score")),
    ("table killed", partial(killed, command="table")),
]


def ship(folder: Path, experiments: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Lets this process and those forked from it compose runs from a copy of what is shipped.

    Args:
        folder: of the copy.
        experiments: name to what its YAML holds, of those beside the shipped ones.
        changes: a YAML below `conf/` to keys that replace its own.
    """
    shipped = catalogue.shipped
    for name in ("conf", "experiments"):
        shutil.copytree(shipped(name), folder / name)
    for name, content in experiments.items():
        (folder / f"experiments/{name}.yaml").write_text(f"# Of a drill\n{yaml.safe_dump(content)}", encoding="utf-8")
    for name, keys in changes.items():
        path = folder / f"conf/{name}.yaml"
        content = composition.laid_over(yaml.safe_load(path.read_text(encoding="utf-8")), keys)
        path.write_text(f"# Of a drill\n{yaml.safe_dump(content, sort_keys=False)}", encoding="utf-8")
    catalogue.shipped = lambda name: folder / name if (folder / name).is_dir() else shipped(name)
    composition.forget()


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    own, rest = command_line.split_options(arguments, ("rounds", "seed", "folder"))
    if rest:
        catalogue.unknown("option", rest[0].partition("=")[0], ["rounds", "seed", "folder"])
    chosen = ROUNDS[: command_line.whole_number("rounds", own.get("rounds", str(len(ROUNDS))), 1)]
    seed = command_line.whole_number("seed", own.get("seed", "0"), 0)
    for module in (*(f"commands.{name}" for name in COMMANDS), *("pipeline.evaluation", "pipeline.folders")):
        importlib.import_module(f"mmbench.{module}")
    with tempfile.TemporaryDirectory(prefix="mmbench-drill-", dir=own.get("folder")) as name:
        folder = Path(name).resolve()
        ship(folder / "shipped", {"drill": EXPERIMENT}, {"method/tagan": {"tiny": {"training": {"epochs": EPOCHS}}}})
        gc.freeze()  # what is here already stays shared with what is forked
        return _drilled(undisturbed(folder, seed), chosen)


def _drilled(drill: Drill, chosen: Sequence[Round]) -> int:
    """Runs the rounds and prints what came of them; 1 where one is at fault."""
    console, table = Console(), Table("", "round", "outcome", "s", title="fault drill")
    faults = skipped = 0
    for number, (name, disturb) in enumerate(chosen, 1):
        start = time.monotonic()
        try:
            outcome, style = disturb(drill), ""
        except NotRun as error:
            outcome, style = f"not run ({error})", "yellow"
            skipped += 1
        except Exception as error:  # whatever a round ends with is its outcome
            outcome, style = f"FAULT: {error}", "red"
            faults += 1
        table.add_row(str(number), name, outcome, f"{time.monotonic() - start:.1f}", style=style)
        print(f"{number} of {len(chosen)}: {name}: {outcome}", file=sys.stderr)
    console.print(table)
    print(f"{len(chosen) - faults - skipped} of {len(chosen)} rounds right, {skipped} not run, {faults} at fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
