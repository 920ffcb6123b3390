"""StyleGAN2's projector: the latent and the noise of which a trained generator makes a given image.

Tero Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020, https://arxiv.org/abs/1912.04958,
appendix D. Authors' code: https://github.com/NVlabs/stylegan2/blob/bf0fe0b/projector.py. One w for all layers is
optimised, and the noise maps, by the perceptual distance; noise that decays is added to w, so that it finds its way;
a penalty keeps the maps from drawing the image themselves.

Deviation: maps are divided by their unbiased deviation, as in
https://github.com/rosinality/stylegan2-pytorch/blob/bef283a/projector.py, whose numbers are recorded; the authors' is
biased, a difference of one part in 32 at 4 x 4 pixels.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.frozen import Frozen
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import RECONSTRUCTION
from mmbench.core.tuned import State, Tuned

NUM_LATENTS, LATENT_SEED = 10_000, 123  # of which the mean and the spread of w are computed, as the authors drew them
SMALLEST_MAP = 8  # the noise penalty looks at sizes down to this one
SEEN_SIZE = 256  # larger images are averaged down to it before they are compared


class Projector(Tuned):
    """The projection into W, and the image that comes back.

    Args:
        generator: the trained stage, with its averaged generator as `ema.average`.
        perceptual: frozen network from images to `embedding`, whose squared distance is the perceptual one.
        steps: of the optimisation.
        learning_rate: of Adam, at its highest.
        rampup, rampdown: shares of the steps in which the learning rate rises and falls.
        w_noise: deviation of the noise on w at the start, in units of the spread of w.
        w_noise_share: share of the steps in which it decays to 0.
        lambda_noise: weight of the penalty on noise maps.
    """

    task = RECONSTRUCTION
    largest_batch = 1  # a thousand steps make of another rounding another image

    def __init__(
        self,
        generator: nn.Module,
        perceptual: nn.Module,
        steps: int,
        learning_rate: float,
        rampup: float,
        rampdown: float,
        w_noise: float,
        w_noise_share: float,
        lambda_noise: float,
    ) -> None:
        super().__init__()
        self.generator = Frozen(generator.ema.average)
        self.perceptual = perceptual
        self.steps = steps
        self.learning_rate, self.rampup, self.rampdown = learning_rate, rampup, rampdown
        self.w_noise, self.w_noise_share = w_noise, w_noise_share
        self.lambda_noise = lambda_noise

    def tune(self, inputs: Batch, noise: Noise) -> list[State]:
        generator, image = self.generator.network, inputs["image"]
        sizes = generator.synthesis.noise_sizes
        if image.shape[-2:] != (sizes[-1], sizes[-1]):
            raise ValueError(
                f"expected images of {sizes[-1]} x {sizes[-1]}, which the generator makes, found "
                f"{image.shape[-2]} x {image.shape[-1]}: set data.module.image_size"
            )
        wanted = self.seen(image)
        average, spread = self.statistics()
        w = average.repeat(len(wanted), 1).requires_grad_()  # (M, D)
        maps = [noise.normal(f"map {place}", 1, size, size).requires_grad_() for place, size in enumerate(sizes)]
        disturbance = noise.normal("disturbance", self.steps, w.shape[1])  # (M, steps, D)
        optimizer = torch.optim.Adam([w, *maps])
        for step in range(self.steps):
            done = step / self.steps
            rate = learning_rate(self.learning_rate, done, self.rampdown, self.rampup)
            optimizer.param_groups[0]["lr"] = rate
            strength = self.w_noise * spread * max(0.0, 1 - done / self.w_noise_share) ** 2
            image = generator.synthesis(generator.styles(w + strength * disturbance[:, step]), maps)
            distance = (self.seen(image) - wanted).square().sum(dim=1)
            loss = (distance + self.lambda_noise * noise_regularisation(maps)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for noise_map in maps:
                normalise_(noise_map.data)
        kept = {"w": w, **{f"map {place}": one for place, one in enumerate(maps)}}
        return [{name: tensor[row].detach() for name, tensor in kept.items()} for row in range(len(wanted))]

    def draw(self, batch: Batch, tuned: list[State], noise: Noise) -> Tensor:
        generator = self.generator.network
        num_maps = len(generator.synthesis.noise_sizes)
        w, *maps = (
            torch.stack([state[name] for state in tuned])
            for name in ("w", *(f"map {place}" for place in range(num_maps)))
        )
        with torch.no_grad():
            return generator.synthesis(generator.styles(w), maps).clamp(-1, 1)

    def seen(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to what the perceptual distance is of, (N, D)."""
        if image.shape[2] > SEEN_SIZE:
            image = F.avg_pool2d(image, image.shape[2] // SEEN_SIZE)
        return self.perceptual((image + 1) * 127.5)["embedding"]

    @torch.no_grad()
    def statistics(self) -> tuple[Tensor, Tensor]:
        """The mean of w (D,) and its spread, the root of the mean squared distance from it."""
        generator = self.generator.network
        z = np.random.RandomState(LATENT_SEED).randn(NUM_LATENTS, generator.style_dim)
        w = generator.mapping(torch.from_numpy(z.astype(np.float32)).to(self.device))
        average = w.mean(dim=0)
        return average, (w - average).square().sum(dim=1).mean().sqrt()


def learning_rate(highest: float, done: float, rampdown: float, rampup: float) -> float:
    """The rate when a share `done` of the steps is done: a linear rise, and at the end a fall along a cosine."""
    fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - done) / rampdown))
    return highest * fall * min(1.0, done / rampup)


def noise_regularisation(maps: Sequence[Tensor]) -> Tensor:
    """How far neighbours in noise maps agree, at each size from that of the map down to 8: equation 5.

    Args:
        maps: (N, C, s, s) each.

    Returns:
        (N,): the sum over maps, sizes and both axes of the squared mean product of neighbours.
    """
    total = maps[0].new_zeros(len(maps[0]))
    for noise in maps:
        while True:
            for axis in (3, 2):
                total = total + (noise * noise.roll(1, dims=axis)).mean(dim=(1, 2, 3)).square()
            if noise.shape[2] <= SMALLEST_MAP:
                break
            noise = F.avg_pool2d(noise, 2)
    return total


def normalise_(noise: Tensor) -> None:
    """Gives each map (N, C, s, s) zero mean and unit variance, in place."""
    noise -= noise.mean(dim=(1, 2, 3), keepdim=True)
    noise /= noise.std(dim=(1, 2, 3), keepdim=True)
