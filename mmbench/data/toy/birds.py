"""Toy birds: procedural pictures whose every attribute is known, and captions that name some of them.

A bird has five coloured parts, a bill shape and a wing pattern that captions may name, and a pose, a size and a
position that they never do. Backgrounds vary independently of the bird and are never named. A class fixes crown, belly
and bill shape; everything else varies within it, so that a split by classes asks for combinations never seen in
training.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from mmbench.data.toy.drawing import SUPERSAMPLING, Colour, choice, curve, grained, listed, scaled
from mmbench.data.toy.scenery import background, draw_perch

PALETTE: dict[str, Colour] = {
    "red": (204, 36, 40),
    "orange": (242, 132, 24),
    "yellow": (250, 220, 44),
    "green": (46, 150, 66),
    "blue": (36, 92, 208),
    "purple": (136, 52, 168),
    "brown": (116, 70, 36),
    "black": (26, 26, 30),
    "white": (246, 246, 242),
    "grey": (138, 142, 146),
}
COLOURS = tuple(PALETTE)
PARTS = ("crown", "belly", "wing", "back", "bill")
BILL_SHAPES = ("short", "long", "hooked")
WING_PATTERNS = ("plain", "striped", "spotted")
POSES = ("perched", "flying")

NUM_CLASSES = 40
TEST_CLASSES = tuple(crown + 1 + 10 * (crown % 4) for crown in range(10))  # every crown colour once

_FAMILIES = {"short": ("Finch", "Wren"), "long": ("Kingfisher", "Sandpiper"), "hooked": ("Parakeet", "Shrike")}
_REST = len(PARTS) + 1  # in part maps: eye and legs


@dataclass(frozen=True)
class Bird:
    """Everything that is true of one bird.

    Attributes:
        bird_class: 1 to `NUM_CLASSES`.
        crown, belly, wing, back, bill: colours, keys of `PALETTE`. The tail has the colour of the back.
        bill_shape, wing_pattern, pose: of `BILL_SHAPES`, `WING_PATTERNS`, `POSES`.
        faces_left: which way it looks.
        tilt: degrees, positive raises the bill.
        size: longer side of its box over the shorter side of the picture.
        position: (right, down) in [0, 1], where its box lies in the room that the picture leaves.
        plumpness, tail: height of the body and length of the tail, 1 on average.
    """

    bird_class: int
    crown: str
    belly: str
    wing: str
    back: str
    bill: str
    bill_shape: str
    wing_pattern: str
    pose: str
    faces_left: bool
    tilt: float
    size: float
    position: tuple[float, float]
    plumpness: float
    tail: float

    @property
    def attributes(self) -> dict[str, str]:
        """What captions may name: the colour of each of `PARTS`, `bill_shape` and `wing_pattern`."""
        return {name: getattr(self, name) for name in (*PARTS, "bill_shape", "wing_pattern")}


class Rendering(NamedTuple):
    """A picture and where things are in it.

    Attributes:
        image: (H, W, 3) uint8.
        parts: (H, W) uint8, 0 background, 1 + p the p-th of `PARTS`, len(PARTS) + 1 the rest of the bird.
        box: x, y, width, height of the bird in pixels, 0-based.
    """

    image: np.ndarray
    parts: np.ndarray
    box: tuple[int, int, int, int]


def class_attributes(bird_class: int) -> dict[str, str]:
    """What a class (1 to `NUM_CLASSES`) fixes: crown, belly and bill shape.

    Raises:
        ValueError: there is no such class.
    """
    if not 1 <= bird_class <= NUM_CLASSES:
        raise ValueError(f"expected a toy bird class from 1 to {NUM_CLASSES}, found {bird_class}: choose one of those")
    group, crown = divmod(bird_class - 1, len(COLOURS))
    return {
        "crown": COLOURS[crown],
        "belly": COLOURS[(crown + 2 * group + 1) % len(COLOURS)],
        "bill_shape": BILL_SHAPES[(crown + 2 * group) % len(BILL_SHAPES)],
    }


def class_name(bird_class: int) -> str:
    """The folder of a class as CUB spells it, e.g. `001.Red_crowned_Finch`."""
    fixed = class_attributes(bird_class)
    family = _FAMILIES[fixed["bill_shape"]][(bird_class - 1) // (2 * len(COLOURS))]
    return f"{bird_class:03d}.{fixed['crown'].capitalize()}_crowned_{family}"


def sample_bird(rng: np.random.Generator, bird_class: int | None = None) -> Bird:
    """A random bird of a class, or of a random class.

    Raises:
        ValueError: there is no such class.
    """
    if bird_class is None:
        bird_class = int(rng.integers(1, NUM_CLASSES + 1))
    fixed = class_attributes(bird_class)
    return Bird(
        bird_class=bird_class,
        **fixed,
        wing=choice(rng, COLOURS),
        back=choice(rng, COLOURS),
        bill=choice(rng, COLOURS),
        wing_pattern=choice(rng, WING_PATTERNS),
        pose=choice(rng, ("perched", "perched", "flying")),
        faces_left=bool(rng.integers(2)),
        tilt=float(rng.uniform(-12, 18)),
        size=float(rng.uniform(0.5, 0.85)),
        position=(float(rng.random()), float(rng.random())),
        plumpness=float(rng.uniform(0.88, 1.12)),
        tail=float(rng.uniform(0.75, 1.25)),
    )


# Outlines of a bird that looks right: control points (x right, y down) of closed curves; a body is about 1.2 long.
_BODY = (
    (0.46, -0.22), (0.52, 0.10), (0.32, 0.40), (-0.06, 0.48), (-0.44, 0.32),
    (-0.72, 0.04), (-0.56, -0.12), (-0.22, -0.30), (0.08, -0.50),
)  # fmt: skip
_BACK = (
    (0.14, -0.54), (-0.06, -0.43), (-0.34, -0.27), (-0.60, -0.14), (-0.80, 0.02),
    (-0.62, 0.13), (-0.30, 0.00), (0.04, -0.12), (0.20, -0.32),
)  # fmt: skip
_TAIL = ((-0.52, -0.12), (-0.95, -0.06), (-1.30, 0.00), (-1.34, 0.13), (-1.26, 0.24), (-0.92, 0.18), (-0.55, 0.14))
_HEAD_CENTRE, _HEAD_RADIUS = np.array((0.36, -0.48)), 0.32
_CROWN_LOWER_EDGE = ((0.12, -0.33), (0.34, -0.37), (0.58, -0.42))
_BILLS = {
    "short": ((0.62, -0.58), (0.80, -0.53), (0.98, -0.43), (0.80, -0.37), (0.62, -0.34)),
    "long": ((0.62, -0.58), (0.90, -0.53), (1.24, -0.47), (1.42, -0.41), (1.20, -0.39), (0.90, -0.38), (0.62, -0.36)),
    "hooked": ((0.60, -0.64), (0.80, -0.66), (0.99, -0.52), (0.98, -0.24), (0.90, -0.35), (0.78, -0.36), (0.62, -0.34)),
}
_WINGS = {
    "perched": (
        (0.24, -0.14), (0.16, 0.14), (-0.12, 0.29), (-0.50, 0.28), (-0.95, 0.20),
        (-0.60, 0.02), (-0.20, -0.20), (0.08, -0.26),
    ),
    "flying": (
        (0.24, -0.02), (0.16, -0.42), (-0.02, -0.86), (-0.40, -1.22), (-0.55, -0.95),
        (-0.58, -0.60), (-0.52, -0.25), (-0.28, 0.06), (0.02, 0.12),
    ),
}  # fmt: skip
_WING_AXES = {"perched": ((0.22, -0.06), (-0.86, 0.18)), "flying": ((0.02, 0.06), (-0.36, -1.12))}
_FEET = ((0.02, 0.76), (-0.18, 0.76))


def render(bird: Bird, rng: np.random.Generator, scenery: np.random.Generator | None = None) -> Rendering:
    """Draws a bird before a background of its own.

    The picture is 110 to 180 pixels wide and high. Nothing that `rng` decides (picture size, background, grain) depends
    on the bird's colours: the same bird recoloured, with an equal stream, differs in the recoloured parts alone.

    Args:
        bird: what is drawn.
        rng: of everything that the bird does not say.
        scenery: of background, perch and grain in its place, so that a picture has another one of the same size.
    """
    width, height = (int(side) for side in rng.integers(110, 181, 2))
    scenery = scenery or rng
    return drawn(bird, background(width, height, scenery), scenery)


def drawn(bird: Bird, picture: Image.Image, rng: np.random.Generator) -> Rendering:
    """Draws a bird onto a background of (3 W, 3 H) pixels, which is painted over; `rng` is of perch and grain."""
    outlines = _outlines(bird)
    place = _placement(bird, outlines, picture.width // SUPERSAMPLING, picture.height // SUPERSAMPLING)
    if bird.pose == "perched":
        draw_perch(picture, [place(np.array(foot)) for foot in _FEET], rng)
    index = Image.new("L", picture.size)
    _draw_bird(picture, index, bird, outlines, place)
    image = np.asarray(picture.reduce(SUPERSAMPLING), dtype=np.float32)
    middle = SUPERSAMPLING // 2
    parts = np.asarray(index)[middle::SUPERSAMPLING, middle::SUPERSAMPLING].copy()
    rows, columns = np.flatnonzero(parts.any(1)), np.flatnonzero(parts.any(0))
    x, y = int(columns[0]), int(rows[0])
    box = (x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y)
    image = _shade(image, parts, box, rng)
    return Rendering(image, parts, box)


def room(bird: Bird, width: int, height: int) -> np.ndarray:
    """How many pixels to the right and down a bird can be moved in a picture, from `position` (0, 0) to (1, 1)."""
    outlines = _outlines(bird)
    first, last = (_placement(replace(bird, position=(at, at)), outlines, width, height).origin for at in (0.0, 1.0))
    return (last - first) / SUPERSAMPLING


def _outlines(bird: Bird) -> dict[str, np.ndarray]:
    """Closed curves (M, 2) of everything that is filled, in the bird's own coordinates, facing right."""
    stout = np.array((1.0, bird.plumpness))
    tail = np.array(_TAIL)
    tail[:, 0] = -0.55 + (tail[:, 0] + 0.55) * bird.tail
    angles = np.radians(np.linspace(12, 206, 9))
    arc = _HEAD_CENTRE + (_HEAD_RADIUS + 0.01) * np.stack((np.cos(angles), -np.sin(angles)), 1)
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    return {
        "tail": curve(tail),
        "body": curve(np.array(_BODY) * stout),
        "back": curve(np.array(_BACK) * stout),
        "head": curve(_HEAD_CENTRE + _HEAD_RADIUS * np.stack((np.cos(turn), np.sin(turn)), 1)),
        "crown": curve(np.concatenate((arc, _CROWN_LOWER_EDGE))),
        "bill": curve(np.array(_BILLS[bird.bill_shape])),
        "wing": curve(np.array(_WINGS[bird.pose])),
        "far wing": curve(np.array(_WINGS[bird.pose]) * 0.92 + (0.30, -0.06)),
    }


