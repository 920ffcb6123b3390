"""The archives that data sets are published as: where they are, how to know them, and how they become folders.

An archive is checked before it is unpacked, unpacked beside its place, and moved there when it is whole. A process that
is killed leaves hidden folders and parts of files that the next one goes on with or removes, and nothing that could be
taken for data.
"""

import datetime
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from mmbench.core.download import (
    BLOCK,
    SCHEMES,
    DiskFull,
    MissingAsset,
    download,
    one_line_when_full,
    require_space,
    transfer_bar,
)
from mmbench.core.files import locked, write_json, written_atomically

TARS = (".tar", ".tar.gz", ".tgz")
ZIPS = (".zip",)
RECEIPT = ".receipt.json"
# More than this from one archive is taken for an attack. CelebAMask-HQ has 420,000 files; text packs to a tenth.
MAX_MEMBERS = 2_000_000
MAX_GROWTH = 30  # times the archive's size, or
MAX_SMALL = 2 * 2**30  # bytes, whichever is more
# What the libraries raise of damaged, encrypted and contradictory archives.
DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, RuntimeError, FileExistsError, NotADirectoryError, IsADirectoryError),
)


@dataclass(frozen=True)
class Archive:
    """A file that a data set is published as.

    Attributes:
        file: its name, at its origin's mirror and in the data set's folder `archives`.
        origin: URL, or `gdrive:<id>`, or `gdrive:<id>?resourcekey=<key>` for old ids, or in words where no program can
            fetch it.
        size: bytes; None where nobody states them.
        md5, sha256: hexadecimal digests; None where nobody has published one.
        terms: of use, in a few words.
        contents: what lies below the data set's folder when it is unpacked, relative paths. Nothing else of the archive
            is kept.
        folder: where it is unpacked, below the data set's folder. An archive that is none (`.mat`, `.pickle`, `.txt`)
            is copied there.
        inner: archives inside it that are to be unpacked too, relative to `folder`, each beside itself.
        optional: whether the data set is of use without it.
    """

    file: str
    origin: str
    size: int | None
    md5: str | None
    terms: str
    contents: tuple[str, ...]
    sha256: str | None = None
    folder: str = "."
    inner: tuple[str, ...] = ()
    optional: bool = False

    def described(self) -> str:
        """The archive in words: name, size, sum, origin."""
        size = f"{self.size:,} bytes" if self.size else "size unpublished"
        digest = f"sha256 {self.sha256}" if self.sha256 else f"md5 {self.md5}" if self.md5 else "sum unpublished"
        return f"{self.file} ({size}, {digest}) from {self.origin}"


class Sums(NamedTuple):
    """What a file is known by: bytes, and hexadecimal digests."""

    size: int
    md5: str
    sha256: str


def obtain(archives: Iterable[Archive], root: Path, mirror: str | None = None) -> list[str]:
    """Fetches, checks and unpacks what is not there yet below `root`.

    An archive is looked for in `root`/archives, in the mirror, and at its origin, in this order. A file is checked
    before it is used; where nobody has published a sum, that of the first file is written down and another is refused
    from then on. When it is unpacked, `root`/archives/<file>.receipt.json says so (`receipts`). Two processes
    that want the same do the work once.

    Args:
        mirror: a folder, which is only read, or a URL, where the archives lie under their names.

    Returns:
        For each optional archive that could not be had, the reason in one line.

    Raises:
        MissingAsset: an archive is not to be had; says which one, from where, its sum, where to put it.
        ValueError: a file has another size or sum than it should, or is damaged or dangerous; the disk is full.
    """
    failed = []
    with locked(root):
        for archive in archives:
            held = all((root / content).exists() for content in archive.contents)
            if held and not is_unfinished(archive, root):  # another run was faster
                continue
            try:
                path, sums = _found(archive, root, mirror)
            except MissingAsset as error:
                if not archive.optional:
                    raise
                failed.append(str(error))
                continue
            _install(archive, path, sums, root)
    return failed


def install(archive: Archive, path: Path, root: Path) -> None:
    """Checks and unpacks one archive that lies at `path`; the caller holds the lock of `root`.

    Raises:
        ValueError: as `obtain`.
    """
    _install(archive, path, checked(archive, path, root), root)


