"""VGG-16 (https://arxiv.org/abs/1409.1556): features for perceptual losses, a trunk, an encoder of images.

`VGG16` takes images as they are, as ControlGAN and ManiGAN do; `VGG16Trunk` and `VGGEncoder`, which SISGAN has, take
them to what torchvision's networks were trained on.
"""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from mmbench.core.weights import KeyMap, load_strictly, read_state
from mmbench.layers.convolution import BATCHES_TRACKED

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
POOL3, RELU4_3 = 23, 32  # places among torchvision's layers of VGG-16 with batch normalisation
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of values in [0, 1]


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


class VGG16Trunk(nn.Module):
    """VGG-16 up to its second hidden layer behind the convolutions, with a trunk's interface.

    Dropout between the hidden layers is active in training, as the authors', who train none of its parameters.

    Attributes:
        global_channels: 4096.
    """

    size = 224
    global_channels = 4096

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = make_layers(cfgs["D"])
        self.fc6 = nn.Sequential(nn.Linear(512 * 7 * 7, self.global_channels), nn.ReLU(), nn.Dropout())
        self.fc7 = nn.Sequential(nn.Linear(self.global_channels, self.global_channels), nn.ReLU(), nn.Dropout())

    def load(self, path: str | Path) -> None:
        """Fills the network from torchvision's file of VGG-16.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self, VGG16_TRUNK(read_state(path), self), str(path))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [-1, 1], resized to 224 x 224, to features (N, 512, 7, 7) and (N, 4096)."""
        if image.shape[-2:] != (self.size, self.size):
            image = F.interpolate(image, (self.size, self.size), mode="bilinear", antialias=True)
        features = self.convolutions(_imagenet(image))
        return features, self.fc7(self.fc6(features.flatten(1)))


class VGGEncoder(nn.Module):
    """VGG-16 with batch normalisation up to relu4_3, without its third pooling: the image encoder of SISGAN.

    The paper spares the pooling for more detail. The code goes on to dilate the convolutions behind it, but sets the
    dilation on the normalisations that have taken their places, so that none is dilated.
    https://github.com/woozzu/dong_iccv_2017/blob/e7f371aefb3aa2208df832ed779c16027c8f3600/model.py#L78

    Attributes:
        channels: 512.
    """

    channels = 512

    def __init__(self) -> None:
        super().__init__()
        layers = make_layers(cfgs["D"], batch_norm=True)
        self.layers = nn.Sequential(*layers[:POOL3], *layers[POOL3 + 1 : RELU4_3 + 1])

    def load(self, path: str | Path) -> None:
        """Fills the network from torchvision's file of VGG-16 with batch normalisation.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self, VGG_ENCODER(read_state(path), self), str(path))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to (N, 512, H/4, W/4)."""
        return self.layers(_imagenet(image))


def _imagenet(image: Tensor) -> Tensor:
    """Images from [-1, 1] to what torchvision's networks were trained on."""
    mean, std = (image.new_tensor(numbers)[:, None, None] for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    return ((image + 1) / 2 - mean) / std


VGG16_TRUNK = KeyMap(
    rename={
        r"features\.(.*)": r"convolutions.\1",
        r"classifier\.0\.(\w+)": r"fc6.0.\1",
        r"classifier\.3\.(\w+)": r"fc7.0.\1",
    },
    drop={r"classifier\.6\..*": "ImageNet's classes"},
)
VGG_ENCODER = KeyMap(
    rename={
        r"encoder\.(.*)": r"layers.\1",
        **{rf"features\.{n}\.(.*)": rf"layers.{n - 1}.\1" for n in range(POOL3 + 1, RELU4_3 + 1)},
        r"features\.(.*)": r"layers.\1",
    },
    drop={
        rf"features\.(?:{'|'.join(str(n) for n in range(RELU4_3 + 1, 43))})\..*": "later than relu4_3",
        r"classifier\..*": "features only",
    },
    fill=BATCHES_TRACKED,
)
