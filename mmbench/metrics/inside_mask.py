"""Inpainting scored where it happens: what fills the hole of `mask` beside what was there.

Over the whole picture an error shrinks with the hole, and what was known counts as right. Here the hole alone counts,
so that errors of holes of different areas compare. Of several draws the plain metrics are the mean over all of them,
and those of a `best` draw are of one that is chosen against the truth.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmbench.metrics.base import (
    TURN_MASKS,
    Batch,
    SampleMean,
    Score,
    as_strings,
    compared,
    joined,
    levels,
    prompt_keys,
    row_sums,
    sample_keys,
    sample_order,
)
from mmbench.metrics.features import Extractor
from mmbench.metrics.psnr import decibels
from mmbench.metrics.ssim import RADIUS, SSIM, similarity_map


class _InMask(SampleMean):
    """A score of each image's hole; images without a hole are passed over. Of k draws it is the mean over them all."""

    needs = ("image", "mask")
    scored = "image with a hole in its mask"
    otherwise = TURN_MASKS

    def scores(self, images: Tensor, batch: Batch) -> Tensor:
        """(N,) float64; NaN where there is nothing to score."""
        raise NotImplementedError

    def update(self, images: Tensor, batch: Batch) -> None:
        values = self.scores(images, batch)
        self.record(values, judged=_hole(batch, images).any(dim=(1, 2, 3)) & ~values.isnan())


class L1InMask(_InMask):
    """Mean absolute difference from the truth in the hole, of values in [0, 1].

    L1 = mean over channels and over the pixels of the hole of |output - truth| / 255, in [0, 1]; mean over images.
    """

    higher_is_better = False

    def scores(self, images: Tensor, batch: Batch) -> Tensor:
        return mean_in_hole(images, batch, torch.abs) / 255


class PSNRInMask(_InMask):
    """PSNR in the hole in dB: 10 log10(255^2 / max(MSE, 1/12)), MSE over channels and the pixels of the hole.

    1/12 is the error of rounding to 8 bits, as in `PSNR`; mean over images.
    """

    higher_is_better = True
    unit = "dB"

    def scores(self, images: Tensor, batch: Batch) -> Tensor:
        return decibels(mean_in_hole(images, batch, torch.square))


class SSIMInMask(_InMask):
    """Mean over the pixels of the hole of the map of SSIM, whose windows look across the rim; 1 for the truth.

    The map is that of `SSIM`: it has no value for the outermost 5 pixels, which are left out, and an image whose hole
    lies among them alone is passed over.

    Raises:
        ValueError: on update, the images are smaller than 11 x 11.
    """

    higher_is_better = True
    least_size = SSIM.least_size
    scored = f"{_InMask.scored}, off the outermost {RADIUS} pixels,"

    def scores(self, images: Tensor, batch: Batch) -> Tensor:
        self.require_size(*images.shape[:-3:-1])
        inner = slice(RADIUS, -RADIUS)
        holes = _hole(batch, images)[:, 0, inner, inner]
        pairs = zip(*compared(images, batch["image"]), holes, strict=True)
        return torch.stack([similarity_map(output, truth)[:, hole].mean() for output, truth, hole in pairs])


class LPIPSInMask(_InMask):
    """LPIPS of the picture with what was known put back, by the share of the picture that is hole; 0 for the truth.

    LPIPS is a mean over places, and only those that see the hole differ once known pixels are the truth's: divided by
    the hole's share it is the mean over the hole, of whatever area. A map of LPIPS cut out by the hole would leave out
    what its rim looks like from outside, and mean another thing at each layer's resolution. Since receptive fields
    reach over the rim, very small holes score somewhat high. In [0, inf); mean over images.

    Args:
        extractor: gives `embedding` (N, D), whose squared Euclidean distance is LPIPS.
    """

    higher_is_better = False

    def __init__(self, extractor: Extractor) -> None:
        super().__init__(extractor)

    def scores(self, images: Tensor, batch: Batch) -> Tensor:
        assert self.extractor is not None
        self.require_size(*images.shape[:-3:-1])
        compared(images, batch["image"])
        hole = _hole(batch, images)
        composite = torch.where(hole, images, levels(batch["image"]).to(images.device))
        if torch.equal(composite, images):  # an extractor knows an image that it has seen by the tensor itself
            composite = images
        first, second = (self.extractor(pictures)["embedding"] for pictures in (composite, batch["image"]))
        return row_sums((first - second).double().square()) / hole.double().mean(dim=(1, 2, 3))


