"""Layers of equalised learning rate: weights are stored as standard normal numbers and scaled when they are used.

So every weight has the same size for an optimiser that looks at the sizes of gradients, whatever its layer's width.
Karras et al., Progressive Growing of GANs, ICLR 2018 (https://arxiv.org/abs/1710.10196), section 4.1.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def biased_leaky_relu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """A bias of each channel, then a leaky rectifier of slope 0.2, then a factor of sqrt(2), which keeps the variance.

    Args:
        x: (N, C, ...).
        bias: (C,).
    """
    if bias is not None:
        x = x + bias.view(-1, *[1] * (x.ndim - 2))
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class EqualisedLinear(nn.Module):
    """y = scale * W x + multiplier * b, with scale = multiplier / sqrt(in_dim).

    Args:
        in_dim, out_dim: sizes.
        multiplier: of the learning rate of this layer.
        bias: what each bias starts from.
    """

    def __init__(self, in_dim: int, out_dim: int, multiplier: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim) / multiplier)
        self.bias = nn.Parameter(torch.full((out_dim,), bias))
        self.multiplier = multiplier
        self.scale = multiplier / math.sqrt(in_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim) to (N, out_dim)."""
        return F.linear(x, self.weight * self.scale, self.bias * self.multiplier)


class EqualisedConvolution(nn.Module):
    """A convolution without bias, with weights scaled by 1 / sqrt(in_channels * kernel^2).

    Args:
        in_channels, out_channels, kernel, stride, padding: of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.scale = 1 / math.sqrt(in_channels * kernel**2)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, h, w)."""
        return F.conv2d(x, self.weight * self.scale, stride=self.stride, padding=self.padding)
