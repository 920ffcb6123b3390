"""VGG-16 (https://arxiv.org/abs/1409.1556) as a feature extractor for perceptual losses."""

from pathlib import Path

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from mmbench.core.weights import KeyMap, load_strictly, read_state

# Index of every activation among torchvision's layers, by the name it has in the papers.
LAYERS = {
    "relu1_1": 1,
    "relu1_2": 3,
    "relu2_1": 6,
    "relu2_2": 8,
    "relu3_1": 11,
    "relu3_2": 13,
    "relu3_3": 15,
    "relu4_1": 18,
    "relu4_2": 20,
    "relu4_3": 22,
    "relu5_1": 25,
    "relu5_2": 27,
    "relu5_3": 29,
}


class VGG16(nn.Module):
    """VGG-16 up to one activation; later layers do not exist.

    Attributes:
        channels: channels of that activation.
    """

    def __init__(self, layer: str = "relu2_2") -> None:
        super().__init__()
        if layer not in LAYERS:
            raise ValueError(f"expected a layer of VGG-16 ({', '.join(LAYERS)}), found {layer!r}: name one of them")
        self.layer = layer
        self.layers = make_layers(cfgs["D"])[: LAYERS[layer] + 1]
        self.channels = self.layers[-2].out_channels

    def load(self, path: str | Path) -> None:
        """Fills the network from torchvision's file of VGG-16.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self, vgg16_keys(self.layer)(read_state(path), self), str(path))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, channels, H/s, W/s), where s is 1 for relu1_*, 2 for relu2_*, ... and 16 for relu5_*.

        ControlGAN and ManiGAN give images in [-1, 1], *not* normalised to ImageNet's mean and deviation.
        https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/VGGFeatureLoss.py
        """
        return self.layers(image)


def vgg16_keys(layer: str = "relu2_2") -> KeyMap:
    """From the names of torchvision (`features.0.weight`) and of ControlGAN and ManiGAN (`vgg.0.weight`)."""
    later = "|".join(str(index) for index in range(LAYERS[layer] + 1, LAYERS["relu5_3"] + 1))
    return KeyMap(
        rename={r"(?:features|vgg)\.(.*)": r"layers.\1"},
        drop={
            rf"(?:features|vgg)\.(?:{later})\..*": f"later than {layer}",
            r"classifier\..*": "features only",
        },
    )
