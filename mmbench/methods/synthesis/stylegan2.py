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

from mmbench.core.adversarial import Adversarial
from mmbench.core.ema import EMA
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import IMAGE_SYNTHESIS
from mmbench.core.weights import KeyMap
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real
from mmbench.losses.penalties import path_length_penalty, path_lengths, r1_penalty
from mmbench.networks.stylegan2 import DISCRIMINATOR, GENERATOR, Discriminator, Generator, mixed, truncated

W_AVERAGE_DECAY = 0.995  # of the average w, by step
PATH_DECAY = 0.01  # weight of a step's path lengths in their average
PATH_BATCH_SHRINK = 2  # the path length is measured on a smaller batch, to save memory


class StyleGAN2(Adversarial):
    """Generator, discriminator and their training.

    Penalties are lazy: each has a step of its own, every so many steps, and weighs as much more. Learning rates and
    betas make up for the steps that this adds (appendix B), in the YAML.

    Args:
        optimizers: partials for `generator` and `discriminator`.
        image_size: height and width of the images, a power of two from 8 on.
        style_dim, mapping_layers, channel_base, channel_max: as `Generator`.
        gamma: weight of the R1 penalty.
        r1_every: steps from one R1 penalty to the next.
        path_weight: weight of the path length penalty.
        path_every: steps from one path length penalty to the next.
        mixing: probability that an image has the styles of two latents.
        decay: of the generator's moving average, which makes the images.
        truncation: psi, how far w is from its average: 1 as it is, smaller for better and more alike images.

    Attributes:
        w_average: (style_dim,), the average of w over training.
        path_average: scalar, the average path length.
        steps: scalar, steps of training.
    """

    task = IMAGE_SYNTHESIS
    trains_on = frozenset({"image"})
    official: ClassVar[dict[str, KeyMap]] = {
        "generator": GENERATOR,
        "ema.average": GENERATOR,
        "discriminator": DISCRIMINATOR,
    }
    w_average: Tensor
    path_average: Tensor
    steps: Tensor

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
        super().__init__(optimizers)
        self.gamma, self.r1_every = gamma, r1_every
        self.path_weight, self.path_every = path_weight, path_every
        self.mixing = mixing
        self.truncation = truncation
        self.generator = Generator(image_size, style_dim, mapping_layers, channel_base, channel_max)
        self.discriminator = Discriminator(image_size, channel_base, channel_max)
        self.ema = EMA(self.generator, decay)
        self.register_buffer("w_average", torch.zeros(style_dim))
        self.register_buffer("path_average", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def fake(self, noise: Noise, use: str) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) and their styles (N, S, D) in training; `use` names the random numbers."""
        first, second = (self.generator.mapping(self.latent(noise, f"{use} {which}")) for which in ("first", "second"))
        self.w_average.lerp_(first.detach().mean(dim=0).float(), 1 - W_AVERAGE_DECAY)
        num_styles = self.generator.synthesis.num_styles
        chance, place = noise.uniform(f"{use} mixing", 2).unbind(dim=1)  # (N,)
        crossover = torch.where(chance < self.mixing, 1 + (place * (num_styles - 1)).long(), num_styles)
        styles = mixed(self.generator.styles(first), self.generator.styles(second), crossover)
        return self.generator.synthesis(styles, self.maps(noise, use)), styles

    def latent(self, noise: Noise, use: str) -> Tensor:
        return noise.normal(f"{use} z", self.generator.style_dim)

    def maps(self, noise: Noise, use: str) -> list[Tensor]:
        sizes = self.generator.synthesis.noise_sizes
        return [noise.normal(f"{use} map {place}", 1, size, size) for place, size in enumerate(sizes)]

    def generator_terms(self, noise: Noise) -> dict[str, Tensor]:
        return {"L_G": cross_entropy_real(self.discriminator(self.fake(noise, "generator")[0]))}

    def path_terms(self, noise: Noise) -> dict[str, Tensor]:
        """Equation 4, on part of the batch."""
        part = noise.samples[: max(1, len(noise.samples) // PATH_BATCH_SHRINK)]
        noise = type(noise)(noise.seed, part, noise.device)
        image, styles = self.fake(noise, "path")
        lengths = path_lengths(image, styles, noise.normal("path eps", *image.shape[1:]))
        penalty, average = path_length_penalty(lengths, self.path_average, PATH_DECAY)
        self.path_average.copy_(average)
        return {"L_path": self.path_every * self.path_weight * penalty}

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

    def on_fit_start(self) -> None:
        if self.accumulate > 1:
            raise ValueError(
                "expected whole batches for StyleGAN2, whose penalties are steps between its others, found "
                f"training.accumulate={self.accumulate}: lower method.training.batch_size"
            )

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
        average = self.ema.average
        styles = average.styles(average.mapping(self.latent(noise, "sample")))
        styles = truncated(styles, self.w_average, self.truncation)
        return average.synthesis(styles, self.maps(noise, "sample")).clamp(-1, 1)
