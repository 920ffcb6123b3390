"""Answers of people and keys of studies, read as data: parsed by a strict schema, and never evaluated."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from mmbench.people.design import NOISE, REAL
from mmbench.people.questions import GRADES, KINDS, QUESTIONS

KEY, ANSWERS = "mmbench-study-key/1", "mmbench-answers/1"
LARGEST = 20_000_000  # bytes of a file of answers
PARTS: dict[str, type] = {"format": str, "study": str, "rater": int, "saved": str, "answers": dict}
OF_KEY: dict[str, type] = {
    "format": str, "study": str, "experiment": str, "kind": str, "questions": list, "methods": list, "rows": list,
    "items": list, "raters": list, "pictures": dict, "seed": int, "date": str,
}  # fmt: skip
OF_ITEM: dict[str, type] = {"id": str, "caption": int, "draw": int}
OF_SCREEN: dict[str, type] = {"id": str, "item": int, "question": int, "pictures": list, "check": str}


@dataclass(frozen=True)
class Answers:
    """What one person has saved.

    Attributes:
        path: of the file.
        study: hash of the study that it says it answers.
        rater: number of the person, from 1.
        saved: when.
        given: screen to what was answered, and the seconds that it took.
    """

    path: Path
    study: str
    rater: int
    saved: datetime
    given: Mapping[str, tuple[Any, float]]


def read(path: Path, key: Mapping[str, Any]) -> Answers:
    """Answers to the study of a key.

    Raises:
        ValueError: the file is damaged, none of these, or belongs to another study; says so in a few words.
    """
    content = _content(path)
    _require_parts(content, PARTS, "the file")
    if content["format"] != ANSWERS:
        raise ValueError(f"expected answers of the format {ANSWERS}, found {content['format'][:40]!r}")
    if content["study"] != key["study"]:
        raise ValueError(f"expected answers to study {key['study'][:8]}, found those to study {content['study'][:8]!r}")
    if not 1 <= content["rater"] <= len(key["raters"]):
        raise ValueError(f"expected a rater from 1 to {len(key['raters'])}, found {str(content['rater'])[:20]}")
    screens = {screen["id"]: screen for screen in key["raters"][content["rater"] - 1]}
    given = {}
    for name, answer in content["answers"].items():
        if name not in screens:
            raise ValueError(f"expected answers to screens of the study, found one to {name[:40]!r}")
        _require_parts(answer, {"value": object, "seconds": object}, name)
        if not fits(key["kind"], screens[name]["pictures"], answer["value"]):
            raise ValueError(f"expected an answer of kind={key['kind']} to {name}, found {repr(answer['value'])[:60]}")
        if not _is_number(answer["seconds"]) or answer["seconds"] < 0:
            raise ValueError(f"expected seconds of {name}, found {repr(answer['seconds'])[:40]}")
        given[name] = answer["value"], float(answer["seconds"])
    return Answers(path, content["study"], content["rater"], _moment(content["saved"]), given)


def read_key(path: Path) -> dict[str, Any]:
    """The key of a study, as `building.build` wrote it.

    Raises:
        ValueError: it is none; names the file.
    """
    try:
        content = _content(path)
        _require_parts(content, OF_KEY, "the file")
        if content["format"] != KEY:
            raise ValueError(f"expected a key of the format {KEY}, found {content['format'][:40]!r}")
        _require_key(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}: name the key.json that was written with the study") from None
    return content


def _require_key(key: Mapping[str, Any]) -> None:
    """Refuses a key that contradicts itself."""
    if key["kind"] not in KINDS:
        raise ValueError(f"expected a kind of {', '.join(KINDS)}, found {key['kind'][:40]!r}")
    texts = [*key["methods"], *key["questions"]]
    if not all(isinstance(text, str) for text in texts) or not key["methods"] or not key["questions"]:
        raise ValueError("expected names of methods and questions, found others")
    if strangers := [name for name in key["questions"] if name not in QUESTIONS]:
        raise ValueError(f"expected questions of {', '.join(QUESTIONS)}, found {strangers[0][:40]!r}")
    if len(set(key["methods"])) < len(key["methods"]):
        raise ValueError("expected each method once, found one twice")
    if not key["items"] or not key["raters"]:
        raise ValueError(f"expected items and raters, found {len(key['items'])} and {len(key['raters'])}")
    for item in key["items"]:
        _require_parts(item, OF_ITEM, "an item")
    methods = range(len(key["methods"]))
    if not all(_is_count(value) or value in (REAL, NOISE) for value in key["pictures"].values()):
        raise ValueError("expected a method of each picture, found others")
    for screens in key["raters"]:
        if not isinstance(screens, list):
            raise ValueError(f"expected screens of each rater, found a {type(screens).__name__}")
        for screen in screens:
            _require_parts(screen, OF_SCREEN, "a screen")
            shown = [key["pictures"].get(name) if isinstance(name, str) else None for name in screen["pictures"]]
            known = all(one in methods or one in (REAL, NOISE) for one in shown)
            inside = screen["item"] in range(len(key["items"])) and screen["question"] in range(len(key["questions"]))
            if not (shown and known and inside and screen["check"] in ("", "repeat", "noise")):
                raise ValueError(f"expected screens of pictures that it has, found {repr(screen)[:80]}")
            if screen["check"] != "noise" and not all(one in methods for one in shown):
                raise ValueError(f"expected methods on {screen['id'][:20]}, found others")
            if not _is_design(key["kind"], len(methods), screen["check"], shown):
                raise ValueError(f"expected what kind={key['kind']} shows on {screen['id'][:20]}, found other pictures")
        _require_screens(key, screens)
    _require_pictures(key)


def _is_design(kind: str, num_methods: int, check: str, shown: Sequence[int]) -> bool:
    """Whether a kind of study shows these at once: noise beside the real picture, else different methods."""
    if check == "noise":
        return sorted(shown) == ([NOISE] if kind == "rubric" else [NOISE, REAL])
    number = {"ranks": num_methods, "pairs": 2, "rubric": 1}[kind]
    return len(shown) == len(set(shown)) == number


def _require_screens(key: Mapping[str, Any], screens: Sequence[Mapping[str, Any]]) -> None:
    """Refuses a rater's screens where a question of an item is lacking, or one repeats what was not asked."""
    if len({screen["id"] for screen in screens}) < len(screens):
        raise ValueError("expected each screen of a rater once, found one twice")
    asked = {_same(screen): screen for screen in screens if not screen["check"]}
    found = Counter((screen["item"], screen["question"]) for screen in asked.values())
    each = len(key["methods"]) if key["kind"] == "rubric" else 1
    wanted = Counter(dict.fromkeys(product(range(len(key["items"])), range(len(key["questions"]))), each))
    if found != wanted:
        raise ValueError(
            f"expected {wanted.total()} screens of a rater, each question of each item, found {found.total()} of these"
        )
    if strangers := [one["id"] for one in screens if one["check"] == "repeat" and _same(one) not in asked]:
        raise ValueError(f"expected on {strangers[0][:20]} what was asked before, found other pictures")


