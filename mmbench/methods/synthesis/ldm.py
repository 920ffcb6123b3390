"""LDM: High-Resolution Image Synthesis with Latent Diffusion Models.

Robin Rombach, Andreas Blattmann, Dominik Lorenz, Patrick Esser, Björn Ommer. CVPR 2022. https://arxiv.org/abs/2112.10752
Authors' code: https://github.com/CompVis/latent-diffusion/tree/a506df5756472e2ebaf9078affdde2c4f1502cd4

The autoencoder regularised by a KL term is here; the one that quantises is VQGAN's (`conf/method/ldm_autoencoder_vq`).
What all second stages share is in `mmbench.diffusion.latent`, the networks are in `mmbench.networks.ldm`, and inpainting
is `mmbench.methods.inpainting.ldm`.

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
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.adversarial import Adversarial
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch, Kept
from mmbench.core.noise import Noise
from mmbench.core.task import CLASS_TO_IMAGE, RECONSTRUCTION, SUPER_RESOLUTION, TEXT_TO_IMAGE
from mmbench.core.weights import KeyMap
from mmbench.diffusion.latent import LatentDiffusion
from mmbench.losses.adaptive import adaptive_weight
from mmbench.losses.adversarial import hinge_fake, hinge_real
from mmbench.losses.perceptual import perceptual_distance
from mmbench.losses.precision import in_float32
from mmbench.networks.ldm import KL_AUTOENCODER, TEXT_ENCODER, UNET, KLAutoencoder, Posterior, TextEncoder, below
from mmbench.networks.vqgan import PatchDiscriminator

U_NET = below("model.diffusion_model.", UNET)


class LDMAutoencoder(Adversarial):
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
        lambda_adversarial: what the adaptive weight of the adversarial term is multiplied by.
        discriminator_start: steps before the discriminator takes part.
    """

    task = RECONSTRUCTION
    trains_on = frozenset({"image"})
    official: ClassVar[dict[str, KeyMap]] = {"autoencoder": below("first_stage_model.", KL_AUTOENCODER)}
    steps: Tensor

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
        super().__init__(optimizers)
        self.autoencoder = KLAutoencoder(
            width, multipliers, num_blocks, attention_factors, hidden_channels, latent_channels, num_groups
        )
        self.discriminator = PatchDiscriminator(discriminator_width, discriminator_layers)
        self.perceptual = perceptual
        self.log_variance = log_variance
        self.lambda_perceptual, self.lambda_kl = lambda_perceptual, lambda_kl
        self.lambda_adversarial, self.discriminator_start = lambda_adversarial, discriminator_start
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def reconstruction_terms(self, image: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Negative log-likelihood of images (N, 3, H, W), a sum over the numbers of each, in its two parts."""
        pixels = image[0].numel()
        distance = self.lambda_perceptual * perceptual_distance(self.perceptual, fake, image)
        return {
            "L_rec": log_likelihood_term(absolute_difference(image, fake), self.log_variance, pixels),
            "L_perceptual": distance.mean() * pixels * torch.tensor(-self.log_variance).exp(),
        }

    def adversarial_terms(self, fake: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        """Reconstructions (N, 3, H, W) are to be judged real, as strongly as `reconstruction` pulls."""
        judged = -self.discriminator(fake).mean()
        weight = adaptive_weight(reconstruction, judged, self.autoencoder.decoder.exit.weight)
        return {"L_G": self.lambda_adversarial * weight * judged}

    def discriminator_terms(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Images and reconstructions (N, 3, H, W), each judged by itself."""
        return {
            "L_D_real": hinge_real(self.discriminator(real)) / 2,
            "L_D_fake": hinge_fake(self.discriminator(fake)) / 2,
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        image, starts = batch["image"], bool(self.steps >= self.discriminator_start)
        posterior = self.autoencoder.encode(image)
        fake = self.autoencoder.decode(posterior.drawn(batch["noise"].normal("latent", *posterior.mean.shape[1:])))
        terms = self.reconstruction_terms(image, fake)
        with self.held(self.discriminator):
            judged = self.adversarial_terms(fake, sum(terms.values())) if starts else {}
            self.minimise("autoencoder", {**terms, "KL": self.lambda_kl * divergence(posterior), **judged})
        if starts:
            self.minimise("discriminator", self.discriminator_terms(image, fake.detach()))
        if self.last_part:
            self.steps += 1

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        """Images as the second stage sees them: of one latent of each."""
        posterior = self.autoencoder.encode(batch["image"])
        latent = posterior.drawn(noise.normal("latent", *posterior.mean.shape[1:]))
        return self.autoencoder.decode(latent).clamp(-1, 1)
