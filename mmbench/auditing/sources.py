"""Rules on where numbers come from: one cell twice, one baseline in two papers, what was only recalled."""

import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import combinations

from mmbench.auditing.findings import Outcome, Severity
from mmbench.auditing.rows import Row, grouped

OF_CELL = ("file", "paper", "table", "method", "variant", "dataset", "split", "resolution", "metric", "protocol")
AGAIN = re.compile(r"re-?evaluation|re-?train|re-run|third-party|probably", re.IGNORECASE)
ANOTHER = re.compile(r"released|re-implementation|re-run|third-party", re.IGNORECASE)  # variants: another network
WHENCE = re.compile(r"quoted or re-evaluation|re-evaluation|quoted|paper|full|v\d", re.IGNORECASE)  # say nothing of it
CONDITIONS = re.compile(  # what makes two protocols of one metric two
    r"zero-shot|ttur|tensorflow|filtered|no re-ranking|re-ranking|fine-?tuned\b(?! inception)|trained on ucf|scst|"
    r"cross-entropy|independent encoder|in training|\bk=(?!1\b)\d+|beam size \d+|abstract|not stated|lost|"
    r"reconstruction|layout|unconditional|masked|all masks|x ?100|center|object|background|extra web data|pspnet|"
    r"same segmentation networks|deeplab",
    re.IGNORECASE,
)
CLASSIFIER = re.compile(r"[\w-]+-finetuned [\w ]*inception|\bc3d\b|\bi3d\b|imagenet inception", re.IGNORECASE)
NEAR = Decimal("0.001")  # of the value: so close, and yet other, that no protocol explains it


def duplicate(rows: Sequence[Row]) -> Outcome:
    """A cell has one value: no two rows agree in all that names a number and differ in it.

    The same number twice is a note.
    """
    outcome = Outcome()
    for members in grouped(rows, OF_CELL).values():
        outcome.judge(members)
        if len(members) == 1:
            continue
        differs = len({row.value for row in members}) > 1
        outcome.add(
            Severity.FAULT if differs else Severity.NOTE,
            members,
            f"{members[0]['metric']} of {members[0].name}: {', '.join(row.printed for row in members)}",
            "one row",
            f"{len(members)} rows of one cell" + (" with several values" if differs else " with the same value"),
        )
    return outcome


def recalled(rows: Sequence[Row]) -> Outcome:
    """No table judges a reproduction by a number that was only recalled.

    A number whose `confidence` is not `read` was seen in no source here, so that neither agreement with it nor a
    difference means anything. Judged are the rows that the project's own tables select.
    """
    outcome = Outcome()
    for (_, word), members in grouped(rows, ("file", "confidence")).items():
        if word not in ("read", "recalled"):
            told = f"{len(members)} rows of which the first is meant; no table judges by them"
            outcome.add(Severity.QUESTION, members[:1], f"confidence {word!r}", "read or recalled", told)
    for row in rows:
        if not row.judged_by:
            outcome.skip([row], "no table judges by them")
            continue
        outcome.judge([row])
        if row["confidence"] != "read":
            outcome.add(
                Severity.QUESTION,
                [row],
                f"{row['metric']} {row.printed} of {row.name}",
                "no verdict",
                f"{', '.join(row.judged_by)} judges by it, and it was seen in no source",
            )
    return outcome


def baseline(rows: Sequence[Row]) -> Outcome:
    """A number that a paper quotes from another stands in that other paper, and two papers quote it alike.

    Compared are one method, data set, metric and direction under protocols that differ in nothing that is known to
    matter. A quotation is compared with what the method's own paper prints; where that is not here, with other
    quotations. A quotation is a copy: with as many digits it is the same number, with fewer that number rounded or cut
    off. What somebody measured again agrees where one number can be rounded to both, and another outcome is a note. A
    quotation within a thousandth of the original, and yet another number, is told whatever the protocols say.
    """
    outcome = Outcome()
    same = ("method", "dataset", "metric", "higher_is_better")
    others = [row for row in rows if ANOTHER.search(row["variant"])]
    outcome.skip(others, "another network: released or re-implemented")
    compared = [row for row in rows if row not in outcome.skipped]
    for members in grouped(compared, same).values():
        if len({row["paper"] for row in members}) < 2:
            outcome.skip(members, "in one paper alone")
            continue
        own = [row for row in members if _is_own(row)]
        again = [row for row in members if row not in own and _is_again(row)]
        quoted = [row for row in members if row not in own and row not in again]
        for row in quoted:
            _compare_with_own(outcome, row, own, [one for one in own if _fits(row, one) and _is_of(one, row, members)])
        _compare_alike(outcome, quoted, own)
        _compare_again(outcome, again, own + quoted)
    return outcome


def _is_own(row: Row) -> bool:
    """Whether a number stands in the paper of its method: that is called as the method is."""
    method, paper = row["method"].lower(), row["paper"].lower()
    return paper == method or paper.startswith(f"{method} ")


def _is_again(row: Row) -> bool:
    return bool(AGAIN.search(row["variant"]) or AGAIN.search(row["protocol"]))


