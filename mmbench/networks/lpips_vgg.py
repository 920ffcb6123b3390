"""LPIPS on VGG-16, version 0.1: what methods minimise, where tables are measured on AlexNet."""

import warnings
from pathlib import Path

import lpips
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly, read_state
from mmbench.networks.lpips_alexnet import embedding

# torchvision's VGG-16 in lpips' slices, which end at relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3.
SLICES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
TORCHVISION = KeyMap(
    rename={
        rf"features\.{layer}\.(weight|bias)": rf"slice{part}.{layer}.\1"
        for part, layers in enumerate(SLICES, 1)
        for layer in layers
    },
    drop={r"classifier\..*": "LPIPS ends at the last convolution"},
)


class LPIPSVGG(nn.Module):
    """Images (N, 3, H, W) in levels of 0 to 255, as they are, to `embedding` (N, D); otherwise as `LPIPSAlexNet`.

    H and W are at least 16. Gradients flow to images of floats.
    """

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():  # lpips 0.1.4 calls torchvision in a way that torchvision calls deprecated
            warnings.simplefilter("ignore")
            self.network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)

    def load(self, path: Path) -> None:
        """Fills the backbone from torchvision's file of VGG-16.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self.network.net, TORCHVISION(read_state(path), self.network.net), str(path))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"embedding": embedding(self.network, images)}
