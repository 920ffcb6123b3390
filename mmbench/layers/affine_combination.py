"""Affine combination of hidden features with image features (ManiGAN, https://arxiv.org/abs/1912.06203, equation 1)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.layers.convolution import conv3x3


class Combined(NamedTuple):
    """What goes into an affine combination: h, W(v) and b(v), each (N, channels, H, W)."""

    hidden: Tensor
    scale: Tensor
    shift: Tensor

    @property
    def scaled(self) -> Tensor:
        """h * W(v)."""
        return self.hidden * self.scale

    @property
    def result(self) -> Tensor:
        """h'."""
        return self.scaled + self.shift


class AffineCombination(nn.Module):
    """h' = h * W(v) + b(v): image features v scale and shift hidden features h at every position.

    W and b are linear in v (two convolutions each, of which they share the first): no bias, no activation, no
    normalisation, and the scale is W, not 1 + W.

    Args:
        channels: channels of h.
        image_channels: channels of v.
        shared_channels: width between the two convolutions.
    """

    def __init__(self, channels: int, image_channels: int, shared_channels: int = 128) -> None:
        super().__init__()
        self.shared = conv3x3(image_channels, shared_channels)
        self.scale = conv3x3(shared_channels, channels)
        self.shift = conv3x3(shared_channels, channels)

    def forward(self, hidden: Tensor, image_features: Tensor) -> Tensor:
        """(N, channels, H, W) and (N, image_channels, H, W) to (N, channels, H, W)."""
        return self.combined(hidden, image_features).result

    def combined(self, hidden: Tensor, image_features: Tensor) -> Combined:
        """As `forward`, before it is summed up."""
        # One convolution for both: they read the same features, which is the costly part.
        weight = torch.cat((self.scale.weight, self.shift.weight))
        scale, shift = F.conv2d(self.shared(image_features), weight, padding=1).chunk(2, dim=1)
        return Combined(hidden, scale, shift)


@contextmanager
def watched(network: nn.Module) -> Iterator[dict[str, Combined]]:
    """What every affine combination of a network computes while it runs: by its name there, in the order of running.

    Each is computed a second time, so that nothing is kept of a network that nobody watches.
    """
    found: dict[str, Combined] = {}

    def watch(name: str, one: AffineCombination) -> torch.utils.hooks.RemovableHandle:
        def keep(_: nn.Module, given: tuple[Tensor, Tensor]) -> None:
            found[name] = one.combined(*given)

        return one.register_forward_pre_hook(keep)

    named = network.named_modules()
    handles = [watch(name, one) for name, one in named if isinstance(one, AffineCombination)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
