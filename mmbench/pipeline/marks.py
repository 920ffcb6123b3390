"""Marks of rows that are at work or failed: one small file each below the folder of runs, and nothing in the results.

A mark is named as a record is looked up, by the hash of the row's configuration. Who works on the row holds its lock,
which the operating system gives back when that process dies: a mark without a reason that nobody holds was left by a
process that was killed, and counts for nothing.
"""

import datetime
import json
import platform
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmbench.core.download import MissingAsset
from mmbench.core.files import CannotWrite, is_locked, locked, write_json

DIGITS = 32  # of the hash, in the name of a mark


@dataclass(frozen=True)
class Mark:
    """What is known of a row that is at work or failed.

    Attributes:
        host: name of the machine.
        since: when it began, in seconds since 1970.
        reason: why it failed, in one line; "" while it is at work.
        log: file that says more.
        is_held: whether somebody works on it now.
    """

    host: str
    since: float
    reason: str = ""
    log: str = ""
    is_held: bool = False

    @property
    def told(self) -> str:
        """Why it failed and where more stands, in words."""
        return f"{self.reason}, {self.log}" if self.log else self.reason


def folder(runs: str | Path, experiment: str) -> Path:
    """Where the marks of an experiment's rows lie."""
    return Path(runs) / "rows" / experiment


def place(runs: str | Path, experiment: str, key: str) -> Path:
    """Where the mark of a row lies, and beside it its log, `.log`.

    Args:
        key: hash of the row's configuration, as the `config_hash` of its record.
    """
    return folder(runs, experiment) / f"{key[:DIGITS]}.json"


def read(path: Path) -> Mark | None:
    """The mark of a row that failed or that somebody works on; None where neither is so."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        mark = Mark(**{key: content[key] for key in ("host", "since", "reason", "log")}, is_held=is_locked(path))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return mark if mark.is_held or mark.reason else None


def failures(runs: str | Path, experiment: str) -> dict[str, Mark]:
    """First digits of the configuration's hash to the mark, of the rows of an experiment that failed and do not run."""
    marks = {path.stem: read(path) for path in folder(runs, experiment).glob("[!.]*.json")}
    return {key: mark for key, mark in marks.items() if mark and not mark.is_held}


def failed(path: Path, facts: Mapping[str, Any], reason: str, log: str) -> Mark:
    """Marks a row that failed.

    Args:
        facts: what the file says of the row, for who reads it.
    """
    mark = Mark(platform.node(), time.time(), reason, log)
    _write(path, mark, facts)
    return mark


def _write(path: Path, mark: Mark, facts: Mapping[str, Any]) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    own = {key: item for key, item in asdict(mark).items() if key != "is_held"}
    write_json(path, {**facts, **own, "date": now})


@contextmanager
def at_work(path: Path, facts: Mapping[str, Any]) -> Iterator[None]:
    """Marks a row as long as the block works on it; waits for another run that does.

    The mark is gone when the block ends well, is interrupted or lacks an asset. After another error it says why, and
    the traceback is in the log.

    Raises:
        CannotWrite: there is no place for the mark.
    """
    from pytorch_lightning.utilities import rank_zero_only  # and torch, which no table needs

    with locked(path):
        if rank_zero_only.rank > 0:  # the first process speaks for those that share its work
            yield
            return
        _write(path, Mark(platform.node(), time.time()), facts)
        is_kept = False
        try:
            yield
        except MissingAsset:
            raise
        except Exception as error:
            is_kept = True
            with suppress(OSError, CannotWrite):  # of a full disk: who waits for the row is told all the same
                _write_failure(path, facts, error)
            raise
        finally:
            if not is_kept:
                path.unlink(missing_ok=True)


def _write_failure(path: Path, facts: Mapping[str, Any], error: Exception) -> None:
    log = path.with_suffix(".log")
    with log.open("a", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    failed(path, facts, one_line(error), str(log))


def one_line(error: Exception) -> str:
    """An error in one line: what a user is told as it stands, another with its kind."""
    said = " ".join(str(error).split())
    return said if isinstance(error, ValueError) and said else f"{type(error).__name__}: {said}"
