"""Printed numbers that cannot be: every rule passes what obeys it and finds a break, and files are read or refused."""

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmbench.__main__ import LIGHT
from mmbench.auditing.findings import Severity
from mmbench.auditing.report import FORMATS, audit
from mmbench.auditing.rows import OPTIONAL, REQUIRED, grouped, parsed, read
from mmbench.auditing.rules import RULES, run
from mmbench.commands import lint
from mmbench.core import catalogue
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.publications import published

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results/published"
FAULT, QUESTION, NOTE = Severity
quick = settings(max_examples=60, deadline=None)


def rows(*lines, file="x.csv"):
    """Rows of a CSV with the columns that the lines name, of the method A in one paper where they name no other."""
    common = {"method": "A", "paper": "P 2020", "table": "Table 1"}
    columns = list(dict.fromkeys(key for line in lines for key in {**common, **line}))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows({**common, **line} for line in lines)
    return parsed(text.getvalue(), file)


def cell(metric, value, **columns):
    return {"metric": metric, "value": str(value), **columns}


def weights(rule, found):
    """The severities of what a rule finds in rows."""
    return [finding.weight for finding in run(RULES[rule], found).findings]


def printed(value, digits, rounding=ROUND_HALF_UP):
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), rounding))


def mp(sim, diff, product, **columns):
    return [cell("sim", sim, **columns), cell("diff", diff, **columns), cell("MP", product, **columns)]


def delta(first, second, of_both, protocol):
    return [
        cell("TV", first, protocol="center mask"),
        cell("TV", second, protocol="object mask"),
        cell("TV delta", of_both, protocol=protocol),
    ]


def ranked(*values):
    return [cell("user rank", value, method=f"M{number}") for number, value in enumerate(values)]


def column(*values, bold=None, direction="false", **columns):
    """A column of a table, with one cell of it bold."""
    names = "ABCDEFGH"
    return [
        cell("FID", value, method=names[number], higher_is_better=direction, **columns)
        | {"emphasis": "bold" if number == bold else ""}
        for number, value in enumerate(values)
    ]


def quoted(own, value, **columns):
    """A number of A in its own paper, and quoted by another."""
    return [
        cell("FID", own, paper="A 2019", variant="", dataset="CUB", protocol="FID"),
        cell("FID", value, **{"paper": "B 2020", "dataset": "CUB", "variant": "quoted", "protocol": "FID"} | columns),
    ]


# Rule to rows that obey it, rows that do not, and what is found in these.
CASES = {
    "mp": (mp("0.101", "0.281", "0.072"), mp("0.101", "0.281", "0.079"), [FAULT]),
    "difference": (delta(3.64, 4.33, 0.69, "|center - object|"), delta(3.64, 4.33, 0.96, "|center - object|"), [FAULT]),
    "ranks": (ranked("1.21", "2.98", "1.81"), ranked("1.21", "2.98", "1.18"), [FAULT]),
    "psnr-mse": (
        [cell("PSNR", "21.0"), cell("MSE", "0.0100")],
        [cell("PSNR", "19.0"), cell("MSE", "0.0100")],
        [FAULT],
    ),
    "psnr-l1": (
        [cell("PSNR", "21.0"), cell("L1", "3.9", unit="%")],
        [cell("PSNR", "9.0"), cell("L1", "0.10")],
        [FAULT],
    ),
    "l1-mse": ([cell("L1", "0.10"), cell("MSE", "0.02")], [cell("L1", "0.30"), cell("MSE", "0.02")], [FAULT]),
    "range": ([cell("SSIM", "0.93"), cell("FID", "0")], [cell("SSIM", "1.20"), cell("FID", "-1.0")], [FAULT, FAULT]),
    "classes": (
        [cell("IS", "49.0", protocol="IS with CUB-finetuned Inception"), cell("IS", "247.67", protocol="IS")],
        [cell("IS", "51.0", protocol="IS with CUB-finetuned Inception"), cell("IS", "1100", protocol="IS")],
        [FAULT, FAULT],
    ),
    "order": (
        [cell("R-precision", value, unit="%", protocol=f"R-precision, k={k}") for k, value in ((1, 57.7), (3, 60.4))],
        [cell("R-precision", value, unit="%", protocol=f"R-precision, k={k}") for k, value in ((1, 60.4), (3, 57.7))],
        [FAULT],
    ),
    "uncertainty": (
        [cell("user score", "3.31", unit="1-5", uncertainty="1.38"), cell("IS", "4.36", uncertainty=".03")],
        [
            cell("user score", "4.90", unit="1-5", uncertainty="1.38"),
            cell("IS", "4.36", uncertainty="-.03"),
            cell("IS", "1.36", uncertainty="2.0"),
        ],
        [FAULT, FAULT, QUESTION],
    ),
    "bold": (
        [*column(4.5, 4.1, 4.3, bold=1), *column(4.5, 4.1, 4.3, bold=1, dataset="COCO")],
        [
            *column(4.5, 4.1, 4.3, bold=1),
            *column(4.5, 4.1, 4.3, bold=1, dataset="COCO"),
            *column(4.5, 4.1, 4.3, bold=0, dataset="CUB"),
        ],
        [FAULT],
    ),
    "unit": (
        [cell("accuracy", value, unit="%") for value in (93, 88, 0)],
        [cell("accuracy", value, unit="%") for value in (93, 88, 0.91)],
        [QUESTION],
    ),
    "digits": (column("1.20", "3.45", "2.00"), column("1.2", "3.45", "2.00"), [NOTE]),
    "baseline": (quoted("19.32", "19.3"), quoted("19.32", "21.42"), [QUESTION]),
    "duplicate": (
        [cell("IS", "4.36", dataset="CUB"), cell("IS", "4.36", dataset="COCO")],
        [cell("IS", "4.36", dataset="CUB"), cell("IS", "4.63", dataset="CUB")],
        [FAULT],
    ),
    "recalled": (
        [cell("IS", "4.36", confidence="read"), cell("IS", "4.36", confidence="recalled", dataset="CUB")],
        [cell("IS", "4.36", confidence="read"), cell("IS", "4.36", confidence="from a talk", dataset="CUB")],
        [QUESTION],
    ),
}


