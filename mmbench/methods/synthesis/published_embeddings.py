"""Embeddings of captions as they were published, in the place of a text encoder.

Scott Reed et al. published those that GAN-INT-CLS was trained on (https://github.com/reedscot/icml2016), StackGAN's
authors the same of the same encoder, char-CNN-RNN (https://github.com/hanzhanggit/StackGAN). They know the captions of
their data set and no other text.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from mmbench.core.method import Batch, Method
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_TO_IMAGE


class PublishedEmbeddings(Method):
    """What stands on a text encoder stands on this one as well; nothing of it is learnt.

    Args:
        caption_embeddings: the data set's: N texts of captions to (N, D) float32, with the attribute `dim`.

    Attributes:
        embedding_dim: D.
    """

    task = TEXT_TO_IMAGE

    def __init__(self, caption_embeddings: Callable[[Sequence[str]], Tensor]) -> None:
        super().__init__()
        self.embeddings = caption_embeddings
        self.embedding_dim: int = caption_embeddings.dim  # type: ignore[attr-defined]

    def encode_text(self, captions: list[str]) -> Tensor:
        """N captions of the data set to (N, embedding_dim).

        Raises:
            ValueError: a text is none of them.
        """
        return self.embeddings(captions).to(self.device)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        """They make nothing.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "expected a method that makes images, found published_embeddings: train one that stands on them"
        )
