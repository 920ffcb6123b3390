"""SIGINT and SIGTERM: every command ends within seconds, with one line, exit code 130 or 143, and all that it made."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmbench.__main__ import main
from mmbench.core import interrupts
from mmbench.pipeline import explaining, folders, reproducing  # noqa: F401  (imported once, before processes fork)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork")
SOON = 30.0  # seconds; an idle machine needs one, a run that goes on minutes
DATA = ["data.source=toy", "data.toy_images=40"]
TOY = [*DATA, "trainer=cpu"]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
HOLD = (
    "from mmbench.core import interrupts\nimport time, sys, os, signal\n"  # without anything that takes long to import
)


@pytest.fixture(autouse=True)
def heard():
    """A shell that runs the tests in the background has them ignore SIGINT, and so would what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Command:
    """A command line in a process of its own, which has imported everything, and leads a group."""

    def __init__(self, folder: Path, words: list[str], patch=lambda: None) -> None:
        self.files = [folder / f"{len(list(folder.glob('*.err')))}.{kind}" for kind in ("out", "err")]
        self.pid = os.fork()
        if not self.pid:
            code = 70
            try:
                os.setsid()
                for number, path in enumerate(self.files, 1):
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
                sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
                importlib.import_module("mmbench.core.progress").console.file = sys.stderr
                signal.signal(signal.SIGINT, signal.default_int_handler)
                sys.argv = ["mmbench", *words]
                patch()
                main()
            except SystemExit as error:
                code = error.code or 0
            finally:
                os._exit(code)

    def ended(self, within: float = SOON) -> int:
        """Its exit code."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"it went on for {within:.0f} s:\n{self.errors}")

    def wait_for(self, condition) -> None:
        until = time.monotonic() + 4 * SOON
        while not condition():
            assert time.monotonic() < until, self.errors
            assert os.waitpid(self.pid, os.WNOHANG) == (0, 0), f"it ended too early:\n{self.errors}"
            time.sleep(0.01)

    @property
    def errors(self) -> str:
        return self.files[1].read_text()


def living(group: int) -> list[str]:
    """Processes of a group that are more than an entry for whoever asks how they ended."""
    found = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if line.split()[0] == str(group) and line.split()[1][0] != "Z"]


def drawn(folder: Path) -> list[Path]:
    """The pictures of a run; not what is being written, which has a name with a dot before it."""
    return [path for path in folder.glob("runs/tagan-*/*/samples/**/*.png") if not path.name.startswith(".")]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("number", "send"), [(signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg)])
def test_drawing_ends_and_goes_on(home, number, send, workers):
    words = ["evaluate", "method=tagan", "weights=none", "scale=tiny", *TOY, "protocol.draws=60"]
    words += ["data.module.batch_size=1", f"data.module.num_workers={workers}"]
    run = Command(home, words)
    run.wait_for(lambda: len(drawn(home)) >= 5)
    send(run.pid, number)
    assert run.ended() == CODES[number]
    lines = run.errors.splitlines()
    assert lines[-1] == interrupts.LINE
    assert len([line for line in lines if "interrupted" in line or "Traceback" in line]) == 1, run.errors
    made = {path: path.stat().st_mtime_ns for path in drawn(home)}
    assert 5 <= len(made) < 600
    for path in made:
        Image.open(path).load()
    assert not list(home.glob("results/*/*.json"))
    time.sleep(0.1)
    until = time.monotonic() + SOON
    while living(run.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not living(run.pid), "workers end with it"
    again = Command(home, words)
    again.wait_for(lambda: len(drawn(home)) > len(made))
    os.kill(again.pid, signal.SIGTERM)
    assert again.ended() == 143
    assert all(path.stat().st_mtime_ns == then for path, then in made.items()), "what was there is not drawn again"


@pytest.mark.parametrize("number", CODES)
def test_training_ends_with_its_last_checkpoint(home, number):
    words = ["train", "method=damsm", "scale=tiny", *TOY, "method.training.epochs=5000"]
    run = Command(home, [*words, "method.training.batch_size=15"])
    run.wait_for(lambda: list(home.glob("runs/train/damsm-*/*/last.ckpt")))
    os.kill(run.pid, number)
    assert run.ended() == CODES[number]
    assert run.errors.splitlines()[-1] == interrupts.LINE
    [checkpoint] = home.glob("runs/train/damsm-*/*/last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["epoch"] >= 0
    assert not list(home.glob("runs/train/damsm-*/*/weights.safetensors"))


REAL = ["method=real", *TOY]


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["evaluate", *REAL], "mmbench.pipeline.scoring.show"),
        (["evaluate", *REAL], "mmbench.pipeline.evaluation.write_manifest"),
        (
            ["reproduce", "experiment=demo", "data.source=toy", "trainer=cpu", "method=real"],
            "mmbench.pipeline.reproducing._run",
        ),
        (["explain", "record=strict", "against=manigan", *REAL], "mmbench.pipeline.scoring.show"),
        (["score", "fake=images", "real=images", "metrics=psnr"], "mmbench.pipeline.scoring.show"),
        (["prepare", "data=cub", *DATA, "data.root=fresh"], "PIL.Image.new"),
        (["table", "experiment=manigan", "data.source=toy"], "mmbench.core.results.by_configuration"),
        (["list"], "mmbench.core.catalogue.summary"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value.rpartition(".")[2],
)
def test_every_command_ends(home, words, where):
    (home / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    for name, image in enumerate(pixels):
        Image.fromarray(image).save(home / "images" / f"{name}.png")

    def patch():
        module, _, function = where.rpartition(".")
        module = importlib.import_module(module)
        real = getattr(module, function)

        def interrupted(*arguments, **named):
            os.kill(os.getpid(), signal.SIGTERM)
            return real(*arguments, **named)

        setattr(module, function, interrupted)

    run = Command(home, words, patch)
    assert run.ended(within=4 * SOON) == 143  # what comes before the signal included
    assert run.errors.splitlines()[-1] == interrupts.LINE
    assert "Traceback" not in run.errors


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("module", ["omegaconf", "torch", "pytorch_lightning"])
def test_imports_end(home, module, number):
    command = [sys.executable, "-X", "importtime", "-m", "mmbench", "evaluate", *REAL]
    with (home / "err").open("w") as errors:
        run = subprocess.Popen(command, cwd=home, stderr=errors, start_new_session=True)
        path, part = home / "err", f"{module}."  # which is printed while the rest of the package is imported
        while part not in path.read_text():
            assert run.poll() is None
            time.sleep(0.01)
        run.send_signal(number)
        assert run.wait(SOON) == CODES[number]
    own = [line for line in path.read_text().splitlines() if not line.startswith("import time:")]
    assert own == [interrupts.LINE]


def held(tmp_path, body, numbers, pause=1.0):
    """Runs Python under the handlers, sends signals once it says so; exit code, seconds since the first one, errors."""
    run = subprocess.Popen(
        [sys.executable, "-c", HOLD + body], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout.readline() == "ready\n"
    start = time.monotonic()
    for number in numbers:
        run.send_signal(number)
        time.sleep(pause)
    _, errors = run.communicate(timeout=SOON)
    return run.returncode, time.monotonic() - start, errors


SWALLOWS = """
with interrupts.handled():
    ready = False
    while True:
        try:
            if not ready:
                ready = True
                print("ready", flush=True)
            time.sleep(60)
        except BaseException:
            pass