def _variant(row: Row) -> str:
    """What a variant says of the network, without where its number is from and without the size of its images."""
    plain = WHENCE.sub("", row["variant"])
    words = [word for word in re.split(r"[ ,]+", plain) if word and word != row["resolution"]]
    return " ".join(words)


def _conditions(row: Row) -> frozenset[str]:
    protocol = row["protocol"]
    classifier = CLASSIFIER.findall(protocol) if row["metric"].startswith("IS") else []
    return frozenset(word.lower() for word in [*CONDITIONS.findall(CLASSIFIER.sub("", protocol)), *classifier])


def _fits(one: Row, other: Row) -> bool:
    """Whether two rows are of images of one size and one split, as far as they say."""
    return all(not one[key] or not other[key] or one[key] == other[key] for key in ("resolution", "split"))


def _is_copy(one: Row, other: Row) -> bool:
    """Whether two printings are of one number: the same, or the shorter is the longer one rounded or cut off."""
    shorter, longer = sorted((one, other), key=lambda row: row.step, reverse=True)
    more = longer.value - shorter.value if longer.value >= 0 else shorter.value - longer.value
    return -shorter.step / 2 <= more < shorter.step  # rounded up, or cut off


def _is_of(own: Row, row: Row, rows: Sequence[Row]) -> bool:
    """Whether a quotation can be of that variant: the one that it names, or any where its paper tells none apart."""
    told = {_variant(one) for one in rows if (one["paper"], one["table"]) == (row["paper"], row["table"])}
    return _variant(own) == _variant(row) or told == {""}


def _compare_with_own(outcome: Outcome, row: Row, own: Sequence[Row], fitting: Sequence[Row]) -> None:
    """A quotation is one of the numbers that the method's own paper prints for what may be meant."""
    alike = [one for one in fitting if _conditions(one) == _conditions(row)]
    if any(_is_copy(row, one) for one in fitting):
        outcome.judge([row])
        return
    near = [one for one in fitting if abs(one.value - row.value) <= NEAR * abs(one.value)]
    if not alike and not near:
        return
    outcome.judge([row])
    sources = near or alike
    elsewhere = [one for one in own if one not in fitting and _is_copy(row, one)]
    also = "".join(f"; {one.printed} is that of {one.name} at {one['resolution']}" for one in elsewhere[:1])
    outcome.add(
        Severity.QUESTION,
        (row, *sources, *elsewhere[:1]),
        f"{row['metric']} {row.printed} of {row.name} in {row['paper']}",
        _values(sources),
        f"{row['paper']} quotes {row.printed}, the original is {_told(sources)}{also}",
    )


def _values(rows: Sequence[Row]) -> str:
    return " or ".join(dict.fromkeys(row.printed for row in rows))


def _told(rows: Sequence[Row]) -> str:
    """Numbers, each with the papers that print it."""
    papers = {row.printed: dict.fromkeys(one["paper"] for one in rows if one.printed == row.printed) for row in rows}
    return ", ".join(f"{printed} ({'; '.join(names)})" for printed, names in papers.items())


def _compare_alike(outcome: Outcome, quoted: Sequence[Row], own: Sequence[Row]) -> None:
    """Quotations of what the method's own paper does not print here agree with each other."""
    free = [row for row in quoted if not any(_fits(row, one) for one in own)]
    for members in _alike(free):
        if len({row["paper"] for row in members}) < 2:
            continue
        outcome.judge(members)
        if not all(_is_copy(*pair) for pair in combinations(members, 2)):
            outcome.add(
                Severity.QUESTION,
                members,
                f"{members[0]['metric']} of {members[0].name}: {_told(members)}",
                "one number",
                f"all are quoted, and {' and '.join(dict.fromkeys(row.printed for row in members))} are not one number",
            )


def _alike(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows by what they measure: each with the first one before it that measured the same."""
    found: list[list[Row]] = []
    for row in rows:
        for members in found:
            first = members[0]
            is_near = abs(first.value - row.value) <= NEAR * abs(first.value)
            is_same = _conditions(first) == _conditions(row) or is_near
            if is_same and _variant(first) == _variant(row) and _fits(first, row):
                members.append(row)
                break
        else:
            found.append([row])
    return found


def _compare_again(outcome: Outcome, again: Sequence[Row], others: Sequence[Row]) -> None:
    """Who measured a method again found what was printed, or another number, which is worth a note."""
    for row in again:
        alike = [
            one
            for one in others
            if one["paper"] != row["paper"]
            and _fits(row, one)
            and _variant(row) == _variant(one)
            and _conditions(one) == _conditions(row)
        ]
        if not alike:
            continue
        outcome.judge((row, *alike))
        if not any(row.behind.overlaps(one.behind) for one in alike):
            outcome.add(
                Severity.NOTE,
                (row, *alike),
                f"{row['metric']} {row.printed} of {row.name}, measured by {row['paper']}",
                _values(alike),
                f"{row.printed} measured again, {_told(alike)} printed",
            )