def test_every_rule_has_a_case_that_passes_and_one_that_fails():
    assert CASES.keys() == RULES.keys()


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_passes_what_obeys_it(rule):
    obeying, *_ = CASES[rule]
    outcome = run(RULES[rule], rows(*obeying))
    assert not outcome.findings
    assert outcome.judged or rule == "recalled"  # which judges what tables select


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_finds_a_break(rule):
    _, breaking, expected = CASES[rule]
    found = rows(*breaking)
    outcome = run(RULES[rule], found)
    assert [finding.weight for finding in outcome.findings] == expected
    for finding in outcome.findings:
        assert finding.rule == rule
        assert all((finding.printed, finding.needed, finding.arithmetic))
        assert re.match(r"x\.csv:\d+", finding.where)
        assert finding.papers.startswith(("P 2020", "B 2020"))


@pytest.mark.parametrize("rule", RULES)
def test_every_row_is_judged_or_it_is_said_why_not(rule):
    for lines in CASES[rule][:2]:
        found = rows(*lines, cell("nonsense", 1))
        outcome = run(RULES[rule], found)
        assert len(outcome.judged) + outcome.unjudged.total() == len(found)


def test_help_lists_every_rule_with_its_identity():
    for name, rule in RULES.items():
        assert re.search(rf"^  {name} +{re.escape(rule.summary)}$", lint.HELP, re.MULTILINE)
        assert rule.reason, f"{name} says not why it holds"
    assert all(column in lint.HELP for column in (*REQUIRED, *OPTIONAL))


# --- identities hold for whatever numbers obey them ---


@quick
@given(st.floats(-1, 1), st.floats(0, 1), st.integers(2, 4), st.sampled_from([ROUND_HALF_UP, ROUND_DOWN]))
def test_mp_of_any_sim_and_diff_is_no_fault_and_a_slip_is_one(sim, diff, digits, rounding):
    parts = printed(sim, digits), printed(diff, digits)
    true = printed((1 - diff) * sim, digits, rounding)
    assert weights("mp", rows(*mp(*parts, true))) == []
    slip = Decimal(true) + 6 * Decimal(1).scaleb(-digits)
    assert weights("mp", rows(*mp(*parts, slip))) == [FAULT]


def test_a_table_is_told_to_be_rounded_truncated_or_neither():
    def said(*lines):
        (remark,) = run(RULES["mp"], rows(*lines)).remarks
        return remark

    assert "rounded or truncated" in said(*mp("0.100", "0.500", "0.050"))
    assert "truncated, not rounded" in said(*mp("0.077", "0.442", "0.042"))  # 0.04297
    assert "MP is rounded:" in said(*mp("0.07700", "0.46000", "0.042"))  # 0.04158
    assert "neither" in said(*mp("0.077", "0.442", "0.050"))


