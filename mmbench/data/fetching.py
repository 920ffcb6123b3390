"""Fetching the archives of a data set, and turning them into its folders.

An archive is checked before it is unpacked, unpacked beside its place, and moved there when it is whole. A process that
is killed leaves hidden folders and parts of files that the next one goes on with or removes, and nothing that could be
taken for data.
"""

import datetime
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from mmbench.core.download import SCHEMES, MissingAsset, download, one_line_when_full
from mmbench.core.files import locked, write_json
from mmbench.core.unpacking import ARCHIVES, unpack
from mmbench.data.archives import RECEIPT, Archive, Sums, checked


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
            return path, checked(archive, path, root, str(path), "correct the mirror, or leave out paths.mirror")
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
    download(origin, place, archive.size, lambda partial: found.append(checked(archive, partial, root, origin, remedy)))
    return found[0]


def _install(archive: Archive, path: Path, sums: Sums, root: Path) -> None:
    """Unpacks a checked archive beside its place, moves what it is to hold there, and writes that down."""
    inside = {content: str(PurePosixPath(content).relative_to(archive.folder)) for content in archive.contents}
    with _staging(root, archive) as staging, one_line_when_full(staging):
        if archive.file.endswith(ARCHIVES):
            members = unpack(path, archive.file, staging)
        else:
            (copy := staging / inside[archive.contents[0]]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            members = 1
        for name in archive.inner:
            inner = _located(staging, name, archive)
            members += unpack(inner, f"{archive.file}: {name}", inner.parent)
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
