"""LDM: High-Resolution Image Synthesis with Latent Diffusion Models.

Robin Rombach, Andreas Blattmann, Dominik Lorenz, Patrick Esser, Björn Ommer. CVPR 2022. https://arxiv.org/abs/2112.10752
Authors' code: https://github.com/CompVis/latent-diffusion/tree/a506df5756472e2ebaf9078affdde2c4f1502cd4

The autoencoder regularised by a KL term is here; the one that quantises is VQGAN's (`conf/method/ldm_autoencoder_vq`).
What all second stages share is in `mmbench.diffusion.latent`, the networks are in `mmbench.networks.ldm`, inpainting in
`mmbench.methods.inpainting.ldm`.

Where paper and released code differ, this is the code:
- Samplers stop at the level of the schedule's first step, at which a little noise remains.
- Padding is looked at as words are (no mask is handed on).

Deviations:
- The authors' `logvar`, a parameter of the autoencoder's loss that no optimiser holds, is a number.
- The discriminator is shown the reconstruction that the autoencoder has just been stepped by, and is not trained before
  it takes part; theirs encodes anew and steps it by gradients of 0.
- The share of conditions that are left out in training, so that there is guidance, was not published for text. Ho and
  Salimans, https://arxiv.org/abs/2207.12598, found 0.1 and 0.2 best.
"""

from collections.abc import Callable, Mapping, Sequence
from math import exp
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch, Kept
from mmbench.core.noise import Noise
from mmbench.core.task import CLASS_TO_IMAGE, SUPER_RESOLUTION, TEXT_TO_IMAGE
from mmbench.core.text import Vocabulary
from mmbench.core.weights import KeyMap
from mmbench.diffusion.denoisers import Condition, Denoiser, Predicted, denoiser_of
from mmbench.diffusion.latent import LatentDiffusion
from mmbench.diffusion.objectives import simple
from mmbench.layers.classes import Classes
from mmbench.losses.adaptive import JudgedAutoencoder
from mmbench.losses.perceptual import perceptual_distance
from mmbench.losses.precision import in_float32
from mmbench.networks.ldm import (
    KL_AUTOENCODER,
    TEXT_ENCODER,
    UNET,
    ConditionedUNet,
    KLAutoencoder,
    Posterior,
    TextEncoder,
)
from mmbench.networks.vqgan import PatchDiscriminator


