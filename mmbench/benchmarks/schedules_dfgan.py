"""DF-GAN's schedule, after the authors' training loop.

The generator's loss leaves gradients in the discriminator, and in the sentences; text is fused behind upsampling, and a
shortcut's convolution comes before its pooling.
https://github.com/tobran/DF-GAN/blob/78f14fd72cb70172d2067791c9df386f03f5124b/code/lib/modules.py#L35
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.benchmarks.schedules import Losses, Theirs, adam
from mmbench.core.method import Batch
from mmbench.methods.synthesis.dfgan import DFGAN, DownBlock, FusionUpBlock


class TheirsDFGAN(Theirs):
    method: DFGAN

    def __init__(self, method: DFGAN) -> None:
        super().__init__(method)
        self.optimizers = [adam(method, name, getattr(method, name)) for name in ("discriminator", "generator")]
        for block in method.modules():
            if isinstance(block, FusionUpBlock):
                block.forward = partial(upsampled_then_fused, block)  # type: ignore[method-assign]
            elif isinstance(block, DownBlock):
                block.forward = partial(convolved_then_pooled, block)  # type: ignore[method-assign]

    def step(self, batch: Batch) -> Losses:
        method, judge = self.method, self.method.discriminator
        real, sentence = (given.requires_grad_() for given in (batch["image"], method.sentences.captions(batch)))
        features = judge.features(real)
        matched = judge.match(features, sentence)
        on_real = F.relu(1 - matched).mean()
        on_mismatched = F.relu(1 + judge.match(torch.cat((features[1:], features[:1])), sentence)).mean()
        fake = method.generator(batch["noise"].normal("z", method.noise_dim), sentence)
        on_fake = F.relu(1 + judge(fake.detach(), sentence)).mean()
        slopes = torch.autograd.grad(matched, (real, sentence), torch.ones_like(matched), create_graph=True)
        norms = torch.cat([slope.flatten(1) for slope in slopes], dim=1).square().sum(dim=1).sqrt()
        penalty = method.penalty_weight * (norms**method.penalty_power).mean()
        self.optimizers[0].zero_grad()
        (on_real + (on_fake + on_mismatched) / 2 + penalty).backward()
        self.optimizers[0].step()

        made = -judge(fake, sentence).mean()
        self.optimizers[1].zero_grad()
        made.backward()
        self.optimizers[1].step()
        return {
            "discriminator/L_D_real": on_real,
            "discriminator/L_D_fake": on_fake / 2,
            "discriminator/L_D_mismatched": on_mismatched / 2,
            "discriminator/MA_GP": penalty,
            "generator/L_G": made,
        }


def upsampled_then_fused(block: FusionUpBlock, x: Tensor, condition: Tensor) -> Tensor:
    x = F.interpolate(x, scale_factor=2, mode="nearest")
    first = block.convolution1
    hidden = F.conv2d(block.fusion1(x, condition), first.weight, first.bias, padding=1)
    return block.shortcut(x) + block.convolution2(block.fusion2(hidden, condition))


def convolved_then_pooled(block: DownBlock, x: Tensor) -> Tensor:
    return F.avg_pool2d(block.shortcut(x), 2) + block.gamma * block.residual(x)
