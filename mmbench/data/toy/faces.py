"""Toy faces: procedural portraits whose every attribute is known, and captions that name some of them.

A face has coloured hair, lips, clothes and often a hat, eyes of a colour, glasses or none, a smile or none; captions
name some of these. Skin, face shape, haircut, pose and background vary independently and are never named. Besides the
picture there are masks of the eighteen parts that CelebAMask-HQ annotates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from mmbench.data.toy.birds import COLOURS, PALETTE
from mmbench.data.toy.drawing import SUPERSAMPLING, Colour, choice, curve, grained, listed, scaled
from mmbench.data.toy.scenery import background

Line = Sequence[tuple[float, float]] | np.ndarray  # points (M, 2)

SIDE = 128  # of a picture; masks have half of it, as CelebAMask-HQ's have
PARTS = ("hair", "hat", "cloth", "lips")  # the coloured parts that edits are judged by
REGIONS = (
    "skin", "neck", "hat", "eye_g", "hair", "ear_r", "neck_l", "cloth", "l_eye",
    "r_eye", "l_brow", "r_brow", "nose", "l_ear", "r_ear", "mouth", "u_lip", "l_lip",
)  # fmt: skip
# CelebAMask-HQ's skin runs on below what lies in the face.
ON_SKIN = frozenset(("skin", "nose", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip", "eye_g"))

SKINS: tuple[Colour, ...] = ((250, 216, 192), (240, 196, 164), (212, 160, 124), (172, 120, 88), (134, 90, 68))
LIP_COLOURS = ("red", "orange", "purple", "brown", "blue")
EYE_COLOURS = ("blue", "green", "brown", "grey", "black")
HAIR_LENGTHS = ("short", "long")
FRINGES = ("bangs", "side", "middle")
HATS = ("beanie", "brim", "cap")
COLLARS = ("round", "pointed", "high")

_APART = 60  # RGB distance from which a part's colour can be told from the skin beside it


@dataclass(frozen=True)
class Face:
    """Everything that is true of one face.

    Attributes:
        male: whether captions say man and he, or woman and she.
        skin: of `SKINS`.
        hair, cloth: colours, keys of `PALETTE`.
        hat: likewise, or `none`.
        lips, eyes: of `LIP_COLOURS`, `EYE_COLOURS`.
        hair_length, fringe, hat_shape, collar: of `HAIR_LENGTHS`, `FRINGES`, `HATS`, `COLLARS`.
        wavy, glasses, smiling, earrings, necklace: whether it has them.
        width, jaw: of the face and its lower half, 1 on average.
        tilt: degrees, positive leans to the right of the picture.
        size: half the width of an average face over the side of the picture.
        position: (right, down) of the middle of the face, over the side of the picture.
    """

    male: bool
    skin: Colour
    hair: str
    hat: str
    cloth: str
    lips: str
    eyes: str
    hair_length: str
    fringe: str
    hat_shape: str
    collar: str
    wavy: bool
    glasses: bool
    smiling: bool
    earrings: bool
    necklace: bool
    width: float
    jaw: float
    tilt: float
    size: float
    position: tuple[float, float]

    @property
    def attributes(self) -> dict[str, str]:
        """What captions may name: colours (of a hat perhaps `none`), length of hair, glasses and smiling yes or no."""
        colours = {name: getattr(self, name) for name in (*PARTS, "eyes", "hair_length")}
        return {**colours, "glasses": _said(self.glasses), "smiling": _said(self.smiling)}


class Rendering(NamedTuple):
    """A picture and where things are in it.

    Attributes:
        image: (SIDE, SIDE, 3) uint8.
        parts: (SIDE, SIDE) uint8, 0 background, 1 + p the p-th of `PARTS`, len(PARTS) + 1 the rest of the person.
        masks: name of each of `REGIONS` that is to be seen, to (SIDE / 2, SIDE / 2) bool.
    """

    image: np.ndarray
    parts: np.ndarray
    masks: dict[str, np.ndarray]


def tellable(skin: Colour, colours: Sequence[str] = COLOURS) -> tuple[str, ...]:
    """The colours that cannot be taken for a skin."""
    return tuple(colour for colour in colours if np.linalg.norm(np.subtract(PALETTE[colour], skin)) >= _APART)


def sample_face(rng: np.random.Generator) -> Face:
    """A random face. Hair differs in colour from the hat and the clothes it lies on, and all of them from the skin."""
    male = bool(rng.integers(2))
    skin = choice(rng, SKINS)
    colours = tellable(skin)
    hair = choice(rng, colours)
    others = [colour for colour in colours if colour != hair]
    return Face(
        male=male,
        skin=skin,
        hair=hair,
        hat=choice(rng, others) if rng.random() < 0.4 else "none",
        cloth=choice(rng, others),
        lips=choice(rng, tellable(skin, LIP_COLOURS)),
        eyes=choice(rng, EYE_COLOURS),
        hair_length="long" if rng.random() < (0.15 if male else 0.7) else "short",
        fringe=choice(rng, FRINGES),
        hat_shape=choice(rng, HATS),
        collar=choice(rng, COLLARS),
        wavy=bool(rng.integers(2)),
        glasses=bool(rng.random() < 0.3),
        smiling=bool(rng.integers(2)),
        earrings=bool(rng.random() < (0.1 if male else 0.5)),
        necklace=bool(rng.random() < (0.1 if male else 0.4)),
        width=float(rng.uniform(0.93, 1.07)),
        jaw=float(rng.uniform(0.97, 1.08) if male else rng.uniform(0.84, 0.98)),
        tilt=float(rng.uniform(-6, 6)),
        size=float(rng.uniform(0.215, 0.24)),
        position=(float(rng.uniform(0.46, 0.54)), float(rng.uniform(0.47, 0.51))),
    )


def render(face: Face, rng: np.random.Generator) -> Rendering:
    """Draws a face before a background of its own.

    Nothing that `rng` decides (background, waves of the hair, grain) depends on the face's colours: the same face
    recoloured, with an equal stream, differs in the recoloured parts alone.
    """
    picture = background(SIDE, SIDE, rng)
    waves = rng.uniform(0, 2 * np.pi, 2)
    easel = _Easel(picture, face)
    _draw(easel, face, waves)
    middle = SUPERSAMPLING // 2
    region = np.asarray(easel.index)
    whole = region[middle::SUPERSAMPLING, middle::SUPERSAMPLING]
    half = region[SUPERSAMPLING :: 2 * SUPERSAMPLING, SUPERSAMPLING :: 2 * SUPERSAMPLING]
    image = _shade(np.asarray(easel.picture.reduce(SUPERSAMPLING), dtype=np.float32), whole, rng)
    return Rendering(image, _PART_OF[whole], _masks(half))


def _masks(region: np.ndarray) -> dict[str, np.ndarray]:
    masks = {name: region == 1 + place for place, name in enumerate(REGIONS)}
    masks["skin"] = np.isin(region, [1 + REGIONS.index(name) for name in ON_SKIN])
    return {name: mask for name, mask in masks.items() if mask.any()}


# From places of `REGIONS` to places of `PARTS`, both from 1.
_PART_OF = np.array(
    [0, *(PARTS.index(part) + 1 if (part := {"u_lip": "lips", "l_lip": "lips"}.get(name, name)) in PARTS else
          len(PARTS) + 1 for name in REGIONS)],
    np.uint8,
)  # fmt: skip


class _Easel:
    """A picture and the index of regions in it, both drawn at once; points are the face's own.

    The middle of a face is at (0, 0), x to the right, y down; an average one is 2 wide, with its chin at y = 1.25.
    """

    def __init__(self, picture: Image.Image, face: Face) -> None:
        self.picture = picture
        self.index = Image.new("L", picture.size)
        self.brush, self.marks = ImageDraw.Draw(picture), ImageDraw.Draw(self.index)
        self.scale = face.size * picture.width
        angle = np.radians(face.tilt)
        self.axes = self.scale * np.array(((np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))))
        self.origin = np.array(face.position) * picture.size

    def place(self, points: Line) -> list[tuple[float, float]]:
        """The face's own coordinates (M, 2) as supersampled pixels."""
        return [(x, y) for x, y in (np.asarray(points) @ self.axes + self.origin).tolist()]

    def fill(self, region: str | None, points: Line, colour: Colour, edge: float = 0.75) -> None:
        """Fills a closed outline, edged in a darker shade; where there is no region, on whatever is there."""
        outline = self.place(points)
        self.brush.polygon(outline, fill=colour)
        if edge < 1:
            self.brush.line([*outline, outline[0]], fill=scaled(colour, edge), width=self.thick(0.035), joint="curve")
        if region:
            self.marks.polygon(outline, fill=1 + REGIONS.index(region))

    def stroke(self, region: str | None, points: Line, colour: Colour, width: float) -> None:
        """Draws an open line."""
        line = self.place(points)
        self.brush.line(line, fill=colour, width=self.thick(width), joint="curve")
        if region:
            self.marks.line(line, fill=1 + REGIONS.index(region), width=self.thick(width), joint="curve")

    def where(self, region: str) -> Image.Image:
        """The region as it shows so far: 255 there, 0 elsewhere."""
        number = 1 + REGIONS.index(region)
        return self.index.point([255 * (level == number) for level in range(256)])

    def thick(self, width: float) -> int:
        return max(2, round(width * self.scale))


