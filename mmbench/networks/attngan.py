"""What AttnGAN and its descendants have in common: a generator in stages, and a discriminator for each size.

Tao Xu et al. AttnGAN. CVPR 2018. https://arxiv.org/abs/1711.10485, section 3.1.
Authors' code: https://github.com/taoxugit/AttnGAN/tree/0d000e652b407e976cb88fab299e8566f3de8a37, code/model.py, classes
G_NET, D_NET64, D_NET128 and D_NET256. Their discriminators end in a sigmoid; ours give logits. What a generator does
between two sizes is each paper's own; AttnGAN's is here, since SEGAN has it too.
"""

from collections.abc import Iterable
from math import log2
from typing import NamedTuple

import torch
from einops import repeat
from torch import Tensor, nn

from mmbench.core.processes import next_rows
from mmbench.core.weights import KeyMap
from mmbench.layers.conditioning_augmentation import ConditioningAugmentation
from mmbench.layers.convolution import BATCHES_TRACKED, ConvNorm, conv3x3
from mmbench.layers.first_stage import FirstStage
from mmbench.layers.gated_convolution import GatedResidual, UpBlock
from mmbench.layers.word_attention import SpatialAttention

CODE_SIZE = 4  # height and width of the features


class Told(NamedTuple):
    """What the stages after the first are told.

    Attributes:
        words: (N, L, D).
        word_mask: (N, 1, L) bool, True at words.
        condition: (N, condition_dim), drawn from the sentence.
    """

    words: Tensor
    word_mask: Tensor
    condition: Tensor


class Generated(NamedTuple):
    """What a generator gives.

    Attributes:
        images: (N, 3, s, s) in [-1, 1], from small to large.
        attention: (N, L, s, s) of each stage after the first, s being the size that it begins with; sums to 1 over L.
        mu: (N, condition_dim), mean of the condition.
        log_variance: (N, condition_dim).
    """

    images: list[Tensor]
    attention: list[Tensor]
    mu: Tensor
    log_variance: Tensor


class StagedGenerator(nn.Module):
    """A sentence and noise become a small image, and words refine it, each time at twice the size.

    Args:
        width: channels of hidden features.
        embedding_dim: size of words and sentences.
        noise_dim, condition_dim: sizes of the noise and of the condition drawn from a sentence.
        base_size: size of the first stage's image.
        next_stages: hidden features (N, width, s, s) and `Told` to (N, width, 2s, 2s) and attention (N, L, s, s).
    """

    def __init__(
        self,
        width: int,
        embedding_dim: int,
        noise_dim: int,
        condition_dim: int,
        base_size: int,
        next_stages: Iterable[nn.Module],
    ) -> None:
        super().__init__()
        self.augmentation = ConditioningAugmentation(embedding_dim, condition_dim)
        self.first_stage = FirstStage(condition_dim + noise_dim, width, base_size, nn.BatchNorm2d)
        self.next_stages = nn.ModuleList(next_stages)
        self.to_rgb = nn.ModuleList(conv3x3(width, 3) for _ in range(1 + len(self.next_stages)))

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
        told = Told(words, word_mask[:, None], condition)
        hidden, attention = [self.first_stage(torch.cat((condition, noise), dim=1))], []
        for stage in self.next_stages:
            refined, looked = stage(hidden[-1], told)
            hidden.append(refined)
            attention.append(looked)
        shown = hidden[-len(self.to_rgb) :]
        images = [to_rgb(features).tanh() for to_rgb, features in zip(self.to_rgb, shown, strict=True)]
        return Generated(images, attention, mu, log_variance)


class NextStage(nn.Module):
    """An attention model and what follows it: hidden features look at the words and double their size.

    Args:
        width: channels of the hidden features.
        embedding_dim: size of words.
        num_residual: residual blocks.
    """

    def __init__(self, width: int, embedding_dim: int, num_residual: int) -> None:
        super().__init__()
        self.spatial_attention = SpatialAttention(width, embedding_dim)
        self.residual = nn.Sequential(*(GatedResidual(2 * width, nn.BatchNorm2d) for _ in range(num_residual)))
        self.upsample = UpBlock(2 * width, width, norm=nn.BatchNorm2d)

    def forward(self, hidden: Tensor, told: Told) -> tuple[Tensor, Tensor]:
        """(N, width, s, s) to (N, width, 2s, 2s), and the attention (N, L, s, s)."""
        context, attention = self.spatial_attention(hidden, told.words, told.word_mask)  # equation 2
        return self.upsample(self.residual(torch.cat((hidden, context), dim=1))), attention


