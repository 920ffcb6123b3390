"""Losses in the feature space of a pretrained network."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.losses.precision import in_float32


def perceptual_loss(features: Callable[[Tensor], Tensor], fake: Tensor, real: Tensor) -> Tensor:
    """Mean squared difference of features (ControlGAN, https://arxiv.org/abs/1909.07083).

    Args:
        features: a frozen network from images to features, e.g. `VGG16("relu2_2")`.
        fake: (N, 3, H, W) in [-1, 1].
        real: the same; no gradient flows to it.
    """
    with torch.no_grad():
        target = features(real)
    return feature_loss(features(fake), target)


def pyramid_perceptual_loss(
    features: Callable[[Tensor], Tensor], fake: Sequence[Tensor], real: Sequence[Tensor]
) -> Tensor:
    """Mean of `perceptual_loss` over images of several sizes, (N, 3, s, s) each, as ControlGAN and ManiGAN have it."""
    return sum(perceptual_loss(features, *pair) for pair in zip(fake, real, strict=True)) / len(fake)


def perceptual_distance(network: Callable[[Tensor], dict[str, Tensor]], fake: Tensor, real: Tensor) -> Tensor:
    """Squared distance of embeddings, of which LPIPS is one.

    Args:
        network: a frozen network from images in levels of 0 to 255 to `embedding`, e.g. `LPIPSVGG`.
        fake: (N, 3, H, W) in [-1, 1].
        real: the same; no gradient flows to it.

    Returns:
        (N,).
    """
    with torch.no_grad():
        target = network((real + 1) * 127.5)["embedding"]
    return squared_distance(network((fake + 1) * 127.5)["embedding"], target)


@in_float32
def squared_distance(fake: Tensor, real: Tensor) -> Tensor:
    """Of rows (N, D): (N,)."""
    return (fake - real).square().sum(dim=1)


@in_float32
def feature_loss(fake: Tensor, real: Tensor) -> Tensor:
    """`perceptual_loss` where the features (N, C, H, W) are there already."""
    return F.mse_loss(fake, real)
