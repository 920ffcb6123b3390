"""LDM's schedule, text to image, after the authors' training loop.

As their configuration of text to image has it, the U-Net's residual blocks and transformer blocks keep nothing of what
they compute, and compute it once more for the gradient. Attention has a whole matrix of weights; the loss has a bound
that weighs nothing; and the average of the U-Net, whose weight of the past grows with the steps, takes its parameters
in one by one, by names. No loss shows the average.
https://github.com/CompVis/latent-diffusion/blob/a506df5/ldm/models/diffusion/ddpm.py#L342
https://github.com/CompVis/latent-diffusion/blob/a506df5/ldm/models/diffusion/ddpm.py#L1014
https://github.com/CompVis/latent-diffusion/blob/a506df5/ldm/modules/ema.py#L30
https://github.com/CompVis/latent-diffusion/blob/a506df5/configs/latent-diffusion/txt2img-1p4B-eval.yaml
"""

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmbench.benchmarks.schedules import Losses, Theirs, only_optimizer, weighted_attention
from mmbench.core.method import Batch
from mmbench.diffusion.objectives import noise_bound_weights
from mmbench.methods.synthesis.ldm import LDM
from mmbench.networks.adm import PlainResidualBlock
from mmbench.networks.ldm import InformedResidualBlock, Known, TransformerBlock


def computed_twice(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Reentrant, since the other kind stops half-way through the second time, where theirs goes to the end."""
    return checkpoint(function, *inputs, use_reentrant=True, preserve_rng_state=False)


def informed_twice(block: InformedResidualBlock, x: Tensor, known: Known) -> Tensor:
    return computed_twice(partial(PlainResidualBlock.forward, block), x, known.embedding)


class TheirsLDM(Theirs):
    method: LDM

    def __init__(self, method: LDM) -> None:
        super().__init__(method)
        for module in method.unet.modules():
            if isinstance(module, InformedResidualBlock):
                module.forward = partial(informed_twice, module)  # type: ignore[method-assign]
            elif isinstance(module, TransformerBlock):
                module.forward = partial(computed_twice, module.forward)  # type: ignore[method-assign]
        self.optimizer = only_optimizer(method)
        self.bound = noise_bound_weights(method.noise_schedule).to(method.device)
        self.log_variance = torch.zeros(len(method.noise_schedule), device=method.device)
        self.num_updates = 0

    def step(self, batch: Batch) -> Losses:
        if self.method.standardises and not self.num_updates:
            self.method.scale.copy_(1 / self.method.latent(batch["image"], batch["noise"]).std())
        with patch.object(F, "scaled_dot_product_attention", weighted_attention):
            loss = self.loss(batch)
            self.optimizer.zero_grad()
            loss.backward()
        self.optimizer.step()
        self.average()
        return {"ldm/L": loss}

    def loss(self, batch: Batch) -> Tensor:
        method, noise, schedule = self.method, batch["noise"], self.method.noise_schedule
        latent = method.scale * method.latent(batch["image"], noise)
        step = schedule.drawn(noise.uniform("step"))
        context = method.condition(batch)
        eps = noise.normal("noise", *latent.shape[1:]).to(latent)
        kept, added = (
            table.to(latent)[step][:, None, None, None]
            for table in (schedule.alphas_cumprod.sqrt(), (1 - schedule.alphas_cumprod).sqrt())
        )
        found = method.unet(kept * latent + added * eps, step, context)
        errors = F.mse_loss(eps, found, reduction="none").mean(dim=(1, 2, 3))
        simple = (errors / self.log_variance[step].exp() + self.log_variance[step]).mean()
        return simple + 0.0 * (self.bound.to(errors)[step] * errors).mean()

    @torch.no_grad()
    def average(self) -> None:
        method = self.method
        self.num_updates += 1
        decay = min(method.ema.decay, (1 + self.num_updates) / (10 + self.num_updates))
        latest, averages = dict(method.unet.named_parameters()), dict(method.ema.average.named_parameters())
        for name in latest:
            averages[name].sub_((1 - decay) * (averages[name] - latest[name]))
