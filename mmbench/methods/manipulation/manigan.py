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
from typing import ClassVar

from torch import Tensor, nn

from mmbench.core.adversarial import Adversarial
from mmbench.core.ema import EMA
from mmbench.core.frozen import Frozen
from mmbench.core.images import pyramid
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_GUIDED_EDITING
from mmbench.core.weights import KeyMap
from mmbench.layers.affine_combination import watched
from mmbench.layers.initialisation import initialise_orthogonally
from mmbench.losses.adversarial import matching_aware_discriminator, matching_aware_generator
from mmbench.losses.attngan import Discriminators, Guide
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.losses.perceptual import pyramid_perceptual_loss
from mmbench.networks.attngan import Discriminator
from mmbench.networks.damsm import EncodedImage, EncodedText
from mmbench.networks.manigan import DETAIL_CORRECTION, MAIN_MODULE, DetailCorrection, MainModule, MainOutput
from mmbench.networks.manigan_ablations import (
    ConcatDetailCorrection,
    ConcatMainModule,
    DetailCorrectionAlone,
    MainModuleWithoutACM,
)


class Guided(Adversarial):
    """What both modules' training shares: the frozen networks that guide it, and what these see.

    Args:
        optimizers: partials for the generating network and for what judges it, by name.
        guide: the trained DAMSM.
        perceptual: frozen network from images to features, VGG-16's relu2_2.
    """

    task = TEXT_GUIDED_EDITING
    trains_on = frozenset({"image", "caption", "caption_mismatched", "class_id"})
    smallest_batch = 2  # the next image's caption is what the discriminator takes for a false one

    def __init__(self, optimizers: Mapping[str, OptimizerPartial], guide: Guide, perceptual: nn.Module) -> None:
        super().__init__(optimizers)
        self.guide = guide
        self.perceptual = perceptual

    def encoded(self, batch: Batch) -> tuple[EncodedImage, EncodedText, Tensor]:
        """Images and their own captions for a training step, and the word-level term, which is a number to log."""
        seen, text = self.guide.images(batch["image"]), self.guide.captions(batch)
        return seen, text, self.guide.word_level_term(batch, seen, text)

    def shown(self, batch: Batch) -> tuple[EncodedImage, EncodedText]:
        """Images and the texts that they are to be edited by."""
        return self.guide.images(batch["image"]), self.guide.prompts(batch[self.task.prompt])

    def combined(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """The affine combinations of the module that makes the images, as Figure 4 shows them.

        Args:
            batch: the fields that `task.inputs` names, and `noise`.

        Returns:
            Name of each, in the order of running, to its maps (N, h, w), which are means over channels, by the symbols
            of equation 1; none of a module without affine combinations.
        """
        with watched(self.ema.average) as found:
            self.generate(batch, batch["noise"])
        return {
            name.removesuffix(".combination"): {
                "h": one.hidden.mean(1),
                "W(v)": one.scale.mean(1),
                "h * W(v)": one.scaled.mean(1),
                "b(v)": one.shift.mean(1),
                "h'": one.result.mean(1),
            }
            for name, one in found.items()
        }


class ManiGANMain(Guided):
    """The main module and its training: the stage that edits. Alone it is the table's "w/o DCM".

    Args:
        damsm: the trained stage before, with `encode_text`, `image_encoder` and `embedding_dim`.
        perceptual: frozen network from images to features, VGG-16's relu2_2.
        optimizers: partials for `generator` and `discriminators`.
        width, noise_dim, condition_dim, num_residual, base_size, shared_width: as `MainModule`.
        discriminator_width: channels after the discriminators' first convolution.
        decay: of the generator's moving average, which makes the images.
        gamma1, gamma2, gamma3: smoothing factors of DAMSM.
        lambda_damsm: weight of the DAMSM terms.
        max_words: captions longer than this keep so many of their words in training, 18 for CUB and 12 for COCO.
        max_prompt_words: the same of the texts that images are made from, 25 and 20: WORDS_NUM of eval_bird.yml and
            eval_coco.yml in
            https://github.com/mrlibw/ManiGAN/tree/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/cfg
    """

    network: ClassVar[type[MainModule]] = MainModule
    official: ClassVar[dict[str, KeyMap]] = {"ema.average": MAIN_MODULE}

    def __init__(
        self,
        damsm: nn.Module,
        perceptual: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        noise_dim: int,
        condition_dim: int,
        num_residual: int,
        base_size: int,
        shared_width: int,
        discriminator_width: int,
        decay: float,
        gamma1: float,
        gamma2: float,
        gamma3: float,
        lambda_damsm: float,
        max_words: int = 18,
        max_prompt_words: int = 25,
    ) -> None:
        guide = Guide(damsm, gamma1, gamma2, gamma3, lambda_damsm, max_words, max_prompt_words)
        super().__init__(optimizers, guide, perceptual)
        self.sizes = [base_size, 2 * base_size, 4 * base_size]
        self.noise_dim, self.condition_dim = noise_dim, condition_dim
        self.generator = self.network(
            width, damsm.embedding_dim, noise_dim, condition_dim, num_residual, base_size, shared_width
        )
        self.discriminators = Discriminators(self.sizes, discriminator_width, damsm.embedding_dim)
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

    def generator_terms(
        self, real: Sequence[Tensor], output: MainOutput, text: EncodedText, class_id: Tensor
    ) -> dict[str, Tensor]:
        """The generator's objective on images that are to be what they were, since the caption is their own."""
        return {
            **self.discriminators.generator_terms(output.images, text.sentence),  # supplement, equation 2
            **self.guide.terms(output.images[-1], text, class_id),  # supplement, equation 3
            "L_per": pyramid_perceptual_loss(self.perceptual, output.images, real),  # supplement, equation 3: L_rec
            "KL": kl_to_standard_normal(output.mu, output.log_variance),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = pyramid(batch["image"], self.sizes)
        seen, text, word_level = self.encoded(batch)
        output = self.edited(self.generator, seen, text, batch["noise"])
        terms = self.discriminators.discriminator_terms(real, output.images, text.sentence)
        self.minimise("discriminators", terms | {"L_word": word_level})
        with self.held(self.discriminators):
            self.minimise("generator", self.generator_terms(real, output, text, batch["class_id"]))
        self.follow(self.ema, self.generator)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        seen, text = self.shown(batch)
        return self.edited(self.ema, seen, text, noise).images[-1]


class Correction(Guided):
    """The training of a detail correction module, whatever it has beside words and the image's features.

    Args:
        damsm, perceptual, gamma1, gamma2, gamma3, lambda_damsm, max_words, max_prompt_words: as `ManiGANMain`.
        optimizers: partials for `correction` and `discriminator`.
        image_size: height and width of the images.
        width, num_residual, shared_width: as `DetailCorrection`.
        discriminator_width: channels after the discriminator's first convolution.
        decay: of the module's moving average, which makes the images.
    """

    network: ClassVar[type[DetailCorrection]]

    def __init__(
        self,
        damsm: nn.Module,
        perceptual: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        image_size: int,
        width: int,
        num_residual: int,
        shared_width: int,
        discriminator_width: int,
        decay: float,
        gamma1: float,
        gamma2: float,
        gamma3: float,
        lambda_damsm: float,
        max_words: int = 18,
        max_prompt_words: int = 25,
    ) -> None:
        guide = Guide(damsm, gamma1, gamma2, gamma3, lambda_damsm, max_words, max_prompt_words)
        super().__init__(optimizers, guide, perceptual)
        embedding_dim, channels = damsm.embedding_dim, perceptual.network.channels
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
        return {
            "L_G": matching_aware_generator(*self.discriminator.judge(fake, text.sentence)),  # supplement, equation 2
            **self.guide.terms(fake, text, class_id),  # supplement, equation 3
            # Supplement, equation 1: the paper adds 1 - L1; the constant changes nothing, and the code leaves it out.
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
        self.follow(self.ema, self.correction)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        seen, text = self.shown(batch)
        return self.corrected(self.ema, self.hidden(seen, text, noise), text, batch["image"])


class ManiGAN(Correction):
    """The detail correction module on the frozen main module: the last stage, and the published method.

    Args:
        main: the trained stage before, whose image size and guiding networks these are.
        optimizers, width, num_residual, shared_width, discriminator_width, decay: as `Correction`.
        gamma1, gamma2, gamma3, lambda_damsm, max_words, max_prompt_words: as `ManiGANMain`.
    """

    network = DetailCorrection
    official: ClassVar[dict[str, KeyMap]] = {"ema.average": DETAIL_CORRECTION}

    def __init__(
        self,
        main: ManiGANMain,
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        num_residual: int,
        shared_width: int,
        discriminator_width: int,
        decay: float,
        gamma1: float,
        gamma2: float,
        gamma3: float,
        lambda_damsm: float,
        max_words: int = 18,
        max_prompt_words: int = 25,
    ) -> None:
        super().__init__(
            main.guide.network,
            main.perceptual,
            optimizers,
            main.sizes[-1],
            width,
            num_residual,
            shared_width,
            discriminator_width,
            decay,
            gamma1,
            gamma2,
            gamma3,
            lambda_damsm,
            max_words,
            max_prompt_words,
        )
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


class ManiGANWithoutMain(Correction):
    """The ablation "w/o main module": the detail correction module alone, on its own features of the image.

    Args: as `Correction`.
    """

    network = DetailCorrectionAlone

    def hidden(self, image: EncodedImage, text: EncodedText, noise: Noise) -> tuple[Tensor, ...]:
        """Nothing."""
        return ()
