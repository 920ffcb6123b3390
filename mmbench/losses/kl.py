"""Kullback-Leibler divergences."""

import math

from torch import Tensor
from torch.distributions import Normal, kl_divergence

from mmbench.losses.precision import in_float32


@in_float32
def kl_to_standard_normal(mu: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)), averaged over batch *and* dimensions, as AttnGAN and its descendants do.

    Args:
        mu: (N, D).
        log_variance: (N, D).
    """
    return (mu.square() + log_variance.exp() - 1 - log_variance).mean() / 2


@in_float32
def kl_between_normals(mu: Tensor, sigma: Tensor, other_mu: Tensor, other_sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(other_mu, other_sigma^2)), averaged over batch and dimensions; all of one shape."""
    return kl_divergence(Normal(mu, sigma), Normal(other_mu, other_sigma)).mean()


@in_float32
def kl_to_uniform(logits: Tensor) -> Tensor:
    """KL(softmax(logits) || uniform), summed over positions: logits of codes (N, K, h, w) to (N,)."""
    log_shares = logits.log_softmax(dim=1)
    return (log_shares.exp() * (log_shares + math.log(logits.shape[1]))).flatten(1).sum(dim=1)
