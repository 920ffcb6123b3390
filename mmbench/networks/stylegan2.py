"""StyleGAN2's networks: mapping, synthesis and the discriminator, as its own method, inversion and editing use them.

Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020 (https://arxiv.org/abs/1912.04958),
configuration F. Authors' code: https://github.com/NVlabs/stylegan2/tree/bf0fe0b; keys are those of
https://github.com/rosinality/stylegan2-pytorch/tree/bef283a, into which the released checkpoints are converted.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from mmbench.core.weights import KeyMap
from mmbench.layers.equalised import EqualisedConvolution, EqualisedLinear, biased_leaky_relu
from mmbench.layers.modulated_convolution import ModulatedConvolution, UpsamplingModulatedConvolution
from mmbench.layers.upfirdn2d import binomial_filter, doubled, upfirdn2d

MAPPING_MULTIPLIER = 0.01  # of the mapping's learning rate


def resolutions(image_size: int) -> list[int]:
    """4, 8, 16, ... up to the image's size.

    Raises:
        ValueError: the size is no power of two from 8 on.
    """
    levels = int(math.log2(image_size)) if image_size > 0 else 0
    if image_size < 8 or 2**levels != image_size:
        raise ValueError(f"expected an image_size of 8, 16, 32, ..., found {image_size}: choose a power of two")
    return [2**level for level in range(2, levels + 1)]


class Mapping(nn.Module):
    """Latents z to styles w: z is scaled to unit mean square, then goes through linear layers.

    Args:
        style_dim: size of z and of w.
        num_layers: linear layers.
    """

    def __init__(self, style_dim: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EqualisedLinear(style_dim, style_dim, MAPPING_MULTIPLIER) for _ in range(num_layers)
        )

    def forward(self, z: Tensor) -> Tensor:
        """(N, style_dim) to (N, style_dim)."""
        w = normalised(z)
        for layer in self.layers:
            w = biased_leaky_relu(layer(w))
        return w


def normalised(z: Tensor) -> Tensor:
    """Latents (N, D) scaled to a mean square of 1."""
    return z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)


class StyledConvolution(nn.Module):
    """A modulated convolution, noise at every pixel, bias and activation.

    Args:
        in_channels, out_channels, style_dim: as `ModulatedConvolution`.
        kind: of the convolution, which decides on the size.
    """

    def __init__(self, in_channels: int, out_channels: int, style_dim: int, kind: type[ModulatedConvolution]) -> None:
        super().__init__()
        self.convolution = kind(in_channels, out_channels, 3, style_dim)
        self.noise_strength = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """Features, styles (N, style_dim) and noise (N or 1, 1, h, w) to (N, out_channels, h, w)."""
        return biased_leaky_relu(self.convolution(x, w) + self.noise_strength * noise, self.bias)


class ToRGB(nn.Module):
    """What features of one resolution add to the image.

    Args:
        in_channels, style_dim: as `ModulatedConvolution`.
    """

    def __init__(self, in_channels: int, style_dim: int) -> None:
        super().__init__()
        self.convolution = ModulatedConvolution(in_channels, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, in_channels, H, W) and styles (N, style_dim) to (N, 3, H, W)."""
        return self.convolution(x, w) + self.bias[:, None, None]


