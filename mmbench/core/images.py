"""Images: ranges, the one rounding rule, pyramids, and PNG files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from mmbench.core.files import written_atomically


def to_uint8(images: Tensor) -> Tensor:
    """Rounds images from [-1, 1] to the nearest of 256 levels: round((x + 1) * 127.5), half to even, then clamped.

    Args:
        images: (..., 3, H, W) float, nominally in [-1, 1].

    Returns:
        The same shape in uint8.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    if not torch.isfinite(images).all():
        raise ValueError(
            "expected finite pixel values, found NaN or infinity: the method that made this image diverged"
        )
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def truncated(images: Tensor) -> Tensor:
    """As `to_uint8`, but rounded down: what `(x + 1) * 127.5` cast to integers gives, in many authors' scripts.

    Half a level darker on average. Only for protocols that have it so.
    """
    return ((images.float() + 1) * 127.5).clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """uint8 levels to float32 in [-1, 1]; the inverse of `to_uint8`."""
    return images.to(torch.float32, copy=True).div_(127.5).sub_(1)


def pyramid(image: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The image at several sizes, each resized from the full one (anti-aliased bilinear): list of (N, 3, s, s)."""
    return [
        image if image.shape[-1] == size else F.interpolate(image, (size, size), mode="bilinear", antialias=True)
        for size in sizes
    ]


def write_png(path: str | Path, image: Tensor) -> None:
    """Writes one (3, H, W) uint8 image atomically as an RGB PNG."""
    with written_atomically(path) as partial:
        Image.fromarray(rearrange(image.cpu().numpy(), "c h w -> h w c")).save(partial, format="PNG")


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """Opens an image file of any mode: its size is known, its pixels are decoded inside the block, when wanted.

    Raises:
        ValueError: the file is no image that can be decoded whole; the message names it and the remedy.
    """
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise ValueError(f"{path}: expected an image, found no file: prepare the data set again") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path}: expected a whole image, found one that cannot be decoded ({error}): remove it and fetch it again"
        ) from None


def read_rgb(path: str | Path) -> Tensor:
    """Reads an image file of any mode as (3, H, W) uint8 RGB.

    Raises:
        ValueError: as `opened`.
    """
    with opened(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)
