"""What StyleGAN2 and its descendants train by: mixed styles, averages, and the penalty on path lengths.

Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020 (https://arxiv.org/abs/1912.04958).
Authors' code: https://github.com/NVlabs/stylegan2/tree/bf0fe0b. The networks are in `mmbench.networks.stylegan2`, the
penalties in `mmbench.losses.penalties`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmbench.core.adversarial import Adversarial
from mmbench.core.ema import EMA
from mmbench.core.learner import OptimizerPartial
from mmbench.core.noise import Noise
from mmbench.core.processes import batch_mean, num_processes, own_of_first
from mmbench.losses.penalties import path_length_penalty, path_lengths
from mmbench.networks.damsm import EncodedText
from mmbench.networks.stylegan2 import Generator, mixed, truncated

W_AVERAGE_DECAY = 0.995  # of the average w, by step
PATH_DECAY = 0.01  # weight of a step's path lengths in their average
PATH_BATCH_SHRINK = 2  # the path length is measured on a smaller batch, to save memory


class StyledGAN(Adversarial):
    """A mapping and a synthesis network against a discriminator, penalised lazily: the base of StyleGAN2 and heirs.

    Penalties have a step of their own, every so many steps, and weigh as much more.

    Args:
        optimizers: partials for `generator`, `discriminator` and whatever else is trained.
        generator: with `mapping`, `synthesis`, `styles` and `style_dim`.
        discriminator: of its images.
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

    w_average: Tensor
    path_average: Tensor
    steps: Tensor

    def __init__(
        self,
        optimizers: Mapping[str, OptimizerPartial],
        generator: Generator,
        discriminator: nn.Module,
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
        self.generator, self.discriminator = generator, discriminator
        self.ema = EMA(self.generator, decay)
        self.register_buffer("w_average", torch.zeros(generator.style_dim))
        self.register_buffer("path_average", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def mapped(self, network: Generator, z: Tensor, text: EncodedText | None) -> Tensor:
        """Latents (N, style_dim) to w (N, style_dim) by `network`, the generator or its average."""
        return network.mapping(z)

    def synthesised(self, network: Generator, styles: Tensor, maps: list[Tensor], text: EncodedText | None) -> Tensor:
        """Styles (N, S, style_dim) and noise maps to images (N, 3, H, W) by `network`."""
        return network.synthesis(styles, maps)

    def fake(self, noise: Noise, use: str, text: EncodedText | None = None) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) and their styles (N, S, D) in training; `use` names the random numbers.

        `text` is what they are to show, where that is asked for.
        """
        first, second = (
            self.mapped(self.generator, self.latent(noise, f"{use} {which}"), text) for which in ("first", "second")
        )
        self.w_average.lerp_(batch_mean(first.detach()).to(self.w_average), 1 - W_AVERAGE_DECAY)
        num_styles = self.generator.synthesis.num_styles
        chance, place = noise.uniform(f"{use} mixing", 2).unbind(dim=1)  # (N,)
        crossover = torch.where(chance < self.mixing, 1 + (place * (num_styles - 1)).long(), num_styles)
        styles = mixed(self.generator.styles(first), self.generator.styles(second), crossover)
        return self.synthesised(self.generator, styles, self.maps(noise, use), text), styles

    def latent(self, noise: Noise, use: str) -> Tensor:
        return noise.normal(f"{use} z", self.generator.style_dim)

    def maps(self, noise: Noise, use: str) -> list[Tensor]:
        sizes = self.generator.synthesis.noise_sizes
        return [noise.normal(f"{use} map {place}", 1, size, size) for place, size in enumerate(sizes)]

    def path_terms(self, noise: Noise, text: EncodedText | None = None) -> dict[str, Tensor]:
        """Equation 4, on the first part of the batch."""
        count = own_of_first(len(noise.samples) * num_processes() // PATH_BATCH_SHRINK)
        part = noise.samples[: max(1, count)]
        noise = type(noise)(noise.seed, part, noise.device)
        text = text and EncodedText(*(column[: len(part)] for column in text))
        image, styles = self.fake(noise, "path", text)
        lengths = path_lengths(image, styles, noise.normal("path eps", *image.shape[1:]))
        penalty, average = path_length_penalty(lengths, self.path_average, PATH_DECAY)
        self.path_average.copy_(average)
        return {"L_path": self.path_every * self.path_weight * penalty}

    def sampled_styles(self, noise: Noise, text: EncodedText | None = None) -> Tensor:
        """The styles (N, S, D) of the generator's average, drawn towards the average of all of them."""
        average = self.ema.average
        styles = average.styles(self.mapped(average, self.latent(noise, "sample"), text))
        return truncated(styles, self.w_average, self.truncation)

    def on_fit_start(self) -> None:
        if self.accumulate > 1:
            raise ValueError(
                f"expected whole batches for {type(self).__name__}, whose penalties are steps between its others, "
                f"found training.accumulate={self.accumulate}: lower method.training.batch_size"
            )
