"""LPIPS on SqueezeNet 1.1, version 0.1: the LPIPS of PIE-Bench, where most tables are measured on AlexNet."""

import warnings
from pathlib import Path

import lpips
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly, read_state
from mmbench.networks.lpips_alexnet import embedding

# torchvision's SqueezeNet in lpips' slices: the layers of each that have weights.
SLICES = ((0,), (3, 4), (6, 7), (9,), (10,), (11,), (12,))
TORCHVISION = KeyMap(
    rename={
        rf"features\.{layer}\.(.*)": rf"slice{part}.{layer}.\1"
        for part, layers in enumerate(SLICES, 1)
        for layer in layers
    },
    drop={r"classifier\..*": "LPIPS ends at the last fire module"},
)


class LPIPSSqueeze(nn.Module):
    """Images (N, 3, H, W) uint8 to `embedding` (N, D), whose squared Euclidean distance is LPIPS.

    Otherwise as `LPIPSAlexNet`; the channel weights come with the lpips package, the backbone from torchvision.
    """

    least_size = 17  # of which the last pooling leaves one place

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():  # lpips 0.1.4 calls torchvision in a way that torchvision calls deprecated
            warnings.simplefilter("ignore")
            self.network = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)

    def load(self, path: Path) -> None:
        """Fills the backbone from torchvision's file of SqueezeNet 1.1.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self.network.net, TORCHVISION(read_state(path), self.network.net), str(path))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"embedding": embedding(self.network, images)}
