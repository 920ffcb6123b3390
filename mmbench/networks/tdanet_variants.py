"""TDANet's encoder with other convolutions: variants of ours, of no paper.

Only the trunk differs, whose 3x3 convolutions see the hole's edge; everything behind it is TDANet's.
"""

from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mmbench.layers.spectral_norm import SpectralConv2d
from mmbench.networks.pluralistic import DownBlock, ImageBlock, Trunk
from mmbench.networks.tdanet import Encoder


class GatedConvolution(SpectralConv2d):
    """Twice the channels, one half of which gates the other (Yu et al., https://arxiv.org/abs/1806.03589)."""

    def __init__(self, in_channels: int, out_channels: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(in_channels, 2 * out_channels, *args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(super().forward(x), dim=1)


class DilatedConvolution(SpectralConv2d):
    """Every second pixel, so that twice as much is seen across the hole (Iizuka et al., SIGGRAPH 2017)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=2 * padding, dilation=2)


class PartialConvolution(SpectralConv2d):
    """Known pixels alone, weighted up for those that are missing (Liu et al., https://arxiv.org/abs/1804.07723)."""

    def forward(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Features (N, C, H, W), and which of them are known: where any pixel of the window is.

        Args:
            x: (N, C, H, W).
            known: (N, 1, H, W), 1 or 0.
        """
        window = known.new_ones(1, 1, *self.kernel_size)
        count = F.conv2d(known, window, padding=self.padding)  # pixels outside the image are not known either
        grown = (count > 0).to(x)
        summed = self._conv_forward(x * known, self.normalised(), None)
        mean = summed * (window.numel() / count.clamp(min=1)) + self.bias[:, None, None]
        return mean * grown, grown


class PartialImageBlock(ImageBlock):
    """`ImageBlock` of partial convolutions."""

    def __init__(self, out_channels: int) -> None:
        super().__init__(out_channels, PartialConvolution)

    def forward(self, image: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        hidden, grown = self.conv1(image, known)
        features, grown = self.conv2(self.activation(hidden), grown)
        return pooled(features + self.bypass(image), grown)


class PartialDownBlock(DownBlock):
    """`DownBlock` of partial convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, PartialConvolution)

    def forward(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        hidden, grown = self.conv1(self.activation(x), known)
        features, grown = self.conv2(self.activation(hidden), grown)
        return pooled(features + self.bypass(x), grown)


def pooled(features: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of what is known of every 2x2 features, 0 where nothing is; and where anything is."""
    share = F.avg_pool2d(known, 2)
    return F.avg_pool2d(features * known, 2) / share.clamp(min=0.25), (share > 0).to(features)


class GatedEncoder(Encoder):
    """TDANet's with gated convolutions in its trunk."""

    convolution = GatedConvolution


class DilatedEncoder(Encoder):
    """TDANet's with dilated convolutions in its trunk."""

    convolution = DilatedConvolution


class PartialTrunk(Trunk):
    """`Trunk` of partial convolutions, which are told what is known."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__(widths[:1])
        self[0] = PartialImageBlock(widths[0])
        self.extend(PartialDownBlock(*pair) for pair in pairwise(widths))

    def forward(self, image: Tensor, known: Tensor) -> list[Tensor]:  # type: ignore[override]
        features, x = [], image
        for block in self:
            x, known = block(x, known)
            features.append(x)
        return features


class PartialEncoder(Encoder):
    """TDANet's with partial convolutions in its trunk."""

    def __init__(self, widths: list[int], embedding_dim: int, latent_dim: int, num_refining: int) -> None:
        super().__init__(widths, embedding_dim, latent_dim, num_refining)
        self.trunk = PartialTrunk(widths)

    def features(self, image: Tensor, keep: Tensor) -> list[Tensor]:
        return self.trunk(image * keep, keep)