class _Placement:
    """From the bird's own coordinates to supersampled pixels; called on (..., 2) points."""

    def __init__(self, rotation: np.ndarray, scale: float, origin: np.ndarray) -> None:
        self.rotation, self.scale, self.origin = rotation, scale, origin

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return points @ self.rotation.T * self.scale + self.origin


def _placement(bird: Bird, outlines: dict[str, np.ndarray], width: int, height: int) -> _Placement:
    angle = np.radians(-bird.tilt)
    rotation = np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))))
    if bird.faces_left:
        rotation = np.diag((-1.0, 1.0)) @ rotation
    visible = [outline for name, outline in outlines.items() if name != "far wing" or bird.pose == "flying"]
    points = np.concatenate([*visible, np.array(_FEET)]) @ rotation.T
    low, extent = points.min(0), np.ptp(points, axis=0)
    canvas = np.array((width, height)) * SUPERSAMPLING
    scale = bird.size * canvas.min() / extent.max()
    room = canvas - extent * scale
    return _Placement(rotation, scale, room * bird.position - low * scale)


def _draw_bird(
    picture: Image.Image, index: Image.Image, bird: Bird, outlines: dict[str, np.ndarray], place: _Placement
) -> None:
    brush, marks = ImageDraw.Draw(picture), ImageDraw.Draw(index)
    line = max(2, round(0.022 * place.scale))

    def fill(name: str, part: str, shade: float = 1.0, edge: float = 0.7) -> list[tuple[float, float]]:
        points = [tuple(point) for point in place(outlines[name]).tolist()]
        colour = scaled(PALETTE[getattr(bird, part)], shade)
        brush.polygon(points, fill=colour)
        brush.line([*points, points[0]], fill=scaled(colour, edge), width=line)
        marks.polygon(points, fill=1 + PARTS.index(part))
        return points

    if bird.pose == "flying":
        fill("far wing", "wing", shade=0.88)
    else:
        for foot in _FEET:
            leg = place(np.array(((foot[0], 0.3), foot, (foot[0] + 0.12, foot[1])))).ravel().tolist()
            brush.line(leg, fill=(70, 58, 52), width=2 * line)
            marks.line(leg, fill=_REST, width=2 * line)
    fill("bill", "bill")
    fill("tail", "back")
    fill("body", "belly")
    fill("back", "back", edge=0.85)
    fill("head", "belly", edge=1.0)
    fill("crown", "crown", edge=0.85)
    wing = fill("wing", "wing")
    _draw_pattern(picture, bird, wing, place)
    for radius, colour in ((0.075, (250, 250, 250)), (0.052, (12, 12, 14)), (0.018, (255, 255, 255))):
        offset = (0.02, -0.02) if radius < 0.03 else (0.0, 0.0)
        x, y = place(np.array((0.47, -0.53)) + offset)
        r = radius * place.scale
        brush.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        marks.ellipse((x - r, y - r, x + r, y + r), fill=_REST)


