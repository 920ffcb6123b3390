"""The archives that data sets are published as: where they are, how to know them, and what is written down of them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmbench.core.download import BLOCK, size_told, transfer_bar

RECEIPT = ".receipt.json"


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
        digest = f"sha256 {self.sha256}" if self.sha256 else f"md5 {self.md5}" if self.md5 else "sum unpublished"
        return f"{self.file} ({size_told(self.size)}, {digest}) from {self.origin}"


class Sums(NamedTuple):
    """What a file is known by: bytes, and hexadecimal digests."""

    size: int
    md5: str
    sha256: str


def lacking(path: Path, remedy: str, found: str = "none") -> str:
    """What to say of a file or folder of a data set that is not there: "found none" and how to help it.

    An archive that was unpacked inside a folder of its own name is known by that.

    Args:
        path: where it should be.
        remedy: what helps otherwise, "unpack the archive again" say.
        found: what is there, in words.
    """
    for folder in path.parents:
        if (nested := folder / folder.name).is_dir() and not path.is_relative_to(nested):
            return f"found {found} (found {folder.name}/{nested.name}/...): move that up one folder"
    return f"found {found}: {remedy}"


def receipts(root: Path) -> dict[str, dict[str, Any]]:
    """What is written down of the archives that were unpacked below `root`, by file name: size, sums, date, members.

    Raises:
        ValueError: a file of it is damaged; names it.
    """
    return {path.name.removesuffix(RECEIPT): _receipt(path) for path in sorted((root / "archives").glob(f"*{RECEIPT}"))}


def _receipt(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(found.get(key), str) for key in ("md5", "sha256")):
        raise ValueError(
            f"{path}: expected what was written down of an archive, found a damaged file: remove it, and the archive "
            "is taken for the first one"
        )
    return found


def checked(archive: Archive, path: Path, root: Path, name: str = "", remedy: str = "") -> Sums:
    """The sums of a file that is to be an archive of the data set below `root`.

    Args:
        name: what errors call the file; its path by default.
        remedy: what errors advise; to fetch it again by default.

    Raises:
        ValueError: it has another size or sum than it should, or than the first one had where nobody published any.
    """
    name, remedy = name or str(path), remedy or f"remove it to fetch it again from {archive.origin}"
    size = path.stat().st_size
    if archive.size is not None and size != archive.size:
        raise ValueError(f"{name}: expected {archive.size:,} bytes in {archive.file}, found {size:,}: {remedy}")
    sums = sums_of(path)
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


def sums_of(path: Path) -> Sums:
    """Size and digests of a file; a bar on a terminal shows how far it is."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file, transfer_bar(f"checking {path.name}") as report:
        while block := file.read(BLOCK):
            md5.update(block)
            sha256.update(block)
            report(file.tell(), size)
    return Sums(size, md5.hexdigest(), sha256.hexdigest())
