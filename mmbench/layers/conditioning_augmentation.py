"""Conditioning augmentation: a caption as a normal distribution (StackGAN, https://arxiv.org/abs/1612.03242)."""

import torch.nn.functional as F
from torch import Tensor, nn


class ConditioningAugmentation(nn.Module):
    """Maps a sentence embedding to the mean and log variance of a condition, both of a gated linear layer."""

    def __init__(self, embedding_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(embedding_dim, 4 * condition_dim)

    def forward(self, sentence: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A condition and its distribution.

        Args:
            sentence: (N, embedding_dim).
            eps: (N, condition_dim), standard normal.

        Returns:
            Condition mu + eps * sigma, mu and log variance, each (N, condition_dim).
        """
        mu, log_variance = F.glu(self.project(sentence), dim=1).chunk(2, dim=1)
        return mu + eps * (log_variance / 2).exp(), mu, log_variance
