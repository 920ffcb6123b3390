"""The masks that the authors' attention used in effect, quirks included, in our convention: True at words."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmbench.layers.word_attention import ChannelAttention, SpatialAttention


def from_lengths(lengths: Tensor, num_words: int) -> Tensor:
    """(N,) lengths to a mask (N, num_words)."""
    return torch.arange(num_words) < lengths[:, None]


def spatial(padding: Tensor, num_positions: int) -> Tensor:
    """From (N, L) padding to (N, num_positions, L): row r of the flattened batch has the mask of caption r mod N."""
    return ~padding.repeat(num_positions, 1).unflatten(0, (len(padding), num_positions))


def channel(words: Tensor) -> Tensor:
    """A mask that masks nothing, for words (N, L, D): (N, 1, L)."""
    return torch.ones(len(words), 1, words.shape[1], dtype=torch.bool)


@contextmanager
def as_authors(network: nn.Module, padding: Tensor) -> Iterator[None]:
    """While the block runs, the attention layers within a network are handed the authors' masks instead of ours."""

    def spatial_arguments(module: nn.Module, args: tuple) -> tuple:
        hidden, words, _ = args
        return hidden, words, spatial(padding, hidden[0, 0].numel())

    def channel_arguments(module: nn.Module, args: tuple) -> tuple:
        context, words, _ = args
        return context, words, channel(words)

    handles = []
    for module in network.modules():
        if isinstance(module, SpatialAttention):
            handles.append(module.register_forward_pre_hook(spatial_arguments))
        if isinstance(module, ChannelAttention):
            handles.append(module.register_forward_pre_hook(channel_arguments))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
