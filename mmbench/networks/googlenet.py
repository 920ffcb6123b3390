"""GoogLeNet (torchvision's, with its ImageNet weights) as a trunk: region features and one pooled feature vector."""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.googlenet import GoogLeNet

from mmbench.core.weights import KeyMap, load_strictly, read_state
from mmbench.layers.convolution import BATCHES_TRACKED

SIZE = 224  # of the images that it was trained on


class GoogLeNetTrunk(nn.Module):
    """Features of GoogLeNet (https://arxiv.org/abs/1409.4842) with batch normalisation.

    The image is resized to 224 x 224 pixels whatever its own size. Torchvision's weights want pixels in [-1, 1].

    Attributes:
        region_channels, global_channels: channels of the output of inception5b, as it is and pooled.
    """

    region_channels = global_channels = 1024

    def __init__(self) -> None:
        super().__init__()
        blocks = dict(GoogLeNet(aux_logits=False, init_weights=False).named_children())
        names = list(blocks)
        self.to_regions = nn.Sequential()
        for name in names[: names.index("inception5b") + 1]:
            self.to_regions.add_module(name, blocks[name])

    def load(self, path: str | Path) -> None:
        """Fills the network from torchvision's file of GoogLeNet.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self, GOOGLENET(read_state(path), self), str(path))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) in [-1, 1] to regions (N, 1024, 7, 7) and pooled features (N, 1024)."""
        image = F.interpolate(image, (SIZE, SIZE), mode="bilinear", align_corners=False)
        regions = self.to_regions(image)
        return regions, regions.mean(dim=(2, 3))


GOOGLENET = KeyMap(
    drop={r"fc\..*": "ImageNet's classes", r"aux[12]\..*": "classifiers that help its training"},
    rename={r"(.*)": r"to_regions.\1"},
    fill=BATCHES_TRACKED,
)