def _draw_pattern(picture: Image.Image, bird: Bird, wing: list[tuple[float, float]], place: _Placement) -> None:
    """Bars or dots along the wing, kept to about a quarter of it, so that its own colour stays the most frequent."""
    if bird.wing_pattern == "plain":
        return
    inside, pattern = Image.new("1", picture.size), Image.new("1", picture.size)
    ImageDraw.Draw(inside).polygon(wing, fill=1)
    brush = ImageDraw.Draw(pattern)
    start, end = (np.array(point) for point in _WING_AXES[bird.pose])
    axis = end - start
    across = np.array((-axis[1], axis[0])) / np.linalg.norm(axis)
    for step, along in enumerate(np.linspace(0.16, 0.80, 4)):
        centre = start + along * axis
        if bird.wing_pattern == "striped":
            ends = place(np.stack((centre - 0.4 * across, centre + 0.4 * across)))
            brush.line(ends.ravel().tolist(), fill=1, width=round(0.075 * place.scale))
        else:
            for side in (-0.11, 0.11) if step % 2 == 0 else (0.0,):
                x, y = place(centre + side * across)
                r = 0.055 * place.scale
                brush.ellipse((x - r, y - r, x + r, y + r), fill=1)
    red, green, blue = PALETTE[bird.wing]
    light = 0.3 * red + 0.59 * green + 0.11 * blue > 110
    colour = tuple(round(0.3 * level + (0 if light else 0.7 * 250)) for level in (red, green, blue))
    picture.paste(colour, mask=Image.composite(pattern, Image.new("1", picture.size), inside))


