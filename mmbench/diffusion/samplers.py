"""Samplers: from noise x_T to an image x_0 by the steps of a schedule, each a function over the same denoiser.

All take `start` (N, C, H, W), which is x_T, and return x_0 of that shape. `noise(step)` gives the standard normal
numbers (N, C, H, W) of a step, so that an image does not depend on its batch; samplers that draw nothing take it, too,
and leave it alone, so that all are called alike. Fewer steps: hand on a schedule that has
fewer (`schedules.respaced`). A latent that is no longer finite is refused, naming the step.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mmbench.diffusion.denoisers import Condition, Denoiser, denoised_from_noise, noise_from_denoised
from mmbench.diffusion.schedules import Schedule, gathered

Noise = Callable[[int], Tensor]  # from a step to its standard normal numbers (N, C, H, W)
Constraint = Callable[[Tensor, Tensor], Tensor]  # from x_t (N, C, H, W) and steps (N,) to what is taken for x_t


def ancestral(
    denoiser: Denoiser,
    schedule: Schedule,
    start: Tensor,
    condition: Condition,
    noise: Noise,
    log_variance: Tensor | None = None,
) -> Tensor:
    """DDPM (Ho et al., algorithm 2): each step draws from q(x_(t-1) | x_t, x_0) at the estimate of x_0.

    Args:
        log_variance: (T,) where the network learns none; by default the posterior's.
    """
    fixed = schedule.posterior_log_variance_clipped if log_variance is None else log_variance
    x = start
    for index in _descending(schedule):
        step = _steps(index, x)
        prediction = denoiser(x, step, condition)
        spread = gathered(fixed, step, x) if prediction.log_variance is None else prediction.log_variance
        x = finite(ancestral_step(schedule, x, step, prediction.denoised, spread, noise(index)), index)
    return x


def ancestral_step(
    schedule: Schedule, x: Tensor, step: Tensor, denoised: Tensor, log_variance: Tensor, noise: Tensor
) -> Tensor:
    """x_(t-1) (N, ...) of DDPM from x_t, steps (N,), the estimate of x_0, a log variance and noise.

    At step 0 there is no noise.
    """
    mean = schedule.posterior_mean(denoised, x, step)
    draws = (step > 0).reshape(-1, *[1] * (x.dim() - 1))
    return mean + draws * (0.5 * log_variance).exp() * noise


def ddim(
    denoiser: Denoiser,
    schedule: Schedule,
    start: Tensor,
    condition: Condition,
    noise: Noise | None = None,
    eta: float = 0.0,
    constraint: Constraint | None = None,
) -> Tensor:
    """DDIM (Song et al., equation 12): deterministic where `eta` is 0, as random as DDPM where it is 1.

    Args:
        noise: needed where `eta` is not 0. Scaled, it has a temperature.
        constraint: changes x_t before each step, as inpainting does that keeps what is known.

    Raises:
        ValueError: `eta` is negative, or not 0 and there is no noise.
    """
    if eta < 0 or (eta > 0 and noise is None):
        raise ValueError(f"expected eta of at least 0, and noise where it is not 0, found {eta} and {noise}: give both")
    x = start
    for index in _descending(schedule):
        step = _steps(index, x)
        if constraint is not None:
            x = constraint(x, step)
        denoised = denoiser(x, step, condition).denoised
        x = ddim_step(schedule, x, step, denoised, noise(index) if noise is not None and eta > 0 else None, eta)
        x = finite(x, index)
    return x


def ddim_step(
    schedule: Schedule, x: Tensor, step: Tensor, denoised: Tensor, noise: Tensor | None = None, eta: float = 0.0
) -> Tensor:
    """x_(t-1) (N, ...) of DDIM from x_t, steps (N,), the estimate of x_0 and, where `eta` is not 0, noise."""
    previous, sigmas = schedule.alphas_cumprod_previous, ddim_sigmas(schedule, eta)
    direction = gathered((1 - previous - sigmas.square()).clamp(min=0).sqrt(), step, x)
    x = gathered(previous.sqrt(), step, x) * denoised + direction * noise_from_denoised(schedule, x, step, denoised)
    return x if noise is None else x + gathered(sigmas, step, x) * noise


def ddim_sigmas(schedule: Schedule, eta: float) -> Tensor:
    """(T,) standard deviation of the noise that a step of DDIM adds."""
    level, previous = schedule.alphas_cumprod, schedule.alphas_cumprod_previous
    return eta * ((1 - previous) / (1 - level) * (1 - level / previous)).sqrt()


def ddim_inversion(denoiser: Denoiser, schedule: Schedule, clean: Tensor, condition: Condition) -> Tensor:
    """x_T from which `ddim` with eta 0 makes x_0 (N, C, H, W) again, but for the error of a step's length.

    Each step up asks the network of the level that it leads to about the image of the level below.
    """
    x = clean
    for index in range(len(schedule)):
        step = _steps(index, x)
        noise = noise_from_denoised(schedule, x, step, denoiser(x, step, condition).denoised)
        below, level = schedule.alphas_cumprod_previous, schedule.alphas_cumprod
        x = finite(moved(x, noise, gathered(below, step, x), gathered(level, step, x)), index)
    return x


def moved(x: Tensor, noise: Tensor, level: Tensor, other: Tensor) -> Tensor:
    """x (N, ...) of one level abar at another one, where its noise (N, ...) stays; DDIM's step in either direction."""
    denoised = (x - (1 - level).sqrt() * noise) / level.sqrt()
    return other.sqrt() * denoised + (1 - other).sqrt() * noise


