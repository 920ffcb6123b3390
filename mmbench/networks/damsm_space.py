"""The space of a trained DAMSM, in which a sentence can be compared with a whole image."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mmbench.core.images import from_uint8
from mmbench.core.pickles import read_captions
from mmbench.core.text import padded
from mmbench.core.weights import load_strictly, read_state
from mmbench.networks.damsm import IMAGE_ENCODER, TEXT_ENCODER, ImageEncoder, TextEncoder


class DAMSMSpace(nn.Module):
    """Images (N, 3, H, W) uint8, or N texts, to `embedding` (N, D), not of unit length.

    An image is resized by the trunk, from [-1, 1]; a text keeps its known words. Source: AttnGAN's `CNN_ENCODER` and
    `RNN_ENCODER`, their global outputs (see `mmbench.networks.damsm`).

    Args:
        trunk: of the image encoder, of the size of the published weights.
        embedding_dim: D.
        token_dim: width of the word embedding.
        max_words: texts longer than this keep so many of their words, in order.
    """

    def __init__(self, trunk: nn.Module, embedding_dim: int, token_dim: int, max_words: int) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder(trunk, embedding_dim)
        self.embedding_dim = embedding_dim
        self.token_dim = token_dim
        self.max_words = max_words

    def load(self, paths: Mapping[str, Path]) -> None:
        """Reads the authors' `vocabulary` (captions.pickle), and fills `text_encoder` and `image_encoder`.

        Raises:
            ValueError: a file holds something else, or encoder and vocabulary have different numbers of words.
        """
        self.vocabulary = read_captions(paths["vocabulary"]).vocabulary
        self.text_encoder = TextEncoder(len(self.vocabulary), self.embedding_dim, self.token_dim)
        for network, keys, part in (
            (self.text_encoder, TEXT_ENCODER, "text_encoder"),
            (self.image_encoder, IMAGE_ENCODER, "image_encoder"),
        ):
            load_strictly(network, keys(read_state(paths[part]), network), str(paths[part]))

    def forward(self, source: Tensor | list[str]) -> dict[str, Tensor]:
        """Raises ValueError if a text has no known word."""
        if isinstance(source, Tensor):
            return {"embedding": self.image_encoder(from_uint8(source)).code}
        tokens, lengths = padded([self.vocabulary.encode(text, self.max_words) for text in source])
        rows = zip(tokens.to(self.text_encoder.embedding.weight.device).split(1), lengths.split(1), strict=True)
        # Each text by itself: an LSTM's steps, and their rounding, depend on the texts beside it.
        return {"embedding": torch.cat([self.text_encoder(*row).sentence for row in rows])}