def _draw(easel: _Easel, face: Face, waves: np.ndarray) -> None:
    """Everything of a person, from the back to the front."""
    hair = PALETTE[face.hair]
    easel.fill("hair", _back_of_hair(face, waves), scaled(hair, 0.92))
    _draw_neck_and_clothes(easel, face)
    if face.hair_length == "long":
        for side in (-1, 1):
            easel.fill("hair", _lock(side, waves), hair, 0.85)
            for x in (1.06, 1.20):
                strand = ((x * side, 0.2), ((x + 0.05) * side, 0.9), ((x + 0.04) * side, 1.5))
                easel.stroke(None, strand, _strand(hair), 0.03)
    else:
        _draw_ears(easel, face)
    easel.fill("skin", _face_outline(face), face.skin, 0.82)
    _draw_features(easel, face)
    top, hairline = _front_of_hair(face)
    easel.fill("hair", curve(np.concatenate((top, hairline[::-1]))), hair, 0.85)
    _draw_strands(easel, hair, top, hairline)
    if face.hat != "none":
        _draw_hat(easel, face)
    if face.glasses:
        _draw_glasses(easel)


def _ring(x: float, y: float, across: float, down: float, num_points: int = 20) -> np.ndarray:
    """An ellipse as points (M, 2)."""
    turn = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    return np.stack((x + across * np.cos(turn), y + down * np.sin(turn)), 1)


