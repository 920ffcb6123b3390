"""StackGAN++: Realistic Image Synthesis with Stacked Generative Adversarial Networks (StackGAN-v2).

Han Zhang, Tao Xu, Hongsheng Li, Shaoting Zhang, Xiaogang Wang, Xiaolei Huang, Dimitris Metaxas. TPAMI 2018.
https://arxiv.org/abs/1710.10916
Authors' code: https://github.com/hanzhanggit/StackGAN-v2/tree/6228e347007198940898c3d0679d9698235d3c00

One generator whose branches draw an image of three sizes, each judged by a discriminator of its own, alone and together
with the condition.

Where paper and released code differ, this is the code:
- A real image with another's sentence is a false pair, and real as an image alone (code/trainer.py#L564).
- The divergence is the mean over dimensions, and weighs 2 (code/miscc/config.py).

Deviations:
- Discriminators give logits, and the sigmoid is part of the loss. They are AttnGAN's, which took them from here: the
  condition stands behind the features, where it stands before them here. `DISCRIMINATOR` moves weights accordingly.
- False images are of another class, always; the authors draw once more where classes agree, and may agree again.
- Smaller real images are resized from the full one with anti-aliasing, on the device.
- Sizes follow from `base_size`; the paper's is 64.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mmbench.core.ema import EMA
from mmbench.core.frozen import Frozen
from mmbench.core.images import pyramid
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.sentence_to_image import SentenceToImage
from mmbench.core.weights import KeyMap
from mmbench.layers.conditioning_augmentation import ConditioningAugmentation
from mmbench.layers.convolution import BATCHES_TRACKED, conv3x3
from mmbench.layers.first_stage import FirstStage
from mmbench.layers.gated_convolution import GatedConvolution, GatedResidual, UpBlock
from mmbench.layers.initialisation import initialise_orthogonally
from mmbench.losses.adversarial import (
    cross_entropy_fake,
    cross_entropy_real,
    matching_aware_generator,
    matching_aware_pairs,
)
from mmbench.losses.colour import colour_consistency
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.networks.attngan import DISCRIMINATOR as ATTNGAN_DISCRIMINATOR
from mmbench.networks.attngan import GENERATOR_NAMES, ConditionalDiscriminator, Discriminator

NUM_SIZES = 3


class NextStage(nn.Module):
    """Hidden features are joined with the condition, double their size and halve their channels.

    Args:
        width: channels of the hidden features.
        condition_dim: size of the condition.
        num_residual: residual blocks.
    """

    def __init__(self, width: int, condition_dim: int, num_residual: int) -> None:
        super().__init__()
        self.join = GatedConvolution(condition_dim + width, width, nn.BatchNorm2d)
        self.residual = nn.Sequential(*(GatedResidual(width, nn.BatchNorm2d) for _ in range(num_residual)))
        self.upsample = UpBlock(width, width // 2, nn.BatchNorm2d)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """(N, width, size, size) and (N, condition_dim) to (N, width / 2, 2 * size, 2 * size)."""
        everywhere = condition[:, :, None, None].expand(-1, -1, *hidden.shape[2:])
        return self.upsample(self.residual(self.join(torch.cat((everywhere, hidden), dim=1))))


class Generated(NamedTuple):
    """What the generator gives.

    Attributes:
        images: (N, 3, s, s) in [-1, 1], one for each branch, from small to large.
        mu: (N, condition_dim), mean of the condition.
        log_variance: (N, condition_dim).
    """

    images: list[Tensor]
    mu: Tensor
    log_variance: Tensor


class TreeGenerator(nn.Module):
    """Hidden features of three sizes, one grown from the other, and branches that make images of them.

    Args:
        width: channels of the smallest hidden features, 64; each larger ones have half as many.
        embedding_dim: size of sentences, 1024.
        noise_dim: 100.
        condition_dim: size of the condition drawn from a sentence, 128.
        num_residual: residual blocks of each stage but the first, 2.
        base_size: size of the smallest hidden features; the others double it.
        num_branches: sizes that become images, from the largest: 3; 1 where nothing but the last image is judged.
    """

    def __init__(
        self,
        width: int,
        embedding_dim: int,
        noise_dim: int,
        condition_dim: int,
        num_residual: int,
        base_size: int,
        num_branches: int,
    ) -> None:
        super().__init__()
        widths = [width // 2**n for n in range(NUM_SIZES)]
        self.augmentation = ConditioningAugmentation(embedding_dim, condition_dim)
        self.first_stage = FirstStage(condition_dim + noise_dim, width, base_size, nn.BatchNorm2d)
        self.next_stages = nn.ModuleList(NextStage(one, condition_dim, num_residual) for one in widths[:-1])
        self.to_rgb = nn.ModuleList(conv3x3(one, 3) for one in widths[-num_branches:])

    def forward(self, sentence: Tensor, noise: Tensor, eps: Tensor) -> Generated:
        """Draws images for sentences.

        Args:
            sentence: (N, embedding_dim).
            noise: (N, noise_dim), standard normal.
            eps: (N, condition_dim), standard normal.
        """
        condition, mu, log_variance = self.augmentation(sentence, eps)
        hidden = [self.first_stage(torch.cat((condition, noise), dim=1))]
        for stage in self.next_stages:
            hidden.append(stage(hidden[-1], condition))
        branches = zip(self.to_rgb, hidden[-len(self.to_rgb) :], strict=True)
        return Generated([to_rgb(features).tanh() for to_rgb, features in branches], mu, log_variance)


GENERATOR = KeyMap(
    rename={
        **GENERATOR_NAMES,
        **{
            rf"h_net{n + 2}\.jointConv\.{place}\.(.*)": rf"next_stages.{n}.join.{part}.\1"
            for n in range(2)
            for place, part in enumerate(("convolution", "norm"))
        },
    },
    fill=BATCHES_TRACKED,
)


def features_first(weight: Tensor) -> Tensor:
    """Weights (C, condition_dim + C, 3, 3) of the condition before the features to those of it behind them."""
    condition_dim = weight.shape[1] - weight.shape[0]
    return weight.roll(-condition_dim, dims=1)


DISCRIMINATOR = KeyMap(
    rename={
        **{theirs: ours for theirs, ours in ATTNGAN_DISCRIMINATOR.rename.items() if theirs.startswith("img_code")},
        r"jointConv\.(.*)": r"joint.\1",
        r"logits\.0\.(.*)": r"paired.\1",
        r"uncond_logits\.0\.(.*)": r"alone.\1",
    },
    convert={r"joint\.0\.weight": features_first},
    fill=BATCHES_TRACKED,
)


class StackGANPP(SentenceToImage):
    """The tree and its training against a discriminator for each size.

    Args:
        text_encoder: the trained stage before, with `encode_text` and `embedding_dim`.
        optimizers: partials for `generator` and `discriminators`.
        width, noise_dim, condition_dim, num_residual, base_size, num_branches: as `TreeGenerator`.
        discriminator_width: channels after the discriminators' first convolution, 64.
        lambda_kl: weight of the condition's divergence from a standard normal.
        lambda_colour: weight of colour consistency between neighbouring sizes, 50 in the paper where there is no text.
        decay: of the generator's moving average, which makes the images.
    """

    trains_on = frozenset({"image", "image_mismatched", "caption"})
    smallest_batch = 2  # of a single vector there is no variance to normalise by
    official: ClassVar[dict[str, KeyMap]] = {"ema.average": GENERATOR}
    judge: ClassVar[type[Discriminator]] = Discriminator

    def __init__(
        self,
        text_encoder: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        noise_dim: int,
        condition_dim: int,
        num_residual: int,
        base_size: int,
        num_branches: int,
        discriminator_width: int,
        lambda_kl: float,
        lambda_colour: float,
        decay: float,
    ) -> None:
        super().__init__(optimizers)
        self.text_encoder = Frozen(text_encoder)
        self.sizes = [base_size * 2**n for n in range(NUM_SIZES)][-num_branches:]
        self.noise_dim, self.condition_dim = noise_dim, condition_dim
        self.lambda_kl, self.lambda_colour = lambda_kl, lambda_colour
        self.generator = TreeGenerator(
            width, text_encoder.embedding_dim, noise_dim, condition_dim, num_residual, base_size, num_branches
        )
        self.discriminators = nn.ModuleList(self.judge(one, discriminator_width, condition_dim) for one in self.sizes)
        initialise_orthogonally(self.generator)
        initialise_orthogonally(self.discriminators)
        self.ema = EMA(self.generator, decay)

    def encoded(self, texts: list[str]) -> Tensor:
        return self.text_encoder.network.encode_text(texts)

    def drawn(self, network: nn.Module, sentence: Tensor, noise: Noise) -> Generated:
        """What `network`, the generator or its average, draws for sentences (N, embedding_dim)."""
        return network(sentence, noise.normal("z", self.noise_dim), noise.normal("eps", self.condition_dim))

    def judged(
        self, discriminator: Discriminator, real: Tensor, mismatched: Tensor, fake: Tensor, condition: Tensor
    ) -> Tensor:
        """A discriminator's loss: real images, others' and generated ones, alone and with conditions."""
        real_alone, real_matched = discriminator.judge(real, condition)
        other_alone, real_mismatched = discriminator.judge(mismatched, condition)
        fake_alone, fake_matched = discriminator.judge(fake, condition)
        alone = cross_entropy_real(real_alone) + cross_entropy_real(other_alone) + cross_entropy_fake(fake_alone)
        paired = cross_entropy_real(real_matched) + cross_entropy_fake(real_mismatched)
        return alone + paired + cross_entropy_fake(fake_matched)

    def fooled(self, discriminator: Discriminator, fake: Tensor, condition: Tensor) -> Tensor:
        """The generator's loss by a discriminator: images are to be judged real, alone and with conditions."""
        return matching_aware_generator(*discriminator.judge(fake, condition))

    def discriminator_terms(
        self, real: Sequence[Tensor], mismatched: Sequence[Tensor], output: Generated
    ) -> dict[str, Tensor]:
        """Section 4.2, for each size; images are (N, 3, s, s), one for each, `mismatched` those of other classes."""
        condition = output.mu.detach()
        fake = [images.detach() for images in output.images]
        return {
            f"L_D{images[0].shape[-1]}": self.judged(discriminator, *images, condition)
            for discriminator, *images in zip(self.discriminators, real, mismatched, fake, strict=True)
        }

    def generator_terms(self, output: Generated) -> dict[str, Tensor]:
        """Sections 4.2 and, where it weighs anything, 4.3 (colour consistency); and the condition's divergence."""
        terms = {
            f"L_G{fake.shape[-1]}": self.fooled(discriminator, fake, output.mu)
            for discriminator, fake in zip(self.discriminators, output.images, strict=True)
        }
        if self.lambda_colour:
            for smaller, image in pairwise(output.images):
                terms[f"colour{image.shape[-1]}"] = self.lambda_colour * colour_consistency(image, smaller)
        return terms | {"KL": self.lambda_kl * kl_to_standard_normal(output.mu, output.log_variance)}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real, mismatched = (pyramid(batch[field], self.sizes) for field in ("image", "image_mismatched"))
        output = self.drawn(self.generator, self.encoded(batch["caption"]), batch["noise"])
        self.minimise("discriminators", self.discriminator_terms(real, mismatched, output))
        with self.held(self.discriminators):
            self.minimise("generator", self.generator_terms(output))
        self.follow(self.ema, self.generator)

    def images(self, sentence: Tensor, noise: Noise) -> Tensor:
        return self.drawn(self.ema, sentence, noise).images[-1]

    def generate_stages(self, batch: Batch, noise: Noise) -> list[Tensor]:
        """As `generate`: the images of all branches."""
        return self.drawn(self.ema, self.encoded(batch[self.task.prompt]), noise).images


class StackGANPPPairs(StackGANPP):
    """StackGAN++ without judging images alone ("no JCU" in the paper): discriminators see pairs only."""

    official: ClassVar[dict[str, KeyMap]] = {}
    judge = ConditionalDiscriminator

    def judged(
        self, discriminator: Discriminator, real: Tensor, mismatched: Tensor, fake: Tensor, condition: Tensor
    ) -> Tensor:
        """As the code has it where the weight of images alone is 0."""
        pairs = (discriminator.conditional(discriminator(images), condition) for images in (real, mismatched, fake))
        return matching_aware_pairs(*pairs)

    def fooled(self, discriminator: Discriminator, fake: Tensor, condition: Tensor) -> Tensor:
        return cross_entropy_real(discriminator.conditional(discriminator(fake), condition))
