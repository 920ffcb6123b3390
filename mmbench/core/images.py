"""Images: ranges, the one rounding rule, pyramids, and files: which can be read, and what reading one leaves out.

A file of any kind becomes 8-bit RGB by one rule, `rgb`. What it does not keep of a file (transparency, further frames,
bits) is said by `notes`; a file whose levels nobody can know is refused.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError, features
from torch import Tensor

from mmbench.core.files import written_atomically

VERSION = 2  # of decoding and resizing: raised when either gives other pixels, so that nothing older is used
# Not I, F and LAB, whose levels do not say what is white; but the I of PGM is scaled to 16 bits by Pillow, see `bits`.
COLOURS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
PHOTOMETRIC, BITS_PER_SAMPLE = 262, 258  # tags of TIFF
TURNS = {  # what turns a picture upright, by its EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# One text may be as long as Pillow allows for all of a file: generators keep whole workflows there.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
# What these say is said with names and numbers, by `opened` and `notes`.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", "Palette images with Transparency")


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
    """uint8 levels to float32 in [-1, 1]; the inverse of `to_uint8`. Levels in float64 stay in it."""
    return images.to(torch.promote_types(images.dtype, torch.float32), copy=True).div_(127.5).sub_(1)


def pyramid(image: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The image at several sizes, each resized from the full one (anti-aliased bilinear): list of (N, 3, s, s)."""
    return [
        image if image.shape[-1] == size else F.interpolate(image, (size, size), mode="bilinear", antialias=True)
        for size in sizes
    ]


def require_size(image: Tensor, size: int, method: str) -> None:
    """Refuses images (N, 3, H, W) that `method` cannot be trained with, since they are not of `size` x `size` pixels.

    Raises:
        ValueError: they are not.
    """
    height, width = image.shape[-2:]
    if (height, width) != (size, size):
        raise ValueError(
            f"expected images of {size} x {size} pixels to train {method}, found {height} x {width}: set "
            f"data.module.image_size={size}"
        )


def write_png(path: str | Path, image: Tensor) -> None:
    """Writes one (3, H, W) uint8 image atomically as an RGB PNG."""
    with written_atomically(path) as partial:
        Image.fromarray(rearrange(image.cpu().numpy(), "c h w -> h w c")).save(partial, format="PNG")


def decoder() -> list[Any]:
    """What the pixels of a file depend on beside the file: a JSON value, for the key of whatever is kept of pixels."""
    return [VERSION, PIL.__version__, features.version("jpg"), features.version("libjpeg_turbo")]


@contextmanager
def decoding(path: str | Path) -> Iterator[None]:
    """Around calls of Pillow, and nothing else: what it raises becomes one line that names the file (ValueError)."""
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{path}: expected an image, found no file: prepare the data set again") from None
    except UnidentifiedImageError:
        raise ValueError(
            f"{path}: expected a whole image, found what is no image: remove it and fetch it again"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_large(path) from None
    except Exception as error:  # decoders raise a dozen kinds, of OSError, SyntaxError, ValueError, struct and zlib
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path}: expected a whole image, found one that cannot be decoded ({why}): remove it and fetch it again"
        ) from None


def too_large(path: str | Path) -> ValueError:
    """What to say of a picture above Pillow's limit."""
    return ValueError(
        f"{path}: expected a picture of at most {Image.MAX_IMAGE_PIXELS:,} pixels, Pillow's limit against "
        "decompression bombs, found a larger one: scale it down, or leave it out"
    )


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """Opens an image file of any mode that `rgb` can read: its head is known, and no pixel is decoded.

    Raises:
        ValueError: there is no such file, it is no image, has more pixels than Pillow's limit, or a mode whose levels
            do not say what is white (32-bit integers, floats, LAB); the message names it and the remedy.
    """
    with decoding(path):
        image = Image.open(path)
    with image:
        if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise too_large(path)
        if image.mode not in COLOURS and not bits(image):
            raise ValueError(
                f"{path}: expected a picture of 8 bits a channel, or grey of 16, found mode {image.mode}, whose levels "
                "do not say what is white: save it as 8-bit RGB"
            )
        yield image


