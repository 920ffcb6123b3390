"""Background and identity preservation: how much changed outside the region that was to change."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmbench.metrics.base import Batch, SampleMean, compared, levels, row_sums
from mmbench.metrics.features import Extractor


class L1OutsideMask(SampleMean):
    """Mean absolute difference from the input outside a region, of values in [0, 1]; 0 where all stayed.

    L1 = mean over channels and over the pixels outside of |output - input| / 255, in [0, 1], then mean over images.
    The region is the hole of `mask` or, where `parts` are named, the parts that the prompt names, border pixels
    included. An image that its region fills is passed over.

    Args:
        parts: names of the parts in the order of the batch's `parts`; None for the hole of `mask`.
    """

    higher_is_better = False

    def __init__(self, parts: Sequence[str] | None = None) -> None:
        super().__init__()
        self.region = Region(parts)
        self.needs = ("image", *self.region.needs)

    def update(self, images: Tensor, batch: Batch) -> None:
        output, source = compared(images, batch["image"])
        outside = ~self.region(batch).to(images.device)  # (N, 1, H, W)
        count = outside.sum(dim=(1, 2, 3))
        changed = ((output - source).abs() * outside).sum(dim=(1, 2, 3))
        self.record(changed / (255 * images.shape[1] * count), judged=count > 0)


class LPIPSOutsideMask(SampleMean):
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
        super().__init__(extractor)
        self.region = Region(parts)
        self.needs = ("image", *self.region.needs)

    def update(self, images: Tensor, batch: Batch) -> None:
        assert self.extractor is not None
        inside = self.region(batch).to(images.device)
        composite = torch.where(inside, levels(batch["image"]).to(images.device), images)
        first, second = (self.extractor(pictures)["embedding"] for pictures in (composite, batch["image"]))
        distances = row_sums((first - second).double().square())
        self.record(distances, judged=~inside.flatten(1).all(dim=1))


class Region:
    """Where an edit may change the picture: (N, 1, H, W) bool, from `mask` or from the named `parts`."""

    def __init__(self, parts: Sequence[str] | None) -> None:
        self.parts = parts
        self.needs = ("mask",) if parts is None else ("parts", "prompt_attributes")

    def __call__(self, batch: Batch) -> Tensor:
        if self.parts is None:
            return batch["mask"] > 0
        named = torch.tensor([[part in names for part in self.parts] for names in batch["prompt_attributes"]])
        covered = batch["parts"] * named.to(batch["parts"].device)[:, :, None, None]
        return (covered > 0).any(dim=1, keepdim=True)
