"""Losses of denoising networks, side by side: each of (network, schedule, clean, step, noise, condition) -> (N,).

`clean` is x_0 (N, ...), in [-1, 1] where it is an image; `step` (N,) int64; `noise` (N, ...) standard normal. Losses
are per sample; their mean, weighted as a paper says, is what is minimised.
"""

import math

import torch
from torch import Tensor

from mmbench.diffusion.denoisers import (
    Condition,
    Network,
    Predicted,
    learned_range,
    predicted_noise,
    velocity,
)
from mmbench.diffusion.schedules import Schedule, gathered


def simple_noise(
    network: Network, schedule: Schedule, clean: Tensor, step: Tensor, noise: Tensor, condition: Condition
) -> Tensor:
    """Squared error of the predicted noise, (N,): DDPM, equation 14."""
    return squared_error(_output(network, schedule, clean, step, noise, condition), noise)


def simple_denoised(
    network: Network, schedule: Schedule, clean: Tensor, step: Tensor, noise: Tensor, condition: Condition
) -> Tensor:
    """Squared error of the predicted x_0, (N,)."""
    return squared_error(_output(network, schedule, clean, step, noise, condition), clean)


def simple_velocity(
    network: Network, schedule: Schedule, clean: Tensor, step: Tensor, noise: Tensor, condition: Condition
) -> Tensor:
    """Squared error of the predicted velocity, (N,): Salimans and Ho."""
    target = velocity(schedule, clean, step, noise)
    return squared_error(_output(network, schedule, clean, step, noise, condition), target)


def simple(
    network: Network,
    schedule: Schedule,
    clean: Tensor,
    step: Tensor,
    noise: Tensor,
    condition: Condition,
    predicts: Predicted,
) -> Tensor:
    """Squared error of what a network predicts, whichever of the three that is, (N,)."""
    target = predicts.target(schedule, clean, step, noise)
    return squared_error(_output(network, schedule, clean, step, noise, condition), target)


def hybrid(
    network: Network,
    schedule: Schedule,
    clean: Tensor,
    step: Tensor,
    noise: Tensor,
    condition: Condition,
    variational: float = 1.0,
    predicts: Predicted | None = None,
) -> Tensor:
    """L_hybrid, (N,), of a network that predicts noise, or velocity, and a variance, in twice the channels.

    Nichol and Dhariwal, equation 16: the variational term trains the variance alone. Their lambda of 0.001 is of the
    sum over 1000 steps; of one step that stands for all it is 1.

    Args:
        variational: weight of the variational term of the step, in bits per dimension; T/1000 in the authors' code.
        predicts: what the first half of the channels is; None: the noise, as theirs.
    """
    predicts = predicts or predicted_noise()
    x = schedule.noised(clean, step, noise)
    output, spread = network(x, schedule.timesteps.to(x.device)[step], condition).to(x.dtype).chunk(2, dim=1)
    denoised = predicts.denoised(schedule, x, step, output.detach())
    bound = variational_bits(schedule, clean, x, step, denoised, learned_range(schedule, spread, step))
    return squared_error(output, predicts.target(schedule, clean, step, noise)) + variational * bound


def _output(
    network: Network, schedule: Schedule, clean: Tensor, step: Tensor, noise: Tensor, condition: Condition
) -> Tensor:
    x = schedule.noised(clean, step, noise)
    return network(x, schedule.timesteps.to(x.device)[step], condition).to(x.dtype)


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean of squared differences over all but the batch, (N,)."""
    return (output - target).square().flatten(1).mean(1)


def variational_bits(
    schedule: Schedule, clean: Tensor, x: Tensor, step: Tensor, denoised: Tensor, log_variance: Tensor
) -> Tensor:
    """The step's term of the variational bound in bits per dimension, (N,).

    At step 0 the negative log-likelihood of an image in 256 values, else KL(q(x_(t-1) | x_t, x_0) || p(x_(t-1) | x_t)).

    Args:
        clean: x_0 (N, ...) in [-1, 1].
        x: x_t.
        denoised: the network's estimate of x_0.
        log_variance: the network's (N, ...).
    """
    mean = schedule.posterior_mean(denoised, x, step)
    truth = schedule.posterior_mean(clean, x, step)
    divergence = gaussian_kl(truth, gathered(schedule.posterior_log_variance_clipped, step, x), mean, log_variance)
    likelihood = discretised_log_likelihood(clean, mean, 0.5 * log_variance)
    terms = torch.stack([-likelihood.flatten(1).mean(1), divergence.flatten(1).mean(1)])
    return torch.where(step == 0, *terms) / math.log(2)


def prior_bits(schedule: Schedule, clean: Tensor) -> Tensor:
    """KL(q(x_T | x_0) || N(0, 1)) in bits per dimension, (N,): what of x_0 (N, ...) the last step still shows."""
    step = torch.full((len(clean),), len(schedule) - 1, device=clean.device)
    mean = gathered(schedule.sqrt_alphas_cumprod, step, clean) * clean
    nothing = torch.zeros((), device=clean.device)
    log_variance = gathered((1 - schedule.alphas_cumprod).log(), step, clean)
    return gaussian_kl(mean, log_variance, nothing, nothing).flatten(1).mean(1) / math.log(2)


def gaussian_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL divergence of a normal distribution from another one, by element, in nats."""
    difference = log_variance - other_log_variance
    distance = (mean - other_mean).square() * (-other_log_variance).exp()
    return (torch.expm1(difference) - difference + distance) / 2


def discretised_log_likelihood(image: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Log-likelihood by element, in nats, of an image of 256 values in [-1, 1] under a normal distribution.

    Each value stands for an interval of 2/255, the outer ones for all that is beyond; no probability is below 1e-12.
    """
    centred, precision = image - mean, (-log_deviation).exp()
    above = _normal_cdf(precision * (centred + 1 / 255))
    below = _normal_cdf(precision * (centred - 1 / 255))
    likely = torch.where(image < -0.999, above, torch.where(image > 0.999, 1 - below, above - below))
    return likely.clamp(min=1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    """By the tanh that ADM approximates it with, on which recorded losses hang."""
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def noise_bound_weights(schedule: Schedule) -> Tensor:
    """(T,) weights that make the squared error of the noise a term of the variational bound, in LDM's convention.

    beta^2 / (2 posterior variance alpha (1 - abar)), at step 0 as at step 1 (`original_elbo_weight`).
    """
    variance = schedule.posterior_variance[1:]
    alpha, rest = 1 - schedule.betas[1:], 1 - schedule.alphas_cumprod[1:]
    weights = schedule.betas[1:].square() / (2 * variance * alpha * rest)
    return torch.cat([weights[:1], weights])


def p2_weights(schedule: Schedule, gamma: float) -> Tensor:
    """(T,) weights (1 + signal-to-noise)^-gamma of the squared error: Choi et al., https://arxiv.org/abs/2204.00227."""
    return (1 + schedule.log_snr.exp()) ** -gamma
