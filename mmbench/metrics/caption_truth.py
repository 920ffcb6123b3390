"""Caption truth: is what a caption states true of the picture? For toy scenes, of which everything is known."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from mmbench.metrics.base import Batch, SampleMean

Fact = tuple[str, ...]  # ("car",): there is one; ("car", "red"): it is red; ("car", "left", "cup"): how they lie


class Mention(NamedTuple):
    """A thing that a caption names.

    Attributes:
        name: of its category.
        colour: the word before it, if that is a colour.
        start, stop: where it begins, with its colour, and ends, in words.
    """

    name: str
    colour: str | None
    start: int
    stop: int


class CaptionFacts(SampleMean):
    """What metrics of the facts in captions share: how a caption is read, and what is true of a toy scene.

    A caption states that the things that it names are there, that each has the colour that is named right before it,
    and how two things lie that have nothing but a relation, and an article, between them. That is the grammar of toy
    captions; of other sentences only what has its form is read. What is said of grounds and ways of standing is not.

    A relation is true if the boxes of both things say so: left and right by their middles; behind and in front by
    their lower ends, that are further apart than half of the taller one's height, and beside if they are not. A kite
    flies above everything that is no kite.

    Args:
        things: category to the words, or phrases, that name it.
        numbers: category to its number in `box_labels`.
        colours: the words for colours.
        relations: relation (left, right, behind, front, beside, above, below) to the phrases that name it.
    """

    of = "texts"
    needs = ("attributes", "boxes", "box_labels")
    higher_is_better = True

    def __init__(
        self,
        things: Mapping[str, Sequence[str]],
        numbers: Mapping[str, int],
        colours: Sequence[str],
        relations: Mapping[str, Sequence[str]],
    ) -> None:
        super().__init__()
        self.things = {tuple(name.split()): thing for thing, names in things.items() for name in names}
        self.numbers = {number: thing for thing, number in numbers.items()}
        self.colours = frozenset(colours)
        self.relations = {phrase: relation for relation, phrases in relations.items() for phrase in phrases}

    def update(self, texts: list[str], batch: Batch) -> None:
        scenes = zip(texts, batch["attributes"], batch["boxes"], batch["box_labels"], strict=True)
        values = [self.share(self.stated(text), colours, self._boxes(*boxes)) for text, colours, *boxes in scenes]
        self.record(torch.tensor(values, dtype=torch.float64, device=self.device))

    def share(self, facts: set[Fact], colours: Mapping[str, str], boxes: Mapping[str, Sequence[float]]) -> float:
        """The value of a caption.

        Args:
            facts: that it states.
            colours: category of each thing that is there to its colour.
            boxes: category to x, y, width and height.
        """
        raise NotImplementedError

    def stated(self, caption: str) -> set[Fact]:
        """The facts that a caption states."""
        words = re.findall(r"\w+", caption.lower())
        mentions = self._mentions(words)
        facts: set[Fact] = {(mention.name,) for mention in mentions}
        facts |= {(mention.name, mention.colour) for mention in mentions if mention.colour}
        for first, second in pairwise(mentions):
            between = words[first.stop : second.start]
            phrase = " ".join(between[:-1] if between[-1:] in (["a"], ["an"]) else between)
            if phrase in self.relations:
                facts.add((first.name, self.relations[phrase], second.name))
        return facts

    def _mentions(self, words: Sequence[str]) -> list[Mention]:
        found, place = [], 0
        longest = max(map(len, self.things))
        while place < len(words):
            names = (tuple(words[place : place + length]) for length in range(longest, 0, -1))
            name = next((name for name in names if name in self.things), None)
            if name:
                colour = words[place - 1] if place and words[place - 1] in self.colours else None
                start = place - (colour is not None)
                found.append(Mention(self.things[name], colour, start, place + len(name)))
            place += len(name) if name else 1
        return found

    def _boxes(self, boxes: Tensor, labels: Tensor) -> dict[str, list[float]]:
        named = ((self.numbers.get(number), box) for number, box in zip(labels.tolist(), boxes.tolist(), strict=True))
        return {thing: box for thing, box in named if thing}


class CaptionTruth(CaptionFacts):
    """Share of the facts in a caption that are true of the picture, averaged over captions; in [0, 1], toy data only.

    A caption without any fact has 1 if nothing is there, and 0 otherwise: it is nobody's gain to say nothing. How a
    caption is read, and what is true, is said in `CaptionFacts`; what the picture has and the caption does not say
    counts in `CaptionRecall`.
    """

    def share(self, facts: set[Fact], colours: Mapping[str, str], boxes: Mapping[str, Sequence[float]]) -> float:
        if not facts:
            return float(not colours)
        return sum(is_true(fact, colours, boxes) for fact in facts) / len(facts)


class CaptionRecall(CaptionFacts):
    """Share of the things in the picture, and of their colours, that the caption states; toy data only.

    Each thing counts twice: that it is there, and its colour. A picture of no thing is passed over. A good caption need
    not name everything: people's, of up to four things, name three at most.
    """

    scored = "picture with a thing in it"

    def share(self, facts: set[Fact], colours: Mapping[str, str], boxes: Mapping[str, Sequence[float]]) -> float:
        known = {(thing,) for thing in colours} | set(colours.items())
        return len(known & facts) / len(known) if known else torch.nan

    def record(self, values: Tensor, judged: Tensor | None = None) -> None:
        super().record(values, ~values.isnan())


def is_true(fact: Fact, colours: Mapping[str, str], boxes: Mapping[str, Sequence[float]]) -> bool:
    """Whether a fact is one of a scene, of which the colours and boxes of all things are given, by category."""
    if len(fact) == 1:
        return fact[0] in colours
    if len(fact) == 2:
        return colours.get(fact[0]) == fact[1]
    first, relation, second = fact
    if first == second or not {first, second} <= boxes.keys():
        return False
    (x, y, width, height), (other_x, other_y, other_width, other_height) = boxes[first], boxes[second]
    lower = (y + height) - (other_y + other_height)
    one_row = abs(lower) <= max(height, other_height) / 2
    match relation:
        case "left":
            return x + width / 2 < other_x + other_width / 2
        case "right":
            return x + width / 2 > other_x + other_width / 2
        case "behind":
            return lower < 0 and not one_row
        case "front":
            return lower > 0 and not one_row
        case "beside":
            return one_row
        case "above":
            return first == "kite"
        case "below":
            return second == "kite"
    raise ValueError(f"expected a relation of left, right, behind, front, beside, above, below, found {relation!r}")
