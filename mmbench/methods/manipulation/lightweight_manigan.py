"""Lightweight ManiGAN: text-guided image manipulation with one image size, one discriminator and two fusions.

Bowen Li, Xiaojuan Qi, Philip H. S. Torr, Thomas Lukasiewicz. Lightweight Generative Adversarial Networks for
Text-Guided Image Manipulation. NeurIPS 2020. https://arxiv.org/abs/2010.12136
Authors' code: https://github.com/mrlibw/Lightweight-Manipulation/tree/d2a641d9d58ccf8aeb8996606a791a61087697ad

Deviations:
- The word-level training feedback is left out. In the released code, which made the released weights, it is computed
  from the real image, the caption and frozen encoders: a constant, added to the discriminator's loss.
  https://github.com/mrlibw/Lightweight-Manipulation/blob/d2a641d9d58ccf8aeb8996606a791a61087697ad/code/miscc/losses.py#L142
- Padding is masked, and each caption by its own mask, as in ManiGAN here: an image does not depend on its batch.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mmbench.core.adversarial import Adversarial
from mmbench.core.ema import EMA
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_GUIDED_EDITING
from mmbench.core.weights import KeyMap
from mmbench.layers.affine_combination import AffineCombination
from mmbench.layers.conditioning_augmentation import ConditioningAugmentation
from mmbench.layers.convolution import BATCHES_TRACKED, ConvNorm
from mmbench.layers.first_stage import FirstStage
from mmbench.layers.gated_convolution import ResizeBlock, UpBlock
from mmbench.layers.initialisation import initialise_orthogonally
from mmbench.layers.word_attention import linear_from_convolution
from mmbench.losses.adversarial import matching_aware_discriminator, matching_aware_generator
from mmbench.losses.attngan import Guide
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.losses.perceptual import feature_loss
from mmbench.networks.attngan import Discriminator
from mmbench.networks.damsm import EncodedImage, EncodedText
from mmbench.networks.manigan import Fusion, ImageHead, affine_keys, fusion_keys


class Edited(NamedTuple):
    """What the generator gives.

    Attributes:
        image: (N, 3, 8 * base_size, 8 * base_size) in [-1, 1].
        mu: (N, condition_dim), mean of the condition.
        log_variance: (N, condition_dim).
    """

    image: Tensor
    mu: Tensor
    log_variance: Tensor


class LightweightGenerator(nn.Module):
    """Two fusions of text and image: a small one of DAMSM's regions, a larger one of VGG's features.

    Args:
        width: channels of hidden features from the second fusion on, 32 for CUB and 48 for COCO; before it twice that.
        embedding_dim: size of words, sentences and image regions, 256.
        noise_dim: 100.
        condition_dim: size of the condition drawn from a sentence, 100.
        feature_channels: channels of the input image's features, 128 for VGG-16's relu2_2.
        num_residual: residual blocks in each fusion, 2 for CUB and 3 for COCO.
        base_size: size of the first fusion, an eighth of the image's.
        shared_width: channels inside the affine combinations.
    """

    def __init__(
        self,
        width: int,
        embedding_dim: int,
        noise_dim: int,
        condition_dim: int,
        feature_channels: int,
        num_residual: int,
        base_size: int = 32,
        shared_width: int = 128,
    ) -> None:
        super().__init__()
        fusion = (embedding_dim, num_residual, shared_width, AffineCombination)
        self.augmentation = ConditioningAugmentation(embedding_dim, condition_dim)
        self.first_stage = FirstStage(condition_dim + noise_dim + embedding_dim, 2 * width, base_size)
        # The authors upsample 17x17 regions by 1.9; in their PyTorch that reads the pixels that resizing to 32 does.
        self.regions_path = ResizeBlock(embedding_dim, width, base_size)
        self.coarse = Fusion(2 * width, width, base_size, *fusion)
        self.widen = UpBlock(6 * width, width)
        self.features_path = ConvNorm(feature_channels, width, 4, 2, nn.LeakyReLU(0.2, inplace=True))
        self.fine = Fusion(width, width, 2 * base_size, *fusion)
        self.upsample = nn.Sequential(UpBlock(3 * width, width), UpBlock(width, width))
        self.details_path = nn.Sequential(UpBlock(width, width), UpBlock(width, width))
        self.head = ImageHead(width, shared_width, AffineCombination)

    def forward(
        self,
        noise: Tensor,
        eps: Tensor,
        sentence: Tensor,
        words: Tensor,
        word_mask: Tensor,
        image_code: Tensor,
        regions: Tensor,
        features: Tensor,
    ) -> Edited:
        """Edits images towards captions.

        Args:
            noise: (N, noise_dim), standard normal.
            eps: (N, condition_dim), standard normal.
            sentence: (N, embedding_dim).
            words: (N, L, embedding_dim).
            word_mask: (N, L) bool, True at words.
            image_code: (N, embedding_dim), the input images as a whole, from DAMSM's image encoder.
            regions: (N, embedding_dim, h, w), their regions.
            features: (N, feature_channels, 4 * base_size, 4 * base_size), their VGG features.
        """
        condition, mu, log_variance = self.augmentation(sentence, eps)
        hidden = self.first_stage(torch.cat((condition, noise, image_code), dim=1))  # (N, 2 * width, base, base)
        hidden = self.widen(self.coarse(hidden, words, word_mask, self.regions_path(regions)))
        seen = self.features_path(features)  # (N, width, 2 * base, 2 * base)
        hidden = self.upsample(self.fine(hidden, words, word_mask, seen))  # (N, width, 8 * base, 8 * base)
        return Edited(self.head(hidden, self.details_path(seen)), mu, log_variance)


GENERATOR = KeyMap(
    rename={
        r"ca_net\.fc\.(.*)": r"augmentation.project.\1",
        r"h_net1\.fc\.0\.weight": r"first_stage.project.weight",
        r"h_net1\.fc\.1\.(.*)": r"first_stage.norm.\1",
        **{rf"h_net1\.upsample{n + 1}\.1\.weight": f"first_stage.upsample.{n}.convolution.weight" for n in range(3)},
        **fusion_keys("h_net1", "coarse", combination="ACM"),
        r"h_net1\.channel_att\.conv_context\.weight": "coarse.channel_attention.project.weight",
        r"h_net1\.upsample4\.1\.weight": "widen.convolution.weight",
        **fusion_keys("h_net3", "fine", combination="ACM"),
        r"h_net3\.channel_att\.conv_context\.weight": "fine.channel_attention.project.weight",
        r"h_net3\.upsample\.1\.weight": "upsample.0.convolution.weight",
        r"h_net3\.upsample2\.1\.weight": "upsample.1.convolution.weight",
        r"imgUpSample1\.1\.weight": "regions_path.1.convolution.weight",
        r"imgUpSample2\.([01])\.(.*)": r"features_path.\1.\2",
        r"imgUpSample3\.1\.weight": "details_path.0.convolution.weight",
        r"imgUpSample4\.1\.weight": "details_path.1.convolution.weight",
        r"img_net\.img\.0\.weight": "head.to_rgb.weight",
        **affine_keys("ACM", "head.combination"),
    },
    convert={r".*_attention\.project\.weight": linear_from_convolution},
    fill=BATCHES_TRACKED,
)


class LightweightManiGAN(Adversarial):
    """The generator, AttnGAN's largest discriminator and their training.

    Args:
        damsm: the trained stage before, with `encode_text`, `image_encoder` and `embedding_dim`.
        perceptual: frozen network from images to features, VGG-16's relu2_2.
        optimizers: partials for `generator` and `discriminator`.
        width, noise_dim, condition_dim, num_residual, base_size, shared_width: as `LightweightGenerator`.
        discriminator_width: channels after the discriminator's first convolution.
        max_words: captions longer than this keep so many of their words in training, 18 for CUB and 12 for COCO.
        max_prompt_words: the same of the texts that images are made from, 25 and 20.
        gamma1, gamma2, gamma3: smoothing factors of DAMSM.
        lambda_damsm: weight of the DAMSM terms.
        lambda_perceptual: weight of the perceptual term.
        decay: of the generator's moving average, which makes the images.
    """

    task = TEXT_GUIDED_EDITING
    trains_on = frozenset({"image", "caption", "class_id"})
    smallest_batch = 2  # the next image's caption is what the discriminator takes for a false one
    official: ClassVar[dict[str, KeyMap]] = {"ema.average": GENERATOR}

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
        max_words: int,
        max_prompt_words: int,
        gamma1: float,
        gamma2: float,
        gamma3: float,
        lambda_damsm: float,
        lambda_perceptual: float,
        decay: float,
    ) -> None:
        super().__init__(optimizers)
        self.guide = Guide(damsm, gamma1, gamma2, gamma3, lambda_damsm, max_words, max_prompt_words)
        self.perceptual = perceptual
        self.noise_dim, self.condition_dim = noise_dim, condition_dim
        self.lambda_perceptual = lambda_perceptual
        self.generator = LightweightGenerator(
            width,
            damsm.embedding_dim,
            noise_dim,
            condition_dim,
            perceptual.network.channels,
            num_residual,
            base_size,
            shared_width,
        )
        self.discriminator = Discriminator(8 * base_size, discriminator_width, damsm.embedding_dim)
        initialise_orthogonally(self.generator)
        initialise_orthogonally(self.discriminator)
        self.ema = EMA(self.generator, decay)

    def edited(
        self, network: nn.Module, image: EncodedImage, features: Tensor, text: EncodedText, noise: Noise
    ) -> Edited:
        """What `network`, the generator or its average, makes of images' codes and features, and of texts."""
        return network(
            noise=noise.normal("z", self.noise_dim),
            eps=noise.normal("eps", self.condition_dim),
            sentence=text.sentence,
            words=text.words,
            word_mask=text.word_mask,
            image_code=image.code,
            regions=image.regions,
            features=features,
        )

    def generator_terms(
        self, features: Tensor, output: Edited, text: EncodedText, class_id: Tensor
    ) -> dict[str, Tensor]:
        """The generator's objective on images that are to be what they were, since the caption is their own."""
        return {
            "L_G": matching_aware_generator(*self.discriminator.judge(output.image, text.sentence)),
            **self.guide.terms(output.image, text, class_id),
            "L_per": self.lambda_perceptual * feature_loss(self.perceptual(output.image), features),
            "KL": kl_to_standard_normal(output.mu, output.log_variance),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real, text = batch["image"], self.guide.captions(batch)
        features = self.perceptual(real)
        output = self.edited(self.generator, self.guide.images(real), features, text, batch["noise"])
        judged = self.discriminator.judge_pairs(real, output.image, text.sentence)
        self.minimise("discriminator", {"L_D": matching_aware_discriminator(*judged)})
        with self.held(self.discriminator):
            self.minimise("generator", self.generator_terms(features, output, text, batch["class_id"]))
        self.follow(self.ema, self.generator)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        seen, text = self.guide.images(batch["image"]), self.guide.prompts(batch[self.task.prompt])
        return self.edited(self.ema, seen, self.perceptual(batch["image"]), text, noise).image
