"""ManiGAN: Text-Guided Image Manipulation.

Bowen Li, Xiaojuan Qi, Thomas Lukasiewicz, Philip H. S. Torr. CVPR 2020. https://arxiv.org/abs/1912.06203
Authors' code: https://github.com/mrlibw/ManiGAN/tree/e4afc93d8c77e6bf3830f00b12237f585f329bba

Deviations:
- An image does not depend on its batch. The authors mask words of the wrong caption when the lengths in a batch differ
  (code/attention.py#L90 tiles the mask with the batch running fastest) and let channels attend to padding (#L128), so
  that the longest caption of a batch changes every image. Ours gives their result for a batch of one.
- Discriminators give logits, and the sigmoid is part of the loss.
- Sizes follow from `base_size`; the paper's is 64.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

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
from mmbench.layers.affine_combination import AffineCombination
from mmbench.layers.conditioning_augmentation import ConditioningAugmentation
from mmbench.layers.first_stage import FirstStage
from mmbench.layers.gated_convolution import GatedConvolution, GatedResidual, UpBlock, conv3x3
from mmbench.layers.initialisation import initialise_orthogonally
from mmbench.layers.word_attention import ChannelAttention, SpatialAttention, linear_from_convolution
from mmbench.losses.adversarial import matching_aware_discriminator, matching_aware_generator
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.losses.matching import matching_terms, word_level_term
from mmbench.losses.perceptual import perceptual_loss
from mmbench.networks.attngan import Discriminator
from mmbench.networks.damsm import EncodedImage, EncodedText


class Fusion(nn.Module):
    """Hidden features meet words and image: attention over words, affine combination, residual blocks."""

    def __init__(self, width: int, size: int, embedding_dim: int, num_residual: int, shared_width: int) -> None:
        super().__init__()
        self.spatial_attention = SpatialAttention(width, embedding_dim)
        self.channel_attention = ChannelAttention(size**2, embedding_dim)
        self.affine_combination = AffineCombination(3 * width, width, shared_width)
        self.residual = nn.Sequential(*(GatedResidual(3 * width) for _ in range(num_residual)))

    def forward(self, hidden: Tensor, words: Tensor, word_mask: Tensor, image_features: Tensor) -> Tensor:
        """(N, width, size, size), (N, L, D), (N, L), (N, width, size, size) to (N, 3 * width, size, size)."""
        word_mask = word_mask[:, None]  # (N, 1, L)
        context, _ = self.spatial_attention(hidden, words, word_mask)
        channel_context, _ = self.channel_attention(context, words, word_mask)
        fused = torch.cat((hidden, context, channel_context), dim=1)  # (N, 3 * width, size, size)
        return self.residual(self.affine_combination(fused, image_features))


class ImageHead(nn.Module):
    """Hidden features and image features to an image; the combination feeds the image only, not the next stage."""

    def __init__(self, width: int, shared_width: int) -> None:
        super().__init__()
        self.affine_combination = AffineCombination(width, width, shared_width)
        self.to_rgb = conv3x3(width, 3)

    def forward(self, hidden: Tensor, image_features: Tensor) -> Tensor:
        return self.to_rgb(self.affine_combination(hidden, image_features)).tanh()


class MainOutput(NamedTuple):
    """What the main module gives.

    Attributes:
        images: (N, 3, s, s) in [-1, 1] for s = base_size, 2 * base_size, 4 * base_size.
        hidden: (N, width, 4 * base_size, 4 * base_size), features of the last stage, for the detail correction module.
        mu: (N, condition_dim), mean of the condition.
        log_variance: (N, condition_dim).
    """

    images: list[Tensor]
    hidden: Tensor
    mu: Tensor
    log_variance: Tensor


class MainModule(nn.Module):
    """The main module: three stages, each of which combines text, image and what the last stage made.

    Args:
        width: channels of hidden features, 32 for CUB and 48 for COCO.
        embedding_dim: size of words, sentences and image regions, 256.
        noise_dim: 100.
        condition_dim: size of the condition drawn from a sentence, 100.
        num_residual: residual blocks per stage, 2 for CUB and 3 for COCO.
        base_size: size of the first stage's image; the others double it.
        shared_width: channels inside the affine combinations.
    """

    def __init__(
        self,
        width: int,
        embedding_dim: int,
        noise_dim: int,
        condition_dim: int,
        num_residual: int,
        base_size: int = 64,
        shared_width: int = 128,
    ) -> None:
        super().__init__()
        sizes = (base_size, 2 * base_size)
        self.augmentation = ConditioningAugmentation(embedding_dim, condition_dim)
        self.first_stage = FirstStage(condition_dim + noise_dim + embedding_dim, width, base_size)
        self.fusions = nn.ModuleList(Fusion(width, size, embedding_dim, num_residual, shared_width) for size in sizes)
        self.upsample = nn.ModuleList(UpBlock(3 * width, width) for _ in sizes)
        # The authors upsample 17x17 regions by 3.8, which in PyTorch before 1.6 reads pixel floor(i * 17 / 64), as
        # resizing to 64 does; later versions read floor(i / 3.8).
        # https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/model.py#L65
        self.image_path = nn.ModuleList(
            [UpBlock(embedding_dim, width, size=base_size), UpBlock(width, width), UpBlock(width, width)]
        )
        self.heads = nn.ModuleList(ImageHead(width, shared_width) for _ in range(3))

    def forward(
        self,
        noise: Tensor,
        eps: Tensor,
        sentence: Tensor,
        words: Tensor,
        word_mask: Tensor,
        image_code: Tensor,
        regions: Tensor,
    ) -> MainOutput:
        """Edits images towards captions.

        Args:
            noise: (N, noise_dim), standard normal.
            eps: (N, condition_dim), standard normal.
            sentence: (N, embedding_dim).
            words: (N, L, embedding_dim).
            word_mask: (N, L) bool, True at words.
            image_code: (N, embedding_dim), the input images as a whole, from DAMSM's image encoder.
            regions: (N, embedding_dim, h, w), their regions.
        """
        condition, mu, log_variance = self.augmentation(sentence, eps)
        hidden = self.first_stage(torch.cat((condition, noise, image_code), dim=1))
        image_features = self.image_path[0](regions)
        images = [self.heads[0](hidden, image_features)]
        for n in range(2):
            hidden = self.upsample[n](self.fusions[n](hidden, words, word_mask, image_features))
            image_features = self.image_path[n + 1](image_features)
            images.append(self.heads[n + 1](hidden, image_features))
        return MainOutput(images, hidden, mu, log_variance)


class DetailCorrection(nn.Module):
    """The detail correction module: restores details that the text does not speak of.

    Args:
        width: channels of the main module's hidden features.
        size: height and width of the image, 256.
        embedding_dim: size of words, 256.
        feature_channels: channels of the input image's features, 128 for VGG-16's relu2_2.
        num_residual: residual blocks, 2 for CUB and 3 for COCO.
        shared_width: channels inside the affine combinations.
    """

    def __init__(
        self,
        width: int,
        size: int,
        embedding_dim: int,
        feature_channels: int,
        num_residual: int,
        shared_width: int = 128,
    ) -> None:
        super().__init__()
        self.upsample = UpBlock(feature_channels, width)
        self.fusion = Fusion(width, size, embedding_dim, num_residual, shared_width)
        self.narrow = GatedConvolution(3 * width, width)
        self.head = ImageHead(width, shared_width)

    def forward(self, hidden: Tensor, words: Tensor, word_mask: Tensor, features: Tensor) -> Tensor:
        """The edited image.

        The authors' network also takes the sentence and the condition, and uses neither.
        https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/model.py#L554

        Args:
            hidden: (N, width, size, size), from the main module.
            words: (N, L, embedding_dim).
            word_mask: (N, L) bool, True at words.
            features: (N, feature_channels, size / 2, size / 2), VGG features of the input image.

        Returns:
            (N, 3, size, size) in [-1, 1].
        """
        image_features = self.upsample(features)
        fused = self.fusion(hidden, words, word_mask, image_features)
        return self.head(self.narrow(fused), image_features)


# The authors' names. Their SAIN is the affine combination, whose conv_bias is the convolution that makes the shift.
AFFINE_COMBINATION = {"conv": "shared", "conv_weight": "scale", "conv_bias": "shift"}


def _affine(theirs: str, ours: str) -> dict[str, str]:
    return {rf"{theirs}\.{a}\.weight": rf"{ours}.{b}.weight" for a, b in AFFINE_COMBINATION.items()}


def _fusion(theirs: str, ours: str) -> dict[str, str]:
    return {
        rf"{theirs}\.att\.conv_context\.weight": rf"{ours}.spatial_attention.project.weight",
        rf"{theirs}\.residual\.(\d+)\.block\.0\.weight": rf"{ours}.residual.\1.gated.convolution.weight",
        rf"{theirs}\.residual\.(\d+)\.block\.3\.weight": rf"{ours}.residual.\1.convolution.weight",
        **_affine(rf"{theirs}\.SAIN", f"{ours}.affine_combination"),
    }


MAIN_MODULE = KeyMap(
    rename={
        r"ca_net\.fc\.(.*)": r"augmentation.project.\1",
        r"h_net1\.fc\.0\.weight": r"first_stage.project.weight",
        r"h_net1\.fc\.1\.(.*)": r"first_stage.norm.\1",
        **{rf"h_net1\.upsample{n + 1}\.1\.weight": f"first_stage.upsample.{n}.1.convolution.weight" for n in range(4)},
        r"h_net2\.channel_att\.conv_context2\.weight": "fusions.0.channel_attention.project.weight",
        r"h_net3\.channel_att\.conv_context3\.weight": "fusions.1.channel_attention.project.weight",
        **_fusion("h_net2", "fusions.0"),
        **_fusion("h_net3", "fusions.1"),
        r"h_net2\.upsample\.1\.weight": "upsample.0.1.convolution.weight",
        r"h_net3\.upsample\.1\.weight": "upsample.1.1.convolution.weight",
        r"imgUpSample\.1\.weight": "image_path.0.1.convolution.weight",
        r"imgUpSample2\.1\.weight": "image_path.1.1.convolution.weight",
        r"imgUpSample3\.1\.weight": "image_path.2.1.convolution.weight",
        **{rf"img_net{n + 1}\.img\.0\.weight": f"heads.{n}.to_rgb.weight" for n in range(3)},
        **_affine("SAIN1", "heads.0.affine_combination"),
        **_affine("SAIN2", "heads.1.affine_combination"),
        **_affine("SAIN3", "heads.2.affine_combination"),
    },
    drop={
        r"h_net2\.channel_att\.conv_context3\.weight": "the projection for the other stage's size, never used",
        r"h_net3\.channel_att\.conv_context2\.weight": "the projection for the other stage's size, never used",
    },
    convert={r".*_attention\.project\.weight": linear_from_convolution},
    fill={r".*num_batches_tracked": 0},
)

DETAIL_CORRECTION = KeyMap(
    rename={
        r"upsample\.1\.weight": "upsample.1.convolution.weight",
        r"h_net\.color_channel_att\.conv_context\.weight": "fusion.channel_attention.project.weight",
        **_fusion("h_net", "fusion"),
        r"h_net\.block\.0\.weight": "narrow.convolution.weight",
        r"img_net\.img\.0\.weight": "head.to_rgb.weight",
        **_affine("SAIN", "head.affine_combination"),
    },
    convert={r".*_attention\.project\.weight": linear_from_convolution},
)


class ManiGANMain(Adversarial):
    """The main module and its training: the stage that edits.

    Args:
        damsm: the trained stage before, with `encode_text`, `image_encoder` and `embedding_dim`.
        perceptual: frozen network from images to features, VGG-16's relu2_2.
        optimizers: partials for `generator` and `discriminators`.
        width, noise_dim, condition_dim, num_residual, base_size, shared_width: as `MainModule`.
        discriminator_width: channels after the discriminators' first convolution.
        gamma1, gamma2, gamma3: smoothing factors of DAMSM.
        lambda_damsm: weight of the DAMSM terms.
        decay: of the generator's moving average, which makes the images.
    """

    task = TEXT_GUIDED_EDITING
    trains_on = frozenset({"image", "caption", "caption_mismatched", "class_id"})
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
        gamma1: float,
        gamma2: float,
        gamma3: float,
        lambda_damsm: float,
        decay: float,
    ) -> None:
        super().__init__(optimizers)
        self.damsm = Frozen(damsm)
        self.perceptual = perceptual
        self.sizes = [base_size, 2 * base_size, 4 * base_size]
        self.noise_dim, self.condition_dim = noise_dim, condition_dim
        self.gammas = {"gamma1": gamma1, "gamma2": gamma2, "gamma3": gamma3}
        self.lambda_damsm = lambda_damsm
        self.generator = MainModule(
            width, damsm.embedding_dim, noise_dim, condition_dim, num_residual, base_size, shared_width
        )
        self.discriminators = nn.ModuleList(
            Discriminator(size, discriminator_width, damsm.embedding_dim) for size in self.sizes
        )
        initialise_orthogonally(self.generator)
        initialise_orthogonally(self.discriminators)
        self.ema = EMA(self.generator, decay)

    def edited(self, network: nn.Module, image: EncodedImage, text: EncodedText, noise: Noise) -> MainOutput:
        """What `network`, the generator or its average, makes of encoded images and texts."""
        return network(
            noise=noise.normal("z", self.noise_dim),
            eps=noise.normal("eps", self.condition_dim),
            sentence=text.sentence,
            words=text.words,
            word_mask=text.word_mask,
            image_code=image.code,
            regions=image.regions,
        )

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
        noise, damsm = batch["noise"], self.damsm.network
        real = pyramid(batch["image"], self.sizes)
        with torch.no_grad():
            text = damsm.encode_text(batch["caption"], noise.streams("words"))
            mismatched = damsm.encode_text(batch["caption_mismatched"], noise.streams("mismatched words"))
            seen = damsm.image_encoder(batch["image"])
        output = self.edited(self.generator, seen, text, noise)
        terms = self.discriminator_terms(real, output.images, text)
        terms["L_word"] = word_level_term(seen, text, mismatched, self.gammas["gamma1"], self.gammas["gamma2"])
        self.minimise("discriminators", terms)
        with self.held(self.discriminators):
            self.minimise("generator", self.generator_terms(real, output, text, batch["class_id"]))
        self.ema.update(self.generator)

    def edit(self, batch: Batch, noise: Noise) -> tuple[MainOutput, EncodedText]:
        """Images towards their prompts by the averaged generator, and the prompts as encoded."""
        text = self.damsm.network.encode_text(batch[self.task.prompt])
        seen = self.damsm.network.image_encoder(batch["image"])
        return self.edited(self.ema, seen, text, noise), text

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        output, _ = self.edit(batch, noise)
        return output.images[-1]


class ManiGAN(Adversarial):
    """The detail correction module on the frozen main module: the last stage, and the published method.

    Args:
        main: the trained stage before.
        optimizers: partials for `correction` and `discriminator`.
        width, num_residual, shared_width: as `DetailCorrection`.
        discriminator_width: channels after the discriminator's first convolution.
        gamma1, gamma2, gamma3, lambda_damsm: as `ManiGANMain`.
        decay: of the module's moving average, which makes the images.
    """

    task = TEXT_GUIDED_EDITING
    trains_on = frozenset({"image", "caption", "caption_mismatched", "class_id"})
    official: ClassVar[dict[str, KeyMap]] = {"ema.average": DETAIL_CORRECTION}

    def __init__(
        self,
        main: ManiGANMain,
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        num_residual: int,
        shared_width: int,
        discriminator_width: int,
        gamma1: float,
        gamma2: float,
        gamma3: float,
        lambda_damsm: float,
        decay: float,
    ) -> None:
        super().__init__(optimizers)
        self.main = Frozen(main)
        self.gammas = {"gamma1": gamma1, "gamma2": gamma2, "gamma3": gamma3}
        self.lambda_damsm = lambda_damsm
        size, embedding_dim = main.sizes[-1], main.damsm.network.embedding_dim
        channels = main.perceptual.network.channels
        self.correction = DetailCorrection(width, size, embedding_dim, channels, num_residual, shared_width)
        self.discriminator = Discriminator(size, discriminator_width, embedding_dim)
        # The authors leave the correction module at PyTorch's own start.
        # https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/trainerDCM.py#L93
        initialise_orthogonally(self.discriminator)
        self.ema = EMA(self.correction, decay)

    def generator_terms(self, real: Tensor, fake: Tensor, text: EncodedText, class_id: Tensor) -> dict[str, Tensor]:
        """The correction module's objective (equation 6): the last term pushes it *away* from the input image."""
        features = self.discriminator(fake)
        adversarial = matching_aware_generator(
            self.discriminator.unconditional(features), self.discriminator.conditional(features, text.sentence)
        )
        seen = self.main.network.damsm.network.image_encoder(fake)
        return {
            "L_G": adversarial,
            **matching_terms(seen, text, class_id, **self.gammas, lambda_damsm=self.lambda_damsm),
            # The paper adds 1 - L1; the constant changes nothing, and the released code leaves it out.
            # https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/miscc/lossesDCM.py
            "L_reg": -(fake - real).abs().mean(),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        noise, main = batch["noise"], self.main.network
        damsm, real = main.damsm.network, batch["image"]
        with torch.no_grad():
            text = damsm.encode_text(batch["caption"], noise.streams("words"))
            mismatched = damsm.encode_text(batch["caption_mismatched"], noise.streams("mismatched words"))
            seen = damsm.image_encoder(real)
            output = main.edited(main.ema, seen, text, noise)
            features = main.perceptual(real)
        fake = self.correction(output.hidden, text.words, text.word_mask, features)
        terms = {
            "L_D": matching_aware_discriminator(*self.discriminator.judge_pairs(real, fake, text.sentence)),
            "L_word": word_level_term(seen, text, mismatched, self.gammas["gamma1"], self.gammas["gamma2"]),
        }
        self.minimise("discriminator", terms)
        with self.held(self.discriminator):
            self.minimise("correction", self.generator_terms(real, fake, text, batch["class_id"]))
        self.ema.update(self.correction)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        main = self.main.network
        output, text = main.edit(batch, noise)
        return self.ema(output.hidden, text.words, text.word_mask, main.perceptual(batch["image"]))
