"""Claims of papers: what a test of them says, and what it cannot say."""

from dataclasses import replace

import numpy as np
import pytest

from mmbench.core import catalogue
from mmbench.core.noise import Sample
from mmbench.core.results import Result
from mmbench.pipeline import by_sample, claims, comparing, experiment_files
from mmbench.pipeline.cells import Cell, Value, Verdict
from mmbench.pipeline.claims import Outcome
from mmbench.pipeline.experiment_files import load, parsed
from mmbench.pipeline.experiments import Claim
from mmbench.pipeline.publications import Published

IMAGES = 60


def experiment(*said):
    rows = [{"method": name, "data": "cub", "shown": {"method": name, "dataset": "birds"}} for name in "abc"]
    content = {
        "citation": "nobody",
        "protocol": "strict",
        "metrics": {"score": "edit_accuracy", "error": "l1"},
        "rows": rows,
    }
    return parsed("some", {**content, "claims": list(said)})


def claim(first, *others, metric="score"):
    return {"text": "it is so", "where": "here", "rows": [first, *others], "metrics": [metric]}


class Table:
    """Cells of one metric, each with records whose values by image are given."""

    def __init__(self, folder, metric="score", higher=True):
        self.folder, self.metric, self.higher, self.cells = folder, metric, higher, []

    def add(self, label, *by_seed, printed=1.0, **other):
        """A row of which each seed has (N,) values of images; or a number, of which nothing else is known."""
        name = {"score": "edit_accuracy", "error": "l1"}[self.metric]
        records, means = {}, {}
        for seed, found in enumerate(by_seed):
            means[seed] = float(np.mean(found))
            record = Result(
                "some", {"method": label, "data": "cub", "source": "toy"}, seed, {"name": "strict", "hash": ""},
                {name: {"value": means[seed], "std": None, "count": IMAGES, "weights": None}}, f"{label}{seed}", "",
                {"verified": True}, {}, {}, commit="", versions={}, device="", date=f"2026-01-01T00:00:0{seed}+00:00",
            )  # fmt: skip
            if np.ndim(found):
                values = {Sample(f"i{place}", 0, 0): float(value) for place, value in enumerate(found)}
                record = by_sample.keep(record, {name: values}, self.folder)
            records[seed] = record
        mean = float(np.mean(list(means.values()))) if means else None
        value = Value(means, mean, name=name, records=records, **other)
        number = Published(printed, str(printed), None, self.higher, True, "") if printed is not None else None
        verdict = Verdict.NOT_RUN if mean is None else Verdict.TOY
        self.cells.append(Cell(label, "birds", None, len(means), self.metric, number, value, verdict))
        return self

    def judged(self, *said):
        return claims.tested(experiment(*said), self.cells, self.folder)


@pytest.fixture
def drawn():
    return np.random.default_rng(0).normal(0.5, 0.1, (4, IMAGES))


def test_a_claim_holds_where_each_comparison_is_shown(tmp_path, drawn):
    table = Table(tmp_path).add("a", drawn[0] + 0.2, printed=3.0).add("b", drawn[0]).add("c", drawn[1])
    (found,) = table.judged(claim("a", "b", "c"))
    assert found.outcome is Outcome.HOLDS
    assert [test.printed for test in found.tests] == [True, True]
    assert found.tests[0].difference == pytest.approx(0.2)
    assert found.tests[0].basis == "60 images, seeds: 1"
    assert found.said == {"birds": "holds (one seed)"}
    low, high = found.tests[1].interval
    assert low < found.tests[1].difference < high


def test_a_claim_that_is_the_other_way_round_does_not_hold(tmp_path, drawn):
    (found,) = Table(tmp_path).add("a", drawn[0]).add("b", drawn[0] + 0.2).judged(claim("a", "b"))
    assert found.outcome is Outcome.FAILS
    (found,) = (
        Table(tmp_path, "error", higher=False)
        .add("a", drawn[0])
        .add("b", drawn[0] + 0.2)
        .judged(claim("a", "b", metric="error"))
    )
    assert found.outcome is Outcome.HOLDS  # an error is better where it is smaller


def test_seeds_that_overlap_show_no_difference_whatever_their_images_say(tmp_path, drawn):
    better = (drawn[0] + 0.3, drawn[1] + 0.1)
    (found,) = Table(tmp_path).add("a", *better).add("b", drawn[0], drawn[1] + 0.15).judged(claim("a", "b"))
    assert found.tests[0].adjusted < 0.05, "the mean over seeds is better in most images"
    assert found.outcome is Outcome.NO_DIFFERENCE
    assert found.tests[0].basis == "60 images, seeds: 2, which overlap"
    (found,) = Table(tmp_path).add("a", *better).add("b", drawn[0], drawn[1]).judged(claim("a", "b"))
    assert (found.outcome, found.tests[0].basis) == (Outcome.HOLDS, "60 images, seeds: 2")
    assert found.said == {"birds": "holds"}
    (found,) = Table(tmp_path).add("a", *better).add("b", drawn[0] + 0.2).judged(claim("a", "b"))
    assert found.outcome is Outcome.NO_DIFFERENCE, "one seed lies among two"