def _mirrored(right: Line) -> np.ndarray:
    """A closed curve symmetrical about x = 0 from the points of its right half, top to bottom."""
    points = np.asarray(right)
    left = points[::-1][points[::-1, 0] > 0] * (-1, 1)
    return curve(np.concatenate((points, left)))


def _face_outline(face: Face) -> np.ndarray:
    points = np.array(((0, -1.28), (0.66, -1.10), (0.96, -0.55), (1.0, 0.05), (0.86, 0.62), (0.48, 1.10), (0, 1.26)))
    points[3:, 0] *= np.linspace(1, face.jaw, 4)
    return _mirrored(points * (face.width, 1))


def _back_of_hair(face: Face, waves: np.ndarray) -> np.ndarray:
    if face.hair_length == "short":
        return _mirrored(((0, -1.60), (0.78, -1.40), (1.22, -0.72), (1.26, -0.10), (1.02, 0.34), (0, 0.40)))
    points = np.array(
        ((0, -1.60), (0.80, -1.40), (1.26, -0.72), (1.36, 0.0), (1.42, 0.7), (1.50, 1.3), (1.30, 1.95), (0, 2.0))
    )
    if face.wavy:
        points[3:7, 0] += 0.10 * np.sin(waves[0] + 2.2 * np.arange(4))
    return _mirrored(points)


