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
        answers: at least one, by the raters' numbers, of which several people may have one.
        lines: what is to be known of files, a line each.
    """

    answers: list[Answers]
    lines: list[str]


def collect(files: Sequence[Path], key: Mapping[str, Any], keep_failed: bool = False) -> Collected:
    """The answers that count, of files and of folders of `*.json`.

    Files that are damaged or empty or answer another study are left out. Of those with one rater's number every person
    counts who has answered all; where nobody has, the fullest file does, the newest of several as full: whoever saves
    half-way on another phone takes nothing back, and of whoever saves twice one file counts. Files that fail attention
    checks are left out before that, unless they are to be kept.

    Raises:
        ValueError: nothing is left to score.
    """
    lines: list[str] = []
    by_number: dict[int, list[Answers]] = {}
    failed: list[Answers] = []
    for path in _listed(files):
        try:
            found = read(path, key)
        except ValueError as error:
            lines.append(f"{path}: {' '.join(str(error).split())}: left out")
            continue
        if not _judged(found, key):
            lines.append(f"{path}: rater {found.rater} answered nothing: left out")
            continue
        if (checked := attention(found, key)).failed:
            failed.append(found)
            end = "kept all the same" if keep_failed else "left out; keep=failed keeps them"
            lines.append(f"{found.path}: rater {found.rater} failed attention checks ({checked}): {end}")
        if keep_failed or not checked.failed:
            by_number.setdefault(found.rater, []).append(found)
    kept = [one for _, mine in sorted(by_number.items()) for one in _people(mine, key, lines)]
    for found in kept:
        lines += _partial(found, key)
    if failed:
        people = {one.path for one in (*kept, *failed)}
        lines.append(f"{len(failed)} of {len(people)} raters failed attention checks")
    if not kept:
        why = f" ({'; '.join(lines)})" if lines else ""
        raise ValueError(f"expected answers to score, found none{why}: collect more, or name other files")
    return Collected(kept, lines)


def _listed(files: Sequence[Path]) -> list[Path]:
    """Files, and those in folders, each once."""
    found = [one for path in files for one in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    return list(dict.fromkeys(found))


def _people(mine: Sequence[Answers], key: Mapping[str, Any], lines: list[str]) -> list[Answers]:
    """The files that count of those with one rater's number, the fullest first; `lines` gets one on each other file."""
    counting: list[Answers] = []
    for found in sorted(mine, key=lambda one: (_judged(one, key), one.saved, one.path), reverse=True):
        same = [one for one in counting if _is_of_one_person(one, found)]
        if not counting or (not same and _is_whole(found, key)):
            counting.append(found)
            continue
        other = (same or counting)[0]
        why = "was saved later" if _judged(found, key) == _judged(other, key) else "has more answers"
        lines.append(f"{found.path}: {other.path} of rater {found.rater} {why}: left out")
    if len(counting) > 1:
        files = ", ".join(str(one.path) for one in counting)
        lines.append(
            f"{files}: {len(counting)} people have answered as rater {mine[0].rater}: all are scored; remove a file if "
            "it is of somebody who did so twice"
        )
    return counting


def _is_of_one_person(one: Answers, other: Answers) -> bool:
    """Whether somebody saved twice: most of what both files answer has the same value after the same milliseconds."""
    shared = one.given.keys() & other.given.keys()
    return 2 * sum(one.given[name] == other.given[name] for name in shared) > len(shared)


def _is_whole(found: Answers, key: Mapping[str, Any]) -> bool:
    return len(found.given) == len(key["raters"][found.rater - 1])


def _judged(found: Answers, key: Mapping[str, Any]) -> int:
    """How many screens were answered that are no checks."""
    return sum(screen["id"] in found.given for screen in key["raters"][found.rater - 1] if not screen["check"])


def _partial(found: Answers, key: Mapping[str, Any]) -> list[str]:
    asked = len(key["raters"][found.rater - 1])
    if _is_whole(found, key):
        return []
    return [f"{found.path}: rater {found.rater} answered {len(found.given)} of {asked} screens, which are scored"]
