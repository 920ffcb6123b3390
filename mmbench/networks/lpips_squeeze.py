"""LPIPS on SqueezeNet 1.1, version 0.1: the LPIPS of PIE-Bench, where most tables are measured on AlexNet."""

from mmbench.core.weights import KeyMap
from mmbench.networks.lpips_alexnet import OfTorchvision

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


class LPIPSSqueeze(OfTorchvision):
    """Images (N, 3, H, W) uint8 to `embedding` (N, D), whose squared Euclidean distance is LPIPS.

    Otherwise as `LPIPSAlexNet`; the channel weights come with the lpips package, the backbone from torchvision.
    """

    least_size = 17  # of which the last pooling leaves one place

    net = "squeeze"
    layout = TORCHVISION
