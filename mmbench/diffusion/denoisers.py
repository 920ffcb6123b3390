"""Denoisers: whatever a network predicts, samplers and guidance see its estimate of x_0.

A network is called as network(x (N, C, H, W), timesteps (N,), condition). Nothing here depends on C, H and W: an
embedding (N, D) is denoised as an image is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from mmbench.diffusion.schedules import Schedule, gathered

Condition = Any  # what the network takes: a tensor, a dict of tensors, None
Network = Callable[[Tensor, Tensor, Condition], Tensor]


class Prediction(NamedTuple):
    """What a network says of a noisy image.

    Attributes:
        denoised: (N, C, H, W) estimate of x_0.
        log_variance: (N, C, H, W) of p(x_(t-1) | x_t) where the network learns it, else None.
    """

    denoised: Tensor
    log_variance: Tensor | None = None


# From x_t (N, C, H, W), steps (N,) int64 as indices into the schedule, and the condition.
Denoiser = Callable[[Tensor, Tensor, Condition], Prediction]
# From a schedule, the second half of the channels that a network gives, and steps: the logarithm of the variance.
Variance = Callable[[Schedule, Tensor, Tensor], Tensor]
# From a schedule, x_t, steps and what a network predicts: x_0.
Parametrisation = Callable[[Schedule, Tensor, Tensor, Tensor], Tensor]


def denoised_from_noise(schedule: Schedule, x: Tensor, step: Tensor, noise: Tensor) -> Tensor:
    """x_0 (N, ...) where the noise in x_t is known."""
    spread = gathered(schedule.sqrt_one_minus_alphas_cumprod, step, x)
    return (x - spread * noise) / gathered(schedule.sqrt_alphas_cumprod, step, x)


def noise_from_denoised(schedule: Schedule, x: Tensor, step: Tensor, denoised: Tensor) -> Tensor:
    """The noise (N, ...) in x_t where x_0 is known."""
    signal = gathered(schedule.sqrt_alphas_cumprod, step, x)
    return (x - signal * denoised) / gathered(schedule.sqrt_one_minus_alphas_cumprod, step, x)


def denoised_from_velocity(schedule: Schedule, x: Tensor, step: Tensor, velocity: Tensor) -> Tensor:
    """x_0 (N, ...) where `velocity` of x_t is known."""
    signal = gathered(schedule.sqrt_alphas_cumprod, step, x)
    return signal * x - gathered(schedule.sqrt_one_minus_alphas_cumprod, step, x) * velocity


def velocity(schedule: Schedule, clean: Tensor, step: Tensor, noise: Tensor) -> Tensor:
    """v = sqrt(abar) noise - sqrt(1 - abar) x_0, (N, ...): Salimans and Ho, https://arxiv.org/abs/2202.00512."""
    signal = gathered(schedule.sqrt_alphas_cumprod, step, clean)
    return signal * noise - gathered(schedule.sqrt_one_minus_alphas_cumprod, step, clean) * clean


def denoised_from_mean(schedule: Schedule, x: Tensor, step: Tensor, mean: Tensor) -> Tensor:
    """x_0 (N, ...) where the mean of p(x_(t-1) | x_t) is known."""
    second = gathered(schedule.posterior_mean_coef2, step, x)
    return (mean - second * x) / gathered(schedule.posterior_mean_coef1, step, x)


def predicts_noise(network: Network, schedule: Schedule, variance: Variance | None = None) -> Denoiser:
    """The denoiser of a network that predicts the noise in x_t.

    Args:
        variance: for a network that gives twice the channels, what the second half means (`learned_range`).
    """
    return _adapted(network, schedule, variance, denoised_from_noise)


def predicts_denoised(network: Network, schedule: Schedule, variance: Variance | None = None) -> Denoiser:
    """The denoiser of a network that predicts x_0 itself; arguments as of `predicts_noise`."""
    return _adapted(network, schedule, variance, lambda schedule, x, step, output: output)


def predicts_velocity(network: Network, schedule: Schedule, variance: Variance | None = None) -> Denoiser:
    """The denoiser of a network that predicts `velocity`; arguments as of `predicts_noise`."""
    return _adapted(network, schedule, variance, denoised_from_velocity)


def predicts_mean(network: Network, schedule: Schedule, variance: Variance | None = None) -> Denoiser:
    """The denoiser of a network that predicts the mean of p(x_(t-1) | x_t); arguments as of `predicts_noise`."""
    return _adapted(network, schedule, variance, denoised_from_mean)


class Predicted(NamedTuple):
    """What a network predicts.

    What only a condition can tell is lost in much noise. There an error of x_0 weighs little as an error of the noise
    (as many times less as there is more noise than image), and no less as one of the velocity.

    Attributes:
        target: of (schedule, clean, step, noise), what its output (N, ...) is compared with in training.
        denoised: of (schedule, x, step, output), x_0 (N, ...).
    """

    target: Callable[[Schedule, Tensor, Tensor, Tensor], Tensor]
    denoised: Parametrisation


def predicted_noise() -> Predicted:
    """The noise in x_t: DDPM."""
    return Predicted(lambda schedule, clean, step, noise: noise, denoised_from_noise)


def predicted_velocity() -> Predicted:
    """`velocity`: Salimans and Ho."""
    return Predicted(velocity, denoised_from_velocity)


def denoiser_of(
    predicts: Predicted, network: Network, schedule: Schedule, variance: Variance | None = None
) -> Denoiser:
    """The denoiser of a network that predicts this; other arguments as of `predicts_noise`."""
    return _adapted(network, schedule, variance, predicts.denoised)


def _adapted(network: Network, schedule: Schedule, variance: Variance | None, meaning: Parametrisation) -> Denoiser:
    def denoiser(x: Tensor, step: Tensor, condition: Condition) -> Prediction:
        output = network(x, schedule.timesteps.to(x.device)[step], condition).to(x.dtype)
        if variance is None:
            return Prediction(meaning(schedule, x, step, output))
        output, spread = output.chunk(2, dim=1)
        return Prediction(meaning(schedule, x, step, output), variance(schedule, spread, step))

    return denoiser


def learned_range(schedule: Schedule, output: Tensor, step: Tensor) -> Tensor:
    """Log variance (N, ...): -1 stands for the posterior's, 1 for beta, and the rest lies between or beyond.

    Nichol and Dhariwal, equation 15 (https://arxiv.org/abs/2102.09672).
    """
    least = gathered(schedule.posterior_log_variance_clipped, step, output)
    greatest = gathered(schedule.betas.log(), step, output)
    share = (output + 1) / 2
    return share * greatest + (1 - share) * least


def learned(schedule: Schedule, output: Tensor, step: Tensor) -> Tensor:
    """Log variance (N, ...) that the network gives itself."""
    return output


def clipped(denoiser: Denoiser) -> Denoiser:
    """A denoiser whose estimates lie in [-1, 1], as images do. Guidance by a condition goes inside."""

    def within(x: Tensor, step: Tensor, condition: Condition) -> Prediction:
        prediction = denoiser(x, step, condition)
        return prediction._replace(denoised=prediction.denoised.clamp(-1, 1))

    return within
