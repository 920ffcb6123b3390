"""Rows of a CSV of published results: read, checked and named by where they stand."""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from mmbench.auditing.printed import Interval, rounded, step_of

REQUIRED = ("method", "metric", "value")
OPTIONAL = (
    "paper", "table", "variant", "dataset", "split", "resolution", "protocol", "unit", "uncertainty",
    "higher_is_better", "emphasis", "source", "confidence",
)  # fmt: skip
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?", re.ASCII)
ABSENT = frozenset({"", "-", "–", "—", "n/a", "na"})  # how tables print that there is no number  # noqa: RUF001
LOWERED = ("higher_is_better", "emphasis", "confidence")  # words, however they are written
OF_METHOD = ("file", "paper", "table", "method", "variant", "dataset", "split", "resolution")
OF_COLUMN = ("file", "paper", "table", "dataset", "split", "metric", "protocol")


@dataclass(frozen=True, eq=False)
class Row:
    """One printed number.

    Attributes:
        file: what the file is called in findings.
        line: where the row begins in it, from 1.
        columns: every column as it stands there; one that the file lacks is absent.
        value: the number.
        step: what its last printed digit counts.
        uncertainty: the spread printed with it.
        judged_by: tables that say of a reproduction whether it agrees with this number.
    """

    file: str
    line: int
    columns: Mapping[str, str]
    value: Decimal
    step: Decimal
    uncertainty: Decimal | None = None
    judged_by: tuple[str, ...] = ()

    def __getitem__(self, column: str) -> str:
        """What stands in a column, "" where the file has none; `file` is its name."""
        return self.file if column == "file" else self.columns.get(column, "")

    @property
    def printed(self) -> str:
        """The number as it stands in the file."""
        return self["value"]

    @property
    def behind(self) -> Interval:
        """The numbers that are printed so when they are rounded."""
        return rounded(self.value, self.step)

    @property
    def is_recalled(self) -> bool:
        """Whether the file says that nobody saw the number in a source."""
        return self["confidence"] not in ("", "read")

    @property
    def name(self) -> str:
        """Method with variant, and data set."""
        variant, dataset = self["variant"], self["dataset"]
        return self["method"] + (f" ({variant})" if variant else "") + (f" on {dataset}" if dataset else "")

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def grouped(rows: Iterable[Row], columns: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    """Rows that agree in some columns, in the order of the file."""
    found: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(row[column] for column in columns)].append(row)
    return dict(found)


def read(path: Path, name: str) -> list[Row]:
    """The numbers of a file (`parsed`).

    Raises:
        ValueError: it is absent, or no UTF-8; as `parsed`.
    """
    try:
        return parsed(path.read_bytes().decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: expected UTF-8, found the byte {error.object[error.start]:#x} at {error.start}: save it as UTF-8"
        ) from None
    except OSError as error:
        raise ValueError(f"{name}: expected a CSV file, found {error.strerror}: name another") from None


def parsed(text: str, name: str) -> list[Row]:
    """The numbers of a CSV; rows whose value is empty, a dash or n/a have none and are left out.

    Args:
        name: what it is called in findings.

    Raises:
        ValueError: it is empty or no CSV with commas, lacks a column of `REQUIRED` or has one twice; a row has more or
            fewer fields than the header, or no number where one belongs.
    """
    if not text.strip():
        raise ValueError(f"{name}: expected a header with {', '.join(REQUIRED)}, found an empty file: name another")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [column.strip() for column in next(reader)]
        _require_header(header, name)
        rows, begins = [], reader.line_num + 1
        for fields in reader:
            if fields and (row := _row(dict(zip(header, fields)), len(header), len(fields), name, begins)):
                rows.append(row)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{name}:{reader.line_num}: expected a CSV, found {error}: correct the line") from None
    if not rows:
        raise ValueError(f"{name}: expected rows with numbers below the header, found none: add some")
    return rows


def _require_header(header: list[str], name: str) -> None:
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise ValueError(f"{name}: expected commas between columns, found {word}: export it with commas")
    if twice := {column for column in header if header.count(column) > 1}:
        raise ValueError(f"{name}: expected every column once, found {min(twice)!r} twice: remove one")
    if lacking := [column for column in REQUIRED if column not in header]:
        raise ValueError(f"{name}: expected the columns {', '.join(REQUIRED)}, found no {lacking[0]}: add it")


def _row(columns: dict[str, str], wanted: int, found: int, name: str, line: int) -> Row | None:
    if wanted != found:
        raise ValueError(
            f"{name}:{line}: expected {wanted} fields as in the header, found {found}: quote commas in one"
        )
    columns = {column: text.strip().lower() if column in LOWERED else text.strip() for column, text in columns.items()}
    if columns["value"].lower() in ABSENT:
        return None
    value = _number(columns["value"], "value", name, line)
    spread = columns.get("uncertainty", "")
    uncertainty = None if spread.lower() in ABSENT else _number(spread, "uncertainty", name, line)
    return Row(name, line, columns, value, step_of(value), uncertainty)


def _number(text: str, column: str, name: str, line: int) -> Decimal:
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{name}:{line}: expected a number in {column}, found {text!r}: leave it empty, or correct it")
    return Decimal(text)
