"""VQGAN: Taming Transformers for High-Resolution Image Synthesis, the first stage.

Patrick Esser, Robin Rombach, Björn Ommer. CVPR 2021. https://arxiv.org/abs/2012.09841
Authors' code: https://github.com/CompVis/taming-transformers/tree/3ba01b2

An image becomes a small map of codes, and these an image again. The transformer that draws codes is the second stage,
`mmbench.methods.synthesis.vqgan_transformer`.

Where paper and released code differ, this is the code:
- Pixels are compared by their absolute difference, not its square (taming/modules/losses/vqperceptual.py#L76).
- 0.25 weighs the codebook's term and not the commitment (taming/modules/vqvae/quantize.py#L271): so was every released
  model trained. `method.module.quantiser._target_=mmbench.layers.quantisers.VectorQuantiser` has the paper's.
- The adversarial term is weighed by 0.8 beside its adaptive weight, whose denominator has 1e-4.

Deviations:
- The discriminator is shown the reconstruction that the autoencoder has just been stepped by; theirs makes it anew in
  between.
- Before the discriminator takes part it is not trained, where theirs is stepped by gradients of 0, and its statistics
  take images in.
- A Gumbel quantiser's likeliest codes are taken where nothing is trained; theirs draws them there, too.
- Images that are made are cut off at -1 and 1.
"""

from collections.abc import Mapping, Sequence
from math import cos, pi
from typing import Any, ClassVar

from torch import Tensor, nn

from mmbench.core.categorical import gumbel
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.weights import KeyMap
from mmbench.layers.quantisers import Codebook, Quantised
from mmbench.losses.adaptive import JudgedAutoencoder
from mmbench.losses.perceptual import perceptual_distance
from mmbench.networks.vqgan import Autoencoder, PatchDiscriminator
from mmbench.networks.vqgan_keys import AUTOENCODER


class VQGAN(JudgedAutoencoder):
    """The autoencoder and its training: pixels, a perceptual distance, a quantiser and, later, a discriminator.

    Args:
        quantiser: of the codes.
        perceptual: frozen network from images to `embedding`, whose squared distance is LPIPS.
        optimizers: partials for `autoencoder` and `discriminator`.
        width, multipliers, num_blocks, attention_factors, latent_channels, num_groups: as `Autoencoder`.
        discriminator_width, discriminator_layers: as `PatchDiscriminator`.
        lambda_codebook: weight of the quantiser's term.
        lambda_perceptual, lambda_adversarial, discriminator_start: as `JudgedAutoencoder`.
    """

    official: ClassVar[dict[str, KeyMap]] = {"autoencoder": AUTOENCODER}

    def __init__(
        self,
        quantiser: Codebook,
        perceptual: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        multipliers: Sequence[int],
        num_blocks: int,
        attention_factors: Sequence[int],
        latent_channels: int,
        num_groups: int,
        discriminator_width: int,
        discriminator_layers: int,
        lambda_perceptual: float,
        lambda_codebook: float,
        lambda_adversarial: float,
        discriminator_start: int,
    ) -> None:
        super().__init__(
            optimizers,
            Autoencoder(width, multipliers, num_blocks, attention_factors, latent_channels, quantiser, num_groups),
            PatchDiscriminator(discriminator_width, discriminator_layers),
            perceptual,
            lambda_perceptual,
            lambda_adversarial,
            discriminator_start,
        )
        self.lambda_codebook = lambda_codebook

    @property
    def num_codes(self) -> int:
        """K, how many codes there are."""
        return self.autoencoder.quantiser.num_codes

    @property
    def factor(self) -> int:
        """By which a map of codes is smaller than its image."""
        return self.autoencoder.factor

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] to codes (N, H / factor, W / factor) int64."""
        return self.autoencoder.encode(images)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, h, w) to images (N, 3, h * factor, w * factor) in [-1, 1]."""
        return self.autoencoder.decode(codes).clamp(-1, 1)

    def quantised(self, latent: Tensor, noise: Noise) -> Quantised:
        """Codes of a training step; `noise` is for quantisers that draw them."""
        return self.autoencoder.quantiser(latent)

    def reconstruction_terms(self, image: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """What an image (N, 3, H, W) and its reconstruction are apart: pixels, and the perceptual distance."""
        return {
            "L_rec": (image - fake).abs().mean(),
            "L_perceptual": self.lambda_perceptual * perceptual_distance(self.perceptual, fake, image).mean(),
        }

    def reconstructed(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        found = self.quantised(self.autoencoder.latent(batch["image"]), batch["noise"])
        return self.autoencoder.decoded(found.codes), {"L_codebook": self.lambda_codebook * found.loss}

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return self.decode(self.encode(batch["image"]))


class GumbelVQGAN(VQGAN):
    """With codes that are drawn by the Gumbel-softmax relaxation, at a temperature that falls along a cosine.

    Args:
        quantiser: a `GumbelQuantiser`.
        temperature: at the first step and at last.
        temperature_steps: until it is at its last.
        others: as `VQGAN`.
    """

    def __init__(self, temperature: tuple[float, float], temperature_steps: int, **others: Any) -> None:
        super().__init__(**others)
        self.temperature, self.temperature_steps = temperature, temperature_steps

    def quantised(self, latent: Tensor, noise: Noise) -> Quantised:
        quantiser = self.autoencoder.quantiser
        drawn = gumbel(noise.uniform("codes", quantiser.num_codes, *latent.shape[2:]))
        first, last = self.temperature
        share = min(1.0, int(self.steps) / self.temperature_steps)
        return quantiser(latent, drawn.to(latent), last + (first - last) * (1 + cos(pi * share)) / 2)
