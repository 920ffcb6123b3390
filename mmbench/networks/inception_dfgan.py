"""The Inception-v3 that DF-GAN's authors compute their FID with: torchvision's, given what it was not trained for."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.networks.inception_v3 import InceptionV3Trunk

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


class InceptionDFGAN(nn.Module):
    """Images (N, 3, H, W) uint8 to `features` (N, 2048), the last pooling.

    Images in [0, 1] are resized to 299 x 299 (bilinear, not anti-aliased); what turns ImageNet's normalisation into
    that of TensorFlow is then done to images that have neither, so that the network sees about -0.19 to 0.43 instead of
    -1 to 1. Distances do not compare with those of the Inception of FID (`inception_fid`). Source:
    https://github.com/tobran/DF-GAN/blob/78f14fd72cb70172d2067791c9df386f03f5124b/code/models/inception.py and
    code/lib/modules.py, calculate_fid.

    Attributes:
        num_features: 2048.
    """

    num_features = InceptionV3Trunk.global_channels

    def __init__(self) -> None:
        super().__init__()
        self.trunk = InceptionV3Trunk()

    def load(self, path: Path) -> None:
        """Fills the network from torchvision's file of Inception-v3.

        Raises:
            ValueError: the file holds something else.
        """
        self.trunk.load(path)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        regions = self.trunk.to_regions(network_input(resized(images.float() / 255)))
        return {"features": self.trunk.to_global(regions).mean(dim=(2, 3))}


def resized(images: Tensor) -> Tensor:
    """(N, 3, H, W) to (N, 3, 299, 299)."""
    return F.interpolate(images, (299, 299), mode="bilinear", align_corners=False)


def network_input(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] as the first layer gets them."""
    mean, deviation = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, DEVIATION))
    return images * (deviation / 0.5) + (mean - 0.5) / 0.5
