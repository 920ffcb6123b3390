"""Rules that say what a number must be, given others of its table."""

import re
from collections.abc import Sequence
from decimal import Context, Decimal
from itertools import chain

from mmbench.auditing.findings import Outcome, Severity
from mmbench.auditing.printed import Interval, plain, truncated
from mmbench.auditing.rows import OF_COLUMN, OF_METHOD, Row, grouped

DIFFERENCE = re.compile(r"(?P<of>.+?) (?:delta|difference|gap|gain)", re.IGNORECASE)
OPERANDS = re.compile(r"(?P<size>\|)? *(?P<first>[^|]+?) (?:-|−|minus) (?P<second>[^|]+?) *\|?")  # noqa: RUF001
MAX_DIGITS = 500  # of a product of numbers that `rows.NUMBER` takes
RANK = re.compile(r"\brank\b", re.IGNORECASE)


def mp(rows: Sequence[Row]) -> Outcome:
    """MP = (1 - diff) * sim, to the printed digits.

    Manipulative precision is defined as this product of two columns of the same table. What was rounded to the printed
    sim and diff bounds the product; the printed MP must be what some product within these bounds is rounded or
    truncated to. A diff above 1 is one in per cent. Means over seeds may differ from the product of means by the
    product of both spreads (Cauchy-Schwarz).
    """
    outcome, seen = Outcome(), []
    for members in grouped(rows, OF_METHOD).values():
        parts = {name: [row for row in members if row["metric"].lower() == name] for name in ("mp", "sim", "diff")}
        if [len(found) for found in parts.values()] != [1, 1, 1]:
            outcome.skip(chain(*parts.values()), "not one MP, sim and diff together")
            continue
        product, sim, diff = (found[0] for found in parts.values())
        outcome.judge((product, sim, diff))
        rounds, cuts = _mp_readings(product, sim, diff)
        seen.append((product, rounds, cuts, _product(sim, diff)))
        if not rounds and not cuts:
            outcome.add(
                Severity.FAULT,
                (product, sim, diff),
                f"MP {product.printed} of {product.name}",
                f"{plain(_product(sim, diff))}",
                f"({_whole(diff)} - {diff.printed}) * {sim.printed}{' / 100' if _whole(diff) > 1 else ''} = "
                f"{_product(sim, diff):f}",
            )
    outcome.remarks = _how_printed(seen)
    return outcome


def _product(sim: Row, diff: Row) -> Decimal:
    return (_whole(diff) - diff.value) * sim.value / _whole(diff)


def _whole(diff: Row) -> int:
    """All of an image in the unit of a diff: 1, or 100 where it is in per cent."""
    return 100 if diff.value > 1 else 1


def _mp_readings(product: Row, sim: Row, diff: Row) -> tuple[bool, bool]:
    """Whether the printed MP can be a rounded product, and whether it can be a truncated one."""
    one, share = (Interval(number, number) for number in (Decimal(_whole(diff)), 1 / Decimal(_whole(diff))))
    spread = (sim.uncertainty or Decimal(0)) * (diff.uncertainty or Decimal(0))
    behind = ((one - diff.behind) * sim.behind * share).widened(spread)
    cut = ((one - truncated(diff.value, diff.step)) * truncated(sim.value, sim.step) * share).widened(spread)
    target = truncated(product.value, product.step)
    return behind.overlaps(product.behind), behind.overlaps(target) or cut.overlaps(target)


def _how_printed(seen: Sequence[tuple[Row, bool, bool, Decimal]]) -> list[str]:
    """For each table, whether its MP is rounded or truncated."""
    remarks = []
    for members in grouped((product for product, *_ in seen), ("file", "paper", "table")).values():
        of_table = [one for one in seen if one[0] in members]
        count, rounds = len(of_table), sum(one[1] for one in of_table)
        cuts = sum(one[2] for one in of_table)
        # Of the product of the printed numbers themselves, which is what an author who has only the table computes.
        exact = [sum(_shown(one, way) for one in of_table) for way in ("ROUND_HALF_UP", "ROUND_DOWN")]
        if rounds == cuts == count:
            said = "rounded or truncated, the digits do not tell which"
        elif max(rounds, cuts) < count:
            said = "neither rounded nor truncated throughout"
        else:
            said = "rounded" if rounds == count else "truncated, not rounded"
        name = " ".join(filter(None, (members[0]["paper"], f"({members[0]['table']})" if members[0]["table"] else "")))
        remarks.append(
            f"{name or members[0].file}: MP is {said}: {cuts} of {count} rows can be truncated, {rounds} can be "
            f"rounded; of the products of the printed sim and diff {exact[1]} are so when truncated, {exact[0]} when "
            "rounded."
        )
    return remarks


