"""What AttnGAN and its descendants train a generator by: discriminators of several image sizes, and DAMSM as a guide.

`StagedGAN` is the base of those that draw images from noise and a text.

Tao Xu et al. AttnGAN. CVPR 2018. https://arxiv.org/abs/1711.10485. The networks are in `mmbench.networks.attngan` and
`mmbench.networks.damsm`, the functions in `mmbench.losses.adversarial` and `mmbench.losses.matching`; equations are
those of this paper.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmbench.core.adversarial import Adversarial
from mmbench.core.ema import EMA
from mmbench.core.frozen import Frozen
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_TO_IMAGE
from mmbench.layers.initialisation import initialise_orthogonally
from mmbench.losses.adversarial import (
    cross_entropy_real,
    matching_aware_discriminator,
    matching_aware_generator,
    matching_aware_pairs,
)
from mmbench.losses.matching import sentence_loss, word_level_term, words_loss
from mmbench.networks.attngan import ConditionalDiscriminator, Discriminator, Generated, StagedGenerator
from mmbench.networks.damsm import EncodedImage, EncodedText


class Discriminators(nn.ModuleList):
    """One discriminator for each size of image, and the adversarial part of both sides' objectives.

    Args:
        sizes: heights, which are widths, of the images.
        width, embedding_dim: as `Discriminator`.
    """

    network: ClassVar[type[Discriminator]] = Discriminator

    def __init__(self, sizes: Sequence[int], width: int, embedding_dim: int) -> None:
        super().__init__(self.network(size, width, embedding_dim) for size in sizes)
        self.sizes = tuple(sizes)

    def discriminator_terms(
        self, real: Sequence[Tensor], fake: Sequence[Tensor], sentence: Tensor
    ) -> dict[str, Tensor]:
        """Images alone, and with their sentences (N, D); `real` and `fake` are (N, 3, s, s), one for each size."""
        return {
            # Equation 5, with mismatched pairs, which the code adds to it.
            f"L_D{size}": matching_aware_discriminator(*discriminator.judge_pairs(*images, sentence))
            for size, discriminator, *images in zip(self.sizes, self, real, fake, strict=True)
        }

    def generator_terms(self, fake: Sequence[Tensor], sentence: Tensor) -> dict[str, Tensor]:
        """Generated images (N, 3, s, s), one for each size, are to be judged real, alone and with their sentences."""
        return {
            f"L_G{size}": matching_aware_generator(*discriminator.judge(images, sentence))  # equation 4
            for size, discriminator, images in zip(self.sizes, self, fake, strict=True)
        }


class ConditionalDiscriminators(Discriminators):
    """AttnDCGAN's: images are judged with their sentences only.

    https://github.com/taoxugit/AttnGAN/blob/0d000e652b407e976cb88fab299e8566f3de8a37/code/miscc/losses.py#L160
    """

    network = ConditionalDiscriminator

    def discriminator_terms(
        self, real: Sequence[Tensor], fake: Sequence[Tensor], sentence: Tensor
    ) -> dict[str, Tensor]:
        return {
            f"L_D{size}": matching_aware_pairs(*discriminator.judge_matches(*images, sentence))
            for size, discriminator, *images in zip(self.sizes, self, real, fake, strict=True)
        }

    def generator_terms(self, fake: Sequence[Tensor], sentence: Tensor) -> dict[str, Tensor]:
        return {
            f"L_G{size}": cross_entropy_real(discriminator.conditional(discriminator(images), sentence))
            for size, discriminator, images in zip(self.sizes, self, fake, strict=True)
        }


class Reader(Frozen):
    """A trained DAMSM, which encodes what a generator is given.

    Args:
        damsm: the trained stage before, with `encode_text`, `vocabulary` and `embedding_dim`.
        max_words: captions longer than this keep so many of their words in training; None: as in its own.
        max_prompt_words: the same of the texts that images are made from.
    """

    def __init__(self, damsm: nn.Module, max_words: int | None = None, max_prompt_words: int | None = None) -> None:
        super().__init__(damsm)
        self.max_words, self.max_prompt_words = max_words, max_prompt_words

    def captions(self, batch: Batch) -> EncodedText:
        """The images' own captions, in a training step."""
        return self.network.encode_text(batch["caption"], batch["noise"].streams("words"), self.max_words)

    def mismatched(self, batch: Batch) -> EncodedText:
        """The captions of other images, in a training step."""
        streams = batch["noise"].streams("mismatched words")
        return self.network.encode_text(batch["caption_mismatched"], streams, self.max_words)

    def prompts(self, texts: list[str]) -> EncodedText:
        """N texts that images are to be made from."""
        return self.network.encode_text(texts, max_words=self.max_prompt_words)

    def words(self, texts: list[str]) -> list[list[str]]:
        """The words that `prompts` encodes of N texts, in its order."""
        vocabulary, most = self.network.vocabulary, self.max_prompt_words or self.network.max_words
        return [[vocabulary.words[place] for place in vocabulary.encode(text, most)] for text in texts]


