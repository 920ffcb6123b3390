"""Affine combination of hidden features with image features (ManiGAN, https://arxiv.org/abs/1912.06203, equation 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.layers.convolution import conv3x3


class AffineCombination(nn.Module):
    """h' = h * W(v) + b(v): image features v scale and shift hidden features h at every position.

    W and b are linear in v (two convolutions each, of which they share the first): no bias, no activation, no
    normalisation, and the scale is W, not 1 + W.

    Args:
        channels: channels of h.
        image_channels: channels of v.
        shared_channels: width between the two convolutions.
    """

    def __init__(self, channels: int, image_channels: int, shared_channels: int = 128) -> None:
        super().__init__()
        self.shared = conv3x3(image_channels, shared_channels)
        self.scale = conv3x3(shared_channels, channels)
        self.shift = conv3x3(shared_channels, channels)

    def forward(self, hidden: Tensor, image_features: Tensor) -> Tensor:
        """(N, channels, H, W) and (N, image_channels, H, W) to (N, channels, H, W)."""
        # One convolution for both: they read the same features, which is the costly part.
        weight = torch.cat((self.scale.weight, self.shift.weight))
        scale, shift = F.conv2d(self.shared(image_features), weight, padding=1).chunk(2, dim=1)
        return hidden * scale + shift
