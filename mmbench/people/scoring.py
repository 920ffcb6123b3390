"""What the answers of a study say: of each method, and of how far people agree."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from mmbench.core import catalogue
from mmbench.core.noise import random_stream
from mmbench.people.answers import Answers
from mmbench.people.gathering import TRUTH
from mmbench.people.questions import QUESTIONS
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.experiments import Experiment
from mmbench.pipeline.publications import listed
from mmbench.statistics.agreement import chance_of_w, interval_over_items, kendalls_w, krippendorffs_alpha
from mmbench.statistics.preference import bradley_terry, win_rates, wins_of_ranks

PUBLISHED = {"user rank": "ranks", "human rank": "ranks"}  # metric of a published study to the kind that it was
RANK, RATE, STRENGTH, GRADE = "mean rank", "win rate", "strength", "mean grade"
CONCORDANCE = "Kendall's W"


@dataclass(frozen=True)
class Statistic:
    """A number that a study has found.

    Attributes:
        question: name of the question.
        measure: what it is.
        method: of which method; "" where it is of all of them.
        value: the number; None where there is none.
        low, high: its 95 % interval over items; None where there is none.
        published: what a published study found, as printed, by its data set.
        chance: what it would be in the mean of raters who see no difference; None where that is not asked.
        p: how often such raters reach the value.
    """

    question: str
    measure: str
    method: str
    value: float | None
    low: float | None
    high: float | None
    published: Mapping[str, str] = field(default_factory=dict)
    chance: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Findings:
    """What a study has found.

    Attributes:
        statistics: by question, measure and method.
        counts: question to its number of judgements.
        remarks: sentences on what is to be known of published values.
    """

    statistics: list[Statistic]
    counts: dict[str, int]
    remarks: list[str] = field(default_factory=list)


def judged(kind: str, answers: Sequence[Answers], key: Mapping[str, Any], question: int) -> np.ndarray:
    """What was said of each method on a question, checks left out: (M, N, K) float of raters, items and methods.

    Ranks, 1 the best, or grades; of a pair 1 for the better one and 2 for the other, 1.5 where neither is better. NaN
    of what a rater has not judged.
    """
    found = np.full((len(answers), len(key["items"]), len(key["methods"])), np.nan)
    for place, mine in enumerate(answers):
        for screen in key["raters"][mine.rater - 1]:
            if screen["check"] or screen["question"] != question or screen["id"] not in mine.given:
                continue
            value, _ = mine.given[screen["id"]]
            for picture, number in _numbers(kind, screen["pictures"], value).items():
                found[place, screen["item"], key["pictures"][picture]] = number
    return found


def _numbers(kind: str, shown: Sequence[str], value: Any) -> dict[str, float]:
    if kind == "rubric":
        return {shown[0]: float(value)}
    if kind == "ranks":
        return {picture: 1.0 + place for place, picture in enumerate(value)}
    return {picture: 1.5 if value is None else 1.0 if picture == value else 2.0 for picture in shown}


def findings(answers: Sequence[Answers], key: Mapping[str, Any]) -> Findings:
    """Scores the answers of a study.

    Args:
        answers: at least one, of different people.
    """
    statistics: list[Statistic] = []
    counts, remarks = {}, []
    for place, question in enumerate(key["questions"]):
        scores = judged(key["kind"], answers, key, place)
        there = np.isfinite(scores)
        counts[question] = int(there.sum() if key["kind"] == "rubric" else there.any(axis=2).sum())
        printed, told = published(key, question)
        remarks += told
        for measure, found in measures(key["kind"], scores).items():
            stream = random_stream(key["study"], question, measure)
            items = np.flatnonzero(there.any(axis=(0, 2)))
            of_measure = _with_interval(question, measure, found, items, key["methods"], stream, printed)
            if measure == CONCORDANCE:
                chance, p = map(_or_none, chance_of_w(scores, random_stream(key["study"], question, "shuffles")))
                of_measure = [replace(one, chance=chance, p=p) for one in of_measure]
            statistics += of_measure
    return Findings(statistics, counts, list(dict.fromkeys(remarks)))


def _with_interval(
    question: str,
    measure: str,
    found: Callable[[np.ndarray], Any],
    items: np.ndarray,
    methods: Sequence[str],
    stream: np.random.Generator,
    printed: Mapping[str, Mapping[str, str]],
) -> list[Statistic]:
    """A measure of the items that somebody judged, with its interval: one number, or one of each method."""
    values = np.asarray(found(items), np.float64)
    low, high = interval_over_items(lambda places: found(items[places]), len(items), stream)
    names = methods if values.ndim else [""]
    ends = zip(names, *map(np.atleast_1d, (values, low, high)), strict=True)
    return [
        Statistic(question, measure, name, *map(_or_none, three), printed.get(name, {}) if measure == RANK else {})
        for name, *three in ends
    ]


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def measures(kind: str, scores: np.ndarray) -> dict[str, Callable[[np.ndarray], Any]]:
    """The measures of a kind of study as functions of places of items, of which some may come several times.

    Args:
        scores: (M, N, K), as `judged` gives them.
    """
    if kind == "rubric":
        return {GRADE: lambda items: _mean(scores[:, items]), **_alpha(scores, "ordinal")}
    wins = np.array([sum(wins_of_ranks(ranks) for ranks in of_item) for of_item in scores.swapaxes(0, 1)])
    of_wins = {
        RATE: lambda items: win_rates(wins[items].sum(axis=0)),
        STRENGTH: lambda items: bradley_terry(wins[items].sum(axis=0)),
    }
    if kind == "pairs":
        return {**of_wins, **_alpha(chosen(scores), "nominal")}
    by_item = np.array([_concordance(of_item) for of_item in scores.swapaxes(0, 1)])
    return {
        RANK: lambda items: _mean(scores[:, items]),
        **of_wins,
        CONCORDANCE: lambda items: _mean(by_item[None, items, None])[0],
        **_alpha(scores, "ordinal"),
    }


def _mean(scores: np.ndarray) -> np.ndarray:
    """The mean of (M, N, K) over raters and items, NaN left out: (K,)."""
    there = ~np.isnan(scores)
    count = there.sum(axis=(0, 1))
    return np.divide(
        np.where(there, scores, 0).sum(axis=(0, 1)), count, out=np.full(len(count), np.nan), where=count > 0
    )


def _concordance(ranks: np.ndarray) -> float:
    """Kendall's W of an item's (M, K) ranks, of those who ranked it."""
    return kendalls_w(ranks[~np.isnan(ranks).any(axis=1)])


def _alpha(scores: np.ndarray, level: str) -> dict[str, Callable[[np.ndarray], float]]:
    """Krippendorff's alpha of (M, N, U) scores, U units of each item."""
    raters = len(scores)
    return {
        f"Krippendorff's alpha ({level})": lambda items: krippendorffs_alpha(
            scores[:, items].reshape(raters, -1), level
        )
    }