def plms(
    denoiser: Denoiser, schedule: Schedule, start: Tensor, condition: Condition, noise: Noise | None = None
) -> Tensor:
    """Pseudo linear multi-step (Liu et al., https://arxiv.org/abs/2202.09778) as LDM has it.

    DDIM's step with the noise of the last four steps extrapolated (Adams-Bashforth); the first step, which has none
    before it, asks the network a second time where it leads to.
    """
    x, past = start, []
    for index in _descending(schedule):
        step = _steps(index, x)
        predicted = noise_from_denoised(schedule, x, step, denoiser(x, step, condition).denoised)
        if past:
            used = _extrapolated([predicted, *past])
        else:
            ahead, following = _moved_down(schedule, x, step, predicted), (step - 1).clamp(min=0)
            denoised = denoiser(ahead, following, condition).denoised
            used = (predicted + noise_from_denoised(schedule, ahead, following, denoised)) / 2
        past = [predicted, *past][:3]
        x = finite(_moved_down(schedule, x, step, used), index)
    return x


def _moved_down(schedule: Schedule, x: Tensor, step: Tensor, noise: Tensor) -> Tensor:
    denoised = denoised_from_noise(schedule, x, step, noise)
    previous = gathered(schedule.alphas_cumprod_previous, step, x)
    return previous.sqrt() * denoised + (1 - previous).sqrt() * noise


ADAMS_BASHFORTH = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


def _extrapolated(noises: list[Tensor]) -> Tensor:
    """The latest first."""
    return torch.stack([weight * noise for weight, noise in zip(ADAMS_BASHFORTH[len(noises)], noises)]).sum(0)


def dpm_solver_pp_2m(
    denoiser: Denoiser, schedule: Schedule, start: Tensor, condition: Condition, noise: Noise | None = None
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., https://arxiv.org/abs/2211.01095, algorithm 2): second order, one call a step.

    The first step, which has none before it, and the last, which may lead to no noise at all, are of first order.
    """
    # lambda = log(alpha / sigma), half of log_snr, at each level and at the one where the last step ends.
    final = torch.tensor([schedule.final_alpha_cumprod], dtype=torch.float64)
    levels = torch.cat([final, schedule.alphas_cumprod])
    half_log_snr = (levels.log() - torch.log1p(-levels)) / 2
    x, before, length_before = start, None, None
    for index in _descending(schedule):
        step = _steps(index, x)
        denoised = finite(denoiser(x, step, condition).denoised, index)
        length = half_log_snr[index] - half_log_snr[index + 1]
        used = denoised
        if before is not None and index > 0:
            used = denoised + float(length / length_before / 2) * (denoised - before)
        spread = ((1 - levels[index]) / (1 - levels[index + 1])).sqrt()
        x = float(spread) * x - float(levels[index].sqrt() * torch.expm1(-length)) * used
        x, before, length_before = finite(x, index), denoised, length
    return x


def _descending(schedule: Schedule) -> range:
    return range(len(schedule) - 1, -1, -1)


def _steps(index: int, x: Tensor) -> Tensor:
    return torch.full((len(x),), index, device=x.device)


def finite(x: Tensor, index: int) -> Tensor:
    """The latent x (N, ...) after a step; raises ValueError, which names it, unless all numbers are finite."""
    if not bool(x.isfinite().all()):
        raise ValueError(
            f"expected finite numbers in the latent, found NaN or infinity after step {index}: train the network "
            "further, guide it less, or sample it in float32"
        )
    return x