def test_means_over_seeds_differ_from_the_mean_product_by_no_more_than_both_spreads_allow():
    by_seed = np.array([[0.1, 0.5], [0.3, 0.1]])  # sim and diff, which go together
    sim, diff = by_seed.mean(0)
    product = ((1 - by_seed[:, 1]) * by_seed[:, 0]).mean()
    assert abs((1 - diff) * sim - product) > 0.01
    lines = mp(printed(sim, 4), printed(diff, 4), printed(product, 4))
    assert weights("mp", rows(*lines)) == [FAULT]
    spreads = by_seed.std(0, ddof=1)
    with_spread = [line | {"uncertainty": printed(spread, 4)} for line, spread in zip(lines, [*spreads, 0.1])]
    assert weights("mp", rows(*with_spread)) == []


@quick
@given(st.floats(0, 99), st.floats(0, 99), st.integers(0, 3), st.booleans())
def test_any_difference_to_its_printed_digits_is_no_fault_and_a_slip_is_one(first, second, digits, is_size):
    true = abs(first - second) if is_size else first - second
    protocol = "|center - object|" if is_size else "center minus object"
    for rounding in (ROUND_HALF_UP, ROUND_DOWN):
        shown = printed(true, digits, rounding)
        assert (
            weights("difference", rows(*delta(printed(first, digits), printed(second, digits), shown, protocol))) == []
        )
    slip = Decimal(shown) + 3 * Decimal(1).scaleb(-digits)
    lines = delta(printed(first, digits), printed(second, digits), slip, protocol)
    assert weights("difference", rows(*lines)) == [FAULT]


@pytest.mark.parametrize(("gain", "expected"), [("-0.40", []), ("0.40", [FAULT])])
def test_a_gain_has_a_sign(gain, expected):
    lines = [
        ("FID", "3.60", "guided, 50 steps"),
        ("FID", "4.00", "unguided"),
        ("FID gain", gain, "guided minus unguided"),
    ]
    found = rows(*(cell(metric, value, protocol=protocol) for metric, value, protocol in lines))
    assert weights("difference", found) == expected


def test_a_difference_that_says_not_of_what_is_not_judged():
    outcome = run(RULES["difference"], rows(*delta(3.64, 4.33, 9, "see text")))
    assert not outcome.findings
    assert outcome.unjudged["of what it is the difference is not told"] == 1


