"""What anybody made, in folders or tables: what is in them, and what is wrong with them before one is scored."""

import os
import re
import tempfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mmbench.core.download import DiskFull
from mmbench.core.files import sha256_bytes, sha256_file, sha256_json
from mmbench.core.outputs import IMAGES, MODE, PIXELS, Output, in_words, require_word
from mmbench.core.unpacking import ARCHIVES, TARS, ZIPS, unpack_zip
from mmbench.pipeline.captions import read_table
from mmbench.pipeline.listing import listed

ARRAYS = (".npz", ".npy")  # NumPy's; the first is a zip archive
PACKED = frozenset({*TARS, ".gz", ".bz2", ".xz", ".zst", ".tbz2", ".txz", ".7z", ".rar"})
SHOWN = 20  # problems that an error names
UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # no record or line of output can hold it


@dataclass(frozen=True)
class Folder:
    """Files of one output by name: the path below the folder, without extension, composed (NFC) as Unicode has it.

    Attributes:
        what: what the command line calls it.
        files: name to file.
        output: what the files hold.
        passed: kind of what else there is, and was not looked at, to its number.
    """

    what: str
    files: dict[str, Path]
    output: Output = IMAGES
    passed: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, what: str, path: Path, output: Output = IMAGES, origin: Path | None = None) -> "Folder":
        """Lists a folder, as `listing.listed`.

        Args:
            origin: the archive that it was unpacked from, which errors name.

        Raises:
            ValueError: it is no folder, holds none of what is wanted, or two of one name.
        """
        said = f"{what}={origin or path}"
        if not path.is_dir():
            raise _no_source(what, path, output)
        files, passed = listed(path, output.suffixes)
        if not files:
            others = "".join(f"; {kind}: {count}" for kind, count in passed.items())
            packed = any(suffix in kind for kind in passed for suffix in ARCHIVES)
            remedy = "unpack the archives that are in it first" if packed else "correct the path, or save them as one"
            suffixes = ", ".join(sorted(output.suffixes))
            raise ValueError(f"expected {output.name} in {said}, found none of {suffixes}{others}: {remedy}")
        named: dict[str, Path] = {}
        for file in files:
            below = file.relative_to(path)
            # Whatever the locale makes of the bytes.
            named_below = os.fsencode(below.with_suffix("").as_posix()).decode("utf-8", "surrogateescape")
            name = unicodedata.normalize("NFC", named_below)
            if UNSPEAKABLE.search(name):
                raise ValueError(
                    f"expected names in UTF-8 and without line ends in {said}, found {os.fsencode(below)!r}: rename it"
                )
            if name in named:
                first = named[name].relative_to(path)
                raise ValueError(
                    f"expected one {output.one} of each name in {said}, found {name} twice: {first.as_posix()!a} and "
                    f"{below.as_posix()!a}: remove one"
                )
            named[name] = file
        return cls(what, named, output, passed)

    def without_top(self) -> "Folder":
        """The same, where all lie in one folder below this one without that folder in their names."""
        tops = {name.partition("/")[0] if "/" in name else None for name in self.files}
        if len(tops) > 1 or None in tops:
            return self
        return replace(self, files={name.partition("/")[2]: file for name, file in self.files.items()})

    def without(self, names: Collection[str]) -> "Folder":
        """The same without some of its files."""
        return replace(self, files={name: file for name, file in self.files.items() if name not in names})

    @property
    def one(self) -> str:
        """What one of them is called."""
        return f"{self.what} {self.output.one}"

    @property
    def names(self) -> Set[str]:
        """Of all that are there."""
        return self.files.keys()

    def item(self, name: str) -> Any:
        """One of them, as metrics see it.

        Raises:
            ValueError: it is damaged.
        """
        return self.output.judged(self.output.read(self.files[name]))

    def look(self, name: str) -> dict[str, str]:
        """As `Output.look`."""
        return self.output.look(self.files[name])

    @cached_property
    def digests(self) -> dict[str, str]:
        """Name to SHA-256 of its file; each file is read once."""
        return {name: sha256_file(file) for name, file in self.files.items()}

    def sha256(self) -> str:
        """Identity: of all names and contents."""
        return sha256_json(self.digests)


@dataclass(frozen=True)
class Table:
    """What one file says of each name: a text, or a list of them."""

    what: str
    texts: dict[str, Any]
    passed: Mapping[str, int] = field(default_factory=dict)  # as a `Folder` has it; of a table all is looked at

    @property
    def one(self) -> str:
        """What one of them is called."""
        return self.what

    @property
    def names(self) -> Set[str]:
        """Of all that are there."""
        return self.texts.keys()

    def item(self, name: str) -> Any:
        """One of them."""
        return self.texts[name]

    def look(self, name: str) -> dict[str, str]:
        """As `Output.look` of texts."""
        require_word(self.texts[name])
        return {}

    def sha256(self) -> str:
        """Identity: that of a folder of the same texts."""
        return sha256_json({name: sha256_bytes(text.encode()) for name, text in sorted(self.texts.items())})


Source = Folder | Table


