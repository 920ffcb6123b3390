"""Files of captions as people have them: a text of each name."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

from mmbench.core.outputs import OUTPUTS

SUFFIXES = frozenset[str]().union(*(output.suffixes for output in OUTPUTS.values()))


def read_captions(path: Path) -> dict[str, str]:
    """Name to caption, of a JSON object or of a table of two columns without a header.

    Raises:
        ValueError: the file holds something else, or one name twice.
    """
    return read_table(path, "name: text", _is_text)


def read_references(path: Path) -> dict[str, list[str]]:
    """Name to all that people wrote of it; as `read_captions`, where a value of a JSON object may be a list of texts.

    Raises:
        ValueError: as `read_captions`.
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

    Args:
        path: the file; what ends in neither .json nor .tsv is separated by commas.
        entry: what stands there for each name, in words.
        is_value: tells a value that may stand there.

    Raises:
        ValueError: the file is missing, no UTF-8, or holds something else, or one name twice.
    """
    wanted = f"{path}: expected {{{entry}}} in .json, or name and text in each line of .csv or .tsv"
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            pairs = list(json.loads(text).items())
        else:
            pairs = [
                tuple(row)
                for row in csv.reader(text.splitlines(), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            ]
    except FileNotFoundError:
        raise ValueError(f"{wanted}, found no file: correct the path") from None
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{wanted}, found {type(error).__name__}: correct the file") from None
    if bad := [pair for pair in pairs if len(pair) != 2 or not is_value(pair[1])]:
        raise ValueError(f"{wanted}, found {bad[0]!r}: correct the file")
    found = {
        # Composed, as names of files are.
        normalize("NFC", str(Path(name).with_suffix("")) if Path(name).suffix.lower() in SUFFIXES else name): value
        for name, value in pairs
    }
    if len(found) < len(pairs):
        raise ValueError(f"{wanted}, each name once, found one twice: correct the file")
    return found