@quick
@given(st.integers(2, 6), st.integers(1, 30), st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_mean_ranks_of_any_judges_are_no_fault_and_a_slip_is_one(count, judges, seed, digits):
    drawn = np.random.default_rng(seed).permuted(np.tile(np.arange(1, count + 1), (judges, 1)), axis=1).mean(0)
    shown = [printed(value, digits) for value in drawn]
    assert weights("ranks", rows(*ranked(*shown))) == []
    shown[0] = str(Decimal(shown[0]) - Decimal(count + 1).scaleb(-digits))
    assert weights("ranks", rows(*ranked(*shown))) == [FAULT]


def test_ranks_whose_sum_is_too_large_may_be_of_fewer_rows_than_were_ranked():
    """The best three of four, whose own ranks are in this order most of the time, have this sum."""
    assert weights("ranks", rows(*ranked("1.20", "2.02", "2.90"))) == [QUESTION]


def test_mp_may_be_in_per_cent():
    assert weights("mp", rows(*mp("42.0", "20.0", "33.6"))) == []
    (finding,) = run(RULES["mp"], rows(*mp("42.0", "20.0", "36.3"))).findings
    assert finding.arithmetic == "(100 - 20.0) * 42.0 / 100 = 33.60"


def test_ranks_of_which_rows_are_missing_are_not_judged():
    outcome = run(RULES["ranks"], rows(*ranked("2.5", "3.1")))
    assert not outcome.findings
    assert outcome.unjudged["rows are missing"] == 2


@quick
@given(st.integers(1, 8), st.integers(0, 2**32 - 1), st.floats(0.2, 5))
def test_errors_of_any_images_obey_the_bounds_between_psnr_mse_and_l1(count, seed, power):
    errors = np.random.default_rng(seed).uniform(0, 1, (count, 64)) ** power
    l1, mse = errors.mean(1), (errors**2).mean(1)
    shown = {
        "PSNR": printed((-10 * np.log10(mse)).mean(), 2),
        "MSE": printed(mse.mean(), 5),
        "L1": printed(l1.mean(), 5),
    }
    found = rows(*(cell(metric, value) for metric, value in shown.items()))
    assert weights("psnr-mse", found) == weights("l1-mse", found) == []
    assert FAULT not in weights("psnr-l1", found)
    least = -10 * np.log10(float(shown["MSE"]) + 1e-5)
    assert weights("psnr-mse", rows(cell("PSNR", printed(least - 0.1, 2)), cell("MSE", shown["MSE"]))) == [FAULT]
    assert weights("l1-mse", rows(cell("L1", shown["L1"]), cell("MSE", printed(l1.mean() + 0.01, 5)))) == [FAULT]


@pytest.mark.parametrize(
    ("rule", "pair"),
    [
        ("psnr-mse", [cell("psnr", "20"), cell("mse", "-0.5")]),
        ("psnr-l1", [cell("psnr", "20"), cell("l1", "-0.5")]),
        ("l1-mse", [cell("l2", "0.1"), cell("l1", "-0.5")]),
    ],
)
def test_an_error_below_0_is_out_of_its_range_and_judges_nothing_else(rule, pair):
    found = rows(*pair)
    assert run(RULES[rule], found).unjudged == {"an error below 0": 2}
    assert weights("range", found) == [FAULT]


def test_an_mp_of_many_digits_is_judged():
    assert weights("mp", rows(*mp("0.5", "0.5", "1e-40"))) == [FAULT]


def test_units_of_errors_are_heeded():
    assert weights("psnr-mse", rows(cell("PSNR", "20.2"), cell("MSE", "650.25"))) == []  # of images in [0, 255]
    assert weights("psnr-mse", rows(cell("PSNR", "19.8"), cell("MSE", "650.25"))) == [FAULT]
    assert weights("psnr-l1", rows(cell("PSNR", "9.0"), cell("L1", "10.0", unit="%"))) == [FAULT]
    outcome = run(RULES["psnr-l1"], rows(cell("PSNR", "9.0"), cell("L1", "10.0")))
    assert outcome.unjudged["range of L1 not told"] == 2
    assert weights("l1-mse", rows(cell("L1", "0.16"), cell("L2", "0.20"))) == []  # the root of a square of 0.04


def test_an_l1_that_is_too_large_for_its_psnr_is_one_question_for_a_table():
    pairs = [("Q", "0.66", "13.2"), ("R", "0.44", "17.3"), ("S", "0.01", "20.1")]
    lines = [cell(metric, value, method=name) for name, l1, db in pairs for metric, value in (("L1", l1), ("PSNR", db))]
    (finding,) = run(RULES["psnr-l1"], rows(*lines)).findings
    assert finding.weight is QUESTION
    assert {row["method"] for row in finding.rows} == {"Q", "R"}


@quick
@given(st.lists(st.floats(1, 5), min_size=2, max_size=9))
def test_spreads_of_any_scores_on_a_scale_are_no_fault(scores):
    mean, spread = np.mean(scores), np.std(scores, ddof=1)
    found = rows(cell("user score", printed(mean, 2), unit="1-5", uncertainty=printed(spread, 2)))
    assert weights("uncertainty", found) == []


@quick
@given(st.integers(2, 50), st.integers(2, 200), st.integers(0, 2**32 - 1), st.floats(0.01, 3))
def test_no_inception_score_exceeds_the_number_of_classes(count, images, seed, sharpness):
    logits = np.random.default_rng(seed).normal(size=(images, count)) / sharpness
    each = np.exp(logits - logits.max(1, keepdims=True))
    each /= each.sum(1, keepdims=True)
    score = np.exp((each * (np.log(each + 1e-300) - np.log(each.mean(0)))).sum(1).mean())
    found = rows(cell("IS", printed(max(score, 1), 2), protocol="IS with CUB-finetuned Inception"))
    assert weights("classes", found) == weights("range", found) == []


@pytest.mark.parametrize(
    ("metric", "value", "columns", "expected"),
    [
        ("SSIM", "93.1", {"unit": "%"}, []),
        ("SSIM", "-0.2", {}, []),
        ("SSIM", "101", {"unit": "%"}, [FAULT]),
        ("CLIPSIM", "24.2", {"protocol": "SIM x100"}, []),
        ("CLIPSIM", "124.2", {"protocol": "SIM x100"}, [FAULT]),
        ("R-precision", "-0.1", {"unit": "%"}, [FAULT]),
        ("accuracy", "1.3", {}, [FAULT]),
        ("CIDEr", "144.2", {}, []),
        ("CIDEr", "1001", {}, [FAULT]),
        ("IS", "0.9", {}, [FAULT]),
        ("IS", "1", {}, []),
        ("LPIPS", "1.155", {}, []),
        ("LPIPS", "-0.1", {}, [FAULT]),
        ("KID", "-0.001", {}, []),  # its unbiased estimator may be
        ("user score", "5.1", {"unit": "1-5"}, [FAULT]),
        ("user rank", "0.9", {}, [FAULT]),
        ("FID", "-0.004", {}, [FAULT]),
        ("FID", "-0.00", {}, []),
        ("L1 delta", "-3", {"unit": "%"}, []),
    ],
)
def test_ranges(metric, value, columns, expected):
    assert weights("range", rows(cell(metric, value, **columns))) == expected


# --- columns and sources ---


def test_bold_heeds_direction_ties_ground_truth_and_what_bold_means_in_a_table():
    assert weights("bold", rows(*column(4.5, 4.1, bold=0, direction="true"))) == []
    assert weights("bold", rows(*column(4.1, 4.1, 4.3, bold=1))) == []
    truth = cell("FID", 0.1, method="Ground truth", higher_is_better="false", emphasis="")
    assert weights("bold", rows(*column(4.5, 4.1, bold=1), truth)) == []
    second = cell("FID", 4.2, method="Z", higher_is_better="false", emphasis="underlined")
    assert weights("bold", rows(*column(4.5, 4.1, 4.3), second)) == []
    own = [line for name in ("CUB", "COCO", "Oxford-102") for line in column(9, 8, 7, bold=0, dataset=name)]
    assert weights("bold", rows(*own)) == [NOTE]


def test_a_bold_cell_without_a_direction_is_named_and_its_column_is_judged_with_it():
    """Whether the best is the largest is not told of it; beside another it is of that one's column all the same."""
    lines = [*column(4.5, 4.1, bold=0, direction=""), *column(9, 8, bold=1, dataset="COCO")]
    outcome = run(RULES["bold"], rows(*lines))
    (finding,) = outcome.findings
    assert (finding.weight, finding.where, finding.needed) == (NOTE, "x.csv:2", "true or false in higher_is_better")
    assert outcome.unjudged["emphasis without a direction"] == 1
    assert len(outcome.judged) == 1
    alone = run(RULES["bold"], rows(*lines[:2]))
    assert (len(alone.findings), alone.unjudged["emphasis without a direction"]) == (1, 1)
    (finding,) = run(RULES["bold"], rows(*column(4.5, 4.1, bold=0, direction="lower"))).findings
    assert (finding.weight, finding.printed) == (NOTE, "bold or underlined: 1, with higher_is_better 'lower'")
    several = [*column(3, 2, bold=1, dataset="COCO"), *column(9, 8, bold=1)]
    several[-2]["higher_is_better"] = ""
    several[-2]["value"] = "7"  # the best, whose direction is told by the others of its column
    assert weights("bold", rows(*several)) == [FAULT]


def test_words_that_are_no_emphasis_are_found_once_each():
    lines = column(4.5, 4.1, 4.3, 4.4, bold=1)
    for line, word in zip(lines, ("italic", "Bold", " - ", "italic")):
        line["emphasis"] = word
    outcome = run(RULES["bold"], rows(*lines))
    (finding,) = outcome.findings
    assert (finding.weight, finding.where) == (QUESTION, "x.csv:2")
    assert (finding.printed, finding.needed) == ("emphasis 'italic'", "bold or underlined")
    assert finding.arithmetic == "not judged, of 2 rows"
    assert outcome.unjudged == {"another word in emphasis": 2, "neither bold nor underlined": 1}


def test_a_wrong_bold_cell_that_is_the_only_one_is_a_question_and_one_among_right_ones_a_fault():
    """One cell shows no other meaning of bold, and none shows that it is the usual one."""
    (alone,) = run(RULES["bold"], rows(*column(4.5, 4.1, 4.3, bold=0))).findings
    assert (alone.weight, alone.needed) == (QUESTION, "the best, the smallest")
    assert alone.arithmetic == "from best to worst: B 4.1, C 4.3, A 4.5"
    right = column(4.5, 4.1, bold=1, dataset="COCO")
    assert weights("bold", rows(*column(4.5, 4.1, 4.3, bold=0), *right)) == [FAULT]


def test_a_number_that_was_recalled_convicts_nobody():
    lines = CASES["ranks"][1]
    assert weights("ranks", rows(*(line | {"confidence": "read"} for line in lines))) == [FAULT]
    doubtful = [{**lines[0], "confidence": "recalled"}, *(line | {"confidence": "read"} for line in lines[1:])]
    (finding,) = run(RULES["ranks"], rows(*doubtful)).findings
    assert finding.weight is QUESTION
    assert "as recalled" in finding.origin


def test_a_recalled_number_that_a_table_judges_by_is_found():
    first, second = rows(
        cell("IS", "4.36", confidence="read"), cell("IS", "4.36", confidence="recalled", dataset="CUB")
    )
    judged = [replace(row, judged_by=("x",)) for row in (first, second)]
    (finding,) = run(RULES["recalled"], judged).findings
    assert finding.rows == (judged[1],)
    assert "x judges by it" in finding.arithmetic


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"variant": "re-evaluation"}, [NOTE]),
        ({"protocol": "FID, retrained by the authors"}, [NOTE]),
        ({"variant": "released model"}, []),
        ({"protocol": "zero-shot FID"}, []),
        ({"protocol": "FID, TTUR TensorFlow"}, []),
        ({"dataset": "COCO"}, []),
        ({"variant": ""}, [QUESTION]),
    ],
)
def test_another_value_in_another_paper(columns, expected):
    assert weights("baseline", rows(*quoted("19.32", "21.42", **columns))) == expected


