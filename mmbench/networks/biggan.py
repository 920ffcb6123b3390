"""BigGAN's networks, for a condition of any kind.

Andrew Brock, Jeff Donahue, Karen Simonyan. Large Scale GAN Training for High Fidelity Natural Image Synthesis. ICLR
2019. https://arxiv.org/abs/1809.11096, appendix B, figures 15 and 17
Authors' code: https://github.com/ajbrock/BigGAN-PyTorch/tree/98459431a5d618d644d54cd1e9fceb1e5045648d

The condition y is what `embed` makes a vector of: a class by `nn.Embedding`, a sentence by `nn.Linear`. BigGAN-deep,
with other blocks, is in `mmbench.networks.biggan_deep`.

Deviations: a shortcut's convolution of one pixel comes before upsampling and behind pooling, which gives the same
numbers from a quarter of the products.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from math import log2
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.weights import KeyMap
from mmbench.layers.conditional_batch_norm import ConditionalBatchNorm
from mmbench.layers.convolution import BATCHES_TRACKED
from mmbench.layers.self_attention import SelfAttention
from mmbench.layers.spectral_norm import SpectralConv2d, SpectralLinear

# Size of the image to channels, as multiples of the width: of a generator from 4 pixels on, of a discriminator from the
# image on. At 32 pixels a discriminator stops halving at 8.
GENERATOR_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
}
DISCRIMINATOR_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
}
SMALLEST = {32: 8, 64: 4, 128: 4, 256: 4}


class Layers(NamedTuple):
    """What a BigGAN is made of, in which its descendants differ.

    Attributes:
        convolution, linear: make layers as `nn.Conv2d` and `nn.Linear` do.
        slope: of activations below 0.
        projected_bias: whether the linear layers of conditional batch normalisation have a bias.
    """

    convolution: Callable[..., nn.Module]
    linear: Callable[..., nn.Module]
    slope: float
    projected_bias: bool

    def activated(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope)

    def norm(self, channels: int, condition_dim: int) -> ConditionalBatchNorm:
        return ConditionalBatchNorm(channels, condition_dim, self.linear, self.projected_bias)


BIGGAN = Layers(SpectralConv2d, SpectralLinear, slope=0.0, projected_bias=False)


def doubled(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, 2H, 2W), each pixel as four."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class GeneratorBlock(nn.Module):
    """Doubles the size: two convolutions, each behind conditional batch normalisation, and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, condition_dim: int, layers: Layers) -> None:
        super().__init__()
        self.layers = layers
        self.norm1 = layers.norm(in_channels, condition_dim)
        self.convolution1 = layers.convolution(in_channels, out_channels, 3, padding=1)
        self.norm2 = layers.norm(out_channels, condition_dim)
        self.convolution2 = layers.convolution(out_channels, out_channels, 3, padding=1)
        self.shortcut = layers.convolution(in_channels, out_channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, in_channels, H, W) and (N, condition_dim) to (N, out_channels, 2H, 2W)."""
        hidden = self.convolution1(doubled(self.layers.activated(self.norm1(x, condition))))
        hidden = self.convolution2(self.layers.activated(self.norm2(hidden, condition)))
        return hidden + doubled(self.shortcut(x))


class GeneratorTrunk(nn.Module):
    """From a vector to the image, by stages that double the size, each of which has a condition.

    Args:
        image_size: height and width of images, one of `GENERATOR_WIDTHS`.
        width: what channels are multiples of.
        first_dim: size of the vector.
        condition_dim: size of a condition.
        attention_size: size of the features that attend to themselves; 0: none do.
        layers: what it is made of.
    """

    def __init__(
        self, image_size: int, width: int, first_dim: int, condition_dim: int, attention_size: int, layers: Layers
    ) -> None:
        super().__init__()
        channels = [width * multiple for multiple in GENERATOR_WIDTHS[image_size]]
        self.layers, self.attention_size = layers, attention_size
        self.project = layers.linear(first_dim, channels[0] * 4 * 4)
        self.stages = nn.ModuleList(nn.ModuleList(self.stage(*pair, condition_dim)) for pair in pairwise(channels))
        if attention_size:
            self.attention = SelfAttention(channels[int(log2(attention_size)) - 2], layers.convolution)
        self.norm = nn.BatchNorm2d(channels[-1])
        self.to_rgb = layers.convolution(channels[-1], 3, 3, padding=1)

    def stage(self, in_channels: int, out_channels: int, condition_dim: int) -> Iterator[nn.Module]:
        """The blocks that double the size once."""
        yield GeneratorBlock(in_channels, out_channels, condition_dim, self.layers)

    def grown(self, first: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        """A vector (N, first_dim), and a condition (N, condition_dim) for each stage, to images in [-1, 1]."""
        hidden = self.project(first).unflatten(1, (-1, 4, 4))
        for stage, condition in zip(self.stages, conditions, strict=True):
            for block in stage:
                hidden = block(hidden, condition)
            if hidden.shape[-1] == self.attention_size:
                hidden = self.attention(hidden)
        return self.to_rgb(self.layers.activated(self.norm(hidden))).tanh()


class Generator(GeneratorTrunk):
    """The latent is cut into pieces: one begins the image, the others reach the stages, behind the embedded condition.

    Args:
        image_size, width, attention_size: as `GeneratorTrunk`.
        latent_dim: size of the latent, one piece of it for each stage and one more.
        embed: from a condition to (N, shared_dim), one for all stages.
        shared_dim: size of an embedded condition.

    Raises:
        ValueError: the latent cannot be cut evenly.
    """

    def __init__(
        self, image_size: int, width: int, latent_dim: int, embed: nn.Module, shared_dim: int, attention_size: int
    ) -> None:
        self.num_pieces = len(GENERATOR_WIDTHS[image_size])
        if latent_dim % self.num_pieces:
            raise ValueError(
                f"expected a latent that can be cut into {self.num_pieces} pieces, found one of {latent_dim}: choose a "
                "multiple"
            )
        piece = latent_dim // self.num_pieces
        super().__init__(image_size, width, piece, shared_dim + piece, attention_size, BIGGAN)
        self.embed = embed

    def forward(self, latent: Tensor, y: Tensor) -> Tensor:
        """(N, latent_dim) and N conditions to images (N, 3, H, W) in [-1, 1]."""
        embedded = self.embed(y)
        first, *others = latent.chunk(self.num_pieces, dim=1)
        return self.grown(first, [torch.cat((embedded, piece), dim=1) for piece in others])


class FlatGenerator(GeneratorTrunk):
    """As `Generator`, and the whole latent begins the image: stages have nothing but the embedded condition."""

    def __init__(
        self, image_size: int, width: int, latent_dim: int, embed: nn.Module, shared_dim: int, attention_size: int
    ) -> None:
        super().__init__(image_size, width, latent_dim, shared_dim, attention_size, BIGGAN)
        self.embed = embed

    def forward(self, latent: Tensor, y: Tensor) -> Tensor:
        """(N, latent_dim) and N conditions to images (N, 3, H, W) in [-1, 1]."""
        return self.grown(latent, [self.embed(y)] * len(self.stages))


class DiscriminatorBlock(nn.Module):
    """Two convolutions and a shortcut.

    Args:
        in_channels, out_channels: of its features.
        halved: whether it halves the size.
        layers: what it is made of.
    """

    def __init__(self, in_channels: int, out_channels: int, halved: bool, layers: Layers) -> None:
        super().__init__()
        self.layers = layers
        self.convolution1 = layers.convolution(in_channels, out_channels, 3, padding=1)
        self.convolution2 = layers.convolution(out_channels, out_channels, 3, padding=1)
        self.pool = nn.AvgPool2d(2) if halved else nn.Identity()
        same = in_channels == out_channels and not halved
        self.shortcut = nn.Identity() if same else layers.convolution(in_channels, out_channels, 1)

    def activated(self, x: Tensor) -> Tensor:
        """What the first convolution sees of the input."""
        return self.layers.activated(x)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H, W), or half the size."""
        hidden = self.convolution2(self.layers.activated(self.convolution1(self.activated(x))))
        return self.pool(hidden) + self.shortcut(self.pool(x))


