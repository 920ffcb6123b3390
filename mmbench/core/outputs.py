"""What methods return: images, videos or texts; how each is checked, finished, kept on disk, read, sized and shown."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from einops import rearrange
from PIL import Image, PngImagePlugin, features
from torch import Tensor

from mmbench.core import construction
from mmbench.core.files import write_text, written_atomically
from mmbench.core.images import (
    decoding,
    notes,
    opened,
    pyramid,
    read_upright,
    require_mask,
    rgb,
    upright_size,
    write_png,
)
from mmbench.core.protocol import Protocol

# Of still pictures that people keep; those that Pillow was built to read.
PICTURES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".tga"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
    | ({".avif"} if features.check("avif") else set())
)
SHOWN_FRAMES = 4  # of a video, side by side in a grid
MODE, PIXELS = "mode {}", "{} pixels"  # how `Output.look` speaks of them


class Video(NamedTuple):
    """A video as it was written.

    Attributes:
        frames: (F, 3, H, W) uint8.
        rate: frames a second.
    """

    frames: Tensor
    rate: float


class Output(ABC):
    """One kind of output. Everything that a pipeline does with one, it asks here.

    Attributes:
        name: the plural, as metrics say what they judge.
        suffix: of a file with one of them.
        suffixes: of files with one of them that anybody made, in small letters.
        tables: suffixes of files with many of them, by name.
        real: the batch field with what such a thing is compared with; None where that is said in `captions`.
        captions: the batch field that is filled by what people wrote about them.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    suffixes: ClassVar[frozenset[str]]
    tables: ClassVar[frozenset[str]] = frozenset()
    real: ClassVar[str | None]
    captions: ClassVar[str] = "prompt"

    @property
    def one(self) -> str:
        """The singular of `name`."""
        return self.name.removesuffix("s")

    @abstractmethod
    def check(self, made: Any, names: Sequence[str]) -> None:
        """Looks for what a method must not return.

        Args:
            made: what `Method.generate` returned.
            names: of the samples.

        Raises:
            ValueError: says what was expected and names the samples that are wrong.
        """

    @abstractmethod
    def finished(self, made: Any, batch: Mapping[str, Any], protocol: Protocol) -> list[Any]:
        """Composited, resized and rounded as a protocol says: one item for each sample, as they are written."""

    @abstractmethod
    def write(self, path: Path, item: Any) -> None:
        """Writes one item, atomically and without loss."""

    @abstractmethod
    def read(self, path: Path) -> Any:
        """One item as it was written.

        Raises:
            ValueError: the file is missing or damaged; names it.
        """

    @abstractmethod
    def look(self, path: Path) -> dict[str, str]:
        """What a file says of itself before its pixels are decoded, and all of a set should have in common.

        Returns:
            how each thing is spoken of, "{} pixels" say, to its value in words, "48 x 48".

        Raises:
            ValueError: it is none of them; says so in a few words.
        """

    def notes(self, path: Path) -> list[str]:
        """What somebody should know of how a file is read, before its pixels are decoded.

        Returns:
            kinds in a few words, each to stand before a number of files: "transparency left out"; none of a file that
            `look` refuses.
        """
        return []

    @abstractmethod
    def judged(self, item: Any) -> Any:
        """What metrics see of an item: a tensor, which a batch stacks, or a text."""

    @abstractmethod
    def size(self, item: Any) -> list[int]:
        """Height and width in pixels, frames before them; nothing where there are none."""

    @abstractmethod
    def cell(self, item: Any) -> np.ndarray | str:
        """What stands in a grid: an (H, W, 3) uint8 picture, or a text."""


