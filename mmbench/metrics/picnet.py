"""The scores of PICNet's inpainting tables."""

import torch
from torch import Tensor

from mmbench.metrics.best_of_k import BestOfK, gradient_length, signal_to_noise


class _PICNet(BestOfK):
    """What PICNet's scores share: RGB levels 0 to 255, best of k against the truth (`BestOfK`).

    Source: Zheng et al., PICNet, CVPR 2019, arXiv:1903.04227, table 1, and lyndonzheng/Pluralistic-Inpainting@034a758,
    util/evaluation.py. The script works in float32, this in float64.
    """

    def candidate(self, truth: Tensor, output: Tensor) -> Tensor:
        first, second = truth.double(), output.double()
        l1 = (first - second).abs().flatten(1).mean(dim=1)
        psnr = signal_to_noise((first - second).square().flatten(1).mean(dim=1), peak=255)
        return torch.stack((l1, psnr, gradient_length(second)), dim=1)


class PICNetL1(_PICNet):
    """PICNet's l1: mean over channels and pixels of |a - b| in levels 0 to 255, which its tables print under per cent.

    Takes `image` and `mask`; images (N, 3, H, W) uint8. In [0, 255], lower is better.
    """

    higher_is_better = False
    column = 0


class PICNetPSNR(_PICNet):
    """PICNet's PSNR: 20 log10(255 / RMSE) in dB over channels and pixels, 100 for equal images; higher is better."""

    higher_is_better = True
    unit = "dB"
    column = 1


class PICNetTV(_PICNet):
    """PICNet's TV of the completion: mean of sqrt(gx^2 + gy^2) over channels and pixels, in levels 0 to 255.

    gx and gy are differences to the next pixel, the last one's to the first: opposite borders are neighbours. Takes
    the chosen candidate alone, in [0, 255 sqrt 2], lower is smoother. Neither the sum that torchmetrics computes nor
    `tv`.
    """

    higher_is_better = False
    column = 2