def is_unfinished(archive: Archive, root: Path) -> bool:
    """Whether a run was killed while it unpacked an archive; `obtain` does it again."""
    return _staging_folder(root, archive).exists()


def receipts(root: Path) -> dict[str, dict[str, Any]]:
    """What is written down of the archives that were unpacked below `root`, by file name: size, sums, date, members."""
    return {
        path.name.removesuffix(RECEIPT): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((root / "archives").glob(f"*{RECEIPT}"))
    }


def source(archive: Archive, root: Path, mirror: str | None) -> str:
    """Where `obtain` will look for an archive first, in words."""
    if (place := root / "archives" / archive.file).is_file():
        return str(place)
    if mirror and (_is_url(mirror) or (Path(mirror).expanduser() / archive.file).is_file()):
        return f"{mirror.rstrip('/')}/{archive.file}"
    return archive.origin


def _is_url(mirror: str) -> bool:
    return mirror.startswith(("http://", "https://"))


def _found(archive: Archive, root: Path, mirror: str | None) -> tuple[Path, Sums]:
    """The checked file: as it lies here or in a mirror that is a folder, or fetched."""
    place = root / "archives" / archive.file
    if place.is_file():
        return place, checked(archive, place, root)
    reasons = []
    if mirror and not _is_url(mirror):
        path = Path(mirror).expanduser() / archive.file
        if path.is_file():
            return path, _require(archive, path, root, str(path), "correct the mirror, or leave out paths.mirror")
        reasons.append(f"{path}: no such file")
    origins = [f"{mirror.rstrip('/')}/{archive.file}"] if mirror and _is_url(mirror) else []
    for origin in [*origins, archive.origin]:
        try:
            if origin.startswith(SCHEMES):
                return place, _fetched(archive, origin, place, root)
        except OSError as error:
            reasons.append(str(error) if origin == archive.origin else f"{origin}: {error}")
    tried = f" and could not fetch it ({'; '.join(reasons)})" if reasons else ""
    raise MissingAsset(
        f"expected {archive.described()}, found no file at {place}{tried}: put it there, or name a folder or URL that "
        "has it by paths.mirror"
    )


def _fetched(archive: Archive, origin: str, place: Path, root: Path) -> Sums:
    found: list[Sums] = []
    remedy = f"it was not kept; fetch it again, or put the right one at {place}"
    download(
        origin, place, archive.size, lambda partial: found.append(_require(archive, partial, root, origin, remedy))
    )
    return found[0]


def checked(archive: Archive, path: Path, root: Path) -> Sums:
    """The sums of a file that is to be an archive of the data set below `root`.

    Raises:
        ValueError: it has another size or sum than it should, or than the first one had where nobody published any.
    """
    return _require(archive, path, root, str(path), f"remove it to fetch it again from {archive.origin}")


def _require(archive: Archive, path: Path, root: Path, name: str, remedy: str) -> Sums:
    size = path.stat().st_size
    if archive.size is not None and size != archive.size:
        raise ValueError(f"{name}: expected {archive.size:,} bytes in {archive.file}, found {size:,}: {remedy}")
    sums = _sums(path)
    if archive.md5 or archive.sha256:
        wanted, first = {"md5": archive.md5, "sha256": archive.sha256}, ""
    else:
        wanted, first = (
            receipts(root).get(archive.file, {}),
            f", written down in {archive.file}{RECEIPT} at its first use",
        )
    for kind, found in (("md5", sums.md5), ("sha256", sums.sha256)):
        if (expected := wanted.get(kind)) and found != expected:
            raise ValueError(f"{name}: expected {kind} {expected} for {archive.file}{first}, found {found}: {remedy}")
    return sums


def _sums(path: Path) -> Sums:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file, transfer_bar(f"checking {path.name}") as report:
        while block := file.read(BLOCK):
            md5.update(block)
            sha256.update(block)
            report(file.tell(), size)
    return Sums(size, md5.hexdigest(), sha256.hexdigest())