class LDMAutoencoder(JudgedAutoencoder):
    """The first stage that is regularised by a KL term: section 3.1 and appendix G.

    Args:
        perceptual: frozen network from images to `embedding`, whose squared distance is LPIPS.
        optimizers: partials for `autoencoder` and `discriminator`.
        width, multipliers, num_blocks, attention_factors, hidden_channels, latent_channels, num_groups: as
            `KLAutoencoder`.
        discriminator_width, discriminator_layers: as `PatchDiscriminator`.
        log_variance: of a pixel and its perceptual distance around what is reconstructed.
        lambda_perceptual: weight of LPIPS beside each pixel's absolute difference.
        lambda_kl: weight of the divergence of a latent's distribution from the standard normal one.
        lambda_adversarial, discriminator_start: as `JudgedAutoencoder`.
    """

    official: ClassVar[dict[str, KeyMap]] = {"autoencoder": KL_AUTOENCODER}

    def __init__(
        self,
        perceptual: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        multipliers: Sequence[int],
        num_blocks: int,
        attention_factors: Sequence[int],
        hidden_channels: int,
        latent_channels: int,
        num_groups: int,
        discriminator_width: int,
        discriminator_layers: int,
        log_variance: float,
        lambda_perceptual: float,
        lambda_kl: float,
        lambda_adversarial: float,
        discriminator_start: int,
    ) -> None:
        super().__init__(
            optimizers,
            KLAutoencoder(
                width, multipliers, num_blocks, attention_factors, hidden_channels, latent_channels, num_groups
            ),
            PatchDiscriminator(discriminator_width, discriminator_layers),
            perceptual,
            lambda_perceptual,
            lambda_adversarial,
            discriminator_start,
        )
        self.log_variance, self.lambda_kl = log_variance, lambda_kl

    def reconstruction_terms(self, image: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Negative log-likelihood of images (N, 3, H, W), a sum over the numbers of each, in its two parts.

        LPIPS counts at each number of the image, so that it weighs as much as all pixels do.
        """
        numbers, precision = image[0].numel(), exp(-self.log_variance)
        pixels = in_float32(F.l1_loss)(fake, image)
        distance = self.lambda_perceptual * perceptual_distance(self.perceptual, fake, image).mean()
        return {
            "L_rec": numbers * (precision * pixels + self.log_variance),
            "L_perceptual": numbers * precision * distance,
        }

    def reconstructed(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        posterior = self.autoencoder.encode(batch["image"])
        fake = self.autoencoder.decode(drawn(posterior, batch["noise"]))
        return fake, {"KL": self.lambda_kl * posterior.divergence().mean()}

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        """Images as the second stage sees them: of one latent of each."""
        return self.autoencoder.decode(drawn(self.autoencoder.encode(batch["image"]), noise)).clamp(-1, 1)


def drawn(posterior: Posterior, noise: Noise) -> Tensor:
    """A latent of each sample (N, C, h, w)."""
    return posterior.drawn(noise.normal("latent", *posterior.mean.shape[1:]))


class Words(Protocol):
    """The words or pieces of words that a text encoder knows, the first of which fills up a text."""

    def __len__(self) -> int: ...

    def encode(self, caption: str, max_words: int) -> list[int]:
        """Indices of a text, at most so many."""


class LDM(LatentDiffusion):
    """Text to image: section 4.3.1. The text encoder learns with the U-Net.

    Args:
        vocabulary: what captions are read with.
        text_encoder: partial of a `TextEncoder`, which lacks the number of words and the width of the U-Net's context.
        image_size: height and width of images.
        max_tokens: length that all texts have; longer ones are cut off.
        left_out: share of captions that training leaves out, so that there is guidance.
        predicts: what the U-Net says, noise as published, or the velocity, which Stable Diffusion 2 took up.
        others: as `LatentDiffusion`.
    """

    task = TEXT_TO_IMAGE
    trains_on = frozenset({"image", "caption"})
    official: ClassVar[dict[str, KeyMap]] = {
        "ema.average": UNET,
        "text_encoder": TEXT_ENCODER,
    }

    def __init__(
        self,
        vocabulary: Words,
        text_encoder: Callable[..., TextEncoder],
        unet: ConditionedUNet,
        image_size: int,
        max_tokens: int,
        left_out: float,
        predicts: Predicted,
        **others: Any,
    ) -> None:
        super().__init__(unet=unet, **others)
        self.predicts = predicts
        self.vocabulary, self.max_tokens = vocabulary, max_tokens
        self.text_encoder = text_encoder(len(vocabulary), max_tokens, unet.context_dim)
        self.image_size, self.left_out = image_size, left_out

    @property
    def beside(self) -> Mapping[str, Kept]:
        """The words that it knows."""
        return {"vocabulary.json": self.vocabulary} if isinstance(self.vocabulary, Vocabulary) else {}

    def context(self, texts: list[str]) -> Tensor:
        """N raw texts to what the U-Net looks at, (N, max_tokens, D)."""
        tokens = torch.zeros(len(texts), self.max_tokens, dtype=torch.int64)
        for row, text in zip(tokens, texts, strict=True):
            found = self.vocabulary.encode(text, self.max_tokens)
            row[: len(found)] = torch.tensor(found, dtype=torch.int64)
        return self.text_encoder(tokens.to(self.device))

    def condition(self, batch: Batch) -> Tensor:
        """The captions, some of which are left out."""
        left_out = (batch["noise"].uniform("left out") < self.left_out).tolist()
        return self.context(["" if without else text for without, text in zip(left_out, batch["caption"], strict=True)])

    def errors(self, latent: Tensor, step: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        return simple(self.unet, self.noise_schedule, latent, step, noise, condition, self.predicts)

    def denoiser(self) -> Denoiser:
        return denoiser_of(self.predicts, self.ema, self.sampling)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return self.images(self.context(batch["caption"]), noise)

    def interpolated(self, batch: Batch, others: list[str], share: Tensor, noise: Noise) -> Tensor:
        """As `generate`, after contexts `share` (N,), in [0, 1], of the way from the batch's to those of N others."""
        context = self.context(batch["caption"])
        return self.images(context.lerp(self.context(others), share.to(context)[:, None, None]), noise)

    def images(self, context: Tensor, noise: Noise) -> Tensor:
        """Contexts (N, max_tokens, D) to images, as `generate` gives them."""
        return self.sampled(context, self.context([""] * len(context)), noise, self.image_size, self.image_size)


class LDMClass(LatentDiffusion):
    """Images of classes: section 4.3.2. A class is one token, and a token of its own stands for none.

    Args:
        class_ids: the data set's numbers of the classes.
        image_size: height and width of images.
        left_out: share of classes that training leaves out, so that there is guidance.
        others: as `LatentDiffusion`.
    """

    task = CLASS_TO_IMAGE
    trains_on = frozenset({"image", "class_id"})
    official: ClassVar[dict[str, KeyMap]] = {
        "ema.average": UNET,
        "tokens": KeyMap(rename={r"embedding\.weight": "weight"}),
    }

    def __init__(
        self, class_ids: Sequence[int], unet: ConditionedUNet, image_size: int, left_out: float, **others: Any
    ) -> None:
        super().__init__(unet=unet, **others)
        self.classes = Classes(class_ids)
        self.tokens = nn.Embedding(len(class_ids) + 1, unet.context_dim)
        self.image_size, self.left_out = image_size, left_out

    def context(self, place: Tensor) -> Tensor:
        """Places (N,) among the classes, behind the last one for none, to what the U-Net looks at, (N, 1, D)."""
        return self.tokens(place)[:, None]

    def condition(self, batch: Batch) -> Tensor:
        """The classes, some of which are left out."""
        place = self.classes(batch["class_id"])
        left_out = batch["noise"].uniform("left out") < self.left_out
        return self.context(torch.where(left_out, len(self.classes), place))

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        place = self.classes(batch["class_id"])
        none = torch.full_like(place, len(self.classes))
        return self.sampled(self.context(place), self.context(none), noise, self.image_size, self.image_size)


class LDMUpsampler(LatentDiffusion):
    """Super-resolution: section 4.4. The small image, of the latent's size, stands beside the latent.

    Arguments are those of `LatentDiffusion`, `unet` being a `ConcatenatingUNet`; the autoencoder's stride is how many
    times smaller the image is.
    """

    task = SUPER_RESOLUTION

    def small(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) to what they are enlarged from, (N, 3, H / factor, W / factor) in [-1, 1]."""
        size = [length // self.latents.factor for length in image.shape[2:]]
        return F.interpolate(image, size, mode="bicubic", antialias=True).clamp(-1, 1)

    def condition(self, batch: Batch) -> Tensor:
        """The small images."""
        return self.small(batch["image"])

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return self.sampled(self.small(batch["image"]), None, noise, *batch["image"].shape[2:])
