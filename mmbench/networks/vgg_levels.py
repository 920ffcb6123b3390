"""VGG-16 at two depths of one size, an eighth of the image's: what is compared there, and what judges look at."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.networks.toy import ToyVGG
from mmbench.networks.vgg import VGG16

POOL3 = 17  # layers of torchvision's VGG-16 up to its third pooling


class Levels(NamedTuple):
    """Features of images (N, 3, H, W).

    Attributes:
        pool3: (N, C, H/8, W/8), behind the third pooling; CSA's code calls it relu3_3.
        relu4_3: (N, D, H/8, W/8).
    """

    pool3: Tensor
    relu4_3: Tensor


class VGG16Levels(VGG16):
    """Both, of 256 and 512 channels.

    Attributes:
        pool3_channels: 256.
    """

    pool3_channels = 256

    def __init__(self) -> None:
        super().__init__("relu4_3")

    def forward(self, image: Tensor) -> Levels:  # type: ignore[override]
        """Of images (N, 3, H, W) in [-1, 1], *not* normalised to ImageNet's mean and deviation: CSA's are not.

        https://github.com/KumapowerLIU/CSA-inpainting/blob/f0b0712/models/vgg16.py
        """
        pool3 = self.layers[:POOL3](image)
        return Levels(pool3, self.layers[POOL3:](pool3))


class ToyVGGLevels(ToyVGG):
    """The same interface: means and maxima of `ToyVGG`'s features over 4 x 4 places, 64 channels, for both.

    Attributes:
        pool3_channels: 64.
    """

    pool3_channels = 64

    def forward(self, image: Tensor) -> Levels:  # type: ignore[override]
        """Of images (N, 3, H, W) in [-1, 1]."""
        features = super().forward(image)
        pooled = torch.cat((F.avg_pool2d(features, 4), F.max_pool2d(features, 4)), dim=1)
        return Levels(pooled, pooled)
