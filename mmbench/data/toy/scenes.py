"""Toy scenes: procedural pictures of one to four coloured things, and captions that name some of their colours.

Each thing is of another category, a COCO one, and has a colour, a size and a place of its own; none overlaps another.
The coloured area of a category is its part; wheels, windows, handles and outlines belong to no part. Where things lie
to one another is true of the picture and may be said; sky, ground and flocks of birds are never named by a colour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from mmbench.data.toy.birds import COLOURS, PALETTE
from mmbench.data.toy.drawing import SUPERSAMPLING, Colour, choice, curve, grained, listed, scaled
from mmbench.data.toy.scenery import background

Paint = float | Colour  # the thing's colour times a factor, or a colour that never changes
Shape = tuple[np.ndarray, Paint]  # a filled outline (M, 2) and its paint


def _polygon(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points)


def _smooth(*points: tuple[float, float]) -> np.ndarray:
    return curve(np.array(points), 4)


def _disc(x: float, y: float, across: float, down: float | None = None) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack((x + across * np.cos(turn), y + (down or across) * np.sin(turn)), 1)


def _bar(start: tuple[float, float], end: tuple[float, float], width: float) -> np.ndarray:
    first, last = np.array(start), np.array(end)
    along = (last - first) / np.linalg.norm(last - first)
    side = width / 2 * np.array((-along[1], along[0]))
    return np.stack((first + side, last + side, last - side, first - side))


class Category(NamedTuple):
    """What all things of a category share.

    Attributes:
        number: COCO's `category_id`.
        supercategory: COCO's.
        words: what captions call it.
        stance: how it is there, in captions.
        shapes: from back to front; x to the right, y down, the foot at y = 0 and the top at y = -1.
    """

    number: int
    supercategory: str
    words: tuple[str, ...]
    stance: str
    shapes: tuple[Shape, ...]

    @property
    def extent(self) -> tuple[float, float]:
        """Smallest and largest x."""
        points = np.concatenate([outline for outline, _ in self.shapes])
        return float(points[:, 0].min()), float(points[:, 0].max())


_DARK, _METAL, _WOOD, _GLASS = (44, 44, 50), (176, 180, 186), (128, 98, 70), (188, 212, 222)
_LEAF, _BLOSSOM = (104, 138, 88), (228, 178, 190)

# fmt: off
CATEGORIES = {
    "car": Category(3, "vehicle", ("car", "car", "automobile"), "parked", (
        (_smooth((-0.95, -0.24), (-0.90, -0.56), (-0.52, -0.66), (-0.34, -0.96), (0.02, -1.0), (0.36, -0.94),
                 (0.58, -0.64), (0.92, -0.52), (0.98, -0.24), (0.5, -0.16), (-0.5, -0.16)), 1.0),
        (_polygon((-0.40, -0.64), (-0.27, -0.88), (-0.02, -0.91), (-0.02, -0.63)), _GLASS),
        (_polygon((0.06, -0.63), (0.06, -0.91), (0.29, -0.87), (0.43, -0.62)), _GLASS),
        (_disc(0.90, -0.42, 0.06, 0.07), (250, 238, 190)),
        (_disc(-0.54, -0.20, 0.20), _DARK), (_disc(0.56, -0.20, 0.20), _DARK),
        (_disc(-0.54, -0.20, 0.09), _METAL), (_disc(0.56, -0.20, 0.09), _METAL),
    )),
    "boat": Category(9, "vehicle", ("boat", "boat", "sailboat"), "resting", (
        (_bar((-0.02, -0.2), (-0.02, -1.0), 0.05), _WOOD),
        (_polygon((0.04, -0.96), (0.58, -0.36), (0.04, -0.36)), 1.0),
        (_polygon((-0.08, -0.84), (-0.08, -0.36), (-0.46, -0.36)), 1.0),
        (_polygon((-0.76, -0.30), (0.80, -0.30), (0.54, 0.0), (-0.52, 0.0)), 1.0),
        (_polygon((-0.76, -0.30), (0.80, -0.30), (0.75, -0.24), (-0.72, -0.24)), _WOOD),
    )),
    "umbrella": Category(28, "accessory", ("umbrella", "umbrella", "parasol"), "standing open", (
        (_bar((0.0, -0.9), (0.0, -0.05), 0.05), _WOOD), (_bar((0.0, -0.03), (0.16, -0.03), 0.06), _WOOD),
        (_bar((0.0, -1.0), (0.0, -0.9), 0.04), _DARK),
        (_polygon((-0.62, -0.46), (-0.57, -0.64), (-0.44, -0.80), (-0.24, -0.92), (0.0, -0.96), (0.24, -0.92),
                  (0.44, -0.80), (0.57, -0.64), (0.62, -0.46), (0.42, -0.53), (0.21, -0.46), (0.0, -0.53),
                  (-0.21, -0.46), (-0.42, -0.53)), 1.0),
        (_bar((0.0, -0.95), (-0.21, -0.47), 0.016), 0.72), (_bar((0.0, -0.95), (0.21, -0.47), 0.016), 0.72),
    )),
    "suitcase": Category(33, "accessory", ("suitcase",), "standing", (
        (_polygon((-0.20, -0.78), (-0.20, -1.0), (0.20, -1.0), (0.20, -0.78), (0.13, -0.78), (0.13, -0.93),
                  (-0.13, -0.93), (-0.13, -0.78)), _DARK),
        (_disc(-0.30, -0.05, 0.06), _DARK), (_disc(0.30, -0.05, 0.06), _DARK),
        (_smooth((-0.44, -0.14), (-0.44, -0.74), (-0.36, -0.82), (0.36, -0.82), (0.44, -0.74), (0.44, -0.14),
                 (0.36, -0.06), (-0.36, -0.06)), 1.0),
        (_bar((-0.24, -0.80), (-0.24, -0.07), 0.045), _WOOD), (_bar((0.24, -0.80), (0.24, -0.07), 0.045), _WOOD),
    )),
    "sports ball": Category(37, "sports", ("ball",), "lying", (
        (_disc(0.0, -0.5, 0.5), 1.0),
        (_bar((-0.47, -0.62), (-0.10, -0.50), 0.035), _DARK), (_bar((-0.10, -0.50), (0.10, -0.03), 0.035), _DARK),
        (_bar((-0.10, -0.50), (0.20, -0.94), 0.035), _DARK),
    )),
    "kite": Category(38, "sports", ("kite",), "flying", (
        (_bar((0.02, -0.34), (-0.14, -0.20), 0.025), _DARK), (_bar((-0.14, -0.20), (0.06, -0.02), 0.025), _DARK),
        (_polygon((-0.22, -0.28), (-0.04, -0.20), (-0.06, -0.12), (-0.20, -0.16)), _BLOSSOM),
        (_polygon((-0.08, -0.10), (0.10, -0.10), (0.14, 0.0), (-0.02, -0.02)), _BLOSSOM),
        (_polygon((0.0, -1.0), (0.34, -0.70), (0.02, -0.30), (-0.34, -0.70)), 1.0),
        (_bar((0.0, -0.97), (0.02, -0.33), 0.02), _WOOD), (_bar((-0.32, -0.70), (0.32, -0.70), 0.02), _WOOD),
    )),
    "cup": Category(47, "kitchen", ("cup", "cup", "mug"), "sitting", (
        (_smooth((0.34, -0.78), (0.62, -0.80), (0.72, -0.54), (0.60, -0.28), (0.32, -0.22), (0.34, -0.36),
                 (0.52, -0.40), (0.58, -0.54), (0.52, -0.66), (0.34, -0.64)), 1.0),
        (_smooth((-0.46, -0.90), (-0.42, -0.40), (-0.36, -0.06), (-0.20, 0.0), (0.20, 0.0), (0.36, -0.06),
                 (0.42, -0.40), (0.46, -0.90)), 1.0),
        (_disc(0.0, -0.90, 0.46, 0.10), 0.85), (_disc(0.0, -0.89, 0.37, 0.065), (92, 66, 48)),
    )),
    "vase": Category(86, "indoor", ("vase", "vase", "flower vase"), "standing", (
        (_bar((0.0, -0.55), (-0.16, -0.84), 0.03), _LEAF), (_bar((0.0, -0.55), (0.17, -0.82), 0.03), _LEAF),
        (_bar((0.0, -0.55), (0.01, -0.9), 0.03), _LEAF),
        (_disc(-0.17, -0.84, 0.10), _BLOSSOM), (_disc(0.18, -0.82, 0.10), _BLOSSOM),
        (_disc(0.01, -0.90, 0.10), _BLOSSOM),
        (_disc(-0.17, -0.84, 0.035), _WOOD), (_disc(0.18, -0.82, 0.035), _WOOD), (_disc(0.01, -0.90, 0.035), _WOOD),
        (_smooth((-0.16, -0.62), (-0.13, -0.52), (-0.30, -0.30), (-0.26, -0.08), (-0.14, 0.0), (0.14, 0.0),
                 (0.26, -0.08), (0.30, -0.30), (0.13, -0.52), (0.16, -0.62)), 1.0),
    )),
}
# fmt: on
PARTS = tuple(CATEGORIES)
FLOCK = 16  # COCO's `category_id` of birds, which come in crowds only
_REST = len(PARTS) + 1  # in part maps: what belongs to no part

GROUNDS = {
    "grass": ((134, 154, 100), "on the grass", "a grassy field"),
    "sand": ((208, 192, 160), "on the sand", "a sandy beach"),
    "pavement": ((164, 162, 160), "on the pavement", "a paved square"),
    "snow": ((222, 226, 230), "in the snow", "a snowy field"),
    "deck": ((174, 146, 116), "on a wooden deck", "a wooden deck"),
}


@dataclass(frozen=True)
class Thing:
    """One thing in a scene.

    Attributes:
        category: key of `CATEGORIES`.
        colour: key of `PALETTE`.
        middle, foot: of its box, x and largest y, in pixels of the picture.
        height: in pixels.
        faces_left: whether it is mirrored.
        row: 0 far, 1 near.
    """

    category: str
    colour: str
    middle: float
    foot: float
    height: float
    faces_left: bool
    row: int

    def outlines(self) -> list[tuple[np.ndarray, Paint]]:
        """Its shapes from back to front, in pixels of the picture."""
        low, high = CATEGORIES[self.category].extent
        mirror = np.array((-1.0 if self.faces_left else 1.0, 1.0))
        centre = np.array(((low + high) / 2, 0.0))
        place = np.array((self.middle, self.foot))
        return [
            ((outline - centre) * mirror * self.height + place, paint)
            for outline, paint in CATEGORIES[self.category].shapes
        ]


@dataclass(frozen=True)
class Scene:
    """Everything that is true of one scene.

    Attributes:
        width, height: of the picture in pixels.
        ground: key of `GROUNDS`.
        horizon: where the ground begins, in pixels from above.
        things: from far to near, each of another category; may be none.
        flock: whether birds fly in the sky.
    """

    width: int
    height: int
    ground: str
    horizon: float
    things: tuple[Thing, ...]
    flock: bool

    @property
    def attributes(self) -> dict[str, str]:
        """What captions may name: the colour of each category that is there."""
        return {thing.category: thing.colour for thing in self.things}


class Rendering(NamedTuple):
    """A picture and where things are in it.

    Attributes:
        image: (H, W, 3) uint8.
        parts: (H, W) uint8, 0 background, 1 + p the p-th of `PARTS`, len(PARTS) + 1 the rest of the things.
        polygons: for each thing its outlines (M, 2) in pixels, which together are all of it.
        crowd: (H, W) uint8, 1 where the flock is; None where there is none.
    """

    image: np.ndarray
    parts: np.ndarray
    polygons: tuple[list[np.ndarray], ...]
    crowd: np.ndarray | None


def sample_scene(rng: np.random.Generator, bare: bool = False, flock: bool = False) -> Scene:
    """A random scene of one to four things, or of none (`bare`)."""
    height = int(rng.integers(124, 168))
    width = int(np.clip(height * rng.uniform(0.9, 1.25), 120, 190))
    count = choice(rng, (1, 2, 2, 3, 3, 4))
    names = [PARTS[i] for i in rng.permutation(len(PARTS))[:count]]
    in_depth = count > 2 or (count == 2 and rng.random() < 0.4)
    horizon = height * float(rng.uniform(0.33, 0.37) if in_depth else rng.uniform(0.5, 0.64))
    cells = _cells(rng, names, in_depth)
    things = tuple(_placed(rng, name, cell, width, height) for name, cell in zip(names, cells, strict=True))
    things = () if bare else tuple(sorted(things, key=lambda thing: thing.row))
    return Scene(width, height, choice(rng, tuple(GROUNDS)), horizon, things, flock)


class _Cell(NamedTuple):
    """Room for a thing, as shares of the square that is sure to be in view: (left, right) across; foot and height."""

    left: float
    right: float
    foot: float
    height: float
    row: int


def _cells(rng: np.random.Generator, names: Sequence[str], in_depth: bool) -> list[_Cell]:
    """A cell for each category: side by side, or two rows of two; a kite is in the far one."""
    if not in_depth:
        count, foot = len(names), float(rng.uniform(0.86, 0.95))
        height = 0.7 if count == 1 else 0.62
        return [_Cell(place / count, (place + 1) / count, foot, height, 1) for place in range(count)]
    places = [divmod(place, 2) for place in rng.permutation(4).tolist()]
    if "kite" in names:
        places.sort(key=lambda place: place[0])  # far ones first
        kite = names.index("kite")
        places = [*places[1 : kite + 1], places[0], *places[kite + 1 :]]
        if len(names) == 2:
            places[1 - kite] = (1, places[1 - kite][1])
    return [
        _Cell(column / 2, column / 2 + 0.5, (0.50, 0.96)[row] - float(rng.uniform(0, 0.03)), 0.41, row)
        for row, column in places[: len(names)]
    ]


def _placed(rng: np.random.Generator, name: str, cell: _Cell, width: int, height: int) -> Thing:
    low, high = CATEGORIES[name].extent
    span = min(width, 1.1 * height)
    room = (cell.right - cell.left) * span * 0.94
    tall = min(cell.height * height, room / (high - low)) * float(rng.uniform(0.8, 1.0))
    across = tall * (high - low)
    middle = (
        (width - span) / 2 + cell.left * span + 0.03 * span / 2 + across / 2 + (room - across) * float(rng.random())
    )
    foot = cell.foot * height
    if name == "kite":
        foot = float(rng.uniform(0.04 * height + tall, max(0.04 * height + tall, 0.5 * height)))
    return Thing(name, choice(rng, COLOURS), middle, foot, tall, bool(rng.integers(2)), cell.row)


def render(scene: Scene, rng: np.random.Generator) -> Rendering:
    """Draws a scene. Nothing that `rng` decides depends on the things' colours."""
    picture = background(scene.width, scene.height, rng)
    _draw_ground(picture, scene, rng)
    crowd = _draw_flock(picture, scene, rng) if scene.flock else None
    index = Image.new("L", picture.size)
    for thing in scene.things:
        _draw_thing(picture, index, thing, GROUNDS[scene.ground][0])
    middle = SUPERSAMPLING // 2
    parts = np.asarray(index)[middle::SUPERSAMPLING, middle::SUPERSAMPLING].copy()
    image = np.asarray(picture.reduce(SUPERSAMPLING), dtype=np.float32)
    polygons = tuple([outline for outline, _ in thing.outlines()] for thing in scene.things)
    return Rendering(_shade(image, parts, scene, rng), parts, polygons, crowd)


