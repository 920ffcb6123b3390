"""Where toy things are: blurred backgrounds that say nothing of them, and something for birds to stand on."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mmbench.data.toy.drawing import SUPERSAMPLING, Colour, choice, curve


class _Scene(NamedTuple):
    top: Colour
    bottom: Colour
    blobs: tuple[Colour, ...]
    detail: str


_SCENES = (
    _Scene((142, 190, 228), (206, 226, 236), ((232, 238, 242), (222, 232, 240)), "none"),  # sky
    _Scene((96, 132, 88), (142, 164, 110), ((78, 116, 74), (162, 182, 126), (118, 148, 92)), "leaves"),  # foliage
    _Scene((128, 172, 186), (86, 138, 160), ((150, 190, 198), (104, 154, 174)), "ripples"),  # water
    _Scene((232, 182, 150), (196, 158, 176), ((244, 208, 168), (214, 168, 164)), "none"),  # dusk
    _Scene((190, 210, 196), (134, 162, 92), ((206, 200, 130), (216, 222, 196)), "grass"),  # meadow
    _Scene((184, 190, 198), (214, 218, 222), ((196, 202, 210), (170, 178, 188)), "snow"),  # snow
    _Scene((206, 192, 168), (176, 156, 128), ((218, 206, 186), (190, 170, 142)), "none"),  # sand
)


def background(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """A blurred scene of (3 W, 3 H) pixels."""
    scene: _Scene = choice(rng, _SCENES)
    coarse_width, coarse_height = width // 5, height // 5  # painted small and enlarged: a lens out of focus
    ramp = np.linspace(0, 1, coarse_height)[:, None, None]
    pixels = (1 - ramp) * np.array(scene.top) + ramp * np.array(scene.bottom) + rng.uniform(-10, 10, 3)
    pixels = np.broadcast_to(np.clip(pixels, 0, 255), (coarse_height, coarse_width, 3))
    coarse = Image.fromarray(np.ascontiguousarray(pixels.astype(np.uint8)))
    brush = ImageDraw.Draw(coarse)
    for _ in range(int(rng.integers(4, 10))):
        x, y = rng.random(2) * coarse.size
        across, down = rng.uniform(0.06, 0.28, 2) * coarse.size
        brush.ellipse((x - across, y - down, x + across, y + down), fill=choice(rng, scene.blobs))
    coarse = coarse.filter(ImageFilter.GaussianBlur(0.9))
    picture = coarse.resize((width * SUPERSAMPLING, height * SUPERSAMPLING), Image.Resampling.BICUBIC)
    _draw_details(picture, scene, rng)
    return picture


def _draw_details(picture: Image.Image, scene: _Scene, rng: np.random.Generator) -> None:
    brush = ImageDraw.Draw(picture)
    width, height = picture.size
    places = rng.random((26, 4))  # x, y, size, colour of each
    for x, y, size, pick in zip(*(places * (width, height, 1, len(scene.blobs))).T):
        colour = scene.blobs[int(pick)]
        match scene.detail:
            case "leaves":
                _draw_leaf(brush, np.array((x, y)), (0.5 + size) * 16, 2.4 * size, colour)
            case "ripples":
                brush.line((x, y, x + 20 + 60 * size, y), fill=colour, width=4)
            case "grass":
                foot = height * (0.7 + 0.3 * y / height)
                brush.line((x, foot + 30, x + 40 * (size - 0.5), foot - 50 * size), fill=(104, 138, 74), width=4)
            case "snow":
                brush.ellipse((x, y, x + 4 + 8 * size, y + 4 + 8 * size), fill=(246, 248, 250))


def _draw_leaf(brush: ImageDraw.ImageDraw, foot: np.ndarray, length: float, angle: float, colour: Colour) -> None:
    along = length * np.array((np.cos(angle), np.sin(angle)))
    side = 0.3 * np.array((-along[1], along[0]))
    points = curve(np.stack((foot, foot + along / 2 + side, foot + along, foot + along / 2 - side)), 4)
    brush.polygon(points.ravel().tolist(), fill=colour)


def draw_perch(picture: Image.Image, feet: list[np.ndarray], rng: np.random.Generator) -> None:
    """A branch or the ground below the feet; part of the background."""
    brush = ImageDraw.Draw(picture)
    width, height = picture.size
    middle = np.mean(feet, axis=0)
    if rng.random() < 0.65:
        slope = (feet[0][1] - feet[1][1]) / (feet[0][0] - feet[1][0])
        thickness = float(rng.uniform(8, 16))
        bark = choice(rng, ((112, 92, 76), (134, 116, 98), (92, 80, 70)))
        ends = [(x, middle[1] + thickness / 2 + slope * (x - middle[0])) for x in (-20, width + 20)]
        brush.line(ends, fill=bark, width=round(thickness))
        for x, size, angle in rng.random((4, 3)):
            foot = np.array((x * width, middle[1] + thickness / 2 + slope * (x * width - middle[0])))
            _draw_leaf(brush, foot, 24 + 20 * size, 1.0 + 1.6 * angle, (96, 132, 80))
    else:
        ground = choice(rng, ((150, 142, 124), (128, 140, 104), (166, 160, 152)))
        bend = float(rng.uniform(1.0, 3.0)) * width
        brush.ellipse((middle[0] - bend, middle[1], middle[0] + bend, middle[1] + height * 2), fill=ground)