class Synthesis(nn.Module):
    """Styles and noise to an image, through features of 4, 8, 16, ... pixels whose images are added up (figure 7b).

    Args:
        image_size: height and width of the image, a power of two from 8 on.
        style_dim: size of a style.
        channel_base: channels times resolution, up to the largest number of channels.
        channel_max: the largest number of channels.

    Attributes:
        num_styles: of one image: one of each convolution and one of the last image; the image of each resolution
            shares the style of the next resolution's first convolution.
        noise_sizes: height and width of each noise map.
    """

    filter: Tensor

    def __init__(self, image_size: int, style_dim: int, channel_base: int, channel_max: int) -> None:
        super().__init__()
        sizes = resolutions(image_size)
        channels = [min(channel_max, channel_base // size) for size in sizes]
        self.num_styles = 2 * len(sizes)
        self.noise_sizes = [4, *(size for size in sizes[1:] for _ in range(2))]
        self.constant = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.first = StyledConvolution(channels[0], channels[0], style_dim, ModulatedConvolution)
        self.first_rgb = ToRGB(channels[0], style_dim)
        self.convolutions = nn.ModuleList()
        self.to_rgb = nn.ModuleList()
        for before, after in pairwise(channels):
            self.convolutions.append(StyledConvolution(before, after, style_dim, UpsamplingModulatedConvolution))
            self.convolutions.append(StyledConvolution(after, after, style_dim, ModulatedConvolution))
            self.to_rgb.append(ToRGB(after, style_dim))
        self.register_buffer("filter", binomial_filter(), persistent=False)

    def forward(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Images that are not confined to [-1, 1].

        Args:
            styles: (N, num_styles, style_dim).
            noise: standard normal maps (N or 1, 1, s, s) of the sizes that `noise_sizes` lists.

        Returns:
            (N, 3, image_size, image_size).
        """
        x = self.begun(styles, noise)
        image = self.first_rgb(x, styles[:, 1])
        for level, to_rgb in enumerate(self.to_rgb):
            x = self.refined(x, level, styles, noise)
            image = doubled(image, self.filter) + to_rgb(x, styles[:, 2 * level + 3])
        return image

    def begun(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """The features of 4 by 4 pixels: (N, C, 4, 4)."""
        return self.first(self.constant.expand(len(styles), -1, -1, -1), styles[:, 0], noise[0])

    def refined(self, x: Tensor, level: int, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Features (N, C, s, s) to those of the next resolution, the `level`-th after 4: (N, C', 2s, 2s)."""
        place = 2 * level + 1
        x = self.convolutions[place - 1](x, styles[:, place], noise[place])
        return self.convolutions[place](x, styles[:, place + 1], noise[place + 1])


class Generator(nn.Module):
    """Mapping and synthesis.

    Args:
        image_size, style_dim, channel_base, channel_max: as `Synthesis`.
        mapping_layers: linear layers of the mapping.
    """

    def __init__(
        self, image_size: int, style_dim: int, mapping_layers: int, channel_base: int, channel_max: int
    ) -> None:
        super().__init__()
        self.style_dim = style_dim
        self.mapping = Mapping(style_dim, mapping_layers)
        self.synthesis = Synthesis(image_size, style_dim, channel_base, channel_max)

    def styles(self, w: Tensor) -> Tensor:
        """One w for all layers: (N, style_dim) to (N, num_styles, style_dim)."""
        return repeat(w, "n d -> n s d", s=self.synthesis.num_styles)

    def forward(self, z: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Latents (N, style_dim) and noise, as `Synthesis` takes it, to images (N, 3, H, W)."""
        return self.synthesis(self.styles(self.mapping(z)), noise)


def truncated(styles: Tensor, average: Tensor, psi: float) -> Tensor:
    """Styles (..., D) drawn towards the average (D,): psi = 1 leaves them, 0 makes all of them the average."""
    return torch.lerp(average.expand_as(styles), styles, psi)


def mixed(styles: Tensor, others: Tensor, crossover: Tensor) -> Tensor:
    """The first `crossover` (N,) of the styles (N, S, D), the rest from others: coarse and fine of two images."""
    layers = torch.arange(styles.shape[1], device=styles.device)
    return torch.where(layers[None, :, None] < crossover[:, None, None], styles, others)


class DiscriminatorConvolution(nn.Module):
    """A convolution that keeps the size, bias and activation.

    Args:
        in_channels, out_channels, kernel: of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.convolution = EqualisedConvolution(in_channels, out_channels, kernel, padding=kernel // 2)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H, W)."""
        return biased_leaky_relu(self.convolution(x), self.bias)


class ResidualBlock(nn.Module):
    """Two convolutions, the second halving the size, beside a projection; their sum has unit variance.

    Args:
        in_channels, out_channels: of the block.
    """

    filter: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = DiscriminatorConvolution(in_channels, in_channels, 3)
        self.second = EqualisedConvolution(in_channels, out_channels, 3, stride=2)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.skip = EqualisedConvolution(in_channels, out_channels, 1)
        self.register_buffer("filter", binomial_filter(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H/2, W/2)."""
        main = self.second(upfirdn2d(self.first(x), self.filter, padding=(2, 2)))
        skip = self.skip(upfirdn2d(x, self.filter, down=2, padding=(1, 1)))
        return (biased_leaky_relu(main, self.bias) + skip) / math.sqrt(2)


class Discriminator(nn.Module):
    """Images to logits.

    Args:
        image_size, channel_base, channel_max: as `Synthesis`.
    """

    def __init__(self, image_size: int, channel_base: int, channel_max: int) -> None:
        super().__init__()
        sizes = resolutions(image_size)
        channels = [min(channel_max, channel_base // size) for size in reversed(sizes)]
        self.from_rgb = DiscriminatorConvolution(3, channels[0], 1)
        self.blocks = nn.Sequential(*(ResidualBlock(*pair) for pair in pairwise(channels)))
        self.final = DiscriminatorConvolution(channels[-1] + 1, channels[-1], 3)
        self.hidden = EqualisedLinear(channels[-1] * 16, channels[-1])
        self.last = EqualisedLinear(channels[-1], 1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to logits (N,)."""
        return self.last(self.features(image)).squeeze(1)

    def features(self, image: Tensor) -> Tensor:
        """What the last layer judges: (N, 3, H, W) in [-1, 1] to (N, C)."""
        x = self.blocks(self.from_rgb(image))
        x = self.final(torch.cat((x, spread_of_groups(x)), dim=1))
        return biased_leaky_relu(self.hidden(x.flatten(1)))


def spread_of_groups(x: Tensor) -> Tensor:
    """How far images of a group of four differ: the standard deviation, averaged over features.

    Sets of images that are all alike are told from real ones by it. Members of a group are N / 4 apart. The authors
    refuse an N that does not divide by four; here the largest smaller group that divides it is taken.

    Args:
        x: (N, C, H, W).

    Returns:
        (N, 1, H, W), the same number at all pixels of a group.
    """
    size = next(size for size in (4, 3, 2, 1) if len(x) % size == 0)
    groups = rearrange(x, "(s g) c h w -> s g c h w", s=size)
    spread = (groups.var(dim=0, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # (N / size,)
    return repeat(spread, "g -> (s g) 1 h w", s=size, h=x.shape[2], w=x.shape[3])


def _styled(theirs: str, ours: str) -> dict[str, str]:
    """Keys of a styled convolution or of what makes RGB of features."""
    return {
        rf"{theirs}\.conv\.weight": rf"{ours}.convolution.weight",
        rf"{theirs}\.conv\.modulation\.weight": rf"{ours}.convolution.style.weight",
        rf"{theirs}\.conv\.modulation\.bias": rf"{ours}.convolution.style.bias",
        rf"{theirs}\.noise\.weight": rf"{ours}.noise_strength",
        rf"{theirs}\.(?:activate\.)?bias": rf"{ours}.bias",
    }


GENERATOR = KeyMap(
    rename={
        **{rf"style\.{place + 1}\.(weight|bias)": rf"mapping.layers.{place}.\1" for place in range(8)},
        r"input\.input": "synthesis.constant",
        **_styled("conv1", "synthesis.first"),
        **_styled("to_rgb1", "synthesis.first_rgb"),
        **_styled(r"convs\.(\d+)", r"synthesis.convolutions.\1"),
        **_styled(r"to_rgbs\.(\d+)", r"synthesis.to_rgb.\1"),
    },
    drop={
        r".*\.kernel": "a constant filter",
        r"noises\..*": "noise is an argument",
    },
    convert={
        r"synthesis\..*\.convolution\.weight": lambda weight: weight.squeeze(0),
        r"synthesis\.(?:first_rgb|to_rgb\.\d+)\.bias": torch.flatten,
    },
)
DISCRIMINATOR = KeyMap(
    rename={
        r"convs\.0\.0\.weight": "from_rgb.convolution.weight",
        r"convs\.0\.1\.bias": "from_rgb.bias",
        **{
            rf"convs\.{place + 1}\.{theirs}": f"blocks.{place}.{ours}"
            for place in range(8)
            for theirs, ours in {
                r"conv1\.0\.weight": "first.convolution.weight",
                r"conv1\.1\.bias": "first.bias",
                r"conv2\.1\.weight": "second.weight",
                r"conv2\.2\.bias": "bias",
                r"skip\.1\.weight": "skip.weight",
            }.items()
        },
        r"final_conv\.0\.weight": "final.convolution.weight",
        r"final_conv\.1\.bias": "final.bias",
        r"final_linear\.0\.(weight|bias)": r"hidden.\1",
        r"final_linear\.1\.(weight|bias)": r"last.\1",
    },
    drop={r".*\.kernel": "a constant filter"},
)
