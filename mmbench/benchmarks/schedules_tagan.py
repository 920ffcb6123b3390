"""TAGAN's schedule, after the authors' training loop.

An image is edited anew for the generator; texts are encoded in each pass of either network; the discriminator also
matches edited images with texts in its own step, where nothing reads it; two backward passes for each network.
https://github.com/woozzu/tagan/blob/38a866c9613b289d4c79bd4817b5e0e9b44a9879/train.py#L112
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.benchmarks.schedules import Losses, Theirs, adam, is_fake, is_real
from mmbench.core.method import Batch
from mmbench.losses.matching import row_before
from mmbench.methods.manipulation.tagan import TAGAN


class TheirsTAGAN(Theirs):
    method: TAGAN

    def __init__(self, method: TAGAN) -> None:
        super().__init__(method)
        self.optimizers = [adam(method, name, getattr(method, name)) for name in ("discriminator", "generator")]

    def judged(self, image: Tensor, vectors: Tensor, lengths: Tensor, negative: bool = False) -> list[Tensor]:
        """Logits of images, probabilities that they show their texts and, where asked for, others'."""
        discriminator = self.method.discriminator
        logits, levels = discriminator(image)
        pooled, judges = discriminator.pooled(levels), discriminator.judges(vectors, lengths)
        asked = [judges, judges.rolled()] if negative else [judges]
        return [logits, *(discriminator.match(pooled, each) for each in asked)]

    def divergence(self, mu: Tensor, log_sigma: Tensor) -> Tensor:
        return self.method.lambda_kl * (-log_sigma + ((2 * log_sigma).exp() + mu.pow(2) - 1) / 2).mean()

    def step(self, batch: Batch) -> Losses:
        method, real, noise = self.method, batch["image"], batch["noise"]
        text = method.words(batch["caption"])
        others = row_before(text[0]), row_before(text[1])
        eps = noise.normal("eps", method.condition_dim)

        method.discriminator.zero_grad()
        logits, match, mismatch = self.judged(real, *text, negative=True)
        on_real = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        matching = method.lambda_match * (is_real(match) + is_fake(mismatch)) / 2
        (on_real + matching).backward()
        logits, _ = self.judged(method.generator(real, *others, eps).image.detach(), *others)
        on_fake = F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
        on_fake.backward()
        self.optimizers[0].step()

        method.generator.zero_grad()
        fake = method.generator(real, *others, eps)
        logits, match = self.judged(fake.image, *others)
        adversarial = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        fake_matching = method.lambda_match * is_real(match)
        divergence = self.divergence(fake.mu, fake.log_sigma)
        (adversarial + fake_matching + divergence).backward()
        own = method.generator(real, *text, noise.normal("own eps", method.condition_dim))
        reconstruction = method.lambda_reconstruction * F.l1_loss(own.image, real)
        own_divergence = self.divergence(own.mu, own.log_sigma)
        (reconstruction + own_divergence).backward()
        self.optimizers[1].step()
        return {
            "discriminator/L_D_real": on_real,
            "discriminator/L_D_match": matching,
            "discriminator/L_D_fake": on_fake,
            "generator/L_G": adversarial,
            "generator/L_G_match": fake_matching,
            "generator/L_rec": reconstruction,
            "generator/KL": divergence,
            "generator/KL_rec": own_divergence,
        }
