"""DF-GAN: A Simple and Effective Baseline for Text-to-Image Synthesis.

Ming Tao, Hao Tang, Fei Wu, Xiao-Yuan Jing, Bing-Kun Bao, Changsheng Xu. CVPR 2022. https://arxiv.org/abs/2008.05865
Authors' code: https://github.com/tobran/DF-GAN/tree/78f14fd72cb70172d2067791c9df386f03f5124b

Where paper and released code differ, this is the code:
- Noise is part of every block's condition, beside the sentence (code/models/GAN.py#L34).
- Noise that makes an image to be looked at is cut off at 2 and multiplied by 0.88 (code/lib/utils.py#L37).

Deviations:
- What works pixel by pixel comes before nearest-neighbour upsampling, and pooling before a convolution of one pixel:
  the same numbers from a quarter of the products.
- An unused shortcut of the discriminator's inner blocks, which the authors keep among its weights, is left out.
- The gradient penalty is computed in full precision, whatever the rest is.
"""

from collections.abc import Mapping
from itertools import pairwise
from math import erf, log2, sqrt
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.processes import gathered, own
from mmbench.core.sentence_to_image import SentenceToImage
from mmbench.core.weights import KeyMap
from mmbench.layers.convolution import conv3x3
from mmbench.layers.upsampling import UpsamplingConvolution
from mmbench.losses.adversarial import hinge_fake, hinge_real
from mmbench.losses.penalties import matching_aware_penalty
from mmbench.networks.sentences import Sentences

CUT_OFF = 2.0  # deviations beyond which noise is drawn again


class Affine(nn.Module):
    """Scales and shifts channels by what two small networks make of the condition; at the start it changes nothing."""

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.scale, self.shift = (_two_layers(condition_dim, channels, start) for start in (1.0, 0.0))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, C, H, W) and (N, condition_dim) to (N, C, H, W)."""
        return self.scale(condition)[..., None, None] * x + self.shift(condition)[..., None, None]


def _two_layers(in_features: int, out_features: int, start: float) -> nn.Sequential:
    """Two linear layers, of which the second gives `start` whatever comes in, until it has learned."""
    last = nn.Linear(out_features, out_features)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, start)
    return nn.Sequential(nn.Linear(in_features, out_features), nn.ReLU(), last)


class Fusion(nn.Module):
    """The deep fusion of text and image: two affine transformations, an activation behind each (figure 4)."""

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.affines = nn.ModuleList(Affine(condition_dim, channels) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, C, H, W) and (N, condition_dim) to (N, C, H, W)."""
        for affine in self.affines:
            x = F.leaky_relu(affine(x, condition), 0.2)
        return x


class FusionUpBlock(nn.Module):
    """Doubles the size: a residual of two fusions, each before a convolution, and a shortcut."""

    def __init__(self, condition_dim: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.fusion1, self.fusion2 = Fusion(condition_dim, in_channels), Fusion(condition_dim, out_channels)
        self.convolution1 = UpsamplingConvolution(in_channels, out_channels, bias=True)
        self.convolution2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, in_channels, H, W) and (N, condition_dim) to (N, out_channels, 2H, 2W)."""
        residual = self.convolution1(self.fusion1(x, condition))
        residual = self.convolution2(self.fusion2(residual, condition))
        return F.interpolate(self.shortcut(x), scale_factor=2, mode="nearest") + residual


def channels_of(width: int, image_size: int) -> list[int]:
    """Channels of features at the image's size, at half of it, and so on to those of 4 pixels."""
    return [width * min(2**halvings, 8) for halvings in range(int(log2(image_size)) - 1)]


class Generator(nn.Module):
    """One stage from noise to the image; the sentence and the noise are fused into every block.

    Args:
        image_size: height and width of images, a power of two from 32 on.
        width: channels of the last features, 32.
        noise_dim: 100.
        sentence_dim: size of sentence embeddings, 256.
    """

    def __init__(self, image_size: int, width: int, noise_dim: int, sentence_dim: int) -> None:
        super().__init__()
        channels = channels_of(width, image_size)[::-1]
        self.project = nn.Linear(noise_dim, channels[0] * 4 * 4)
        self.blocks = nn.ModuleList(FusionUpBlock(noise_dim + sentence_dim, *pair) for pair in pairwise(channels))
        self.to_rgb = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, noise: Tensor, sentence: Tensor) -> Tensor:
        """(N, noise_dim) and (N, sentence_dim) to images (N, 3, H, W) in [-1, 1]."""
        condition = torch.cat((noise, sentence), dim=1)
        hidden = self.project(noise).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            hidden = block(hidden, condition)
        return self.to_rgb(F.leaky_relu(hidden, 0.2)).tanh()


