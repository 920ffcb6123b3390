"""Autoencoders that a discriminator joins: how much it counts beside the reconstruction, from their gradients."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmbench.core.adversarial import Adversarial
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.processes import num_processes, summed
from mmbench.core.task import RECONSTRUCTION
from mmbench.losses.adversarial import hinge_fake, hinge_real
from mmbench.losses.precision import in_float32

LARGEST = 1e4


@in_float32
def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: nn.Parameter | Tensor) -> Tensor:
    """By what factor the gradient of an adversarial loss is as large as that of a reconstruction, at most 10,000.

    VQGAN, https://arxiv.org/abs/2012.09841, equation 7, with the code's 1e-4 for the paper's 1e-6. The gradients are
    those of the whole batch where processes share one.

    Args:
        reconstruction, adversarial: scalars, means over this process's part of a batch; their graphs are kept.
        last: the weight of the decoder's last layer, by which both are differentiated.

    Returns:
        A scalar without a gradient.
    """
    fit, fooled = (
        summed(torch.autograd.grad(loss, last, retain_graph=True)[0]).norm() / num_processes()
        for loss in (reconstruction, adversarial)
    )
    return (fit / (fooled + 1e-4)).clamp(0, LARGEST).detach()


class JudgedAutoencoder(Adversarial):
    """What the first stages of VQGAN and LDM share; how images are encoded and compared, each says itself.

    Args:
        optimizers: partials for `autoencoder` and `discriminator`.
        autoencoder: with a `decoder` whose last layer is `exit`.
        discriminator: of images (N, 3, H, W), to logits of patches.
        perceptual: frozen network from images to `embedding`, whose squared distance is LPIPS.
        lambda_perceptual: weight of that.
        lambda_adversarial: what the adaptive weight of the adversarial term is multiplied by.
        discriminator_start: steps before the discriminator takes part.
    """

    task = RECONSTRUCTION
    trains_on = frozenset({"image"})
    steps: Tensor

    def __init__(
        self,
        optimizers: Mapping[str, OptimizerPartial],
        autoencoder: nn.Module,
        discriminator: nn.Module,
        perceptual: nn.Module,
        lambda_perceptual: float,
        lambda_adversarial: float,
        discriminator_start: int,
    ) -> None:
        super().__init__(optimizers)
        self.autoencoder, self.discriminator, self.perceptual = autoencoder, discriminator, perceptual
        self.lambda_perceptual, self.lambda_adversarial = lambda_perceptual, lambda_adversarial
        self.discriminator_start = discriminator_start
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def reconstructed(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The images of a training batch again (N, 3, H, W), and the terms of what lies between."""
        raise NotImplementedError

    def reconstruction_terms(self, image: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """What an image (N, 3, H, W) and its reconstruction are apart."""
        raise NotImplementedError

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
        fake, between = self.reconstructed(batch)
        terms = self.reconstruction_terms(image, fake)
        with self.held(self.discriminator):
            judged = self.adversarial_terms(fake, sum(terms.values())) if starts else {}
            self.minimise("autoencoder", {**terms, **between, **judged})
        if starts:
            self.minimise("discriminator", self.discriminator_terms(image, fake.detach()))
        if self.last_part:
            self.steps += 1
