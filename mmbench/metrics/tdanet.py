"""The scores of TDANet's inpainting table."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.metrics.base import row_means, row_sums
from mmbench.metrics.best_of_k import BestOfK, gradient_length, signal_to_noise

LUMINANCE = (0.2125, 0.7154, 0.0721)
WINDOW = 7


class _TDANet(BestOfK):
    """What TDANet's scores share: grey images in [0, 1], best of k against the truth (`BestOfK`).

    Grey is 0.2125 R + 0.7154 G + 0.0721 B. The choice is by l1 - PSNR + TV alone: the script means to weigh SSIM too,
    but has the candidate's SSIM on both sides of its comparison. Source: Zhang et al., TDANet, ACM MM 2020,
    arXiv:2004.03212, and idealwhite/tdanet@b3ea9c4, evaluation.py. The script works in float32, this in float64.
    """

    def candidate(self, truth: Tensor, output: Tensor) -> Tensor:
        first, second = grey(truth), grey(output)
        l1 = row_sums((first - second).abs()) / row_sums(first + second)
        psnr = signal_to_noise(row_means((first - second).square()), peak=1)
        return torch.stack((l1, psnr, gradient_length(second)), dim=1)


class TDANetL1(_TDANet):
    """TDANet's l1: 100 sum |a - b| / sum (a + b) over the pixels of two grey images, a ratio and no mean.

    Takes `image` and `mask`; images (N, 3, H, W) uint8. In [0, 100] %, lower is better.
    """

    higher_is_better = False
    unit = "%"
    column = 0
    scale = 100


class TDANetPSNR(_TDANet):
    """TDANet's PSNR: 10 log10(1 / MSE) in dB of grey images in [0, 1], as scikit-image's with `data_range=1`.

    Equal images have 100 dB (in the script infinity); higher is better.
    """

    higher_is_better = True
    unit = "dB"
    column = 1


class TDANetTV(_TDANet):
    """TDANet's TV of the completion: 100 mean sqrt(gx^2 + gy^2) of the grey image in [0, 1], as `PICNetTV` otherwise.

    In [0, 100 sqrt 2] %, lower is smoother.
    """

    higher_is_better = False
    unit = "%"
    column = 2
    scale = 100


class TDANetSSIM(_TDANet):
    """TDANet's SSIM of grey images, times 100: as scikit-image gives it for `multichannel=True` and a single channel.

    Every column of pixels is then a channel of its own: means, variances and the covariance (divided by 6) are over 7
    pixels of a column, with C1 = (0.01 R)^2 and C2 = (0.03 R)^2, R the largest minus the smallest value of the
    completion; the mean is over columns and over rows but the outermost three. The script's `sigma` has no effect.
    At most 100 %, higher is better.

    Raises:
        ValueError: on compute, the best completion of an image is of one grey level, so that R is 0.
    """

    higher_is_better = True
    unit = "%"
    column = 3
    scale = 100

    def candidate(self, truth: Tensor, output: Tensor) -> Tensor:
        similarity = column_similarity(grey(truth), grey(output))
        return torch.cat((super().candidate(truth, output), similarity[:, None]), dim=1)


def grey(images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 to (N, H, W) float64 in [0, 1]."""
    red, green, blue = (weight * channel / 255 for weight, channel in zip(LUMINANCE, images.double().unbind(1)))
    return red + green + blue


def column_similarity(truth: Tensor, output: Tensor) -> Tensor:
    """SSIM of (N, H, W) float64 images along their columns: (N,) float64; NaN for an output of one level."""
    span = output.amax(dim=(1, 2)) - output.amin(dim=(1, 2))
    c1, c2 = ((k * span)[:, None, None] ** 2 for k in (0.01, 0.03))
    mean_1, mean_2 = _mean(truth), _mean(output)
    sample = WINDOW / (WINDOW - 1)
    variance_1 = sample * (_mean(truth * truth) - mean_1**2)
    variance_2 = sample * (_mean(output * output) - mean_2**2)
    covariance = sample * (_mean(truth * output) - mean_1 * mean_2)
    luminance = (2 * mean_1 * mean_2 + c1) / (mean_1**2 + mean_2**2 + c1)
    structure = (2 * covariance + c2) / (variance_1 + variance_2 + c2)
    return row_means(luminance * structure)


def _mean(images: Tensor) -> Tensor:
    """Mean of 7 pixels of a column where they fit: (N, H - 6, W)."""
    return F.avg_pool2d(images[:, None], (WINDOW, 1), stride=1)[:, 0]
