"""How a picture of any size becomes the square that a network looks at; a score depends on it.

Each takes levels (N, 3, H, W) uint8, and gives levels (N, 3, `size`, `size`) float32. Pillow, which files are resized
by elsewhere, computes in fixed point and rounds once more: it differs by one level, by up to three where it enlarges.
"""

import torch.nn.functional as F
from torch import Tensor


class ShorterSide:
    """The shorter side resized, then the centre cropped; bicubic, anti-aliased, rounded to 8 bits as Pillow does.

    What `Resize(side)` and `CenterCrop(size)` of torchvision do with a file.

    Args:
        side: of the resized picture, in pixels.
        size: of the crop.
    """

    def __init__(self, side: int, size: int) -> None:
        if size > side:
            raise ValueError(f"expected a crop of at most the resized side, {side}, found {size}: lower it")
        self.side, self.size = side, size

    def __call__(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        shape = [self.side * side // min(height, width) for side in (height, width)]
        resized = _rounded(images, shape)
        top, left = (round((side - self.size) / 2) for side in shape)
        return resized[..., top : top + self.size, left : left + self.size]


class Squash:
    """Without regard to the aspect; bicubic, anti-aliased, rounded to 8 bits: `Resize((size, size))` of a file."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, images: Tensor) -> Tensor:
        return _rounded(images, [self.size, self.size])


class AliasedSquash:
    """Without regard to the aspect; bicubic at single points, neither anti-aliased nor rounded nor cut to [0, 255]."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, images: Tensor) -> Tensor:
        return F.interpolate(images.float(), (self.size, self.size), mode="bicubic")


def _rounded(images: Tensor, shape: list[int]) -> Tensor:
    return F.interpolate(images.float(), shape, mode="bicubic", antialias=True).round().clamp(0, 255)
