"""VQGAN's autoencoder and discriminator, whose encoder and decoder latent diffusion has, too.

Patrick Esser, Robin Rombach, Björn Ommer. Taming Transformers for High-Resolution Image Synthesis. CVPR 2021.
https://arxiv.org/abs/2012.09841, table 7 and section 3.1.
Authors' code: https://github.com/CompVis/taming-transformers/tree/3ba01b2, taming/modules/diffusionmodules/model.py and
taming/modules/discriminator/model.py.

Features attend to themselves where they are smaller than the image by one of `attention_factors`; theirs name the sizes
at the image size of training. Key maps are in `mmbench.networks.vqgan_keys`.
"""

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmbench.layers.initialisation import initialise_normally
from mmbench.layers.quantisers import Codebook


def _norm(channels: int, num_groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Two convolutions, each behind a normalisation and a swish, and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(in_channels, num_groups), _norm(out_channels, num_groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H, W)."""
        residual = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(residual)))


class PixelAttention(nn.Module):
    """Every pixel attends to all of them, with one head; what it sees is added."""

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm = _norm(channels, num_groups)
        self.query, self.key, self.value, self.project = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        normalised = self.norm(x)
        pixels = (rearrange(one(normalised), "n c h w -> n (h w) c") for one in (self.query, self.key, self.value))
        seen = F.scaled_dot_product_attention(*pixels)
        return x + self.project(rearrange(seen, "n (h w) c -> n c h w", h=x.shape[2]))


class Level(nn.Module):
    """Residual blocks of one size, each followed by attention where features attend to themselves."""

    def __init__(self, in_channels: int, channels: int, num_blocks: int, attends: bool, num_groups: int) -> None:
        super().__init__()
        widths = [in_channels, *[channels] * num_blocks]
        self.blocks = nn.ModuleList(ResidualBlock(*pair, num_groups) for pair in itertools.pairwise(widths))
        self.attentions = nn.ModuleList(
            PixelAttention(channels, num_groups) if attends else nn.Identity() for _ in range(num_blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, H, W)."""
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            x = attention(block(x))
        return x


class Halving(nn.Module):
    """A convolution that halves the size, with zeros on the right and below alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H / 2, W / 2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Doubling(nn.Module):
    """Repeated pixels, and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _middle(channels: int, num_groups: int) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(channels, channels, num_groups),
        PixelAttention(channels, num_groups),
        ResidualBlock(channels, channels, num_groups),
    )


def require_divisible(image: Tensor, factor: int) -> None:
    """Checks that images (N, C, H, W) can be made smaller by a factor.

    Raises:
        ValueError: H or W is no multiple of it.
    """
    height, width = image.shape[-2:]
    if height % factor or width % factor:
        raise ValueError(
            f"expected images whose height and width are multiples of {factor}, the autoencoder's stride, found "
            f"{height} x {width}: set data.module.image_size"
        )


