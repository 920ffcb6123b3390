"""Caption accuracy: is what a text says of the parts of a bird or flower to be seen in a picture made from it?"""

import torch
from torch import Tensor

from mmbench.metrics.base import Batch
from mmbench.metrics.edit_accuracy import EditAccuracy

FOUND = 0.5  # probability from which a pixel belongs to a part
MIN_PIXELS = 4  # of 64 x 64; the smallest bill of a toy bird has ten


class CaptionAccuracy(EditAccuracy):
    """Share of the named parts that are there in the named colour, averaged over images; toy data only.

    `EditAccuracy` where nobody knows where the parts are: a network finds them (`extractor`), at 64 x 64 pixels, to
    which pictures of other sizes are brought first. The pixels of a part vote for the palette colour nearest in CIELAB;
    a part of which fewer than 4 pixels are found is not there, and wrong. What the text says of shapes and patterns is
    not judged. The real image of another caption scores chance, one in the number of colours or less where its class is
    another one; a picture without any bird or flower scores 0.

    Args:
        extractor: gives `parts` (N, P, 64, 64), the probability that a pixel is of a part, and the `levels`
            (N, 3, 64, 64) of the picture there.
        parts: names of the parts in the order of the extractor's.
        palette: name of a colour to its red, green and blue levels.

    Raises:
        ValueError: in `update`, the extractor finds another number of parts than there are names.
    """

    needs = ("prompt_attributes",)
    scored = "image whose text names a part"

    def update(self, images: Tensor, batch: Batch) -> None:
        assert self.extractor is not None
        seen = self.extractor(images)
        if (found := seen["parts"].shape[1]) != len(self.parts):
            raise ValueError(
                f"expected a network that finds the {len(self.parts)} parts {', '.join(self.parts)}, found one of "
                f"{found}: choose the one that was trained on such pictures (network/parts)"
            )
        shares = []
        for levels, parts, named in zip(seen["levels"], seen["parts"] > FOUND, batch[self.named], strict=True):
            right = [
                self._is(levels[:, parts[self.parts.index(part)]].T, self._index(part, colour))
                for part, colour in named.items()
                if part in self.parts
            ]
            shares.append(sum(right) / len(right) if right else torch.nan)
        values = torch.tensor(shares, dtype=torch.float64, device=images.device)
        self.record(values, judged=~values.isnan())

    def _is(self, pixels: Tensor, wanted: int) -> bool:
        """Whether a part that has these (M, 3) pixels is there in the wanted colour."""
        return len(pixels) >= MIN_PIXELS and self._colour(pixels) == wanted
