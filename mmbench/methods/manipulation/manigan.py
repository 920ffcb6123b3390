"""ManiGAN: Text-Guided Image Manipulation.

Bowen Li, Xiaojuan Qi, Thomas Lukasiewicz, Philip H. S. Torr. CVPR 2020. https://arxiv.org/abs/1912.06203
Authors' code: https://github.com/mrlibw/ManiGAN/tree/e4afc93d8c77e6bf3830f00b12237f585f329bba

The two stages are `ManiGANMain` and `ManiGAN`, their networks in `mmbench.networks.manigan`. The ablations of the table
stand at the end; how they are read, and why, is in `mmbench.networks.manigan_ablations`. "w/o DCM" is `ManiGANMain`.

Deviations:
- An image does not depend on its batch. The authors mask words of the wrong caption when the lengths in a batch differ
  (code/attention.py#L90 tiles the mask with the batch running fastest) and let channels attend to padding (#L128), so
  that the longest caption of a batch changes every image. Ours gives their result for a batch of one.
- Discriminators give logits, and the sigmoid is part of the loss.
- Sizes follow from `base_size`; the paper's is 64.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmbench.core.adversarial import Adversarial, OptimizerPartial
from mmbench.core.ema import EMA
from mmbench.core.frozen import Frozen
from mmbench.core.images import pyramid
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_GUIDED_EDITING
from mmbench.core.weights import KeyMap
from mmbench.layers.initialisation import initialise_orthogonally
from mmbench.losses.adversarial import matching_aware_discriminator, matching_aware_generator
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.losses.matching import matching_terms, word_level_term
from mmbench.losses.perceptual import perceptual_loss
from mmbench.networks.attngan import Discriminator
from mmbench.networks.damsm import EncodedImage, EncodedText
from mmbench.networks.manigan import DETAIL_CORRECTION, MAIN_MODULE, DetailCorrection, MainModule, MainOutput
from mmbench.networks.manigan_ablations import (
    ConcatDetailCorrection,
    ConcatMainModule,
    DetailCorrectionAlone,
    MainModuleWithoutACM,
)


class Stage(Adversarial):
    """What the stages share: the frozen networks that guide them, and how much each of these counts.

    Args:
        damsm: the trained stage before, with `encode_text`, `image_encoder` and `embedding_dim`.
        perceptual: frozen network from images to features, VGG-16's relu2_2.
        optimizers: partials for the generating network and for what judges it, by name.
        gamma1, gamma2, gamma3: smoothing factors of DAMSM.
        lambda_damsm: weight of the DAMSM terms.
        max_words: captions longer than this keep so many of their words in training, 18 for CUB and 12 for COCO.
        max_prompt_words: the same of the texts that images are made from, 25 and 20: WORDS_NUM of eval_bird.yml and
            eval_coco.yml in
            https://github.com/mrlibw/ManiGAN/tree/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/cfg
    """

    task = TEXT_GUIDED_EDITING
    trains_on = frozenset({"image", "caption", "caption_mismatched", "class_id"})
    smallest_batch = 2  # the next image's caption is what the discriminator takes for a false one

    def __init__(
        self,
        damsm: nn.Module,
        perceptual: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        gamma1: float,
        gamma2: float,
        gamma3: float,
        lambda_damsm: float,
        max_words: int = 18,
        max_prompt_words: int = 25,
    ) -> None:
        super().__init__(optimizers)
        self.damsm = Frozen(damsm)
        self.perceptual = perceptual
        self.gammas = {"gamma1": gamma1, "gamma2": gamma2, "gamma3": gamma3}
        self.lambda_damsm = lambda_damsm
        self.max_words, self.max_prompt_words = max_words, max_prompt_words

    @torch.no_grad()
    def encoded(self, batch: Batch) -> tuple[EncodedImage, EncodedText, Tensor]:
        """Images and their own captions for a training step, and the word-level term, which is a number to log."""
        noise, damsm = batch["noise"], self.damsm.network
        text = damsm.encode_text(batch["caption"], noise.streams("words"), self.max_words)
        mismatched = damsm.encode_text(batch["caption_mismatched"], noise.streams("mismatched words"), self.max_words)
        seen = damsm.image_encoder(batch["image"])
        return seen, text, word_level_term(seen, text, mismatched, self.gammas["gamma1"], self.gammas["gamma2"])

    def shown(self, batch: Batch) -> tuple[EncodedImage, EncodedText]:
        """Images and the texts that they are to be edited by."""
        text = self.damsm.network.encode_text(batch[self.task.prompt], max_words=self.max_prompt_words)
        return self.damsm.network.image_encoder(batch["image"]), text


class ManiGANMain(Stage):
    """The main module and its training: the stage that edits. Alone it is the table's "w/o DCM".

    Args:
        width, noise_dim, condition_dim, num_residual, base_size, shared_width: as `MainModule`.
        discriminator_width: channels after the discriminators' first convolution.
        decay: of the generator's moving average, which makes the images.
        stage: as `Stage`, with `optimizers` for `generator` and `discriminators`.
    """

    network: ClassVar[type[MainModule]] = MainModule
    official: ClassVar[dict[str, KeyMap]] = {"ema.average": MAIN_MODULE}

    def __init__(
        self,
        width: int,
        noise_dim: int,
        condition_dim: int,
        num_residual: int,
        base_size: int,
        shared_width: int,
        discriminator_width: int,
        decay: float,
        **stage: Any,
    ) -> None:
        super().__init__(**stage)
        self.sizes = [base_size, 2 * base_size, 4 * base_size]
        self.noise_dim, self.condition_dim = noise_dim, condition_dim
        embedding_dim = self.damsm.network.embedding_dim
        self.generator = self.network(
            width, embedding_dim, noise_dim, condition_dim, num_residual, base_size, shared_width
        )
        self.discriminators = nn.ModuleList(
            Discriminator(size, discriminator_width, embedding_dim) for size in self.sizes
        )
        initialise_orthogonally(self.generator)
        initialise_orthogonally(self.discriminators)
        self.ema = EMA(self.generator, decay)

    def edited(self, network: nn.Module, image: EncodedImage, text: EncodedText, noise: Noise) -> MainOutput:
        """What `network`, the generator or its average, makes of encoded images and texts."""
        return network(**self.given(image, text, noise))

    def given(self, image: EncodedImage, text: EncodedText, noise: Noise) -> dict[str, Tensor]:
        """The arguments of `MainModule.forward`."""
        return {
            "noise": noise.normal("z", self.noise_dim),
            "eps": noise.normal("eps", self.condition_dim),
            "sentence": text.sentence,
            "words": text.words,
            "word_mask": text.word_mask,
            "image_code": image.code,
            "regions": image.regions,
        }

    def discriminator_terms(
        self, real: Sequence[Tensor], fake: Sequence[Tensor], text: EncodedText
    ) -> dict[str, Tensor]:
        """Images alone, and with their sentences, of each size; `fake` is detached by the discriminators."""
        return {
            f"L_D{size}": matching_aware_discriminator(*discriminator.judge_pairs(*images, text.sentence))
            for size, discriminator, *images in zip(self.sizes, self.discriminators, real, fake, strict=True)
        }

    def generator_terms(
        self, real: Sequence[Tensor], output: MainOutput, text: EncodedText, class_id: Tensor
    ) -> dict[str, Tensor]:
        """The generator's objective on images that are to be what they were, since the caption is their own."""
        terms = {}
        for size, discriminator, fake in zip(self.sizes, self.discriminators, output.images, strict=True):
            features = discriminator(fake)
            terms[f"L_G{size}"] = matching_aware_generator(
                discriminator.unconditional(features), discriminator.conditional(features, text.sentence)
            )
        seen = self.damsm.network.image_encoder(output.images[-1])
        terms |= matching_terms(seen, text, class_id, **self.gammas, lambda_damsm=self.lambda_damsm)
        compared = [perceptual_loss(self.perceptual, *pair) for pair in zip(output.images, real, strict=True)]
        terms["L_per"] = sum(compared) / 3
        terms["KL"] = kl_to_standard_normal(output.mu, output.log_variance)
        return terms

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = pyramid(batch["image"], self.sizes)
        seen, text, word_level = self.encoded(batch)
        output = self.edited(self.generator, seen, text, batch["noise"])
        terms = self.discriminator_terms(real, output.images, text)
        self.minimise("discriminators", terms | {"L_word": word_level})
        with self.held(self.discriminators):
            self.minimise("generator", self.generator_terms(real, output, text, batch["class_id"]))
        self.ema.update(self.generator)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        seen, text = self.shown(batch)
        return self.edited(self.ema, seen, text, noise).images[-1]