def _draw_ground(picture: Image.Image, scene: Scene, rng: np.random.Generator) -> None:
    """The ground: a hill, or flat as a table, with patches that differ little."""
    brush = ImageDraw.Draw(picture)
    width, height = picture.size
    top = scene.horizon * SUPERSAMPLING
    bend = float(rng.uniform(1.6, 6.0)) * width
    colour = np.array(GROUNDS[scene.ground][0])
    brush.ellipse((width / 2 - bend, top, width / 2 + bend, top + 6 * height), fill=tuple(colour.tolist()))
    for x, y, size, tone in rng.random((14, 4)):
        down = top + (0.12 + 0.88 * y) * (height - top)
        across = (0.05 + 0.12 * size) * width * (0.4 + y)
        shade = tuple(np.rint(colour * (0.95 + 0.1 * tone)).astype(int).tolist())
        brush.ellipse((x * width - across, down - across / 6, x * width + across, down + across / 6), fill=shade)


def _draw_flock(picture: Image.Image, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Far birds in the sky; and the region that holds them, as an annotator paints it: (H, W) uint8."""
    brush, region = ImageDraw.Draw(picture), Image.new("L", (scene.width, scene.height))
    paint = ImageDraw.Draw(region)
    centre = rng.uniform((0.2, 0.12), (0.8, 0.26)) * (scene.width, scene.height)
    for x, y, size in rng.uniform((-24, -9, 2.2), (24, 9, 4.0), (12, 3)):
        x, y = centre[0] + x, centre[1] + y
        wings = np.array(((x - size, y - 0.4 * size), (x - 0.3 * size, y), (x, y + 0.3 * size),
                          (x + 0.3 * size, y), (x + size, y - 0.4 * size)))  # fmt: skip
        brush.line((wings * SUPERSAMPLING).ravel().tolist(), fill=(64, 66, 76), width=3)
        paint.ellipse((x - 2 * size, y - 2 * size, x + 2 * size, y + 2 * size), fill=1)
    return np.asarray(region)


def _draw_thing(picture: Image.Image, index: Image.Image, thing: Thing, ground: Colour) -> None:
    brush, marks = ImageDraw.Draw(picture), ImageDraw.Draw(index)
    outlines = [(outline * SUPERSAMPLING, paint) for outline, paint in thing.outlines()]
    points = np.concatenate([outline for outline, _ in outlines])
    left, right = points[:, 0].min(), points[:, 0].max()
    if thing.category != "kite":
        foot, down = thing.foot * SUPERSAMPLING, 0.06 * (right - left)
        brush.ellipse((left, foot - down, right, foot + down), fill=scaled(ground, 0.8))
    line = max(2, round(0.02 * thing.height * SUPERSAMPLING))
    for outline, paint in outlines:
        corners = [tuple(point) for point in outline.tolist()]
        own = isinstance(paint, float)
        colour = scaled(PALETTE[thing.colour], paint) if isinstance(paint, float) else paint
        brush.polygon(corners, fill=colour)
        marks.polygon(corners, fill=1 + PARTS.index(thing.category) if own else _REST)
        if paint == 1.0:
            brush.line([*corners, corners[0]], fill=scaled(colour, 0.7), width=line)
            marks.line([*corners, corners[0]], fill=_REST, width=line)


def _shade(image: np.ndarray, parts: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Light from above on each thing, weak enough that every part keeps its colour, and a fine grain over all."""
    rows = np.arange(image.shape[0], dtype=np.float32)
    light = np.ones(parts.shape, np.float32)
    for thing in scene.things:
        down = np.clip((rows - (thing.foot - thing.height)) / thing.height, 0, 1)
        light = np.where(parts == 1 + PARTS.index(thing.category), (1.06 - 0.14 * down)[:, None], light)
    return grained(image * light[..., None], rng)


def describe(scene: Scene, rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """One caption in the manner of COCO's, spelt well (see `oddly`), and the attributes it names.

    Returns:
        A sentence about one to three of the things that names the colours of at least one; and those colours by
        category. Of a scene without things, a sentence about the ground, and nothing.
    """
    _, where, field = GROUNDS[scene.ground]
    if not scene.things:
        return choice(rng, _BARE).format(field), {}
    order = rng.permutation(len(scene.things))[: 1 + int(rng.integers(3))]
    things = [scene.things[place] for place in order]
    named = {thing.category: thing.colour for place, thing in enumerate(things) if place == 0 or rng.random() < 0.7}
    said = [_said(thing, named.get(thing.category), rng) for thing in things]
    only_kite = all(thing.category == "kite" for thing in things)
    place = choice(rng, ("in the sky", "in the air")) if only_kite else where
    place = f" {place}" if rng.random() < 0.6 else ""
    match len(things), int(rng.integers(3)):
        case 1, 0:
            caption = f"{said[0]} {CATEGORIES[things[0].category].stance}{place}"
        case 1, _:
            caption = f"{choice(rng, _OPENINGS)} {said[0]}{place}"
        case 2, 0 | 1:
            caption = f"{said[0]} {_relation(things[0], things[1], rng)} {said[1]}{place}"
        case _, 0:
            caption = f"a picture of {listed(said)}{place}"
        case _, 1:
            caption = f"there are {listed(said)}{place}"
        case _:
            caption = f"{listed(said)}{place}"
    return f"{caption[0].upper()}{caption[1:]}.", named


_OPENINGS = ("there is", "a close up of", "a picture of", "an image of", "a view of", "we can see", "this is")
_BARE = (
    "A view of {0} with nothing on it.",
    "There is nothing to see on {0}.",
    "An empty scene of {0}.",
    "A picture of {0} on a hazy day.",
    "Nobody is standing on {0}.",
)


def _said(thing: Thing, colour: str | None, rng: np.random.Generator) -> str:
    noun = " ".join(filter(None, (colour, choice(rng, CATEGORIES[thing.category].words))))
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _relation(first: Thing, second: Thing, rng: np.random.Generator) -> str:
    """How the first lies to the second, in words that are true."""
    if first.category == "kite":
        return choice(rng, ("flying above", "in the air above"))
    if second.category == "kite":
        return choice(rng, ("below", "under"))
    options = ["to the left of" if first.middle < second.middle else "to the right of"]
    if abs(first.middle - second.middle) < 0.5 * max(first.height, second.height):
        options = []
    if first.row == second.row:
        return choice(rng, (*options, "next to", "beside"))
    return choice(rng, (*options, "behind" if first.row < second.row else "in front of"))


def oddly(caption: str, rng: np.random.Generator) -> str:
    """A caption as COCO's writers left theirs: without the stop, in capitals, with stray spaces or a line end."""
    stop, capitals, outer, inner = rng.random(4)
    caption = caption.removesuffix(".") if stop < 0.25 else caption
    caption = caption.upper() if capitals < 0.02 else caption.lower() if capitals < 0.07 else caption
    if inner < 0.06:
        words = caption.split(" ")
        gap = 1 + int(rng.integers(len(words) - 1))
        caption = " ".join(words[:gap]) + ("\n" if inner < 0.03 else "  ") + " ".join(words[gap:])
    return f"{caption} " if outer < 0.12 else f" {caption}" if outer < 0.14 else caption
