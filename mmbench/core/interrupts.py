"""SIGINT and SIGTERM: one line says that the run was interrupted, what it made is kept, and it ends within seconds.

So it does where another process of a distributed run has died (killed for memory, say), for which this one would wait.

An exception leaves the work, so that locks are given back and parts of files removed. It can be lost (in a destructor)
or late (a process waits for another one in a library), so that a thread ends the process where it does not go itself.
"""

import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subprocess import Popen

LINE = "mmbench: interrupted: the same command goes on where this one stopped"
LOST = (
    "mmbench: error: expected all processes of the run to go on, found process {} gone{}: start the same command again"
)
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 3.0  # seconds in which the work has to be left; Docker kills after ten
SAME = 0.5  # seconds in which a second signal is the first one again: `timeout` and terminals tell a process twice
TOLD = 2.0  # seconds in which a launcher, or the thread here, ends a process that has lost another one


class Interrupted(BaseException):
    """A signal ended the work; `code` is the exit code, 128 and the signal's number.

    No KeyboardInterrupt, which Lightning turns into an exit of its own, and no Exception, which a row may survive.
    """

    def __init__(self, number: int) -> None:
        self.code = 128 + number
        super().__init__(LINE)


_received: list[int] = []  # exit codes of the signals that came
_processes: list[list["Popen[bytes]"]] = []  # of a distributed run, which end with this one
_said: list[str] = []


def end_with_us(processes: "list[Popen[bytes]]") -> None:
    """Ends these processes, and those that will be in the list, where this one is interrupted."""
    _processes.append(processes)


def say(line: str = LINE, by: str = "0") -> None:
    """Prints a line, once, and of the processes of a distributed run in one of a machine, the first one by default."""
    if not _said and os.environ.get("LOCAL_RANK", "0") == by:
        _said.append(line)
        os.write(2, f"{line}\n".encode())  # which, unlike print, a signal may interrupt anywhere


def wait_for_loss() -> None:
    """Where a process of a distributed run may have failed since another one died, waits to be ended because of that.

    What it has to say itself is of a connection, and of no use to anybody.
    """
    if "LOCAL_RANK" in os.environ:
        time.sleep(TOLD)


@contextmanager
def handled() -> Iterator[None]:
    """Raises `Interrupted` in the block when SIGINT or SIGTERM comes; a second one ends the process at once.

    While a module is being imported the first one does: libraries turn exceptions there into failed imports. A signal
    that was ignored stays so. For the main thread.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, _handle)
    pipe = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=[reading], daemon=True, name="interrupts").start()
    try:
        yield
    except BaseException as error:
        if _received and not isinstance(error, Interrupted):  # what came of it elsewhere: a worker was ended, too
            raise Interrupted(_received[0] - 128) from error
        raise
    finally:
        if not _received:  # else the thread still sees to it that the process ends
            signal.set_wakeup_fd(pipe)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(writing)  # which ends the thread


def _handle(number: int, frame: FrameType | None) -> None:
    if _received:
        return  # the thread has heard it too
    _received.append(128 + number)
    _end_processes()
    if _importing(frame):
        with suppress(RuntimeError):  # it was printing
            sys.stdout.flush()
        _end(128 + number)
    raise Interrupted(number)


def _importing(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _watch(reading: int) -> None:
    """Ends the process after a signal at which it did not go, and one of a distributed run whose first one has gone."""
    parent = os.getppid() if os.environ.get("LOCAL_RANK", "0") != "0" else None
    code, since = 0, 0.0
    while True:
        told = bool(select.select([reading], [], [], 0.2)[0])
        numbers = os.read(reading, 64) if told else b""
        if told and not numbers:
            os.close(reading)
            return
        now = time.monotonic()
        if heard := [number for number in numbers if number in SIGNALS]:
            if code and now - since > SAME:
                _end(code)
            code, since = code or 128 + heard[0], since or now
        if code and now - since > GRACE:
            _end(code)
        if parent is not None and os.getppid() != parent:
            say(LOST.format(0, ""), by="1")
            _end(1)
        if not code and (killed := _killed()):
            say(LOST.format(*killed))
            _end(1)


def _killed() -> tuple[int, str] | None:
    """The first process of those that this one has started that a signal has ended: its number, and by which."""
    for processes in _processes:
        for number, process in enumerate(processes, 1):
            if (code := process.poll() or 0) < 0:
                return number, f", ended by {signal.Signals(-code).name}"
    return None


def _end_processes() -> None:
    for processes in _processes:
        for process in processes:
            process.kill()
        processes.clear()  # so that Lightning, which watches the list, does not kill this process because of them


def _end(code: int) -> None:
    if code > 1:
        say()
    _end_processes()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what others make of the end of workers is no news
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(code)


def _as_usual() -> None:
    """A forked process (a worker of a data loader) is ended by its parent, and knows signals as Python does."""
    if signal.getsignal(signal.SIGTERM) is _handle:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
    if signal.getsignal(signal.SIGINT) is _handle:
        signal.signal(signal.SIGINT, signal.default_int_handler)


os.register_at_fork(after_in_child=_as_usual)
