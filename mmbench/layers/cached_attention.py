"""Multi-head self-attention of transformers, and the keys and values that a decoder keeps from token to token.

Ashish Vaswani et al. Attention Is All You Need. NeurIPS 2017. https://arxiv.org/abs/1706.03762, section 3.2.2.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class KeyValueCache:
    """Keys and values of the positions that one layer has seen, in memory that is taken once.

    Attributes:
        size: positions that it holds.

    Args:
        length: positions that there is room for.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.size = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extended(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (N, heads, L, D) of new positions to those of all so far, (N, heads, S, D) each.

        What comes back is a view, which the next call leaves as it is.

        Raises:
            ValueError: there is no room for so many positions.
        """
        if self._keys is None or self._values is None:
            room = (*keys.shape[:2], self.length, keys.shape[3])
            self._keys, self._values = keys.new_empty(room), values.new_empty(room)
        before, self.size = self.size, self.size + keys.shape[2]
        if self.size > self.length:
            raise ValueError(f"expected at most {self.length} tokens, found {self.size}: ask for fewer")
        self._keys[:, :, before : self.size] = keys
        self._values[:, :, before : self.size] = values
        return self._keys[:, :, : self.size], self._values[:, :, : self.size]


def causal(num_queries: int, num_keys: int, num_unmasked: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """Which keys the last of so many positions see: (num_queries, num_keys) bool, those before them and themselves.

    Args:
        num_unmasked: the first positions, which see one another as well.
    """
    place = torch.arange(num_keys, device=device)
    query = place[num_keys - num_queries :, None]
    return (place <= query) | ((place < num_unmasked) & (query < num_unmasked))


class SelfAttention(nn.Module):
    """Every position sees every other.

    Args:
        width: of the features, D.
        num_heads: which share it equally.

    Raises:
        ValueError: they cannot.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"expected a width that {num_heads} heads share, found {width}: choose a multiple")
        self.num_heads = num_heads
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, cache: KeyValueCache | None = None, visible: Tensor | None = None) -> Tensor:
        """(N, L, D) to the same shape.

        Args:
            x: of the positions behind those that the cache holds.
            cache: is extended by them, and they see what it holds.
            visible: (L, S) bool, which of all positions so far each of the L sees; None: as the class says.
        """
        query, key, value = (
            rearrange(part(x), "n l (h d) -> n h l d", h=self.num_heads) for part in (self.query, self.key, self.value)
        )
        if cache is not None:
            key, value = cache.extended(key, value)
        return self.project(rearrange(self.attend(query, key, value, visible), "n h l d -> n l (h d)"))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
        """Queries (N, heads, L, D), keys and values (N, heads, S, D) of all positions to (N, heads, L, D)."""
        return F.scaled_dot_product_attention(query, key, value, visible)


class CausalSelfAttention(SelfAttention):
    """Every position sees those before it and itself."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
        num_queries, num_keys = query.shape[2], key.shape[2]
        if visible is None and num_queries == num_keys:  # no mask is made, and half is left out
            return F.scaled_dot_product_attention(query, key, value, is_causal=True)
        if visible is None and num_queries > 1:
            visible = causal(num_queries, num_keys, device=query.device)
        return super().attend(query, key, value, visible)
