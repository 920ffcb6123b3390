"""Transformer branches whose output is scaled by a small learned vector before it is added (LayerScale).

Touvron et al., Going deeper with image transformers, ICCV 2021, https://arxiv.org/abs/2103.17239; with gated
feed-forward parts (Shazeer, GLU variants improve transformer, https://arxiv.org/abs/2002.05202), as
https://github.com/lucidrains/DALLE-pytorch/tree/58c1e1a, dalle_pytorch/transformer.py.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmbench.layers.cached_attention import KeyValueCache
from mmbench.layers.token_shift import History, TokenShift

Rotation = Callable[[Tensor], Tensor]


class ScaledBranch(nn.Module):
    """x + scale * f(LN(x)), of x (N, L, D).

    Args:
        dim: D.
        function: f, of (N, L, D) and whatever `forward` is given beside x.
        layer: its number from 1: the deeper, the smaller the scale starts.
        sandwiched: whether f is followed by a second normalisation.
        shift: what f sees of the tokens before; None: nothing.
    """

    def __init__(
        self, dim: int, function: nn.Module, layer: int, sandwiched: bool = False, shift: TokenShift | None = None
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.shift = shift
        self.function = function
        self.norm_after = nn.LayerNorm(dim) if sandwiched else nn.Identity()
        self.scale = nn.Parameter(torch.full((dim,), first_scale(layer)))

    def forward(self, x: Tensor, history: History | None = None, **given: Any) -> Tensor:
        """(N, L, D) to the same shape; `history` is what a shift sees of tokens before the first of x."""
        normed = self.norm(x)
        if self.shift is not None:
            normed = self.shift(normed, history)
        return x + self.scale * self.norm_after(self.function(normed, **given))


def first_scale(layer: int) -> float:
    """What a branch of a layer, numbered from 1, is scaled by before it has learned anything."""
    if layer <= 18:
        return 0.1
    return 1e-5 if layer <= 24 else 1e-6


class GatedFeedForward(nn.Module):
    """Two linear maps, of which the first gives values and gates: (N, L, D) to (N, L, D).

    Args:
        dim: D.
        factor: how many times as wide as x the gated values are.
    """

    def __init__(self, dim: int, factor: int = 4) -> None:
        super().__init__()
        self.widen = nn.Linear(dim, 2 * factor * dim)
        self.narrow = nn.Linear(factor * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        values, gates = self.widen(x).chunk(2, dim=-1)
        return self.narrow(values * F.gelu(gates))


class HeadedAttention(nn.Module):
    """Self-attention whose heads are of any width: (N, L, D) to (N, L, D).

    Args:
        dim: D.
        num_heads: how many.
        head_dim: width of each.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=False)
        self.out = nn.Linear(num_heads * head_dim, dim)

    def forward(
        self,
        x: Tensor,
        allowed: Tensor | None = None,
        rotation: Rotation | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Each token attends to all, or to those that it may.

        Args:
            x: (N, L, D).
            allowed: bool, broadcast to (N, heads, L, keys): True where a token may look. None: everywhere.
            rotation: of queries, keys and values alike, (N, heads, L, head_dim), by their positions.
            cache: holds keys and values of the tokens before, and is extended by those of x.
        """
        query, key, value = rearrange(self.qkv(x), "n l (part h d) -> part n h l d", part=3, h=self.num_heads)
        if rotation is not None:
            query, key, value = rotation(query), rotation(key), rotation(value)
        if cache is not None:
            key, value = cache.extended(key, value)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        return self.out(rearrange(attended, "n h l d -> n l (h d)"))


class ScaledBlock(nn.Module):
    """Attention and a feed-forward part, each a branch: (N, L, D) to (N, L, D).

    Args:
        dim: D.
        num_heads, head_dim: as of `HeadedAttention`.
        layer: as of `ScaledBranch`.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, layer: int) -> None:
        super().__init__()
        self.attention = ScaledBranch(dim, HeadedAttention(dim, num_heads, head_dim), layer)
        self.feed_forward = ScaledBranch(dim, GatedFeedForward(dim), layer)

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        return self.feed_forward(self.attention(x, allowed=allowed))


class Memory(NamedTuple):
    """What decoding keeps of the tokens so far, for each layer.

    Attributes:
        attention: keys and values.
        shifts: what the token shift of attention and that of the feed-forward part have seen.
    """

    attention: list[KeyValueCache]
    shifts: list[tuple[History, History]]

    @classmethod
    def empty(cls, depth: int, length: int) -> "Memory":
        """Of no token yet, for so many layers, with room for so many tokens."""
        return cls([KeyValueCache(length) for _ in range(depth)], [(History(), History()) for _ in range(depth)])

    @property
    def size(self) -> int:
        """How many tokens it knows."""
        return self.attention[0].size
