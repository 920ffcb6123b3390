"""Background and identity preservation: how much changed outside the region that was to change."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmbench.metrics.base import TURN_MASKS, Batch, SampleMean, compared, levels, row_sums
from mmbench.metrics.features import Extractor
from mmbench.metrics.psnr import decibels
from mmbench.metrics.ssim import RADIUS, SSIM, similarity_map


class _OutsideMask(SampleMean):
    """A score of what lies outside a region: the hole of `mask` or, where `parts` are named, those of the prompt.

    Border pixels of parts are of the region. An image that its region fills is passed over; one without any region is
    judged as a whole.

    Args:
        parts: names of the parts in the order of the batch's `parts`; None for the hole of `mask`.
        extractor: the learned network that it looks through; None where there is none.
    """

    def __init__(self, parts: Sequence[str] | None = None, extractor: Extractor | None = None) -> None:
        super().__init__(extractor)
        self.region = Region(parts)
        self.needs = self.needed({"parts": parts})
        self.scored = f"image with pixels outside {self.region.name}"
        if parts is None:
            self.otherwise = TURN_MASKS

    @classmethod
    def needed(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("image", "mask") if settings.get("parts") is None else ("image", "parts", "prompt_attributes")

    def scores(self, images: Tensor, batch: Batch, outside: Tensor) -> Tensor:
        """(N,) float64, of the places that `outside` (N, 1, H, W) bool says; NaN where there is nothing to score."""
        raise NotImplementedError

    def update(self, images: Tensor, batch: Batch) -> None:
        self.require_size(*images.shape[:-3:-1])
        outside = ~self.region(batch).to(images.device)
        values = self.scores(images, batch, outside)
        self.record(values, judged=outside.any(dim=(1, 2, 3)) & ~values.isnan())


class L1OutsideMask(_OutsideMask):
    """Mean absolute difference from the input outside a region, of values in [0, 1]; 0 where all stayed.

    L1 = mean over channels and over the pixels outside of |output - input| / 255, in [0, 1], then mean over images.
    The region is the hole of `mask` or, where `parts` are named, the parts that the prompt names, border pixels
    included. An image that its region fills is passed over.

    Args:
        parts: names of the parts in the order of the batch's `parts`; None for the hole of `mask`.
    """

    higher_is_better = False

    def scores(self, images: Tensor, batch: Batch, outside: Tensor) -> Tensor:
        output, source = compared(images, batch["image"])
        changed = ((output - source).abs() * outside).sum(dim=(1, 2, 3))
        return changed / (255 * images.shape[1] * outside.sum(dim=(1, 2, 3)))


class PSNROutsideMask(_OutsideMask):
    """PSNR outside a region in dB: 10 log10(255^2 / max(MSE, 1/12)), MSE over channels and the pixels outside.

    1/12 is the error of rounding to 8 bits, as in `PSNR`: 58.92 dB where all stayed. Mean over images. Region, and
    images passed over: as in `L1OutsideMask`.
    """

    higher_is_better = True
    unit = "dB"

    def scores(self, images: Tensor, batch: Batch, outside: Tensor) -> Tensor:
        output, source = compared(images, batch["image"], torch.int32)
        errors = ((output - source).square() * outside).sum(dim=(1, 2, 3)).double()
        return decibels(errors / (images.shape[1] * outside.sum(dim=(1, 2, 3))))


class SSIMOutsideMask(_OutsideMask):
    """Mean over the pixels outside a region of the map of SSIM, the region's pixels made equal; 1 where all stayed.

    The output's pixels inside the region are replaced by the input's, so that windows that look across the rim see no
    change there. The map is that of `SSIM`: it has no value for the outermost 5 pixels, which are left out, and an
    image whose outside lies among them alone is passed over. Region, and other images passed over: as in
    `L1OutsideMask`.

    Raises:
        ValueError: on update, the images are smaller than 11 x 11.
    """

    higher_is_better = True
    least_size = SSIM.least_size

    def __init__(self, parts: Sequence[str] | None = None) -> None:
        super().__init__(parts)
        self.scored = f"{self.scored} and {RADIUS} pixels or more from its edge"

    def scores(self, images: Tensor, batch: Batch, outside: Tensor) -> Tensor:
        inner = slice(RADIUS, -RADIUS)
        composite = kept_outside(images, batch, outside)
        pairs = zip(*compared(composite, batch["image"]), outside[:, 0, inner, inner], strict=True)
        return torch.stack([similarity_map(output, before)[:, places].mean() for output, before, places in pairs])


class LPIPSOutsideMask(_OutsideMask):
    """LPIPS distance from the input with the region's pixels made equal: what changed outside of it; 0 for nothing.

    The output's pixels inside the region are replaced by the input's, so that only a change outside counts; the mean
    is over all places of the picture, as in LPIPS. In [0, inf). LPIPS: Zhang et al., CVPR 2018, arXiv:1801.03924; the
    distance is the lpips package's. Region, and images passed over: as in `L1OutsideMask`.

    Args:
        extractor: gives `embedding` (N, D), whose squared Euclidean distance is LPIPS.
        parts: names of the parts in the order of the batch's `parts`; None for the hole of `mask`.
    """

    higher_is_better = False

    def __init__(self, extractor: Extractor, parts: Sequence[str] | None = None) -> None:
        super().__init__(parts, extractor)

    def scores(self, images: Tensor, batch: Batch, outside: Tensor) -> Tensor:
        assert self.extractor is not None
        composite = kept_outside(images, batch, outside)
        first, second = (self.extractor(pictures)["embedding"] for pictures in (composite, batch["image"]))
        return row_sums((first - second).double().square())


def kept_outside(images: Tensor, batch: Batch, outside: Tensor) -> Tensor:
    """The images outside, and the input elsewhere: (N, 3, H, W) uint8."""
    return torch.where(outside, images, levels(batch["image"]).to(images.device))


class Region:
    """Where an edit may change the picture: (N, 1, H, W) bool, from `mask` or from the named `parts`."""

    def __init__(self, parts: Sequence[str] | None) -> None:
        self.parts = parts
        self.name = "the hole of its mask" if parts is None else "the parts that its prompt names"

    def __call__(self, batch: Batch) -> Tensor:
        if self.parts is None:
            return batch["mask"] > 0
        named = torch.tensor([[part in names for part in self.parts] for names in batch["prompt_attributes"]])
        covered = batch["parts"] * named.to(batch["parts"].device)[:, :, None, None]
        return (covered > 0).any(dim=1, keepdim=True)
