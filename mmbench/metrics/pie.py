"""Preservation of the background as PIE-Bench's evaluation computes it: PSNR, MSE, SSIM and LPIPS of masked pictures.

Source: Ju et al., PnP Inversion, ICLR 2024, arXiv:2310.01506, and its code,
https://github.com/cure-lab/PnPInversion/blob/f480116/evaluation/evaluate.py and matrics_calculator.py. Both pictures
are painted black (level 0) outside of the region that is judged, and are compared as whole pictures. An error is
divided by all pixels of the picture, not by those of the region, so that a small region scores well whatever is in it:
PSNR rises by 10 log10(1 / share) dB beside that of the region alone, MSE falls by the share, and SSIM counts places
where both are black as 1. `inside_mask.py` and `outside_mask.py` have scores that regions of different areas share.

The region is what the mask leaves out (PIE-Bench's "unedit part", its tables' columns of background preservation) or
what it covers ("edit part"). The outermost pixels of the picture count as covered, which the evaluation does to every
mask before anything else. Pictures that are their region's whole complement are passed over, as authors do who write
"nan" there, and are not in the score's count: those whose mask covers all but the border at most have no background.
One departure: a picture with an empty mask has no edited part either and is passed over for it, where the authors'
code would score its border.
"""

import torch
from torch import Tensor

from mmbench.metrics.base import TURN_MASKS, Batch, SampleMean, levels, row_sums
from mmbench.metrics.features import Extractor
from mmbench.metrics.psnr import decibels
from mmbench.metrics.ssim import SSIM, structural_similarity


class _Masked(SampleMean):
    """A score of two pictures of which all but a region is black.

    Args:
        covered: which region it is, by the mask's value there: 0 for the background, 1 for what was to change.
    """

    needs = ("image", "mask")
    otherwise = TURN_MASKS

    def __init__(self, covered: int, extractor: Extractor | None = None) -> None:
        super().__init__(extractor)
        self.covered = covered
        self.scored = f"image with pixels {'in' if covered else 'outside'} the hole of its mask"

    def scores(self, images: Tensor, real: Tensor) -> Tensor:
        """Of masked pictures (N, 3, H, W) uint8: (N,) float64."""
        raise NotImplementedError

    def update(self, images: Tensor, batch: Batch) -> None:
        self.require_size(*images.shape[:-3:-1])
        mask = batch["mask"].to(images.device) > 0  # (N, 1, H, W)
        region = with_border(mask) == bool(self.covered)
        judged = (mask if self.covered else region).flatten(1).any(dim=1)
        real = levels(batch["image"]).to(images.device)
        self.record(self.scores(images * region, real * region), judged=judged)


class PieMSE(_Masked):
    """Mean squared error of values in [0, 1], over channels and all pixels of the masked pictures; then over images.

    In [0, 1], 0 for an unchanged region. PIE-Bench's tables print 10,000 times this.
    """

    higher_is_better = False

    def scores(self, images: Tensor, real: Tensor) -> Tensor:
        return squared_error(images, real) / 255**2


class PiePSNR(_Masked):
    """PSNR in dB of the masked pictures, mean over images; the squared error is over all pixels, black ones included.

    Of an unchanged region the authors' code gives infinity, and so for the mean; here the error is at least 1/12 of a
    level, as in `PSNR`: 58.92 dB.
    """

    higher_is_better = True
    unit = "dB"

    def scores(self, images: Tensor, real: Tensor) -> Tensor:
        return decibels(squared_error(images, real))


class PieSSIM(_Masked):
    """SSIM of the masked pictures over all places, of which black ones count as 1; mean over images.

    As `SSIM`: over the places that a window fits around, as torchmetrics did with `data_range=1.0` when PIE-Bench's
    tables were made, which print 100 times this. From version 1.5 on it averages over the outermost 5 pixels too, with
    windows that are filled by reflection, and the authors' script gives another number.
    https://github.com/Lightning-AI/torchmetrics/pull/2721
    """

    higher_is_better = True
    least_size = SSIM.least_size

    def scores(self, images: Tensor, real: Tensor) -> Tensor:
        return structural_similarity(images.double(), real.double())


class PieLPIPS(_Masked):
    """LPIPS of the masked pictures over all places, mean over images; 0 for an unchanged region.

    PIE-Bench's is on SqueezeNet, and its tables print 1000 times this.

    Args:
        covered: as the others'.
        extractor: gives `embedding` (N, D), whose squared Euclidean distance is LPIPS.
    """

    higher_is_better = False

    def __init__(self, covered: int, extractor: Extractor) -> None:
        super().__init__(covered, extractor)

    def scores(self, images: Tensor, real: Tensor) -> Tensor:
        assert self.extractor is not None
        first, second = (self.extractor(pictures)["embedding"] for pictures in (images, real))
        return row_sums((first - second).double().square())


def with_border(mask: Tensor) -> Tensor:
    """A mask (N, 1, H, W) bool with its outermost rows and columns set."""
    found = torch.ones_like(mask)
    found[..., 1:-1, 1:-1] = mask[..., 1:-1, 1:-1]
    return found


def squared_error(images: Tensor, real: Tensor) -> Tensor:
    """Mean over channels and pixels of squared differences of levels, (N, 3, H, W) uint8: (N,) float64."""
    return (images.int() - real.int()).square().sum(dim=(1, 2, 3)).double() / images[0].numel()