class AttentionalGenerator(StagedGenerator):
    """The attentional generative network, equation 1.

    Args:
        width: channels of hidden features, 32 for CUB and 48 for COCO.
        embedding_dim: size of words and sentences, 256.
        noise_dim: 100.
        condition_dim: size of the condition drawn from a sentence, 100.
        num_residual: residual blocks per stage, 2 for CUB and 3 for COCO.
        base_size: size of the first stage's image; the others double it.
        num_sizes: stages, 3 of AttnGAN2 and 2 of AttnGAN1, which has one attention model.

    Raises:
        ValueError: there is no stage that looks at words.
    """

    def __init__(
        self,
        width: int,
        embedding_dim: int,
        noise_dim: int,
        condition_dim: int,
        num_residual: int,
        base_size: int = 64,
        num_sizes: int = 3,
    ) -> None:
        if num_sizes < 2:
            raise ValueError(f"expected num_sizes from 2, so that a stage looks at words, found {num_sizes}: raise it")
        stages = (NextStage(width, embedding_dim, num_residual) for _ in range(num_sizes - 1))
        super().__init__(width, embedding_dim, noise_dim, condition_dim, base_size, stages)


UP_BLOCK = {1: "convolution", 2: "norm"}  # the authors' places in a list
# From the authors' keys, which are StackGAN++'s and those of AttnGAN's descendants, to those of `StagedGenerator` and
# of the blocks that every paper's stages have.
GENERATOR_NAMES = {
    r"ca_net\.fc\.(.*)": r"augmentation.project.\1",
    r"h_net1\.fc\.0\.weight": r"first_stage.project.weight",
    r"h_net1\.fc\.1\.(.*)": r"first_stage.norm.\1",
    **{
        rf"h_net1\.upsample{n + 1}\.{place}\.(.*)": rf"first_stage.upsample.{n}.{part}.\1"
        for n in range(4)
        for place, part in UP_BLOCK.items()
    },
    **{
        rf"h_net{n + 2}\.{theirs}": f"next_stages.{n}.{ours}"
        for n in range(2)
        for theirs, ours in (
            (r"att\.conv_context\.weight", "spatial_attention.project.weight"),
            (r"residual\.(\d+)\.block\.0\.(.*)", r"residual.\1.gated.convolution.\2"),
            (r"residual\.(\d+)\.block\.1\.(.*)", r"residual.\1.gated.norm.\2"),
            (r"residual\.(\d+)\.block\.3\.(.*)", r"residual.\1.convolution.\2"),
            (r"residual\.(\d+)\.block\.4\.(.*)", r"residual.\1.norm.\2"),
            *((rf"upsample\.{place}\.(.*)", rf"upsample.{part}.\1") for place, part in UP_BLOCK.items()),
        )
    },
    **{rf"img_net{n + 1}\.img\.0\.weight": f"to_rgb.{n}.weight" for n in range(3)},
}


class PairLogits(NamedTuple):
    """What a discriminator says in its own training step; positive means real, or that image and sentence match.

    Attributes:
        real: (N,), real images.
        real_matched: (N,), real images with their sentences.
        real_mismatched: (N - 1,), each real image but the last with the next one's sentence.
        fake: (N,), generated images.
        fake_matched: (N,), generated images with the sentences they were made for.
    """

    real: Tensor
    real_matched: Tensor
    real_mismatched: Tensor
    fake: Tensor
    fake_matched: Tensor


