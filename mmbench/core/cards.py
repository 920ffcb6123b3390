"""Cards: where a file of weights comes from, how to know that it is the right one, and fetching it."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import mmbench
from mmbench.core.download import SCHEMES, MissingAsset, announced, download, is_wanted, length, size_told
from mmbench.core.files import locked, sha256_file, write_text
from mmbench.core.unpacking import extract, leads_out

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "mmbench"  # origin of the files that come with the package; their paths are relative to it
MAX_MEMBER = 4 * 2**30  # bytes; more in one member of an archive is taken for an attack


@dataclass(frozen=True)
class Card:
    """Where a file of weights comes from and how to know that it is the right one.

    Attributes:
        file: file name below `paths.assets`/weights, or an absolute path; below the package where the origin is
            `mmbench`.
        sha256: hexadecimal digest, or its first digits where the publisher states only those; None where nobody has
            published one. Of the member, where there is one.
        origin: URL, or `gdrive:<id>`, or `mmbench` for a file that comes with the package, or in words where the file
            cannot be fetched by a program.
        licence: terms of use, in a few words.
        member: where `file` is a zip archive, the path inside it of the file that is wanted; it lies unpacked under
            this path beside the archive.
        entry: where the file holds more than one state dict, the keys that lead to the wanted one, with dots between.
        prefix: where the state dict is of several networks, the start of the wanted one's keys, which they lose
            (`first_stage_model.`).
        averaged: whether the averages over training beside the weights are wanted (`weights.with_averages`).
        size: bytes of what is fetched; None where nobody states them, and the server is asked.

    Raises:
        ValueError: the member's path would lead out of the archive's folder.
    """

    file: str
    sha256: str | None
    origin: str
    licence: str
    member: str | None = None
    entry: str | None = None
    prefix: str = ""
    averaged: bool = False
    size: int | None = None

    def __post_init__(self) -> None:
        if self.member is not None and (leads_out(self.member) or not PurePosixPath(self.member).parts):
            raise ValueError(f"expected a member inside {self.file}, found {self.member!r}: correct the card")

    @property
    def name(self) -> str:
        """The wanted file in words."""
        return f"{self.member} of {self.file}" if self.member else self.file

    def path(self, assets: str | Path) -> Path:
        """Where the wanted file lies, if it is there."""
        archive = self.archive(assets)
        return archive.parent / self.member if self.member else archive

    def state(self, path: str | Path) -> "dict[str, Tensor]":
        """The wanted state dict, under the authors' keys, of the file that lies at `path`.

        Raises:
            ValueError: as `weights.read_state`.
        """
        from mmbench.core.weights import read_state  # PyTorch is not imported where cards are listed

        return read_state(path, self.entry, self.prefix, self.averaged)

    def archive(self, assets: str | Path) -> Path:
        """Where what is fetched lies: the archive, or the wanted file itself."""
        if self.origin == PACKAGE:
            return Path(mmbench.__file__).parent / self.file
        return Path(assets).expanduser() / "weights" / self.file

    @property
    def digest(self) -> str:
        """The hash in words."""
        return f"sha256 {self.sha256}" if self.sha256 else "hash not known: the file's own will be recorded"

    def wanted(self, assets: str | Path) -> str:
        """The wanted file with its size, hash, origin, terms of use and place, in words."""
        return (
            f"expected {self.name} ({size_told(self.size)}; {self.digest}; from {self.origin}; terms: {self.licence}) "
            f"at {self.path(assets)}"
        )


class MissingNetwork(MissingAsset):
    """Weights that are not here and could not be fetched.

    Args:
        problem: what was expected and found, and where to put it.
        instead: the word that chooses networks which need no such file.
    """

    def __init__(self, problem: str, instead: str = "data.source=toy") -> None:
        super().__init__(f"{problem}; {instead} needs none")
        self.problem = problem


def absence(card: Card, assets: str | Path) -> str | None:
    """Why the file of a card is not at hand, in one line; None where it, or the archive it is in, lies in its place.

    No file is read, and none fetched.
    """
    if card.path(assets).is_file() or card.archive(assets).is_file():
        return None
    fetched = "; download=yes fetches it" if card.origin.startswith(SCHEMES) else ""
    return f"{card.wanted(assets)}, found no file: put it there{fetched}; data.source=toy needs none"


def find(card: Card, assets: str | Path) -> Path:
    """The checked file of a card, fetched and unpacked first if it is not there.

    Before anything is fetched it is said what, how large, with which hash, from where and under which terms, and
    whether it is to be is what `download=` says (`core/download.py`).

    It lies in the package where its origin is `mmbench`, else below `assets`/weights.

    A file is checked against the card's hash each time it is found, and before it takes its name when it is fetched.
    Where nobody has published a hash, that of the first file found is recorded beside it (`<file>.sha256`, as
    `sha256sum -c` reads it), and another file is refused from then on.

    Raises:
        MissingNetwork: the file is not there and was not, or could not be, fetched; says which one, its size, hash,
            origin, terms and place.
        ValueError: the file is there with another hash, or its archive does not hold it.
    """
    path = card.path(assets)
    if not path.is_file():
        wanted = card.wanted(assets)
        archive = card.archive(assets)
        if not archive.is_file():
            if not card.origin.startswith(SCHEMES):
                raise MissingNetwork(f"{wanted}, found no file: put it there")
            _fetch(card, archive, wanted)
        if card.member:
            with locked(path):
                if not path.is_file():  # another run may have been faster
                    remedy = f"remove it to fetch it again from {card.origin}, or put the file at {path}"
                    extract(archive, card.member, path, MAX_MEMBER, remedy)
    found = sha256_file(path)
    if card.sha256 is None:
        record = path.with_name(f"{path.name}.sha256")
        if found != (expected := _recorded(record, found)):
            raise ValueError(
                f"{path}: expected sha256 {expected}, recorded in {record.name} at its first use, found {found}: put "
                "the first file back, or remove both to take another"
            )
    elif not found.startswith(card.sha256):
        raise ValueError(
            f"{path}: expected sha256 {card.sha256}, found {found}: remove it and fetch it from {card.origin}"
        )
    return path


def _recorded(record: Path, found: str) -> str:
    """The hash in a file that stands for one that nobody published; `found` where there is none yet."""
    if not record.is_file():
        with locked(record):
            if not record.is_file():
                write_text(record, f"{found}  {record.stem}\n")
    return record.read_text(encoding="utf-8").partition(" ")[0]


def _fetch(card: Card, archive: Path, wanted: str) -> None:
    with locked(archive):
        if archive.is_file():  # another run was faster
            return
        if not is_wanted(lambda: _announced(card)):
            raise MissingNetwork(f"{wanted}, found no file: put it there, or fetch it by download=yes")
        try:
            download(card.origin, archive, check=lambda partial: _check(card, partial, wanted))
        except OSError as error:
            raise MissingNetwork(f"{wanted}, found no file and could not fetch it ({error}): put it there") from None


def _announced(card: Card) -> str:
    return announced(card.name, card.size or length(card.origin), card.origin, card.licence, f"; {card.digest}")


def _check(card: Card, partial: Path, wanted: str) -> None:
    """What was fetched, before it takes its name."""
    if card.sha256 and not card.member and not (found := sha256_file(partial)).startswith(card.sha256):
        raise MissingNetwork(f"{wanted}, its origin gives a file with sha256 {found}: put the right one there")
