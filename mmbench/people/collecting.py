"""Collecting answers: which files count, and a line on each that does not, or not wholly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmbench.people.answers import Answers, attention, read


@dataclass(frozen=True)
class Collected:
    """Answers of different raters.

    Attributes:
        answers: at least one, by rater.
        lines: what is to be known of files, a line each.
    """

    answers: list[Answers]
    lines: list[str]


def collect(files: Sequence[Path], key: Mapping[str, Any], keep_failed: bool = False) -> Collected:
    """The answers that count, of files and of folders of `*.json`.

    Files that are damaged or empty or answer another study are left out, and so is all but the fullest of one rater,
    the newest of several as full: whoever saves half-way on another phone takes nothing back. Those who failed
    attention checks are left out, too, unless they are to be kept.

    Raises:
        ValueError: nothing is left to score.
    """
    lines: list[str] = []
    fullest: dict[int, Answers] = {}
    for path in _listed(files):
        try:
            found = read(path, key)
        except ValueError as error:
            lines.append(f"{path}: {' '.join(str(error).split())}: left out")
            continue
        if not _judged(found, key):
            lines.append(f"{path}: rater {found.rater} answered nothing: left out")
            continue
        other = fullest.get(found.rater)
        if other is not None:
            less, found = sorted((other, found), key=lambda one: (_judged(one, key), one.saved, one.path))
            why = "later" if _judged(less, key) == _judged(found, key) else "with more answers"
            lines.append(f"{less.path}: rater {less.rater} saved {found.path} {why}: left out")
        fullest[found.rater] = found
    kept, num_failed = [], 0
    for rater, found in sorted(fullest.items()):
        lines += _partial(found, key)
        checked = attention(found, key)
        if checked.failed:
            num_failed += 1
            end = "kept all the same" if keep_failed else "left out; keep=failed keeps them"
            lines.append(f"{found.path}: rater {rater} failed attention checks ({checked}): {end}")
        if keep_failed or not checked.failed:
            kept.append(found)
    if num_failed:
        lines.append(f"{num_failed} of {len(fullest)} raters failed attention checks")
    if not kept:
        why = f" ({lines[0]})" if lines else ""
        raise ValueError(f"expected answers to score, found none{why}: collect more, or correct the words")
    return Collected(kept, lines)


def _listed(files: Sequence[Path]) -> list[Path]:
    """Files, and those in folders, each once."""
    found = [one for path in files for one in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    return list(dict.fromkeys(found))


def _judged(found: Answers, key: Mapping[str, Any]) -> int:
    """How many screens were answered that are no checks."""
    return sum(screen["id"] in found.given for screen in key["raters"][found.rater - 1] if not screen["check"])


def _partial(found: Answers, key: Mapping[str, Any]) -> list[str]:
    asked = len(key["raters"][found.rater - 1])
    if len(found.given) == asked:
        return []
    return [f"{found.path}: rater {found.rater} answered {len(found.given)} of {asked} screens, which are scored"]
