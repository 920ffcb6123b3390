"""What the networks of PICNet and of TDANet, its descendant, are made of: blocks, attention, decoder, discriminator.

Chuanxia Zheng, Tat-Jen Cham, Jianfei Cai. Pluralistic Image Completion. CVPR 2019. https://arxiv.org/abs/1903.04227
Authors' code: https://github.com/lyndonzheng/Pluralistic-Inpainting/tree/034a7588957adff1edb027af44f48a35d1c949d3;
TDANet's: https://github.com/idealwhite/tdanet/tree/b3ea9c4. Every convolution is spectrally normalised, but that
of the attention's queries.

`keep` is (N, 1, H, W) in [0, 1], 1 = known. `depth` counts halvings: images are a multiple of 2^depth pixels high and
wide.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.weights import KeyMap
from mmbench.layers.spectral_norm import SpectralConv2d, SpectralConvTranspose2d

SLOPE = 0.1  # of the leaky activations
Convolution = Callable[..., nn.Module]  # makes a convolution of the arguments of `nn.Conv2d`


class Gaussian(NamedTuple):
    """Independent normal variables: `mu` and `sigma`, (N, C, h, w) each."""

    mu: Tensor
    sigma: Tensor

    def draw(self, eps: Tensor) -> Tensor:
        """The value that standard normal numbers of the same shape stand for."""
        return self.mu + self.sigma * eps

    def detach(self) -> "Gaussian":
        return Gaussian(self.mu.detach(), self.sigma.detach())


class ResidualBlock(nn.Module):
    """Activation and convolution, twice, beside a 1x1 convolution of the input: (N, C, H, W) to (N, out, H, W).

    Args:
        hidden: channels between the two convolutions.
        slope: of the leaky activations.
        convolution: what makes the 3x3 convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int,
        slope: float = SLOPE,
        convolution: Convolution = SpectralConv2d,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, hidden, 3, padding=1)
        self.conv2 = convolution(hidden, out_channels, 3, padding=1)
        self.bypass = SpectralConv2d(in_channels, out_channels, 1)
        self.activation = nn.LeakyReLU(slope)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(self.activation(x))
        return self.conv2(self.activation(hidden)) + self.bypass(x)


class DownBlock(ResidualBlock):
    """A residual block and the mean of every 2x2 pixels: (N, C, H, W) to (N, out, H / 2, W / 2)."""

    def __init__(self, in_channels: int, out_channels: int, convolution: Convolution = SpectralConv2d) -> None:
        super().__init__(in_channels, out_channels, hidden=in_channels, convolution=convolution)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(x), 2)


class ImageBlock(ResidualBlock):
    """The first block, which does not activate the image: (N, 3, H, W) to (N, out, H / 2, W / 2)."""

    def __init__(self, out_channels: int, convolution: Convolution = SpectralConv2d) -> None:
        super().__init__(3, out_channels, hidden=out_channels, convolution=convolution)

    def forward(self, image: Tensor) -> Tensor:
        features = self.conv2(self.activation(self.conv1(image)))
        return F.avg_pool2d(features, 2) + self.bypass(F.avg_pool2d(image, 2))


class UpBlock(nn.Module):
    """Normalised, activated, convolved and doubled, beside a doubled input: (N, C, H, W) to (N, out, 2H, 2W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        doubling = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}
        self.norm1 = nn.InstanceNorm2d(in_channels, affine=True)
        self.conv1 = SpectralConv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.InstanceNorm2d(out_channels, affine=True)
        self.conv2 = SpectralConvTranspose2d(out_channels, out_channels, **doubling)
        self.bypass = SpectralConvTranspose2d(in_channels, out_channels, **doubling)
        self.activation = nn.LeakyReLU(SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(self.activation(self.norm1(x)))
        return self.conv2(self.activation(self.norm2(hidden))) + self.bypass(x)


class ImageHead(nn.Module):
    """Features (N, C, H, W) to an image (N, 3, H, W) in [-1, 1]."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = SpectralConv2d(in_channels, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(x, SLOPE)
        return self.conv(F.pad(x, (1, 1, 1, 1), mode="reflect")).tanh()


