"""What a printed number says of the number behind it, in exact decimal arithmetic."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Interval:
    """All numbers from `low` to `high`, both among them."""

    low: Decimal
    high: Decimal

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(self.low + other.low, self.high + other.high)

    def __sub__(self, other: "Interval") -> "Interval":
        return Interval(self.low - other.high, self.high - other.low)

    def __mul__(self, other: "Interval") -> "Interval":
        corners = [one * another for one in (self.low, self.high) for another in (other.low, other.high)]
        return Interval(min(corners), max(corners))

    def __abs__(self) -> "Interval":
        if self.low <= 0 <= self.high:
            return Interval(Decimal(0), max(-self.low, self.high))
        return self if self.low > 0 else Interval(-self.high, -self.low)

    def widened(self, by: Decimal) -> "Interval":
        """The interval with `by` more on either side."""
        return Interval(self.low - by, self.high + by)

    def overlaps(self, other: "Interval") -> bool:
        """Whether a number lies in both."""
        return self.low <= other.high and other.low <= self.high

    def __str__(self) -> str:
        return f"{self.low.normalize():f} to {self.high.normalize():f}"


def step_of(value: Decimal) -> Decimal:
    """What the last printed digit of a number counts, 0.01 for 8.40."""
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int), "no number is printed NaN or infinite"
    return Decimal(1).scaleb(exponent)


def rounded(value: Decimal, step: Decimal) -> Interval:
    """What was rounded to `value`, whose last digit counts `step`; ties may have gone either way."""
    return Interval(value - step / 2, value + step / 2)


def truncated(value: Decimal, step: Decimal) -> Interval:
    """What gives `value` when its further digits are cut off."""
    return Interval(value - step if value <= 0 else value, value + step if value >= 0 else value)


def plain(value: Decimal | float) -> str:
    """A number for a line of arithmetic: five significant digits, no exponent for everyday sizes."""
    return f"{float(value):.5g}"