class DownBlock(nn.Module):
    """Halves the size: a shortcut, and a residual with a weight that is learned, 0 at the start."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False),
            nn.LeakyReLU(0.2),
            conv3x3(out_channels, out_channels),
            nn.LeakyReLU(0.2),
        )
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / 2, W / 2)."""
        return self.shortcut(F.avg_pool2d(x, 2)) + self.gamma * self.residual(x)


class Discriminator(nn.Module):
    """One-way output: judges an image and a sentence as a pair, and the image in no other way (figure 5).

    Args:
        image_size: height and width of images, a power of two from 32 on.
        width: channels after the first convolution, 32.
        sentence_dim: size of sentence embeddings, 256.
    """

    def __init__(self, image_size: int, width: int, sentence_dim: int) -> None:
        super().__init__()
        channels = channels_of(width, image_size)
        self.features = nn.Sequential(
            nn.Conv2d(3, channels[0], 3, padding=1), *(DownBlock(*pair) for pair in pairwise(channels))
        )
        self.joint = self.judge(channels[-1] + sentence_dim, width)

    @staticmethod
    def judge(in_channels: int, width: int) -> nn.Sequential:
        """What makes one logit of (N, in_channels, 4, 4): (N, 1, 1, 1)."""
        return nn.Sequential(
            conv3x3(in_channels, 2 * width), nn.LeakyReLU(0.2), nn.Conv2d(2 * width, 1, kernel_size=4, bias=False)
        )

    def match(self, features: Tensor, sentence: Tensor) -> Tensor:
        """`features` of N images (N, C, 4, 4) and N sentences (N, D) to logits (N,)."""
        sentence = sentence[..., None, None].expand(-1, -1, *features.shape[2:])
        return self.joint(torch.cat((features, sentence), dim=1)).flatten()

    def forward(self, image: Tensor, sentence: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] and sentences (N, D) to logits (N,)."""
        return self.match(self.features(image), sentence)


class TwoWayDiscriminator(Discriminator):
    """As `Discriminator`, and judges the image alone as well."""

    def __init__(self, image_size: int, width: int, sentence_dim: int) -> None:
        super().__init__(image_size, width, sentence_dim)
        self.alone = self.judge(channels_of(width, image_size)[-1], width)


GENERATOR = KeyMap(
    rename={
        r"fc\.(.*)": r"project.\1",
        r"GBlocks\.(\d+)\.c([12])\.(.*)": r"blocks.\1.convolution\2.\3",
        r"GBlocks\.(\d+)\.c_sc\.(.*)": r"blocks.\1.shortcut.\2",
        **{
            rf"GBlocks\.(\d+)\.fuse([12])\.affine([01])\.fc_{theirs}\.linear{number}\.(.*)": (
                rf"blocks.\1.fusion\2.affines.\3.{ours}.{place}.\4"
            )
            for theirs, ours in (("gamma", "scale"), ("beta", "shift"))
            for number, place in ((1, 0), (2, 2))
        },
        r"to_rgb\.1\.(.*)": r"to_rgb.\1",
    }
)


def discriminator_keys(image_size: int) -> KeyMap:
    """The authors' keys, `netD.` before those of features and `netC.` before the others."""
    blocks = int(log2(image_size)) - 2
    return KeyMap(
        rename={
            r"netD\.conv_img\.(.*)": r"features.0.\1",
            **{rf"netD\.DBlocks\.{n}\.conv_r\.(.*)": rf"features.{n + 1}.residual.\1" for n in range(blocks)},
            **{rf"netD\.DBlocks\.{n}\.conv_s\.(.*)": rf"features.{n + 1}.shortcut.\1" for n in range(blocks)},
            **{rf"netD\.DBlocks\.{n}\.gamma": f"features.{n + 1}.gamma" for n in range(blocks)},
            r"netC\.joint_conv\.(.*)": r"joint.\1",
        },
        drop={rf"netD\.DBlocks\.{n}\.conv_s\..*": "as many channels go out, never used" for n in range(3, blocks)},
    )


