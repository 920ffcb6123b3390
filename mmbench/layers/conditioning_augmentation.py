"""Conditioning augmentation: a caption as a normal distribution (StackGAN, https://arxiv.org/abs/1612.03242).

`RectifiedAugmentation` is that of StackGAN, `ConditioningAugmentation` that of StackGAN++, AttnGAN and its descendants,
`Condition` that of SISGAN and TAGAN.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn


class ConditioningAugmentation(nn.Module):
    """Maps a sentence embedding to the mean and log variance of a condition, both of a gated linear layer."""

    activation: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(partial(F.glu, dim=1))
    widening: ClassVar[int] = 2  # of what the activation is given, over what it leaves

    def __init__(self, embedding_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(embedding_dim, self.widening * 2 * condition_dim)

    def forward(self, sentence: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A condition and its distribution.

        Args:
            sentence: (N, embedding_dim).
            eps: (N, condition_dim), standard normal.

        Returns:
            Condition mu + eps * sigma, mu and log variance, each (N, condition_dim).
        """
        mu, log_variance = self.activation(self.project(sentence)).chunk(2, dim=1)
        return mu + eps * (log_variance / 2).exp(), mu, log_variance


class RectifiedAugmentation(ConditioningAugmentation):
    """The same, of a rectified linear layer."""

    activation = staticmethod(F.relu)
    widening = 1


class Condition(nn.Module):
    """Maps a sentence embedding to the mean and the log deviation of a condition: a leaky linear layer for each.

    Args:
        embedding_dim, condition_dim: sizes.
        bias: of both layers; TAGAN has one, SISGAN has none.
    """

    def __init__(self, embedding_dim: int, condition_dim: int, bias: bool) -> None:
        super().__init__()
        self.mu = nn.Linear(embedding_dim, condition_dim, bias)
        self.log_sigma = nn.Linear(embedding_dim, condition_dim, bias)

    def forward(self, sentence: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A condition and its distribution.

        Args:
            sentence: (N, embedding_dim).
            eps: (N, condition_dim), standard normal.

        Returns:
            Condition mu + eps * sigma, mu and log sigma, each (N, condition_dim).
        """
        mu, log_sigma = F.leaky_relu(self.mu(sentence), 0.2), F.leaky_relu(self.log_sigma(sentence), 0.2)
        return mu + eps * log_sigma.exp(), mu, log_sigma