class Encoder(nn.Module):
    """From images to maps that are smaller by `factor`.

    Args:
        width: channels at the image's size are this times the first multiplier.
        multipliers: of the width, one for each size from the image's on; each size is half of the one before.
        num_blocks: residual blocks of each size.
        attention_factors: of these image sizes to features, features attend to themselves behind each block; in the
            middle they do in any case.
        out_channels: of the maps; twice those of the latent where mean and log variance are wanted.
        num_groups: of each normalisation, which divides all widths.

    Raises:
        ValueError: there is no residual block, which alone changes the width.
    """

    def __init__(
        self,
        width: int,
        multipliers: Sequence[int],
        num_blocks: int,
        attention_factors: Sequence[int],
        out_channels: int,
        num_groups: int = 32,
    ) -> None:
        if num_blocks < 1:
            raise ValueError(f"expected at least 1 residual block of each size, found {num_blocks}: set num_blocks")
        super().__init__()
        widths = [width * multiplier for multiplier in multipliers]
        self.factor = 2 ** (len(widths) - 1)
        self.entry = nn.Conv2d(3, width, 3, padding=1)
        self.levels = nn.ModuleList(
            Level(before, channels, num_blocks, 2**level in attention_factors, num_groups)
            for level, (before, channels) in enumerate(zip([width, *widths], widths, strict=False))
        )
        self.halvings = nn.ModuleList([*(Halving(channels) for channels in widths[:-1]), nn.Identity()])
        self.middle = _middle(widths[-1], num_groups)
        self.norm = _norm(widths[-1], num_groups)
        self.exit = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] to (N, out_channels, H / factor, W / factor).

        Raises:
            ValueError: H or W is no multiple of `factor`.
        """
        require_divisible(image, self.factor)
        x = self.entry(image)
        for level, halving in zip(self.levels, self.halvings, strict=True):
            x = halving(level(x))
        return self.exit(F.silu(self.norm(self.middle(x))))


class Decoder(nn.Module):
    """From maps to images that are larger by 2^(number of multipliers - 1).

    Levels are in the order of the encoder, from the image's size on, and used from the last one to the first.

    Args:
        in_channels: of the maps.
        others: as `Encoder`; there is one residual block more of each size.
    """

    def __init__(
        self,
        width: int,
        multipliers: Sequence[int],
        num_blocks: int,
        attention_factors: Sequence[int],
        in_channels: int,
        num_groups: int = 32,
    ) -> None:
        super().__init__()
        widths = [width * multiplier for multiplier in multipliers]
        self.entry = nn.Conv2d(in_channels, widths[-1], 3, padding=1)
        self.middle = _middle(widths[-1], num_groups)
        self.levels = nn.ModuleList(
            Level(before, channels, num_blocks + 1, 2**level in attention_factors, num_groups)
            for level, (before, channels) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True))
        )
        self.doublings = nn.ModuleList([nn.Identity(), *(Doubling(channels) for channels in widths[1:])])
        self.norm = _norm(widths[0], num_groups)
        self.exit = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """Maps (N, in_channels, h, w) to images (N, 3, H, W), which are not bounded."""
        x = self.middle(self.entry(latent))
        for level, doubling in zip(reversed(self.levels), reversed(self.doublings), strict=True):
            x = doubling(level(x))
        return self.exit(F.silu(self.norm(x)))


class Autoencoder(nn.Module):
    """Encoder, quantiser and decoder, with a convolution of one pixel before the quantiser and one behind it.

    Args:
        width, multipliers, num_blocks, attention_factors, num_groups: as `Encoder`.
        latent_channels: of the encoder's output and the decoder's input.
        quantiser: with `in_channels` and `dim`.
    """

    def __init__(
        self,
        width: int,
        multipliers: Sequence[int],
        num_blocks: int,
        attention_factors: Sequence[int],
        latent_channels: int,
        quantiser: Codebook,
        num_groups: int = 32,
    ) -> None:
        super().__init__()
        shape = (width, multipliers, num_blocks, attention_factors, latent_channels, num_groups)
        self.encoder, self.decoder = Encoder(*shape), Decoder(*shape)
        self.quantiser = quantiser
        self.to_codes = nn.Conv2d(latent_channels, quantiser.in_channels, 1)
        self.from_codes = nn.Conv2d(quantiser.dim, latent_channels, 1)

    @property
    def factor(self) -> int:
        """By which a map of codes is smaller than its image, a power of two."""
        return self.encoder.factor

    def latent(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] to what is quantised, (N, in_channels, h, w)."""
        return self.to_codes(self.encoder(image))

    def decoded(self, codes: Tensor) -> Tensor:
        """Vectors of the codebook (N, D, h, w) to images (N, 3, H, W), which are not bounded."""
        return self.decoder(self.from_codes(codes))

    def encode(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] to indices (N, h, w) int64, without any randomness."""
        return self.quantiser.indices(self.latent(image))

    def decode(self, indices: Tensor) -> Tensor:
        """Indices (N, h, w) to images (N, 3, H, W), which are not bounded."""
        return self.decoded(self.quantiser.embedded(indices))


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches of an image, each by a logit (pix2pix, https://arxiv.org/abs/1611.07004).

    Args:
        width: channels behind the first convolution; they double with each further one, to eightfold at most.
        num_layers: convolutions that halve the size; 3 for patches of 70 x 70 pixels.
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        widths = [width * min(2**layer, 8) for layer in range(num_layers + 1)]
        self.layers = nn.ModuleList([nn.Sequential(nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2))])
        for layer, (before, channels) in enumerate(itertools.pairwise(widths), 1):
            stride = 1 if layer == num_layers else 2
            convolution = nn.Conv2d(before, channels, 4, stride, 1, bias=False)
            self.layers.append(nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.LeakyReLU(0.2)))
        self.exit = nn.Conv2d(widths[-1], 1, 4, padding=1)
        initialise_normally(self)

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] to logits (N, 1, h, w)."""
        for layer in self.layers:
            image = layer(image)
        return self.exit(image)