@pytest.mark.parametrize(
    ("own", "value", "expected"),
    [
        ("12.63", "12.64", [QUESTION]),  # a unit of the last digit: a copy has none
        ("12.64", "12.63", [QUESTION]),
        ("12.63", "12.63", []),
        ("19.38", "19.4", []),  # rounded
        ("19.38", "19.3", []),  # cut off
        ("19.35", "19.4", []),
        ("19.40", "19.4", []),
        ("19.40", "19.3", [QUESTION]),
        ("19.34", "19.4", [QUESTION]),
        ("-0.38", "-0.3", []),
        ("-0.38", "-0.4", []),
        ("-0.38", "-0.5", [QUESTION]),
        ("0.04", "-0.0", []),
        ("19.4", "19.38", []),  # whoever quotes it had it from elsewhere
        ("19.4", "19.5", [QUESTION]),
        ("1." + 40 * "3", "1." + 39 * "3" + "4", [QUESTION]),
    ],
)
def test_a_quotation_is_a_copy_or_has_fewer_digits_of_it(own, value, expected):
    assert weights("baseline", rows(*quoted(own, value))) == expected
    two = [line | {"method": "Z", "variant": "quoted"} for line in quoted(own, value)]  # from a paper that is not here
    assert weights("baseline", rows(*two)) == expected