class GaussianHead(ResidualBlock):
    """Features (N, C, h, w) to the distribution of (N, latent_dim, h, w) variables."""

    def __init__(self, in_channels: int, latent_dim: int, hidden: int) -> None:
        super().__init__(in_channels, 2 * latent_dim, hidden)

    def forward(self, x: Tensor) -> Gaussian:
        mu, raw = super().forward(x).chunk(2, dim=1)
        return Gaussian(mu, F.softplus(raw))


class Trunk(nn.ModuleList):
    """Images (N, 3, H, W) to features (N, widths[n], H / 2^(n + 1), W / 2^(n + 1)), one for each width.

    Args:
        widths: channels of the features.
        convolution: what makes the 3x3 convolutions.
    """

    def __init__(self, widths: Sequence[int], convolution: Convolution = SpectralConv2d) -> None:
        pairs = pairwise(widths)
        super().__init__(
            [ImageBlock(widths[0], convolution), *(DownBlock(*pair, convolution=convolution) for pair in pairs)]
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        features = [image]
        for block in self:
            features.append(block(features[-1]))
        return features[1:]


class ShortTermAttention(nn.Module):
    """Every position of features attends to all of them: (N, C, h, w) to the same shape.

    Queries are their own keys, scores are not scaled, and what is found is added with a learned weight that starts at
    0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 4, kernel_size=1)
        self.gamma = nn.Parameter(torch.zeros(1))
        # As the authors start what is not normalised; normalised convolutions keep PyTorch's own start.
        initialise_plain(self.query)

    def weights(self, x: Tensor) -> Tensor:
        """(N, h*w, h*w): what each position, row by row, attends to; a row sums to 1."""
        query = self.query(x).flatten(2)
        return (query.mT @ query).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        return self.short(x, self.weights(x))

    def short(self, x: Tensor, weights: Tensor) -> Tensor:
        """`x` with what its positions find in one another."""
        return self.gamma * attended(x, weights) + x


class ShortLongTermAttention(ShortTermAttention):
    """Attention that carries what an encoder saw at known pixels into the hole as well (PICNet, section 3.4)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.merge = ResidualBlock(2 * channels, channels, hidden=channels, slope=0.01)

    def forward(self, x: Tensor, encoded: Tensor, keep: Tensor) -> Tensor:
        """All of the same height and width; `encoded` has the channels of `x`."""
        weights = self.weights(x)
        flow = self.alpha * (1 - keep) * attended(encoded, weights) + keep * encoded
        return self.merge(torch.cat((self.short(x, weights), flow), dim=1))


def attended(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of `values` (N, C, h, w) that each position attends to, by weights (N, h*w, h*w)."""
    return (values.flatten(2) @ weights.mT).view_as(values)


def initialise_plain(convolution: nn.Conv2d) -> None:
    """Orthogonal weights, times 0.02, and no shift: how the authors start convolutions that are not normalised.

    Theirs finds no weight to start in those that are.
    https://github.com/idealwhite/tdanet/blob/b3ea9c44c2f9a66d6b9767ae78ca8b553bda77b2/model/base_function.py#L17
    """
    nn.init.orthogonal_(convolution.weight, gain=0.02)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


class Decoder(nn.Module):
    """Features to images of several sizes, with attention after the second doubling.

    Args:
        width, max_width: channels of the last features, and the most that any have; twice as many at each halving.
        depth: halvings.
        num_images: of the last sizes, the last of which is the full one; each image is given to the next block.
    """

    def __init__(self, width: int, max_width: int, depth: int, num_images: int = 4) -> None:
        super().__init__()
        widths = [min(width * 2**n, max_width) for n in reversed(range(depth))]
        self.channels = widths[0]  # of the features that go in
        self.without_image = depth - num_images  # blocks that no image is made behind
        given = [widths[0], *widths[:-1]]
        self.blocks = nn.ModuleList(
            UpBlock(into + 3 * (place > self.without_image), out)
            for place, (into, out) in enumerate(zip(given, widths))
        )
        self.heads = nn.ModuleList(ImageHead(width) for width in widths[self.without_image :])
        self.attention = ShortLongTermAttention(widths[1])

    def forward(self, hidden: Tensor, encoded: Tensor, keep: Tensor) -> list[Tensor]:
        """Images (N, 3, s, s') in [-1, 1], from small to full.

        Args:
            hidden: (N, channels, H / 2^depth, W / 2^depth).
            encoded: the encoder's features of the known pixels at a fourth of that, that is H / 2^(depth - 2).
            keep: of the full size.
        """
        images: list[Tensor] = []
        for place, block in enumerate(self.blocks):
            hidden = block(hidden)
            if place == 1:
                hidden = self.attention(hidden, encoded, resized(keep, encoded.shape[-2:]))
            if place >= self.without_image:
                images.append(self.heads[place - self.without_image](hidden))
                hidden = torch.cat((hidden, images[-1]), dim=1)
        return images


class Discriminator(nn.Sequential):
    """Images (N, 3, H, W) to logits (N, 1, H / 2^depth - 2, W / 2^depth - 2), one for each part of the image.

    Args:
        width, max_width: channels after the first block, and the most that any have; twice as many at each halving.
        depth: halvings.
    """

    def __init__(self, width: int, max_width: int, depth: int) -> None:
        widths = [min(width * 2**n, max_width) for n in range(depth)]
        blocks: list[nn.Module] = [ImageBlock(width), *(DownBlock(*pair) for pair in pairwise(widths))]
        blocks.insert(3, ShortTermAttention(widths[2]))
        last = widths[-1]
        super().__init__(*blocks, ResidualBlock(last, last, last), nn.LeakyReLU(SLOPE), SpectralConv2d(last, 1, 3))


def resized(image: Tensor, size: Iterable[int]) -> Tensor:
    """Images or masks (N, C, H, W) at another size, bilinearly, corner upon corner and not smoothed, as theirs are."""
    return F.interpolate(image, tuple(size), mode="bilinear", align_corners=True)


def targets(image: Tensor, made: Sequence[Tensor]) -> list[Tensor]:
    """The image (N, 3, H, W) at the size of each of those made of it."""
    return [image if one.shape == image.shape else resized(image, one.shape[-2:]) for one in made]


def convolution_names(theirs: str, ours: str) -> dict[str, str]:
    """Names of one normalised convolution, for `KeyMap.rename`: theirs (a pattern) to ours."""
    parts = {"weight_bar": "weight", "weight_u": "u", "bias": "bias"}
    return {rf"{theirs}\.module\.{part}": f"{ours}.{own}" for part, own in parts.items()}


def block_names(blocks: Mapping[str, str]) -> dict[str, str]:
    """Names of blocks of convolutions, for `KeyMap.rename`; of up blocks too."""
    names = {}
    for theirs, ours in blocks.items():
        for part in ("conv1", "conv2", "bypass"):
            names |= convolution_names(rf"{theirs}\.{part}", f"{ours}.{part}")
        names |= {rf"{theirs}\.model\.{3 * n}\.(weight|bias)": rf"{ours}.norm{n + 1}.\1" for n in (0, 1)}
    return names


def attention_names(theirs: str, ours: str) -> dict[str, str]:
    """Names of the attention, for `KeyMap.rename`."""
    plain = {
        rf"{theirs}\.query_conv\.(weight|bias)": rf"{ours}.query.\1",
        rf"{theirs}\.(gamma|alpha)": rf"{ours}.\1",
    }
    return plain | block_names({rf"{theirs}\.model": f"{ours}.merge"})


# What no network of ours needs of the authors' files.
DROPPED = {
    r"(.*\.)?(model|shortcut)\.\d+\.module\..*": "a convolution listed a second time, by its place in a block",
    r".*\.weight_v": "follows from weight_u before it is used",
}

# The encoder's trunk, of the published depth.
TRUNK_NAMES = block_names({"block0": "trunk.0"} | {f"encoder{n}": f"trunk.{n + 1}" for n in range(4)})

# The decoder, of the published depth, with images behind its last four blocks.
DECODER_NAMES = {
    **block_names({rf"decoder{n}": f"decoder.blocks.{n}" for n in range(5)}),
    **attention_names("attn1", "decoder.attention"),
    **{
        key: name
        for n in range(4)
        for key, name in convolution_names(f"out{n + 1}.conv1", f"decoder.heads.{n}.conv").items()
    },
}

DISCRIMINATOR = KeyMap(
    rename={
        **block_names(
            {"block0": "0", "encoder0": "1", "encoder1": "2", "encoder2": "4", "encoder3": "5", "block1": "6"}
        ),
        **attention_names("attn2", "3"),
        **convolution_names("conv", "8"),
    },
    drop={
        r"attn2\.(alpha|model\..*)": "its long-term part, which has nothing to carry here",
        **DROPPED,
    },
)
