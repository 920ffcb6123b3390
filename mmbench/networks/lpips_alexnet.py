"""LPIPS on AlexNet, version 0.1."""

import warnings
from pathlib import Path
from typing import ClassVar

import lpips
import torch
from torch import Tensor, nn

from mmbench.core.images import from_uint8
from mmbench.core.weights import KeyMap, load_strictly, read_state

# torchvision's AlexNet in lpips' slices: its convolutions are layers 0, 3, 6, 8 and 10.
TORCHVISION = KeyMap(
    rename={
        rf"features\.{layer}\.(weight|bias)": rf"slice{part}.{layer}.\1"
        for part, layer in enumerate((0, 3, 6, 8, 10), 1)
    },
    drop={r"classifier\..*": "LPIPS ends at the last convolution"},
)


class OfTorchvision(nn.Module):
    """LPIPS on a backbone of torchvision's.

    Attributes:
        net: the backbone, as the lpips package calls it.
        layout: from torchvision's file to the package's slices.
    """

    net: ClassVar[str]
    layout: ClassVar[KeyMap]

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():  # lpips 0.1.4 calls torchvision in a way that torchvision calls deprecated
            warnings.simplefilter("ignore")
            self.network = lpips.LPIPS(net=self.net, pnet_rand=True, verbose=False)

    def load(self, path: Path) -> None:
        """Fills the backbone from torchvision's file of it.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self.network.net, self.layout(read_state(path), self.network.net), str(path))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"embedding": embedding(self.network, images)}


class LPIPSAlexNet(OfTorchvision):
    """Images (N, 3, H, W) uint8 to `embedding` (N, D), whose squared Euclidean distance is LPIPS.

    A layer's features are normalised to unit length at each pixel, multiplied by the root of the learned
    (non-negative) channel weights and divided by the root of the number of pixels; D is the size of all layers
    together. No resizing; H and W are at least `least_size`. The channel weights come with the lpips package, the
    backbone from torchvision. Source: richzhang/PerceptualSimilarity, lpips 0.1.4.
    """

    least_size = 31  # of which the last pooling leaves one place

    net = "alex"
    layout = TORCHVISION

    def load(self, path: Path) -> None:
        """As of every backbone, which is then laid out for speed."""
        super().load(path)
        self.network.to(memory_format=torch.channels_last)


def embedding(network: lpips.LPIPS, images: Tensor) -> Tensor:
    """Images (N, 3, H, W) in levels of 0 to 255 to (N, D), whose squared Euclidean distance is LPIPS."""
    layers = network.net(network.scaling_layer(from_uint8(images)))
    parts = []
    for features, head in zip(layers, network.lins, strict=True):  # (N, C, h, w)
        weights = head.model[-1].weight  # (1, C, 1, 1)
        scaled = lpips.normalize_tensor(features) * (weights / features[0, 0].numel()).sqrt()
        parts.append(scaled.flatten(1))
    return torch.cat(parts, dim=1)
