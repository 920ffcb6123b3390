"""From a picture to a square of the size a method works at: which part of it is shown, and how."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil
from typing import Self

import numpy as np
from PIL import Image

from mmbench.core.images import rgb

Region = tuple[int, int, int, int]  # left, top, right, bottom; the last two are outside


def square_around(box: tuple[float, float, float, float], width: int, height: int) -> Region:
    """The bird crop of StackGAN, AttnGAN and their successors.

    A square around the middle of the box, half as wide as int(0.75 x the box's longer side), clipped to the picture (so
    that most are not square after all). The box's values are truncated to integers first.

    Args:
        box: x, y, width, height in pixels.
        width, height: of the picture.

    Raises:
        ValueError: nothing of the square lies in the picture.
    """
    x, y, across, down = (int(value) for value in box)
    reach = int(0.75 * max(across, down))
    middle_x, middle_y = int((2 * x + across) / 2), int((2 * y + down) / 2)
    left, top = max(0, middle_x - reach), max(0, middle_y - reach)
    right, bottom = min(width, middle_x + reach), min(height, middle_y + reach)
    if left >= right or top >= bottom:
        raise ValueError(f"expected a box inside the picture of {width} x {height}, found {box}: correct its table")
    return left, top, right, bottom


@dataclass(frozen=True)
class View:
    """A square cut out of a resized region of a picture; the same for the picture and for maps of it.

    Attributes:
        region: what is resized, in pixels of the picture.
        size: width and height it is resized to (bilinear, anti-aliased).
        left, top: where the square begins in it.
        side: of the square.
        flipped: mirrored left to right at the end.
    """

    region: Region
    size: tuple[int, int]
    left: int
    top: int
    side: int
    flipped: bool = False

    @classmethod
    def centred(cls, region: Region, side: int) -> Self:
        """The region's shorter side becomes `side`; the square is cut from its middle."""
        width, height = _scaled(region, side)
        return cls(region, (width, height), (width - side) // 2, (height - side) // 2, side)

    @classmethod
    def random(cls, region: Region, side: int, rng: np.random.Generator) -> Self:
        """StackGAN-v2's and AttnGAN's: the shorter side becomes int(side x 76 / 64), then a random square and flip."""
        width, height = _scaled(region, int(side * 76 / 64))
        left, top = (int(rng.integers(room - side + 1)) for room in (width, height))
        return cls(region, (width, height), left, top, side, bool(rng.integers(2)))

    def __call__(self, picture: Image.Image) -> np.ndarray:
        """(side, side) or (side, side, channels) uint8 of a picture of mode L or RGB."""
        square = (self.left, self.top, self.left + self.side, self.top + self.side)
        return self._mirrored(np.asarray(self._whole(picture).crop(square)))

    def of(self, file: Image.Image) -> np.ndarray:
        """(side, side, 3) uint8 of an image file of any mode that is open and may not be decoded yet."""
        return self(rgb(file))

    def resized(self, picture: Image.Image) -> np.ndarray:
        """The whole region at its new size, before the square is cut out: uint8, as `__call__`'s but `size`."""
        return np.asarray(self._whole(picture))

    def _whole(self, picture: Image.Image) -> Image.Image:
        return picture.crop(self.region).resize(self.size, Image.Resampling.BILINEAR)

    def window(self, pixels: np.ndarray) -> np.ndarray:
        """The square of what `resized` gives: (side, side, ...), a view of the same memory."""
        return self._mirrored(pixels[self.top : self.top + self.side, self.left : self.left + self.side])

    def _mirrored(self, square: np.ndarray) -> np.ndarray:
        return square[:, ::-1] if self.flipped else square

    def nearest(self, index: np.ndarray) -> np.ndarray:
        """A map of classes (H, W) uint8, of the picture's size, through this view: (side, side), no value mixed."""
        pixels = Image.fromarray(index).crop(self.region).resize(self.size, Image.Resampling.NEAREST)
        return self.window(np.asarray(pixels))

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (K, 4) of x, y, width, height in pixels of the picture, in pixels of the square, clipped to it."""
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1).reshape(-1, 2, 2)
        left, top, right, bottom = self.region
        scale = np.array(self.size) / (right - left, bottom - top)
        corners = ((corners - (left, top)) * scale - (self.left, self.top)).clip(0, self.side)
        if self.flipped:
            corners[..., 0] = self.side - corners[:, ::-1, 0]
        return np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0]], 1)


class FastView(View):
    """A view that resizes its square alone, of a JPEG that is decoded at a half, quarter or eighth where that will do.

    It will do where both sides of the region shrink to that or less. Pixels are not those of a `View`. In 30 random
    squares of each of 11 photographs of COCO, and of 12 of CUB, whole and cropped to the bird, they differ on average
    by up to 1.6 of 255 levels at side 32, 1.4 at 64, 1.2 at 128 and 0.1 at 256 (the worst of the three sets), by up to
    3.6 on average over one square, and by up to 52 at one pixel.
    """

    def __call__(self, picture: Image.Image) -> np.ndarray:
        return self._square(picture, 1)

    def of(self, file: Image.Image) -> np.ndarray:
        width, height = file.size
        left, top, right, bottom = self.region
        enough = ceil(width * self.size[0] / (right - left)), ceil(height * self.size[1] / (bottom - top))
        draft = file.draft("RGB", enough)  # its mode and the place of the picture in it; None for other formats
        return self._square(rgb(file), width / draft[1][2] if draft else 1)

    def _square(self, picture: Image.Image, shrunk: float) -> np.ndarray:
        """The square of a picture that is `shrunk` times smaller than the one the region is given in."""
        (left, top, right, bottom), (width, height) = self.region, self.size
        across, down = (right - left) / width / shrunk, (bottom - top) / height / shrunk
        x, y = left / shrunk + self.left * across, top / shrunk + self.top * down
        box = (x, y, min(x + self.side * across, picture.width), min(y + self.side * down, picture.height))
        return self._mirrored(np.asarray(picture.resize((self.side, self.side), Image.Resampling.BILINEAR, box)))


class Preprocessing(ABC):
    """How a method wants its pictures: one view at evaluation, a random one in training."""

    @abstractmethod
    def evaluation(self, region: Region, side: int) -> View:
        """The view of a region at evaluation."""

    @abstractmethod
    def training(self, region: Region, side: int, rng: np.random.Generator) -> View:
        """A random view of a region."""


class ShorterSide(Preprocessing):
    """StackGAN-v2's, AttnGAN's and their successors': the aspect is kept, the longer side is cut."""

    def evaluation(self, region: Region, side: int) -> View:
        return View.centred(region, side)

    def training(self, region: Region, side: int, rng: np.random.Generator) -> View:
        return View.random(region, side, rng)


class Window(Preprocessing):
    """ManiGAN's: a square out of an enlarged picture, cut as if every picture were square.

    The shorter side becomes int(side x 76 / 64), and the square begins 0 to 47 pixels (at side 256) from the left and
    from the top, so that the far end of the longer side is never seen. Theirs is cut and mirrored at random at
    evaluation too; ours is the middle one there.
    https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/datasets.py
    """

    def evaluation(self, region: Region, side: int) -> View:
        enlarged = int(side * 76 / 64)
        return View(region, _scaled(region, enlarged), (enlarged - side) // 2, (enlarged - side) // 2, side)

    def training(self, region: Region, side: int, rng: np.random.Generator) -> View:
        enlarged = int(side * 76 / 64)
        left, top = (int(rng.integers(enlarged - side)) for _ in range(2))
        return View(region, _scaled(region, enlarged), left, top, side, bool(rng.integers(2)))


class Squash(Preprocessing):
    """TDANet's and PICNet's: a region of any aspect becomes a square; in training an enlarged one, cut and mirrored.

    Enlarged to int(side x 266 / 256). Theirs are also turned by up to 3 degrees in training, which leaves black edges;
    ours are not. Their object masks are cut and mirrored by draws of their own, ours as their images.
    """

    def evaluation(self, region: Region, side: int) -> View:
        return View(region, (side, side), 0, 0, side)

    def training(self, region: Region, side: int, rng: np.random.Generator) -> View:
        enlarged = int(side * 266 / 256)
        left, top = (int(rng.integers(enlarged - side + 1)) for _ in range(2))
        return View(region, (enlarged, enlarged), left, top, side, bool(rng.integers(2)))


class Whole(Preprocessing):
    """The whole region as a square, in training too: captions say what is there, and what is left and right of it."""

    def evaluation(self, region: Region, side: int) -> View:
        return View(region, (side, side), 0, 0, side)

    def training(self, region: Region, side: int, rng: np.random.Generator) -> View:
        return self.evaluation(region, side)


class Enlarged(Preprocessing):
    """SISGAN's and TAGAN's: the shorter side becomes side x ratio; the middle of it, or in training any square.

    At evaluation too, so that 8 of 136 pixels are cut. TAGAN's are also turned by up to 10 degrees in training, which
    leaves black corners; ours are not.

    Args:
        ratio: 136 / 128 for TAGAN, 74 / 64 for SISGAN, 256 / 224 for its embedding.
    """

    def __init__(self, ratio: float = 136 / 128) -> None:
        self.ratio = ratio

    def evaluation(self, region: Region, side: int) -> View:
        size = _scaled(region, int(side * self.ratio))
        left, top = (round((room - side) / 2) for room in size)
        return View(region, size, left, top, side)

    def training(self, region: Region, side: int, rng: np.random.Generator) -> View:
        size = _scaled(region, int(side * self.ratio))
        left, top = (int(rng.integers(room - side + 1)) for room in size)
        return View(region, size, left, top, side, bool(rng.integers(2)))


class Fast(Preprocessing):
    """Another preprocessing through `FastView`: nearly the same pixels in less time, so a protocol of its own.

    Args:
        exact: the other one; `ShorterSide` by default.
    """

    def __init__(self, exact: Preprocessing | None = None) -> None:
        self.exact = exact or ShorterSide()

    def evaluation(self, region: Region, side: int) -> View:
        return FastView(**vars(self.exact.evaluation(region, side)))

    def training(self, region: Region, side: int, rng: np.random.Generator) -> View:
        return FastView(**vars(self.exact.training(region, side, rng)))


def _scaled(region: Region, shorter: int) -> tuple[int, int]:
    """Width and height of a region whose shorter side becomes `shorter`, the longer one rounded down."""
    width, height = region[2] - region[0], region[3] - region[1]
    if width <= height:
        return shorter, max(shorter, shorter * height // width)
    return max(shorter, shorter * width // height), shorter