def _install(archive: Archive, path: Path, sums: Sums, root: Path) -> None:
    """Unpacks a checked archive beside its place, moves what it is to hold there, and writes that down."""
    inside = {content: str(PurePosixPath(content).relative_to(archive.folder)) for content in archive.contents}
    with _staging(root, archive) as staging, one_line_when_full(staging):
        if archive.file.endswith((*TARS, *ZIPS)):
            members = _unpack(path, archive.file, staging)
        else:
            (copy := staging / inside[archive.contents[0]]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            members = 1
        for name in archive.inner:
            inner = _located(staging, name, archive)
            members += _unpack(inner, f"{archive.file}: {name}", inner.parent)
            inner.unlink()
        for content in archive.contents:
            place = root / content
            if not place.exists():  # put there by the user, or moved by an earlier run that was killed here
                found = _located(staging, inside[content], archive)
                place.parent.mkdir(parents=True, exist_ok=True)
                found.replace(place)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        receipt = {"origin": archive.origin, "contents": archive.contents, "members": members, "unpacked": now}
        write_json(root / "archives" / f"{archive.file}{RECEIPT}", {**sums._asdict(), **receipt})


def _staging_folder(root: Path, archive: Archive) -> Path:
    return root / f".unpacking-{archive.file}"


@contextmanager
def _staging(root: Path, archive: Archive) -> Iterator[Path]:
    """An empty folder on the same disk as the data set, removed in the end; what a killed run left there is removed."""
    staging = _staging_folder(root, archive)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _located(staging: Path, path: str, archive: Archive) -> Path:
    """What an archive is to hold at a path; wherever in it something of that name lies, where the path is not right."""
    if (staging / path).exists():
        return staging / path
    name = PurePosixPath(path).name
    found = [
        Path(folder) / entry
        for folder, folders, files in os.walk(staging)
        for entry in (*folders, *files)
        if entry == name
    ]
    if not found:
        top = ", ".join(sorted(entry.name for entry in staging.iterdir())[:5])
        raise ValueError(
            f"{archive.file}: expected {path} in it, found {top or 'nothing'}: it is another archive than the one from "
            f"{archive.origin}; remove it and get that one"
        )
    nearest = min(found, key=lambda place: (len(place.parts), str(place)))
    print(f"mmbench: warning: {archive.file} holds {path} as {nearest.relative_to(staging)}", file=sys.stderr)
    return nearest


class _Bounds:
    """Counts what comes out of an archive, and knows the folders made for it; refuses what is out of all proportion."""

    def __init__(self, path: Path) -> None:
        self.max_bytes = max(MAX_SMALL, MAX_GROWTH * path.stat().st_size)
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


def _unpack(path: Path, name: str, folder: Path) -> int:
    """Unpacks an archive; returns the number of its members.

    Only folders and regular files are made, with the permissions of new ones, below `folder`.

    Raises:
        ValueError: the archive is damaged, holds anything but folders and files, leads out of the folder, or is out of
            all proportion; names the archive and the member.
    """
    bounds, size = _Bounds(path), path.stat().st_size
    entries = _zip_entries if path.name.endswith(ZIPS) else _tar_entries
    entry = _Entry("table of contents", "file", None)
    with path.open("rb") as file, transfer_bar(f"unpacking {path.name}") as report:
        try:
            for entry in entries(file, folder, bounds):
                bounds.member()
                _write(entry, folder, bounds)
                report(file.tell(), size)
        except DiskFull:
            raise
        except (*DAMAGED, ValueError) as error:
            found = str(error) if isinstance(error, _Refused) else f"expected a whole archive, found {_words(error)}"
            raise ValueError(
                f"{name}: {entry.name}: {found}: do not use this file, get the one that the data set's page names"
            ) from None
    return bounds.members


class _Refused(ValueError):
    """What an archive may not hold."""


def _words(error: Exception) -> str:
    # tarfile lists what each of its readers objects to, after a dash.
    return " ".join(str(error).split()).partition(": - ")[0] or type(error).__name__


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
        bounds.count(stated := sum(entry.file_size for entry in archive.infolist()))
        require_space(folder / "any", stated)
        bounds.bytes = 0
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if entry.filename.startswith("__MACOSX/"):  # what a Mac adds to the archives that it makes
                continue
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                yield _Entry(entry.orig_filename, "link" if kind == stat.S_IFLNK else "device", None)
            elif entry.is_dir():
                yield _Entry(entry.orig_filename, "folder", None)
            else:
                with archive.open(entry) as content:
                    yield _Entry(entry.orig_filename, "file", content)


def _write(entry: _Entry, folder: Path, bounds: _Bounds) -> None:
    path = _inside(entry.name, folder)
    if entry.kind not in ("file", "folder"):
        raise _Refused(f"expected a file or a folder, found a {entry.kind}")
    parent = path.parent if entry.content else path
    if parent not in bounds.folders:  # archives hold hundreds of thousands of files
        parent.mkdir(parents=True, exist_ok=True)
        bounds.folders.add(parent)
    if entry.content:
        with path.open("wb") as file:
            while block := entry.content.read(BLOCK):
                bounds.count(len(block))
                file.write(block)


def _inside(member: str, folder: Path) -> Path:
    """The place of a member below a folder.

    Raises:
        ValueError: it would lie outside: an absolute path, one with `..`, a drive letter or a backslash.
    """
    path = PurePosixPath(member)
    # A Windows path is refused as well: it would not be a path here.
    if path.is_absolute() or ".." in path.parts or re.search(r"\\|^[A-Za-z]:|\0", member):
        raise _Refused("expected a path inside the archive, found one that leads out of it")
    return folder / path


def pack(tree: Path, archives: Sequence[Archive], folder: Path) -> list[Archive]:
    """Makes the archives of a data set from a folder as they leave it when they are unpacked.

    The same files give the same bytes. An inner archive `X.zip` holds the folder `X` that lies beside it.

    Args:
        tree: the data set's folder, unpacked.
        archives: what it is to be packed as.
        folder: where the archives are written.

    Returns:
        The archives with the size and sha256 of what was made; optional ones whose contents are not in `tree` are left
        out.

    Raises:
        ValueError: the tree lacks what an archive is to hold, or has files that belong to none.
    """
    made = []
    claimed: set[str] = set()
    files = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())
    for archive in archives:
        held = [file for file in files if _belongs(file, archive.contents)]
        claimed |= set(held)
        absent = [content for content in archive.contents if not (tree / content).exists()]
        if absent and archive.optional:
            continue
        if absent:
            raise ValueError(f"{tree}: expected {absent[0]} for {archive.file}, found none: write it")
        path = folder / archive.file
        with written_atomically(path) as partial:
            _pack(tree, archive, held, partial)
        sums = _sums(path)
        made.append(replace(archive, origin="made here", size=sums.size, sha256=sums.sha256, md5=None))
    if stray := sorted(set(files) - claimed):
        raise ValueError(f"{tree / stray[0]}: expected it among the contents of an archive, found it in none: list it")
    return made