def _shown(one: tuple[Row, bool, bool, Decimal], rounding: str) -> bool:
    row, *_, product = one
    precise = Context(prec=MAX_DIGITS, rounding=rounding)
    return product.quantize(row.step, context=precise) == row.value


def difference(rows: Sequence[Row]) -> Outcome:
    """A column that says it is a difference is that of the two columns beside it, to the printed digits.

    A metric called `X delta` (difference, gap, gain) whose protocol reads `A - B`, or `|A - B|` for its size, stands
    beside X under the protocols A and B of the same row; each of the three is known to half its last digit.
    """
    outcome = Outcome()
    for members in grouped(rows, OF_METHOD).values():
        for row in members:
            if not (named := DIFFERENCE.fullmatch(row["metric"])):
                continue
            words = OPERANDS.fullmatch(row["protocol"])
            sides = [_under(members, named["of"], words[side]) for side in ("first", "second")] if words else []
            if [len(side) for side in sides] != [1, 1]:
                outcome.skip([row], "of what it is the difference is not told")
                continue
            assert words is not None
            first, second = (side[0] for side in sides)
            outcome.judge((row, first, second))
            between, exact = first.behind - second.behind, first.value - second.value
            if words["size"]:
                between, exact = abs(between), abs(exact)
            if not between.overlaps(row.behind) and not between.overlaps(truncated(row.value, row.step)):
                arithmetic = f"{first.printed} - {second.printed} = {exact:f}"
                outcome.add(
                    Severity.FAULT,
                    (row, first, second),
                    f"{row['metric']} {row.printed} of {row.name}",
                    f"{exact:f}",
                    f"|{arithmetic.replace(' =', '| =')}" if words["size"] else arithmetic,
                )
    return outcome


def _under(rows: Sequence[Row], metric: str, protocol: str) -> list[Row]:
    """Rows of a metric whose protocol begins with a word."""
    begin = re.compile(re.escape(protocol) + r"\b", re.IGNORECASE)
    return [row for row in rows if row["metric"] == metric and begin.match(row["protocol"])]


def ranks(rows: Sequence[Row]) -> Outcome:
    """Mean ranks of k rows sum to k (k + 1) / 2.

    Who ranks k things gives away the ranks 1 to k, and ties share them, so that every judge's ranks have this sum, and
    so have their means. Each printed mean is known to half its last digit. Where a mean rank is above k, rows are
    missing, and nothing follows; where the sum is too large they may be.
    """
    outcome = Outcome()
    of_ranks = [row for row in rows if RANK.search(row["metric"])]
    for members in grouped(of_ranks, OF_COLUMN).values():
        count = len(members)
        if count < 2 or len({row["method"] + row["variant"] for row in members}) < count:
            outcome.skip(members, "one row alone, or a method twice")
            continue
        if max(row.behind.low for row in members) > count:
            outcome.skip(members, "rows are missing")
            continue
        outcome.judge(members)
        wanted = Decimal(count * (count + 1)) / 2
        total = sum((row.value for row in members), Decimal(0))
        slack = sum((row.step for row in members), Decimal(0)) / 2
        if abs(total - wanted) > slack:
            # Ranks of fewer rows than were judged can have a larger sum, and never a smaller one.
            what = " ".join(filter(None, (members[0]["metric"], members[0]["protocol"], members[0]["dataset"])))
            outcome.add(
                Severity.FAULT if total < wanted else Severity.QUESTION,
                members,
                f"{what}: {', '.join(row.printed for row in members)}",
                f"a sum of {wanted.normalize():f} within {slack.normalize():f}",
                f"{' + '.join(row.printed for row in members)} = {total:f}, not {count} * {count + 1} / 2",
            )
    return outcome