class Images(Output):
    """(N, 3, H, W) float in [-1, 1]; kept as PNG."""

    name, suffix, real = "images", ".png", "image"
    suffixes = PICTURES

    def check(self, made: Any, names: Sequence[str]) -> None:
        require_tensor(made, names, "images (N, 3, H, W)", 4, 1)

    def finished(self, made: Tensor, batch: Mapping[str, Any], protocol: Protocol) -> list[Tensor]:
        if protocol.composite:  # what was known is put back
            made = torch.where(batch["mask"] > 0, made, batch["image"])
        if protocol.size:
            (made,) = pyramid(made, [protocol.size])
        return list(construction.construct(protocol.rounding, images=made))

    def write(self, path: Path, item: Tensor) -> None:
        write_png(path, item)

    def read(self, path: Path) -> Tensor:
        return read_upright(path)

    def look(self, path: Path) -> dict[str, str]:
        with opened(path) as image:
            return {MODE: image.mode, PIXELS: in_words(upright_size(image))}

    def notes(self, path: Path) -> list[str]:
        try:
            with opened(path) as image:
                return notes(image)
        except ValueError:  # a problem, and said as such
            return []

    def judged(self, item: Tensor) -> Tensor:
        return item

    def size(self, item: Tensor) -> list[int]:
        return list(item.shape[1:])

    def cell(self, item: Tensor) -> np.ndarray:
        return rearrange(item.numpy(), "c h w -> h w c")


class Masks(Images):
    """Masks that anybody made: black and white files, white = hole. No method returns them."""

    def read(self, path: Path) -> Tensor:
        with opened(path) as image:
            if image.has_transparency_data:
                with decoding(path):
                    opaque = image.convert("RGBA").getchannel("A").getextrema() == (255, 255)
                if not opaque:
                    raise ValueError(
                        f"{path}: expected a mask, white = hole, found one of transparency: save it in black and white"
                    )
        pixels = super().read(path)
        require_mask(pixels, path)
        return pixels


class Videos(Output):
    """(N, F, 3, H, W) float in [-1, 1], frame rates in the batch's `frame_rate`; kept as lossless animated PNG.

    Writers of animated PNG join equal frames into one that is shown longer. What is written says how many frames there
    were and at which rate, and they are told apart again in reading.
    """

    name, suffix, real = "videos", ".png", "video"
    suffixes = frozenset({".png"})

    def check(self, made: Any, names: Sequence[str]) -> None:
        require_tensor(made, names, "videos (N, F, 3, H, W)", 5, 2)

    def finished(self, made: Tensor, batch: Mapping[str, Any], protocol: Protocol) -> list[Video]:
        rounded = construction.construct(protocol.rounding, images=made.flatten(0, 1)).unflatten(0, made.shape[:2])
        return [Video(frames, float(rate)) for frames, rate in zip(rounded, batch["frame_rate"], strict=True)]

    def write(self, path: Path, item: Video) -> None:
        pictures = [Image.fromarray(frame) for frame in rearrange(item.frames.cpu().numpy(), "f c h w -> f h w c")]
        about = PngImagePlugin.PngInfo()
        about.add_text("frames", str(len(pictures)))
        about.add_text("frame_rate", repr(item.rate))
        with written_atomically(path) as partial:
            pictures[0].save(
                partial,
                format="PNG",
                save_all=True,
                append_images=pictures[1:],
                duration=1000 / item.rate,
                default_image=False,
                disposal=PngImagePlugin.Disposal.OP_NONE,
                blend=PngImagePlugin.Blend.OP_SOURCE,
                pnginfo=about,
            )

    def read(self, path: Path) -> Video:
        frames = []
        with opened(path) as image:
            try:
                count, rate = int(image.info["frames"]), float(image.info["frame_rate"])
            except (KeyError, ValueError):
                raise ValueError(
                    f"{path}: expected a video that says its frames and frame rate, found none of that: write it with "
                    "mmbench.core.outputs"
                ) from None
            for number in range(getattr(image, "n_frames", 1)):
                with decoding(path):
                    image.seek(number)
                shown = round(image.info.get("duration", 0) * rate / 1000) or 1
                frames += [np.asarray(rgb(image)).copy()] * shown
        if len(frames) == 1:  # all frames are equal: a picture without an animation
            frames *= count
        if len(frames) != count:
            raise ValueError(
                f"{path}: expected {count} frames, found {len(frames)}: remove it, and the same command makes it anew"
            )
        return Video(torch.from_numpy(rearrange(np.stack(frames), "f h w c -> f c h w")), rate)

    def look(self, path: Path) -> dict[str, str]:
        try:
            with opened(path) as image:
                frames, rate = int(image.info["frames"]), float(image.info["frame_rate"])
                return {PIXELS: in_words(image.size), "{} frames": str(frames), "{} frames a second": str(rate)}
        except (KeyError, ValueError):
            raise ValueError(f"{path.name} is no video that says its frames and frame rate") from None

    def judged(self, item: Video) -> Tensor:
        return item.frames

    def size(self, item: Video) -> list[int]:
        return [len(item.frames), *item.frames.shape[2:]]

    def cell(self, item: Video) -> np.ndarray:
        places = np.linspace(0, len(item.frames) - 1, min(SHOWN_FRAMES, len(item.frames))).round().astype(int)
        return rearrange(item.frames[places].numpy(), "f c h w -> h (f w) c")


