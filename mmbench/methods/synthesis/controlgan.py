"""ControlGAN: Controllable Text-to-Image Generation.

Bowen Li, Xiaojuan Qi, Thomas Lukasiewicz, Philip H. S. Torr. NeurIPS 2019. https://arxiv.org/abs/1909.07083
Authors' code: https://github.com/mrlibw/ControlGAN/tree/e6cf108bd5823487b3de6b5cf027e090df08a1c1

Where paper and released code differ, this is the code:
- The word-level discriminator has no parameters and teaches nobody: its probability is rebuilt from plain numbers, so
  that the discriminators' term is a constant (code/miscc/losses.py#L263), and the generator has no such term (#L157).
- The perceptual term is the mean over the three sizes (#L203).

Deviations:
- An image does not depend on its batch. The authors mask words of the wrong caption when the lengths in a batch differ
  (code/attention.py#L90 tiles the mask with the batch running fastest) and let channels attend to padding (#L128), so
  that the longest caption of a batch changes every image. Ours gives their result for a batch of one.
- The discriminators' word-level term is computed once, on the full size, and logged: see `word_level_term`.
- Discriminators give logits, and the sigmoid is part of the loss.
- Smaller real images are resized from the full one with anti-aliasing, on the device.
- Sizes follow from `base_size`; the paper's is 64.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mmbench.core.adversarial import Adversarial
from mmbench.core.ema import EMA
from mmbench.core.images import pyramid
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_TO_IMAGE
from mmbench.core.weights import KeyMap
from mmbench.layers.conditioning_augmentation import ConditioningAugmentation
from mmbench.layers.convolution import BATCHES_TRACKED, conv3x3
from mmbench.layers.first_stage import FirstStage
from mmbench.layers.gated_convolution import GatedResidual, UpBlock
from mmbench.layers.initialisation import initialise_orthogonally
from mmbench.layers.word_attention import ChannelAttention, SpatialAttention, linear_from_convolution
from mmbench.losses.attngan import Discriminators, Guide
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.losses.perceptual import pyramid_perceptual_loss
from mmbench.networks.damsm import EncodedText


class NextStage(nn.Module):
    """Hidden features meet the words, position by position and channel by channel, and double their size.

    Args:
        width: channels of the hidden features.
        size: their height and width.
        embedding_dim: size of words.
        num_residual: residual blocks.
    """

    def __init__(self, width: int, size: int, embedding_dim: int, num_residual: int) -> None:
        super().__init__()
        self.spatial_attention = SpatialAttention(width, embedding_dim)
        self.channel_attention = ChannelAttention(size**2, embedding_dim)
        self.residual = nn.Sequential(*(GatedResidual(3 * width, nn.BatchNorm2d) for _ in range(num_residual)))
        self.upsample = UpBlock(3 * width, width, norm=nn.BatchNorm2d)

    def forward(self, hidden: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """(N, width, size, size), (N, L, D) and (N, L) to (N, width, 2 * size, 2 * size)."""
        word_mask = word_mask[:, None]  # (N, 1, L)
        context, _ = self.spatial_attention(hidden, words, word_mask)
        # The channels of the context attend, not those of the hidden features.
        channel_context, _ = self.channel_attention(context, words, word_mask)
        fused = torch.cat((hidden, context, channel_context), dim=1)  # (N, 3 * width, size, size)
        return self.upsample(self.residual(fused))


class Generated(NamedTuple):
    """What the generator gives.

    Attributes:
        images: (N, 3, s, s) in [-1, 1] for s = base_size, 2 * base_size, 4 * base_size.
        mu: (N, condition_dim), mean of the condition.
        log_variance: (N, condition_dim).
    """

    images: list[Tensor]
    mu: Tensor
    log_variance: Tensor


class ControllableGenerator(nn.Module):
    """Three stages: a sentence and noise become a small image, and words refine it twice.

    Args:
        width: channels of hidden features, 32 for CUB and 48 for COCO.
        embedding_dim: size of words and sentences, 256.
        noise_dim: 100.
        condition_dim: size of the condition drawn from a sentence, 100.
        num_residual: residual blocks per stage, 2 for CUB and 3 for COCO.
        base_size: size of the first stage's image; the others double it.
    """

    def __init__(
        self,
        width: int,
        embedding_dim: int,
        noise_dim: int,
        condition_dim: int,
        num_residual: int,
        base_size: int = 64,
    ) -> None:
        super().__init__()
        self.augmentation = ConditioningAugmentation(embedding_dim, condition_dim)
        self.first_stage = FirstStage(condition_dim + noise_dim, width, base_size, nn.BatchNorm2d)
        self.next_stages = nn.ModuleList(
            NextStage(width, size, embedding_dim, num_residual) for size in (base_size, 2 * base_size)
        )
        self.to_rgb = nn.ModuleList(conv3x3(width, 3) for _ in range(3))

    def forward(self, noise: Tensor, eps: Tensor, sentence: Tensor, words: Tensor, word_mask: Tensor) -> Generated:
        """Draws images for captions.

        Args:
            noise: (N, noise_dim), standard normal.
            eps: (N, condition_dim), standard normal.
            sentence: (N, embedding_dim).
            words: (N, L, embedding_dim).
            word_mask: (N, L) bool, True at words.
        """
        condition, mu, log_variance = self.augmentation(sentence, eps)
        hidden = [self.first_stage(torch.cat((condition, noise), dim=1))]
        for stage in self.next_stages:
            hidden.append(stage(hidden[-1], words, word_mask))
        images = [to_rgb(features).tanh() for to_rgb, features in zip(self.to_rgb, hidden, strict=True)]
        return Generated(images, mu, log_variance)


UP_BLOCK = {1: "convolution", 2: "norm"}  # the authors' places in a list


def _next_stage(number: int) -> dict[str, str]:
    theirs, ours = f"h_net{number}", f"next_stages.{number - 2}"
    return {
        rf"{theirs}\.att\.conv_context\.weight": f"{ours}.spatial_attention.project.weight",
        rf"{theirs}\.channel_att\.conv_context{number}\.weight": f"{ours}.channel_attention.project.weight",
        rf"{theirs}\.residual\.(\d+)\.block\.0\.(.*)": rf"{ours}.residual.\1.gated.convolution.\2",
        rf"{theirs}\.residual\.(\d+)\.block\.1\.(.*)": rf"{ours}.residual.\1.gated.norm.\2",
        rf"{theirs}\.residual\.(\d+)\.block\.3\.(.*)": rf"{ours}.residual.\1.convolution.\2",
        rf"{theirs}\.residual\.(\d+)\.block\.4\.(.*)": rf"{ours}.residual.\1.norm.\2",
        **{rf"{theirs}\.upsample\.{place}\.(.*)": rf"{ours}.upsample.{part}.\1" for place, part in UP_BLOCK.items()},
    }


GENERATOR = KeyMap(
    rename={
        r"ca_net\.fc\.(.*)": r"augmentation.project.\1",
        r"h_net1\.fc\.0\.weight": r"first_stage.project.weight",
        r"h_net1\.fc\.1\.(.*)": r"first_stage.norm.\1",
        **{
            rf"h_net1\.upsample{n + 1}\.{place}\.(.*)": rf"first_stage.upsample.{n}.{part}.\1"
            for n in range(4)
            for place, part in UP_BLOCK.items()
        },
        **_next_stage(2),
        **_next_stage(3),
        **{rf"img_net{n + 1}\.img\.0\.weight": f"to_rgb.{n}.weight" for n in range(3)},
    },
    drop={
        r"h_net[23]\.att\.conv_context[23]\.weight": "never used",
        r"h_net2\.channel_att\.conv_context3\.weight": "the projection for the other stage's size, never used",
        r"h_net3\.channel_att\.conv_context2\.weight": "the projection for the other stage's size, never used",
    },
    convert={r".*_attention\.project\.weight": linear_from_convolution},
    fill=BATCHES_TRACKED,
)


class ControlGAN(Adversarial):
    """The generator and its training.

    Args:
        damsm: the trained stage before, with `encode_text`, `image_encoder` and `embedding_dim`.
        perceptual: frozen network from images to features, VGG-16's relu2_2.
        optimizers: partials for `generator` and `discriminators`.
        width, noise_dim, condition_dim, num_residual, base_size: as `ControllableGenerator`.
        discriminator_width: channels after the discriminators' first convolution.
        max_words: captions longer than this keep so many of their words in training, 18 for CUB and 12 for COCO.
        max_prompt_words: the same where images are generated, 25 for CUB and 20 for COCO.
        gamma1, gamma2, gamma3: smoothing factors of DAMSM.
        lambda_perceptual: weight of the perceptual term.
        lambda_damsm: weight of the DAMSM terms.
        decay: of the generator's moving average, which makes the images.
    """

    task = TEXT_TO_IMAGE
    trains_on = frozenset({"image", "caption", "caption_mismatched", "class_id"})
    smallest_batch = 2  # the next image's caption is what the discriminators take for a false one
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
        discriminator_width: int,
        max_words: int,
        max_prompt_words: int,
        gamma1: float,
        gamma2: float,
        gamma3: float,
        lambda_perceptual: float,
        lambda_damsm: float,
        decay: float,
    ) -> None:
        super().__init__(optimizers)
        self.guide = Guide(damsm, gamma1, gamma2, gamma3, lambda_damsm, max_words, max_prompt_words)
        self.perceptual = perceptual
        self.sizes = [base_size, 2 * base_size, 4 * base_size]
        self.noise_dim, self.condition_dim = noise_dim, condition_dim
        self.lambda_perceptual = lambda_perceptual
        self.generator = ControllableGenerator(
            width, damsm.embedding_dim, noise_dim, condition_dim, num_residual, base_size
        )
        self.discriminators = Discriminators(self.sizes, discriminator_width, damsm.embedding_dim)
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

    def generator_terms(
        self, real: Sequence[Tensor], output: Generated, text: EncodedText, class_id: Tensor
    ) -> dict[str, Tensor]:
        """The generator's objective: to be judged real at each size, to match the caption, to look like its image."""
        return {
            **self.discriminators.generator_terms(output.images, text.sentence),
            **self.guide.terms(output.images[-1], text, class_id),
            "L_per": self.lambda_perceptual * pyramid_perceptual_loss(self.perceptual, output.images, real),
            "KL": kl_to_standard_normal(output.mu, output.log_variance),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = pyramid(batch["image"], self.sizes)
        text = self.guide.captions(batch)
        output = self.drawn(self.generator, text, batch["noise"])
        terms = self.discriminators.discriminator_terms(real, output.images, text.sentence)
        terms["L_word"] = self.guide.word_level_term(batch, self.guide.images(batch["image"]), text)
        self.minimise("discriminators", terms)
        with self.held(self.discriminators):
            self.minimise("generator", self.generator_terms(real, output, text, batch["class_id"]))
        self.follow(self.ema, self.generator)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return self.drawn(self.ema, self.guide.prompts(batch[self.task.prompt]), noise).images[-1]

    def interpolated(self, batch: Batch, others: list[str], share: Tensor, noise: Noise) -> Tensor:
        """As `generate`, after texts that lie `share` (N,), in [0, 1], of the way from the batch's to N `others`."""
        text = self.guide.prompts([*batch[self.task.prompt], *others])
        return self.drawn(self.ema, text.interpolated(share), noise).images[-1]
