"""Rules on a column of a table: what is printed bold, with how many digits, in which unit."""

from collections import Counter
from collections.abc import Sequence

from mmbench.auditing.findings import Outcome, Severity
from mmbench.auditing.ranges import range_of, scales
from mmbench.auditing.rows import ABSENT, OF_COLUMN, Row, grouped

BOUNDS = ("ground truth", "real image", "real video", "oracle", "undecided")  # rows that no method competes with
DIRECTIONS = ("true", "false")  # of a metric: whether higher is better
PLACES = {"bold": 0, "underlined": 1}  # how the best and the second best are printed


def bold(rows: Sequence[Row]) -> Outcome:
    """What is printed bold is the best of its column by the metric's direction, and what is underlined the second best.

    That is what bold means where most bold cells of a table are the best of their columns; in a table where several are
    not, and most (authors who print their own row so), it means something else, which is a note. A wrong cell that is
    the only one shows neither, and is a question. Ground truth does not compete. A cell whose direction is not told
    cannot be judged, which is a note; a word in `emphasis` that is neither of the two is a question.
    """
    outcome = Outcome()
    for (_, word), members in grouped(rows, ("file", "emphasis")).items():
        if word not in PLACES and word not in ABSENT:
            outcome.skip(members, "another word in emphasis")
            told = f"not judged, of {len(members)} row{'s' * (len(members) > 1)}"
            outcome.add(Severity.QUESTION, members[:1], f"emphasis {word!r}", " or ".join(PLACES), told)
    for members in grouped(rows, ("file", "paper", "table")).values():
        emphasised = [row for row in members if row["emphasis"] in PLACES]
        marked = [row for row in emphasised if row["higher_is_better"] in DIRECTIONS]
        _tell_without_direction(outcome, [row for row in emphasised if row not in marked])
        if not emphasised:
            outcome.skip((row for row in members if row not in outcome.skipped), "nothing bold in the table")
            continue
        outcome.judge(marked)
        columns = {row: _column(row, members) for row in marked}
        wrong = [row for row in marked if not _deserves(row, columns[row])]
        if len(wrong) > 1 and 2 * len(wrong) > len(marked):
            outcome.add(
                Severity.NOTE,
                wrong,
                f"{len(wrong)} of {len(marked)} bold or underlined cells",
                "the best of a column",
                "bold does not mean best in this table",
            )
            continue
        for row in wrong:
            is_rising, column = row["higher_is_better"] == "true", columns[row]
            best = sorted(column, key=lambda one: one.value, reverse=is_rising)
            printed = f"{row['metric']} {row.printed} of {row.name} ({row['protocol']}) {row['emphasis']}"
            listed = ", ".join(f"{one['method']} {one.printed}" for one in best)
            word = ("the best, " if row["emphasis"] == "bold" else "the second best, ") + (
                "the largest" if is_rising else "the smallest"
            )
            outcome.add(
                Severity.FAULT if len(marked) > 1 else Severity.QUESTION,
                (row, *(one for one in best if one is not row)),
                printed,
                word,
                f"from best to worst: {listed}",
            )
    return outcome


def _tell_without_direction(outcome: Outcome, rows: Sequence[Row]) -> None:
    """Cells of a table of which it is not told whether the best is the largest."""
    if rows:
        outcome.skip(rows, "emphasis without a direction")
        words = " or ".join(dict.fromkeys(repr(row["higher_is_better"]) for row in rows))
        outcome.add(
            Severity.NOTE,
            rows,
            f"bold or underlined: {len(rows)}, with higher_is_better {words}",
            f"{' or '.join(DIRECTIONS)} in higher_is_better",
            "whether the best is the largest or the smallest is not told",
        )


def _column(row: Row, table: Sequence[Row]) -> list[Row]:
    """The rows that a cell competes with, itself among them; what tells no direction has that of its column."""
    other = "false" if row["higher_is_better"] == "true" else "true"
    in_column = [one for one in table if all(one[key] == row[key] for key in OF_COLUMN)]
    same = [one for one in in_column if one["higher_is_better"] != other]
    return [one for one in same if one is row or not one["method"].lower().startswith(BOUNDS)]


def _deserves(row: Row, column: Sequence[Row]) -> bool:
    """Whether a cell has the place that it is printed with; equal values share one."""
    better = {
        one.value
        for one in column
        if (one.value > row.value if row["higher_is_better"] == "true" else one.value < row.value)
    }
    return len(better) == PLACES[row["emphasis"]]


def digits(rows: Sequence[Row]) -> Outcome:
    """The numbers of a column are printed with the same number of digits behind the point.

    One with fewer is rounded further than its neighbours, has lost a zero at its end, or is a slip. What most of a
    column has counts; where there is no such number, nothing is said. An end of the metric's range (0, 100 %) is exact,
    however it is printed.
    """
    outcome, scale = Outcome(), scales(rows)
    rounded = [row for row in rows if not _is_end(row, scale[row])]
    for members in grouped(rounded, OF_COLUMN).values():
        if len(members) < 2:
            outcome.skip(members, "one row alone")
            continue
        outcome.judge(members)
        counts = Counter(-row.step.adjusted() for row in members)
        usual, number = counts.most_common(1)[0]
        if len(counts) == 1 or 2 * number <= len(members):
            continue
        others = [row for row in members if -row.step.adjusted() != usual]
        shown = ", ".join(f"{row.printed} of {row.name}" for row in others)
        outcome.add(
            Severity.NOTE,
            others,
            f"{members[0]['metric']}: {shown}",
            f"digits behind the point: {usual}",
            f"{number} of {len(members)} in the column have {usual}",
        )
    return outcome


def _is_end(row: Row, scale: int) -> bool:
    bounds = range_of(row)
    return bounds is not None and row.value in [end * scale for end in (bounds.low, bounds.high) if end is not None]


def unit(rows: Sequence[Row]) -> Outcome:
    """A column is in one unit: no share stands beside percentages (0.93 beside 93), nor one unit beside another.

    A value up to 1 is suspect where the others of its column are above 2 and a hundred times it lies among them.
    """
    outcome = Outcome()
    for members in grouped(rows, ("file", "paper", "table", "metric")).values():
        if len(members) < 2:
            outcome.skip(members, "one row alone")
            continue
        outcome.judge(members)
        units = Counter(row["unit"] for row in members)
        if len(units) > 1:
            usual = units.most_common(1)[0][0]
            others = [row for row in members if row["unit"] != usual]
            shown = ", ".join(f"{row.printed}{row['unit'] or ' without a unit'} of {row.name}" for row in others)
            outcome.add(
                Severity.QUESTION,
                others,
                f"{members[0]['metric']}: {shown}",
                f"the unit {usual or 'none'}",
                f"{units[usual]} of {len(members)} in the column have it",
            )
        bounds = range_of(members[0])
        large = [row.value for row in members if row.value > 2]
        if bounds is None or not bounds.by_hundred or not large:
            continue
        for row in members:
            if 0 < row.value <= 1 and min(large) / 2 <= 100 * row.value <= 2 * max(large):
                outcome.add(
                    Severity.QUESTION,
                    [row],
                    f"{row['metric']} {row.printed}{row['unit']} of {row.name}",
                    f"{100 * row.value:f}",
                    f"others of the column: {min(large)} to {max(large)}",
                )
    return outcome