@pytest.mark.parametrize(
    "columns",
    [
        {"paper": "A 2019", "table": "Table 2"},
        {"protocol": "zero-shot FID"},
        {"protocol": "FID, TTUR TensorFlow"},
        {"split": "val"},
        {"dataset": "COCO"},
        {"variant": "released model"},
        {"variant": "re-evaluation"},
    ],
)
def test_a_unit_of_the_last_digit_is_no_misquotation_of_something_else(columns):
    """In the same paper, of something else, measured again; or so far off that another protocol explains it."""
    own, other = quoted("6.3", "6.4", **columns)
    assert weights("baseline", rows(own | {"split": "test"}, {"split": "test"} | other)) == []


def test_a_quotation_is_of_the_variant_that_it_names_and_says_where_its_number_stands():
    own = [
        cell("FID", value, paper="A 2019", variant=f"big {size}", dataset="CUB", resolution=size, protocol="FID")
        for value, size in (("3.94", "256"), ("3.85", "512"))
    ]
    quotation = cell(
        "FID", "3.85", paper="B 2020", variant="big, quoted", dataset="CUB", resolution="256", protocol="FID"
    )
    (finding,) = run(RULES["baseline"], rows(*own, quotation)).findings
    assert finding.needed == "3.94"
    assert "3.85 is that of A (big 512) on CUB at 512" in finding.arithmetic
    assert weights("baseline", rows(*own, {**quotation, "value": "3.94"})) == []


def test_two_quotations_disagree_where_the_original_is_not_here():
    lines = [
        cell("FID", value, method="Z", paper=paper, variant="quoted", dataset="CUB", protocol="FID")
        for value, paper in (("9.30", "B 2020"), ("9.33", "C 2021"))
    ]
    assert weights("baseline", rows(*lines)) == [QUESTION]
    assert weights("baseline", rows(lines[0], {**lines[1], "value": "9.3"})) == []
    many = [{**lines[1], "paper": f"{number} 2022"} for number in range(4)]
    assert weights("baseline", rows(*lines, *many)) == [QUESTION]  # one for all of them


def test_an_end_of_a_range_is_exact_however_it_is_printed():
    assert weights("digits", rows(*column("1.20", "3.45", "0"))) == []
    shares = [cell("accuracy", value, unit="%", method=value) for value in ("91.20", "88.45", "100")]
    assert weights("digits", rows(*shares)) == []
    assert weights("digits", rows(*column("1.20", "3.4", "5.67", "8"))) == []  # no number of digits is that of most


def test_the_same_value_twice_is_a_note():
    assert weights("duplicate", rows(cell("IS", "4.36"), cell("IS", "4.360"))) == [NOTE]


# --- the numbers that come with mmbench ---


@pytest.fixture(scope="module")
def shipped():
    """What the rules find in the published numbers, by rule."""
    return lint._audited([], list(RULES.values()))


