"""Guidance: denoisers that lean towards a condition, by a classifier or by the same network without the condition."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from mmbench.diffusion.denoisers import Condition, Denoiser, Network, Prediction
from mmbench.diffusion.schedules import Schedule, gathered

# From x_t (N, C, H, W), timesteps (N,) as networks are told, and the condition: scale times grad log p(y | x_t).
Gradient = Callable[[Tensor, Tensor, Condition], Tensor]


def classifier_free(denoiser: Denoiser, scale: float, unconditional: Condition) -> Denoiser:
    """Classifier-free guidance (Ho and Salimans): unconditional + scale * (conditional - unconditional).

    Scale 1 is no guidance and costs none. Otherwise the network sees one batch of 2N, unconditional half first. A
    variance that it learns is the conditional one's. Estimates are clipped outside, not inside.

    Args:
        denoiser: of noise or x_0, estimates not clipped.
        unconditional: the condition without content, built as the condition is, for as many images.

    Raises:
        ValueError: another scale than 1 where `unconditional` is None.
    """
    if scale == 1:
        return denoiser
    if unconditional is None:
        raise ValueError(
            f"expected an unconditional branch for guidance, found a scale of {scale} without one: take the scale 1, "
            "or a network that was trained with conditions left out"
        )

    def guided(x: Tensor, step: Tensor, condition: Condition) -> Prediction:
        both = tree_map(_doubled, unconditional, condition)
        prediction = denoiser(torch.cat([x, x]), torch.cat([step, step]), both)
        without, given = prediction.denoised.chunk(2)
        variance = None if prediction.log_variance is None else prediction.log_variance.chunk(2)[1]
        return Prediction(without + scale * (given - without), variance)

    return guided


def _doubled(unconditional: Any, condition: Any) -> Any:
    if isinstance(condition, Tensor):
        return torch.cat([unconditional, condition])
    assert condition is None or condition == unconditional, "a setting of both halves must be the same"
    return condition


def classifier(denoiser: Denoiser, schedule: Schedule, gradient: Gradient) -> Denoiser:
    """Classifier guidance for DDIM and other solvers of the same equation (Dhariwal and Nichol, algorithm 2).

    The noise becomes noise - sqrt(1 - abar) gradient, which moves the estimate of x_0 by (1 - abar)/sqrt(abar)
    gradient. Estimates are clipped inside: what guidance moves beyond [-1, 1] stays there, as in the authors' code.

    Args:
        gradient: scale times grad log p(y | x_t), as `log_probability_gradient` gives it.
    """

    def guided(x: Tensor, step: Tensor, condition: Condition) -> Prediction:
        prediction = denoiser(x, step, condition)
        factor = (1 - schedule.alphas_cumprod) / schedule.sqrt_alphas_cumprod
        pull = gradient(x, schedule.timesteps.to(x.device)[step], condition)
        return prediction._replace(denoised=prediction.denoised + gathered(factor, step, x) * pull)

    return guided


def classifier_ancestral(
    denoiser: Denoiser, schedule: Schedule, gradient: Gradient, log_variance: Tensor | None = None
) -> Denoiser:
    """Classifier guidance for `ancestral` (Dhariwal and Nichol, algorithm 1): the mean moves by variance * gradient.

    The gradient is taken at x_t, as in the authors' code, where the paper writes it at the mean.

    Args:
        gradient: as of `classifier`.
        log_variance: (T,) where the network learns none, the same as the sampler's.
    """
    fixed = schedule.posterior_log_variance_clipped if log_variance is None else log_variance

    def guided(x: Tensor, step: Tensor, condition: Condition) -> Prediction:
        prediction = denoiser(x, step, condition)
        spread = gathered(fixed, step, x) if prediction.log_variance is None else prediction.log_variance
        pull = gradient(x, schedule.timesteps.to(x.device)[step], condition)
        moved = spread.exp() * pull / gathered(schedule.posterior_mean_coef1, step, x)
        return prediction._replace(denoised=prediction.denoised + moved)

    return guided


def log_probability_gradient(classify: Network, scale: float) -> Gradient:
    """scale * grad log p(y | x_t) of a classifier that knows noisy images; the condition is y (N,) int64.

    Args:
        classify: gives logits (N, K) of x_t (N, C, H, W), timesteps (N,) and y, which it need not look at.
    """

    def gradient(x: Tensor, timesteps: Tensor, label: Condition) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            image = x.detach().clone().requires_grad_()
            logits = classify(image, timesteps.clone(), label.clone())
            chosen = logits.float().log_softmax(dim=1).gather(1, label.clone()[:, None])
            return torch.autograd.grad(chosen.sum(), image)[0] * scale

    return gradient
