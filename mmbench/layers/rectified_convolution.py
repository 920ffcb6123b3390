"""Convolutions whose output is batch-normalised and rectified: the blocks of StackGAN's and SISGAN's generators."""

from torch import Tensor, nn

from mmbench.layers.convolution import ConvNorm
from mmbench.layers.upsampling import UpsamplingConvolution


class RectifiedResidual(nn.Module):
    """Two convolutions and the input added, rectified at the end: (N, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.second(self.first(x).relu())).relu()


class RectifiedUpBlock(nn.Sequential):
    """Nearest-neighbour upsampling, then a rectified convolution: (N, C, H, W) to (N, out_channels, 2H, 2W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(UpsamplingConvolution(in_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU())