def bits(image: Image.Image) -> int:
    """Bits of a grey picture of more than 8, of which all ones are white; 0 where it is no such picture."""
    if not (image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")):
        return 0
    tags = getattr(image, "tag_v2", {})
    if tags.get(PHOTOMETRIC, 1) == 0:  # a TIFF in which 0 is white; Pillow does not invert those
        return 0
    return int(tags.get(BITS_PER_SAMPLE, (16,))[0])


def rgb(image: Image.Image) -> Image.Image:
    """The pixels of a file that `opened` gave, as they lie in it (EXIF turns nothing), in 8-bit RGB.

    Grey of 16 (or 12) bits is scaled so that its white is 255, and rounded to the nearest level. Of other pictures of
    16 bits a channel Pillow reads the upper 8. Transparency is dropped, and the colour below it kept, as loaders of
    published evaluations do. CMYK is converted without its colour profile. Of several frames the first is read, or
    whichever was sought.

    Raises:
        ValueError: the file is damaged, or has levels of 8 bits only in 16; the message names it.
    """
    path, depth = getattr(image, "filename", "a picture"), bits(image)
    with decoding(path):
        image.load()
        if not depth:
            return image if image.mode == "RGB" else image.convert("RGB")
        levels = np.asarray(image).astype(np.int64)
    if depth == 16 and 0 < levels.max() < 256:
        raise ValueError(
            f"{path}: expected grey of 16 bits, white = 65535, found no level above {levels.max()}: save it with 8 bits"
        )
    white = 2**depth - 1
    return Image.fromarray(((levels * 255 + white // 2) // white).astype(np.uint8)).convert("RGB")


def read_rgb(path: str | Path) -> Tensor:
    """Reads an image file of any mode as (3, H, W) uint8 RGB, its pixels as they lie in the file.

    Raises:
        ValueError: as `opened` and `rgb`.
    """
    with opened(path) as image:
        return _tensor(rgb(image))


def read_upright(path: str | Path) -> Tensor:
    """As `read_rgb`, turned as EXIF says: what a viewer shows.

    Raises:
        ValueError: as `read_rgb`.
    """
    with opened(path) as image:
        turn = None if image.format == "TIFF" else TURNS.get(orientation(image))  # Pillow turns TIFFs by itself
        picture = rgb(image)
        return _tensor(picture if turn is None else picture.transpose(turn))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of a file that `opened` gave, turned as EXIF says."""
    lies = image.format != "TIFF" and orientation(image) >= 5
    return (image.height, image.width) if lies else image.size


def orientation(image: Image.Image) -> int:
    """How the pixels of a file lie, as EXIF or XMP say: 1 (upright, or nothing is said) to 8.

    Raises:
        ValueError: what EXIF says is damaged; names the file.
    """
    path = image.filename  # type: ignore[attr-defined]
    with decoding(path):
        # PNG may have it behind the pixels, and Pillow decodes them all to find out.
        behind = image.format == "PNG" and "exif" not in image.info and b"eXIf" in _chunks(path)
        exif = image.getexif() if behind else Image.Image.getexif(image)
        found = exif.get(ExifTags.Base.Orientation, 1)
    return found if found in TURNS else 1


def _chunks(path: str | Path) -> Iterator[bytes]:
    """Types of the chunks of a PNG, in their order."""
    with Path(path).open("rb", buffering=0) as file:
        file.seek(8)  # the signature
        while len(head := file.read(8)) == 8:
            yield head[4:]
            file.seek(int.from_bytes(head[:4]) + 4, 1)  # the contents and their sum


def notes(image: Image.Image) -> list[str]:
    """What somebody should know of how a file that `opened` gave is read by `read_upright`: kinds, most often none."""
    with decoding(image.filename):  # type: ignore[attr-defined]
        several = getattr(image, "n_frames", 1) > 1
    layout = str(image.tile[0].args) if image.tile else ""  # type: ignore[attr-defined]
    found = {
        "turned upright as EXIF says": orientation(image) != 1,
        "transparency left out": image.has_transparency_data,
        "first of several frames": several,
        "grey of 16 bits rounded to 8": bits(image) > 0,
        "upper 8 of 16 bits a channel": ";16" in layout and not bits(image),
        "CMYK converted without a colour profile": image.mode == "CMYK",
    }
    return [kind for kind, holds in found.items() if holds]


def require_mask(pixels: Tensor, path: Path) -> None:
    """Refuses a mask that is not of black and white alone, (3, H, W) uint8: what it would mean nobody has said.

    Raises:
        ValueError: names the file and the levels found.
    """
    if not (pixels == pixels[:1]).all():
        found = "colours"
    else:
        levels = pixels[0].unique().tolist()
        if set(levels) <= {0, 255}:
            return
        shown = [*map(str, levels)] if len(levels) < 6 else [*map(str, levels[:3]), "...", str(levels[-1])]
        found = f"levels {', '.join(shown[:-1])} and {shown[-1]}" if len(levels) > 1 else f"level {shown[0]}"
    raise ValueError(f"{path}: expected a mask, white = hole, found {found} where 0 and 255 are expected: save it so")


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)
