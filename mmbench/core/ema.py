"""The average over training of a network's parameters, which is what makes images at evaluation."""

import copy
from typing import Any, Self

import torch
from torch import nn


class EMA(nn.Module):
    """Exponential moving average of a network: parameters are averaged, buffers are the latest.

    Starts as a copy of the network. Saved and moved with its owner, but never trained: its parameters take no gradient
    and it stays in evaluation mode. Call it as the network itself is called.

    Args:
        network: what to average.
        decay: weight of the past at every update; AttnGAN and its descendants take 0.999.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.train(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """average = decay * average + (1 - decay) * network. Call after each step of the network's optimiser."""
        for average, latest in zip(self.average.parameters(), network.parameters(), strict=True):
            average.lerp_(latest, 1 - self.decay)
        for buffer, latest_buffer in zip(self.average.buffers(), network.buffers(), strict=True):
            buffer.copy_(latest_buffer)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.average(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        return super().train(False)