def chosen(scores: np.ndarray) -> np.ndarray:
    """Which of a pair was chosen: (M, N, K) of pairs to (M, N, P) of all pairs of methods, 1, 2 or 1.5 for neither."""
    pairs = [*combinations(range(scores.shape[2]), 2)]
    return np.stack([np.where(np.isnan(scores[..., second]), np.nan, scores[..., first]) for first, second in pairs], 2)


def published(key: Mapping[str, Any], question: str) -> tuple[dict[str, dict[str, str]], list[str]]:
    """What a published study found on a question: method to its numbers as printed, by data set; and what is to be
    known of them."""
    if key["experiment"] not in catalogue.names("experiment"):
        return {}, []
    experiment = load(key["experiment"])
    lines = [
        line
        for found in (listed(experiment).values() if experiment.listed else ())
        for line in found
        if PUBLISHED.get(line["metric"]) == key["kind"]
        and any(word in line["protocol"] for word in QUESTIONS[question].published)
    ]
    found: dict[str, dict[str, str]] = {}
    told = []
    for data in dict.fromkeys(line["dataset"] for line in lines):
        numbers, remark = _beside(experiment, key["methods"], [line for line in lines if line["dataset"] == data])
        for method, number in numbers.items():
            found.setdefault(method, {})[data] = number
        told.append(remark)
    return found, told


def _beside(
    experiment: Experiment, methods: Sequence[str], lines: Sequence[Mapping[str, str]]
) -> tuple[dict[str, str], str]:
    """What was printed of methods on one data set, and a sentence on it."""
    printed = {line["method"]: line["value"] for line in lines}
    names = {row.label: row.published["method"] for row in experiment.rows if row.published} | {TRUTH: TRUTH}
    found = {method: printed[names[method]] for method in methods if names.get(method) in printed}
    asked = f"The published {lines[0]['metric']} is of {', '.join(printed)} on {lines[0]['dataset']}"
    same = {names.get(method) for method in methods} == printed.keys()
    told = "" if same else ": ranks among other methods cannot be compared number by number"
    return found, f"{asked}{told}."