@contextmanager
def opened(
    paths: Mapping[str, str], outputs: Mapping[str, Output], captions: Table | None
) -> Iterator[dict[str, Source]]:
    """What the command line names, zip archives unpacked for as long as they are wanted.

    One common top folder of an archive is no part of its names, unless more of the others have such names than without.

    Args:
        paths: what it is called to a folder, a zip archive or a table.
        outputs: what is in those that hold no images.
        captions: what else has names.

    Raises:
        ValueError: there is no such thing, an archive is damaged, encrypted or out of proportion, or as `Folder.read`.
    """
    with tempfile.TemporaryDirectory(prefix="mmbench-score-") as unpacked:
        found: dict[str, Source] = {}
        bare: dict[str, Source] = {}  # of archives, without the top folder
        for what, text in paths.items():
            path, output = Path(text).expanduser(), outputs.get(what, IMAGES)
            if path.is_file() and path.suffix.lower() in output.tables:
                found[what] = Table(what, read_table(path, "name: text", lambda value: isinstance(value, str)))
                continue
            if path.is_file():
                if path.suffix.lower() in ARRAYS:
                    raise ValueError(
                        f"expected {output.name} as files for {what}=, found {path}, arrays of NumPy: save each as a "
                        "file, and name the folder"
                    )
                if path.suffix.lower() not in ZIPS and not zipfile.is_zipfile(path):
                    raise _no_source(what, path, output)
                folder = Path(unpacked) / what
                folder.mkdir()
                try:
                    unpack_zip(path, folder)
                except DiskFull:
                    raise ValueError(
                        f"{path}: expected room below {Path(unpacked).parent} to unpack it, found too little: make "
                        "room, or name a folder on another disk by TMPDIR"
                    ) from None
                held = Folder.read(what, folder, output, origin=path)
                found[what], bare[what] = held, held.without_top()
            else:
                found[what] = Folder.read(what, path, output)
        as_held = {"captions": captions, **found} if captions else found
        without = {**as_held, **bare}
        yield found | {
            what: source for what, source in bare.items() if _matches(what, without) >= _matches(what, as_held)
        }


def _matches(what: str, sources: Mapping[str, Source]) -> int:
    """How many other sources have names of this one."""
    return sum(not sources[what].names.isdisjoint(other.names) for key, other in sources.items() if key != what)


def _no_source(what: str, path: Path, output: Output) -> ValueError:
    tables = f", or a table ({', '.join(sorted(output.tables))})" if output.tables else ""
    if not path.exists():
        kind, remedy = "no such thing", "correct the path"
    elif path.suffix.lower() in output.suffixes:
        kind, remedy = f"one {output.one}", "name the folder that it is in"
    elif path.suffix.lower() in PACKED:
        kind, remedy = "an archive of another kind", "unpack it, and name the folder"
    else:
        kind, remedy = "another file", "correct the path"
    return ValueError(
        f"expected a folder or a zip archive{tables} for {what}=, found {path}, which is {kind}: {remedy}"
    )


