"""How a network is told the time."""

import math

import torch
from torch import Tensor


def sinusoids(timesteps: Tensor, dim: int) -> Tensor:
    """Cosines and then sines of times at frequencies from 1 down to almost 1 / 10000, as guided-diffusion has them.

    Transformer positions (https://arxiv.org/abs/1706.03762, section 3.5) with the halves in the other order.

    Args:
        timesteps: (N,) of any kind of number; they need not be whole.
        dim: D, even.

    Returns:
        (N, D) float32 (float64, where that is what computing is done in), in [-1, 1].
    """
    places = torch.arange(dim // 2, device=timesteps.device, dtype=torch.get_default_dtype())
    angles = timesteps.to(places)[:, None] * torch.exp(-math.log(10000) * places / (dim // 2))  # (N, D / 2)
    return torch.cat((angles.cos(), angles.sin()), dim=1)
