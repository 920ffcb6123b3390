"""Where the values of a metric can lie."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from mmbench.auditing.rows import Row, grouped


@dataclass(frozen=True)
class Range:
    """Bounds of a metric, None where there is none, and what they come from.

    `by_hundred`: whether papers print it times a hundred as well.
    """

    low: Decimal | None
    high: Decimal | None
    why: str
    by_hundred: bool = False


def _range(low: str, high: str, why: str, by_hundred: bool = False) -> Range:
    return Range(Decimal(low) if low else None, Decimal(high) if high else None, why, by_hundred)


SHARE = _range("0", "1", "a share", by_hundred=True)
COSINE = _range("-1", "1", "a cosine", by_hundred=True)
DISTANCE = _range("0", "", "a distance")
# The first pattern that fits the whole name, in lower case, counts.
RANGES = tuple(
    (re.compile(pattern), bounds)
    for pattern, bounds in (
        (r".+ (delta|difference|gap|gain)", _range("", "", "a difference")),
        (r"(.*\b)?ssim", _range("-1", "1", "SSIM", by_hundred=True)),
        (r"(.*\b)?psnr", _range("0", "", "images within their range: the mean squared error is at most 1")),
        (r"[sr]?fid|[so]-?fid|scenefid|fd|fvd|fd-.+|cmmd", _range("0", "", "a squared distance of distributions")),
        (r"is\*?|o-is|inception score", _range("1", "", "the exponential of a divergence")),
        (r"(\w+ )?rank", _range("1", "", "the best rank is 1")),
        (r"cider(-d)?", _range("0", "10", "ten times a cosine", by_hundred=True)),
        (r"bleu.*|meteor|rouge.*|spice", SHARE),
        (r"(.*\b)?(accuracy|precision|recall|coverage|fooling rate|preference.*|preservation)|acc|real|m?iou", SHARE),
        (r"soa-[ci]|pa|sc|r-precision.*|relative matching.*", SHARE),
        (r"clip[- ]?score", _range("-1", "2.5", "2.5 times a cosine at most", by_hundred=True)),
        (r"sim|mp|clip-[it]|clipsim|dino|s_dir|id|(.*\b)?consistency|cosine.*", COSINE),
        (r"id loss", _range("0", "2", "1 less a cosine")),
        (r"l1|l2|mse|rmse|mae|tv|diff|lpips.*|dists|ca|caploss|conf", DISTANCE),
        (r"density|vendi.*", _range("0", "", "a count")),
    )
)
OF_SCORE = re.compile(r"(\d+)-(\d+)")  # a unit such as 1-5


def range_of(row: Row) -> Range | None:
    """The range of a row's metric, before it is scaled; None where none is known."""
    if of_score := OF_SCORE.fullmatch(row["unit"]):
        low, high = of_score.groups()
        return _range(low, high, "the ends of the scale that people judge on")
    for pattern, bounds in RANGES:
        if pattern.fullmatch(row["metric"].lower()):
            return bounds
    return None


def scales(rows: Sequence[Row]) -> dict[Row, int]:
    """100 for rows that are printed times a hundred, 1 for others.

    The unit says so, or the protocol (`x100`); where neither does, a column (of one table and metric) of which a value
    is above 2 is taken to be, for what is a share or a cosine.
    """
    found = {}
    for members in grouped(rows, ("file", "paper", "table", "metric")).values():
        largest = max(abs(row.value) for row in members)
        for row in members:
            bounds, found[row] = range_of(row), 1
            if bounds is not None and bounds.by_hundred and bounds.high is not None:
                said = row["unit"] == "%" or "x100" in row["protocol"].replace(" ", "")
                found[row] = 100 if said or largest > max(Decimal(2), bounds.high) else 1
    return found
