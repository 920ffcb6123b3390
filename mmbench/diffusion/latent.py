"""Diffusion among the latents of a trained autoencoder: LDM, https://arxiv.org/abs/2112.10752, section 3."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmbench.core.frozen import Frozen
from mmbench.core.learner import AveragedLearner, OptimizerPartial
from mmbench.core.method import LONG_SAMPLING, Batch
from mmbench.core.noise import Noise
from mmbench.core.processes import gathered
from mmbench.diffusion.denoisers import Condition, Denoiser, predicts_noise
from mmbench.diffusion.guidance import classifier_free
from mmbench.diffusion.objectives import simple_noise
from mmbench.diffusion.schedules import Schedule, evenly_spaced

Sampler = Callable[..., Tensor]  # of a denoiser, a schedule, a start, a condition and the noise of each step


class Latents(Frozen):
    """The autoencoder of a trained stage.

    Attributes:
        factor: by which a latent is smaller than its image.
        channels: of a latent.
    """

    @property
    def factor(self) -> int:
        return self.network.factor

    @property
    def channels(self) -> int:
        raise NotImplementedError

    def drawn(self, image: Tensor, noise: Noise) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] to latents (N, C, H / factor, W / factor); of a distribution, one of it."""
        raise NotImplementedError

    def images(self, latent: Tensor) -> Tensor:
        """Latents (N, C, h, w) to images (N, 3, H, W) in [-1, 1]."""
        raise NotImplementedError


class NormalLatents(Latents):
    """Of an autoencoder that gives a normal distribution: drawn from it, not its mean, when images are made, too."""

    @property
    def channels(self) -> int:
        return self.network.latent_channels

    def drawn(self, image: Tensor, noise: Noise) -> Tensor:
        posterior = self.network.encode(image)
        return posterior.drawn(noise.normal("latent", *posterior.mean.shape[1:]))

    def images(self, latent: Tensor) -> Tensor:
        return self.network.decode(latent).clamp(-1, 1)


class QuantisedLatents(Latents):
    """Of an autoencoder that quantises: a latent is what comes before, so that quantising is part of decoding."""

    @property
    def channels(self) -> int:
        return self.network.quantiser.in_channels

    def drawn(self, image: Tensor, noise: Noise) -> Tensor:
        return self.network.latent(image)

    def images(self, latent: Tensor) -> Tensor:
        return self.network.decode(self.network.quantiser.indices(latent)).clamp(-1, 1)


class LatentDiffusion(AveragedLearner):
    """What latent diffusion models share, whatever their condition is.

    Args:
        first_stage: the trained stage, with an `autoencoder`.
        latents: what makes `Latents` of that.
        unet: network from noisy latents (N, C, h, w), timesteps (N,) and a condition to their noise.
        noise_schedule: of training.
        sampler: partial of one of `mmbench.diffusion.samplers`.
        num_steps: of sampling, taken evenly from the schedule's.
        guidance: scale of classifier-free guidance; 1 is none.
        scale: what latents are multiplied by; None: their deviation in the first batch becomes 1.
        decay: of the U-Net's moving average, which makes the images.
        optimizer: partial of the optimiser, of all that is trained.

    Raises:
        ValueError: more steps than the schedule has.
    """

    at_once = LONG_SAMPLING
    trains_on = frozenset({"image"})
    scale: Tensor

    def __init__(
        self,
        first_stage: nn.Module,
        latents: Callable[[nn.Module], Latents],
        unet: nn.Module,
        noise_schedule: Schedule,
        sampler: Sampler,
        num_steps: int,
        guidance: float,
        scale: float | None,
        decay: float,
        optimizer: OptimizerPartial,
    ) -> None:
        super().__init__(optimizer, unet, decay)
        self.latents = latents(first_stage.autoencoder)
        self.unet = unet
        self.noise_schedule, self.sampling = noise_schedule, evenly_spaced(noise_schedule, num_steps)
        self.sampler, self.guidance = sampler, guidance
        self.standardises = scale is None
        self.register_buffer("scale", torch.tensor(1.0 if scale is None else scale))

    def condition(self, batch: Batch) -> Condition:
        """What the U-Net is told of a training batch."""
        raise NotImplementedError

    def latent(self, image: Tensor, noise: Noise) -> Tensor:
        """Images (N, 3, H, W) to latents (N, C, h, w), not scaled, without a gradient."""
        with torch.no_grad():
            return self.latents.drawn(image, noise).to(image.dtype)

    def errors(self, latent: Tensor, step: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        """How far the noise found is from the one that was added, (N,): equation 2."""
        return simple_noise(self.unet, self.noise_schedule, latent, step, noise, condition)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if self.standardises and self.current_epoch == batch_idx == 0:
            latent = gathered(self.latent(batch["image"], batch["noise"]))
            self.scale.copy_(1 / latent.std())

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        noise = batch["noise"]
        latent = self.scale * self.latent(batch["image"], noise)
        step = self.noise_schedule.drawn(noise.uniform("step"))
        eps = noise.normal("noise", *latent.shape[1:]).to(latent)
        return {"L": self.errors(latent, step, eps, self.condition(batch)).mean()}

    @property
    def followed(self) -> nn.Module:
        return self.unet

    def denoiser(self) -> Denoiser:
        """The average's, of the steps of sampling."""
        return predicts_noise(self.ema, self.sampling)

    def sampled(self, condition: Condition, unconditional: Condition, noise: Noise, height: int, width: int) -> Tensor:
        """Images (N, 3, height, width) in [-1, 1] of a condition, by guidance that leads away from another one.

        Raises:
            ValueError: height or width is no multiple of the autoencoder's stride; guidance without `unconditional`.
        """
        factor = self.latents.factor
        if height % factor or width % factor:
            raise ValueError(
                f"expected images whose height and width are multiples of {factor}, the autoencoder's stride, found "
                f"{height} x {width}: set data.module.image_size and method.module.image_size"
            )
        shape = self.latents.channels, height // factor, width // factor
        latent = self.sampler(
            classifier_free(self.denoiser(), self.guidance, unconditional),
            self.sampling,
            noise.normal("start", *shape),
            condition,
            noise=lambda step: noise.normal(f"step {step}", *shape),
        )
        return self.latents.images(latent / self.scale)
