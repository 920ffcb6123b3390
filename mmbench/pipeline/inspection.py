"""What anybody made, in folders or tables: what is in them, and what is wrong with them before one is scored."""

import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmbench.core.files import sha256_bytes, sha256_file, sha256_json
from mmbench.core.outputs import IMAGES, MODE, PIXELS, Output, require_word
from mmbench.pipeline.captions import read_table

SHOWN = 20  # problems that an error names


@dataclass(frozen=True)
class Folder:
    """Files of one output by name: the path below the folder, without extension."""

    what: str
    files: dict[str, Path]
    output: Output = IMAGES

    @classmethod
    def read(cls, what: str, path: Path, output: Output = IMAGES) -> "Folder":
        """Lists a folder.

        Raises:
            ValueError: it is no folder, holds none of what is wanted, or two of one name.
        """
        if not path.is_dir():
            raise _no_source(what, path, output)
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in output.suffixes and file.is_file())
        names = [file.relative_to(path).with_suffix("").as_posix() for file in found]
        if not names:
            raise ValueError(
                f"expected {output.name} in {what}={path}, found none of {', '.join(sorted(output.suffixes))}"
            )
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(
                f"expected one {output.one} of each name in {what}={path}, found {twice[0]} twice: remove one"
            )
        return cls(what, dict(zip(names, found, strict=True)), output)

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

    def sha256(self) -> str:
        """Identity: of all names and contents."""
        return sha256_json({name: sha256_file(file) for name, file in self.files.items()})


@dataclass(frozen=True)
class Table:
    """What one file says of each name: a text, or a list of them."""

    what: str
    texts: dict[str, Any]

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
def opened(paths: Mapping[str, str], outputs: Mapping[str, Output]) -> Iterator[dict[str, Source]]:
    """What the command line names, zip archives unpacked for as long as they are wanted.

    Args:
        paths: what it is called to a folder, a zip archive or a table.
        outputs: what is in those that hold no images.
    """
    with tempfile.TemporaryDirectory(prefix="mmbench-score-") as unpacked:
        found: dict[str, Source] = {}
        for what, text in paths.items():
            path, output = Path(text).expanduser(), outputs.get(what, IMAGES)
            if path.is_file() and path.suffix.lower() in output.tables:
                found[what] = Table(what, read_table(path, "name: text", lambda value: isinstance(value, str)))
                continue
            if path.is_file():
                if not zipfile.is_zipfile(path):
                    raise _no_source(what, path, output)
                with zipfile.ZipFile(path) as archive:
                    # The standard library removes `..` and roots from the names, and writes links as plain files.
                    archive.extractall(Path(unpacked) / what)
                path = Path(unpacked) / what
            found[what] = Folder.read(what, path, output)
        yield found


def _no_source(what: str, path: Path, output: Output) -> ValueError:
    tables = f", or a table ({', '.join(sorted(output.tables))})" if output.tables else ""
    return ValueError(f"expected a folder or a zip archive{tables} for {what}=, found {path}: correct the path")


@dataclass
class Problems:
    """What is wrong with single ones of an output, gathered so that all of it can be said at once."""

    output: Output
    found: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, problem: str) -> None:
        self.found.setdefault(name, problem)

    def require(self, allowed: int) -> None:
        """Raises ValueError if there are more than may be left out; names them."""
        if len(self.found) <= allowed:
            return
        named = "; ".join(f"{name}: {problem}" for name, problem in sorted(self.found.items())[:SHOWN])
        more = f"; and {len(self.found) - SHOWN} more" if len(self.found) > SHOWN else ""
        raise ValueError(
            f"expected {self.output.name} that can be scored, found {len(self.found)} that cannot ({named}{more}): "
            f"mend them, or set skip_bad={len(self.found)} to leave them out"
        )


def inspect(output: Output, found: Mapping[str, Source], compared: Sequence[Source], size: int | None) -> Problems:
    """What names and headers of the files show: missing partners, sizes, modes. Damage inside shows in reading.

    Args:
        output: what is generated.
        found: what it is called to what the command line names; `fake` is generated.
        compared: what each generated one needs a partner in.
        size: what others than the generated ones will be resized to.
    """
    problems = Problems(output)
    fake = found["fake"].names
    for source in compared:
        for name in fake - source.names:
            problems.add(name, f"no {source.one}")
    if "input" in found:  # a reference set may be larger; an input without an output is an output that is missing
        for name in found["input"].names - fake:
            problems.add(name, f"no generated {output.one}")
    paired = {source.what for source in compared}
    looks = {what: _looks(source, problems) for what, source in found.items()}
    if not looks["fake"]:
        return problems
    usual = _usual(looks["fake"].values())
    for name, look in looks["fake"].items():
        for phrase, value in look.items():
            if value != usual[phrase]:
                problems.add(name, f"{phrase.format(value)} where most are {usual[phrase]}")
    for what in found.keys() - {"fake"}:
        seen = {name: look for name, look in looks[what].items() if what not in paired or name in fake}
        _inspect_others(found[what], seen, usual, what in paired, size, problems)
    return problems


def _inspect_others(
    source: Source,
    looks: Mapping[str, Mapping[str, str]],
    generated: Mapping[str, str],
    paired: bool,
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
                name if paired else f"{source.what}/{name}",
                f"{source.one} of {phrase.format(value)} where {ones} are {usual[phrase]}{remedy}",
            )


def _looks(source: Source, problems: Problems) -> dict[str, dict[str, str]]:
    looks = {}
    for name in source.names:
        try:
            looks[name] = source.look(name)
        except ValueError as error:
            problems.add(name if source.what == "fake" else f"{source.what}/{name}", str(error))
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
    return dict(sorted(kinds.items()))
