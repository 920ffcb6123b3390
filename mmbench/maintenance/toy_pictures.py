"""The pictures that the networks of `mmbench/networks/toy.py` are trained on, and what is true of each.

Birds, flowers and scenes come from random streams whose keys begin with words, where those of a data set begin with its
seed: no picture of any toy data set is among them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmbench.core.noise import random_stream
from mmbench.core.progress import track
from mmbench.data.toy import birds as toy_birds
from mmbench.data.toy import flowers as toy_flowers
from mmbench.data.toy import scenes as toy_scenes
from mmbench.data.toy.birds import BILL_SHAPES, COLOURS, PARTS, WING_PATTERNS, Bird, sample_bird
from mmbench.data.toy.flowers import PETAL_PATTERNS, PETAL_SHAPES, Flower, sample_flower
from mmbench.data.toy.scenes import GROUNDS, Scene, sample_scene
from mmbench.networks import toy

VALUES = dict.fromkeys(PARTS, COLOURS) | {"bill_shape": BILL_SHAPES, "wing_pattern": WING_PATTERNS}
FLOWER_VALUES = dict.fromkeys(toy_flowers.PARTS, COLOURS) | {
    "petal_shape": PETAL_SHAPES,
    "petal_pattern": PETAL_PATTERNS,
}


Claims = list[tuple[str, Sequence[int]]]  # what a text claims: an attribute, and the values that make the claim true


class Pictures(NamedTuple):
    """Pictures of birds or of scenes, and what is true of them.

    Attributes:
        images: (N, 3, 64, 64) uint8.
        sizes: the number of values of each attribute, by its name.
        attributes: (N, A) int64, the value of each.
        captioned: the n-th picture and a random stream to a caption of it, and what that claims.
        recoloured: (N, 2, 3, 64, 64) uint8, the pictures with one and with three parts recoloured; empty if unasked.
    """

    images: Tensor
    sizes: dict[str, int]
    attributes: Tensor
    captioned: Callable[[int, np.random.Generator], tuple[str, Claims]]
    recoloured: Tensor


def aviary(name: str, count: int, recolour: bool = False) -> Pictures:
    """`count` birds with all attributes independent of each other, cropped around the bird as CUB's boxes are."""
    birds, images, recoloured = [], [], []
    for number in track(range(count), f"drawing {name}"):
        rng = random_stream("toy networks", name, number)
        values = {key: options[int(rng.integers(len(options)))] for key, options in VALUES.items()}
        bird = replace(sample_bird(rng), **values)
        birds.append(bird)
        reach = float(rng.uniform(0.62, 0.85))
        images.append(picture_of_bird(bird, name, number, reach))
        if recolour:
            for parts in (1, 3):
                chosen = [PARTS[index] for index in rng.permutation(len(PARTS))[:parts]]
                others = {part: [colour for colour in COLOURS if colour != values[part]] for part in chosen}
                other = {part: colours[int(rng.integers(len(colours)))] for part, colours in others.items()}
                recoloured.append(picture_of_bird(replace(bird, **other), name, number, reach))
    attributes = torch.tensor([[VALUES[key].index(getattr(bird, key)) for key in toy.ATTRIBUTES] for bird in birds])
    pairs = torch.stack(recoloured).unflatten(0, (count, 2)) if recolour else torch.empty(0)

    def captioned(number: int, rng: np.random.Generator) -> tuple[str, Claims]:
        caption, named = toy_birds.describe(birds[number], rng)
        return caption, [(key, [VALUES[key].index(value)]) for key, value in named.items()]

    return Pictures(torch.stack(images), toy.ATTRIBUTES, attributes, captioned, pairs)


def picture_of_bird(bird: Bird, name: str, number: int, reach: float) -> Tensor:
    """A square that goes `reach` times the longer side of the bird's box to each side of it: (3, 64, 64) uint8."""
    return view_of_bird(bird, name, number, reach)[0]


def view_of_bird(bird: Bird, name: str, number: int, reach: float) -> tuple[Tensor, Tensor]:
    """`picture_of_bird`, and how much of each pixel each part covers, (P, 64, 64) in [0, 1]."""
    stream = random_stream("toy networks", name, number, "picture")
    image, parts, (x, y, width, height) = toy_birds.render(bird, stream)
    half = int(reach * max(width, height))
    column, row = x + width // 2, y + height // 2

    def square(picture: np.ndarray) -> Tensor:
        crop = Image.fromarray(picture[max(0, row - half) : row + half, max(0, column - half) : column + half])
        side = min(crop.size)
        left, top = (crop.width - side) // 2, (crop.height - side) // 2
        return small(crop, (left, top, left + side, top + side))

    return square(image), _coverage(parts, len(PARTS), square)


def _coverage(parts: np.ndarray, num_parts: int, square: Callable[[np.ndarray], Tensor]) -> Tensor:
    return torch.cat([square(np.uint8(255) * (parts == 1 + part)) for part in range(num_parts)]) / 255


