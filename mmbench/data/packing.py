"""Packing a folder as the archives that it would be unpacked from: how toy data sets come to be like real ones."""

import gzip
import io
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO

from mmbench.core.files import written_atomically
from mmbench.core.unpacking import ARCHIVES, ZIPS
from mmbench.data.archives import Archive, sums_of


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
        sums = sums_of(path)
        made.append(replace(archive, origin="made here", size=sums.size, sha256=sums.sha256, md5=None))
    if stray := sorted(set(files) - claimed):
        raise ValueError(f"{tree / stray[0]}: expected it among the contents of an archive, found it in none: list it")
    return made


def _belongs(file: str, contents: Iterable[str]) -> bool:
    return any(file == content or file.startswith(f"{content}/") for content in contents)


def _pack(tree: Path, archive: Archive, files: Sequence[str], target: Path) -> None:
    """Writes files below `tree`, sorted paths, as an archive; those that belong to inner archives go there."""
    names = {str(PurePosixPath(file).relative_to(archive.folder)): tree / file for file in files}
    if not archive.file.endswith(ARCHIVES):
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