def test_values_without_a_seed_of_their_own_overlap_with_nothing():
    known, none = Value({0: 0.1, 1: 0.2}, 0.15), Value({}, 0.15)
    assert not comparing.overlapping(known, none)
    assert not comparing.overlapping(none, known)
    assert not comparing.overlapping(Value({0: 0.1}, 0.1), Value({0: 0.1}, 0.1)), "of one seed each nothing is known"
    assert comparing.overlapping(known, Value({0: 0.15}, 0.15))


def test_chance_is_no_difference(tmp_path, drawn):
    (found,) = Table(tmp_path).add("a", drawn[0]).add("b", drawn[1]).judged(claim("a", "b"))
    assert found.outcome is Outcome.NO_DIFFERENCE
    assert found.tests[0].adjusted > 0.05


def test_all_tests_of_a_table_are_corrected_together(tmp_path, drawn):
    shift = 0.1 * 2.4 * np.sqrt(2 / IMAGES)  # about 0.02 alone
    table = Table(tmp_path).add("a", drawn[0] - drawn[0].mean() + shift).add("b", drawn[1] - drawn[1].mean())
    (alone,) = table.judged(claim("a", "b"))
    assert alone.outcome is Outcome.HOLDS
    several = table.judged(*[claim("a", "b")] * 5)
    assert {one.outcome for one in several} == {Outcome.NO_DIFFERENCE}
    assert several[0].tests[0].adjusted == pytest.approx(5 * alone.tests[0].p)


def test_without_values_of_images_three_seeds_are_tested(tmp_path):
    three = Table(tmp_path).add("a", 0.51, 0.52, 0.5).add("b", 0.31, 0.3, 0.32)
    (found,) = three.judged(claim("a", "b"))
    assert found.outcome is Outcome.HOLDS
    assert found.tests[0].basis == "3 seeds only"
    (found,) = Table(tmp_path).add("a", 0.51, 0.52).add("b", 0.3, 0.31).judged(claim("a", "b"))
    assert found.outcome is Outcome.UNDECIDED
    assert found.missing == ["no images to test on that both have, and 2 of 3 seeds are here"]


def test_what_keeps_a_claim_undecided_is_said(tmp_path, drawn):
    table = Table(tmp_path).add("a", drawn[0], outdated="the judge has changed").add("b", drawn[1])
    table.add("c", reason="no record yet")
    first, second = table.judged(claim("a", "b"), claim("b", "c"))
    assert (first.outcome, second.outcome) == (Outcome.UNDECIDED, Outcome.UNDECIDED)
    assert first.missing == ["a: outdated (the judge has changed)"]
    assert second.missing == ["c: no record yet"]


def test_one_comparison_that_fails_outweighs_those_that_hold(tmp_path, drawn):
    table = Table(tmp_path).add("a", drawn[0] + 0.1).add("b", drawn[0]).add("c", drawn[0] + 0.3)
    (found,) = table.judged(claim("a", "b", "c"))
    assert [test.outcome for test in found.tests] == [Outcome.HOLDS, Outcome.FAILS]
    assert found.outcome is Outcome.FAILS
    assert found.said == {"birds": "does not hold (one seed)"}
    many = Table(tmp_path).add("a", drawn[0], drawn[0] + 0.01).add("b", drawn[0] + 0.3, drawn[1] + 0.3)
    (found,) = many.add("c", drawn[0] - 0.2).judged(claim("a", "b", "c"))
    assert found.said == {"birds": "does not hold"}, "which two seeds each say"


def test_columns_of_a_row_are_compared(tmp_path):
    tdanet = load("tdanet_guidance").on("toy")
    (said,) = tdanet.claims
    pairs = list(claims._pairs(tdanet, said))
    assert pairs[0] == (
        ("TDANet", "toy CUB", "caption accuracy right"),
        ("TDANet", "toy CUB", "caption accuracy wrong"),
        ("TDANet, right", "TDANet, wrong"),
    )
    assert len(pairs) == 2  # and on toy scenes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": ["ManiGAN", "StyleGAN"]}, "expected a row for a claim"),
        ({"metrics": ["beauty"]}, "expected a metric for a claim"),
        ({"data": ["ImageNet"]}, "expected a data set for a claim"),
        ({"rows": ["ManiGAN"]}, "expected a claim of two rows"),
    ],
)
def test_a_claim_of_what_the_table_does_not_have_is_refused(change, message, tmp_path, monkeypatch):
    manigan = load("manigan")
    said = {"text": "x", "where": "y", "rows": ["ManiGAN", "TAGAN"], "metrics": ["MP"], **change}
    with pytest.raises(ValueError, match=message):
        experiment_files._require_claims(replace(manigan, claims=[Claim(**said)]), tmp_path / "manigan.yaml")


@pytest.mark.parametrize("name", catalogue.names("experiment"))
def test_every_claim_compares_rows_of_its_table(name):
    found = load(name)
    for said in found.claims:
        rows = {(row.label, row.dataset) for row in found.rows}
        pairs = [places for *places, _ in claims._pairs(found, said) if all(place[:2] in rows for place in places)]
        assert pairs, said.text