class Discriminator(nn.Module):
    """Judges images of one size, alone and together with a sentence, from shared features.

    Convolutions of stride 2 halve the image down to 4x4 and double the channels; where that leads beyond 8 * width
    (images larger than 64), further convolutions halve the channels down to that.

    Args:
        image_size: height and width of the images, a power of two of at least 8.
        width: channels after the first convolution.
        embedding_dim: size of the sentence embedding.
    """

    def __init__(self, image_size: int, width: int, embedding_dim: int) -> None:
        super().__init__()
        num_halvings = int(log2(image_size // CODE_SIZE))
        assert image_size == CODE_SIZE * 2**num_halvings > CODE_SIZE, f"not a power of two above 4: {image_size}"
        channels = [width * 2**n for n in range(num_halvings)]
        blocks = [nn.Sequential(nn.Conv2d(3, width, 4, 2, 1, bias=False), _leaky())]
        blocks += [ConvNorm(channels[n], channels[n + 1], 4, 2, _leaky()) for n in range(num_halvings - 1)]
        blocks += [ConvNorm(channels[n], channels[n - 1], 3, 1, _leaky()) for n in range(num_halvings - 1, 3, -1)]
        code_channels = min(channels[-1], 8 * width)
        self.blocks = nn.Sequential(*blocks)
        self.alone = nn.Conv2d(code_channels, 1, CODE_SIZE)
        self.joint = ConvNorm(code_channels + embedding_dim, code_channels, 3, 1, _leaky())
        self.paired = nn.Conv2d(code_channels, 1, CODE_SIZE)

    def forward(self, image: Tensor) -> Tensor:
        """Features of images: (N, 3, image_size, image_size) in [-1, 1] to (N, C, 4, 4)."""
        return self.blocks(image)

    def unconditional(self, features: Tensor) -> Tensor:
        """Logits that the images are real: (N, C, 4, 4) to (N,)."""
        return self.alone(features).flatten()

    def conditional(self, features: Tensor, sentence: Tensor) -> Tensor:
        """Logits that the images are real and show the sentences: (N, C, 4, 4) and (N, D) to (N,)."""
        sentence = repeat(sentence, "n d -> n d h w", h=CODE_SIZE, w=CODE_SIZE)
        return self.paired(self.joint(torch.cat((features, sentence), dim=1))).flatten()

    def judge(self, image: Tensor, sentence: Tensor) -> tuple[Tensor, Tensor]:
        """`unconditional` and `conditional` of images (N, 3, image_size, image_size) and sentences (N, D)."""
        features = self(image)
        return self.unconditional(features), self.conditional(features, sentence)

    def judge_pairs(self, real: Tensor, fake: Tensor, sentence: Tensor) -> PairLogits:
        """Everything that the discriminator is trained on, for N >= 2.

        Real and generated images go through in two batches, as in the authors' code: batch normalisation sees each
        kind alone. The next sentence is a false caption.

        Args:
            real: (N, 3, image_size, image_size) in [-1, 1].
            fake: the same, detached here.
            sentence: (N, D).
        """
        real_features, fake_features = self(real), self(fake.detach())
        others = next_rows(sentence)
        return PairLogits(
            real=self.unconditional(real_features),
            real_matched=self.conditional(real_features, sentence),
            real_mismatched=self.conditional(real_features[: len(others)], others),
            fake=self.unconditional(fake_features),
            fake_matched=self.conditional(fake_features, sentence),
        )


class ConditionalDiscriminator(Discriminator):
    """As `Discriminator`, without a judgement of images alone: StackGAN's first stage's, and AttnDCGAN's."""

    def __init__(self, image_size: int, width: int, embedding_dim: int) -> None:
        super().__init__(image_size, width, embedding_dim)
        del self.alone

    def judge_matches(self, real: Tensor, fake: Tensor, sentence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What it is trained on: `real_matched`, `real_mismatched` and `fake_matched` of `PairLogits`."""
        features, others = self(real), next_rows(sentence)
        return (
            self.conditional(features, sentence),
            self.conditional(features[: len(others)], others),
            self.conditional(self(fake.detach()), sentence),
        )


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)


DISCRIMINATOR = KeyMap(
    rename={
        r"img_code_s16\.0\.(.*)": r"blocks.0.0.\1",
        r"img_code_s16\.2\.(.*)": r"blocks.1.0.\1",
        r"img_code_s16\.3\.(.*)": r"blocks.1.1.\1",
        r"img_code_s16\.5\.(.*)": r"blocks.2.0.\1",
        r"img_code_s16\.6\.(.*)": r"blocks.2.1.\1",
        r"img_code_s16\.8\.(.*)": r"blocks.3.0.\1",
        r"img_code_s16\.9\.(.*)": r"blocks.3.1.\1",
        r"img_code_s32\.(.*)": r"blocks.4.\1",
        r"img_code_s32_1\.(.*)": r"blocks.5.\1",  # 128 x 128 only
        r"img_code_s64\.(.*)": r"blocks.5.\1",  # 256 x 256 only, as the next two
        r"img_code_s64_1\.(.*)": r"blocks.6.\1",
        r"img_code_s64_2\.(.*)": r"blocks.7.\1",
        r"UNCOND_DNET\.outlogits\.0\.(.*)": r"alone.\1",
        r"COND_DNET\.jointConv\.(.*)": r"joint.\1",
        r"COND_DNET\.outlogits\.0\.(.*)": r"paired.\1",
    },
    fill=BATCHES_TRACKED,
)