def _lock(side: int, waves: np.ndarray) -> np.ndarray:
    """What hangs before the shoulder."""
    points = np.array(
        ((0.92, -0.4), (1.24, -0.2), (1.42, 0.7), (1.48, 1.3), (1.24, 1.98), (0.96, 1.5), (0.92, 0.9), (0.9, 0.2))
    )
    points[3:6, 0] += 0.06 * np.sin(waves[(side + 1) // 2] + 1.7 * np.arange(3))
    return curve(points * (side, 1))


def _front_of_hair(face: Face) -> tuple[np.ndarray, np.ndarray]:
    """The hair above the forehead: its upper and its lower edge, both from left to right."""
    top = ((-1.14, 0.0), (-1.20, -0.62), (-0.82, -1.36), (0.0, -1.60), (0.82, -1.36), (1.20, -0.62), (1.14, 0.0))
    hairline = {
        "bangs": ((-0.86, -0.48), (-0.44, -0.46), (0.0, -0.52), (0.44, -0.46), (0.86, -0.48)),
        "side": ((-0.88, -0.44), (-0.74, -0.70), (-0.44, -1.02), (0.30, -0.72), (0.86, -0.50)),
        "middle": ((-0.84, -0.48), (-0.36, -0.72), (0.0, -1.10), (0.36, -0.72), (0.84, -0.48)),
    }["bangs" if face.hat != "none" else face.fringe]
    stretch = (face.width, 1)
    return np.array(top) * stretch, np.array(((-0.94, -0.16), *hairline, (0.94, -0.16))) * stretch


def _draw_strands(easel: _Easel, hair: Colour, start: np.ndarray, end: np.ndarray) -> None:
    """Thin lines from one edge of hair to the other, on a small share of it: its colour stays the most frequent."""
    along = np.linspace(0.08, 0.92, 12)
    edges = [
        np.stack([np.interp(along * (len(edge) - 1), np.arange(len(edge)), axis) for axis in edge.T], 1)
        for edge in (start, end)
    ]
    for upper, lower in zip(*edges):
        easel.stroke(None, (0.9 * upper + 0.1 * lower, 0.12 * upper + 0.88 * lower), _strand(hair), 0.03)


def _strand(hair: Colour) -> Colour:
    """Darker than the hair; lighter than black hair."""
    return scaled(hair, 0.82) if sum(hair) > 150 else (64, 62, 70)


def _draw_neck_and_clothes(easel: _Easel, face: Face) -> None:
    neck, cloth = scaled(face.skin, 0.92), PALETTE[face.cloth]
    easel.fill("neck", ((-0.48, 0.7), (0.48, 0.7), (0.52, 1.5), (0.9, 2.2), (-0.9, 2.2), (-0.52, 1.5)), neck, 0.82)
    collar = {
        "round": [(0.56, 1.52), (0.40, 1.78), (0.0, 1.90), (-0.40, 1.78), (-0.56, 1.52)],
        "pointed": [(0.56, 1.50), (0.30, 1.82), (0.0, 2.12), (-0.30, 1.82), (-0.56, 1.50)],
        "high": [(0.54, 1.30), (0.28, 1.36), (0.0, 1.38), (-0.28, 1.36), (-0.54, 1.30)],
    }[face.collar]
    shoulders = [
        (-0.95, 1.60),
        (-1.60, 1.78),
        (-2.0, 2.2),
        (-2.3, 3.4),
        (2.3, 3.4),
        (2.0, 2.2),
        (1.60, 1.78),
        (0.95, 1.60),
    ]
    easel.fill("cloth", [*collar, *shoulders], cloth)
    shade = scaled(cloth, 0.84) if sum(cloth) > 150 else (58, 58, 64)
    easel.stroke(None, [(x, y + 0.10) for x, y in collar], shade, 0.04)
    for side in (-1, 1):
        easel.stroke(None, ((1.25 * side, 2.1), (1.18 * side, 2.4), (1.2 * side, 3.2)), shade, 0.04)
    if face.necklace and face.collar != "high":
        chain = np.array([(0.50, 1.42), (0.34, 1.60), (0.0, 1.70), (-0.34, 1.60), (-0.50, 1.42)])
        easel.stroke("neck_l", chain, (226, 190, 92), 0.06)
        easel.fill("neck_l", _ring(0, 1.74, 0.08, 0.08), (240, 206, 110))


def _draw_ears(easel: _Easel, face: Face) -> None:
    for side, name in ((-1, "r_ear"), (1, "l_ear")):  # the person's own right is on the left
        x = side * 1.04 * face.width
        easel.fill(name, _ring(x, 0.10, 0.17, 0.28), scaled(face.skin, 0.96), 0.8)
        easel.stroke(None, ((x, -0.02), (x + 0.05 * side, 0.10), (x, 0.22)), scaled(face.skin, 0.82), 0.03)
        if face.earrings:
            easel.fill("ear_r", _ring(x, 0.46, 0.08, 0.10), (232, 196, 96))


def _draw_features(easel: _Easel, face: Face) -> None:
    skin = face.skin
    blush = _mixed(skin, (232, 104, 104), 0.16)
    dark = (52, 38, 34)
    for side in (-1, 1):
        easel.fill(None, _ring(side * 0.58, 0.44, 0.20, 0.13), blush, 1)
    for side, eye, brow in ((-1, "r_eye", "r_brow"), (1, "l_eye", "l_brow")):
        x = 0.42 * side
        lid = _ring(x, -0.04, 0.24, 0.15 if not face.smiling else 0.13)
        easel.fill(eye, lid, (250, 250, 248), 1)
        easel.fill(None, _ring(x, -0.04, 0.125, 0.125), PALETTE[face.eyes])
        easel.fill(None, _ring(x, -0.04, 0.055, 0.055), (10, 10, 12), 1)
        easel.fill(None, _ring(x + 0.04, -0.09, 0.032, 0.032), (255, 255, 255), 1)
        easel.stroke(None, lid[10:], dark, 0.035 if face.male else 0.06)
        arch = np.array(((-0.26, 0.05), (-0.12, -0.05), (0.10, -0.06), (0.27, 0.03))) * (side, 1) + (x, -0.34)
        easel.stroke(brow, arch, dark, 0.10 if face.male else 0.07)
    nose = curve(np.array(((0, -0.02), (0.07, 0.20), (0.17, 0.38), (0.0, 0.47), (-0.17, 0.38), (-0.07, 0.20))))
    easel.fill("nose", nose, scaled(skin, 0.96), 1)
    easel.stroke(None, ((-0.15, 0.38), (-0.08, 0.45), (0.08, 0.45), (0.15, 0.38)), scaled(skin, 0.72), 0.04)
    _draw_mouth(easel, face)


def _draw_mouth(easel: _Easel, face: Face) -> None:
    """Two lips; between them, of who smiles, a row of teeth."""
    across = np.linspace(-1, 1, 15)
    round_ = np.sqrt(np.clip(1 - across**2, 0, 1))
    half_width, corners, opening = (0.46, -0.13, 0.15) if face.smiling else (0.37, 0.01, 0.0)
    upper = 0.74 + corners * across**2
    lower = upper + opening * round_
    top = upper - 0.14 * round_ * (1 - 0.3 * np.exp(-((across / 0.2) ** 2)))
    bottom = lower + 0.17 * round_
    x = half_width * across

    def between(above: np.ndarray, below: np.ndarray) -> np.ndarray:
        return np.concatenate((np.stack((x, above), 1), np.stack((x, below), 1)[::-1]))

    lips = PALETTE[face.lips]
    if face.smiling:
        easel.fill("mouth", between(upper, lower), (104, 28, 34), 1)
        easel.fill(None, between(upper, upper + 0.6 * (lower - upper)), (252, 250, 246), 1)
    easel.fill("u_lip", between(top, upper), lips, 0.85)
    easel.fill("l_lip", between(lower, bottom), lips, 0.85)


def _draw_hat(easel: _Easel, face: Face) -> None:
    hat = PALETTE[face.hat]
    dome = curve(np.array(((-1.24, -0.72), (-1.16, -1.30), (-0.66, -1.82), (0, -1.94), (0.66, -1.82), (1.16, -1.30), (1.24, -0.72), (0, -0.80))))  # fmt: skip  # noqa: E501
    easel.fill("hat", dome, hat)
    shade = scaled(hat, 0.86) if sum(hat) > 150 else (56, 56, 62)
    match face.hat_shape:
        case "beanie":
            band = curve(
                np.array(((-1.30, -0.98), (0, -1.08), (1.30, -0.98), (1.28, -0.66), (0, -0.76), (-1.28, -0.66)))
            )
            easel.fill("hat", band, hat)
            easel.fill("hat", _ring(0, -1.98, 0.22, 0.20), hat)
            for x in np.linspace(-1, 1, 9):
                easel.stroke(None, ((1.1 * x, -1.0), (1.1 * x, -0.76)), shade, 0.04)
        case "brim":
            easel.stroke(None, ((-1.2, -0.92), (0, -1.0), (1.2, -0.92)), shade, 0.10)
            easel.fill("hat", _ring(0, -0.76, 1.72, 0.16, 32), hat)
        case _:
            easel.stroke(None, ((0, -1.9), (0, -0.9)), shade, 0.04)
            visor = (
                (-1.02, -0.82),
                (-0.5, -0.92),
                (0.5, -0.92),
                (1.02, -0.82),
                (0.96, -0.62),
                (0, -0.52),
                (-0.96, -0.62),
            )
            easel.fill("hat", curve(np.array(visor)), scaled(hat, 0.94))


def _draw_glasses(easel: _Easel) -> None:
    """Frames over all that is there; the skin behind the glass counts as theirs, the eyes and brows do not."""
    frame = (44, 40, 48)
    glass = Image.new("L", easel.index.size)
    rims = [_ring(0.43 * side, 0.0, 0.36, 0.31, 28) for side in (-1, 1)]
    for rim in rims:
        ImageDraw.Draw(glass).polygon(easel.place(rim), fill=255)
    easel.index.paste(1 + REGIONS.index("eye_g"), mask=ImageChops.darker(glass, easel.where("skin")))
    for rim in rims:
        easel.stroke("eye_g", [*rim, rim[0]], frame, 0.06)
    easel.stroke("eye_g", ((-0.08, -0.04), (0.0, -0.08), (0.08, -0.04)), frame, 0.06)
    for side in (-1, 1):
        easel.stroke("eye_g", ((0.78 * side, -0.06), (0.98 * side, -0.12)), frame, 0.06)


def _shade(image: np.ndarray, region: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light from above on the person, weak enough that every part keeps its colour, and a fine grain over all."""
    light = np.linspace(1.05, 0.93, len(image), dtype=np.float32)
    return grained(np.where((region > 0)[..., None], image * light[:, None, None], image), rng)


def _mixed(colour: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round((1 - share) * level + share * more) for level, more in zip(colour, other, strict=True))
    return red, green, blue


def _said(yes: bool) -> str:
    return "yes" if yes else "no"


def describe(face: Face, rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """One caption in the manner of Multi-Modal-CelebA-HQ's, and the attributes it names.

    Returns:
        One or two sentences that name one to three of colours, glasses and a smile, sometimes the length of the hair
        too, and at least one of `PARTS`; and those attributes. What a face has not is never named.
    """
    there = {name: value for name, value in face.attributes.items() if value not in ("none", "no")}
    judged = [part for part in PARTS if part in there]
    first = choice(rng, judged)
    rest = [name for name in there if name not in (first, "hair_length")]
    chosen = [first, *(rest[place] for place in rng.permutation(len(rest))[: int(rng.integers(3))])]
    if "hair" in chosen and rng.random() < 0.5:
        chosen.append("hair_length")
    named = {name: there[name] for name in there if name in chosen}
    clauses = _clauses(named, rng)
    subject = choice(rng, ("The", "This")) + (" man" if face.male else " woman")
    pronoun = "He" if face.male else "She"
    if len(clauses) > 1 and rng.random() < 0.5:
        return f"{subject} {listed(clauses[:-1])}. {pronoun} {clauses[-1]}.", named
    return f"{choice(rng, (subject, pronoun))} {listed(clauses)}.", named


def _clauses(named: dict[str, str], rng: np.random.Generator) -> list[str]:
    """What a person has, wears and does, each as words that follow the subject."""
    hair = f"{named['hair_length']} {named['hair']}" if "hair_length" in named else named.get("hair")
    has = [f"{colour} {thing}" for thing, colour in (("hair", hair), *_colours(named, "lips", "eyes")) if colour]
    wears = [f"{_article(colour)} {colour} hat" for _, colour in _colours(named, "hat")]
    for _, colour in _colours(named, "cloth"):
        wears.append(choice(rng, (f"{colour} clothes", f"{_article(colour)} {colour} shirt")))
    wears += ["eyeglasses"] if "glasses" in named else []
    clauses = [f"has {listed(has)}"] if has else []
    clauses += [f"{choice(rng, ('wears', 'is wearing'))} {listed(wears)}"] if wears else []
    return [*clauses, "is smiling"] if "smiling" in named else clauses


def _colours(named: dict[str, str], *things: str) -> list[tuple[str, str]]:
    return [(thing, named[thing]) for thing in things if thing in named]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
