"""Adversarial losses on logits: one function for the discriminator, one for the generator."""

import torch.nn.functional as F
from torch import Tensor

from mmbench.core.processes import averaged
from mmbench.losses.precision import in_float32


@in_float32
def cross_entropy_real(logits: Tensor) -> Tensor:
    """Mean of -log sigmoid(logits): binary cross-entropy against "real"."""
    return F.softplus(-logits).mean()


@in_float32
def cross_entropy_fake(logits: Tensor) -> Tensor:
    """Mean of -log(1 - sigmoid(logits)): binary cross-entropy against "fake"."""
    return F.softplus(logits).mean()


@in_float32
def cross_entropy_mismatched(logits: Tensor) -> Tensor:
    """As `cross_entropy_fake`, of (M,) pairs of which processes that share a batch have different numbers."""
    return averaged(F.softplus(logits))


def matching_aware_discriminator(
    real: Tensor, real_matched: Tensor, real_mismatched: Tensor, fake: Tensor, fake_matched: Tensor
) -> Tensor:
    """Cross-entropy of a discriminator that judges images alone and with a sentence.

    Real kinds count 1/2 each and false kinds 1/3 each, so that both sides weigh the same (AttnGAN,
    https://github.com/taoxugit/AttnGAN/blob/0d000e652b407e976cb88fab299e8566f3de8a37/code/miscc/losses.py#L136).

    Args:
        real: (N,) logits of real images.
        real_matched: (N,) logits of real images with their sentences.
        real_mismatched: (M,) logits of real images with others' sentences.
        fake: (N,) logits of generated images.
        fake_matched: (N,) logits of generated images with their sentences.
    """
    genuine = cross_entropy_real(real) + cross_entropy_real(real_matched)
    false = cross_entropy_fake(fake) + cross_entropy_fake(fake_matched) + cross_entropy_mismatched(real_mismatched)
    return genuine / 2 + false / 3


def matching_aware_generator(fake: Tensor, fake_matched: Tensor) -> Tensor:
    """Cross-entropy against "real" of the (N,) logits of generated images, alone and with their sentences."""
    return cross_entropy_real(fake) + cross_entropy_real(fake_matched)


def matching_aware_pairs(real_matched: Tensor, real_mismatched: Tensor, fake_matched: Tensor) -> Tensor:
    """Cross-entropy of a discriminator that judges images with a sentence only; the two false kinds count 1/2 each.

    Reed et al., GAN-CLS, algorithm 1 (https://arxiv.org/abs/1605.05396), as StackGAN's first stage has it
    (https://github.com/hanzhanggit/StackGAN-Pytorch/blob/e72ef88446e7bcd84a7b88060053edad72fecf6a/code/miscc/utils.py#L22).

    Args:
        real_matched: (N,) logits of real images with their sentences.
        real_mismatched: (M,) logits of real images with others' sentences.
        fake_matched: (N,) logits of generated images with their sentences.
    """
    false = cross_entropy_mismatched(real_mismatched) + cross_entropy_fake(fake_matched)
    return cross_entropy_real(real_matched) + false / 2


@in_float32
def least_squares_real(logits: Tensor) -> Tensor:
    """Mean of (logits - 1)^2: the squared distance from "real" (LSGAN, https://arxiv.org/abs/1611.04076)."""
    return (logits - 1).square().mean()


@in_float32
def least_squares_fake(logits: Tensor) -> Tensor:
    """Mean of logits^2: the squared distance from "fake"."""
    return logits.square().mean()


@in_float32
def hinge_real(logits: Tensor) -> Tensor:
    """Mean of what logits of real images lack of 1; a generator's loss is minus the mean of its images' logits.

    https://arxiv.org/abs/1705.02894. PICNet's code offers it in the place of least squares.
    """
    return F.relu(1 - logits).mean()


@in_float32
def hinge_fake(logits: Tensor) -> Tensor:
    """Mean of what logits of generated images have above -1."""
    return F.relu(1 + logits).mean()
