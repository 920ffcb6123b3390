"""Convolutions whose weights a style scales for each image, and scales back to unit variance.

Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020 (https://arxiv.org/abs/1912.04958),
section 2.2. Features are scaled before the convolution and after it instead of weights for each image, which computes
the same with one convolution for all images.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.layers.equalised import EqualisedLinear
from mmbench.layers.upfirdn2d import binomial_filter, upfirdn2d


class ModulatedConvolution(nn.Module):
    """A modulated convolution that keeps the size; without bias.

    Args:
        in_channels, out_channels: of the convolution.
        kernel: its height and width, odd.
        style_dim: size of the style vector.
        demodulate: whether outputs are scaled back to unit variance (equation 3).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, style_dim: int, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.scale = 1 / math.sqrt(in_channels * kernel**2)
        self.style = EqualisedLinear(style_dim, in_channels, bias=1.0)
        self.demodulate = demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Features (N, in_channels, H, W) and styles (N, style_dim) to (N, out_channels, h, w)."""
        style, weight = self.style(w), self.weight * self.scale  # (N, in_channels)
        x = self.convolve(x * style[:, :, None, None], weight)
        if self.demodulate:
            energy = style.square() @ weight.square().sum(dim=(2, 3)).T  # (N, out_channels)
            x = x * torch.rsqrt(energy + 1e-8)[:, :, None, None]
        return x

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


class UpsamplingModulatedConvolution(ModulatedConvolution):
    """A modulated convolution that doubles the size: transposed, then blurred by a binomial filter."""

    filter: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: int, style_dim: int) -> None:
        super().__init__(in_channels, out_channels, kernel, style_dim)
        self.register_buffer("filter", binomial_filter(), persistent=False)

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # (N, out_channels, 2H + 1, 2W + 1)
        return upfirdn2d(x, self.filter * 4, padding=(1, 1))


class DownsamplingModulatedConvolution(ModulatedConvolution):
    """A modulated convolution that halves the size: of features blurred by a binomial filter."""

    filter: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: int, style_dim: int) -> None:
        super().__init__(in_channels, out_channels, kernel, style_dim)
        self.register_buffer("filter", binomial_filter(), persistent=False)

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(upfirdn2d(x, self.filter, padding=(2, 2)), weight, stride=2)