@dataclass
class Problems:
    """What is wrong with single files, gathered so that all of it can be said at once; each file counts once.

    Attributes:
        output: what is scored.
        paired: what the sources are called that each generated one has a partner in.
        found: (what a source is called, name) to what is wrong with it.
        usual: how most of the generated ones look, as `Output.look` says it.
    """

    output: Output
    paired: Set[str] = frozenset()
    found: dict[tuple[str, str], str] = field(default_factory=dict)
    usual: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, name: str, problem: str) -> None:
        self.found.setdefault((what, name), problem)

    def of(self, what: str) -> set[str]:
        """Names of one source's files that something is wrong with."""
        return {name for source, name in self.found if source == what}

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of most of the generated ones; None where they have none."""
        width, _, height = self.usual.get(PIXELS, "").partition(" x ")
        return (int(width), int(height)) if width else None

    @property
    def spoilt(self) -> set[str]:
        """Names of what cannot be scored: something is wrong with it, or with a partner of it."""
        return set().union(*(self.of(what) for what in {"fake", *self.paired}))

    @property
    def said(self) -> dict[str, str]:
        """What is left out to why, sorted: the name of a generated one, or `real/05`."""
        named = {name if what == "fake" else f"{what}/{name}": why for (what, name), why in self.found.items()}
        return dict(sorted(named.items()))

    def require(self, allowed: int) -> None:
        """Raises ValueError if there are more than may be left out; names them."""
        if len(self.found) <= allowed:
            return
        named = "; ".join(f"{name}: {problem}" for name, problem in list(self.said.items())[:SHOWN])
        more = f"; and {len(self.found) - SHOWN} more" if len(self.found) > SHOWN else ""
        raise ValueError(
            f"expected {self.output.name} that can be scored, found {len(self.found)} that cannot ({named}{more}): "
            f"mend them, or set skip_bad={len(self.found)} to leave them out"
        )


def inspect(
    output: Output,
    found: Mapping[str, Source],
    compared: Sequence[Source],
    size: int | None,
    whole: Set[str] = frozenset(),
) -> Problems:
    """What names and headers of the files show: missing partners, sizes, modes. Damage inside shows in reading.

    Args:
        output: what is generated.
        found: what it is called to what the command line names; `fake` is generated.
        compared: what each generated one needs a partner in.
        size: what others than the generated ones will be resized to.
        whole: what those are called that all files of count, and not only partners: the reference set.

    Raises:
        ValueError: there is no partner for any of the generated ones, or `size` is not theirs.
    """
    problems = Problems(output, {source.what for source in compared})
    fake = found["fake"].names
    for source in compared:
        _require_common(output, found["fake"], source)
        for name in fake - source.names:
            problems.add("fake", name, f"no {source.one}")
    if "input" in found:  # a reference set may be larger; an input without an output is an output that is missing
        for name in found["input"].names - fake:
            problems.add("fake", name, f"no generated {output.one}")
    looks = {
        what: _looks(source, source.names if what in whole or what not in problems.paired else fake, problems)
        for what, source in found.items()
    }
    if not looks["fake"]:
        return problems
    usual = problems.usual = _usual(looks["fake"].values())
    for name, look in looks["fake"].items():
        for phrase, value in look.items():
            if value != usual[phrase]:
                problems.add("fake", name, f"{phrase.format(value)} where most are {usual[phrase]}")
    for what in found.keys() - {"fake"}:
        if what in problems.paired:
            _require_size(output, usual, looks[what], size)
        _inspect_others(found[what], looks[what], usual, size, problems)
    return problems


def _require_common(output: Output, fake: Source, source: Source) -> None:
    """Refuses names that have nothing to do with one another: that is one mistake, and not one of each file."""
    if not fake.names & source.names:
        raise ValueError(
            f"expected a {source.one} of the name of each generated {output.one}, found none for any: the first of "
            f"each are named {min(source.names)!r} and {min(fake.names)!r}: files belong together by path without "
            "extension"
        )


def _require_size(
    output: Output, generated: Mapping[str, str], looks: Mapping[str, Mapping[str, str]], size: int | None
) -> None:
    """Refuses a size for pictures that are compared one by one with generated ones of another size."""
    made = None if size is None else in_words((size, size))
    if made and PIXELS in generated and generated[PIXELS] != made and any(PIXELS in look for look in looks.values()):
        raise ValueError(
            f"expected pictures of one size to compare one by one, found two: size={size} makes {made}, generated "
            f"{output.name} are {generated[PIXELS]}: generate at {made}, or leave out size= and give pictures of "
            f"{generated[PIXELS]}"
        )


def _inspect_others(
    source: Source,
    looks: Mapping[str, Mapping[str, str]],
    generated: Mapping[str, str],
    size: int | None,
    problems: Problems,
) -> None:
    """Others are to be as the generated ones are; where those have no such thing, a size say, as most others are."""
    usual = _usual(looks.values()) | generated
    for name, look in looks.items():
        for phrase, value in look.items():
            if phrase == MODE or (phrase == PIXELS and size is not None) or value == usual[phrase]:
                continue
            ones = "generated ones" if phrase in generated else "most"
            remedy = " (size=N resizes)" if phrase == PIXELS else ""
            problems.add(
                source.what, name, f"{source.one} of {phrase.format(value)} where {ones} are {usual[phrase]}{remedy}"
            )


def _looks(source: Source, names: Set[str], problems: Problems) -> dict[str, dict[str, str]]:
    """How those of a source look that are among `names`."""
    looks = {}
    for name in source.names & names:
        try:
            looks[name] = source.look(name)
        except ValueError as error:
            problems.add(source.what, name, str(error))
    return looks


def _usual(looks: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """How most are, in each respect."""
    counts: dict[str, Counter[str]] = {}
    for look in looks:
        for phrase, value in look.items():
            counts.setdefault(phrase, Counter())[value] += 1
    return {phrase: count.most_common(1)[0][0] for phrase, count in counts.items()}


def noted(found: Mapping[str, Source]) -> dict[str, int]:
    """What somebody should know of how files are read or not: kind in a few words, to number of files.

    Each file counts once of each kind, under however many names the command line has it, and also where it is left out.
    """
    outputs = {
        file: source.output for source in found.values() if isinstance(source, Folder) for file in source.files.values()
    }
    kinds = Counter(kind for file, output in outputs.items() for kind in output.notes(file))
    for what, source in found.items():
        kinds.update({f"{kind} in {what}=, not looked at": count for kind, count in source.passed.items()})
    return dict(sorted(kinds.items()))


def alike(found: Mapping[str, Source], used: Set[str]) -> dict[str, int]:
    """Which generated files are copies of one another, or of what they are compared with: sentence to number.

    Args:
        used: what those others are called that a metric looks at.
    """
    folders = {what: source for what, source in found.items() if isinstance(source, Folder)}
    if "fake" not in folders:
        return {}
    one, digests = folders["fake"].output.one, list(folders["fake"].digests.values())
    copies = {"another of them": len(digests) - len(set(digests))}
    for what in sorted(folders.keys() & used - {"mask"}):
        there = set(folders[what].digests.values())
        copies[f"one of {what}="] = sum(digest in there for digest in digests)
    return {f"a generated {one} is, to the byte, {what}": count for what, count in copies.items() if count}
