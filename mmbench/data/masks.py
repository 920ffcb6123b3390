"""Where images are to be filled in: the protocols of inpainting. True = hole, other conventions are the methods'.

What is random comes from the generator that is handed in. It belongs to an image, in training to an epoch too, so that
every method is asked to fill the same holes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from mmbench.data.records import Instance, Record, Seen


class Mask(Protocol):
    """Where an image is to be filled in."""

    def __call__(self, record: Record, seen: Seen, rng: np.random.Generator) -> np.ndarray:
        """(side, side) bool, True = hole."""


REFERENCE = 256  # the side in pixels that the widths of strokes were published for


def middle(height: int, width: int, margin: int = 0) -> np.ndarray:
    """The middle half in both directions, less `margin` pixels on each side: (height, width) bool.

    From int(H / 4) to int(3 H / 4), as in TDANet and PICNet.
    https://github.com/lyndonzheng/Pluralistic-Inpainting/blob/034a7588957adff1edb027af44f48a35d1c949d3/util/task.py
    """
    hole = np.zeros((height, width), bool)
    hole[height // 4 + margin : 3 * height // 4 - margin, width // 4 + margin : 3 * width // 4 - margin] = True
    return hole


@dataclass(frozen=True)
class Centre:
    """The middle half in both directions, a quarter of the area.

    Args:
        margin: pixels less on each side, at any size. CSA's overlap is 4: 120 of 256 pixels.
            https://github.com/KumapowerLIU/CSA-inpainting/blob/05fdd8a3e7da869f49ee9be092135ad8c1273a50/models/CSA.py
    """

    margin: int = 0

    def __call__(self, record: Record, seen: Seen, rng: np.random.Generator) -> np.ndarray:
        return middle(seen.view.side, seen.view.side, self.margin)


@dataclass(frozen=True)
class Salient:
    """The object that the picture is of: TDANet's type 3.

    The object's map is resized as the image is, bilinearly, and whatever is not exactly zero is hole: every level of a
    map that has several, and every pixel that the object touches where its values are large. Random rectangles where
    there is no map, or nothing of the object in view.
    """

    def __call__(self, record: Record, seen: Seen, rng: np.random.Generator) -> np.ndarray:
        return _first_in_view([record.salient(seen.size)] if record.salient else [], seen, rng)


@dataclass(frozen=True)
class LargestObject:
    """The mask of the largest object, counted in pixels of the picture; crowds are left out.

    Resized as `Salient`'s. Of the next largest where nothing of it is in view, random rectangles where there is none.
    """

    def __call__(self, record: Record, seen: Seen, rng: np.random.Generator) -> np.ndarray:
        masks = [instance.mask(seen.size) > 0 for instance in _single(record)]
        ordered = sorted(masks, key=lambda mask: -int(mask.sum()))
        return _first_in_view((np.uint8(255) * mask for mask in ordered), seen, rng)


@dataclass(frozen=True)
class LargestBox:
    """The box of the largest object: TDANet's type 4. The first of equal ones; crowds are left out.

    Its corners are truncated to whole pixels and it is resized as a map of ones, so that a pixel is hole where half of
    it is. Of the next largest where nothing of it is in view, random rectangles where there is none.
    """

    def __call__(self, record: Record, seen: Seen, rng: np.random.Generator) -> np.ndarray:
        boxes = sorted((instance.box for instance in _single(record)), key=lambda box: -box[2] * box[3])
        return _first_in_view((_filled(box, seen.size) for box in boxes), seen, rng)


@dataclass(frozen=True)
class Rectangles:
    """One to five rectangles anywhere: type 1 of PICNet and TDANet.

    https://github.com/lyndonzheng/Pluralistic-Inpainting/blob/034a7588957adff1edb027af44f48a35d1c949d3/util/task.py
    """

    def __call__(self, record: Record, seen: Seen, rng: np.random.Generator) -> np.ndarray:
        return _rectangles(seen.view.side, rng)


@dataclass(frozen=True)
class Strokes:
    """16 to 64 strokes: 60 % straight lines, 20 % discs, 20 % arcs of ellipses; type 2 of PICNet and TDANet.

    Widths and radii are 4 to 20 pixels at 256 and in proportion elsewhere; theirs are the same at every size. They draw
    with OpenCV and we with Pillow: of two holes of the same draws 97 % is common to both, the rest is rim.
    https://github.com/lyndonzheng/Pluralistic-Inpainting/blob/034a7588957adff1edb027af44f48a35d1c949d3/util/task.py
    """

    def __call__(self, record: Record, seen: Seen, rng: np.random.Generator) -> np.ndarray:
        side = seen.view.side
        canvas = Image.new("L", (side, side))
        for _ in range(rng.integers(16, 64, endpoint=True)):
            _random_stroke(ImageDraw.Draw(canvas), side, rng)
        return np.asarray(canvas) > 0


@dataclass(frozen=True)
class _OfArea:
    """A hole of a given area.

    Args:
        area: share of the picture.

    Raises:
        ValueError: it is not between 0 and 1.
    """

    area: float

    def __post_init__(self) -> None:
        if not 0 < self.area < 1:
            raise ValueError(
                f"expected the area of a hole between 0 and 1 of the picture, found {self.area}: change it"
            )


@dataclass(frozen=True)
class RectangleOfArea(_OfArea):
    """One rectangle of a given area anywhere, at most twice as long as wide: holes of one size and no other's shape.

    The area is met to the nearest whole width and height.
    """

    def __call__(self, record: Record, seen: Seen, rng: np.random.Generator) -> np.ndarray:
        side = seen.view.side
        aspect = 2 ** rng.uniform(-1, 1)
        width = max(np.sqrt(self.area * aspect), self.area)  # of a side of 1, no higher than that
        across = max(1, round(side * min(1, width)))
        down = min(side, max(1, round(self.area * side**2 / across)))
        left, top = (int(rng.integers(side - length, endpoint=True)) for length in (across, down))
        hole = np.zeros((side, side), bool)
        hole[top : top + down, left : left + across] = True
        return hole


@dataclass(frozen=True)
class StrokesOfArea(_OfArea):
    """As many strokes of those of `Strokes` as cover a given area, the last one cut short: irregular holes of one size.

    The area is met to a pixel.
    """

    def __call__(self, record: Record, seen: Seen, rng: np.random.Generator) -> np.ndarray:
        side = seen.view.side
        hole = np.zeros((side, side), bool)
        while room := max(1, round(self.area * side**2)) - int(hole.sum()):
            canvas = Image.new("L", (side, side))
            _random_stroke(ImageDraw.Draw(canvas), side, rng)
            added = np.argwhere((np.asarray(canvas) > 0) & ~hole)
            if len(added) > room:  # what lies nearest to where it begins
                added = added[np.square(added - added[0]).sum(axis=1).argsort(kind="stable")[:room]]
            hole[tuple(added.T)] = True
        return hole


@dataclass(frozen=True)
class Mixture:
    """One of several protocols, each as often: what TDANet and PICNet are trained on.

    Args:
        masks: the protocols.
    """

    masks: tuple[Mask, ...]

    def __call__(self, record: Record, seen: Seen, rng: np.random.Generator) -> np.ndarray:
        return self.masks[int(rng.integers(len(self.masks)))](record, seen, rng)


def _single(record: Record) -> Iterator[Instance]:
    return (instance for instance in record.instances if not instance.is_crowd)


def _first_in_view(maps: Iterable[np.ndarray], seen: Seen, rng: np.random.Generator) -> np.ndarray:
    """The first of several maps (H, W) uint8 of a picture of which something is in view, as a hole."""
    for index in maps:
        hole = seen.view(Image.fromarray(index)) > 0
        if hole.any():
            return hole
    return _rectangles(seen.view.side, rng)


def _filled(box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    x, y, across, down = box
    index = np.zeros(size[::-1], np.uint8)
    index[max(0, int(y)) : int(y + down), max(0, int(x)) : int(x + across)] = 1
    return index


def _rectangles(side: int, rng: np.random.Generator) -> np.ndarray:
    hole = np.zeros((side, side), bool)
    count = int(rng.integers(1, 5, endpoint=True))
    for _ in range(count):
        hole[_span(side, count, rng), _span(side, count, rng)] = True
    return hole


def _span(side: int, count: int, rng: np.random.Generator) -> slice:
    """Where one of `count` rectangles lies in one direction; fewer may be larger."""
    first = int(rng.integers(0, int(side - side / (count + 1)), endpoint=True))
    return slice(first, first + int(rng.integers(int(side / (count + 7)), side - first, endpoint=True)))


def _random_stroke(brush: ImageDraw.ImageDraw, side: int, rng: np.random.Generator) -> None:
    """A line, a disc or an arc anywhere, as `Strokes` says."""
    kind = rng.random()
    x, y, across, down = rng.integers(1, side, 4, endpoint=True).tolist()
    size = int(rng.integers(4, 20, endpoint=True))
    # OpenCV draws a line one or two pixels wider than it is asked for.
    width = max(1, round((2 * ((size + 1) // 2) + 1) * side / REFERENCE))
    if kind < 0.6:
        _stroke(brush, [(x, y), (across, down)], width)
    elif kind < 0.8:
        brush.circle((x, y), size * side / REFERENCE - 0.5, fill=255)
    else:
        turn, *ends = rng.integers(3, 180, 3, endpoint=True).tolist()
        _stroke(brush, _arc((x, y), (across, down), turn, *sorted(ends)), width)


def _stroke(brush: ImageDraw.ImageDraw, points: list[tuple[float, float]], width: int) -> None:
    """A line through points with round ends."""
    brush.line(points, fill=255, width=width, joint="curve")
    for end in (points[0], points[-1]):
        brush.circle(end, (width - 1) / 2, fill=255)


def _arc(
    centre: tuple[int, int], axes: tuple[int, int], turn: float, first: float, last: float
) -> list[tuple[float, float]]:
    """Points along an ellipse with these half axes, turned clockwise, from one angle to another, all in degrees."""
    angles = np.deg2rad(np.linspace(first, last, max(2, int(last - first) // 2)))
    x, y = axes[0] * np.cos(angles), axes[1] * np.sin(angles)
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    return list(zip((centre[0] + cos * x - sin * y).tolist(), (centre[1] + sin * x + cos * y).tolist(), strict=True))
