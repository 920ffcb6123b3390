"""Sentence embeddings of a trained DAMSM, for methods that are given captions in no other form."""

from torch import Tensor, nn

from mmbench.core.frozen import Frozen
from mmbench.core.method import Batch


class Sentences(Frozen):
    """A trained DAMSM, of which the sentence embedding is read.

    Args:
        damsm: the trained stage before, with `encode_text` and `embedding_dim`.
        max_words: captions longer than this keep so many of their words.
        scale: what embeddings are multiplied by, 1 for a published DAMSM. Of a small one that was trained for minutes
            they deviate by a tenth in each dimension, so that noise beside them drowns them.
    """

    def __init__(self, damsm: nn.Module, max_words: int, scale: float) -> None:
        super().__init__(damsm)
        self.max_words, self.scale = max_words, scale

    @property
    def dim(self) -> int:
        """D, the size of an embedding."""
        return self.network.embedding_dim

    def captions(self, batch: Batch) -> Tensor:
        """The images' own captions in a training step, (N, D); which words a long one keeps is drawn."""
        streams = batch["noise"].streams("words")
        return self.scale * self.network.encode_text(batch["caption"], streams, self.max_words).sentence

    def prompts(self, texts: list[str]) -> Tensor:
        """N texts, (N, D); which words a long one keeps follows from itself."""
        return self.scale * self.network.encode_text(texts, max_words=self.max_words).sentence

    def several(self, texts: list[list[str]]) -> Tensor:
        """K texts for each of N images, (N, K, D); which words a long one keeps follows from itself."""
        return self.prompts([text for of_image in texts for text in of_image]).unflatten(0, (len(texts), -1))
