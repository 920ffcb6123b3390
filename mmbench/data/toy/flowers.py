"""Toy flowers: procedural pictures whose every attribute is known, and captions that name some of them.

A flower has four coloured parts, a petal shape and a petal pattern that captions may name; number and rows of petals,
tilt, size, position and bend of the stem they never do. Backgrounds vary independently of the flower and are never
named. A class fixes colour, shape and pattern of the petals; everything else varies within it, so that a split by
classes asks for combinations never seen in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from mmbench.data.toy.birds import COLOURS, PALETTE
from mmbench.data.toy.drawing import SUPERSAMPLING, Colour, choice, curve, grained, listed, scaled
from mmbench.data.toy.scenery import background

PARTS = ("petals", "centre", "stem", "leaves")
PETAL_SHAPES = ("round", "pointed", "slender", "ruffled")
PETAL_PATTERNS = ("plain", "striped", "spotted")

NUM_CLASSES = 102


@dataclass(frozen=True)
class Flower:
    """Everything that is true of one flower.

    Attributes:
        flower_class: 1 to `NUM_CLASSES`.
        petals, centre, stem, leaves: colours, keys of `PALETTE`.
        petal_shape, petal_pattern: of `PETAL_SHAPES`, `PETAL_PATTERNS`.
        num_petals: of a row.
        num_rows: 1, or 2 with a second row of petals behind the first.
        size: radius of the flower's head over the shorter side of the picture.
        disc: radius of the centre over that of the head.
        position: (right, down) in [-1, 1], where the head lies in the room that the picture leaves.
        turn: of the first petal, in radians.
        squash, lean: the head is seen from the side: height over width, and in which direction, in radians.
        bend: of the stem, in [-1, 1], positive to the right.
        foliage: for each leaf, where it grows along the stem in [0, 1], its length over the shorter side, and its
            angle above the horizontal in radians; they grow to the right and to the left in turn.
    """

    flower_class: int
    petals: str
    centre: str
    stem: str
    leaves: str
    petal_shape: str
    petal_pattern: str
    num_petals: int
    num_rows: int
    size: float
    disc: float
    position: tuple[float, float]
    turn: float
    squash: float
    lean: float
    bend: float
    foliage: tuple[tuple[float, float, float], ...]

    @property
    def attributes(self) -> dict[str, str]:
        """What captions may name: the colour of each of `PARTS`, `petal_shape` and `petal_pattern`."""
        return {name: getattr(self, name) for name in (*PARTS, "petal_shape", "petal_pattern")}


class Rendering(NamedTuple):
    """A picture and where things are in it.

    Attributes:
        image: (H, W, 3) uint8.
        parts: (H, W) uint8, 0 background, 1 + p the p-th of `PARTS`.
    """

    image: np.ndarray
    parts: np.ndarray


def class_attributes(flower_class: int) -> dict[str, str]:
    """What a class (1 to `NUM_CLASSES`) fixes: colour, shape and pattern of the petals; no two classes fix the same.

    Raises:
        ValueError: there is no such class.
    """
    if not 1 <= flower_class <= NUM_CLASSES:
        raise ValueError(
            f"expected a toy flower class from 1 to {NUM_CLASSES}, found {flower_class}: choose one of those"
        )
    group, colour = divmod(flower_class - 1, len(COLOURS))
    # Steps of 5 and 7 have no divisor in common with the 12 forms: the eleven groups of a colour have eleven of them.
    pattern, shape = divmod((5 * group + 7 * colour) % 12, len(PETAL_SHAPES))
    return {
        "petals": COLOURS[colour],
        "petal_shape": PETAL_SHAPES[shape],
        "petal_pattern": PETAL_PATTERNS[pattern],
    }


_NUM_PETALS = {"round": (5, 8), "pointed": (6, 10), "slender": (12, 18), "ruffled": (4, 7)}  # fewest and most


def sample_flower(rng: np.random.Generator, flower_class: int | None = None) -> Flower:
    """A random flower of a class, or of a random class.

    Raises:
        ValueError: there is no such class.
    """
    if flower_class is None:
        flower_class = int(rng.integers(1, NUM_CLASSES + 1))
    fixed = class_attributes(flower_class)
    fewest, most = _NUM_PETALS[fixed["petal_shape"]]
    return Flower(
        flower_class=flower_class,
        **fixed,
        centre=choice(rng, COLOURS),
        stem=choice(rng, COLOURS),
        leaves=choice(rng, COLOURS),
        num_petals=int(rng.integers(fewest, most + 1)),
        num_rows=int(rng.integers(1, 3)),
        size=float(rng.uniform(0.25, 0.31)),
        disc=float(rng.uniform(0.26, 0.36)),
        position=(float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1))),
        turn=float(rng.uniform(0, 2 * np.pi)),
        squash=float(rng.uniform(0.74, 1.0)),
        lean=float(rng.uniform(-0.5, 0.5)),
        bend=float(rng.uniform(-1, 1)),
        foliage=_sample_foliage(rng),
    )


def _sample_foliage(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    """Two to four leaves, from the lowest to the highest; the two longest grow where the picture has room for them."""
    num_leaves = int(rng.integers(2, 5))
    heights = np.linspace(0.92, 0.5, num_leaves) + rng.uniform(-0.04, 0.04, num_leaves)
    return tuple((float(height), float(rng.uniform(0.26, 0.36)), float(rng.uniform(0.2, 0.9))) for height in heights)


# The right half of a petal that points up, from its foot to its tip: (across, along); the head's radius is 1.
_PETALS = {
    "round": ((0.06, 0.05), (0.18, 0.30), (0.31, 0.62), (0.25, 0.88), (0.10, 0.99)),
    "pointed": ((0.06, 0.05), (0.19, 0.28), (0.25, 0.52), (0.15, 0.76), (0.05, 0.93), (0.0, 1.02)),
    "slender": ((0.05, 0.05), (0.08, 0.35), (0.115, 0.66), (0.10, 0.88), (0.045, 0.99)),
    "ruffled": ((0.07, 0.05), (0.24, 0.34), (0.42, 0.60), (0.36, 0.72), (0.42, 0.84), (0.27, 0.85), (0.22, 0.98)),
}
# How wide petals are: of the broad shapes, fewer petals are broader, so that they cover the same ring.
_BREADTH = {"round": 6.5, "pointed": 8.0, "slender": 15.0, "ruffled": 5.5}
_LEAF = ((0.0, 0.0), (0.22, 0.115), (0.48, 0.17), (0.78, 0.09), (1.0, 0.0))  # one side: along, across; its length is 1
_STRIPES = {"round": 0.10, "pointed": 0.085, "slender": 0.0, "ruffled": 0.13}  # from the middle of a petal to its sides
_DOT = {"round": 0.035, "pointed": 0.033, "slender": 0.026, "ruffled": 0.035}  # radius


def render(flower: Flower, rng: np.random.Generator) -> Rendering:
    """Draws a flower before a background of its own.

    The picture is 110 to 180 pixels wide and high. Head, leaves and a good part of the stem lie in its middle square.
    Nothing that `rng` decides (picture size, background, grain) depends on the flower's colours: the same flower
    recoloured, with an equal stream, differs in the recoloured parts alone.
    """
    width, height = (int(side) for side in rng.integers(110, 181, 2))
    picture = background(width, height, rng)
    index = Image.new("L", picture.size)
    _Painter(flower, picture, index).paint()
    image = np.asarray(picture.reduce(SUPERSAMPLING), dtype=np.float32)
    middle = SUPERSAMPLING // 2
    parts = np.asarray(index)[middle::SUPERSAMPLING, middle::SUPERSAMPLING].copy()
    return Rendering(_lit(image, parts, rng), parts)


class _Painter:
    """Paints a flower into a picture and its parts into a map of it, both supersampled."""

    def __init__(self, flower: Flower, picture: Image.Image, index: Image.Image) -> None:
        self.flower = flower
        self.brush, self.marks = ImageDraw.Draw(picture), ImageDraw.Draw(index)
        self.side = min(picture.size)
        canvas = np.array(picture.size)
        self.bottom = float(canvas[1])
        self.radius = flower.size * self.side
        right, down = flower.position
        above = (canvas[1] - self.side) / 2 + self.radius * 1.04 + (0.03 + 0.02 * down) * self.side
        self.head = np.array((canvas[0] / 2 + 0.1 * right * self.side, above))
        self.edge = max(2, round(0.006 * self.side))
        axes = _rotation(flower.lean)
        self.tilt = axes @ np.diag((1.0, flower.squash)) @ axes.T

    def paint(self) -> None:
        """From the back to the front: stem, leaves, petals, centre."""
        stem = self._stem()
        self._fill("stem", self._ribbon(stem, 0.028 * self.side))
        for number, (height, length, angle) in enumerate(self.flower.foliage):
            self._leaf(stem[round(height * (len(stem) - 1))], length * self.side, angle, 1 - 2 * (number % 2))
        step = 2 * np.pi / self.flower.num_petals
        if self.flower.num_rows == 2:
            self._row(self.flower.turn + step / 2, 1.0, 0.92)
        self._row(self.flower.turn, 0.98 if self.flower.num_rows == 1 else 0.86, 1.0)
        self._centre()

    def _fill(self, part: str, points: np.ndarray, shade: float = 1.0, edge: float = 0.72) -> None:
        corners = points.ravel().tolist()
        colour = scaled(PALETTE[getattr(self.flower, part)], shade)
        self.brush.polygon(corners, fill=colour)
        self.brush.line([*corners, *corners[:2]], fill=scaled(colour, edge), width=self.edge)
        self.marks.polygon(corners, fill=1 + PARTS.index(part))

    def _stem(self) -> np.ndarray:
        """The stem's middle line from the head to below the middle square, (M, 2): a quadratic curve."""
        foot = np.array((self.head[0] - 0.08 * self.flower.bend * self.side, self.bottom + 0.02 * self.side))
        bow = (self.head + foot) / 2 + np.array((0.12 * self.flower.bend * self.side, 0))
        t = np.linspace(0, 1, 40)[:, None]
        line = (1 - t) ** 2 * self.head + 2 * t * (1 - t) * bow + t**2 * foot
        return line[line[:, 1] < self.head[1] + 0.92 * self.side]

    def _ribbon(self, line: np.ndarray, half: float) -> np.ndarray:
        along = np.gradient(line, axis=0)
        across = half * np.stack((-along[:, 1], along[:, 0]), 1) / np.linalg.norm(along, axis=1, keepdims=True)
        return np.concatenate((line + across, (line - across)[::-1]))

    def _leaf(self, foot: np.ndarray, length: float, angle: float, side: int) -> None:
        half = np.array(_LEAF) * length
        outline = np.concatenate((half, (half * (1, -1))[-2:0:-1]))
        place = np.diag((side, -1)) @ _rotation(angle)
        self._fill("leaves", curve(outline, 5) @ place.T + foot)
        rib = np.array(((0.0, 0.0), (0.86, 0.0))) * length @ place.T + foot
        self.brush.line(rib.ravel().tolist(), fill=scaled(PALETTE[self.flower.leaves], 0.8), width=self.edge)

    def _placed(self, points: np.ndarray, angle: float, reach: float) -> np.ndarray:
        """Points of a petal that points up, in pixels: turned by `angle`, then seen from the side."""
        turned = points * (1, -1) @ _rotation(angle).T
        return turned * self.radius * reach @ self.tilt.T + self.head

    def _row(self, turn: float, reach: float, shade: float) -> None:
        half = np.array(_PETALS[self.flower.petal_shape])
        breadth = _BREADTH[self.flower.petal_shape] / self.flower.num_petals
        outline = curve(np.concatenate((half, (half * (-1, 1))[::-1])) * (breadth, 1), 5)
        for number in range(self.flower.num_petals):
            angle = turn + 2 * np.pi * number / self.flower.num_petals
            darker = shade * (0.96 if number % 2 else 1.0)
            self._fill("petals", self._placed(outline, angle, reach), darker, edge=0.8)
            self._pattern(angle, reach, breadth)

    def _pattern(self, angle: float, reach: float, breadth: float) -> None:
        """Lines or dots along a petal, kept to a quarter of it, so that its own colour stays the most frequent."""
        colour = _contrast(PALETTE[self.flower.petals])
        aside = _STRIPES[self.flower.petal_shape] * breadth
        if self.flower.petal_pattern == "striped":
            for across in {-aside, 0.0, aside}:
                line = self._placed(np.array(((0.6 * across, 0.4), (across, 0.8))), angle, reach)
                self.brush.line(line.ravel().tolist(), fill=colour, width=round(0.026 * self.radius))
        elif self.flower.petal_pattern == "spotted":
            for across, along in ((0.0, 0.46), (aside, 0.62), (-aside, 0.62), (0.0, 0.78)):
                x, y = self._placed(np.array((across, along)), angle, reach)
                r = _DOT[self.flower.petal_shape] * self.radius
                self.brush.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def _centre(self) -> None:
        turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        ring = np.stack((np.cos(turn), np.sin(turn)), 1) * self.flower.disc
        colour = PALETTE[self.flower.centre]
        self._fill("centre", self._placed(curve(ring, 3), 0.0, 1.0))
        # Florets as in a sunflower: the golden angle between each and the next.
        for number in range(2, 26, 2):
            angle, distance = 2.39996 * number, 0.88 * self.flower.disc * np.sqrt(number / 26)
            x, y = self._placed(distance * np.array((np.cos(angle), np.sin(angle))), 0.0, 1.0)
            r = 0.022 * self.radius
            self.brush.ellipse((x - r, y - r, x + r, y + r), fill=scaled(colour, 0.8))


