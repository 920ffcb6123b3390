"""Files that are whole or absent: content hashes, atomic writes and locks that survive a killed owner."""

import errno
import fcntl
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, SoftFileLock, Timeout

RESULTS, RUNS, ASSETS = (  # what names the folders of a run
    "paths.results= (or MMBENCH_RESULTS)", "paths.runs= (or MMBENCH_RUNS)", "paths.assets= (or MMBENCH_HOME)",
)  # fmt: skip
PATIENCE = 2.0  # seconds after which who waits for another run says so
# What an operating system says where it is the place that cannot be written.
OF_THE_PLACE = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
        errno.ENAMETOOLONG, errno.EFBIG, errno.EIO, errno.ENOLCK, errno.EOPNOTSUPP, errno.ESTALE,
    }
)  # fmt: skip


class CannotWrite(ValueError):
    """A file cannot be written where it is to lie."""


def require_writable(folder: str | Path, key: str) -> None:
    """Refuses a folder that nothing can be written into, before anything is done for it; leaves nothing there.

    A folder that does not exist yet is as good as the one that it would be made in.

    Args:
        folder: where files are to lie.
        key: what names it on the command line, `paths.results=`.

    Raises:
        CannotWrite: names both.
    """
    above = Path(folder).absolute()
    while not os.path.lexists(above):
        above = above.parent
    try:
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{above} is no folder")
        handle, name = tempfile.mkstemp(prefix=".mmbench-", dir=above)
        os.close(handle)
        Path(name).unlink()
    except OSError as error:
        raise CannotWrite(
            f"expected a folder for {key} that can be written, found {folder} ({error.strerror}): name another"
        ) from None


def require_assets(paths: Mapping[str, str]) -> None:
    """Refuses a folder of data and weights that cannot be written; one that others have filled may be read alone.

    Raises:
        CannotWrite: names it and what names it.
    """
    assets = Path(paths["assets"]).expanduser()
    if not (assets / "canary").is_dir():
        require_writable(assets, ASSETS)


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Raises CannotWrite where the operating system says that `path` cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno not in OF_THE_PLACE:
            raise
        raise CannotWrite(
            f"{path}: expected to write this file, found {error.strerror}: make room, or name another folder"
        ) from None


def sha256_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(content: bytes) -> str:
    """Hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_json(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value in canonical form (sorted keys, no spaces, ASCII).

    Raises TypeError for what JSON cannot hold, ValueError for NaN and infinities.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_bytes(text.encode())


@contextmanager
def written_atomically(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` when the block ends well, removes it otherwise.

    A reader sees the old file or the whole new one, never a part, also when the writer is killed. Behind a link it is
    the file that it leads to.

    Raises:
        CannotWrite: the folder cannot be written, the disk is full, or what lies there is a device, a pipe or a socket.
    """
    path = Path(path)
    with _one_line(path):
        path = path.resolve() if path.is_symlink() else path
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise CannotWrite(f"expected {path} as a file, found what is no regular one: name another place")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            make_readable(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def make_readable(path: Path) -> None:
    """Makes a file that mkstemp made, which is private, as readable as what open() would have made."""
    path.chmod(0o666 & ~_umask())


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with written_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON value atomically, indented, with sorted keys. Refuses NaN and infinities (ValueError)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Holds the lock that guards `path`, as `held`, for all processes of a distributed run: they work under the one
    that their leader holds.

    Raises:
        CannotWrite: there is no place for the lock.
    """
    if any(int(os.environ.get(place, "0")) > 0 for place in ("RANK", "NODE_RANK", "LOCAL_RANK")):
        yield
        return
    with held(path):
        yield


@contextmanager
def held(path: str | Path) -> Iterator[None]:
    """Holds the lock that guards `path`, an artefact several runs may want to make at once.

    The operating system drops the lock when its owner dies, so a killed run never blocks the next one. Who waits for
    another run says so on standard error. A file system that locks nothing keeps the lock of an owner that died on
    another machine; who waits for that says which file to remove.

    Raises:
        CannotWrite: there is no place for the lock.
    """
    path = Path(path)
    lock = FileLock(_lock_of(path))
    with _one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            print(f"waiting for another run, which is at work on {path}{_holder(lock)}", file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_locked(path: str | Path) -> bool:
    """Whether a run holds the lock that guards `path` (`locked`); looks, and takes nothing from who waits for it."""
    try:
        handle = os.open(_lock_of(Path(path)), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)  # and with it the shared lock
    return False


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _holder(lock: Any) -> str:
    """Whose a lock is that is a file and nothing more, and what to do if they are gone; "" of the system's locks."""
    if not isinstance(lock, SoftFileLock):
        return ""
    try:
        process, machine, *_ = Path(lock.lock_file).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        process, machine = "unknown", "an unknown machine"
    return f" (process {process} on {machine}; if that is gone, remove {lock.lock_file})"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
