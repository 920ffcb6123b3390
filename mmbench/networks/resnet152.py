"""ResNet-152 (https://arxiv.org/abs/1512.03385, torchvision's with its ImageNet weights) as a trunk."""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from mmbench.core.weights import KeyMap, load_strictly, read_state
from mmbench.layers.convolution import BATCHES_TRACKED

# Places among the layers of torchvision's network, as MirrorGAN's authors count them, to torchvision's names.
LAYERS = {0: "conv1", 1: "bn1", 2: "relu", 3: "maxpool", 4: "layer1", 5: "layer2", 6: "layer3", 7: "layer4"}


class ResNet152Trunk(nn.Module):
    """Features of ResNet-152 as MirrorGAN's captioner reads them.

    The image is resized to 224 x 224 whatever its own size (bilinear, without anti-aliasing), and is *not* normalised
    to ImageNet's mean and deviation.

    Attributes:
        region_channels: channels of the last convolutions.
        global_channels: the same, of their average.
    """

    size = 224
    region_channels = 2048
    global_channels = 2048

    def __init__(self) -> None:
        super().__init__()
        whole = dict(ResNet(Bottleneck, [3, 8, 36, 3]).named_children())
        self.layers = nn.Sequential()
        for name in LAYERS.values():
            self.layers.add_module(name, whole[name])

    def load(self, path: str | Path) -> None:
        """Fills the network from torchvision's file of ResNet-152.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self, RESNET152(read_state(path), self), str(path))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) in [-1, 1] to regions (N, 2048, 7, 7) and pooled features (N, 2048)."""
        image = F.interpolate(image, (self.size, self.size), mode="bilinear", align_corners=False)
        regions = self.layers(image)
        return regions, regions.mean(dim=(2, 3))


RESNET152 = KeyMap(
    rename={r"((?:conv1|bn1|layer\d)\..*)": r"layers.\1"},
    drop={r"fc\..*": "ImageNet's classes"},
    fill=BATCHES_TRACKED,
)