def garden(name: str, count: int) -> Pictures:
    """`count` flowers with all attributes independent of each other."""
    flowers = [varied_flower(name, number) for number in range(count)]
    images = [view_of_flower(flowers[number], name, number)[0] for number in track(range(count), f"drawing {name}")]
    values = [[FLOWER_VALUES[key].index(getattr(one, key)) for key in toy.FLOWER_ATTRIBUTES] for one in flowers]

    def captioned(number: int, rng: np.random.Generator) -> tuple[str, Claims]:
        caption, named = toy_flowers.describe(flowers[number], rng)
        return caption, [(key, [FLOWER_VALUES[key].index(value)]) for key, value in named.items()]

    return Pictures(torch.stack(images), toy.FLOWER_ATTRIBUTES, torch.tensor(values), captioned, torch.empty(0))


def varied_flower(name: str, number: int) -> Flower:
    """A flower whose attributes are independent of each other."""
    rng = random_stream("toy networks", name, number)
    values = {key: options[int(rng.integers(len(options)))] for key, options in FLOWER_VALUES.items()}
    # How many petals there are goes with their shape, which classes fix.
    shaped = [kind for kind in range(1, toy_flowers.NUM_CLASSES + 1) if _shape(kind) == values["petal_shape"]]
    return replace(sample_flower(rng, shaped[int(rng.integers(len(shaped)))]), **values)


def _shape(flower_class: int) -> str:
    return toy_flowers.class_attributes(flower_class)["petal_shape"]


def view_of_flower(flower: Flower, name: str, number: int) -> tuple[Tensor, Tensor]:
    """About the middle square of the picture, (3, 64, 64) uint8, and how much of each pixel each part covers."""
    image, parts = toy_flowers.render(flower, random_stream("toy networks", name, number, "picture"))
    height, width = parts.shape
    rng = random_stream("toy networks", name, number, "view")
    most = min(width, height)
    side = most * rng.uniform(0.84, 1)
    left, top = ((length - side) / 2 + rng.uniform(-0.5, 0.5) * (most - side) for length in (width, height))

    def square(picture: np.ndarray) -> Tensor:
        return small(Image.fromarray(picture), (left, top, left + side, top + side))

    return square(image), _coverage(parts, len(toy_flowers.PARTS), square)


def gallery(name: str, count: int) -> Pictures:
    """`count` scenes as toy COCO's, a few of them bare, in squares as training shows them and evaluation."""
    scenes, images = [], []
    for number in track(range(count), f"drawing scenes, {name}"):
        rng = random_stream("toy networks", name, number)
        scene = sample_scene(rng, bare=rng.random() < 0.03, flock=rng.random() < 0.05)
        scenes.append(scene)
        images.append(picture_of_scene(scene, name, number))
    attributes = torch.tensor([values_of(scene) for scene in scenes])

    def captioned(number: int, rng: np.random.Generator) -> tuple[str, Claims]:
        caption, named = toy_scenes.describe(scenes[number], rng)
        return caption, claims_of(scenes[number], caption, named)

    return Pictures(torch.stack(images), toy.SCENE_ATTRIBUTES, attributes, captioned, torch.empty(0))


def picture_of_scene(scene: Scene, name: str, number: int) -> Tensor:
    """A square somewhere in the picture, 84 % of its shorter side wide or more: (3, 64, 64) uint8."""
    image = toy_scenes.render(scene, random_stream("toy networks", name, number, "picture")).image
    height, width = image.shape[:2]
    rng = random_stream("toy networks", name, number, "view")
    side = min(width, height) * rng.uniform(0.84, 1)
    left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    return small(Image.fromarray(image), (left, top, left + side, top + side))


def values_of(scene: Scene) -> list[int]:
    """The value of each of `toy.SCENE_ATTRIBUTES`."""
    colours = [*COLOURS, None].index
    return [*(colours(scene.attributes.get(name)) for name in toy.CATEGORIES), list(GROUNDS).index(scene.ground)]


def claims_of(scene: Scene, caption: str, named: dict[str, str]) -> Claims:
    """Everything a true caption says of a scene but where things lie to one another: they are there, in these colours.

    A colour that is named is a claim beside that the thing is there: the right thing in a wrong colour is half right.
    """
    words = set(re.findall(r"\w+", caption.lower()))
    there = [name for name in scene.attributes if words & set(" ".join(toy_scenes.CATEGORIES[name].words).split())]
    claims: Claims = [(name, range(len(COLOURS))) for name in there]
    claims += [(name, [COLOURS.index(colour)]) for name, colour in named.items()]
    if any(phrase in caption for phrase in GROUNDS[scene.ground][1:]):
        claims.append(("ground", [list(GROUNDS).index(scene.ground)]))
    return claims


def small(picture: Image.Image, box: tuple[float, float, float, float]) -> Tensor:
    """What lies in a box (left, top, right, bottom) of a picture, or of a map of it: (C, 64, 64) uint8."""
    levels = np.array(picture.resize((toy.SIZE, toy.SIZE), Image.Resampling.BILINEAR, box))
    return torch.from_numpy(levels).reshape(toy.SIZE, toy.SIZE, -1).permute(2, 0, 1)
