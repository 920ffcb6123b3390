"""Attention over the words of a caption: by image positions and by feature channels.

Masks are True at words and False at padding. They are (N, 1, L), one caption per sample, or (N, H*W, L), one mask for
every position.
"""

from einops import rearrange
from torch import Tensor, einsum, nn


class SpatialAttention(nn.Module):
    """Every position of an image attends to the words (AttnGAN, https://arxiv.org/abs/1711.10485, equation 2).

    The score of a position and a word is the plain inner product of the hidden features with the projected word.
    """

    def __init__(self, channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(embedding_dim, channels, bias=False)

    def forward(self, hidden: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Word context of every position.

        Args:
            hidden: (N, C, H, W).
            words: (N, L, D).
            word_mask: (N, 1 or H*W, L) bool.

        Returns:
            Context (N, C, H, W), and attention (N, L, H, W), which sums to 1 over L.
        """
        height, width = hidden.shape[-2:]
        words = self.project(words)  # (N, L, C)
        scores = einsum("nchw, nlc -> nhwl", hidden, words).flatten(1, 2)  # (N, H*W, L)
        attention = scores.masked_fill(~word_mask, float("-inf")).softmax(dim=-1)
        attention = rearrange(attention, "n (h w) l -> n l h w", h=height, w=width)
        return einsum("nlhw, nlc -> nchw", attention, words), attention


class ChannelAttention(nn.Module):
    """Every channel of the word context attends to the words (ControlGAN, https://arxiv.org/abs/1909.07083).

    Words are projected to the image's positions, so a network with this block works at one image size only.
    """

    def __init__(self, num_positions: int, embedding_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(embedding_dim, num_positions, bias=False)

    def forward(self, context: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Word context of every channel.

        Args:
            context: (N, C, H, W) with H*W = num_positions.
            words: (N, L, D).
            word_mask: (N, 1, L) bool. The released code masks nothing here, so that an image changes with the longest
                caption of its batch; a mask without padding gives its numbers.
                https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/attention.py#L128

        Returns:
            (N, C, H, W), and attention (N, L, C), which sums to 1 over L.
        """
        height, width = context.shape[-2:]
        words = self.project(words)  # (N, L, H*W)
        scores = context.flatten(2) @ words.mT  # (N, C, L)
        attention = scores.masked_fill(~word_mask, float("-inf")).softmax(dim=-1)
        return rearrange(attention @ words, "n c (h w) -> n c h w", h=height, w=width), attention.mT


def linear_from_convolution(weight: Tensor) -> Tensor:
    """The weight of a linear layer that does what a 1x1 convolution does, by which authors project words.

    (out, in, 1, 1) to (out, in).
    """
    return weight.flatten(1)