class CorrectionStage(Stage):
    """The training of a detail correction module, whatever it has beside words and the image's features.

    Args:
        image_size: height and width of the images.
        width, num_residual, shared_width: as `DetailCorrection`.
        discriminator_width: channels after the discriminator's first convolution.
        decay: of the module's moving average, which makes the images.
        stage: as `Stage`, with `optimizers` for `correction` and `discriminator`.
    """

    network: ClassVar[type[DetailCorrection]]

    def __init__(
        self,
        image_size: int,
        width: int,
        num_residual: int,
        shared_width: int,
        discriminator_width: int,
        decay: float,
        **stage: Any,
    ) -> None:
        super().__init__(**stage)
        embedding_dim, channels = self.damsm.network.embedding_dim, self.perceptual.network.channels
        self.correction = self.network(width, image_size, embedding_dim, channels, num_residual, shared_width)
        self.discriminator = Discriminator(image_size, discriminator_width, embedding_dim)
        # The authors leave the correction module at PyTorch's own start.
        # https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/trainerDCM.py#L93
        initialise_orthogonally(self.discriminator)
        self.ema = EMA(self.correction, decay)

    def hidden(self, image: EncodedImage, text: EncodedText, noise: Noise) -> tuple[Tensor, ...]:
        """What the module is given before words and features."""
        raise NotImplementedError

    def corrected(self, network: nn.Module, hidden: tuple[Tensor, ...], text: EncodedText, image: Tensor) -> Tensor:
        """What `network`, the correction module or its average, makes of images (N, 3, H, W) and their texts."""
        return network(*hidden, text.words, text.word_mask, self.perceptual(image))

    def generator_terms(self, real: Tensor, fake: Tensor, text: EncodedText, class_id: Tensor) -> dict[str, Tensor]:
        """The correction module's objective (equation 6): the last term pushes it *away* from the input image."""
        features = self.discriminator(fake)
        adversarial = matching_aware_generator(
            self.discriminator.unconditional(features), self.discriminator.conditional(features, text.sentence)
        )
        seen = self.damsm.network.image_encoder(fake)
        return {
            "L_G": adversarial,
            **matching_terms(seen, text, class_id, **self.gammas, lambda_damsm=self.lambda_damsm),
            # The paper adds 1 - L1; the constant changes nothing, and the released code leaves it out.
            # https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/miscc/lossesDCM.py
            "L_reg": -(fake - real).abs().mean(),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = batch["image"]
        seen, text, word_level = self.encoded(batch)
        fake = self.corrected(self.correction, self.hidden(seen, text, batch["noise"]), text, real)
        judged = self.discriminator.judge_pairs(real, fake, text.sentence)
        self.minimise("discriminator", {"L_D": matching_aware_discriminator(*judged), "L_word": word_level})
        with self.held(self.discriminator):
            self.minimise("correction", self.generator_terms(real, fake, text, batch["class_id"]))
        self.ema.update(self.correction)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        seen, text = self.shown(batch)
        return self.corrected(self.ema, self.hidden(seen, text, noise), text, batch["image"])


class ManiGAN(CorrectionStage):
    """The detail correction module on the frozen main module: the last stage, and the published method.

    Args:
        main: the trained stage before.
        correction: as `CorrectionStage`; the image's size and the guiding networks are the main module's.
    """

    network = DetailCorrection
    official: ClassVar[dict[str, KeyMap]] = {"ema.average": DETAIL_CORRECTION}

    def __init__(self, main: ManiGANMain, **correction: Any) -> None:
        super().__init__(image_size=main.sizes[-1], damsm=main.damsm.network, perceptual=main.perceptual, **correction)
        self.main = Frozen(main)

    def hidden(self, image: EncodedImage, text: EncodedText, noise: Noise) -> tuple[Tensor, ...]:
        """The main module's last features, (N, width, H, W)."""
        main = self.main.network
        return (main.ema.average.hidden(**main.given(image, text, noise)),)


class ManiGANWithoutACM(ManiGANMain):
    """The ablation "w/o ACM": no affine combination and so no detail correction; the image enters as a whole."""

    network = MainModuleWithoutACM
    official: ClassVar[dict[str, KeyMap]] = {}


class ManiGANConcatMain(ManiGANMain):
    """The ablation "w/ Concat.", its main module: concatenation in the place of every affine combination."""

    network = ConcatMainModule
    official: ClassVar[dict[str, KeyMap]] = {}


class ManiGANConcat(ManiGAN):
    """The ablation "w/ Concat.", its detail correction module: `main` is a `ManiGANConcatMain`."""

    network = ConcatDetailCorrection
    official: ClassVar[dict[str, KeyMap]] = {}


class ManiGANWithoutMain(CorrectionStage):
    """The ablation "w/o main module": the detail correction module alone, on its own features of the image.

    Args: as `CorrectionStage`.
    """

    network = DetailCorrectionAlone

    def hidden(self, image: EncodedImage, text: EncodedText, noise: Noise) -> tuple[Tensor, ...]:
        """Nothing."""
        return ()
