"""Folders of images that anybody made: what is in them, and what is wrong with them before one is scored."""

import csv
import json
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from mmbench.core.files import sha256_file, sha256_json

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
SHOWN = 20  # problems that an error names


@dataclass(frozen=True)
class Folder:
    """Image files by name: the path below the folder, without extension."""

    what: str
    files: dict[str, Path]

    @classmethod
    def read(cls, what: str, path: Path) -> "Folder":
        """Lists a folder.

        Raises:
            ValueError: it is no folder, holds no image, or two of one name.
        """
        if not path.is_dir():
            raise ValueError(f"expected a folder or a zip archive for {what}=, found {path}: correct the path")
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        names = [file.relative_to(path).with_suffix("").as_posix() for file in found]
        if not names:
            raise ValueError(f"expected images in {what}={path}, found none of {', '.join(sorted(SUFFIXES))}")
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"expected one image of each name in {what}={path}, found {twice[0]} twice: remove one")
        return cls(what, dict(zip(names, found, strict=True)))

    def sha256(self) -> str:
        """Identity of the images: of all names and contents."""
        return sha256_json({name: sha256_file(file) for name, file in self.files.items()})


@contextmanager
def opened(paths: Mapping[str, str]) -> Iterator[dict[str, Folder]]:
    """The folders of the command line, zip archives unpacked for as long as they are wanted."""
    with tempfile.TemporaryDirectory(prefix="mmbench-score-") as unpacked:
        found = {}
        for what, text in paths.items():
            path = Path(text).expanduser()
            if path.is_file():
                if not zipfile.is_zipfile(path):
                    raise ValueError(f"expected a folder or a zip archive for {what}=, found {path}: correct the path")
                with zipfile.ZipFile(path) as archive:
                    # The standard library removes `..` and roots from the names, and writes links as plain files.
                    archive.extractall(Path(unpacked) / what)
                path = Path(unpacked) / what
            found[what] = Folder.read(what, path)
        yield found


def read_captions(path: Path) -> dict[str, str]:
    """Name to caption, of a JSON object or of a table of two columns without a header.

    Raises:
        ValueError: the file holds something else, or one name twice.
    """
    wanted = f"{path}: expected {{name: text}} in .json, or name and text in each line of .csv or .tsv"
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            pairs = list(json.loads(text).items())
        else:
            pairs = [
                tuple(row) for row in csv.reader(text.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ",")
            ]
    except FileNotFoundError:
        raise ValueError(f"{wanted}, found no file: correct the path") from None
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{wanted}, found {type(error).__name__}: correct the file") from None
    if bad := [pair for pair in pairs if len(pair) != 2 or not isinstance(pair[1], str) or not pair[1].strip()]:
        raise ValueError(f"{wanted}, found {bad[0]!r}: correct the file")
    captions = {
        str(Path(name).with_suffix("")) if Path(name).suffix.lower() in SUFFIXES else name: text for name, text in pairs
    }
    if len(captions) < len(pairs):
        raise ValueError(f"{wanted}, each name once, found one twice: correct the file")
    return captions


@dataclass
class Problems:
    """What is wrong with single images, gathered so that all of it can be said at once."""

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
            f"expected images that can be scored, found {len(self.found)} that cannot ({named}{more}): mend them, or "
            f"set skip_bad={len(self.found)} to leave them out"
        )


def inspect(
    found: Mapping[str, Folder], paired: Sequence[str], captions: Mapping[str, str] | None, size: int | None
) -> Problems:
    """What names and headers of the files show: missing partners, sizes, modes. Damage inside shows in reading."""
    problems = Problems()
    fake = found["fake"]
    for what in paired:
        for name in fake.files.keys() - found[what].files.keys():
            problems.add(name, f"no {what} image")
    if "input" in found:  # a reference set may be larger; an input without an output is an output that is missing
        for name in found["input"].files.keys() - fake.files.keys():
            problems.add(name, "no generated image")
    if captions is not None:
        for name in fake.files.keys() - captions.keys():
            problems.add(name, "no caption")
    headers = {what: _headers(folder, problems) for what, folder in found.items()}
    modes = Counter(mode for _, mode in headers["fake"].values())
    sizes = Counter(shape for shape, _ in headers["fake"].values())
    if not modes:
        return problems
    mode, shape = modes.most_common(1)[0][0], sizes.most_common(1)[0][0]
    for name, (own_shape, own_mode) in headers["fake"].items():
        if own_mode != mode:
            problems.add(name, f"mode {own_mode} where most are {mode}")
        if own_shape != shape:
            problems.add(name, f"{_by(own_shape)} pixels where most are {_by(shape)}")
    for what in set(found) - {"fake"}:
        for name, (own_shape, _) in headers[what].items():
            if size is None and own_shape != shape and (what not in paired or name in fake.files):
                problems.add(
                    name if what in paired else f"{what}/{name}",
                    f"{what} image of {_by(own_shape)} pixels where generated ones are {_by(shape)} (size=N resizes)",
                )
    return problems


def _headers(folder: Folder, problems: Problems) -> dict[str, tuple[tuple[int, int], str]]:
    headers = {}
    for name, file in folder.files.items():
        try:
            with Image.open(file) as image:
                headers[name] = image.size, image.mode
        except (OSError, SyntaxError, Image.DecompressionBombError):
            problems.add(name if folder.what == "fake" else f"{folder.what}/{name}", f"{file.name} is no image")
    return headers


def _by(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"
