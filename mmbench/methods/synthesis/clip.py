"""Learning Transferable Visual Models From Natural Language Supervision: CLIP, trained on the data at hand.

Alec Radford, Jong Wook Kim, Chris Hallacy, Aditya Ramesh, Gabriel Goh, Sandhini Agarwal, Girish Sastry, Amanda Askell,
Pamela Mishkin, Jack Clark, Gretchen Krueger, Ilya Sutskever. ICML 2021. https://arxiv.org/abs/2103.00020
OpenAI published no code that trains it. Networks and loss are those by which DALL-E's re-implementation ranks its
samples, https://github.com/lucidrains/DALLE-pytorch/tree/58c1e1a, dalle_pytorch/dalle_pytorch.py, class CLIP.

A first stage: DALL-E ranks its candidates by it, DALL-E 2 generates from its embeddings. It generates nothing itself.

Deviations: words are those of the data set's captions, where theirs are pieces of words of a tokenizer of its own.
"""

from torch import Tensor

from mmbench.core.learner import Learner, OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_TO_IMAGE
from mmbench.core.text import Vocabulary
from mmbench.losses.matching import sentence_loss
from mmbench.networks import clip


class CLIP(Learner):
    """Text and image encoders that find the caption of an image among those of the batch, and the image of a caption.

    Args:
        vocabulary: of the captions.
        max_words: of longer captions the beginning is read.
        text_dim, text_depth, text_heads, image_size, patch_size, image_dim, image_depth, image_heads: of the encoders,
            see `networks.clip.CLIP`.
        embedding_dim: D of the common space.
        log_scale: what the logarithm of the cosines' factor starts at.
        optimizer: partial of the optimiser.
        gradient_clip: largest norm of the gradient.
    """

    task = TEXT_TO_IMAGE
    trains_on = frozenset({"image", "caption"})
    smallest_batch = 2  # another pair is what a pair is told from

    def __init__(
        self,
        vocabulary: Vocabulary,
        max_words: int,
        text_dim: int,
        text_depth: int,
        text_heads: int,
        image_size: int,
        patch_size: int,
        image_dim: int,
        image_depth: int,
        image_heads: int,
        embedding_dim: int,
        log_scale: float,
        optimizer: OptimizerPartial,
        gradient_clip: float | None = None,
    ) -> None:
        super().__init__(optimizer, gradient_clip)
        self.vocabulary = vocabulary
        self.max_words = max_words
        self.embedding_dim, self.word_dim = embedding_dim, text_dim
        self.network = clip.CLIP(
            len(vocabulary),
            max_words,
            text_dim,
            text_depth,
            text_heads,
            image_size,
            patch_size,
            image_dim,
            image_depth,
            image_heads,
            embedding_dim,
            log_scale,
        )

    @property
    def beside(self) -> dict[str, Vocabulary]:
        """The words that its embedding knows."""
        return {"vocabulary.json": self.vocabulary}

    def encode_text(self, captions: list[str]) -> Tensor:
        """N captions as unit vectors, (N, D).

        Raises:
            ValueError: a caption has no known word.
        """
        tokens, _ = self.vocabulary.first_words(captions, self.max_words)
        tokens = tokens.to(self.device)
        return self.network.encode_text(tokens, tokens != 0)

    def encode_words(self, captions: list[str]) -> Tensor:
        """The words of N captions, (N, L, word_dim): zeros behind a caption's end.

        Raises:
            ValueError: a caption has no known word.
        """
        tokens, _ = self.vocabulary.first_words(captions, self.max_words)
        known = (tokens != 0).to(self.device)
        return self.network.encode_words(tokens.to(self.device), known) * known[..., None]

    def encode_image(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] as unit vectors, (N, D).

        Raises:
            ValueError: they are of another size than it was built for.
        """
        return self.network.encode_image(images)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The symmetric cross-entropy over all pairs of the whole batch (figure 3 of the paper)."""
        image, text = self.encode_image(batch["image"]), self.encode_text(batch["caption"])
        of_images, of_texts = sentence_loss(image, text, None, self.network.log_scale.exp())
        return {"L_image": of_images / 2, "L_text": of_texts / 2}

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        """CLIP ranks and conditions.

        Raises:
            ValueError: always.
        """
        raise ValueError("expected a method that makes images, found clip: train it, then a method that stands on it")