def _rotation(angle: float) -> np.ndarray:
    return np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))))


def _lit(image: np.ndarray, parts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light from above on the flower, weak enough that every part keeps its colour, and a fine grain over all."""
    light = np.linspace(1.04, 0.94, image.shape[0], dtype=np.float32)[:, None, None]
    return grained(np.where((parts > 0)[..., None], image * light, image), rng)


def _contrast(colour: Colour) -> Colour:
    """A dark tone of a light colour, a light one of a dark colour."""
    red, green, blue = colour
    light = 0.3 * red + 0.59 * green + 0.11 * blue > 110
    return scaled(colour, 0.5) if light else (round(0.3 * red + 175), round(0.3 * green + 175), round(0.3 * blue + 175))


_WORDS = {
    "petals": ("petals",),
    "centre": ("centre", "centre", "middle"),
    "stem": ("stem", "stem", "stalk"),
    "leaves": ("leaves",),
}
_SHAPE, _PATTERN = "petal_shape", "petal_pattern"


def describe(flower: Flower, rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """One caption in the manner of Reed et al.'s, and the attributes it names.

    Returns:
        Lower-case text that names one to three attributes, among them the colour of at least one part; and those
        attributes: part to colour, `petal_shape` and `petal_pattern` to their values.
    """
    order = [str(name) for name in rng.permutation([*PARTS, _SHAPE, _PATTERN])]
    named = order[: 1 + int(rng.integers(3))]
    if not set(named) & set(PARTS):
        named[0] = choice(rng, PARTS)
    parts = list(dict.fromkeys("petals" if name in (_SHAPE, _PATTERN) else name for name in named))
    true = flower.attributes
    things = [_thing(part, [true[name] for name in _qualities(part) if name in named], rng) for part in parts]
    shorts = listed([thing.short for thing in things])
    match int(rng.integers(6)):
        case 0:
            others = listed([thing.short for thing in things[1:]])
            caption = f"this flower has {things[0].long}" + (f" with {others}" if others else "")
        case 1:
            caption = f"this flower has {shorts}"
        case 2:
            caption = f"a flower with {shorts}"
        case 3:
            caption = f"the flower shown has {listed([thing.long for thing in things])}"
        case 4:
            caption = "on this flower the " + " and the ".join(thing.clause for thing in things)
        case _:
            caption = f"this is a flower that has {listed([things[0].long, *(thing.short for thing in things[1:])])}"
    return f"{caption}.", {name: true[name] for name in true if name in named}


def _qualities(part: str) -> tuple[str, ...]:
    """Attributes that are said of a part, in the order of adjectives."""
    return (_SHAPE, _PATTERN, "petals") if part == "petals" else (part,)


class _Thing(NamedTuple):
    short: str  # pointed yellow petals; a red centre
    long: str  # petals that are pointed and yellow; a centre that is red
    clause: str  # petals are pointed and yellow; centre is red


def _thing(part: str, qualities: Sequence[str], rng: np.random.Generator) -> _Thing:
    word = choice(rng, _WORDS[part])
    plural = part in ("petals", "leaves")
    noun = " ".join((*qualities, word))
    article = "" if plural else "an " if noun[0] in "aeiou" else "a "
    verb = "are" if plural else "is"
    bare = word if plural else f"a {word}"
    quality = listed(qualities)
    return _Thing(article + noun, f"{bare} that {verb} {quality}", f"{word} {verb} {quality}")
