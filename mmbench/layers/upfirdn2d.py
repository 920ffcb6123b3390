"""Up-sampling, filtering and down-sampling of images in one operation, as StyleGAN's networks resize."""

import torch
import torch.nn.functional as F
from torch import Tensor


def upfirdn2d(x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """Puts zeros between samples, pads, convolves with one filter for all channels and keeps every `down`-th sample.

    The same on both axes, in this order. Zeros follow each sample, the last one too; the filter is flipped, as a
    convolution in the strict sense has it; the first sample is kept.
    https://github.com/rosinality/stylegan2-pytorch/blob/bef283a/op/upfirdn2d.py

    Args:
        x: (N, C, H, W).
        kernel: (k, k), the filter.
        up, down: factors.
        padding: zeros before and after; negative numbers crop.

    Returns:
        (N, C, h, w), with h = (H * up + sum(padding) - k) // down + 1.
    """
    _, c, height, width = x.shape
    if up > 1:
        x = F.pad(x[..., None, :, None], (0, up - 1, 0, 0, 0, up - 1)).reshape(-1, c, height * up, width * up)
    before, after = padding
    x = F.pad(x, (before, after, before, after))
    # By channel: with channels as images of a batch it takes twenty times as long on a processor.
    return F.conv2d(x, kernel.flip(0, 1).expand(c, 1, -1, -1), stride=down, groups=c)


def binomial_filter() -> Tensor:
    """(4, 4), the outer product of [1, 3, 3, 1] with itself, of sum 1: what StyleGAN2 blurs with."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


def doubled(x: Tensor, kernel: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, 2H, 2W) by a 4 x 4 filter, which keeps its brightness."""
    return upfirdn2d(x, kernel * 4, up=2, padding=(2, 1))
