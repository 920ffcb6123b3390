"""What all toy pictures are drawn and described with: curves, shades of a colour, grain, and lists of words."""

from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import numpy as np

Colour = tuple[int, int, int]
Option = TypeVar("Option")

SUPERSAMPLING = 3  # pictures are drawn three times as wide and high as they will be


def choice(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    """One of the options, as it is (numpy's own `choice` makes arrays of them)."""
    return options[int(rng.integers(len(options)))]


def curve(points: np.ndarray, steps: int = 8) -> np.ndarray:
    """A closed Catmull-Rom curve through `points` (M, 2): (M * steps, 2)."""
    neighbours = np.stack([np.roll(points, shift, axis=0) for shift in (1, 0, -1, -2)])  # (4, M, 2)
    return np.einsum("sk,kmd->msd", _catmull_rom(steps), neighbours).reshape(-1, 2)


@cache
def _catmull_rom(steps: int) -> np.ndarray:
    t = np.linspace(0, 1, steps, endpoint=False)
    powers = np.stack((np.ones_like(t), t, t**2, t**3), 1)
    basis = np.array(((0, 2, 0, 0), (-1, 0, 1, 0), (2, -5, 4, -1), (-1, 3, -3, 1))) / 2
    return powers @ basis


def scaled(colour: Colour, factor: float) -> Colour:
    """A darker or lighter shade."""
    red, green, blue = (min(255, round(level * factor)) for level in colour)
    return red, green, blue


def grained(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image (H, W, 3) of levels with a fine grain over it, weak enough that every part keeps its colour: uint8."""
    grain = rng.standard_normal(image.shape[:2], np.float32)[..., None] * 2.5
    return np.clip(np.rint(image + grain), 0, 255).astype(np.uint8)


def listed(things: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`; nothing of nothing."""
    return f"{', '.join(things[:-1])} and {things[-1]}" if len(things) > 1 else "".join(things)
