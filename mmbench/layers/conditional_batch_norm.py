"""Batch normalisation whose scale and shift follow from a condition."""

from collections.abc import Callable

from torch import Tensor, nn


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation, scaled by one plus a linear function of the condition and shifted by another.

    De Vries et al., https://arxiv.org/abs/1707.00683; here as BigGAN has it.

    Args:
        channels: of the features.
        condition_dim: size of the condition.
        linear: makes a linear layer as `nn.Linear` does.
        bias: of both linear layers.
    """

    def __init__(self, channels: int, condition_dim: int, linear: Callable[..., nn.Module], bias: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale, self.shift = (linear(condition_dim, channels, bias=bias) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, C, H, W) and (N, condition_dim) to (N, C, H, W)."""
        return self.norm(x) * (1 + self.scale(condition))[..., None, None] + self.shift(condition)[..., None, None]
