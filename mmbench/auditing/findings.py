"""What a rule has to say of rows."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from mmbench.auditing.rows import Row


class Severity(StrEnum):
    """How much a finding weighs; a number that was only recalled convicts nobody, so with it a fault is a question."""

    FAULT = "fault"  # cannot be
    QUESTION = "question"  # unlikely, or two papers contradict each other
    NOTE = "note"  # worth knowing


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, unlikely or worth knowing.

    Attributes:
        severity: before it is asked how well the numbers are known.
        rows: those concerned; the first is the one to look at.
        printed: what stands there.
        needed: what would have to.
        arithmetic: how that follows.
        rule: name of the rule.
    """

    severity: Severity
    rows: tuple[Row, ...]
    printed: str
    needed: str
    arithmetic: str
    rule: str = ""

    @property
    def weight(self) -> Severity:
        """The severity, in view of how well the numbers are known."""
        is_doubtful = self.severity is Severity.FAULT and any(row.is_recalled for row in self.rows)
        return Severity.QUESTION if is_doubtful else self.severity

    @property
    def where(self) -> str:
        """`file:line` of the rows; several lines of one file once with its name."""
        lines: dict[str, list[str]] = {}
        for row in self.rows:
            lines.setdefault(row.file, []).append(str(row.line))
        return ", ".join(f"{file}:{','.join(numbers)}" for file, numbers in lines.items())

    @property
    def origin(self) -> str:
        """How the numbers came into the file: the misprint may be ours."""
        return "; ".join(
            dict.fromkeys(
                f"as {'recalled' if row.is_recalled else 'transcribed'}"
                + (f": {row['source']}" if row["source"] else "")
                for row in self.rows
            )
        )

    @property
    def papers(self) -> str:
        return "; ".join(dict.fromkeys(row["paper"] for row in self.rows if row["paper"]))

    @property
    def tables(self) -> str:
        return "; ".join(dict.fromkeys(row["table"] for row in self.rows if row["table"]))


@dataclass
class Outcome:
    """What a rule found, and how much it could look at.

    Attributes:
        judged: rows that it could judge.
        findings: in the order of the rows.
        skipped: rows that it concerns and could not judge, to why, in a word.
        remarks: sentences on the whole.
    """

    judged: set[Row] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    skipped: dict[Row, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def judge(self, rows: Iterable[Row]) -> None:
        """Counts rows as judged."""
        self.judged.update(rows)

    def skip(self, rows: Iterable[Row], why: str) -> None:
        """Says of rows why they cannot be judged; another look at them may judge them yet."""
        self.skipped.update(dict.fromkeys(rows, why))

    @property
    def unjudged(self) -> Counter[str]:
        """Why rows were not judged, to their number."""
        return Counter(why for row, why in self.skipped.items() if row not in self.judged)

    def add(self, severity: Severity, rows: Iterable[Row], printed: str, needed: str, arithmetic: str) -> None:
        """Adds a finding."""
        self.findings.append(Finding(severity, tuple(rows), printed, needed, arithmetic))
