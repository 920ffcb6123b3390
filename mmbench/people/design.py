"""Designs of studies: who sees which pictures in which order and place; numbers alone, no pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

REAL, NOISE = -1, -2  # in the place of a method: what checks whether somebody looks
EVERY, FEWEST = 15, 2  # a check of each sort for so many screens, and at least so many


@dataclass(frozen=True)
class Screen:
    """What is on the screen at once.

    Attributes:
        item: its place among the items.
        question: its place among the questions.
        shown: methods by their places, `REAL` and `NOISE`, in the order of reading.
        check: "" of an answer that counts; "repeat" where it was asked before, with the pictures in the opposite
            order; "noise" where the right answer is known.
    """

    item: int
    question: int
    shown: tuple[int, ...]
    check: str = ""


def balanced_orders(count: int) -> np.ndarray:
    """Orders in which each thing stands at each place equally often, and beside each other thing equally often.

    A Latin square after Williams (1949), and with an odd number of things also its mirror image.

    Returns:
        (R, K) int64 with R = K, or 2 K where K is odd and above 1.
    """
    first = [place // 2 if place % 2 == 0 else count - 1 - place // 2 for place in range(count)]
    square = (np.array(first) + np.arange(count)[:, None]) % count
    return np.concatenate([square, square[:, ::-1]]) if count % 2 and count > 1 else square


def screens_of(
    kind: str, num_items: int, num_methods: int, num_questions: int, num_raters: int, generator: np.random.Generator
) -> list[list[Screen]]:
    """What each rater is shown, in order.

    - `ranks`: each item once with all methods. Over a rater's items each method stands at each place equally often, and
      over raters each item comes in every order.
    - `pairs`: each item once with one pair of methods, the same for all raters. Each pair comes equally often, and in
      both orders equally often, over a rater's items and over the raters of an item.
    - `rubric`: each item with each method, one at a time. A rater sees every item once before one comes again, and each
      method equally often in each such round.

    Where numbers do not divide, "equally often" is but for one. Questions come in blocks, with which of them first
    taking turns over raters. Each rater has an order of items of his own. Checks are strewn among them.

    Args:
        num_methods: at least 2.
        generator: of all choices.
    """
    names = generator.permutation(num_methods)  # which method has which part in the design
    starts = generator.integers(1000)
    found = []
    for rater in range(num_raters):
        screens = []
        for turn in range(num_questions):
            question = (rater + turn) % num_questions
            block = _block(kind, num_items, names, rater, int(starts), generator)
            screens += [Screen(item, question, shown) for item, shown in block]
        found.append(_with_checks(screens, kind, generator))
    return found


def _block(
    kind: str, num_items: int, names: np.ndarray, rater: int, start: int, generator: np.random.Generator
) -> list[tuple[int, tuple[int, ...]]]:
    """One question's items and what is shown of them, in a rater's order."""
    order = generator.permutation(num_items).tolist()
    if kind == "ranks":
        orders = balanced_orders(len(names))
        return [(item, _named(names, orders[(start + item + rater) % len(orders)])) for item in order]
    if kind == "pairs":
        pairs = [*combinations(range(len(names)), 2)]
        found = []
        for item in order:
            pair = pairs[item % len(pairs)]
            is_turned = (item // len(pairs) + rater) % 2
            found.append((item, _named(names, pair[::-1] if is_turned else pair)))
        return found
    rounds = []
    for number in generator.permutation(len(names)).tolist():
        rounds += [
            (item, _named(names, [(item + number) % len(names)])) for item in generator.permutation(order).tolist()
        ]
    return rounds


def _named(names: np.ndarray, places: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(names[place]) for place in places)


def _with_checks(screens: list[Screen], kind: str, generator: np.random.Generator) -> list[Screen]:
    """Strews repeats behind what they repeat, within its block, and screens with noise anywhere."""
    count = max(FEWEST, len(screens) // EVERY)
    blocks = [[n for n, one in enumerate(screens) if one.question == question] for question in _questions(screens)]
    early = [place for block in blocks for place in block[: (len(block) + 1) // 2]]  # so that others come between
    behind: dict[int, list[Screen]] = {}
    for place in generator.choice(early, min(count, len(early)), replace=False).tolist():
        block = next(block for block in blocks if place in block)
        spot = int(generator.choice(block[len(block) // 2 :]))
        repeated = replace(screens[place], shown=screens[place].shown[::-1], check="repeat")
        behind.setdefault(spot, []).append(repeated)
    for _ in range(count):
        spot = int(generator.integers(len(screens)))
        like = screens[spot]
        shown = (NOISE,) if kind == "rubric" else ((REAL, NOISE), (NOISE, REAL))[int(generator.integers(2))]
        behind.setdefault(spot, []).append(Screen(like.item, like.question, shown, "noise"))
    return [shown for place, screen in enumerate(screens) for shown in [screen, *behind.get(place, [])]]


def _questions(screens: Sequence[Screen]) -> list[int]:
    return sorted({screen.question for screen in screens})
