"""Convolutions whose output is normalised and gated by a second half of channels (gated linear units).

`norm` makes the normalisation from a number of channels. Instance normalisation, which ManiGAN takes, has no parameters
and no running statistics: an image does not depend on its batch. AttnGAN and ControlGAN take `nn.BatchNorm2d`.
"""

from collections.abc import Callable
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.layers.convolution import conv3x3
from mmbench.layers.upsampling import UpsamplingConvolution

Norm = Callable[[int], nn.Module]


class GatedConvolution(nn.Module):
    """3x3 convolution to twice the channels, normalisation, then first half * sigmoid(second half)."""

    # What makes the convolution from its channels; a variation is a subclass.
    convolved: ClassVar[Callable[[int, int], nn.Conv2d]] = staticmethod(conv3x3)

    def __init__(self, in_channels: int, out_channels: int, norm: Norm = nn.InstanceNorm2d) -> None:
        super().__init__()
        self.convolution = self.convolved(in_channels, 2 * out_channels)
        self.norm = norm(2 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H, W)."""
        return F.glu(self.norm(self.convolution(x)), dim=1)


class UpBlock(GatedConvolution):
    """Nearest-neighbour upsampling, then a gated convolution: (N, C, H, W) to (N, out_channels, 2H, 2W)."""

    convolved = UpsamplingConvolution


class ResizeBlock(nn.Sequential):
    """Nearest-neighbour resizing to a size, then a gated convolution: (N, C, H, W) to (N, out_channels, size, size)."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__(nn.Upsample(size=size, mode="nearest"), GatedConvolution(in_channels, out_channels))


class GatedResidual(nn.Module):
    """A gated convolution, a plain one, and the input added: (N, C, H, W) to the same shape."""

    def __init__(self, channels: int, norm: Norm = nn.InstanceNorm2d) -> None:
        super().__init__()
        self.gated = GatedConvolution(channels, channels, norm)
        self.convolution = conv3x3(channels, channels)
        self.norm = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.convolution(self.gated(x)))
