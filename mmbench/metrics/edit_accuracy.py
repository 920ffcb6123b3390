"""Edit accuracy: did the parts that the text names take the colours that it names? In the hole of a mask, too."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmbench.metrics.base import Batch, SampleMean

INSIDE = 0.9  # coverage from which a pixel belongs to one part alone
MIN_PIXELS = 6


class EditAccuracy(SampleMean):
    """Share of the named parts that have the named colour in the generated image, averaged over images; toy data only.

    A part is looked at where it lies in the input image: in the pixels that it covers to at least 90 %, so that none at
    its border counts. Each pixel votes for the palette colour nearest in CIELAB (D65, Euclidean distance); the part has
    the colour with most votes. Outlines, shading, and a pattern on less than half of a wing do not matter. A part with
    fewer than 6 such pixels is passed over, and so is an image with no other. What the text says of shapes and patterns
    is not judged. An editor that does nothing scores about one in the number of colours.

    Args:
        parts: names of the parts in the order of the batch's `parts`.
        palette: name of a colour to its red, green and blue levels.
    """

    named = "prompt_attributes"
    needs = ("parts", named)
    scored = "image whose text names a part that is large enough in it"
    higher_is_better = True

    def __init__(self, parts: Sequence[str], palette: Mapping[str, Sequence[int]], **extractor: Any) -> None:
        super().__init__(**extractor)
        self.parts = list(parts)
        self.colours = list(palette)
        self.register_buffer(
            "palette", lab(torch.tensor([list(levels) for levels in palette.values()])), persistent=False
        )

    def update(self, images: Tensor, batch: Batch) -> None:
        shares = []
        for image, parts, named in zip(images, self.inside(batch), batch[self.named], strict=True):
            right = []
            for part, colour in named.items():
                if part in self.parts:
                    inside = parts[self.parts.index(part)].to(image.device)  # (H, W)
                    wanted = self._index(part, colour)
                    if inside.sum() >= MIN_PIXELS:
                        right.append(self._colour(image[:, inside].T) == wanted)
            shares.append(sum(right) / len(right) if right else torch.nan)
        values = torch.tensor(shares, dtype=torch.float64, device=images.device)
        self.record(values, judged=~values.isnan())

    def inside(self, batch: Batch) -> Tensor:
        """The pixels that belong to each part alone: (N, P, H, W) bool."""
        return batch["parts"] >= INSIDE

    def _colour(self, pixels: Tensor) -> int:
        """The palette colour that most of (M, 3) pixels are nearest to; the earlier one of the palette in a tie."""
        votes = torch.cdist(lab(pixels), self.palette).argmin(dim=1)
        return int(votes.bincount(minlength=len(self.colours)).argmax())

    def _index(self, part: str, colour: str) -> int:
        if colour not in self.colours:
            raise ValueError(
                f"expected the {part} to be named one of {', '.join(self.colours)}, found {colour!r}: "
                "add it to the palette"
            )
        return self.colours.index(colour)


class CaptionAccuracyInMask(EditAccuracy):
    """`EditAccuracy` of what fills a hole, by the image's own caption, whatever text the method was told; on toy data.

    Share of the parts named by the right caption that have the named colour in the hole, averaged over images. Only
    pixels of the hole count, so that nothing of what was known does; a part with fewer than 6 there is passed over, and
    so is an image with no other. With the right caption told minus with a wrong one it is what a method makes of the
    text: one that reads none fills alike and has 0. What surrounds the hole may give a colour away without any text.
    """

    named = "caption_attributes"
    needs = ("parts", "mask", named)
    scored = "image whose caption names a part that is large enough in the hole of its mask"

    def inside(self, batch: Batch) -> Tensor:
        return super().inside(batch) & (batch["mask"].to(batch["parts"].device) > 0)


def lab(levels: Tensor) -> Tensor:
    """sRGB levels 0 to 255, (..., 3), to CIELAB under D65, float64. Source: IEC 61966-2-1 and CIE 15."""
    values = levels.double() / 255
    linear = torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    white = linear.new_tensor([0.95047, 1.0, 1.08883])
    xyz = linear @ linear.new_tensor(to_xyz).T / white
    root = torch.where(xyz > 0.008856, xyz.clamp(min=1e-9) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(-1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=-1)
