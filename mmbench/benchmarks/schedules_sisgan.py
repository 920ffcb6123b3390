"""SISGAN's schedule, after the authors' training loop.

Real images go through the discriminator once for each text; the discriminator's fake image is made with a graph that
nothing uses; three backward passes for the discriminator.
https://github.com/woozzu/dong_iccv_2017/blob/e7f371aefb3aa2208df832ed779c16027c8f3600/train.py#L143
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.benchmarks.schedules import Losses, Theirs, adam
from mmbench.core.method import Batch
from mmbench.losses.matching import row_before
from mmbench.methods.manipulation.sisgan import SISGAN, relevant_texts


class TheirsSISGAN(Theirs):
    method: SISGAN

    def __init__(self, method: SISGAN) -> None:
        super().__init__(method)
        self.optimizers = [adam(method, name, getattr(method, name)) for name in ("discriminator", "generator")]

    def backward(self, image: Tensor, text: Tensor, target: float, weight: float) -> Tensor:
        judge = self.method.discriminator
        logits = judge(judge.features(image), text)
        loss = weight * F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
        loss.backward()
        return loss

    def step(self, batch: Batch) -> Losses:
        method, real, noise = self.method, batch["image"], batch["noise"]
        text = method.text_encoder(batch["caption"])
        relevant = relevant_texts(text)

        method.discriminator.zero_grad()
        on_real = self.backward(real, text, 1, 1)
        mismatched = self.backward(real, row_before(text), 0, method.lambda_mismatched)
        shown = method.generator(real, relevant, noise.normal("eps shown", method.condition_dim))
        on_fake = self.backward(shown.image.detach(), relevant, 0, method.lambda_fake)
        self.optimizers[0].step()

        method.generator.zero_grad()
        output = method.generator(real, relevant, noise.normal("eps", method.condition_dim))
        divergence = (-output.log_sigma + ((2 * output.log_sigma).exp() + output.mu.pow(2) - 1) / 2).mean()
        logits = method.discriminator(method.discriminator.features(output.image), relevant)
        adversarial = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        (adversarial + method.lambda_kl * divergence).backward()
        self.optimizers[1].step()
        return {
            "discriminator/L_D_real": on_real,
            "discriminator/L_D_mismatched": mismatched,
            "discriminator/L_D_fake": on_fake,
            "generator/L_G": adversarial,
            "generator/KL": method.lambda_kl * divergence,
        }
