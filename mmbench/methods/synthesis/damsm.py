"""AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial Networks: the DAMSM encoders.

Tao Xu, Pengchuan Zhang, Qiuyuan Huang, Han Zhang, Zhe Gan, Xiaolei Huang, Xiaodong He. CVPR 2018.
https://arxiv.org/abs/1711.10485, section 3.2
Authors' code: https://github.com/taoxugit/AttnGAN/tree/0d000e652b407e976cb88fab299e8566f3de8a37, code/pretrain_DAMSM.py

The first stage of AttnGAN, ControlGAN and ManiGAN: a text and an image encoder that agree on which caption belongs to
which image. It generates nothing; the stages that follow hold it frozen.

Deviations: none that changes a number. The authors pick up the learning rate where it stopped; ours follows from the
epoch alone, so that a resumed run is the same run.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from numpy.random import Generator
from torch import Tensor, nn

from mmbench.core.learner import Learner, OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_TO_IMAGE
from mmbench.core.text import Vocabulary, padded
from mmbench.core.weights import KeyMap
from mmbench.losses.matching import sentence_loss, words_loss
from mmbench.networks.damsm import IMAGE_ENCODER, TEXT_ENCODER, EncodedText, ImageEncoder, TextEncoder


class DAMSM(Learner):
    """Text and image encoders trained by attention-driven matching.

    Args:
        vocabulary: of the captions; released encoders need their authors' own.
        trunk: of the image encoder, pretrained; its parameters stay, its batch statistics drift, as the authors' do.
        embedding_dim: size of the common space.
        token_dim: width of the word embedding.
        max_words: captions longer than this keep so many of their words, in order.
        optimizer: partial of the optimiser, with the learning rate of the first epoch.
        gradient_clip: largest norm of the text encoder's gradient.
        gamma1, gamma2, gamma3: the paper's smoothing factors.
    """

    task = TEXT_TO_IMAGE
    trains_on = frozenset({"image", "caption", "class_id"})
    smallest_batch = 2  # another pair is what a pair is told from
    official: ClassVar[dict[str, KeyMap]] = {"text_encoder": TEXT_ENCODER, "image_encoder": IMAGE_ENCODER}

    def __init__(
        self,
        vocabulary: Vocabulary,
        trunk: nn.Module,
        embedding_dim: int,
        token_dim: int,
        max_words: int,
        optimizer: OptimizerPartial,
        gradient_clip: float,
        gamma1: float,
        gamma2: float,
        gamma3: float,
    ) -> None:
        super().__init__(optimizer, gradient_clip, learning_rate)
        self.vocabulary = vocabulary
        self.text_encoder = TextEncoder(len(self.vocabulary), embedding_dim, token_dim)
        self.image_encoder = ImageEncoder(trunk.requires_grad_(False), embedding_dim)
        self.embedding_dim = embedding_dim
        self.max_words = max_words
        self.gammas = {"gamma1": gamma1, "gamma2": gamma2, "gamma3": gamma3}

    @property
    def beside(self) -> dict[str, Vocabulary]:
        """The words that its embedding knows."""
        return {"vocabulary.json": self.vocabulary}

    def encode_text(
        self, captions: list[str], streams: Sequence[Generator | None] | None = None, max_words: int | None = None
    ) -> EncodedText:
        """Raw captions in the common space.

        Args:
            captions: N texts.
            streams: which words of a long caption are kept, for each caption; None: the caption itself decides.
            max_words: how many words of a long caption are kept, where that is not what DAMSM itself was trained with.

        Raises:
            ValueError: a caption has no known word.
        """
        streams = streams or [None] * len(captions)
        tokens, lengths = padded(
            [
                self.vocabulary.encode(caption, max_words or self.max_words, rng)
                for caption, rng in zip(captions, streams, strict=True)
            ]
        )
        return self.text_encoder(tokens.to(self.device), lengths)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The four contrastive terms of equation 14; other images of the same class are no negatives."""
        text = self.encode_text(batch["caption"], batch["noise"].streams("words"))
        image = self.image_encoder(batch["image"])
        classes, gamma3 = batch["class_id"], self.gammas["gamma3"]
        word_to_image, image_to_word = words_loss(image.regions, text.words, text.word_mask, classes, **self.gammas)
        sentence_to_image, image_to_sentence = sentence_loss(image.code, text.sentence, classes, gamma3)
        return {
            "L1_w": word_to_image,  # equation 12
            "L2_w": image_to_word,  # equation 13
            "L1_s": sentence_to_image,
            "L2_s": image_to_sentence,
        }

    def clipped(self) -> Iterable[nn.Parameter]:
        return self.text_encoder.parameters()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        # The authors make a new optimiser each epoch.
        # https://github.com/taoxugit/AttnGAN/blob/0d000e652b407e976cb88fab299e8566f3de8a37/code/pretrain_DAMSM.py#L267
        self.optimizers().optimizer.state.clear()

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        """DAMSM judges and guides.

        Raises:
            ValueError: always.
        """
        raise ValueError("expected a method that makes images, found damsm: train it, then a method that stands on it")


def learning_rate(first: float, epoch: int) -> float:
    """The authors' schedule: two per cent less each epoch, until it is no more than a tenth of the first."""
    rate = first
    for _ in range(epoch):
        if rate <= first / 10:
            break
        rate *= 0.98
    return rate
