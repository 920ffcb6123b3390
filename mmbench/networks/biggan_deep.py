"""BigGAN-deep: blocks with a bottleneck, two in each stage.

Andrew Brock, Jeff Donahue, Karen Simonyan. Large Scale GAN Training for High Fidelity Natural Image Synthesis. ICLR
2019. https://arxiv.org/abs/1809.11096, appendix B, figure 16 and tables 7 to 9
Authors' code: https://github.com/ajbrock/BigGAN-PyTorch/tree/98459431a5d618d644d54cd1e9fceb1e5045648d, BigGANdeep.py
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from mmbench.networks.biggan import BIGGAN, Discriminator, GeneratorTrunk, Layers, doubled, generator_keys

NARROWER = 4  # a bottleneck has so many times fewer channels
DEPTH = 2  # blocks in each stage


class DeepGeneratorBlock(nn.Module):
    """Four convolutions, each behind conditional batch normalisation, and a shortcut that drops channels.

    Args:
        in_channels, out_channels: of its features, `out_channels` no more.
        doubled: whether it doubles the size.
        condition_dim: size of a condition.
        layers: what it is made of.
    """

    def __init__(self, in_channels: int, out_channels: int, doubled: bool, condition_dim: int, layers: Layers) -> None:
        super().__init__()
        self.layers, self.out_channels, self.doubled = layers, out_channels, doubled
        narrow = in_channels // NARROWER
        self.norm1 = layers.norm(in_channels, condition_dim)
        self.norm2, self.norm3, self.norm4 = (layers.norm(narrow, condition_dim) for _ in range(3))
        self.convolution1 = layers.convolution(in_channels, narrow, 1)
        self.convolution2, self.convolution3 = (layers.convolution(narrow, narrow, 3, padding=1) for _ in range(2))
        self.convolution4 = layers.convolution(narrow, out_channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, in_channels, H, W) and (N, condition_dim) to (N, out_channels, H, W), or twice the size."""
        activated = self.layers.activated
        hidden = self.convolution1(activated(self.norm1(x, condition)))
        hidden = activated(self.norm2(hidden, condition))
        kept = x[:, : self.out_channels]
        if self.doubled:
            hidden, kept = doubled(hidden), doubled(kept)
        hidden = self.convolution3(activated(self.norm3(self.convolution2(hidden), condition)))
        return kept + self.convolution4(activated(self.norm4(hidden, condition)))


class DeepGeneratorTrunk(GeneratorTrunk):
    """As `GeneratorTrunk`, of deep blocks: the first of a stage keeps channels and size, the last changes both."""

    def stage(self, in_channels: int, out_channels: int, condition_dim: int) -> Iterator[nn.Module]:
        yield DeepGeneratorBlock(in_channels, in_channels, False, condition_dim, self.layers)
        yield DeepGeneratorBlock(in_channels, out_channels, True, condition_dim, self.layers)


class DeepGenerator(DeepGeneratorTrunk):
    """The embedded condition and the latent together begin the image and reach every stage.

    Args:
        image_size, width, attention_size: as `GeneratorTrunk`.
        latent_dim: size of the latent.
        embed: from a condition to (N, shared_dim), one for all stages.
        shared_dim: size of an embedded condition.
    """

    def __init__(
        self, image_size: int, width: int, latent_dim: int, embed: nn.Module, shared_dim: int, attention_size: int
    ) -> None:
        both = shared_dim + latent_dim
        super().__init__(image_size, width, both, both, attention_size, BIGGAN)
        self.embed = embed

    def forward(self, latent: Tensor, y: Tensor) -> Tensor:
        """(N, latent_dim) and N conditions to images (N, 3, H, W) in [-1, 1]."""
        both = torch.cat((self.embed(y), latent), dim=1)
        return self.grown(both, [both] * len(self.stages))


class DeepDiscriminatorBlock(nn.Module):
    """Four convolutions and a shortcut, to which a convolution adds the channels that it lacks.

    Args:
        in_channels, out_channels: of its features, `out_channels` no fewer.
        halved: whether it halves the size.
        layers: what it is made of.
    """

    def __init__(self, in_channels: int, out_channels: int, halved: bool, layers: Layers) -> None:
        super().__init__()
        self.layers = layers
        narrow = out_channels // NARROWER
        self.convolution1 = layers.convolution(in_channels, narrow, 1)
        self.convolution2, self.convolution3 = (layers.convolution(narrow, narrow, 3, padding=1) for _ in range(2))
        self.convolution4 = layers.convolution(narrow, out_channels, 1)
        self.pool = nn.AvgPool2d(2) if halved else nn.Identity()
        if out_channels > in_channels:
            self.shortcut = layers.convolution(in_channels, out_channels - in_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H, W), or half the size."""
        activated = self.layers.activated
        hidden = self.convolution1(activated(x))
        hidden = self.convolution3(activated(self.convolution2(activated(hidden))))
        hidden = self.convolution4(self.pool(activated(hidden)))
        kept = self.pool(x)
        more = [self.shortcut(kept)] if hasattr(self, "shortcut") else []
        return hidden + torch.cat((kept, *more), dim=1)


class DeepDiscriminator(Discriminator):
    """As `Discriminator`, of deep blocks behind a convolution: the first of a stage changes channels and size."""

    def entered(self, channels: int) -> nn.Module:
        return self.layers.convolution(3, channels, 3, padding=1)

    def steps(self, channels: list[int]) -> Iterable[tuple[int, int]]:
        return pairwise(channels)

    def stage(self, in_channels: int, out_channels: int, halved: bool) -> Iterator[nn.Module]:
        yield DeepDiscriminatorBlock(in_channels, out_channels, halved, self.layers)
        yield DeepDiscriminatorBlock(out_channels, out_channels, False, self.layers)


DEEP_GENERATOR = generator_keys(DEPTH)
