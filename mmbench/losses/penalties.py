"""Penalties on gradients, which regularise adversarial training."""

import math

import torch
from torch import Tensor

from mmbench.core.processes import averaged, batch_mean


def r1_penalty(image: Tensor, logits: Tensor) -> Tensor:
    """Mean squared norm of the discriminator's gradient at real images.

    Mescheder et al., Which Training Methods for GANs do actually Converge?, ICML 2018
    (https://arxiv.org/abs/1801.04406), equation 9, without its factor gamma / 2.

    Args:
        image: (N, 3, H, W), which requires a gradient.
        logits: (N,), of `image`.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def matching_aware_penalty(image: Tensor, sentence: Tensor, logits: Tensor, power: float) -> Tensor:
    """Mean of a power of the norm of the discriminator's gradient at real images and their own sentences, together.

    Tao et al., DF-GAN, CVPR 2022 (https://arxiv.org/abs/2008.05865), equation 2, without its factor k.

    Args:
        image: (N, 3, H, W), which requires a gradient.
        sentence: (N, D), which requires a gradient.
        logits: N of them, of the pairs.
        power: p, 6 in the paper.
    """
    gradients = torch.autograd.grad(logits.sum(), (image, sentence), create_graph=True)
    squared = sum(gradient.square().flatten(1).sum(dim=1) for gradient in gradients)
    return squared.pow(power / 2).mean()


def path_lengths(image: Tensor, styles: Tensor, eps: Tensor) -> Tensor:
    """How far images move with their styles, in a random direction of images: (N,).

    Karras et al., StyleGAN2 (https://arxiv.org/abs/1912.04958), equation 4: the norm of the Jacobian's product with
    eps. Where each layer has a style of its own, the mean is taken over layers.

    Args:
        image: (N, 3, H, W), made of `styles`.
        styles: (N, S, D), through which a gradient flows.
        eps: (N, 3, H, W), standard normal.
    """
    direction = eps / math.sqrt(image.shape[2] * image.shape[3])
    (gradient,) = torch.autograd.grad((image * direction).sum(), styles, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def path_length_penalty(lengths: Tensor, average: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Mean squared distance of path lengths from their moving average, which they are part of.

    Args:
        lengths: (N,), of this process; N may differ between those that share a batch.
        average: scalar, before these lengths.
        decay: weight of their mean in the average.

    Returns:
        The penalty, a scalar, and the new average, without a gradient.
    """
    average = average.lerp(batch_mean(lengths), decay)
    return averaged((lengths - average).square()), average.detach()


def off_diagonal_penalty(weight: Tensor) -> Tensor:
    """How far filters are from orthogonal to each other, whatever their length: half a sum of squares.

    Brock et al., BigGAN, ICLR 2019 (https://arxiv.org/abs/1809.11096), equation 3, without its factor beta; half of
    it, as their code's gradient is (https://github.com/ajbrock/BigGAN-PyTorch/blob/9845943/utils.py#L646).

    Args:
        weight: (rows, ...), a filter in each row.
    """
    products = _products(weight)
    return (products - products.diagonal().diag()).square().sum() / 2


def orthogonality_penalty(weight: Tensor) -> Tensor:
    """As `off_diagonal_penalty`, of filters that are to have length 1 besides: equation 2."""
    products = _products(weight)
    return (products - torch.eye(len(products), device=weight.device, dtype=weight.dtype)).square().sum() / 2


def _products(weight: Tensor) -> Tensor:
    """Inner products of all pairs of rows, (rows, rows)."""
    matrix = weight.flatten(1)
    return matrix @ matrix.T
