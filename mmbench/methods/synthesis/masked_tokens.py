"""MaskGIT: Masked Generative Image Transformer: codes of an image seen from all sides, and drawn many at a time.

Huiwen Chang, Han Zhang, Lu Jiang, Ce Liu, William T. Freeman. CVPR 2022. https://arxiv.org/abs/2202.04200
No reference to compare with. Learning rate, weight decay and the temperature of the choice are the paper's as we
recall them, and unverified.

An image is the map of codes of a first stage, VQGAN's. A transformer that sees the whole map is trained to say codes
that are masked (section 3.1). To make an image all are masked; in each of a few steps all masked ones are drawn, those
drawn with the most confidence stay, and the others are masked again, fewer and fewer by a cosine (section 3.2).

Deviations:
- Captions are the condition where the paper has classes: their words, joined with their neighbours, come before the
  codes, as in VQGAN's transformer here.
- Layers are normalised before they attend and not behind, so that training needs no warm-up, which is by epochs here;
  the output is not tied to the embedding.
- The first stage is VQGAN's own, not the paper's, which has no attention in it.
- A step leaves at least one code to each step that follows, which in maps of many codes is so anyway.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn
from torch.optim import Optimizer

from mmbench.core.categorical import drawn, gumbel, probabilities, require_settings
from mmbench.core.frozen import Frozen
from mmbench.core.learner import Learner, OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.processes import averaged
from mmbench.core.task import TEXT_TO_IMAGE
from mmbench.core.text import Vocabulary
from mmbench.networks.phrases import Phrases
from mmbench.networks.text_to_codes import PADDING, guided, left_out, require_guidance
from mmbench.networks.token_transformer import BidirectionalTransformer, codes_of, encoded_words

Draw = Callable[[str], Tensor]  # from a name to uniform numbers (N, L)


def masked_share(progress: Tensor) -> Tensor:
    """The cosine schedule: from all at progress 0 to none at 1."""
    return (progress * math.pi / 2).cos()


def left_masked(num_codes: int, num_steps: int) -> list[int]:
    """How many codes of a map are masked after each step of its decoding, fewer from step to step, and none at last.

    Raises:
        ValueError: there are more steps than codes, or none.
    """
    if not 1 <= num_steps <= num_codes:
        raise ValueError(
            f"expected num_steps from 1 to {num_codes}, the codes of a map, found {num_steps}: change them"
        )
    left, found = num_codes, []
    shares = masked_share(torch.arange(1, num_steps + 1, dtype=torch.float64) / num_steps).tolist()
    for step, share in enumerate(shares, 1):
        left = max(num_steps - step, min(left - 1, math.floor(num_codes * share)))
        found.append(left)
    return found


def random_mask(progress: Tensor, order: Tensor) -> Tensor:
    """Which codes are masked in training: (N, L) bool, at least one of each map.

    Args:
        progress: (N,) uniform in [0, 1); the schedule says the share.
        order: (N, L) uniform; the least ones are masked.
    """
    count = (masked_share(progress) * order.shape[1]).ceil().clamp(min=1)
    return least(order, count[:, None])


def least(values: Tensor, count: Tensor | int) -> Tensor:
    """Which of each row of values (N, L) are its `count` least: (N, L) bool."""
    return values.argsort(dim=1, stable=True).argsort(dim=1) < count


def decoded(
    logits: Callable[[Tensor], Tensor],
    start: Tensor,
    num_steps: int,
    choice_temperature: float,
    temperature: float,
    top_k: int | None,
    uniform: Draw,
) -> Tensor:
    """Maps of codes (N, L), drawn in `num_steps` passes.

    Args:
        logits: from codes (N, L), of which some are masked, to logits (N, L, K).
        start: (N, L) int64, everywhere the token that stands for a masked code.
        num_steps: T.
        choice_temperature: weight of the Gumbel noise in a code's confidence at the first step, from which it falls
            to 0 at last; 0: the most probable codes stay.
        temperature, top_k: of the codes, as `categorical.drawn`.
        uniform: random numbers by their name.

    Raises:
        ValueError: as `left_masked` and `categorical.require_settings`.
    """
    codes = start
    for step, count in enumerate(left_masked(start.shape[1], num_steps)):
        said, masked = logits(codes), codes == start
        guess = torch.where(masked, drawn(said, uniform(f"codes {step}"), temperature, top_k), codes)
        confidence = probabilities(said).take_along_dim(guess[..., None], dim=-1)[..., 0].log()
        noise = choice_temperature * (1 - (step + 1) / num_steps) * gumbel(uniform(f"order {step}"))
        again = least((confidence + noise).masked_fill(~masked, math.inf), count)
        codes = torch.where(again, start, guess)
    return codes


class MaskGIT(Learner):
    """Text to image by masked codes.

    Args:
        first: the trained first stage, which encodes and decodes and stays as it is.
        vocabulary: the words that it knows.
        transformer: partial of a `BidirectionalTransformer` that lacks the numbers of tokens and positions.
        max_words: of a caption; of longer ones some are left out.
        window: height and width of the maps, in codes.
        num_steps, choice_temperature, temperature, top_k: as `decoded`.
        label_smoothing: share of the target that all codes share.
        text_dropout: share of captions that are left out in training, for guidance.
        guidance: how far to go from what is told without a caption to what is told with it; 1: there.
        optimizer: partial of the optimiser.

    Raises:
        ValueError: a setting is out of range.
    """

    task = TEXT_TO_IMAGE
    trains_on = frozenset({"image", "caption"})

    def __init__(
        self,
        first: nn.Module,
        vocabulary: Vocabulary,
        transformer: Callable[..., BidirectionalTransformer],
        max_words: int,
        window: int,
        num_steps: int,
        choice_temperature: float,
        temperature: float,
        top_k: int | None,
        label_smoothing: float,
        text_dropout: float,
        guidance: float,
        optimizer: OptimizerPartial,
    ) -> None:
        super().__init__(optimizer)
        require_guidance(guidance, text_dropout)
        require_settings(first.num_codes, temperature, top_k)
        left_masked(window**2, num_steps)
        if not choice_temperature >= 0:
            raise ValueError(f"expected choice_temperature from 0, found {choice_temperature}: change it")
        self.first, self.vocabulary = Frozen(first), vocabulary
        self.mask = first.num_codes  # the token behind those of the codes
        self.transformer = transformer(
            num_tokens=self.mask + 1, length=max_words + window**2, num_outputs=first.num_codes
        )
        self.phrases = Phrases(len(vocabulary), self.transformer.width, self.transformer.embedding_std)
        self.max_words, self.window, self.num_steps = max_words, window, num_steps
        self.choice_temperature, self.temperature, self.top_k = choice_temperature, temperature, top_k
        self.label_smoothing = label_smoothing
        self.text_dropout, self.guidance = text_dropout, guidance

    @property
    def beside(self) -> dict[str, Vocabulary]:
        """The words that it knows."""
        return {"vocabulary.json": self.vocabulary}

    def words(self, captions: Sequence[str], streams: Sequence[Generator] | None) -> Tensor:
        """Captions as words (N, max_words) int64; `streams` are those of training, one for each."""
        return encoded_words(self.vocabulary, captions, self.max_words, streams).to(self.device)

    def logits(self, words: Tensor, codes: Tensor) -> Tensor:
        """Of the code in each place, (N, L, K), by words (N, P, D) and codes (N, L), of which some are `mask`."""
        vectors = torch.cat((words, self.transformer.embedding(codes)), dim=1)
        return self.transformer.head(self.transformer.features(vectors)[:, words.shape[1] :])

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Equation 1: the likelihood of the codes that are masked, averaged over those of the whole batch."""
        noise = batch["noise"]
        codes = codes_of(batch["image"], self.first.network, self.window)
        words = left_out(self.words(batch["caption"], noise.streams("words")), self.text_dropout, noise)
        masked = random_mask(noise.uniform("progress"), noise.uniform("order", codes.shape[1]))
        logits = self.logits(self.phrases(words), codes.masked_fill(masked, self.mask))
        return {
            "L_mask": averaged(
                F.cross_entropy(logits[masked], codes[masked], reduction="none", label_smoothing=self.label_smoothing)
            )
        }

    def configure_optimizers(self) -> Optimizer:
        words = {"params": list(self.phrases.parameters()), "weight_decay": 0.0}
        return self.optimizer([*self.transformer.parameter_groups(), words])

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        words, length = self.words(batch["caption"], None), self.window**2
        branches = [words] if self.guidance == 1 else [words, torch.full_like(words, PADDING)]
        phrases = self.phrases(torch.cat(branches))
        codes = decoded(
            lambda codes: guided(self.logits(phrases, codes.repeat(len(branches), 1)), self.guidance),
            torch.full((len(words), length), self.mask, device=self.device),
            self.num_steps,
            self.choice_temperature,
            self.temperature,
            self.top_k,
            lambda name: noise.uniform(name, length),
        )
        return self.first.network.decode(codes.unflatten(1, (self.window, self.window)))