def found_by(audited, rule):
    return [finding for finding in audited.findings if finding.rule == rule]


def test_the_misprints_of_tdanets_table_are_found(shipped):
    wrong = {
        (one.rows[0]["method"], one.rows[0]["dataset"], one.rows[0]["metric"], one.needed)
        for one in found_by(shipped, "difference")
    }
    assert wrong == {("CSA", "CUB", "SSIM delta", "10.04"), ("PICNet", "COCO", "PSNR delta", "0.84")}
    (bold,) = found_by(shipped, "bold")
    assert (bold.weight, bold.rows[0].printed, bold.rows[0]["protocol"]) == (FAULT, "4.54", "center mask")
    assert "CSA 4.19, PICNet 4.51, TDANet 4.54" in bold.arithmetic
    ranks = {finding.weight: finding for finding in found_by(shipped, "ranks")}
    assert "= 9.898" in ranks[FAULT].arithmetic
    assert ranks.keys() == {FAULT, QUESTION}  # the other is recalled


def test_baselines_that_are_quoted_a_last_digit_off_are_found(shipped):
    found = [one for one in found_by(shipped, "baseline") if one.weight is QUESTION]
    pairs = {
        (one.rows[0]["method"], one.rows[0]["metric"], frozenset(row.printed for row in one.rows[:2])) for one in found
    }
    assert {
        ("LDM", "FID", frozenset({"12.63", "12.64"})),
        ("M2 Transformer", "METEOR", frozenset({"29.1", "29.2"})),
        ("PYoCo", "FVD", frozenset({"355.19", "355.20"})),
        ("ADM", "Precision", frozenset({"0.83", "0.84"})),  # which, as the FID beside it, is that of 512 pixels
    } <= pairs
    assert all(len({row["paper"] for row in one.rows}) > 1 for one in found)


def test_manigans_mp_is_truncated(shipped):
    (remark,) = shipped.outcomes[RULES["mp"]].remarks
    assert "ManiGAN" in remark
    assert "truncated, not rounded: 14 of 14 rows" in remark
    assert not found_by(shipped, "mp")


def test_no_table_judges_by_a_recalled_number_and_tables_do_judge_by_read_ones(shipped):
    outcome = shipped.outcomes[RULES["recalled"]]
    assert not outcome.findings
    experiment = load("manigan")
    judging = {row for row in outcome.judged if "manigan" in row.judged_by}
    assert len(judging) == sum(len(published(experiment, row)) for row in experiment.rows)
    assert all(row["confidence"] == "read" for row in outcome.judged)


def test_every_published_row_is_judged_or_it_is_said_why_not(shipped):
    for rule, outcome in shipped.outcomes.items():
        assert len(outcome.judged) + outcome.unjudged.total() == shipped.rows, rule.name


def test_what_mmbench_publishes_of_itself_has_no_fault_and_no_question():
    toy = read(PUBLISHED / "toy.csv", "toy.csv")
    assert not [one for one in audit(toy, list(RULES.values()), "toy.csv").findings if one.weight is not NOTE]


def test_the_committed_page_is_what_the_command_says(tmp_path, capsys):
    assert lint.main([f"out={tmp_path / 'lint.md'}"]) == 0
    text = (tmp_path / "lint.md").read_text(encoding="utf-8")
    assert text == (ROOT / "results/tables/lint.md").read_text(encoding="utf-8"), "make lint-published"
    assert "rows of 7 files in results/published" in capsys.readouterr().out


# --- the command ---

GOOD = "method,metric,value\nA,FID,12.3\nB,FID,45.6\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file where the command is run."""
    monkeypatch.chdir(tmp_path)

    def write(content, name="mine.csv"):
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    return write