class Texts(Output):
    """A list of N texts; kept as UTF-8."""

    name, suffix, real, captions = "texts", ".txt", None, "captions"
    suffixes, tables = frozenset({".txt"}), frozenset({".json", ".csv", ".tsv"})

    def check(self, made: Any, names: Sequence[str]) -> None:
        if not isinstance(made, list) or len(made) != len(names):
            found = f"{len(made)} of them" if isinstance(made, list) else type(made).__name__
            raise ValueError(
                f"expected a list of {len(names)} texts, one for each sample, found {found}: mend generate"
            )
        wrong = [name for name, text in zip(names, made, strict=True) if not isinstance(text, str) or not text.strip()]
        if wrong:
            raise ValueError(
                f"expected texts with a word at least, found none for {', '.join(wrong)}: train the method longer, or "
                "forbid it to end at once"
            )

    def finished(self, made: list[str], batch: Mapping[str, Any], protocol: Protocol) -> list[str]:
        return made

    def write(self, path: Path, item: str) -> None:
        write_text(path, item)

    def read(self, path: Path) -> str:
        try:
            return path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path}: expected a text in UTF-8, found {type(error).__name__}: remove it, and the same command "
                "makes it anew"
            ) from None

    def look(self, path: Path) -> dict[str, str]:
        try:
            text = self.read(path)
        except ValueError:
            raise ValueError(f"{path.name} is no text in UTF-8") from None
        require_word(text)
        return {}

    def judged(self, item: str) -> str:
        return item

    def size(self, item: str) -> list[int]:
        return []

    def cell(self, item: str) -> str:
        return item


IMAGES, VIDEOS, TEXTS, MASKS = Images(), Videos(), Texts(), Masks()
OUTPUTS: Mapping[str, Output] = {output.name: output for output in (IMAGES, VIDEOS, TEXTS)}
# Field that a perfect method would return, to the kind of output that it is.
OF_TARGET: Mapping[str, Output] = {"image": IMAGES, "image_mismatched": IMAGES, "video": VIDEOS, "caption": TEXTS}


def in_words(size: Sequence[int]) -> str:
    """Width and height in a few words."""
    return " x ".join(map(str, size))


def require_word(text: str) -> None:
    """Refuses an empty text, or one of spaces (ValueError, in a few words)."""
    if not text.strip():
        raise ValueError("an empty text")


def require_tensor(made: Any, names: Sequence[str], wanted: str, ndim: int, channels: int) -> None:
    """Refuses what is no batch of pictures of finite pixels.

    Args:
        made: of a method.
        names: of the samples.
        wanted: what was expected, in words.
        ndim: number of dimensions.
        channels: the dimension that has red, green and blue.

    Raises:
        ValueError: another type, shape or number; or a pixel is no number, and all such samples are named.
    """
    if not isinstance(made, Tensor) or made.ndim != ndim or made.shape[channels] != 3 or len(made) != len(names):
        found = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise ValueError(f"expected {wanted} of {len(names)} samples, found {found}: mend what `generate` returns")
    require_finite(made, names)


def require_finite(pictures: Tensor, names: Sequence[str]) -> None:
    """Looks for pixels that are no numbers.

    Raises:
        ValueError: a picture has one; the message names all such pictures.
    """
    broken = [name for name, picture in zip(names, pictures, strict=True) if not torch.isfinite(picture).all()]
    if broken:
        raise ValueError(
            f"expected finite pixel values, found NaN or infinity in {', '.join(broken)}: "
            "the method that made them diverged, or the file is broken"
        )
