"""The base of methods that tell the codes of an image, which a first stage has, from a text."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mmbench.core.categorical import require_settings
from mmbench.core.frozen import Frozen
from mmbench.core.learner import Learner, OptimizerPartial
from mmbench.core.method import LONG_SAMPLING, Batch, Method
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_TO_IMAGE
from mmbench.core.text import Vocabulary
from mmbench.networks.token_transformer import encoded

PADDING = 0  # of texts


class TextToCodes(Learner):
    """Words in, codes out, with guidance away from what is told without a text.

    Args:
        vocabulary: of the captions.
        first_stage: trained; has `encode`, `decode`, `num_codes` and `factor`.
        image_size: side of the images, in pixels.
        max_words: of longer captions the beginning is read.
        text_dropout: share of captions that are left out in training, for guidance.
        temperature: that logits are divided by.
        top_k: so many of the likeliest codes may be drawn; None: all.
        guidance: how far to go from what is told without a text to what is told with it; 1: there.
        optimizer: partial of the optimiser.
        gradient_clip: largest norm of the gradient.

    Attributes:
        side: codes in a row of an image.
        num_codes: of the first stage.

    Raises:
        ValueError: the first stage has no map of codes for such an image, there are not so many codes, or guidance
            needs a branch without text that is not trained.
    """

    at_once = LONG_SAMPLING
    task = TEXT_TO_IMAGE
    trains_on = frozenset({"image", "caption"})

    def __init__(
        self,
        vocabulary: Vocabulary,
        first_stage: Method,
        image_size: int,
        max_words: int,
        text_dropout: float,
        temperature: float,
        top_k: int | None,
        guidance: float,
        optimizer: OptimizerPartial,
        gradient_clip: float,
    ) -> None:
        super().__init__(optimizer, gradient_clip)
        coding: Any = first_stage
        if image_size % coding.factor:
            raise ValueError(
                f"expected an image_size that is a multiple of {coding.factor}, the first stage's stride, found "
                f"{image_size}: change it"
            )
        require_settings(coding.num_codes, temperature, top_k)
        require_guidance(guidance, text_dropout)
        self.vocabulary = vocabulary
        self.first_stage = Frozen(first_stage)
        self.num_codes, self.side = coding.num_codes, image_size // coding.factor
        self.max_words = max_words
        self.text_dropout = text_dropout
        self.temperature, self.top_k, self.guidance = temperature, top_k, guidance

    @property
    def beside(self) -> dict[str, Vocabulary]:
        """The words that its embedding knows."""
        return {"vocabulary.json": self.vocabulary}

    def tokens(self, captions: list[str]) -> Tensor:
        """N captions as words, (N, max_words) int64, `PADDING` behind.

        Raises:
            ValueError: a caption has no known word.
        """
        tokens, _ = self.vocabulary.first_words(captions, self.max_words)
        return F.pad(tokens, (0, self.max_words - tokens.shape[1]), value=PADDING).to(self.device)

    def shown_tokens(self, batch: Batch) -> Tensor:
        """As `tokens`, of a training batch: some captions are left out, and are `PADDING` alone."""
        return left_out(self.tokens(batch["caption"]), self.text_dropout, batch["noise"])

    def codes(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] to codes row by row, (N, side * side) int64."""
        return encoded(images, self.first_stage.network).flatten(1)

    def decoded(self, codes: Tensor) -> Tensor:
        """Codes (N, side, side) int64 to images (N, 3, H, W) in [-1, 1]."""
        return self.first_stage.network.decode(codes)


def require_guidance(guidance: float, text_dropout: float) -> None:
    """Refuses guidance where training leaves out no text, so that there is nothing to lead away from.

    Raises:
        ValueError: that is so.
    """
    if guidance != 1 and not text_dropout:
        raise ValueError(
            f"expected guidance=1 where text_dropout=0 trains no branch without text, found {guidance}: train with "
            "text_dropout above 0"
        )


def left_out(words: Tensor, text_dropout: float, noise: Noise) -> Tensor:
    """Words (N, L) int64 of a training batch; the share `text_dropout` of its texts are `PADDING` alone."""
    if not text_dropout:
        return words
    return words.masked_fill(noise.uniform("left out", 1) < text_dropout, PADDING)


def guided(logits: Tensor, guidance: float) -> Tensor:
    """Logits with a text, and behind them, unless guidance is 1, those without: null + guidance * (with - null)."""
    if guidance == 1:
        return logits
    with_text, without = logits.chunk(2)
    return without + guidance * (with_text - without)
