"""Rules that say where a number can lie, alone or beside others of its row."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from itertools import chain, pairwise

from mmbench.auditing.findings import Outcome, Severity
from mmbench.auditing.printed import plain, rounded, step_of
from mmbench.auditing.ranges import range_of, scales
from mmbench.auditing.rows import OF_METHOD, Row, grouped

SQUARED = ("mse", "l2")
OF_K = re.compile(r"\bk=(\d+)")
INCEPTION = re.compile(r"is\*?|o-is|inception score")
CLASSIFIERS = (  # what a protocol says of the classifier, its number of outputs, what it is
    (re.compile(r"cub-finetuned|bird", re.IGNORECASE), 50, "StackGAN's Inception of birds has 50 classes"),
    (re.compile(r"oxford-finetuned|flower", re.IGNORECASE), 20, "StackGAN's Inception of flowers has 20 classes"),
    (re.compile(r"\bC3D\b"), 101, "C3D is trained on the 101 classes of UCF-101"),
    (re.compile(""), 1008, "the Inception of ImageNet has 1008 outputs, more than any other in use"),
)


def value_range(rows: Sequence[Row]) -> Outcome:
    """A value lies in the range of its metric: cosines and SSIM in [-1, 1], shares in [0, 1], IS from 1, FID from 0.

    The range follows from the definition of each metric; what is printed in % or times a hundred has a hundred times
    the range. A value beyond it by less than half its last digit may be rounding.
    """
    outcome, scale = Outcome(), scales(rows)
    for row in rows:
        bounds = range_of(row)
        if bounds is None or (bounds.low is None and bounds.high is None):
            outcome.skip([row], "no range known for the metric")
            continue
        outcome.judge([row])
        low, high = (None if end is None else end * scale[row] for end in (bounds.low, bounds.high))
        below, above = low is not None and row.behind.high < low, high is not None and row.behind.low > high
        if below or above:
            end, word = (low, "at least") if below else (high, "at most")
            sign = "<" if below else ">"
            outcome.add(
                Severity.FAULT,
                [row],
                f"{row['metric']} {row.printed}{row['unit']} of {row.name}",
                f"{word} {end}",
                f"{row.printed} {sign} {end}: {bounds.why}",
            )
    return outcome


def classes(rows: Sequence[Row]) -> Outcome:
    """IS is at most the number of classes of its classifier.

    It is the exponential of a mutual information between image and class, which no entropy of K classes exceeds: log K.
    Which classifier it is the protocol says; where it does not, the one with the most outputs in use counts.
    """
    outcome = Outcome()
    for row in rows:
        if not INCEPTION.fullmatch(row["metric"].lower()):
            continue
        outcome.judge([row])
        number, why = next((number, why) for said, number, why in CLASSIFIERS if said.search(row["protocol"]))
        if row.behind.low > number:
            outcome.add(
                Severity.FAULT,
                [row],
                f"{row['metric']} {row.printed} of {row.name}",
                f"at most {number}",
                f"{row.printed} > {number}: {why}",
            )
    return outcome


def psnr_mse(rows: Sequence[Row]) -> Outcome:
    """Mean PSNR is at least -10 log10 of the mean squared error.

    PSNR is a convex function of the squared error, so that its mean is at least its value at the mean (Jensen). Errors
    are of images in [0, 1]; those above 1 are taken to be of images in [0, 255].
    """
    outcome = Outcome()
    for psnr, error in _pairs(rows, ("psnr",), SQUARED, outcome):
        share = _at_most(error, Decimal(255**2))
        outcome.judge((psnr, error))
        _require_psnr(outcome, psnr, error, -10 * math.log10(share), f"-10 log10({plain(share)})", "mean squared error")
    return outcome


def psnr_l1(rows: Sequence[Row]) -> Outcome:
    """Mean PSNR is at least -10 log10 of the mean absolute error, and hardly above -20 log10 of it.

    An error of at most 1 has a square no larger than itself, which bounds PSNR from below (Jensen again). The mean
    square of an image is at least the square of its L1, so that its PSNR is at most -20 log10 L1; the mean over images
    exceeds that of the mean L1 only where they differ a lot, which is a question, one for each table: mostly its L1 is
    on another range than [0, 1], or of another region than PSNR.
    """
    outcome, high = Outcome(), []
    for psnr, error in _pairs(rows, ("psnr",), ("l1", "mae"), outcome):
        if error["unit"] != "%" and error.behind.low > 1:
            outcome.skip((psnr, error), "range of L1 not told")
            continue
        outcome.judge((psnr, error))
        share = _at_most(error, Decimal(1))
        _require_psnr(
            outcome, psnr, error, -10 * math.log10(share), f"-10 log10({plain(share)})", "mean absolute error"
        )
        least = error.behind.low / (100 if error["unit"] == "%" else 1)
        if least > 0 and float(psnr.behind.low) > -20 * math.log10(least):
            high.append((psnr, error, least))
    for members in grouped((psnr for psnr, *_ in high), ("file", "paper", "table")).values():
        of_table = [one for one in high if one[0] in members]
        shown = (f"{psnr.printed} beside {l1.printed}{l1['unit']} of {psnr['method']}" for psnr, l1, _ in of_table)
        outcome.add(
            Severity.QUESTION,
            [row for psnr, error, _ in of_table for row in (psnr, error)],
            f"PSNR and L1: {', '.join(shown)}",
            "PSNR hardly above -20 log10 L1, with L1 a mean of the same region in [0, 1]",
            ", ".join(f"{psnr.printed} > {plain(-20 * math.log10(least))}" for psnr, _, least in of_table),
        )
    return outcome


def _at_most(error: Row, full: Decimal) -> float:
    """The largest share of the full range that an error may be, by its printed digits."""
    if error["unit"] == "%":
        return float(error.behind.high / 100)
    return float(error.behind.high if error.value <= 1 else error.behind.high / full)


def _require_psnr(outcome: Outcome, psnr: Row, error: Row, least: float, how: str, what: str) -> None:
    if float(psnr.behind.high) < least:
        outcome.add(
            Severity.FAULT,
            (psnr, error),
            f"PSNR {psnr.printed} beside {error['metric']} {error.printed}{error['unit']} of {psnr.name}",
            f"at least {plain(least)} dB",
            f"{how} = {plain(least)} > {psnr.printed}, with {error['metric']} as {what}",
        )


def l1_mse(rows: Sequence[Row]) -> Outcome:
    """The mean squared error lies between the square of the mean absolute error and that error itself.

    The mean of squares is at least the square of the mean (Jensen), over pixels and over images; an error of at most 1
    has a square no larger than itself. What is called L2 may be the root of it, which lies between L1 and its root.
    """
    outcome = Outcome()
    for squared, error in _pairs(rows, SQUARED, ("l1", "mae"), outcome):
        if max(squared.behind.low, error.behind.low) > 1:
            outcome.skip((squared, error), "range not told")
            continue
        outcome.judge((squared, error))
        low = max(error.behind.low, Decimal(0)) ** 2
        high = error.behind.high if squared["metric"].lower() == "mse" else error.behind.high.sqrt()
        if squared.behind.high < low or squared.behind.low > high:
            outcome.add(
                Severity.FAULT,
                (squared, error),
                f"{squared['metric']} {squared.printed} beside {error['metric']} {error.printed} of {squared.name}",
                f"from {plain(low)} to {plain(high)}",
                f"{plain(error.value)}^2 <= {squared['metric']} <= {plain(high)}",
            )
    return outcome


def _pairs(
    rows: Sequence[Row], first: tuple[str, ...], second: tuple[str, ...], outcome: Outcome
) -> list[tuple[Row, Row]]:
    """Two metrics of one cell under one protocol; what stands alone is counted as unjudged."""
    found = []
    for members in grouped(rows, (*OF_METHOD, "protocol")).values():
        sides = [[row for row in members if row["metric"].lower() in names] for names in (first, second)]
        if [len(side) for side in sides] == [1, 1]:
            if any(row["metric"].lower() != "psnr" and row.behind.high <= 0 for row in chain(*sides)):
                outcome.skip(chain(*sides), "an error below 0")  # which `range` finds
                continue
            found.append((sides[0][0], sides[1][0]))
        else:
            outcome.skip(chain(*sides), "only one of the two is printed")
    return found


def uncertainty(rows: Sequence[Row]) -> Outcome:
    """A printed spread is not negative, and no larger than values in the metric's range can have.

    The variance of values in [a, b] with mean m is at most (b - m) (m - a) (Bhatia and Davis); an estimate from n
    values is at most n / (n - 1) times that, twice for the fewest. Of a metric that has no upper end a spread above the
    mean's distance from the lower end is a question: few values, or a slip.
    """
    outcome, scale = Outcome(), scales(rows)
    for row in rows:
        if row.uncertainty is None:
            continue
        outcome.judge([row])
        shown, spread = f"{row['metric']} {row.printed} ± {row['uncertainty']} of {row.name}", row.uncertainty
        if spread < 0:
            outcome.add(Severity.FAULT, [row], shown, "at least 0", f"{spread} < 0: no standard deviation is negative")
            continue
        bounds, least = range_of(row), rounded(spread, step_of(spread)).low
        if bounds is None or bounds.low is None:
            continue
        inside = max(row.behind.high - bounds.low * scale[row], Decimal(0))
        if bounds.high is None:
            if least > inside:
                arithmetic = f"{spread} > {row.printed} - {bounds.low}"
                outcome.add(Severity.QUESTION, [row], shown, f"hardly above {plain(inside)}", arithmetic)
            continue
        most = (max(bounds.high * scale[row] - row.behind.low, Decimal(0)) * inside * 2).sqrt()
        if least > most:
            arithmetic = f"sqrt(2 ({bounds.high * scale[row]} - m) (m - {bounds.low * scale[row]})) = {plain(most)}"
            outcome.add(Severity.FAULT, [row], shown, f"at most {plain(most)}", f"{arithmetic} at m = {row.printed}")
    return outcome


def order(rows: Sequence[Row]) -> Outcome:
    """R-precision grows with k, and BLEU-n falls with n.

    What is among the first k is among the first k + 1. Matching n-grams contain matching shorter ones, so that BLEU-n
    of a corpus falls with n but for corpora of sentences of a few words, where a rise is a question.
    """
    outcome = Outcome()
    for members in grouped(rows, (*OF_METHOD, "metric")).values():
        if not members[0]["metric"].lower().startswith("r-precision"):
            continue
        by_protocol: dict[str, dict[int, Row]] = defaultdict(dict)
        for row in members:
            if k := OF_K.search(row["protocol"]):
                by_protocol[OF_K.sub("", row["protocol"])][int(k[1])] = row
        for series in by_protocol.values():
            _require_order(outcome, [series[k] for k in sorted(series)], Severity.FAULT, "grows with k")
    for members in grouped(rows, (*OF_METHOD, "protocol")).values():
        by_n = {row["metric"]: row for row in members if re.fullmatch(r"BLEU-\d", row["metric"])}
        _require_order(outcome, [by_n[n] for n in sorted(by_n, reverse=True)], Severity.QUESTION, "falls with n")
    return outcome


def _require_order(outcome: Outcome, series: Sequence[Row], severity: Severity, how: str) -> None:
    """Rows that are to be in rising order."""
    if len(series) < 2:
        outcome.skip(series, "one value alone")
        return
    outcome.judge(series)
    for smaller, larger in pairwise(series):
        if smaller.behind.low > larger.behind.high:
            outcome.add(
                severity,
                (smaller, larger),
                f"{smaller['metric']} {smaller.printed} above {larger['metric']} {larger.printed} of {smaller.name}",
                f"{larger.printed} or less",
                f"{smaller.printed} > {larger.printed}, but {smaller['metric']} {how}",
            )