def _shade(
    image: np.ndarray, parts: np.ndarray, box: tuple[int, int, int, int], rng: np.random.Generator
) -> np.ndarray:
    """Light from above on the bird, weak enough that every part keeps its colour, and a fine grain over all."""
    height = np.arange(image.shape[0], dtype=np.float32)
    light = 1.06 - 0.14 * np.clip((height - box[1]) / box[3], 0, 1)
    return grained(np.where((parts > 0)[..., None], image * light[:, None, None], image), rng)


_WORDS = {
    "crown": ("crown", "crown", "cap", "head"),
    "belly": ("belly", "belly", "breast", "chest"),
    "wing": ("wing", "wings", "wings"),
    "back": ("back", "back", "tail"),
    "bill": ("bill", "beak", "beak"),
}


def describe(bird: Bird, rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """One caption in the manner of Reed et al.'s, and the attributes it names.

    Returns:
        Lower-case text that names the colours of one to three parts, sometimes with bill shape or wing pattern; and
        those attributes: part to colour, `bill_shape` and `wing_pattern` to their values.
    """
    parts = [PARTS[i] for i in rng.permutation(len(PARTS))[: 1 + int(rng.integers(3))]]
    named = {part: getattr(bird, part) for part in parts}
    shapes = {"bill": "bill_shape", "wing": "wing_pattern"}
    for part in parts:
        if part in shapes and rng.random() < 0.5:
            named[shapes[part]] = getattr(bird, shapes[part])
    adjectives = {part: named.get(shapes.get(part, "")) for part in parts}
    things = [_thing(part, named[part], adjectives[part], rng) for part in parts]
    match int(rng.integers(6)):
        case 0:
            caption = f"this bird has {listed([thing.short for thing in things])}."
        case 1:
            caption = f"a bird with {listed([thing.short for thing in things])}."
        case 2:
            caption = f"this is a bird with {listed([thing.short for thing in things])}."
        case 3:
            caption = "this bird has " + " and has ".join(thing.long for thing in things) + "."
        case 4:
            caption = f"this bird's {listed([thing.clause for thing in things])}."
        case _:
            caption = f"the bird has {things[0].long}" + "".join(f", {thing.short}" for thing in things[1:])
    return caption, named


class _Thing(NamedTuple):
    short: str  # a short black bill
    long: str  # a bill that is short and black
    clause: str  # bill is short and black


def _thing(part: str, colour: str, adjective: str | None, rng: np.random.Generator) -> _Thing:
    word = choice(rng, _WORDS[part])
    plural = word.endswith("s")
    noun = " ".join(filter(None, (adjective, colour, word)))
    article = "" if plural else "an " if noun[0] in "aeiou" else "a "
    verb = "are" if plural else "is"
    quality = f"{adjective} and {colour}" if adjective else colour
    bare = word if plural else f"a {word}"
    return _Thing(article + noun, f"{bare} that {verb} {quality}", f"{word} {verb} {quality}")
