"""PICNet's schedule, after the authors' training loop, and what its descendant TDANet takes from it.

Little to leave out, since discriminators are held while generators learn, and their power iteration counts every look.
A backward pass for each discriminator; a picture of the state of each step.
https://github.com/lyndonzheng/Pluralistic-Inpainting/blob/034a7588957adff1edb027af44f48a35d1c949d3/model/pluralistic_model.py
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from mmbench.benchmarks.schedules import Losses, Theirs, adam, near
from mmbench.core.method import Batch
from mmbench.methods.inpainting.picnet import PICNet
from mmbench.networks.pluralistic import Paths


class TheirsTwoPaths(Theirs):
    """What the trainings of PICNet and its descendant TDANet share: discriminators one by one, terms of images."""

    def __init__(self, method: Any) -> None:
        super().__init__(method)
        self.judges = method.discriminator, method.discriminator_rec
        self.discriminators = adam(method, "discriminator", *self.judges)
        self.generators = adam(method, "generator", method.generator, method.encoder)

    def scaled(self, image: Tensor) -> list[Tensor]:
        """At four sizes, from small to full."""
        sizes = [image.shape[-1] >> level for level in (3, 2, 1)]
        small = [F.interpolate(image, (size, size), mode="bilinear", align_corners=True) for size in sizes]
        return [*small, image]

    def shown(self, image: Tensor, keep: Tensor, made: Paths) -> Tensor:
        """A picture of the state of training, which nothing learns from."""
        return (1 - keep) * made.generated[-1].detach() + keep * image

    def train_discriminators(self, real: Tensor, fakes: Sequence[Tensor]) -> list[Tensor]:
        for judge in self.judges:
            judge.requires_grad_(True)
        self.discriminators.zero_grad()
        losses = []
        for judge, fake in zip(self.judges, fakes, strict=True):
            loss = (near(judge(real), 1) + near(judge(fake.detach()), 0)) * 0.5
            loss.backward()
            losses.append(loss)
        self.discriminators.step()
        for judge in self.judges:
            judge.requires_grad_(False)
        return losses

    def train_generators(self, terms: Losses) -> None:
        self.generators.zero_grad()
        sum(terms.values()).backward()
        self.generators.step()

    def divergences(self, made: Paths, sigma: Tensor) -> Losses:
        """Of assumed variables from the posterior, and of that, which learns nothing by it, from the prior."""
        posterior, prior = Normal(*made.posterior), Normal(*made.prior)
        fixed = Normal(*(value.detach() for value in made.posterior))
        assumed = Normal(torch.zeros_like(posterior.loc), sigma * torch.ones_like(posterior.scale))
        weight = self.method.lambda_kl * len(made.generated)
        return {
            "KL_rec": weight * kl_divergence(assumed, posterior).mean(),
            "KL_gen": weight * kl_divergence(fixed, prior).mean(),
        }


class TheirsPICNet(TheirsTwoPaths):
    method: PICNet

    def step(self, batch: Batch) -> Losses:
        method = self.method
        real, keep = method.given(batch)
        reals, keeps = self.scaled(real), self.scaled(keep)
        known_share = keep.flatten(1).mean(dim=1) - 1e-5
        sigma = (1 / (1 + ((known_share - 0.8) * 8).exp()))[:, None, None, None]
        made = method.paths(real, keep, batch["noise"])
        reconstructed, generated = made.reconstructed[-1], made.generated[-1]
        self.shown(real, keep, made)
        judged = self.train_discriminators(real, (generated, reconstructed))

        terms = self.divergences(made, sigma)
        judge, judge_rec = self.judges
        terms["L_ad_gen"] = method.lambda_gan * near(judge(generated), 1)
        terms["L_ad_rec"] = method.lambda_gan * F.mse_loss(judge_rec(reconstructed), judge_rec(real))
        both = list(zip(made.reconstructed, made.generated, reals, keeps, strict=True))
        terms["L_app_rec"] = method.lambda_rec * sum(F.l1_loss(rec, true) for rec, _, true, _ in both)
        terms["L_app_gen"] = method.lambda_rec * sum(F.l1_loss(gen * kept, true * kept) for _, gen, true, kept in both)
        self.train_generators(terms)
        return named(("L_D", "L_D_rec"), judged, terms)


def named(names: Sequence[str], judged: Sequence[Tensor], terms: Losses) -> Losses:
    """The terms of PICNet and TDANet as ours are logged."""
    return {
        **{f"discriminator+discriminator_rec/{name}": loss for name, loss in zip(names, judged, strict=True)},
        **{f"encoder+generator/{name}": term for name, term in terms.items()},
    }
