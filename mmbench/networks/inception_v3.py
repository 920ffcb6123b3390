"""Inception-v3 (torchvision's, with its ImageNet weights) as a trunk: region features and one pooled feature vector."""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.inception import Inception3

from mmbench.core.weights import KeyMap, load_strictly, read_state
from mmbench.layers.convolution import BATCHES_TRACKED


class InceptionV3Trunk(nn.Module):
    """Features of Inception-v3 (https://arxiv.org/abs/1512.00567) as DAMSM reads them.

    The image is resized to `size` whatever its own size, and is *not* normalised to ImageNet's mean and deviation.

    Attributes:
        region_channels: channels of the region features, the output of Mixed_6e.
        global_channels: channels of the pooled output of Mixed_7c.

    Args:
        size: height and width that the image is resized to.
        align_corners: how the bilinear resize counts: False since PyTorch 0.4, True before.
    """

    region_channels = 768
    global_channels = 2048

    def __init__(self, size: int = 299, align_corners: bool = False) -> None:
        super().__init__()
        self.size = size
        self.align_corners = align_corners
        blocks = dict(Inception3(aux_logits=False, init_weights=False).named_children())
        names = list(blocks)
        after_regions, after_global = names.index("Mixed_6e") + 1, names.index("Mixed_7c") + 1
        self.to_regions = nn.Sequential()
        self.to_global = nn.Sequential()
        for name in names[:after_regions]:
            self.to_regions.add_module(name, blocks[name])
        for name in names[after_regions:after_global]:
            self.to_global.add_module(name, blocks[name])

    def load(self, path: str | Path) -> None:
        """Fills the network from torchvision's file of Inception-v3.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self, INCEPTION_V3(read_state(path), self), str(path))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) in [-1, 1] to regions (N, 768, 17, 17) and pooled features (N, 2048), at size 299."""
        image = F.interpolate(image, (self.size, self.size), mode="bilinear", align_corners=self.align_corners)
        regions = self.to_regions(image)
        return regions, self.to_global(regions).mean(dim=(2, 3))


# From torchvision's names, which the DAMSM image encoders of AttnGAN, ControlGAN and ManiGAN keep.
INCEPTION_V3_NAMES = {
    r"((?:Conv2d_|Mixed_5|Mixed_6).*)": r"to_regions.\1",
    r"(Mixed_7.*)": r"to_global.\1",
}

INCEPTION_V3 = KeyMap(
    rename=INCEPTION_V3_NAMES,
    drop={r"AuxLogits\..*": "the auxiliary classifier is for training on ImageNet", r"fc\..*": "the classifier"},
    fill=BATCHES_TRACKED,
)
