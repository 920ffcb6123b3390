"""DISTS: VGG-16 whose pooling does not alias, and the learned weights of its channels.

Ding et al., Image Quality Assessment: Unifying Structure and Texture Similarity, TPAMI 2020, arXiv:2004.07728; the
authors' code: https://github.com/dingkeyan93/DISTS/blob/1267d8c/DISTS_pytorch/DISTS_pt.py
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.weights import load_strictly, read_state
from mmbench.networks.vgg import IMAGENET_MEAN, IMAGENET_STD, LAYERS, VGG16, vgg16_keys

COMPARED = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
CHANNELS = (3, 64, 128, 256, 512, 512)  # of the picture itself, and of these layers
SIZE = 256  # the shorter side of a picture that is larger
STABLE = 1e-6  # the constants c1 and c2, which are equal


class DISTSVGG(nn.Module):
    """Pairs of images (N, 2, 3, H, W) uint8 to `distance` (N,) float64 in [0, 2), 0 for equal images.

    DISTS = 1 - sum over channels of (alpha l + beta s), with l = (2 m m' + c) / (m^2 + m'^2 + c) of the means and
    s = (2 cov + c) / (var + var' + c) of the variances over all places, of the picture's three channels and of five
    layers of VGG-16; alpha and beta are learned, not negative, and are made to sum to 1. l is in (0, 1], s in [-1, 1].

    The poolings of VGG are replaced by the root of a blur (1 2 1, across and down, every second place) of squares. A
    picture whose shorter side is above 256 pixels is resized to that first (bilinear, anti-aliased, rounded to levels,
    as Pillow does), as the authors' example does. Statistics are float64.

    Attributes:
        alpha: (1475,), weights of the means before they are normalised.
        beta: (1475,), those of the covariances.
    """

    alpha: Tensor
    beta: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.backbone = VGG16(COMPARED[-1])
        for name in ("alpha", "beta"):
            self.register_buffer(name, torch.ones(sum(CHANNELS)))
        mean, deviation = (torch.tensor(numbers)[:, None, None] for numbers in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)
        across = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("blur", torch.outer(across, across)[None, None], persistent=False)

    def load(self, paths: Mapping[str, Path]) -> None:
        """Fills the backbone from torchvision's file of VGG-16, and the weights from the authors' `weights.pt`.

        Args:
            paths: `backbone` and `weights` to these files.

        Raises:
            ValueError: one of them holds something else.
        """
        state = read_state(paths["weights"])
        if wrong := {key: tuple(value.shape) for key, value in state.items() if value.numel() != sum(CHANNELS)}:
            raise ValueError(f"{paths['weights']}: expected alpha and beta of {sum(CHANNELS)} channels, found {wrong}")
        backbone = vgg16_keys(COMPARED[-1])(read_state(paths["backbone"]), self.backbone)
        found = {f"backbone.{key}": value for key, value in backbone.items()}
        found |= {key: value.flatten() for key, value in state.items()}
        load_strictly(self, found, f"{paths['backbone']}, {paths['weights']}")

    def forward(self, pairs: Tensor) -> dict[str, Tensor]:
        images = sized(paired(pairs).flatten(0, 1)) / 255
        layers = [layer.unflatten(0, (-1, 2)) for layer in self.features(images)]
        distances = [self.distance(*(layer.unbind(0) for layer in pair)) for pair in zip(*layers, strict=True)]
        return {"distance": torch.stack(distances)}

    def distance(self, *layers: tuple[Tensor, Tensor]) -> Tensor:
        """Of one pair: () float64 of two maps (C, h, w) of each layer; one pair at a time, since float64 is large."""
        alpha, beta = self.alpha.double(), self.beta.double()
        means, covariances = (torch.cat(kind) for kind in zip(*(similarities(*pair) for pair in layers), strict=True))
        apart = (alpha * (1 - means)).sum() + (beta * (1 - covariances)).sum()  # exactly 0 for equal images
        return apart / (alpha.sum() + beta.sum())

    def features(self, images: Tensor) -> list[Tensor]:
        """What is compared of images (N, 3, H, W) in [0, 1]: themselves, and five layers (N, C, H/s, W/s)."""
        found, values, places = [images], (images - self.mean) / self.deviation, {LAYERS[name] for name in COMPARED}
        for place, layer in enumerate(self.backbone.layers):
            values = self.pooled(values) if isinstance(layer, nn.MaxPool2d) else layer(values)
            if place in places:
                found.append(values.clone())  # the next layers write in place
        return found

    def pooled(self, values: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H/2, W/2), rounded up."""
        kernel = self.blur.expand(values.shape[1], -1, -1, -1)
        squares = F.conv2d(values.square(), kernel, stride=2, padding=1, groups=len(kernel))
        return (squares + 1e-12).sqrt()


def paired(source: Tensor) -> Tensor:
    """Pairs (N, 2, 3, H, W) as they are; images (N, 3, H, W), as the canary shows them, each with its mirror image."""
    return source if source.dim() == 5 else torch.stack((source, source.flip(-1)), dim=1)


def sized(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) uint8 as floats of levels, no larger than 256 pixels at their shorter side."""
    height, width = images.shape[-2:]
    if min(height, width) <= SIZE:
        return images.float()
    shape = [int(SIZE * side / min(height, width)) for side in (height, width)]
    return F.interpolate(images.float(), shape, mode="bilinear", antialias=True).round().clamp(0, 255)


def similarities(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Of means and of (co)variances over all places of two maps of features (C, h, w): (C,) float64 each."""
    first, second = (values.double().flatten(1) for values in (first, second))
    means = [values.mean(dim=1) for values in (first, second)]
    apart = [values - mean[:, None] for values, mean in zip((first, second), means, strict=True)]
    variances = [values.square().mean(dim=1) for values in apart]
    covariance = (apart[0] * apart[1]).mean(dim=1)
    luminance = (2 * means[0] * means[1] + STABLE) / (means[0].square() + means[1].square() + STABLE)
    return luminance, (2 * covariance + STABLE) / (variances[0] + variances[1] + STABLE)