def _belongs(file: str, contents: Iterable[str]) -> bool:
    return any(file == content or file.startswith(f"{content}/") for content in contents)


def _pack(tree: Path, archive: Archive, files: Sequence[str], target: Path) -> None:
    """Writes files below `tree`, sorted paths, as an archive; those that belong to inner archives go there."""
    names = {str(PurePosixPath(file).relative_to(archive.folder)): tree / file for file in files}
    if not archive.file.endswith((*TARS, *ZIPS)):
        shutil.copyfile(tree / archive.contents[0], target)
        return
    members: dict[str, Path | bytes] = dict(names)
    for inner in archive.inner:
        folder = PurePosixPath(inner).parent
        own = [name for name in names if _belongs(name, [str(PurePosixPath(inner).with_suffix(""))])]
        held = {str(PurePosixPath(name).relative_to(folder)): members.pop(name) for name in own}
        _write_zip(held, buffer := io.BytesIO())
        members[inner] = buffer.getvalue()
    with target.open("wb") as file:
        (_write_zip if archive.file.endswith(ZIPS) else _write_tar)(members, file)


def _write_tar(members: Mapping[str, Path | bytes], file: IO[bytes]) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in sorted(members.items()):
            content = content if isinstance(content, bytes) else content.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def _write_zip(members: Mapping[str, Path | bytes], file: IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in sorted(members.items()):
            content = content if isinstance(content, bytes) else content.read_bytes()
            entry = zipfile.ZipInfo(name)  # of the year 1980
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, content, compresslevel=1)
