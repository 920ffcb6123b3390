"""Self-attention over image positions, as BigGAN and its descendants have it.

Han Zhang, Ian Goodfellow, Dimitris Metaxas, Augustus Odena. Self-Attention Generative Adversarial Networks. ICML 2019.
https://arxiv.org/abs/1805.08318, section 3; keys and values are pooled, as in the implementations that are in use.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, einsum, nn


class SelfAttention(nn.Module):
    """Every position attends to the places of pooled features; what it sees is added with a weight, 0 at the start.

    Args:
        channels: of the features, at least 8.
        convolution: makes a convolution as `nn.Conv2d` does.

    Raises:
        ValueError: there are fewer than 8 channels.
    """

    def __init__(self, channels: int, convolution: Callable[..., nn.Module]) -> None:
        super().__init__()
        if channels < 8:
            raise ValueError(
                f"expected at least 8 channels where features attend to themselves, found {channels}: "
                "widen the network, or let smaller features attend"
            )
        self.query, self.key = (convolution(channels, channels // 8, 1, bias=False) for _ in range(2))
        self.value = convolution(channels, channels // 2, 1, bias=False)
        self.project = convolution(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def attention(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) to attention (N, H * W, H * W / 4), which sums to 1 over the last axis."""
        query, key = self.query(x).flatten(2), F.max_pool2d(self.key(x), 2).flatten(2)
        return einsum("ncq, nck -> nqk", query, key).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; H and W are even."""
        value = F.max_pool2d(self.value(x), 2).flatten(2)
        seen = einsum("nck, nqk -> ncq", value, self.attention(x)).unflatten(2, x.shape[2:])
        return x + self.gamma * self.project(seen)