class Guide(Reader):
    """A trained DAMSM, which encodes what a generator is given and says how well its images show their captions.

    Args:
        damsm: the trained stage before, with `image_encoder` beside what `Reader` needs.
        gamma1, gamma2, gamma3: smoothing factors of DAMSM.
        lambda_damsm: weight of its terms.
        max_words, max_prompt_words: as `Reader`.
    """

    def __init__(
        self,
        damsm: nn.Module,
        gamma1: float,
        gamma2: float,
        gamma3: float,
        lambda_damsm: float,
        max_words: int | None = None,
        max_prompt_words: int | None = None,
    ) -> None:
        super().__init__(damsm, max_words, max_prompt_words)
        self.gammas = {"gamma1": gamma1, "gamma2": gamma2, "gamma3": gamma3}
        self.lambda_damsm = lambda_damsm

    def images(self, image: Tensor) -> EncodedImage:
        """Images (N, 3, H, W) in [-1, 1]."""
        return self.network.image_encoder(image)

    def terms(self, fake: Tensor, text: EncodedText, class_id: Tensor | None) -> dict[str, Tensor]:
        """How well generated images (N, 3, H, W) show their captions: a part of the generator's objective.

        Args:
            fake, text: the images and the captions that they are to show.
            class_id: (N,), other images of the same class are no negatives; None: every other image is one.
        """
        return self.terms_of(self.images(fake), text, class_id)

    def terms_of(self, seen: EncodedImage, text: EncodedText, class_id: Tensor | None) -> dict[str, Tensor]:
        """As `terms`, of images that are encoded already."""
        words = words_loss(seen.regions, text.words, text.word_mask, class_id, **self.gammas)
        sentence = sentence_loss(seen.code, text.sentence, class_id, self.gammas["gamma3"])
        return {  # equations 3 and 14
            "DAMSM_words": self.lambda_damsm * sum(words),
            "DAMSM_sentence": self.lambda_damsm * sum(sentence),
        }

    def word_level_term(self, batch: Batch, seen: EncodedImage, text: EncodedText) -> Tensor:
        """`matching.word_level_term` of a batch's encoded images and captions."""
        return word_level_term(seen, text, self.mismatched(batch), self.gammas["gamma1"], self.gammas["gamma2"])


class StagedGAN(Adversarial):
    """A generator in stages against discriminators, told by a trained DAMSM; the base of AttnGAN and its descendants.

    Args:
        optimizers: partials for `generator` and `discriminators`.
        guide: encodes captions.
        generator: starts anew here, as the discriminators do.
        discriminators: one for each size of the generator's images.
        noise_dim, condition_dim: as `StagedGenerator`.
        decay: of the generator's moving average, which makes the images.
    """

    task = TEXT_TO_IMAGE
    trains_on: ClassVar[frozenset[str]] = frozenset({"image", "caption"})
    smallest_batch = 2  # the next image's caption is what the discriminators take for a false one

    def __init__(
        self,
        optimizers: Mapping[str, OptimizerPartial],
        guide: Reader,
        generator: StagedGenerator,
        discriminators: Discriminators,
        noise_dim: int,
        condition_dim: int,
        decay: float,
    ) -> None:
        super().__init__(optimizers)
        self.guide, self.generator, self.discriminators = guide, generator, discriminators
        self.noise_dim, self.condition_dim = noise_dim, condition_dim
        initialise_orthogonally(self.generator)
        initialise_orthogonally(self.discriminators)
        self.ema = EMA(self.generator, decay)

    def drawn(self, network: nn.Module, text: EncodedText, noise: Noise) -> Generated:
        """What `network`, the generator or its average, draws for encoded captions."""
        return network(
            noise=noise.normal("z", self.noise_dim),
            eps=noise.normal("eps", self.condition_dim),
            sentence=text.sentence,
            words=text.words,
            word_mask=text.word_mask,
        )

    def prompted(self, batch: Batch, noise: Noise) -> Generated:
        """What the average draws for a batch's prompts."""
        return self.drawn(self.ema, self.guide.prompts(batch[self.task.prompt]), noise)

    def generate_stages(self, batch: Batch, noise: Noise) -> list[Tensor]:
        """The images (N, 3, s, s) in [-1, 1] of all sizes, from small to large; `generate` gives the last."""
        return self.prompted(batch, noise).images

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return self.generate_stages(batch, noise)[-1]

    def interpolated(self, batch: Batch, others: list[str], share: Tensor, noise: Noise) -> Tensor:
        """As `generate`, after texts that lie `share` (N,), in [0, 1], of the way from the batch's to N `others`."""
        text = self.guide.prompts([*batch[self.task.prompt], *others])
        return self.drawn(self.ema, text.interpolated(share), noise).images[-1]

    def words(self, captions: list[str]) -> list[list[str]]:
        """The known words of N captions, in the order in which `word_attention` counts them."""
        return self.guide.words(captions)

    @torch.no_grad()
    def word_attention(self, batch: Batch) -> Tensor:
        """Where the last stage looks for each word.

        Args:
            batch: `noise`, and the fields that `task.inputs` names.

        Returns:
            (N, L, s, s), s being half of the image's size: sums to 1 over the known words of a caption (`words`), and
            is 0 at padding.
        """
        return self.prompted(batch, batch["noise"]).attention[-1]
