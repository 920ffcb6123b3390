"""The networks of ADM: a U-Net that denoises, one that enlarges, and a classifier of noisy images.

Prafulla Dhariwal, Alex Nichol. Diffusion Models Beat GANs on Image Synthesis. NeurIPS 2021.
https://arxiv.org/abs/2105.05233, section 3 and appendix A
Authors' code: https://github.com/openai/guided-diffusion/blob/22e0df8/guided_diffusion/unet.py

All three begin with the same half: features at falling sizes, told the time through every residual block. Layers that
close a residual branch, and the last one, start at zero, so that every branch begins as the identity.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmbench.core.weights import KeyMap
from mmbench.layers.timesteps import sinusoids
from mmbench.layers.upsampling import UpsamplingConvolution


def starting_at_zero(layer: nn.Conv1d | nn.Conv2d) -> nn.Module:
    """The layer with weights and biases of zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Informed(nn.Module):
    """A block that is told what is known of the image, as its second argument."""


class ResidualBlock(Informed):
    """Two convolutions; what is known of the image scales and shifts the features between them (section 3.1).

    Args:
        in_channels, out_channels: of the features.
        embedding_dim: of what is known of the image.
        dropout: share of the features that is dropped before the second convolution.
        groups: of the normalisation, 32.
    """

    numbers_per_channel = 2  # that are made of what is known

    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int, dropout: float, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels)
        self.conv1 = self.first_convolution(in_channels, out_channels)
        self.embed = nn.Linear(embedding_dim, self.numbers_per_channel * out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = starting_at_zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def first_convolution(self, in_channels: int, out_channels: int) -> nn.Module:
        """From features at the block's input to ones of its output's size."""
        return nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def resized(self, x: Tensor) -> Tensor:
        """What goes by the convolutions, at the size of the output."""
        return x

    def informed(self, x: Tensor, known: Tensor) -> Tensor:
        """Normalised features (N, C, H, W), scaled and shifted by (N, 2C)."""
        scale, shift = known[..., None, None].chunk(2, dim=1)
        return self.norm2(x) * (1 + scale) + shift

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(N, in_channels, H, W) and (N, embedding_dim) to (N, out_channels, H', W')."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.informed(hidden, self.embed(F.silu(embedding)))
        return self.shortcut(self.resized(x)) + self.conv2(self.dropout(F.silu(hidden)))


class PooledConvolution(nn.Conv2d):
    """A convolution of features of half the size, means of two by two pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / 2, W / 2)."""
        return super().forward(F.avg_pool2d(x, 2))


class DownBlock(ResidualBlock):
    """Halves the size, by averaging."""

    def first_convolution(self, in_channels: int, out_channels: int) -> nn.Module:
        return PooledConvolution(in_channels, out_channels, 3, padding=1)

    def resized(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)


class UpBlock(ResidualBlock):
    """Doubles the size, by repeating."""

    def first_convolution(self, in_channels: int, out_channels: int) -> nn.Module:
        return UpsamplingConvolution(in_channels, out_channels, bias=True)

    def resized(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="nearest")


class PlainResidualBlock(ResidualBlock):
    """What is known of the image is added to the features, as before ADM."""

    numbers_per_channel = 1

    def informed(self, x: Tensor, known: Tensor) -> Tensor:
        return self.norm2(x + known[..., None, None])


def attended(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """What places see of others: (N, C, L) and twice (N, C, M) to (N, C, L); a head has neighbouring channels."""
    parts = (rearrange(part, "n (head d) l -> n head l d", head=num_heads) for part in (query, key, value))
    return rearrange(F.scaled_dot_product_attention(*parts), "n head l d -> n (head d) l")


class AttentionBlock(nn.Module):
    """Every place attends to all; what it sees is added.

    Args:
        channels: C of the features.
        num_heads: which share them evenly.
        groups: of the normalisation, 32.
    """

    def __init__(self, channels: int, num_heads: int, groups: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.project = starting_at_zero(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        seen = attended(*self.qkv(self.norm(x).flatten(2)).chunk(3, dim=1), self.num_heads)
        return x + self.project(seen).unflatten(2, x.shape[2:])


class Stage(nn.Sequential):
    """Blocks one after the other, of which some are told what is known of the image."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(N, C, H, W) and (N, embedding_dim) to (N, C', H', W')."""
        for block in self:
            x = block(x, embedding) if isinstance(block, Informed) else block(x)
        return x


@dataclass(frozen=True)
class Blocks:
    """What the networks are built of.

    Attributes:
        head_dim: channels of a head of attention, 64.
        dropout: as `ResidualBlock`.
        groups: of normalisations, 32.
    """

    head_dim: int
    dropout: float
    groups: int

    def norm(self, channels: int) -> nn.Module:
        return nn.GroupNorm(self.groups, channels)

    def residual(self, in_channels: int, out_channels: int, embedding_dim: int) -> nn.Module:
        return ResidualBlock(in_channels, out_channels, embedding_dim, self.dropout, self.groups)

    def attention(self, channels: int) -> nn.Module:
        return AttentionBlock(channels, channels // self.head_dim, self.groups)

    def down(self, channels: int, embedding_dim: int) -> nn.Module:
        return DownBlock(channels, channels, embedding_dim, self.dropout, self.groups)

    def up(self, channels: int, embedding_dim: int) -> nn.Module:
        return UpBlock(channels, channels, embedding_dim, self.dropout, self.groups)


@dataclass(frozen=True)
class PlainBlocks:
    """Those of before ADM, its baseline in section 3: a convolution makes features smaller or larger.

    Attributes:
        num_heads: of attention, whatever channels they share.
        dropout, groups: as `Blocks`.
    """

    num_heads: int
    dropout: float
    groups: int

    def norm(self, channels: int) -> nn.Module:
        return nn.GroupNorm(self.groups, channels)

    def residual(self, in_channels: int, out_channels: int, embedding_dim: int) -> nn.Module:
        return PlainResidualBlock(in_channels, out_channels, embedding_dim, self.dropout, self.groups)

    def attention(self, channels: int) -> nn.Module:
        return AttentionBlock(channels, self.num_heads, self.groups)

    def down(self, channels: int, embedding_dim: int) -> nn.Module:
        return nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def up(self, channels: int, embedding_dim: int) -> nn.Module:
        return UpsamplingConvolution(channels, channels, bias=True)


@dataclass(frozen=True)
class HeadsBlocks(PlainBlocks):
    """As `Blocks`, with a number of heads in the place of their width: ADM's at 128 pixels, and those that enlarge."""

    residual, down, up = Blocks.residual, Blocks.down, Blocks.up


class Encoder(nn.Module):
    """The half that all networks share: features of a noisy image at falling sizes.

    Args:
        blocks: what it is built of.
        image_size: height and width of the images that it is for.
        in_channels: of its input.
        width: channels are multiples of it.
        multipliers: of the width, at each size; one half is allowed for the first.
        num_blocks: residual blocks at each size.
        attention_sizes: those of features that attend to themselves.

    Attributes:
        stride: height and width of images are multiples of it.
        channels: of the features behind each stage.

    Raises:
        ValueError: as `require_size`, of `image_size`.
    """

    def __init__(
        self,
        blocks: Blocks | PlainBlocks,
        image_size: int,
        in_channels: int,
        width: int,
        multipliers: Sequence[float],
        num_blocks: int,
        attention_sizes: Sequence[int],
    ) -> None:
        super().__init__()
        self.image_size, self.width, self.embedding_dim = image_size, width, 4 * width
        self.stride = 2 ** (len(multipliers) - 1)
        self.require_size(image_size, image_size)
        self.time = nn.Sequential(
            nn.Linear(width, self.embedding_dim), nn.SiLU(), nn.Linear(self.embedding_dim, self.embedding_dim)
        )
        self.channels = [int(multipliers[0] * width)]
        self.down = nn.ModuleList([Stage(nn.Conv2d(in_channels, self.channels[0], 3, padding=1))])
        for level, multiplier in enumerate(multipliers):
            size = image_size // 2**level
            if level:
                self.down.append(Stage(blocks.down(self.channels[-1], self.embedding_dim)))
                self.channels.append(self.channels[-1])
            for _ in range(num_blocks):
                out_channels = int(multiplier * width)
                attention = [blocks.attention(out_channels)] if size in attention_sizes else []
                residual = blocks.residual(self.channels[-1], out_channels, self.embedding_dim)
                self.down.append(Stage(residual, *attention))
                self.channels.append(out_channels)
        last = self.channels[-1]
        residuals = [blocks.residual(last, last, self.embedding_dim) for _ in range(2)]
        self.middle = Stage(residuals[0], blocks.attention(last), residuals[1])

    def require_size(self, height: int, width: int) -> None:
        """Checks that every halving of an image meets an even number of pixels.

        Raises:
            ValueError: it does not; says what sizes do.
        """
        if height % self.stride or width % self.stride:
            raise ValueError(
                f"expected images of a height and width that {self.stride} divides, since the network halves them "
                f"{self.stride.bit_length() - 1} times, found {height} x {width}: choose another size, or fewer "
                "multipliers"
            )

    def embedded(self, timesteps: Tensor) -> Tensor:
        """Times (N,), whole or not, to (N, embedding_dim)."""
        return self.time(sinusoids(timesteps, self.width))

    def features(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """What comes out of every stage, the middle last: (N, C, H, W) each.

        Raises:
            ValueError: as `require_size`.
        """
        self.require_size(*x.shape[2:])
        found = []
        for stage in (*self.down, self.middle):
            x = stage(x, embedding)
            found.append(x)
        return found


class UNet(Encoder):
    """Says of a noisy image what its noise is, and how far the variance of a step back lies between its bounds.

    Args:
        blocks, image_size, in_channels, width, multipliers, num_blocks, attention_sizes: as `Encoder`.
        out_channels: twice those of an image, where the variance is learned.
        condition: makes a network, with so many outputs, of what else is known of the images; it is added to what is
            known of the time. An `nn.Embedding` of classes, as published; None: nothing else is known.
    """

    def __init__(
        self,
        blocks: Blocks | PlainBlocks,
        image_size: int,
        in_channels: int,
        width: int,
        multipliers: Sequence[float],
        num_blocks: int,
        attention_sizes: Sequence[int],
        out_channels: int,
        condition: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__(blocks, image_size, in_channels, width, multipliers, num_blocks, attention_sizes)
        self.condition = None if condition is None else condition(self.embedding_dim)
        skipped, channels = list(self.channels), self.channels[-1]
        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            made = int(multiplier * width)
            for number in range(num_blocks + 1):
                residual = blocks.residual(channels + skipped.pop(), made, self.embedding_dim)
                attention = [blocks.attention(made)] if image_size // 2**level in attention_sizes else []
                larger = [blocks.up(made, self.embedding_dim)] if level and number == num_blocks else []
                self.up.append(Stage(residual, *attention, *larger))
                channels = made
        self.out = nn.Sequential(
            blocks.norm(channels), nn.SiLU(), starting_at_zero(nn.Conv2d(channels, out_channels, 3, padding=1))
        )

    def known(self, timesteps: Tensor, condition: Any) -> Any:
        """What blocks are told of the images, of the time and beside it: (N, 4 * width)."""
        embedding = self.embedded(timesteps)
        return embedding if self.condition is None else embedding + self.condition(condition)

    def forward(self, x: Tensor, timesteps: Tensor, condition: Any = None) -> Tensor:
        """Noisy images at times.

        Args:
            x: (N, in_channels, H, W).
            timesteps: (N,), of the steps that the network was trained on, 0 to 999, whole or not.
            condition: what the network of that name takes.

        Returns:
            (N, out_channels, H, W).

        Raises:
            ValueError: as `require_size`.
        """
        known = self.known(timesteps, condition)
        *skipped, hidden = self.features(x, known)
        for stage in self.up:
            hidden = stage(torch.cat((hidden, skipped.pop()), dim=1), known)
        return self.out(hidden)


class SuperResolutionUNet(UNet):
    """Sees a small image beside the noisy one, enlarged to its size: `in_channels` are those of both."""

    def forward(self, x: Tensor, timesteps: Tensor, condition: tuple[Any, Tensor]) -> Tensor:  # type: ignore[override]
        """As `UNet`; behind the condition come small images (N, 3, h, w) in [-1, 1]."""
        condition, small = condition
        enlarged = F.interpolate(small, x.shape[2:], mode="bilinear")
        return super().forward(torch.cat((x, enlarged), dim=1), timesteps, condition)


class AttentionPooling(nn.Module):
    """What the mean place sees of all places of the last features, and of itself (as CLIP pools).

    Args:
        channels: behind every stage of the encoder.
        size: height and width of the last features; no others fit.
        num_classes: K.
        blocks: what the encoder is built of.
    """

    names: ClassVar[dict[str, str]] = {
        r"out\.0\.(.*)": r"pooling.norm.\1",
        r"out\.2\.positional_embedding": "pooling.positions",
        r"out\.2\.qkv_proj\.(.*)": r"pooling.qkv.\1",
        r"out\.2\.c_proj\.(.*)": r"pooling.project.\1",
    }

    def __init__(self, channels: Sequence[int], size: int, num_classes: int, blocks: Blocks) -> None:
        super().__init__()
        width = channels[-1]
        self.num_heads = width // blocks.head_dim
        self.norm = blocks.norm(width)
        self.positions = nn.Parameter(torch.randn(width, size**2 + 1) / width**0.5)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.project = nn.Conv1d(width, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features of every stage, the last (N, C, size, size), to logits (N, K)."""
        places = F.silu(self.norm(features[-1])).flatten(2)
        places = torch.cat((places.mean(dim=2, keepdim=True), places), dim=2) + self.positions
        query, key, value = self.qkv(places).chunk(3, dim=1)
        return self.project(attended(query[..., :1], key, value, self.num_heads))[..., 0]


class AveragePooling(nn.Module):
    """A linear function of the mean place of the last features; arguments as `AttentionPooling`."""

    names: ClassVar[dict[str, str]] = {r"out\.0\.(.*)": r"pooling.norm.\1", r"out\.3\.(.*)": r"pooling.project.\1"}

    def __init__(self, channels: Sequence[int], size: int, num_classes: int, blocks: Blocks) -> None:
        super().__init__()
        self.norm = blocks.norm(channels[-1])
        self.project = nn.Conv2d(channels[-1], num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features of every stage, (N, C, H, W) each, to logits (N, K)."""
        return self.project(F.silu(self.norm(features[-1])).mean(dim=(2, 3), keepdim=True)).flatten(1)


class PyramidPooling(nn.Module):
    """Two linear layers of the mean places behind every stage; arguments as `AttentionPooling`."""

    names: ClassVar[dict[str, str]] = {r"out\.([02])\.(.*)": r"pooling.layers.\1.\2"}

    def __init__(self, channels: Sequence[int], size: int, num_classes: int, blocks: Blocks) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(sum(channels), 2048), nn.ReLU(), nn.Linear(2048, num_classes))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features of every stage, (N, C, H, W) each, to logits (N, K)."""
        return self.layers(torch.cat([one.mean(dim=(2, 3)) for one in features], dim=1))


class Classifier(Encoder):
    """Says of a noisy image at a time which class it is of.

    Args:
        blocks, image_size, in_channels, width, multipliers, num_blocks, attention_sizes: as `Encoder`.
        num_classes: K.
        pooling: what makes logits of the features, `AttentionPooling` as published.
    """

    def __init__(
        self,
        blocks: Blocks,
        image_size: int,
        in_channels: int,
        width: int,
        multipliers: Sequence[float],
        num_blocks: int,
        attention_sizes: Sequence[int],
        num_classes: int,
        pooling: Callable[[Sequence[int], int, int, Blocks], nn.Module] = AttentionPooling,
    ) -> None:
        super().__init__(blocks, image_size, in_channels, width, multipliers, num_blocks, attention_sizes)
        self.pooling = pooling([*self.channels, self.channels[-1]], image_size // self.stride, num_classes, blocks)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy images (N, in_channels, H, W) at times (N,) to logits (N, K).

        Raises:
            ValueError: as `require_size`.
        """
        return self.pooling(self.features(x, self.embedded(timesteps)))


def heads_together(head_dim: int) -> Callable[[Tensor], Tensor]:
    """Rows of a layer for queries, keys and values, head after head, to all queries, all keys and all values.

    Their older order: a head's own query, key and value lie together.
    """
    return lambda rows: rearrange(rows, "(head three d) ... -> (three head d) ...", three=3, d=head_dim)


def keys_of(names: dict[str, str], head_dim: int | None) -> KeyMap:
    """The authors' keys.

    Args:
        names: of the layers that no other network of theirs has.
        head_dim: channels of a head, where queries, keys and values are in their older order; None: in the newer.
    """
    layers = {
        r"in_layers\.0": "norm1",
        r"in_layers\.2": "conv1",
        r"emb_layers\.1": "embed",
        r"out_layers\.0": "norm2",
        r"out_layers\.3": "conv2",
        "skip_connection": "shortcut",
        "proj_out": "project",
    }
    parts = {"input_blocks": "down", "middle_block": "middle", "output_blocks": "up"}
    reordered = {} if head_dim is None else {r"(down|middle|up)\..*\.qkv\..*": heads_together(head_dim)}
    return KeyMap(
        rename={
            r"time_embed\.(.*)": r"time.\1",
            **names,
            **{
                rf"{theirs}\.(.*)\.{layer}\.(.*)": rf"{ours}.\1.{name}.\2"
                for theirs, ours in parts.items()
                for layer, name in layers.items()
            },
            # A convolution that makes features smaller or larger is a stage's own block.
            r"input_blocks\.(.*)\.op\.(.*)": r"down.\1.\2",
            r"output_blocks\.(.*)\.conv\.(.*)": r"up.\1.\2",
            **{rf"{theirs}\.(.*)": rf"{ours}.\1" for theirs, ours in parts.items()},
        },
        convert=reordered,
    )


def unet_keys(head_dim: int | None) -> KeyMap:
    """Of a U-Net; as `keys_of`."""
    return keys_of({r"label_emb\.(.*)": r"condition.\1"}, head_dim)


def classifier_keys(head_dim: int | None, pooling: type[nn.Module] = AttentionPooling) -> KeyMap:
    """Of a classifier; as `keys_of`."""
    return keys_of(pooling.names, head_dim)
