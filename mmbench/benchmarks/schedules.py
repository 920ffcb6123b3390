"""What the authors' schedules are written with: optimisers, losses of probabilities, averages, and their base.

Some schedules have a file of their own, `schedules_<method>.py`; the others are in `training.py`, which measures all.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from mmbench.core.method import Batch
from mmbench.layers.upsampling import UpsamplingConvolution

Losses = dict[str, Tensor]


def adam(method: Any, name: str, *networks: nn.Module) -> Adam:
    """The optimiser that the method has for its submodule `name`, for some networks and not fused."""
    options = {**method.partials[name].keywords, "fused": None}
    parameters = [parameter for network in networks for parameter in network.parameters() if parameter.requires_grad]
    return Adam(parameters, **options)


def is_real(probability: Tensor) -> Tensor:
    return F.binary_cross_entropy(probability, torch.ones_like(probability))


def is_fake(probability: Tensor) -> Tensor:
    return F.binary_cross_entropy(probability, torch.zeros_like(probability))


def near(logits: Tensor, target: float) -> Tensor:
    return F.mse_loss(logits, torch.full_like(logits, target))


class Theirs:
    """The authors' schedule of a method's training on its own networks.

    Args:
        method: whose networks are trained.
    """

    def __init__(self, method: Any) -> None:
        self.method = method
        for module in method.modules():
            if isinstance(module, UpsamplingConvolution):
                module.forward = partial(upsampled_then_convolved, module)  # type: ignore[method-assign]

    def step(self, batch: Batch) -> Losses:
        """Trains on a batch; terms are named as ours are logged."""
        raise NotImplementedError


def upsampled_then_convolved(layer: UpsamplingConvolution, x: Tensor) -> Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), layer.weight, layer.bias, padding=1)


def averaged(average: Sequence[Tensor], network: nn.Module, decay: float) -> None:
    for kept, latest in zip(average, network.parameters(), strict=True):
        kept.mul_(decay).add_(latest.data, alpha=1 - decay)
