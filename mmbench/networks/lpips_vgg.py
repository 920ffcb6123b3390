"""LPIPS on VGG-16, version 0.1: what methods minimise, where tables are measured on AlexNet."""

from mmbench.core.weights import KeyMap
from mmbench.networks.lpips_alexnet import OfTorchvision

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


class LPIPSVGG(OfTorchvision):
    """Images (N, 3, H, W) in levels of 0 to 255, as they are, to `embedding` (N, D); otherwise as `LPIPSAlexNet`.

    H and W are at least 16. Gradients flow to images of floats.
    """

    net = "vgg"
    layout = TORCHVISION