class _Best(_InMask):
    """The score of one draw of k: that with the smallest mean absolute difference from the truth in the hole.

    The truth chooses, as it does for the table of PICNet, so that it bounds from above what a user can get who has no
    truth; by one rule for all metrics, so that they speak of one draw; of equal ones the first. `std` is over images.

    Args:
        draws: k, the protocol's.

    Raises:
        ValueError: on compute, an image has another number of draws.
    """

    errors: list[Tensor]
    keys: list[Tensor]
    prompts: list[Tensor]

    def __init__(self, draws: int, **extractor: Any) -> None:
        super().__init__(**extractor)
        self.draws = draws
        for state in ("errors", "keys", "prompts"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, images: Tensor, batch: Batch) -> None:
        super().update(images, batch)
        self.errors.append(mean_in_hole(images, batch, torch.abs))
        self.keys.append(sample_keys(batch["sample"]).to(images.device))
        self.prompts.append(prompt_keys(batch["sample"]).to(images.device))

    def compute(self) -> Score:
        values, keys = joined(self.values), joined(self.keys)
        chosen = torch.full_like(values, torch.nan)
        if len(values):
            order = sample_order(keys, type(self).__name__).to(keys.device)
            starts, counts = self._prompts(order)
            errors = joined(self.errors)[order]
            for start, count in zip(starts, counts, strict=True):
                best = order[start + int(errors[start : start + count].argmin())]
                chosen[best] = values[best]
        return self.averaged(chosen)._replace(count=int((~values.isnan()).sum()))

    def _prompts(self, order: Tensor) -> tuple[list[int], list[int]]:
        """Where each prompt's draws begin in the order of samples, and how many there are."""
        rows = as_strings(joined(self.prompts)[order])
        names, starts, counts = np.unique(rows, return_index=True, return_counts=True)
        for other in np.flatnonzero(counts != self.draws)[:1]:
            raise ValueError(
                f"expected {self.draws} draws of each prompt for {type(self).__name__}, found {counts[other]} of "
                f"{names[other].split(bytes(1))[0].decode()}: set `draws` of the metric to the protocol's"
            )
        return starts.tolist(), counts.tolist()


class BestL1InMask(_Best, L1InMask):
    """`L1InMask` of the draw of k that is nearest to the truth by itself."""


class BestPSNRInMask(_Best, PSNRInMask):
    """`PSNRInMask` of the draw of k with the smallest L1 in the hole."""


class BestSSIMInMask(_Best, SSIMInMask):
    """`SSIMInMask` of the draw of k with the smallest L1 in the hole."""


class BestLPIPSInMask(_Best, LPIPSInMask):
    """`LPIPSInMask` of the draw of k with the smallest L1 in the hole."""


def _hole(batch: Batch, images: Tensor) -> Tensor:
    """(N, 1, H, W) bool."""
    return batch["mask"].to(images.device) > 0


def mean_in_hole(images: Tensor, batch: Batch, error: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over channels and over the pixels of the hole of `error(output - truth)` of levels: (N,) float64.

    Whole numbers, whose sums are exact. NaN where there is no hole.
    """
    output, truth = compared(images, batch["image"], torch.int32)
    hole = _hole(batch, images)
    sums = (error(output - truth) * hole).sum(dim=(1, 2, 3))
    return sums.double() / (images.shape[1] * hole.sum(dim=(1, 2, 3)))
