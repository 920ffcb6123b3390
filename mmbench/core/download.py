"""Fetching one file over http(s) or from Google Drive; what was cut off goes on where it stopped.

Whether weights may be fetched is said once for a process and those that it starts: by the word `download=` of any
command, or by MMBENCH_DOWNLOAD. `yes` fetches what is missing, `never` does not, and `ask`, the default, asks on a
terminal and is `never` where there is none.
"""

import errno
import html
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gdown
import requests
from gdown.exceptions import DownloadError, FileURLRetrievalError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from urllib3.exceptions import HTTPError as ReadingError

from mmbench.core.files import make_readable, write_json

SCHEMES = ("http://", "https://", "gdrive:")
PAUSES = (1.0, 2.0, 4.0)  # seconds before each new attempt after a connection was cut
TIMEOUT = 30  # seconds without a byte after which a connection counts as cut
BLOCK = 2**20  # bytes

POLICY = "MMBENCH_DOWNLOAD"
POLICIES = ("ask", "yes", "never")
_declined: set[str] = set()  # what was asked about in this process

Report = Callable[[int, int | None], None]  # is told the bytes so far and the bytes in all, where they are known
CUT = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, ReadingError)


class MissingAsset(ValueError):
    """A file that is not here and could not be fetched. A table shows its row as "not run" with this message."""


class DiskFull(ValueError):
    """A file for which there is no room."""


def allow(policy: str) -> None:
    """Says for this process, and for those that it starts, whether weights may be fetched.

    Raises:
        ValueError: it is none of `POLICIES`.
    """
    os.environ[POLICY] = _policy(policy)


def _policy(said: str) -> str:
    if said not in POLICIES:
        raise ValueError(f"expected download={', '.join(POLICIES[:-1])} or {POLICIES[-1]}, found {said!r}: choose one")
    return said