"""


def test_what_swallows_the_exception_is_ended_all_the_same(tmp_path):
    code, seconds, errors = held(tmp_path, SWALLOWS, [signal.SIGTERM], 0)
    assert (code, errors) == (143, f"{interrupts.LINE}\n")
    assert seconds >= interrupts.GRACE


def test_a_second_signal_ends_it_at_once_and_the_same_one_told_twice_does_not(tmp_path):
    code, seconds, errors = held(tmp_path, SWALLOWS.replace("sleep(60)", "sleep(600)"), [signal.SIGTERM, signal.SIGINT])
    assert (code, errors) == (143, f"{interrupts.LINE}\n")
    assert seconds < interrupts.GRACE
    leaves = """
try:
    with interrupts.handled():
        print("ready", flush=True)
        time.sleep(60)
except interrupts.Interrupted as error:
    time.sleep(1)
    print("left", file=sys.stderr)
    sys.exit(error.code)
"""
    assert held(tmp_path, leaves, [signal.SIGINT, signal.SIGINT], 0)[::2] == (130, "left\n")


def test_a_signal_that_was_ignored_stays_ignored_and_a_fork_knows_signals_as_python_does(tmp_path):
    body = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with interrupts.handled():
    print("ready", flush=True)
    time.sleep(2)
    child = os.fork()
    if not child:
        os._exit(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""
    assert held(tmp_path, body, [signal.SIGINT], 0)[::2] == (0, "")


@pytest.mark.slow  # two processes that import everything
@pytest.mark.parametrize(("number", "send"), [(signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg)])
def test_all_processes_of_a_distributed_training_end(home, number, send):
    words = ["train", "method=damsm", "scale=tiny", *TOY, "method.training.epochs=5000", "trainer=ddp"]
    words += ["method.training.batch_size=10", "trainer.accelerator=cpu", "trainer.devices=2"]
    words += ["data.module.num_workers=1"]
    words.remove("trainer=cpu")
    with (home / "err").open("w") as errors:
        command = [sys.executable, "-m", "mmbench", *words]
        run = subprocess.Popen(command, cwd=home, stderr=errors, start_new_session=True)
        while not list(home.glob("runs/train/damsm-*/*/last.ckpt")):
            assert run.poll() is None, (home / "err").read_text()
            time.sleep(0.05)
        send(run.pid, number)
        assert run.wait(SOON) == CODES[number]
    until = time.monotonic() + SOON
    while living(run.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not living(run.pid)
    lines = (home / "err").read_text().splitlines()
    assert [line for line in lines if not line.startswith(("training ", "epoch ", "drawing ", "decoding "))] == [
        interrupts.LINE
    ]