def _require_pictures(key: Mapping[str, Any]) -> None:
    """Refuses pictures of which a screen of another item shows one too, or that are two of one method and item."""
    meant: dict[str, int] = {}
    for screen in (screen for screens in key["raters"] for screen in screens):
        for name in screen["pictures"]:
            if meant.setdefault(name, screen["item"]) != screen["item"]:
                raise ValueError(
                    f"expected pictures of one item on {screen['id'][:20]}, found {name[:20]!r} of another"
                )
    if strangers := sorted(key["pictures"].keys() - meant.keys()):
        raise ValueError(f"expected pictures that a screen shows, found {strangers[0][:20]!r}")
    if len({(item, key["pictures"][name]) for name, item in meant.items()}) < len(meant):
        raise ValueError("expected one picture of each method and item, found two")


def fits(kind: str, shown: Sequence[str], value: Any) -> bool:
    """Whether a value answers a screen of a kind of study that shows these pictures."""
    if kind == "rubric":
        return _is_number(value) and value in GRADES
    if kind == "pairs":
        return value is None or (isinstance(value, str) and value in shown)
    return isinstance(value, list) and all(isinstance(one, str) for one in value) and sorted(value) == sorted(shown)


def _content(path: Path) -> Any:
    """What a file of JSON says.

    Raises:
        ValueError: it is none, or a very large one; says so in a few words.
    """
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise ValueError(f"expected at most {LARGEST / 1e6:.0f} MB, found {size / 1e6:.0f}")
        text = path.read_bytes().decode("utf-8-sig")
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_each_once)
    except OSError as error:
        raise ValueError(f"expected a file that can be read, found {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"expected a whole file of JSON, found another ({type(error).__name__})") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"expected numbers, found {constant}")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("expected each key once, found one twice")
    return found


def _require_parts(node: Any, parts: Mapping[str, type], name: str) -> None:
    """Refuses what is no object of just these keys and kinds."""
    if not isinstance(node, dict):
        raise ValueError(f"expected an object as {name[:40]}, found a {type(node).__name__}")
    if strangers := sorted(node.keys() ^ parts.keys()):
        word = "without" if strangers[0] in parts else "with"
        raise ValueError(f"expected the keys {', '.join(parts)} of {name[:40]}, found one {word} {strangers[0][:40]!r}")
    for key, kind in parts.items():
        if not isinstance(node[key], kind) or (kind is int and isinstance(node[key], bool)):
            raise ValueError(f"expected {key} of {name[:40]} as {kind.__name__}, found {repr(node[key])[:40]}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e12 and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected a date as saved, found {text[:40]!r}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Attention:
    """How a person did where the answer was known, or had been given before.

    Attributes:
        right, asked: of the screens with noise.
        turned, repeated: of what was shown twice: how many answers were turned upside down, of how many.
        chance: of one answer to be turned by somebody who sees no difference and says so in any way.
    """

    right: int
    asked: int
    turned: int
    repeated: int
    chance: float

    @property
    def failed(self) -> bool:
        """Whether noise was taken for the better picture once, or everything that came twice was turned upside down.

        The second tells nothing where one in twenty who see no difference would do so: they are no worse raters.
        """
        all_turned = self.turned == self.repeated and self.chance**self.repeated < 0.05
        return self.right < self.asked or all_turned

    def __str__(self) -> str:
        return f"{self.right} of {self.asked} right with noise, {self.turned} of {self.repeated} repeats turned over"


def attention(answers: Answers, key: Mapping[str, Any]) -> Attention:
    """What the checks say of a person."""
    screens = key["raters"][answers.rater - 1]
    first = {_same(screen): screen["id"] for screen in screens if not screen["check"]}
    right = asked = turned = repeated = 0
    for screen in screens:
        if screen["id"] not in answers.given or not screen["check"]:
            continue
        value, _ = answers.given[screen["id"]]
        if screen["check"] == "noise":
            asked += 1
            right += _sees_noise(key, value)
        elif (before := first.get(_same(screen))) in answers.given:
            repeated += 1
            turned += TURNED[key["kind"]](answers.given[before][0], value)
    return Attention(right, asked, turned, repeated, CHANCE[key["kind"]](len(key["methods"])))


def _same(screen: Mapping[str, Any]) -> tuple[Any, ...]:
    return screen["item"], screen["question"], *sorted(screen["pictures"])


def _sees_noise(key: Mapping[str, Any], value: Any) -> bool:
    """Whether an answer puts noise last."""
    if key["kind"] == "rubric":
        return value == 0
    best = value[0] if key["kind"] == "ranks" else value
    return best is not None and key["pictures"][best] != NOISE


# Whether a second answer says the very opposite of the first.
TURNED: Mapping[str, Callable[[Any, Any], bool]] = {
    "ranks": lambda first, second: first[0] == second[-1] and first[-1] == second[0],
    "pairs": lambda first, second: first is not None and second is not None and first != second,
    "rubric": lambda first, second: abs(first - second) == 1,
}
# How often a second answer does so where both are given at random, by the number of methods.
CHANCE: Mapping[str, Callable[[int], float]] = {
    "ranks": lambda methods: 1 / (methods * (methods - 1)),
    "pairs": lambda _: 1 / 2,
    "rubric": lambda _: 2 / 9,
}