def is_wanted(described: Callable[[], str]) -> bool:
    """Whether a file is to be fetched; it is said on standard error what it is, before anything comes.

    Args:
        described: says what, how large, from where and under which terms; called where it is shown.

    Raises:
        ValueError: MMBENCH_DOWNLOAD says none of `POLICIES`.
    """
    policy = _policy(os.environ.get(POLICY) or POLICIES[0])
    is_terminal = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
    if policy == "never" or (policy == "ask" and not is_terminal):
        return False
    what = described()
    if policy == "yes":
        print(f"fetching {what}", file=sys.stderr)
        return True
    if what in _declined:
        return False
    print(f"to fetch: {what}\nfetch it? [y]es, [a]ll of this run, [N]o: ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline().strip().lower()
    if answer in ("a", "all"):
        allow("yes")
    elif answer not in ("y", "yes"):
        _declined.add(what)
        return False
    return True


def announced(file: str, size: int | None, origin: str, terms: str, remark: str = "") -> str:
    """A file that is going to be fetched, in words: name, size, what else is to be said, origin, terms of use."""
    return f"{file} ({size_told(size)}{remark}) from {origin}; terms: {terms}"


def size_told(size: int | None) -> str:
    """Bytes of a file in words; None where neither its publisher nor its server says how many."""
    return f"{size:,} bytes" if size else "size unknown"


def length(origin: str) -> int | None:
    """Bytes of a file as its server says, without fetching it; None where it does not."""
    if origin.startswith("gdrive:"):
        return None
    try:
        response = requests.head(origin, allow_redirects=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"})
    except requests.RequestException:
        return None  # fetching will say why
    return int(response.headers.get("Content-Length", 0)) or None if response.ok else None


def download(origin: str, path: Path, size: int | None = None, check: Callable[[Path], None] | None = None) -> None:
    """Fetches a file to `path`; a bar on a terminal shows how far it is.

    The file grows beside `path` as `.<name>.part` and takes its name when it is whole and checked. A connection that is
    cut is taken up again a few times. After that, and after this process was killed, the next call goes on where this
    one stopped, if the server says that the file is still the same (by ETag or Last-Modified) and sends parts of it.

    Args:
        origin: an http(s) URL, `gdrive:<id>`, or `gdrive:<id>?resourcekey=<key>` for old ids.
        path: of the file; its folder is made.
        size: of the file in bytes, where it is known.
        check: looks at the whole file before it takes its name; the file is removed if it raises.

    Raises:
        OSError: there is no connection or no such file, it was cut too often, it has another size, or what came is a
            web page (Google Drive answers so when a file's quota is used up; a login page of a network does too).
        DiskFull: there is no room for the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    with transfer_bar(f"fetching {path.name}") as report, one_line_when_full(path):
        try:
            if origin.startswith("gdrive:") and "?" not in origin:
                _from_drive(origin.removeprefix("gdrive:"), partial, report)
            else:
                _from_web(_url(origin), partial, size, report)
        except (requests.RequestException, ReadingError, DownloadError) as error:
            raise OSError(_reason(error)) from None
    try:
        with partial.open("rb") as file:
            _refuse_page(file.read(BLOCK))
        if size is not None and (found := partial.stat().st_size) != size:
            raise OSError(f"expected {size:,} bytes, {found:,} came")
        if check:
            check(partial)
    except (OSError, ValueError):
        _forget(partial)
        raise
    partial.replace(path)
    _forget(partial)


def _reason(error: Exception) -> str:
    """One line; without the advice of gdown, and urllib3's wrappings of what the operating system says."""
    text = " ".join(str(error).partition(".\n")[0].split())
    return re.sub(r"^.*\(Caused by \w+\((.*)\)\)$", r"\1", text).strip("\"'")


def _url(origin: str) -> str:
    """An http(s) URL as it is; for a file on Google Drive with a resource key, the address its download form leads to.

    gdown 6 makes its own address of a file's id, without the key.
    """
    if not origin.startswith("gdrive:"):
        return origin
    file_id, _, key = origin.removeprefix("gdrive:").partition("?")
    return f"https://drive.usercontent.google.com/download?id={file_id}&export=download&confirm=t&{key}"


def _record(partial: Path) -> Path:
    """Where it is written what the part of a file is part of."""
    return partial.with_name(f"{partial.name}.json")


def _forget(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _record(partial).unlink(missing_ok=True)


def _length(partial: Path) -> int:
    return partial.stat().st_size if partial.is_file() else 0


def _from_web(url: str, partial: Path, size: int | None, report: Report) -> None:
    attempts, furthest = 0, _length(partial)
    while True:
        try:
            return _continue(url, partial, size, report)
        except CUT:
            length = _length(partial)
            again = "run this again to go on there" if _record(partial).is_file() else "run this again"
            if not _record(partial).is_file():
                _forget(partial)  # nobody could say later whether the rest belongs to it
            if length > furthest:
                attempts, furthest = 0, length
            if furthest == 0:
                raise
            if attempts == len(PAUSES):
                raise OSError(f"the connection was cut after {length:,} bytes; {again}") from None
        time.sleep(PAUSES[attempts])
        attempts += 1


def _continue(url: str, partial: Path, size: int | None, report: Report) -> None:
    """Fetches what is missing; all of it where the server cannot or may not go on."""
    known = _known(partial, url)
    start = _length(partial) if known else 0
    if known and start == known["size"]:
        return
    headers = {"Accept-Encoding": "identity"}
    if known and start:
        headers |= {"Range": f"bytes={start}-", "If-Range": known["validator"]}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            _forget(partial)
            raise requests.ConnectionError("the part that was here is no part of the file any more")
        response.raise_for_status()
        if response.headers.get("Content-Type", "").startswith("text/html"):
            _refuse_page(response.content)
        if response.status_code != requests.codes.partial_content:
            start = 0
        elif response.headers.get("Content-Range", "").partition("-")[0] != f"bytes {start}":
            raise OSError(f"expected the bytes from {start:,} on, found others")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else size
        if size is not None and total != size:
            raise OSError(f"expected {size:,} bytes, found {total:,} there")
        require_space(partial, (total or 0) - start)
        if not start:
            _forget(partial)
            _remember(partial, url, response.headers, total)
        # As it is sent: an archive that a server calls an encoding (`Content-Encoding: x-gzip`) stays packed.
        with partial.open("ab") as file:
            for block in response.raw.stream(BLOCK, decode_content=False):
                file.write(block)
                report(file.tell(), total)
    if total is not None and _length(partial) != total:
        raise requests.ConnectionError(f"expected {total:,} bytes, {_length(partial):,} came")


def _known(partial: Path, url: str) -> dict[str, Any] | None:
    try:
        known = json.loads(_record(partial).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return known if known["origin"] == url and partial.is_file() else None


def _remember(partial: Path, url: str, headers: Any, total: int | None) -> None:
    """Writes down by what the file can be known again, if the server says so; weak ETags do not stand for bytes."""
    etag = headers.get("ETag", "W/")
    validator = headers.get("Last-Modified") if etag.startswith("W/") else etag
    if validator:
        write_json(_record(partial), {"origin": url, "validator": validator, "size": total})


def _from_drive(file_id: str, partial: Path, report: Report) -> None:
    """gdown keeps its own part beside `partial`, named as it is with eight letters and `.part`, and goes on with it."""

    def told(done: int, total: int | None) -> None:
        if total:
            require_space(partial, total - done)
        report(done, total)

    def fetch() -> None:
        gdown.download(
            id=file_id,
            output=str(partial),
            quiet=True,
            use_cookies=False,
            timeout=TIMEOUT,
            resume=True,
            retries=len(PAUSES),
            progress=told,
        )

    before = _drive_length(partial)
    try:
        fetch()
    except FileURLRetrievalError:
        raise  # a quota page, say: the part is as good as before
    except DownloadError:
        if not before or _drive_length(partial) > before:
            raise
        for part in _drive_parts(partial):  # nothing can be added to it: the file has changed
            part.unlink()
        fetch()
    make_readable(partial)


def _drive_parts(partial: Path) -> list[Path]:
    return sorted(partial.parent.glob(f"{partial.name}????????.part"))


def _drive_length(partial: Path) -> int:
    return sum(part.stat().st_size for part in _drive_parts(partial))


def _refuse_page(start: bytes) -> None:
    """Raises OSError if a file begins as a web page does."""
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        title = re.search(r"<title>(.*?)</title>", start.decode("utf-8", "replace"), re.DOTALL | re.IGNORECASE)
        named = f" ({' '.join(html.unescape(title[1]).split())[:80]})" if title else ""
        raise OSError(f"a web page came instead of the file{named}, as when a quota is used up or a login is asked for")


def require_space(path: Path, needed: int) -> None:
    """Raises DiskFull if the disk of a file has fewer bytes free than are needed for it."""
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DiskFull(_full(path, f"{needed:,} bytes more", free))


@contextmanager
def one_line_when_full(path: Path) -> Iterator[None]:
    """Raises DiskFull where the operating system says that the disk is full while `path` is made."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(_full(path, "more", shutil.disk_usage(path.parent).free)) from None


def _full(path: Path, needed: str, free: int) -> str:
    return (
        f"{path}: expected {needed} on this disk, found {free:,} bytes free: make room and run this again, or name a "
        "folder on another disk by MMBENCH_HOME"
    )


@contextmanager
def transfer_bar(what: str) -> Iterator[Report]:
    """A bar on a terminal; what it yields is told the bytes so far and in all."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
