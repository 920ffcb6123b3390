"""Processes of a training that Lightning's launcher or torchrun started: it works, and ends where one of them dies."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from safetensors.torch import load_file

from mmbench.core import interrupts

pytestmark = pytest.mark.timeout(1200)
LAUNCHERS = {
    "lightning": [sys.executable],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
}
SOON = 60.0  # seconds, in which a run ends that has lost a process


@pytest.fixture
def alone(home, monkeypatch):
    """Without data: that they are made once, by one of the processes, is part of it."""
    monkeypatch.setenv("MMBENCH_HOME", str(home / "assets"))
    return home


def started(folder, launcher, epochs, *more):
    words = ["train", "method=damsm", "scale=tiny", "data.source=toy", "data.toy_images=40", "trainer=ddp", *more]
    words += ["trainer.accelerator=cpu", f"method.training.epochs={epochs}", "method.training.batch_size=10"]
    words += [] if "trainer.devices=1" in more else ["trainer.devices=2"]
    with (folder / "err").open("w") as errors:
        command = [*launcher, "-m", "mmbench", *words]
        return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors)


def told(folder):
    return (folder / "err").read_text()


@pytest.mark.slow  # as all that follow: several processes that import everything
def test_torchrun_trains_as_lightnings_launcher_does(alone):
    for name, launcher in LAUNCHERS.items():
        assert started(alone, launcher, 2, f"paths.runs={name}").wait() == 0, told(alone)
    require_equal(alone, *LAUNCHERS)


@pytest.mark.slow
def test_two_machines_train_as_one_with_two_devices(alone):
    assert started(alone, LAUNCHERS["torchrun"], 2, "paths.runs=one").wait() == 0, told(alone)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = ["--master_addr", "127.0.0.1", "--master_port", str(free.getsockname()[1])]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "1", "--nnodes", "2", *place]
    words = ["paths.runs=two", "trainer.devices=1", "trainer.num_nodes=2"]
    machines = [started(alone, [*command, "--node_rank", str(number)], 2, *words) for number in range(2)]
    assert [machine.wait() for machine in machines] == [0, 0], told(alone)
    require_equal(alone, "one", "two")


def require_equal(folder, *runs):
    first, second = (load_file(next(folder.glob(f"{name}/train/*/*/weights.safetensors"))) for name in runs)
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)


def processes_of(run, launcher):
    """All processes of a run, by their number."""
    try:
        children = psutil.Process(run.pid).children(recursive=True)
        numbered = {int(one.environ().get("LOCAL_RANK", -1)): one for one in children}
    except psutil.Error:  # one of them has just ended
        return {}
    numbered.pop(-1, None)
    return numbered if launcher == "torchrun" else {0: psutil.Process(run.pid), **numbered}


HOLDS = """
import subprocess, time
from mmbench.core import interrupts
others = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
interrupts.end_with_us(others)
with interrupts.handled():
    print(*(other.pid for other in others), flush=True)
    time.sleep(60)
"""


def living(number):
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_process_that_a_signal_ended_is_named_at_once_and_no_other_one_is_left():
    run = subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first, second = map(int, run.stdout.readline().split())
    os.kill(second, signal.SIGKILL)
    _, said = run.communicate(timeout=SOON)
    assert (run.returncode, said) == (1, f"{interrupts.LOST.format(2, ', ended by SIGKILL')}\n")
    until = time.monotonic() + SOON  # a process that was told to end needs a moment
    while living(first):
        assert time.monotonic() < until, "a process is left"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "number"), [("lightning", 1), ("lightning", 0), ("torchrun", 1)])
def test_a_run_that_loses_a_process_ends_with_a_line_that_names_it_and_goes_on(alone, launcher, number):
    run = started(alone, LAUNCHERS[launcher], 40)
    while not list(alone.glob("runs/train/*/*/last.ckpt")):
        assert run.poll() is None, told(alone)
        time.sleep(0.05)
    processes = processes_of(run, launcher)
    assert processes.keys() == {0, 1}
    os.kill(processes[number].pid, signal.SIGKILL)

    until = time.monotonic() + SOON
    assert run.wait(SOON) not in (0, None)
    _, living = psutil.wait_procs(processes.values(), until - time.monotonic())
    assert not living, "processes wait for the one that is gone"
    lines = [
        line
        for line in told(alone).splitlines()
        if not line.startswith(("training ", "epoch ", "drawing ", "decoding "))
    ]
    if launcher == "lightning":
        assert lines == [interrupts.LOST.format(number, ", ended by SIGKILL" if number else "")]
    else:  # what torchrun itself reports
        assert [line for line in lines if f"local_rank: {number}" in line], told(alone)
        assert [line for line in lines if line.startswith(("mmbench:", "Error executing"))] == [interrupts.LINE]

    assert started(alone, LAUNCHERS[launcher], 40).wait() == 0, told(alone)
    assert ", resumed" in told(alone)
    assert list(alone.glob("runs/train/*/*/weights.safetensors"))
