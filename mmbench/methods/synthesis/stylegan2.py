"""StyleGAN2: images from nothing but noise.

Tero Karras, Samuli Laine, Miika Aittala, Janne Hellsten, Jaakko Lehtinen and Timo Aila, Analyzing and Improving the
Image Quality of StyleGAN, CVPR 2020, https://arxiv.org/abs/1912.04958, configuration F. Authors' code:
https://github.com/NVlabs/stylegan2/tree/bf0fe0b. The networks are in `networks/stylegan2.py`.

Deviations:
- Where two latents are mixed, the layer at which one takes over, and whether, is drawn for each image; the authors draw
  it once for all images of a device. So a step does not depend on how many devices share a batch.
- The generator's image is clamped to [-1, 1] at evaluation, as the authors' rounding does.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import IMAGE_SYNTHESIS
from mmbench.core.weights import KeyMap
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real
from mmbench.losses.penalties import r1_penalty
from mmbench.losses.stylegan2 import StyledGAN
from mmbench.networks.stylegan2 import DISCRIMINATOR, GENERATOR, Discriminator, Generator


class StyleGAN2(StyledGAN):
    """Generator, discriminator and their training.

    Penalties are lazy: each has a step of its own, every so many steps, and weighs as much more. Learning rates and
    betas make up for the steps that this adds (appendix B), in the YAML.

    Args:
        optimizers: partials for `generator` and `discriminator`.
        image_size: height and width of the images, a power of two from 8 on.
        style_dim, mapping_layers, channel_base, channel_max: as `Generator`.
        gamma, r1_every, path_weight, path_every, mixing, decay, truncation: as `StyledGAN`.
    """

    task = IMAGE_SYNTHESIS
    trains_on = frozenset({"image"})
    official: ClassVar[dict[str, KeyMap]] = {
        "generator": GENERATOR,
        "ema.average": GENERATOR,
        "discriminator": DISCRIMINATOR,
    }

    def __init__(
        self,
        optimizers: Mapping[str, OptimizerPartial],
        image_size: int,
        style_dim: int,
        mapping_layers: int,
        channel_base: int,
        channel_max: int,
        gamma: float,
        r1_every: int,
        path_weight: float,
        path_every: int,
        mixing: float,
        decay: float,
        truncation: float,
    ) -> None:
        super().__init__(
            optimizers,
            Generator(image_size, style_dim, mapping_layers, channel_base, channel_max),
            Discriminator(image_size, channel_base, channel_max),
            gamma,
            r1_every,
            path_weight,
            path_every,
            mixing,
            decay,
            truncation,
        )

    def generator_terms(self, noise: Noise) -> dict[str, Tensor]:
        return {"L_G": cross_entropy_real(self.discriminator(self.fake(noise, "generator")[0]))}

    def discriminator_terms(self, real: Tensor, noise: Noise) -> dict[str, Tensor]:
        with torch.no_grad():
            fake, _ = self.fake(noise, "discriminator")
        return {
            "L_D_real": cross_entropy_real(self.discriminator(real)),
            "L_D_fake": cross_entropy_fake(self.discriminator(fake)),
        }

    def r1_terms(self, real: Tensor) -> dict[str, Tensor]:
        real = real.detach().requires_grad_()
        return {"R1": self.r1_every * self.gamma / 2 * r1_penalty(real, self.discriminator(real))}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        # The authors' order. Second derivatives are computed in full precision whatever the rest is.
        # https://github.com/NVlabs/stylegan2/blob/bf0fe0b/training/training_loop.py
        real, noise, steps = batch["image"], batch["noise"], int(self.steps)
        exactly = torch.autocast(self.device.type, enabled=False)
        with self.held(self.discriminator):
            self.minimise("generator", self.generator_terms(noise))
        if steps % self.path_every == 0:
            with exactly:
                self.minimise("generator", self.path_terms(noise))
        self.minimise("discriminator", self.discriminator_terms(real, noise))
        self.follow(self.ema, self.generator)
        if steps % self.r1_every == 0:
            with exactly:
                self.minimise("discriminator", self.r1_terms(real))
        self.steps += 1

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        styles = self.sampled_styles(noise)
        return self.ema.average.synthesis(styles, self.maps(noise, "sample")).clamp(-1, 1)
