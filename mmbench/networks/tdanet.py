"""TDANet's encoder, which compares a text with what is known of a picture, and its generator.

Lisai Zhang, Qingcai Chen, Baotian Hu, Shuoran Jiang. Text-Guided Neural Image Inpainting. ACM MM 2020.
https://arxiv.org/abs/2004.03212. Authors' code, model/network.py, classes AttTextualResEncoder and HiddenResGenerator:
https://github.com/idealwhite/tdanet/tree/b3ea9c4. Their blocks are PICNet's, in `mmbench.networks.pluralistic`.

`keep` is (N, 1, H, W), 1 = known and 0 = hole, as the authors have it.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from einops import repeat
from torch import Tensor, einsum, nn

from mmbench.core.weights import KeyMap
from mmbench.layers.spectral_norm import SpectralConv2d
from mmbench.networks.damsm import EncodedText
from mmbench.networks.pluralistic import (
    DECODER_NAMES,
    DROPPED,
    TRUNK_NAMES,
    Convolution,
    Decoder,
    Gaussian,
    GaussianHead,
    ResidualBlock,
    Trunk,
    block_names,
    initialise_plain,
    resized,
)

ROUNDING = 1e-4  # of a resized mask; the least share of a known pixel beside a hole is larger


class TextAttention(nn.Module):
    """Every position of an image attends to the words: to those that it shows, or to those that it does not.

    Args:
        channels: of the image's features.
        embedding_dim: D of the words.
    """

    def __init__(self, channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, embedding_dim, kernel_size=1, bias=False)
        initialise_plain(self.project)

    def forward(self, features: Tensor, words: Tensor, word_mask: Tensor, used: Tensor, inverse: bool) -> Tensor:
        """Attention (N, L, h, w), which sums to 1 over the words at positions that are used, and is 0 elsewhere.

        Args:
            features: (N, C, h, w).
            words: (N, L, D).
            word_mask: (N, 1 or h*w, L) bool, True at words. The authors tile theirs the wrong way round, so that a
                caption's padding masks another's words; one mask for all positions is their result for a batch of one.
                https://github.com/idealwhite/tdanet/blob/b3ea9c44c2f9a66d6b9767ae78ca8b553bda77b2/model/base_function.py#L472
            used: (N, 1, h, w) bool.
            inverse: the less a position shows a word, the more it attends to it.
        """
        height, width = features.shape[-2:]
        scores = einsum("ndhw, nld -> nhwl", self.project(features), words).flatten(1, 2)  # (N, h*w, L)
        scores = (-scores if inverse else scores).masked_fill(~word_mask, float("-inf"))
        return scores.softmax(dim=-1).mT.unflatten(2, (height, width)) * used


def word_context(attention: Tensor, words: Tensor) -> Tensor:
    """What positions make of the words, by attention (N, L, h, w) to words (N, L, D): (N, D, h, w)."""
    return einsum("nlhw, nld -> ndhw", attention, words)


class Encoded(NamedTuple):
    """What is known of a picture, and the text, at test time.

    Attributes:
        prior: of the latent variables (N, latent_dim, h, w).
        hidden: (N, C + 2 D, h, w): the known region's features, the sentence and the context of its words.
        features: of the known region alone, at every height.
        attention: (N, L, h, w), to the words that the known region does not show.
    """

    prior: Gaussian
    hidden: Tensor
    features: list[Tensor]
    attention: Tensor


class BothEncoded(NamedTuple):
    """What training is given: what is known, and what is hidden.

    Attributes:
        known: as at test time.
        posterior: of the latent variables, from the hidden region.
        hidden: as that of `known`, with the context of the words that the hidden region shows.
    """

    known: Encoded
    posterior: Gaussian
    hidden: Tensor


class Encoder(nn.Module):
    """Known pixels and a text to a distribution of what is missing (dual multimodal attention).

    Args:
        widths: channels of the features, from high to low, as of `Trunk`.
        embedding_dim: D of the text.
        latent_dim: channels of the latent variables.
        num_refining: residual blocks that only the known region's last features pass.
    """

    convolution: ClassVar[Convolution] = SpectralConv2d  # what makes the trunk's; a variation is a subclass

    def __init__(self, widths: Sequence[int], embedding_dim: int, latent_dim: int, num_refining: int) -> None:
        super().__init__()
        last = widths[-1]
        self.hidden_channels = last + 2 * embedding_dim
        self.trunk = Trunk(widths, self.convolution)
        self.attention = TextAttention(last, embedding_dim)
        self.refine = nn.Sequential(*(ResidualBlock(last, last, last) for _ in range(num_refining)))
        self.posterior = GaussianHead(self.hidden_channels, latent_dim, hidden=2 * last)
        self.prior = GaussianHead(self.hidden_channels, latent_dim, hidden=2 * last)

    def forward(self, image: Tensor, keep: Tensor, text: EncodedText) -> Encoded:
        """Encodes images (N, 3, H, W), of which nothing in the hole is looked at."""
        return self._known(self.features(image, keep), keep, text)

    def both(self, image: Tensor, keep: Tensor, text: EncodedText) -> BothEncoded:
        """Encodes whole images (N, 3, H, W): the known region and the hidden one pass the trunk as one batch."""
        pairs = [
            features.chunk(2) for features in self.features(torch.cat((image, image)), torch.cat((keep, 1 - keep)))
        ]
        known = self._known([features for features, _ in pairs], keep, text)
        last = pairs[-1][1]
        used = _whole(1 - keep, last)
        context = self._context(self.attention(last, text.words, text.word_mask[:, None], used, inverse=False), text)
        posterior = self.posterior(torch.cat((last, over(text.sentence, last), context), dim=1))
        return BothEncoded(known, posterior, self._with(known.hidden, context))

    def features(self, image: Tensor, keep: Tensor) -> list[Tensor]:
        """Features of the known pixels of images."""
        return self.trunk(image * keep)

    def _known(self, features: list[Tensor], keep: Tensor, text: EncodedText) -> Encoded:
        last = features[-1]
        attention = self.attention(last, text.words, text.word_mask[:, None], _whole(keep, last), inverse=True)
        hidden = torch.cat((self.refine(last), over(text.sentence, last), self._context(attention, text)), dim=1)
        return Encoded(self.prior(hidden), hidden, features, attention)

    def _context(self, attention: Tensor, text: EncodedText) -> Tensor:
        """The largest that any position makes of the words, (N, D), at every position; unused ones make 0."""
        largest = word_context(attention, text.words).flatten(2).max(dim=-1).values
        return over(largest, attention)

    def _with(self, hidden: Tensor, context: Tensor) -> Tensor:
        """Hidden features with another context of words."""
        return torch.cat((hidden[:, : -context.shape[1]], context), dim=1)


def over(vector: Tensor, like: Tensor) -> Tensor:
    """(N, D) at every position of (N, C, h, w): (N, D, h, w)."""
    return repeat(vector, "n d -> n d h w", h=like.shape[-2], w=like.shape[-1])


def _whole(part: Tensor, features: Tensor) -> Tensor:
    """Which positions of features lie in a part of the image altogether: (N, 1, h, w) bool.

    The authors ask for exactly 1, which all pixels of the part together miss by rounding at some sizes; at theirs they
    do not.
    """
    return resized(part, features.shape[-2:]) > 1 - ROUNDING


class Generator(nn.Module):
    """Latent variables and hidden features to images of several sizes.

    Args:
        hidden_channels: of the encoder's hidden features.
        latent_dim: channels of the latent variables.
        width, max_width, depth, num_images: as `Decoder`.
    """

    def __init__(
        self, hidden_channels: int, latent_dim: int, width: int, max_width: int, depth: int, num_images: int = 4
    ) -> None:
        super().__init__()
        self.decoder = Decoder(width, max_width, depth, num_images)
        channels = self.decoder.channels
        self.from_latent = ResidualBlock(latent_dim, channels, hidden=channels)
        self.from_hidden = ResidualBlock(hidden_channels, channels, hidden=channels)

    def forward(self, z: Tensor, hidden: Tensor, encoded: Tensor, keep: Tensor) -> list[Tensor]:
        """Images (N, 3, s, s') in [-1, 1], from small to full.

        Args:
            z: (N, latent_dim, h, w).
            hidden: (N, hidden_channels, h, w).
            encoded, keep: as of `Decoder`.
        """
        return self.decoder(self.from_latent(z) + self.from_hidden(hidden), encoded, keep)


ENCODER = KeyMap(
    rename={
        **TRUNK_NAMES,
        r"word_attention\.conv_image\.weight": "attention.project.weight",
        **block_names(
            {f"infer_prior{n}": f"refine.{n}" for n in range(6)} | {"posterior": "posterior", "prior": "prior"}
        ),
    },
    drop=DROPPED,
)

GENERATOR = KeyMap(
    rename={**block_names({"generator": "from_latent", "f_transformer": "from_hidden"}), **DECODER_NAMES},
    drop=DROPPED,
)
