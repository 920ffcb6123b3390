"""Studies for tests: drawn pictures in the place of an experiment's, and raters with an order in mind."""

import json
from dataclasses import dataclass

import numpy as np

from mmbench.core.noise import Sample
from mmbench.core.task import TEXT_GUIDED_INPAINTING
from mmbench.people.building import build
from mmbench.people.design import NOISE, REAL
from mmbench.people.gathering import Item, Made

METHODS = ("TDANet", "CSA", "PICNet")


@dataclass(frozen=True)
class Drawn:
    """What `gathering.Gathered` is to `build`, of coloured squares.

    Attributes:
        names: of the methods.
    """

    names: tuple[str, ...] = METHODS
    task = TEXT_GUIDED_INPAINTING
    given = "Given"

    @property
    def rows(self):
        return [Made(name, {"method": name.lower()}, {}, 0) for name in self.names]

    def items(self, count, seed):
        pixels = np.random.default_rng(seed).integers(256, size=(count, len(self.names) + 2, 8, 8, 3), dtype=np.uint8)
        return [
            Item(Sample(f"bird/{place}", 0, 0), "a red bird </script><b>", *of_item[:2], list(of_item[2:]))
            for place, of_item in enumerate(pixels)
        ]


def built(out, kind="ranks", count=6, raters=2, questions=("naturalness",), names=METHODS, seed=0, real=False):
    """Builds a study; its key."""
    return build(Drawn(names), "tdanet", kind, list(questions), count, raters, seed, real, out)


def answer(key, screen, utilities):
    """What somebody says who prefers methods by their utilities, real pictures to all of them, and noise to nothing."""
    worth = {**dict(enumerate(utilities)), REAL: np.inf, NOISE: -np.inf}
    of = {picture: worth[key["pictures"][picture]] for picture in screen["pictures"]}
    if key["kind"] == "rubric":
        (only,) = of.values()
        return 0 if only < 0 else 1 if only >= 1 else 0.5
    if key["kind"] == "pairs":
        first, second = screen["pictures"]
        return None if of[first] == of[second] else max(of, key=of.get)
    return sorted(of, key=of.get, reverse=True)


def answered(key, rater=1, utilities=(2, 1, 0), spread=0.0, saved="2026-01-02T03:04:05Z", only=None):
    """The file that a rater saves, as JSON; utilities are blurred by `spread`; `only` so many of the screens."""
    generator = np.random.default_rng([rater, 7])
    given = {}
    for screen in key["raters"][rater - 1][:only]:
        blurred = np.array(utilities) + spread * generator.standard_normal(len(utilities))
        given[screen["id"]] = {"value": answer(key, screen, blurred), "seconds": 1.5}
    return {"format": "mmbench-answers/1", "study": key["study"], "rater": rater, "saved": saved, "answers": given}


def saved(folder, content, name):
    """The file with a rater's answers."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path
