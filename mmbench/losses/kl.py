"""Kullback-Leibler divergences."""

from torch import Tensor

from mmbench.losses.precision import in_float32


@in_float32
def kl_to_standard_normal(mu: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)), averaged over batch *and* dimensions, as AttnGAN and its descendants do.

    Args:
        mu: (N, D).
        log_variance: (N, D).
    """
    return (mu.square() + log_variance.exp() - 1 - log_variance).mean() / 2