def cut_off(uniform: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) to standard normal ones of those within `CUT_OFF` deviations."""
    below = (1 - erf(CUT_OFF / sqrt(2))) / 2  # the share of normal numbers that lies below -CUT_OFF
    return torch.special.ndtri(below + (1 - 2 * below) * uniform).clamp(-CUT_OFF, CUT_OFF)


class DFGAN(SentenceToImage):
    """The generator and its training against a discriminator with a matching-aware gradient penalty.

    Args:
        damsm: the trained stage before, with `encode_text` and `embedding_dim`.
        optimizers: partials for `generator` and `discriminator`.
        image_size: height and width of images, a power of two from 32 on.
        width, noise_dim: as `Generator`; the discriminator has the same width.
        max_words: captions longer than this keep so many of their words.
        sentence_scale: what sentence embeddings are multiplied by, 1 as published.
        penalty_weight: k of the gradient penalty.
        penalty_power: p of it.
        truncation: what noise is multiplied by, once it is cut off, where images are made to be looked at.
    """

    trains_on = frozenset({"image", "caption"})
    smallest_batch = 2  # the next image is what the discriminator is shown with a false caption
    official: ClassVar[dict[str, KeyMap]] = {"generator": GENERATOR}
    discriminator_type: ClassVar[type[Discriminator]] = Discriminator

    def __init__(
        self,
        damsm: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        image_size: int,
        width: int,
        noise_dim: int,
        max_words: int,
        sentence_scale: float,
        penalty_weight: float,
        penalty_power: float,
        truncation: float,
    ) -> None:
        super().__init__(optimizers)
        self.sentences = Sentences(damsm, max_words, sentence_scale)
        self.noise_dim, self.truncation = noise_dim, truncation
        self.penalty_weight, self.penalty_power = penalty_weight, penalty_power
        self.generator = Generator(image_size, width, noise_dim, self.sentences.dim)
        self.discriminator = self.discriminator_type(image_size, width, self.sentences.dim)

    def discriminator_terms(self, real: Tensor, fake: Tensor, sentence: Tensor) -> dict[str, Tensor]:
        """Equation 2: real images with their sentences, with those of others, and generated ones; and the penalty.

        Args:
            real: (N, 3, H, W), which requires a gradient.
            fake: (N, 3, H, W).
            sentence: (N, D), of both, which requires a gradient.
        """
        with torch.autocast(real.device.type, enabled=False):
            features = self.discriminator.features(real)
            matched = self.discriminator.match(features, sentence)
            penalty = matching_aware_penalty(real, sentence, matched, self.penalty_power)
        others = own(gathered(features).roll(-1, dims=0))  # of the next image of the whole batch
        mismatched = self.discriminator.match(others, sentence)
        return {
            "L_D_real": hinge_real(matched),
            "L_D_fake": hinge_fake(self.discriminator(fake, sentence)) / 2,
            "L_D_mismatched": hinge_fake(mismatched) / 2,
            "MA_GP": self.penalty_weight * penalty,
        }

    def generator_terms(self, fake: Tensor, sentence: Tensor) -> dict[str, Tensor]:
        """Generated images (N, 3, H, W) are to be judged to match their sentences (N, D)."""
        return {"L_G": -self.discriminator(fake, sentence).mean()}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        sentence = self.sentences.captions(batch)
        fake = self.generator(batch["noise"].normal("z", self.noise_dim), sentence)
        real = batch["image"].detach().requires_grad_()
        paired = sentence.detach().to(real.dtype).requires_grad_()
        self.minimise("discriminator", self.discriminator_terms(real, fake.detach(), paired))
        with self.held(self.discriminator):
            self.minimise("generator", self.generator_terms(fake, sentence))

    def encoded(self, texts: list[str]) -> Tensor:
        return self.sentences.prompts(texts)

    def images(self, sentence: Tensor, noise: Noise) -> Tensor:
        return self.generator(self.truncation * cut_off(noise.uniform("z", self.noise_dim)), sentence)


class DFGANTwoWay(DFGAN):
    """With two-way output, the ablation of section 3.4: a second judge sees the image without its sentence.

    No code was released for it. Both judges read the same features and have hinge losses of the same weight; the
    penalty stays that of the conditional one.
    """

    official: ClassVar[dict[str, KeyMap]] = {}
    discriminator_type = TwoWayDiscriminator

    def discriminator_terms(self, real: Tensor, fake: Tensor, sentence: Tensor) -> dict[str, Tensor]:
        return {
            **super().discriminator_terms(real, fake, sentence),
            "L_D_real_alone": hinge_real(self.alone(real)),
            "L_D_fake_alone": hinge_fake(self.alone(fake)),
        }

    def generator_terms(self, fake: Tensor, sentence: Tensor) -> dict[str, Tensor]:
        return {**super().generator_terms(fake, sentence), "L_G_alone": -self.alone(fake).mean()}

    def alone(self, image: Tensor) -> Tensor:
        """Logits (N,) of images without their sentences."""
        return self.discriminator.alone(self.discriminator.features(image)).flatten()
