"""Draws of a class from logits by uniform numbers that are given: each row depends on its own number alone."""

import torch
from torch import Tensor


def require_settings(num_classes: int, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0) -> None:
    """Checks how `drawn` is to draw one of `num_classes`.

    Raises:
        ValueError: a setting is out of its range; says which.
    """
    if not temperature > 0:
        raise ValueError(f"expected a temperature above 0, found {temperature}: for the likeliest set top_k to 1")
    if top_k is not None and not 1 <= top_k <= num_classes:
        raise ValueError(f"expected top_k from 1 to {num_classes}, the number of tokens, found {top_k}: change it")
    if not 0 < top_p <= 1:
        raise ValueError(f"expected top_p above 0 and at most 1, found {top_p}: change it")


def probabilities(logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0) -> Tensor:
    """What `drawn` draws from: logits (..., K) to float64 (..., K), which sums to 1.

    Args:
        logits: of the classes; minus infinity is never drawn.
        temperature: that logits are divided by, above 0.
        top_k: so many of the largest are left, and what equals the least of these; None: all.
        top_p: of what is left, the likeliest classes that it takes to reach this share; 1: all. Ari Holtzman et al.,
            The Curious Case of Neural Text Degeneration, ICLR 2020, https://arxiv.org/abs/1904.09751, equation 3.

    Raises:
        ValueError: as `require_settings`.
    """
    require_settings(logits.shape[-1], temperature, top_k, top_p)
    logits = logits.double() / temperature
    if top_k is not None:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], -torch.inf)
    found = logits.softmax(dim=-1)
    if top_p < 1:
        ordered, order = found.sort(dim=-1, descending=True, stable=True)
        enough = ordered.cumsum(dim=-1) - ordered >= top_p  # before this one
        found = found.masked_fill(torch.zeros_like(enough).scatter(-1, order, enough), 0)
        found = found / found.sum(dim=-1, keepdim=True)
    return found


def drawn(
    logits: Tensor, uniform: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """One class for each row of logits (..., K): (...) int64, by the inverse of the distribution function.

    Args:
        logits, temperature, top_k, top_p: as `probabilities`.
        uniform: (...) in [0, 1), one number for each row.

    Raises:
        ValueError: as `require_settings`.
    """
    cumulative = probabilities(logits, temperature, top_k, top_p).cumsum(dim=-1)
    level = uniform.double()[..., None] * cumulative[..., -1:]  # sums to 1 but for rounding
    return torch.searchsorted(cumulative, level, right=True).squeeze(-1)


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel numbers of uniform ones in [0, 1): the largest of logits and these is a draw from the logits."""
    least = torch.finfo(uniform.dtype).tiny
    return -(-uniform.clamp(min=least).log()).log()