class FirstDiscriminatorBlock(DiscriminatorBlock):
    """As `DiscriminatorBlock`, and the first convolution sees the input, which is an image, as it is."""

    def activated(self, x: Tensor) -> Tensor:
        return x


class Discriminator(nn.Module):
    """Judges images by a score, and by the inner product of their features with the embedded condition.

    Projection: Miyato and Koyama, cGANs with Projection Discriminator, ICLR 2018, https://arxiv.org/abs/1802.05637.

    Args:
        image_size: height and width of images, one of `DISCRIMINATOR_WIDTHS`.
        width: what channels are multiples of.
        attention_size: size of the features that attend to themselves; 0: none do.
        embed: makes, from the number of channels C, what embeds a condition as (N, C).
        layers: what it is made of.
    """

    def __init__(
        self,
        image_size: int,
        width: int,
        attention_size: int,
        embed: Callable[[int], nn.Module],
        layers: Layers = BIGGAN,
    ) -> None:
        super().__init__()
        self.layers = layers
        channels = [width * multiple for multiple in DISCRIMINATOR_WIDTHS[image_size]]
        self.entry = self.entered(channels[0])
        self.stages = nn.Sequential()
        size, smallest = image_size, SMALLEST[image_size]
        for pair in self.steps(channels):
            halved = size > smallest
            size //= 1 + halved
            attention = [SelfAttention(pair[1], layers.convolution)] if halved and size == attention_size else []
            self.stages.append(nn.Sequential(*self.stage(*pair, halved), *attention))
        self.score = layers.linear(channels[-1], 1)
        self.embed = embed(channels[-1])

    def entered(self, channels: int) -> nn.Module:
        """What comes before the stages."""
        return nn.Identity()

    def steps(self, channels: list[int]) -> Iterable[tuple[int, int]]:
        """Channels that go into a stage and come out."""
        return pairwise([3, *channels])

    def stage(self, in_channels: int, out_channels: int, halved: bool) -> Iterator[nn.Module]:
        """The blocks of one size."""
        block = FirstDiscriminatorBlock if in_channels == 3 else DiscriminatorBlock
        yield block(in_channels, out_channels, halved, self.layers)

    def forward(self, image: Tensor, y: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] and N conditions to logits (N,)."""
        pooled = self.layers.activated(self.stages(self.entry(image))).sum(dim=(2, 3))
        return self.score(pooled)[:, 0] + (self.embed(y) * pooled).sum(dim=1)


# The authors' names, as patterns, of a layer's tensors, of a block's layers and of attention's layers, and ours.
TENSORS = {"weight": "weight", "bias": "bias", "u0": "u"}
LAYERS = {
    **{f"conv{n}": f"convolution{n}" for n in range(1, 5)},
    "conv_sc": "shortcut",
    **{rf"bn{n}\.gain": f"norm{n}.scale" for n in range(1, 5)},
    **{rf"bn{n}\.bias": f"norm{n}.shift" for n in range(1, 5)},
}
ATTENTION = {"theta": "query", "phi": "key", "g": "value", "o": "project"}


def layer_keys(theirs: str, ours: str) -> dict[str, str]:
    """Patterns for the tensors of a layer with spectral normalisation, to our names."""
    return {rf"{theirs}\.{one}": f"{ours}.{other}" for one, other in TENSORS.items()}


def block_keys(theirs: str, ours: str) -> dict[str, str]:
    """Patterns for the tensors of a block, to our names."""
    found: dict[str, str] = {}
    for one, other in LAYERS.items():
        found |= layer_keys(rf"{theirs}\.{one}", f"{ours}.{other}")
    for moment in ("mean", "var"):
        found[rf"{theirs}\.bn(?P<n>[1-4])\.stored_{moment}"] = rf"{ours}.norm\g<n>.norm.running_{moment}"
    return found


def attention_keys(theirs: str, ours: str) -> dict[str, str]:
    """Patterns for the tensors of self-attention, to our names."""
    found = {rf"{theirs}\.gamma": f"{ours}.gamma"}
    for one, other in ATTENTION.items():
        found |= layer_keys(rf"{theirs}\.{one}", f"{ours}.{other}")
    return found


NO_VALUE = {r".*\.sv0": "the singular value, for people to look at"}
AS_VECTOR = {r".*\.u": torch.flatten}


def generator_keys(depth: int) -> KeyMap:
    """Of a generator with so many blocks in each stage, which the authors count through."""
    numbers = range(depth * max(map(len, GENERATOR_WIDTHS.values())))
    return KeyMap(
        rename={
            r"shared\.weight": "embed.weight",
            **layer_keys("linear", "project"),
            **{
                pattern: name
                for n in numbers
                for pattern, name in block_keys(rf"blocks\.{n}\.0", f"stages.{n // depth}.{n % depth}").items()
            },
            **attention_keys(r"blocks\.\d+\.1", "attention"),
            r"output_layer\.0\.gain": "norm.weight",
            r"output_layer\.0\.bias": "norm.bias",
            r"output_layer\.0\.stored_(mean|var)": r"norm.running_\1",
            **layer_keys(r"output_layer\.2", "to_rgb"),
        },
        drop=NO_VALUE,
        convert=AS_VECTOR,
        fill=BATCHES_TRACKED,
    )


DISCRIMINATOR = KeyMap(
    rename={
        **layer_keys("input_conv", "entry"),
        **block_keys(r"blocks\.(\d+)\.(\d+)", r"stages.\1.\2"),
        **attention_keys(r"blocks\.(\d+)\.(\d+)", r"stages.\1.\2"),
        **layer_keys("linear", "score"),
        r"embed\.u0": "embed.u",
    },
    drop=NO_VALUE,
    convert=AS_VECTOR,
)
