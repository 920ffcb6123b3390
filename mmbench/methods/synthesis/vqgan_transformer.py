"""VQGAN's second stage: Taming Transformers for High-Resolution Image Synthesis, the transformer that draws codes.

Patrick Esser, Robin Rombach, Björn Ommer. CVPR 2021. https://arxiv.org/abs/2012.09841, sections 3.2 and 3.3.
Authors' code: https://github.com/CompVis/taming-transformers/tree/3ba01b2, taming/models/cond_transformer.py,
taming/models/vqgan.py and scripts/make_samples.py.

The first stage, in `mmbench.methods.synthesis.vqgan`, makes an image a map of codes. Here a transformer is trained by
the likelihood of each code after the codes before it, row by row, and after a condition in front of them: a class, the
codes of a layout, for which `VQSegmentation` is a first stage of its own, or words. Images larger than those of
training are drawn in windows of their size.

Deviations:
- Words are a condition that the paper does not have; no reference to compare with. They have embeddings of their own,
  joined with those of their neighbours, and unused places of a caption have one, too. Classes and layouts share the
  embeddings of the codes, as the authors' do.
- Logits are of codes alone, where the authors' are of all numbers that a condition may have as well.
- While codes are drawn, keys and values of those before are kept as long as the window stays; the codes are the same.
- Random codes in the place of those that the transformer reads (`keep`) are of the first stage's.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from mmbench.core.categorical import drawn, require_settings
from mmbench.core.frozen import Frozen
from mmbench.core.learner import Learner, OptimizerPartial
from mmbench.core.method import LONG_SAMPLING, Batch
from mmbench.core.noise import Noise
from mmbench.core.processes import averaged
from mmbench.core.task import CLASS_TO_IMAGE, LAYOUT_TO_IMAGE, TEXT_TO_IMAGE
from mmbench.core.text import Vocabulary
from mmbench.core.weights import KeyMap
from mmbench.layers.classes import Classes
from mmbench.layers.quantisers import Codebook
from mmbench.networks.phrases import Phrases
from mmbench.networks.text_to_codes import PADDING, guided, left_out, require_guidance
from mmbench.networks.token_transformer import (
    TRANSFORMER,
    TokenTransformer,
    codes_of,
    encoded,
    encoded_words,
    map_size,
    sampled,
    token_cross_entropy,
)
from mmbench.networks.vqgan import Autoencoder

Shown = Callable[[int, int], Tensor]  # from top and left of a window to the condition (N, P, D) of what is in it


class VQSegmentation(Learner):
    """A first stage for layouts: as VQGAN's, of a channel for each class, without a discriminator.

    Args:
        num_classes: channels; layouts have classes from 0 on.
        quantiser, width, multipliers, num_blocks, attention_factors, latent_channels, num_groups: as VQGAN's.
        lambda_codebook: weight of the quantiser's term.
        optimizer: partial of the optimiser.
    """

    task = LAYOUT_TO_IMAGE
    trains_on = frozenset({"layout"})

    def __init__(
        self,
        num_classes: int,
        quantiser: Codebook,
        width: int,
        multipliers: Sequence[int],
        num_blocks: int,
        attention_factors: Sequence[int],
        latent_channels: int,
        num_groups: int,
        lambda_codebook: float,
        optimizer: OptimizerPartial,
    ) -> None:
        super().__init__(optimizer)
        self.num_classes, self.lambda_codebook = num_classes, lambda_codebook
        self.autoencoder = Autoencoder(
            width, multipliers, num_blocks, attention_factors, latent_channels, quantiser, num_groups
        )
        # Classes in the place of colours.
        self.autoencoder.encoder.entry = nn.Conv2d(num_classes, width, 3, padding=1)
        self.autoencoder.decoder.exit = nn.Conv2d(width * multipliers[0], num_classes, 3, padding=1)

    @property
    def num_codes(self) -> int:
        """K, how many codes there are."""
        return self.autoencoder.quantiser.num_codes

    @property
    def factor(self) -> int:
        """By which a map of codes is smaller than its layout."""
        return self.autoencoder.factor

    def classes(self, layout: Tensor) -> Tensor:
        """Layouts (N, H, W) int64 to (N, num_classes, H, W), 1 for the class of a pixel and 0 for others.

        Raises:
            ValueError: there is a class that it has no channel of.
        """
        if (largest := int(layout.max())) >= self.num_classes:
            raise ValueError(
                f"expected layouts with classes from 0 to {self.num_classes - 1}, found {largest}: set "
                "method.module.num_classes, and train again"
            )
        dtype = self.autoencoder.encoder.entry.weight.dtype
        return F.one_hot(layout, self.num_classes).movedim(-1, 1).to(dtype)

    def encode(self, layout: Tensor) -> Tensor:
        """Layouts (N, H, W) int64 to codes (N, H / factor, W / factor) int64."""
        return self.autoencoder.encode(self.classes(layout))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, h, w) to layouts (N, h * factor, w * factor) int64."""
        return self.autoencoder.decode(codes).argmax(dim=1)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Each pixel is of a class or is not, for all classes alike."""
        classes = self.classes(batch["layout"])
        found = self.autoencoder.quantiser(self.autoencoder.latent(classes))
        logits = self.autoencoder.decoded(found.codes)
        return {
            "L_rec": F.binary_cross_entropy_with_logits(logits, classes),
            "L_codebook": self.lambda_codebook * found.loss,
        }

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        """It encodes for transformers.

        Raises:
            ValueError: always.
        """
        raise ValueError("expected a method that makes images, found a first stage of layouts: see vqgan_layout")


class CodeTransformer(Learner):
    """What all three have in common; each says what a map of codes comes after.

    Args:
        first: the trained first stage, which encodes and decodes and stays as it is.
        transformer: partial of a `TokenTransformer` that lacks the numbers of tokens and positions.
        num_tokens: of codes and of conditions that share their embeddings.
        condition_length: tokens of a condition.
        window: height and width of the maps of training, in codes.
        temperature, top_k, top_p: of the draws, as `categorical.drawn`.
        keep: share of the codes that the transformer reads as they are in training; random ones take others' place.
        optimizer: partial of the optimiser.

    Raises:
        ValueError: a setting is out of range.
    """

    at_once = LONG_SAMPLING

    def __init__(
        self,
        first: nn.Module,
        transformer: Callable[..., TokenTransformer],
        num_tokens: int,
        condition_length: int,
        window: int,
        temperature: float,
        top_k: int | None,
        top_p: float,
        keep: float,
        optimizer: OptimizerPartial,
    ) -> None:
        super().__init__(optimizer)
        if not 0 <= keep <= 1:
            raise ValueError(f"expected keep from 0 to 1, the share of codes that stay, found {keep}: change it")
        require_settings(first.num_codes, temperature, top_k, top_p)
        self.first = Frozen(first)
        self.num_codes, self.factor, self.window = first.num_codes, first.factor, window
        length = condition_length + window**2
        self.transformer = transformer(num_tokens=num_tokens, length=length, num_outputs=first.num_codes)
        self.temperature, self.top_k, self.top_p, self.keep = temperature, top_k, top_p, keep

    def condition(self, batch: Batch, noise: Noise | None) -> tuple[Shown, tuple[int, int]]:
        """What is shown of a batch's condition before the codes of a window, and the size of its maps.

        Args:
            batch: what the task and training read.
            noise: of training; None at evaluation.
        """
        raise NotImplementedError

    def disturbed(self, codes: Tensor, noise: Noise) -> Tensor:
        """Codes (N, L), of which only the share `keep` is still what it was."""
        if self.keep == 1:
            return codes
        kept = noise.uniform("keep", codes.shape[1]) < self.keep
        return torch.where(kept, codes, (noise.uniform("codes", codes.shape[1]) * self.num_codes).long())

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Equation 8: the likelihood of each code after those before it."""
        noise, codes = batch["noise"], codes_of(batch["image"], self.first.network, self.window)
        shown, _ = self.condition(batch, noise)
        logits = self.transformer.predicted(shown(0, 0), self.disturbed(codes, noise))
        return {"L": averaged(token_cross_entropy(logits, codes))}

    def parameter_groups(self) -> list[dict]:
        """All that is trained, for an optimiser."""
        return self.transformer.parameter_groups()

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer(self.parameter_groups())

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        shown, size = self.condition(batch, None)
        codes = sampled(
            self.transformer,
            shown,
            size,
            self.window,
            lambda logits, number: self.draw(logits, noise.uniform(f"code {number}")),
        )
        return self.first.network.decode(codes[: len(noise.samples)])

    def draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Codes of logits (N, K) and uniform numbers (N,)."""
        return drawn(logits, uniform, self.temperature, self.top_k, self.top_p)


class VQGANTextToImage(CodeTransformer):
    """After words.

    Args:
        vocabulary: the words that it knows.
        max_words: of a caption; of longer ones some are left out.
        image_size: height and width of what is made, that of training or larger.
        text_dropout: share of captions that are left out in training, for guidance.
        guidance: how far to go from what is told without a caption to what is told with it; 1: there.
        others: as `CodeTransformer`.

    Raises:
        ValueError: as `CodeTransformer`, or the image size does not go with the first stage, or guidance needs a branch
            without captions that is not trained.
    """

    task = TEXT_TO_IMAGE
    trains_on = frozenset({"image", "caption"})

    def __init__(
        self,
        first: nn.Module,
        vocabulary: Vocabulary,
        max_words: int,
        image_size: int,
        text_dropout: float,
        guidance: float,
        **others: Any,
    ) -> None:
        require_guidance(guidance, text_dropout)
        super().__init__(first, num_tokens=first.num_codes, condition_length=max_words, **others)
        self.phrases = Phrases(len(vocabulary), self.transformer.width, self.transformer.embedding_std)
        self.vocabulary, self.max_words = vocabulary, max_words
        self.text_dropout, self.guidance = text_dropout, guidance
        self.size = map_size(image_size, self.factor, self.window)

    @property
    def beside(self) -> dict[str, Vocabulary]:
        """The words that it knows."""
        return {"vocabulary.json": self.vocabulary}

    def condition(self, batch: Batch, noise: Noise | None) -> tuple[Shown, tuple[int, int]]:
        streams = noise and noise.streams("condition")
        words = encoded_words(self.vocabulary, batch["caption"], self.max_words, streams).to(self.device)
        if noise:
            words = left_out(words, self.text_dropout, noise)
        elif self.guidance != 1:
            words = torch.cat((words, torch.full_like(words, PADDING)))
        vectors = self.phrases(words)
        return lambda top, left: vectors, self.size

    def draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        found = super().draw(guided(logits, self.guidance), uniform)
        return found.repeat(len(logits) // len(found))  # both branches go on with the same code

    def parameter_groups(self) -> list[dict]:
        return [*super().parameter_groups(), {"params": list(self.phrases.parameters()), "weight_decay": 0.0}]


class VQGANClassToImage(CodeTransformer):
    """After a class.

    Args:
        class_ids: the data set's numbers of the classes.
        image_size: height and width of what is made, that of training or larger.
        others: as `CodeTransformer`.

    Raises:
        ValueError: as `VQGANTextToImage`.
    """

    task = CLASS_TO_IMAGE
    trains_on = frozenset({"image", "class_id"})

    def __init__(self, first: nn.Module, class_ids: Sequence[int], image_size: int, **others: Any) -> None:
        super().__init__(first, num_tokens=max(first.num_codes, len(class_ids)), condition_length=1, **others)
        self.classes = Classes(class_ids)
        self.size = map_size(image_size, self.factor, self.window)

    def condition(self, batch: Batch, noise: Noise | None) -> tuple[Shown, tuple[int, int]]:
        vectors = self.transformer.embedding(self.classes(batch["class_id"])[:, None])
        return lambda top, left: vectors, self.size


class VQGANLayoutToImage(CodeTransformer):
    """After the codes of a layout, of which a window shows its own part; what is made is of the layout's size.

    Args:
        layouts: the trained first stage of layouts, which stays as it is.
        window: as `CodeTransformer`.
        others: the same.

    Raises:
        ValueError: as `CodeTransformer`, or maps of layouts and of images are not of one size.
    """

    task = LAYOUT_TO_IMAGE
    trains_on = frozenset({"image", "layout"})
    official: ClassVar[dict[str, KeyMap]] = {"transformer": TRANSFORMER}

    def __init__(self, first: nn.Module, layouts: nn.Module, window: int, **others: Any) -> None:
        if layouts.factor != first.factor:
            raise ValueError(
                f"expected codes of layouts in a map {first.factor} times smaller, as those of images are, found "
                f"{layouts.factor} times: give both first stages as many multipliers"
            )
        num_tokens = max(first.num_codes, layouts.num_codes)
        super().__init__(first, num_tokens=num_tokens, condition_length=window**2, window=window, **others)
        self.layouts = Frozen(layouts)

    def condition(self, batch: Batch, noise: Noise | None) -> tuple[Shown, tuple[int, int]]:
        codes = encoded(batch["layout"], self.layouts.network)

        def shown(top: int, left: int) -> Tensor:
            seen = codes[:, top : top + self.window, left : left + self.window].flatten(1)
            return self.transformer.embedding(seen)

        return shown, codes.shape[1:]
