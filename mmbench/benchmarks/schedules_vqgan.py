"""VQGAN's schedule, the first stage, after the authors' training loop.

The autoencoder encodes and decodes a batch for its own step, and anew for the discriminator's; the perceptual distance
is computed both times, of which the second goes nowhere. Attention has a whole matrix of weights, and the activation is
a product with a sigmoid.
https://github.com/CompVis/taming-transformers/blob/3ba01b2/taming/models/vqgan.py#L82
https://github.com/CompVis/taming-transformers/blob/3ba01b2/taming/modules/losses/vqperceptual.py#L74

The second reconstruction is that of the autoencoder just stepped, and theirs shows it to the discriminator; ours shows
the first one, a deviation that the method names. So that both sides train the same, the second one is made here, with
all that theirs computes of it, and the discriminator is shown the first: its values differ, what they take does not.

The discriminator takes part from the first step on, on both sides (`discriminator_start=0`), lest half of the loop not
be measured. While one of the two is stepped, the other takes no gradient, as Lightning 1 sees to.
"""

from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.benchmarks.schedules import Losses, Theirs, adam, weighted_attention
from mmbench.core.method import Batch
from mmbench.methods.synthesis.vqgan import VQGAN


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


class TheirsVQGAN(Theirs):
    method: VQGAN

    def __init__(self, method: VQGAN) -> None:
        super().__init__(method)
        self.networks = method.autoencoder, method.discriminator
        self.optimizers = [adam(method, name, getattr(method, name)) for name in ("autoencoder", "discriminator")]

    def step(self, batch: Batch) -> Losses:
        with (
            patch.object(F, "scaled_dot_product_attention", weighted_attention),
            patch.object(F, "silu", swish),
        ):
            self.toggle(0)
            terms, fake = self.autoencoder_terms(batch)
            self.minimise(0, terms)

            self.toggle(1)
            self.compared(batch)
            judged = self.discriminator_terms(batch["image"], fake.detach())
            self.minimise(1, judged)
        return {
            **{f"autoencoder/{name}": term for name, term in terms.items()},
            **{f"discriminator/{name}": term for name, term in judged.items()},
        }

    def toggle(self, chosen: int) -> None:
        for number, network in enumerate(self.networks):
            network.requires_grad_(number == chosen)

    def minimise(self, chosen: int, terms: Losses) -> None:
        self.optimizers[chosen].zero_grad()
        sum(terms.values()).backward()
        self.optimizers[chosen].step()

    def compared(self, batch: Batch) -> tuple[Losses, Tensor]:
        """What every pass begins with: the terms of reconstructions, and these."""
        fake, between = self.method.reconstructed(batch)
        return {**self.method.reconstruction_terms(batch["image"], fake), **between}, fake

    def autoencoder_terms(self, batch: Batch) -> tuple[Losses, Tensor]:
        terms, fake = self.compared(batch)
        judged, last = -self.method.discriminator(fake).mean(), self.method.autoencoder.decoder.exit.weight
        fit = torch.autograd.grad(terms["L_rec"] + terms["L_perceptual"], last, retain_graph=True)[0]
        fooled = torch.autograd.grad(judged, last, retain_graph=True)[0]
        weight = (fit.norm() / (fooled.norm() + 1e-4)).clamp(0, 1e4).detach()
        return {**terms, "L_G": self.method.lambda_adversarial * weight * judged}, fake

    def discriminator_terms(self, real: Tensor, fake: Tensor) -> Losses:
        return {
            "L_D_real": 0.5 * F.relu(1 - self.method.discriminator(real)).mean(),
            "L_D_fake": 0.5 * F.relu(1 + self.method.discriminator(fake)).mean(),
        }
