"""Schedules: how much noise an image holds at each step, and which steps a sampler takes.

A step is an index into a schedule, 0 the least noisy. x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise, where abar is
`alphas_cumprod`. Everything is computed in float64 and becomes float32 where it is gathered for a batch.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

LEAST_BETA, GREATEST_BETA = 1e-4, 0.02  # of 1000 steps (Ho et al., DDPM, section 4)


@dataclass(frozen=True, eq=False)
class Schedule:
    """The noise levels of T steps.

    Attributes:
        alphas_cumprod: (T,) float64 in [0, 1], each less than the one before.
        timesteps: (T,) what the network is told at each step: where steps were left out, the numbers of those kept.
        final_alpha_cumprod: the level that the step 0 leads to; 1 is no noise at all.

    Raises:
        ValueError: the levels do not fall, or are not as many as the timesteps.
    """

    alphas_cumprod: Tensor
    timesteps: Tensor
    final_alpha_cumprod: float = 1.0

    def __post_init__(self) -> None:
        levels = torch.cat([torch.tensor([self.final_alpha_cumprod], dtype=torch.float64), self.alphas_cumprod])
        if not (len(levels) > 1 and levels[0] <= 1 and levels[-1] >= 0 and bool((levels.diff() < 0).all())):
            raise ValueError(
                f"expected levels alphas_cumprod that fall from 1 to 0, found {_abridged(levels.tolist())}: take betas "
                "from 0 to 1, and steps that differ"
            )
        if self.timesteps.shape != self.alphas_cumprod.shape:
            raise ValueError(
                f"expected a timestep for each of {len(self.alphas_cumprod)} levels, found {len(self.timesteps)}: "
                "give one for each"
            )

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    @cached_property
    def alphas_cumprod_previous(self) -> Tensor:
        """(T,) the level that each step leads to."""
        return torch.cat([self.alphas_cumprod.new_tensor([self.final_alpha_cumprod]), self.alphas_cumprod[:-1]])

    @cached_property
    def betas(self) -> Tensor:
        """(T,) variance of the noise that each step adds in the forward process."""
        return 1 - self.alphas_cumprod / self.alphas_cumprod_previous

    @cached_property
    def sqrt_alphas_cumprod(self) -> Tensor:
        """(T,) weight of x_0 in x_t."""
        return self.alphas_cumprod.sqrt()

    @cached_property
    def sqrt_one_minus_alphas_cumprod(self) -> Tensor:
        """(T,) weight of the noise in x_t."""
        return (1 - self.alphas_cumprod).sqrt()

    @cached_property
    def sigmas(self) -> Tensor:
        """(T,) standard deviation of the noise beside an x_0 of weight 1."""
        return (1 / self.alphas_cumprod - 1).sqrt()

    @cached_property
    def log_snr(self) -> Tensor:
        """(T,) logarithm of the signal's variance over the noise's."""
        return torch.log(self.alphas_cumprod) - torch.log1p(-self.alphas_cumprod)

    @cached_property
    def posterior_variance(self) -> Tensor:
        """(T,) of q(x_(t-1) | x_t, x_0); 0 at step 0 where that leads to no noise at all."""
        return self.betas * (1 - self.alphas_cumprod_previous) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_log_variance_clipped(self) -> Tensor:
        """(T,) logarithm of `posterior_variance`; at step 0, where that is of 0, the one of step 1."""
        variance = self.posterior_variance
        # A schedule of one step has none after it, and uses none.
        least = variance[1] if len(self) > 1 else self.betas[0]
        return torch.where(variance > 0, variance, least).log()

    @cached_property
    def large_log_variance(self) -> Tensor:
        """(T,) logarithm of the betas, the other fixed variance of DDPM; at step 0 as the posterior's of step 1."""
        return torch.cat([self.posterior_log_variance_clipped[:1], self.betas[1:].log()])

    @cached_property
    def posterior_mean_coef1(self) -> Tensor:
        """(T,) weight of x_0 in the mean of q(x_(t-1) | x_t, x_0)."""
        return self.betas * self.alphas_cumprod_previous.sqrt() / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_mean_coef2(self) -> Tensor:
        """(T,) weight of x_t in that mean."""
        return (1 - self.alphas_cumprod_previous) * (1 - self.betas).sqrt() / (1 - self.alphas_cumprod)

    def noised(self, clean: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """x_t of q(x_t | x_0): (N, ...) from x_0 (N, ...), steps (N,) and standard normal noise (N, ...)."""
        signal = gathered(self.sqrt_alphas_cumprod, step, clean)
        return signal * clean + gathered(self.sqrt_one_minus_alphas_cumprod, step, clean) * noise

    def posterior_mean(self, denoised: Tensor, x: Tensor, step: Tensor) -> Tensor:
        """Mean of q(x_(t-1) | x_t, x_0): (N, ...) from x_0, x_t (N, ...) and steps (N,)."""
        first, second = self.posterior_mean_coef1, self.posterior_mean_coef2
        return gathered(first, step, x) * denoised + gathered(second, step, x) * x

    def drawn(self, uniform: Tensor) -> Tensor:
        """Steps (N,) int64, all equally likely, of numbers (N,) that are uniform in [0, 1)."""
        return (uniform * len(self)).long()


def gathered(values: Tensor, step: Tensor, like: Tensor) -> Tensor:
    """Values (T,) of the schedule at steps (N,): (N, 1, ...) to multiply `like` (N, ...) with, on its device.

    In float32, or in float64 where `like` is.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    return values.to(like.device, dtype)[step].reshape(-1, *[1] * (like.dim() - 1))


def from_betas(betas: Tensor) -> Schedule:
    """The schedule of betas (T,) float64 in (0, 1]."""
    return Schedule(torch.cumprod(1 - betas, 0), torch.arange(len(betas)))


def linear(num_steps: int, start: float = LEAST_BETA, end: float = GREATEST_BETA) -> Schedule:
    """Betas that grow evenly (DDPM, ADM); `start` and `end` are for 1000 steps and grow as steps become fewer."""
    return from_betas(_line(num_steps, start * 1000 / num_steps, end * 1000 / num_steps))


def scaled_linear(num_steps: int, start: float, end: float) -> Schedule:
    """Betas whose square roots grow evenly, from `start` to `end`; LDM calls this "linear"."""
    return from_betas(_line(num_steps, start**0.5, end**0.5).square())


def square_root(num_steps: int, start: float, end: float) -> Schedule:
    """Betas that are the square roots of numbers which grow evenly, from `start` to `end` (LDM)."""
    return from_betas(_line(num_steps, start, end).sqrt())


def sigmoid(num_steps: int, start: float, end: float) -> Schedule:
    """Betas that rise from about `start` to about `end` as a sigmoid does from -6 to 6 (DALL-E 2)."""
    return from_betas(_line(num_steps, -6, 6).sigmoid() * (end - start) + start)


def reciprocal(num_steps: int) -> Schedule:
    """Betas 1/T, 1/(T - 1), ..., 1, after which abar has fallen evenly to 0 (Sohl-Dickstein et al.)."""
    return from_betas(1 / torch.arange(num_steps, 0, -1, dtype=torch.float64))


def cosine(num_steps: int) -> Schedule:
    """abar_t = cos^2 of a quarter turn, betas at most 0.999 (Nichol and Dhariwal, equation 17)."""
    at = _line(num_steps + 1, 0, 1)
    levels = torch.cos((at + 0.008) / 1.008 * math.pi / 2).square()
    return from_betas((1 - levels[1:] / levels[:-1]).clamp(max=0.999))


def _line(count: int, start: float, end: float) -> Tensor:
    return torch.linspace(start, end, count, dtype=torch.float64)


def kept(schedule: Schedule, steps: Sequence[int]) -> Schedule:
    """The schedule of some of its steps, in growing order; levels and timesteps stay theirs.

    Raises:
        ValueError: a step that it has not.
    """
    if steps and not 0 <= min(steps) <= max(steps) < len(schedule):
        raise ValueError(
            f"expected steps from 0 to {len(schedule) - 1}, found {_abridged(steps)}: take fewer or other steps"
        )
    index = torch.tensor(steps, dtype=torch.int64)
    return Schedule(schedule.alphas_cumprod[index], schedule.timesteps[index], schedule.final_alpha_cumprod)


def respaced(schedule: Schedule, spec: str | int) -> Schedule:
    """Fewer steps, as improved diffusion and ADM choose them.

    Args:
        spec: "250" for so many, the first and the last among them; "10,10,8" for so many in each of three equal parts;
            "ddim25" for 25 at an even distance from 0 on, the last of which is mostly not T - 1.

    Raises:
        ValueError: more steps than the schedule, or a part of it, has; no even distance gives so many; another text.
    """
    found = re.fullmatch(r"(ddim)?(\d+(?:,\d+)*)", str(spec))
    counts = [int(count) for count in found[2].split(",")] if found else []
    if not found or 0 in counts or (found[1] and len(counts) > 1):
        raise ValueError(f"expected a number of steps as 250, ddim25 or 10,10,8, found {spec!r}: correct it")
    if found[1]:
        return kept(schedule, _strided(len(schedule), counts[0]))
    return kept(schedule, _sections(len(schedule), counts))


def _strided(total: int, count: int) -> range:
    _require_steps(total, count)
    strides = (range(0, total, stride) for stride in range(1, total + 1))
    if steps := next((steps for steps in strides if len(steps) == count), None):
        return steps
    raise ValueError(
        f"expected a number of steps that an even distance divides {total} into, found ddim{count}: take another"
    )


def _sections(total: int, counts: Sequence[int]) -> list[int]:
    size, longer = divmod(total, len(counts))
    steps, start = [], 0
    for place, count in enumerate(counts):
        length = size + (place < longer)
        _require_steps(length, count)
        distance = (length - 1) / (count - 1) if count > 1 else 1.0
        at = 0.0
        for _ in range(count):  # summed, not multiplied: which of two numbers a half is rounded to hangs on it
            steps.append(start + round(at))
            at += distance
        start += length
    return steps


def evenly_spaced(schedule: Schedule, num_steps: int) -> Schedule:
    """Steps 1, 1 + T // num_steps, ...: LDM's uniform ones for DDIM and PLMS.

    They end at the level of the schedule's step 0, so that a little noise remains. Where `num_steps` does not divide T
    there are more than that.

    Raises:
        ValueError: more steps than the schedule has, or a distance that leads one beyond its end.
    """
    _require_steps(len(schedule), num_steps)
    return _shifted(schedule, list(range(0, len(schedule), len(schedule) // num_steps)))


def quadratically_spaced(schedule: Schedule, num_steps: int) -> Schedule:
    """Steps whose square roots have even distances up to 0.8 T, and 1 added: LDM's quadratic ones for DDIM.

    Raises:
        ValueError: more steps than the schedule has, or so many that two are the same.
    """
    _require_steps(len(schedule), num_steps)
    return _shifted(schedule, _line(num_steps, 0, (0.8 * len(schedule)) ** 0.5).square().long().tolist())


def _shifted(schedule: Schedule, steps: list[int]) -> Schedule:
    """LDM's `make_ddim_timesteps` adds 1 "to get the final alpha values right", and ends at the first one.

    https://github.com/CompVis/latent-diffusion/blob/a506df5756472e2ebaf9078affdde2c4f1502cd4/ldm/modules/diffusionmodules/util.py#L46
    """
    found = kept(schedule, [step + 1 for step in steps])
    return Schedule(found.alphas_cumprod, found.timesteps, float(schedule.alphas_cumprod[0]))


def _require_steps(total: int, count: int) -> None:
    if not 1 <= count <= total:
        raise ValueError(f"expected from 1 to {total} steps, as many as there are, found {count}: take fewer")


def _abridged(values: Sequence[float]) -> str:
    texts = [f"{value:.6g}" for value in values]
    return ", ".join(texts if len(texts) < 7 else [*texts[:3], "...", *texts[-3:]])
