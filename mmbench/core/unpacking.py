"""Unpacking archives of strangers: folders and regular files come out, below one folder, and nothing else.

Members that lead out of it, links, devices, and archives that grow out of all proportion are refused.
"""

import errno
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from mmbench.core.download import BLOCK, DiskFull, one_line_when_full, require_space, transfer_bar
from mmbench.core.files import written_atomically

TARS = (".tar", ".tar.gz", ".tgz")
ZIPS = (".zip",)
ARCHIVES = (*TARS, *ZIPS)
# More than this from one archive is taken for an attack. CelebAMask-HQ has 420,000 files; text packs to a tenth.
MAX_MEMBERS = 2_000_000
MAX_GROWTH = 30  # times the archive's size, or
MAX_SMALL = 2 * 2**30  # bytes, whichever is more
MAX_NAME, MAX_PATH = 255, 4000  # bytes of a folder's or file's name, and of a path, that a file system can hold
ENCRYPTED = 1  # among the flags of a member of a zip archive
# What the libraries raise of damaged and encrypted archives, and the system of names that are file and folder in one.
DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, RuntimeError, OverflowError, IndexError, struct.error),
)
NONE_OF_DISKS = (None, errno.EINVAL)  # numbers of system errors by which libraries speak of what they unpack
CONTRADICTORY = (FileExistsError, NotADirectoryError, IsADirectoryError)


class _Bounds:
    """Counts what comes out of an archive, and knows the folders made for it; refuses what is out of all proportion."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = self.members = 0
        self.folders: set[Path] = set()

    def member(self) -> None:
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise _Refused(f"expected at most {MAX_MEMBERS:,} members, found more")

    def count(self, num_bytes: int) -> None:
        self.bytes += num_bytes
        if self.bytes > self.max_bytes:
            raise _Refused(f"expected at most {self.max_bytes:,} bytes in all when unpacked, found more")


class _Entry(NamedTuple):
    """A member of an archive: its path, what it is, and its bytes if it is a file."""

    name: str
    kind: str
    content: IO[bytes] | None


def unpack(path: Path, name: str, folder: Path) -> int:
    """Unpacks an archive; returns the number of its members.

    Only folders and regular files are made, with the permissions of new ones, below `folder`.

    Args:
        path: of the archive; its name says of which kind it is, one of `ARCHIVES`.
        name: what errors call it.
        folder: that exists.

    Raises:
        ValueError: the archive is damaged, holds anything but folders and files, leads out of the folder, or is out of
            all proportion; names the archive and the member.
    """
    entries = _zip_entries if path.name.endswith(ZIPS) else _tar_entries
    return _unpack(entries, path, name, folder, "do not use this file, get the one that the data set's page names")


def unpack_zip(path: Path, folder: Path) -> int:
    """As `unpack`, a zip archive of any name that a user made: errors name its path, and advise to unpack it."""
    return _unpack(_zip_entries, path, str(path), folder, "make it again, or unpack it first and give the folder")


def _unpack(
    entries: Callable[[IO[bytes], Path, _Bounds], Iterator[_Entry]], path: Path, name: str, folder: Path, remedy: str
) -> int:
    size = path.stat().st_size
    bounds = _Bounds(max(MAX_SMALL, MAX_GROWTH * size))
    entry = _Entry("table of contents", "file", None)
    with path.open("rb") as file, transfer_bar(f"unpacking {path.name}") as report:
        try:
            for entry in entries(file, folder, bounds):
                bounds.member()
                _write(entry, folder, bounds)
                report(file.tell(), size)
        except DiskFull:
            raise
        except (*DAMAGED, OSError, ValueError) as error:
            if _is_of_disks(error):
                raise
            found = str(error) if isinstance(error, _Refused) else f"expected a whole archive, found {_words(error)}"
            raise ValueError(f"{name}: {_shown(entry.name)}: {found}: {remedy}") from None
    return bounds.members


def _is_of_disks(error: Exception) -> bool:
    """Whether an error is the system's own, and says nothing of the archive."""
    return isinstance(error, OSError) and not isinstance(error, CONTRADICTORY) and error.errno not in NONE_OF_DISKS


class _Refused(ValueError):
    """What an archive may not hold."""


def _words(error: Exception) -> str:
    # tarfile lists what each of its readers objects to, after a dash.
    return " ".join(str(error).split()).partition(": - ")[0] or type(error).__name__


def _shown(member: str) -> str:
    """The name of a member as one line of an error can hold it."""
    text = member if member.isprintable() else ascii(member)
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}..."


