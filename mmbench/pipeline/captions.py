"""Files of captions as people have them: a text of each name."""

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any
from unicodedata import normalize

from mmbench.core.outputs import OUTPUTS

SUFFIXES = frozenset[str]().union(*(output.suffixes for output in OUTPUTS.values()))
# Byte order marks of what is no UTF-8; those of UTF-32 first, since one of them begins as one of UTF-16 does.
OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip
HEADERS = (
    frozenset({"name", "file", "file_name", "filename", "image", "image_name", "id", "path"}),
    frozenset({"caption", "captions", "text", "texts", "prompt", "sentence", "description"}),
)


def read_captions(path: Path) -> dict[str, str]:
    """Name to caption; of which files, says `read_table`.

    Raises:
        ValueError: as `read_table`.
    """
    return read_table(path, "name: text", _is_text)


def read_references(path: Path) -> dict[str, list[str]]:
    """Name to all that people wrote of it; as `read_captions`, where a value of a JSON object may be a list of texts.

    Raises:
        ValueError: as `read_table`.
    """
    found = read_table(
        path,
        "name: text or list of texts",
        lambda value: _is_text(value) or (isinstance(value, list) and bool(value) and all(map(_is_text, value))),
    )
    return {name: [value] if isinstance(value, str) else value for name, value in found.items()}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def read_table(path: Path, entry: str, is_value: Callable[[Any], bool]) -> dict[str, Any]:
    """Name, without an extension, to value, of a JSON object or of a table of two columns without a header.

    All are UTF-8, with or without a byte order mark. A .csv is quoted as spreadsheets quote; a quoted text may go over
    several lines. A row of a .tsv is a line, and quotes are part of a text, unless they enclose it as a spreadsheet
    puts them. Lines end with line feed, carriage return or both, and nothing else ends one; empty lines are no rows.

    Args:
        path: the file; what ends in neither .json nor .tsv is separated by commas.
        entry: what stands there for each name, in words.
        is_value: tells a value that may stand there.

    Raises:
        ValueError: the file is missing, in another encoding, or holds something else, or one name twice; says what was
            found, of a table in which line.
    """
    wanted = f"{path}: expected {{{entry}}} in .json, or name and text in each line of .csv or .tsv"
    text = _decoded(path, f"{wanted}, in UTF-8")
    reader = {".json": _of_json, ".tsv": _of_tsv}.get(path.suffix.lower(), _of_csv)
    found: dict[str, Any] = {}
    places: dict[str, str] = {}
    for place, row in reader(text, wanted):
        if len(row) != 2 or not is_value(row[1]) or not row[0].strip() or _has_surrogate(row):
            raise ValueError(f"{wanted}, found {_shown(row)} in {place}: correct the file")
        if not places and reader is not _of_json and _is_header(row):
            raise ValueError(f"{wanted}, without a header, found {','.join(row)} in {place}: remove that line")
        name = _name(row[0])
        if name in found:
            raise ValueError(
                f"{wanted}, each name once, found {name!r} twice, in {places[name]} and {place} (names count without "
                "extension): remove one"
            )
        found[name], places[name] = row[1], place
    if not found:
        raise ValueError(f"{wanted}, found none: correct the file")
    return found


def _decoded(path: Path, wanted: str) -> str:
    if path.is_dir():
        raise ValueError(f"{wanted}, found a folder: name a file in it")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{wanted}, found no file: correct the path") from None
    except OSError as error:
        raise ValueError(f"{wanted}, found {error.strerror}: correct the path") from None
    for mark, encoding in OTHER_ENCODINGS.items():
        if content.startswith(mark):
            raise ValueError(f"{wanted}, found {encoding}: save it as UTF-8")
    if b"\0" in content[:2]:
        raise ValueError(f"{wanted}, found UTF-16 without a byte order mark: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte {content[error.start]:#04x} at {error.start}"
        raise ValueError(f"{wanted}, found UnicodeDecodeError ({found}): save it as UTF-8") from None


def _of_json(text: str, wanted: str) -> Iterator[tuple[str, list[Any]]]:
    """Entries of a JSON object, those of one name each by itself."""
    try:
        found = json.loads(text, object_pairs_hook=lambda pairs: tuple(map(list, pairs)))
    except (ValueError, RecursionError) as error:
        if _is_json_lines(text):
            raise ValueError(f"{wanted}, found JSON Lines, one object in each line: write one object") from None
        raise ValueError(f"{wanted}, found no JSON ({error}): correct the file") from None
    if not isinstance(found, tuple):
        kind = "a list" if isinstance(found, list) else f"{found!r}"
        raise ValueError(f"{wanted}, found {kind}, no object: write one object, {{name: text}}")
    for number, pair in enumerate(found, 1):
        yield f"entry {number}", pair


def _is_json_lines(text: str) -> bool:
    first = text.lstrip().partition("\n")[0].strip()
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _of_tsv(text: str, wanted: str) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if line.strip():
            yield f"line {number}", [_unquoted(field) for field in line.split("\t")]


def _unquoted(field: str) -> str:
    """A field without the quotes that a spreadsheet puts around one, where it doubles those inside."""
    inner = field[1:-1].replace('""', "")
    is_enclosed = len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner
    return field[1:-1].replace('""', '"') if is_enclosed else field


def _of_csv(text: str, wanted: str) -> Iterator[tuple[str, list[str]]]:
    if _is_json_lines(text):
        raise ValueError(f"{wanted}, found JSON Lines, one object in each line: write one object into a .json")
    rows = csv.reader(StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for row in rows:
            if any(field.strip() for field in row):
                yield f"line {line}", row
            line = rows.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{wanted}, found a row that is no CSV from line {line} on ({error}): correct it") from None


def _is_header(row: list[Any]) -> bool:
    """Whether the first line of a table names its columns, as no file of pictures is called."""
    return all(word.strip().lower() in known for word, known in zip(row, HEADERS, strict=True))


def _name(name: str) -> str:
    """As a folder names its files: composed (NFC), without the extension of what can be scored."""
    path = Path(normalize("NFC", name))
    return str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else normalize("NFC", name)


def _has_surrogate(row: Sequence[Any]) -> bool:
    """Whether half a character is in a name or a text, as an escape of JSON can write it, and no file can hold it."""
    texts = [row[0], *([row[1]] if isinstance(row[1], str) else row[1])]
    return any("\ud800" <= letter <= "\udfff" for text in texts for letter in text)


def _shown(row: Sequence[Any]) -> str:
    try:
        text = repr(tuple(row))
    except RecursionError:
        text = f"{type(row[-1]).__name__}s within each other"
    return text if len(text) <= 100 else f"{text[:97]}..."
