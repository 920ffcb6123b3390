"""Weights that come from files: cards, downloads, the authors' keys, and strict loading."""

import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import mmbench
from mmbench.core.download import SCHEMES, MissingAsset, download
from mmbench.core.files import locked, sha256_file, write_text, written_atomically

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

    Raises:
        ValueError: the member's path would lead out of the archive's folder.
    """

    file: str
    sha256: str | None
    origin: str
    licence: str
    member: str | None = None

    def __post_init__(self) -> None:
        if self.member is not None:
            path = PurePosixPath(self.member)
            if path.is_absolute() or ".." in path.parts or "\\" in self.member or not path.parts:
                raise ValueError(f"expected a member inside {self.file}, found {self.member!r}: correct the card")

    @property
    def name(self) -> str:
        """The wanted file in words."""
        return f"{self.member} of {self.file}" if self.member else self.file

    def path(self, assets: str | Path) -> Path:
        """Where the wanted file lies, if it is there."""
        archive = self.archive(assets)
        return archive.parent / self.member if self.member else archive

    def archive(self, assets: str | Path) -> Path:
        """Where what is fetched lies: the archive, or the wanted file itself."""
        if self.origin == PACKAGE:
            return Path(mmbench.__file__).parent / self.file
        return Path(assets).expanduser() / "weights" / self.file


@dataclass(frozen=True)
class KeyMap:
    """How a state dict in the authors' layout becomes one in ours. Applied in the order of the attributes.

    Patterns are regular expressions that must match a whole key. A prefix `module.` on every key, which DataParallel
    writes, is removed before anything else.

    Attributes:
        alias: (key, key) pairs that the authors list twice; they must be equal, the first is dropped.
        drop: pattern to reason, for what our network does not need.
        rename: ordered pattern to replacement (with \\1 groups); the first that matches applies, a key that matches
            none keeps its name.
        merge: our key to (our-side partial keys, function of their tensors): several of theirs make one of ours.
        convert: pattern on our key to a function of the tensor.
        fill: pattern on our keys to the value that old checkpoints lack (`num_batches_tracked`: 0).
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    drop: Mapping[str, str] = field(default_factory=dict)
    convert: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    merge: Mapping[str, tuple[Sequence[str], Callable[..., Tensor]]] = field(default_factory=dict)
    fill: Mapping[str, float] = field(default_factory=dict)
    alias: Sequence[tuple[str, str]] = ()

    def __call__(self, authors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        """The authors' state dict under the keys of `network`.

        Raises:
            ValueError: an alias pair is incomplete or differs, two keys are renamed to one, or a merge lacks a part.
        """
        wrapped = all(key.startswith("module.") for key in authors)
        state = {key.removeprefix("module.") if wrapped else key: value for key, value in authors.items()}
        for first, second in self.alias:
            if absent := [key for key in (first, second) if key not in state]:
                raise ValueError(f"expected {first} and {second}, one tensor listed twice, found no {absent[0]}")
            if not torch.equal(state[first], state[second]):
                raise ValueError(f"expected {first} and {second} to be one tensor listed twice, found them to differ")
            del state[first]
        state = {key: value for key, value in state.items() if not _first_match(self.drop, key)}
        ours: dict[str, Tensor] = {}
        for key, value in state.items():
            renamed = self.name(key)
            if renamed in ours:
                raise ValueError(f"expected one source for {renamed}, found a second one, {key}: correct the key map")
            ours[renamed] = value
        for key, (parts, function) in self.merge.items():
            absent = [part for part in parts if part not in ours]
            if absent:
                raise ValueError(f"expected {', '.join(parts)} to make {key}, found no {', '.join(absent)}")
            ours[key] = function(*(ours.pop(part) for part in parts))
        for key in ours:
            if pattern := _first_match(self.convert, key):
                ours[key] = self.convert[pattern](ours[key])
        for key, tensor in network.state_dict().items():
            if key not in ours and (pattern := _first_match(self.fill, key)):
                ours[key] = torch.full_like(tensor, self.fill[pattern])
        return ours

    def name(self, key: str) -> str:
        """Our name of one of the authors' keys, before any merge."""
        for pattern, replacement in self.rename.items():
            if match := re.fullmatch(pattern, key):
                return match.expand(replacement)
        return key


def _first_match(patterns: Mapping[str, Any], key: str) -> str | None:
    return next((pattern for pattern in patterns if re.fullmatch(pattern, key)), None)


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Fills `network` with `state`; every key and every shape must fit, in both directions.

    Raises:
        ValueError: one line that names `source`, how many keys are missing, unexpected or of another shape, and the
            first of each.
    """
    wanted = network.state_dict()
    problems = []
    if missing := sorted(wanted.keys() - state.keys()):
        problems.append(f"{len(missing)} missing (first {missing[0]})")
    if unexpected := sorted(state.keys() - wanted.keys()):
        problems.append(f"{len(unexpected)} unexpected (first {unexpected[0]})")
    for key in sorted(wanted.keys() & state.keys()):
        if wanted[key].shape != state[key].shape:
            found, expected = tuple(state[key].shape), tuple(wanted[key].shape)
            problems.append(f"{key} has shape {found} instead of {expected}")
            break
    if problems:
        raise ValueError(
            f"{source}: expected the weights of {type(network).__name__}, found {'; '.join(problems)}: "
            "use the file that its card names, or the configuration that the file was made with"
        )
    network.load_state_dict(dict(state), strict=True)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Reads a state dict from a safetensors file or a PyTorch file of any age that holds tensors only.

    PyTorch files are pickles; whatever is no tensor is refused before it is built, so that a file cannot run code.

    Raises:
        ValueError: there is no file, it holds something else, or it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a file of weights, found none: put it there or correct the path")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except Exception as error:  # safetensors raises its own class, which is no subclass of a public one
            raise ValueError(f"{path}: expected a safetensors file, found {error}: fetch it again") from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever a damaged file provokes
        found, remedy = _refusal(error)
        raise ValueError(f"{path}: expected a PyTorch file of tensors only, found {found}: {remedy}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"{path}: expected a mapping of names to tensors, found {_description(state)}: save its state dict alone"
        )
    return dict(state)


def _refusal(error: Exception) -> tuple[str, str]:
    """What torch.load objected to, and the remedy; its own text advises to switch the protection off."""
    if match := re.search(r"[Uu]nsupported (?:global: )?GLOBAL ([\w.]+)", str(error)):
        return f"a pickle that also needs {match[1]}", "save its state dict alone, with code you trust"
    return "a damaged file or one of another kind", "fetch it again"


def _description(state: Any) -> str:
    if not isinstance(state, Mapping):
        return type(state).__name__
    other = next(key for key, value in state.items() if not isinstance(value, Tensor))
    return f"{other!r} of type {type(state[other]).__name__} among them"


def find(card: Card, assets: str | Path, fetch: bool = True) -> Path:
    """The checked file of a card, fetched and unpacked first if it is not there.

    It lies in the package where its origin is `mmbench`, else below `assets`/weights.

    A file is checked against the card's hash each time it is found, and before it takes its name when it is fetched.
    Where nobody has published a hash, that of the first file found is recorded beside it (`<file>.sha256`, as
    `sha256sum -c` reads it), and another file is refused from then on.

    Raises:
        MissingAsset: the file is not there and could not be fetched; says which file, from where, which hash, where to
            put it.
        ValueError: the file is there with another hash, or its archive does not hold it.
    """
    path = card.path(assets)
    if not path.is_file():
        wanted = f"expected {card.name} (sha256 {card.sha256 or 'unpublished'}, from {card.origin}) at {path}"
        archive = card.archive(assets)
        if not archive.is_file():
            if not fetch or not card.origin.startswith(SCHEMES):
                raise MissingAsset(f"{wanted}, found no file: put it there; data.source=toy needs none")
            _fetch(card, archive, wanted)
        if card.member:
            _unpack(card, archive, path)
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
        try:
            download(card.origin, archive, check=lambda partial: _check(card, partial, wanted))
        except OSError as error:
            raise MissingAsset(
                f"{wanted}, found no file and could not fetch it ({error}): put it there; data.source=toy needs none"
            ) from None


def _check(card: Card, partial: Path, wanted: str) -> None:
    """What was fetched, before it takes its name."""
    if card.sha256 and not card.member and not (found := sha256_file(partial)).startswith(card.sha256):
        raise MissingAsset(
            f"{wanted}, its origin gives a file with sha256 {found}: put the right one there; "
            "data.source=toy needs none"
        )


def _unpack(card: Card, archive: Path, path: Path) -> None:
    """Writes the member of the archive that the card names to `path`, and nothing else."""
    assert card.member is not None
    with locked(path):
        if path.is_file():  # another run was faster
            return
        remedy = f"remove it to fetch it again from {card.origin}, or put the file at {path}"
        try:
            with zipfile.ZipFile(archive) as held:
                entry = next((one for one in held.infolist() if one.filename == card.member), None)
                if entry is None:
                    others = sorted(one.filename for one in held.infolist() if not one.is_dir())
                    listed = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
                    raise ValueError(f"{archive}: expected {card.member} in it, found {listed or 'nothing'}: {remedy}")
                if entry.file_size > MAX_MEMBER:
                    raise ValueError(
                        f"{archive}: expected at most {MAX_MEMBER} bytes in {card.member}, found {entry.file_size}: "
                        f"{remedy}"
                    )
                # The archive decides about the bytes and not about the path; reading stops at the size it states.
                with held.open(entry) as source, written_atomically(path) as partial, partial.open("wb") as target:
                    shutil.copyfileobj(source, target)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
            found = " ".join(str(error).split())
            raise ValueError(f"{archive}: expected a zip archive with {card.member}, found {found}: {remedy}") from None