def test_a_file_with_the_least_columns_says_which_rules_cannot_run(write, capsys):
    assert lint.main([write(GOOD), "format=json"]) == 0
    said = {rule["rule"]: rule for rule in json.loads(capsys.readouterr().out)["rules"]}
    assert said.keys() == RULES.keys()
    for name, rule in RULES.items():
        if rule.needs:
            assert said[name]["not judged"] == {f"no column {rule.needs[0]} in mine.csv": 2}
    assert said["range"]["judged"] == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty file"),
        (b"\n \n", "empty file"),
        (b"method,metric,value\n", "found none"),
        ("method,metric,value\nÄ,FID,1\n".encode("latin-1"), "expected UTF-8, found the byte 0xc4"),
        (GOOD.encode("utf-16"), "expected UTF-8"),
        (GOOD.replace(",", ";"), "found semicolons"),
        (GOOD.replace(",", "\t"), "found tabs"),
        ("method,metric,value,value\nA,FID,1,2\n", "found 'value' twice"),
        ("method,value\nA,1\n", "found no metric"),
        ("method,metric,value\nA,FID,12.3 %\n", "mine.csv:2: expected a number in value, found '12.3 %'"),
        ("method,metric,value\nA,FID,nan\n", "found 'nan'"),
        ("method,metric,value\nA,FID,1e999\n", "found '1e999'"),
        ("method,metric,value\nA,FID,１２\n", "expected a number"),  # noqa: RUF001
        ("method,metric,value,uncertainty\nA,FID,1,small\n", "expected a number in uncertainty"),
        ("method,metric,value\nA, B,FID,1\n", "mine.csv:2: expected 3 fields"),
        ('method,metric,value\n"A\nB",FID,1\nC,FID,x\n', "mine.csv:4: expected a number"),
        ('method,metric,value\nA,"FID,1\n', "expected a CSV"),
    ],
)
def test_a_file_that_is_no_such_csv_is_refused_in_one_line(write, content, said):
    with pytest.raises(ValueError, match="expected ") as refused:
        lint.main([write(content)])
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_byte_order_mark_and_cells_without_a_number_are_taken(write, capsys):
    assert lint.main([write(b"\xef\xbb\xbf" + GOOD.encode() + b"C,FID,-\nD,FID,\n\n")]) == 0
    assert "in 2 rows of mine.csv" in capsys.readouterr().out


def test_words_that_are_none_are_refused(write):
    name = write(GOOD)
    for words, said in (
        (["rule=mpp"], "did you mean mp"),
        (["format=xml"], "expected a format"),
        (["strict=yes"], "expected a value of strict"),
        (["rules=mp"], "did you mean rule"),
        (["--strict"], "expected key=value"),
        (["absent.csv"], "No such file"),
        (["."], "expected a CSV file"),
        ([f"out={name}"], "another file for out="),
        (["out="], "expected out=VALUE"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            lint.main([name, *words])
    assert Path(name).read_text() == GOOD


def test_strict_alone_makes_a_fault_an_error(write):
    bad, good = write("method,metric,value\nA,IS,0.5\n", "bad.csv"), write(GOOD)
    assert lint.main([bad]) == lint.main([good, "strict=true"]) == lint.main([bad, "strict=false"]) == 0
    assert lint.main([bad, "strict=true"]) == lint.main([good, bad, "strict=true"]) == 1
    assert lint.main([bad, "strict=true", "rule=mp,bold"]) == 0


def test_every_format_has_every_finding(write, capsys):
    name = write("method,metric,value\nA|<b>,IS,0.5\n")
    for form in FORMATS:
        assert lint.main([name, "rule=range", f"format={form}"]) == 0
        text = capsys.readouterr().out
        assert "mine.csv:2" in text
        assert (
            "0.5 < 1: the exponential of a divergence".replace("<", {"html": "&lt;", "markdown": "\\<"}.get(form, "<"))
            in text
        )
        assert ("<b>" not in text.replace("\\<b>", "")) == (form in ("html", "markdown"))
        lint.main([name, "rule=range", f"out=found{ {form: end for end, form in lint.ENDINGS.items()}[form] }"])
        assert capsys.readouterr().out.startswith("1 fault, 0 questions, 0 notes in 1 row of mine.csv: found")
    assert Path("found.html").read_text().startswith("<!doctype html>")
    lines = list(csv.DictReader(io.StringIO(Path("found.csv").read_text())))
    assert [(line["rule"], line["severity"], line["where"]) for line in lines] == [("range", "fault", "mine.csv:2")]
    assert len(json.loads(Path("found.json").read_text())["findings"]) == 1
    table = [line for line in Path("found.md").read_text().splitlines() if line.startswith("| fault")]
    assert len(re.findall(r"(?<!\\)\|", table[0])) == 9  # the bar of the name is none of the table


def test_files_are_told_apart(write):
    first, second = write(GOOD, "a.csv"), write(GOOD, "b.csv")
    found = lint._audited([first, second], [RULES["duplicate"]])
    assert not found.findings
    assert grouped((row for outcome in found.outcomes.values() for row in outcome.judged), ["file"]).keys() == {
        ("a.csv",),
        ("b.csv",),
    }


def test_it_is_light():
    assert "lint" in LIGHT
    look = (
        "import sys; from mmbench.commands import lint; lint.main(['rule=mp']); "
        "print({*sys.modules} & {'torch', 'pandas', 'pytorch_lightning'})"
    )
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_published_folder_has_no_other_file_of_ours():
    assert lint.OWN in {path.stem for path in catalogue.shipped("results/published").glob("*.csv")}
