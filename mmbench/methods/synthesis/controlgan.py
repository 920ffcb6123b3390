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
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmbench.core.images import pyramid
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.weights import KeyMap
from mmbench.layers.convolution import BATCHES_TRACKED
from mmbench.layers.gated_convolution import GatedResidual, UpBlock
from mmbench.layers.word_attention import ChannelAttention, SpatialAttention, linear_from_convolution
from mmbench.losses.attngan import Discriminators, Guide, StagedGAN
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.losses.perceptual import pyramid_perceptual_loss
from mmbench.networks.attngan import GENERATOR_NAMES, Generated, StagedGenerator, Told
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

    def forward(self, hidden: Tensor, told: Told) -> tuple[Tensor, Tensor]:
        """(N, width, size, size) to (N, width, 2 * size, 2 * size), and the positions' attention."""
        words, word_mask, _ = told
        context, attention = self.spatial_attention(hidden, words, word_mask)
        # The channels of the context attend, not those of the hidden features.
        channel_context, _ = self.channel_attention(context, words, word_mask)
        fused = torch.cat((hidden, context, channel_context), dim=1)  # (N, 3 * width, size, size)
        return self.upsample(self.residual(fused)), attention


class ControllableGenerator(StagedGenerator):
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
        stages = (NextStage(width, size, embedding_dim, num_residual) for size in (base_size, 2 * base_size))
        super().__init__(width, embedding_dim, noise_dim, condition_dim, base_size, stages)


GENERATOR = KeyMap(
    rename={
        **GENERATOR_NAMES,
        **{
            rf"h_net{n}\.channel_att\.conv_context{n}\.weight": f"next_stages.{n - 2}.channel_attention.project.weight"
            for n in (2, 3)
        },
    },
    drop={
        r"h_net[23]\.att\.conv_context[23]\.weight": "never used",
        r"h_net2\.channel_att\.conv_context3\.weight": "the projection for the other stage's size, never used",
        r"h_net3\.channel_att\.conv_context2\.weight": "the projection for the other stage's size, never used",
    },
    convert={r".*_attention\.project\.weight": linear_from_convolution},
    fill=BATCHES_TRACKED,
)


class ControlGAN(StagedGAN):
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

    trains_on = frozenset({"image", "caption", "caption_mismatched", "class_id"})
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
        sizes, embedding_dim = (base_size, 2 * base_size, 4 * base_size), damsm.embedding_dim
        super().__init__(
            optimizers,
            Guide(damsm, gamma1, gamma2, gamma3, lambda_damsm, max_words, max_prompt_words),
            ControllableGenerator(width, embedding_dim, noise_dim, condition_dim, num_residual, base_size),
            Discriminators(sizes, discriminator_width, embedding_dim),
            noise_dim,
            condition_dim,
            decay,
        )
        self.perceptual = perceptual
        self.lambda_perceptual = lambda_perceptual

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
        real = pyramid(batch["image"], self.discriminators.sizes)
        text = self.guide.captions(batch)
        output = self.drawn(self.generator, text, batch["noise"])
        terms = self.discriminators.discriminator_terms(real, output.images, text.sentence)
        terms["L_word"] = self.guide.word_level_term(batch, self.guide.images(batch["image"]), text)
        self.minimise("discriminators", terms)
        with self.held(self.discriminators):
            self.minimise("generator", self.generator_terms(real, output, text, batch["class_id"]))
        self.follow(self.ema, self.generator)