def _tar_entries(file: IO[bytes], folder: Path, bounds: _Bounds) -> Iterator[_Entry]:
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        for entry in archive:
            if entry.isreg():
                yield _Entry(entry.name, "file", archive.extractfile(entry))
            else:
                link = entry.issym() or entry.islnk()
                yield _Entry(entry.name, "folder" if entry.isdir() else "link" if link else "device", None)
        assert archive.fileobj is not None
        while archive.fileobj.read(BLOCK):  # gzip compares its sum at the very end
            pass


def _zip_entries(file: IO[bytes], folder: Path, bounds: _Bounds) -> Iterator[_Entry]:
    with zipfile.ZipFile(file) as archive:
        names = Counter(entry.filename for entry in archive.infolist() if not entry.is_dir())
        if twice := [name for name, count in names.items() if count > 1]:
            raise _Refused(f"expected each name once, found {_shown(twice[0])} twice")
        bounds.count(stated := sum(entry.file_size for entry in archive.infolist()))
        require_space(folder / "any", stated)
        bounds.bytes = 0
        for entry in archive.infolist():
            if entry.filename.startswith("__MACOSX/"):  # what a Mac adds to the archives that it makes
                continue
            if entry.header_offset < 0:
                raise _Refused("expected a whole archive, found one without its beginning")
            kind = _kind(entry)
            if entry.flag_bits & ENCRYPTED:
                yield _Entry(entry.orig_filename, "file that is encrypted", None)
            elif kind == "file":
                with archive.open(entry) as content:
                    yield _Entry(entry.orig_filename, kind, content)
            else:
                yield _Entry(entry.orig_filename, kind, None)


def _kind(entry: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "link" if kind == stat.S_IFLNK else "device"
    return "folder" if entry.is_dir() else "file"


def _write(entry: _Entry, folder: Path, bounds: _Bounds) -> None:
    path = _inside(entry.name, folder)
    if entry.kind not in ("file", "folder"):
        raise _Refused(f"expected a file or a folder, found a {entry.kind}")
    parent = path.parent if entry.content else path
    if parent not in bounds.folders:  # archives hold hundreds of thousands of files
        parent.mkdir(parents=True, exist_ok=True)
        bounds.folders.add(parent)
    if entry.content:
        _copy(entry.content, path, bounds)


def _copy(content: IO[bytes], path: Path, bounds: _Bounds) -> None:
    with path.open("wb") as file:
        while block := content.read(BLOCK):
            bounds.count(len(block))
            file.write(block)


def _inside(member: str, folder: Path) -> Path:
    """The place of a member below a folder."""
    if leads_out(member):
        raise _Refused("expected a path inside the archive, found one that leads out of it")
    path = folder / member
    if len(os.fsencode(path)) > MAX_PATH or any(len(os.fsencode(part)) > MAX_NAME for part in path.parts):
        raise _Refused("expected a name that a file can have, found one that is too long")
    return path


def leads_out(member: str) -> bool:
    """Whether the path of a member leads out of its archive: an absolute one, one with `..`, a drive or a backslash."""
    path = PurePosixPath(member)
    # A Windows path is refused as well: it would not be a path here.
    return path.is_absolute() or ".." in path.parts or bool(re.search(r"\\|^[A-Za-z]:|\0", member))


def extract(archive: Path, member: str, path: Path, max_bytes: int, remedy: str) -> None:
    """Writes one file of a zip archive to `path`, which appears whole or not at all, and nothing else of the archive.

    The archive decides about the bytes and not about the path.

    Args:
        member: the path of the file in the archive.
        max_bytes: more in the file is taken for an attack.
        remedy: what errors advise.

    Raises:
        ValueError: the archive is damaged, has no such file, or too large a one; the disk is full.
    """
    try:
        with zipfile.ZipFile(archive) as held:
            entry = _found(held, member)
            if entry.file_size > max_bytes:
                raise _Refused(f"expected at most {max_bytes} bytes in {member}, found {entry.file_size}")
            with held.open(entry) as content, written_atomically(path) as partial, one_line_when_full(path):
                _copy(content, partial, _Bounds(max_bytes))
    except (*DAMAGED, OSError, _Refused) as error:
        if _is_of_disks(error):
            raise
        whole = f"expected a zip archive with {member}, found {_words(error)}"
        raise ValueError(f"{archive}: {error if isinstance(error, _Refused) else whole}: {remedy}") from None


def _found(archive: zipfile.ZipFile, member: str) -> zipfile.ZipInfo:
    """A file of an archive."""
    files = {entry.filename: entry for entry in archive.infolist() if _kind(entry) == "file"}
    if member not in files:
        others = sorted(files)
        listed = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        raise _Refused(f"expected {member} in it, found {listed or 'nothing'}")
    return files[member]
