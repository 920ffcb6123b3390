"""Findings of a study as Markdown, CSV and JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from mmbench.people.answers import Answers, attention
from mmbench.people.design import NOISE, REAL
from mmbench.people.scoring import RANK, STRENGTH, Findings, Statistic
from mmbench.statistics.agreement import SHUFFLES
from mmbench.statistics.preference import PRIOR

FORMATS = ("markdown", "csv", "json")
LEGEND = "[ ]: 95 % interval, bootstrap over items."
STRENGTHS = (
    "strength: of Bradley and Terry, mean 0; the odds that one method is preferred to another are exp of the "
    f"difference. A tie counts as half a win of each, and {PRIOR:g} wins that nobody gave are added each way."
)

CHANCE = (
    "by chance: the mean of raters who have nothing in common, 1 / m of m raters; p: how often such raters agree as "
    f"much, each with a taste of his own: methods are named anew for each, on all items alike, {SHUFFLES:,} times."
)


def rendered(form: str, found: Findings, answers: Sequence[Answers], key: Mapping[str, Any]) -> str:
    """Findings in one of `FORMATS`."""
    if form == "json":
        return json.dumps(_whole(found, answers, key), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if form == "csv":
        return pd.DataFrame([*_plain(found.statistics)]).to_csv(index=False)
    parts = [_head(answers, key)]
    for question in key["questions"]:
        of_it = [one for one in found.statistics if one.question == question]
        parts += ["", f"## {question} ({found.counts[question]} judgements)", "", _table(of_it, key["methods"])]
        parts += [f"{one.measure}: {_text(one)}" for one in of_it if not one.method]
    has_strength = any(one.measure == STRENGTH for one in found.statistics)
    has_chance = any(one.chance is not None for one in found.statistics)
    parts += ["", *found.remarks, LEGEND, *([STRENGTHS] if has_strength else []), *([CHANCE] if has_chance else [])]
    return "\n".join(parts) + "\n"


def _head(answers: Sequence[Answers], key: Mapping[str, Any]) -> str:
    raters = "rater" if len(answers) == 1 else "raters"
    planned = len(key["raters"])
    return (
        f"# {key['experiment']}: {key['kind']} by {len(answers)} {raters} ({planned} planned), "
        f"{len(key['items'])} items\n\n"
        f"Study {key['study'][:8]}."
    )


def _headings(statistics: Sequence[Statistic]) -> dict[str, str]:
    """Data set of published numbers to what its column is called."""
    sets = list(dict.fromkeys(data for one in statistics for data in one.published))
    return {data: f"published on {data}" for data in sets} if len(sets) > 1 else dict.fromkeys(sets, "published")


def _plain(statistics: Sequence[Statistic]) -> Iterator[dict[str, Any]]:
    """Statistics with a column of each data set of published numbers, and an empty one where there is none."""
    headings = _headings(statistics) or {"": "published"}
    for one in statistics:
        columns = asdict(one)
        del columns["published"]
        yield columns | {heading: one.published.get(data, "") for data, heading in headings.items()}


def _table(statistics: Sequence[Statistic], methods: Sequence[str]) -> str:
    """A line for each method, a column for each measure; published values beside mean ranks."""
    lines: dict[str, dict[str, str]] = {method: {"method": method} for method in methods}
    headings = _headings(statistics)
    for one in statistics:
        if one.method:
            lines[one.method][one.measure] = _text(one)
            if one.measure == RANK:
                lines[one.method] |= {heading: one.published.get(data, "-") for data, heading in headings.items()}
    return pd.DataFrame(lines.values()).fillna("-").to_markdown(index=False, disable_numparse=True) + "\n"


def _text(one: Statistic) -> str:
    if one.value is None:
        return "-"
    interval = "" if one.low is None or one.high is None else f" [{one.low:.3f}, {one.high:.3f}]"
    chance = "" if one.chance is None or one.p is None else f", {one.chance:.3f} by chance, p = {one.p:.4f}"
    return f"{one.value:.3f}{interval}{chance}"


def _whole(found: Findings, answers: Sequence[Answers], key: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, raw answers too, so that anybody can score them another way."""
    return {
        **{name: key[name] for name in ("study", "experiment", "kind", "questions", "methods", "rows", "items")},
        "statistics": [asdict(one) for one in found.statistics],
        "judgements": found.counts,
        "remarks": found.remarks,
        "raters": [
            {
                "rater": mine.rater,
                "saved": mine.saved.isoformat(),
                "seconds": round(sum(seconds for _, seconds in mine.given.values()), 3),
                "attention": asdict(attention(mine, key)),
                "answers": list(_raw(mine, key)),
            }
            for mine in answers
        ],
    }


def _raw(mine: Answers, key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Answers with the names of what was shown: as they were given, checks too."""

    def named(picture: str) -> str:
        number = key["pictures"][picture]
        return {REAL: "real", NOISE: "noise"}.get(number) or key["methods"][number]

    found = []
    for screen in key["raters"][mine.rater - 1]:
        if screen["id"] in mine.given:
            value, seconds = mine.given[screen["id"]]
            names = {picture: named(picture) for picture in screen["pictures"]}
            found.append(
                {
                    "item": key["items"][screen["item"]]["id"],
                    "question": key["questions"][screen["question"]],
                    "shown": [*names.values()],
                    "value": [names[one] for one in value] if isinstance(value, list) else names.get(value, value),
                    "check": screen["check"],
                    "seconds": seconds,
                }
            )
    return found
