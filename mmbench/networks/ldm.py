"""Latent diffusion (https://arxiv.org/abs/2112.10752): spatial transformer, U-Net, text encoder and autoencoders.

Authors' code: https://github.com/CompVis/latent-diffusion/tree/a506df5, ldm/modules and ldm/models/autoencoder.py.
Stable Diffusion 1 has the same networks, but its text encoder, which is CLIP's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmbench.core.weights import KeyMap
from mmbench.networks.adm import (
    DownBlock,
    Informed,
    PlainBlocks,
    PlainResidualBlock,
    UNet,
    UpBlock,
    keys_of,
    starting_at_zero,
)
from mmbench.networks.vqgan import Decoder, Encoder
from mmbench.networks.vqgan_keys import decoder_renamed, encoder_renamed


class Attention(nn.Module):
    """Tokens look at those of a context, or at each other; each head at channels of its own.

    Args:
        width: of the tokens.
        context_dim: of the context's tokens; `width` where they are the tokens themselves.
        num_heads, head_width: heads, and channels of each.
    """

    def __init__(self, width: int, context_dim: int, num_heads: int, head_width: int) -> None:
        super().__init__()
        inner = num_heads * head_width
        self.num_heads = num_heads
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(context_dim, inner, bias=False)
        self.value = nn.Linear(context_dim, inner, bias=False)
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Tokens (N, L, width) and a context (N, M, context_dim), themselves where there is none, to (N, L, width)."""
        context = x if context is None else context
        query, key, value = (
            rearrange(tokens, "n l (heads d) -> n heads l d", heads=self.num_heads)
            for tokens in (self.query(x), self.key(context), self.value(context))
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        return self.out(rearrange(seen, "n heads l d -> n l (heads d)"))


class GatedFeedForward(nn.Module):
    """Two linear layers, the first with a gate of its own (GEGLU, https://arxiv.org/abs/2002.05202)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 2 * 4 * width)
        self.reduce = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, width) to the same shape."""
        hidden, gate = self.expand(x).chunk(2, dim=-1)
        return self.reduce(hidden * F.gelu(gate))


class TransformerBlock(nn.Module):
    """Places look at each other, then at the condition's tokens, then each at itself; normalised before each.

    Args:
        width: of the tokens.
        context_dim: of the condition's tokens.
        num_heads, head_width: as `Attention`.
    """

    def __init__(self, width: int, context_dim: int, num_heads: int, head_width: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention = Attention(width, width, num_heads, head_width)
        self.cross_attention = Attention(width, context_dim, num_heads, head_width)
        self.feed_forward = GatedFeedForward(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Tokens (N, L, width) and a context (N, M, context_dim) to (N, L, width)."""
        x = x + self.self_attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x), context)
        return x + self.feed_forward(self.norm3(x))


class Known(NamedTuple):
    """What is told the blocks of a U-Net.

    Attributes:
        embedding: of the time, (N, D).
        context: of the condition, (N, M, context_dim).
    """

    embedding: Tensor
    context: Tensor


class SpatialTransformer(Informed):
    """Transformer blocks over all places of a feature map, which the condition enters by; what they find is added.

    Args:
        channels: of the feature map.
        context_dim: of the condition's tokens.
        num_heads, head_width: as `Attention`.
        groups: of the normalisation, 32.
        depth: blocks.
    """

    def __init__(
        self, channels: int, context_dim: int, num_heads: int, head_width: int, groups: int, depth: int = 1
    ) -> None:
        super().__init__()
        inner = num_heads * head_width
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.project = nn.Conv2d(channels, inner, kernel_size=1)
        self.blocks = nn.ModuleList(TransformerBlock(inner, context_dim, num_heads, head_width) for _ in range(depth))
        self.out = starting_at_zero(nn.Conv2d(inner, channels, kernel_size=1))

    def forward(self, x: Tensor, known: Known) -> Tensor:
        """(N, C, H, W) to the same shape."""
        tokens = rearrange(self.project(self.norm(x)), "n c h w -> n (h w) c")
        for block in self.blocks:
            tokens = block(tokens, known.context)
        return x + self.out(rearrange(tokens, "n (h w) c -> n c h w", h=x.shape[2]))


# The authors' names of the parts of a spatial transformer, and ours.
_PARTS = {
    "proj_in": "project",
    "proj_out": "out",
    "norm": "norm",
    r"transformer_blocks\.(?P<block>\d+)\.norm(?P<norm>\d)": r"blocks.\g<block>.norm\g<norm>",
    r"transformer_blocks\.(?P<block>\d+)\.ff\.net\.0\.proj": r"blocks.\g<block>.feed_forward.expand",
    r"transformer_blocks\.(?P<block>\d+)\.ff\.net\.2": r"blocks.\g<block>.feed_forward.reduce",
    **{
        rf"transformer_blocks\.(?P<block>\d+)\.attn{number}\.{theirs}": rf"blocks.\g<block>.{kind}_attention.{ours}"
        for number, kind in ((1, "self"), (2, "cross"))
        for theirs, ours in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), (r"to_out\.0", "out"))
    },
}
TRANSFORMER = {rf"{theirs}\.(?P<kind>\w+)": rf"{ours}.\g<kind>" for theirs, ours in _PARTS.items()}


class InformedResidualBlock(PlainResidualBlock):
    """Is told the time alone."""

    def forward(self, x: Tensor, known: Known) -> Tensor:  # type: ignore[override]
        """(N, in_channels, H, W) to (N, out_channels, H, W)."""
        return super().forward(x, known.embedding)


@dataclass(frozen=True)
class ConditionedBlocks(PlainBlocks):
    """Those of a U-Net whose attention is a spatial transformer.

    Attributes:
        context_dim: of the condition's tokens.
    """

    context_dim: int

    def residual(self, in_channels: int, out_channels: int, embedding_dim: int) -> nn.Module:
        return InformedResidualBlock(in_channels, out_channels, embedding_dim, self.dropout, self.groups)

    def attention(self, channels: int) -> nn.Module:
        num_heads = self.num_heads
        return SpatialTransformer(channels, self.context_dim, num_heads, channels // num_heads, self.groups)


class ConditionedUNet(UNet):
    """Denoises latents; tokens of a condition are looked at wherever features look at each other, in the middle too.

    Arguments are those of `UNet`, `blocks` being `ConditionedBlocks`.

    Attributes:
        context_dim: of the condition's tokens.
    """

    def __init__(self, blocks: ConditionedBlocks, *args: Any, **kwargs: Any) -> None:
        super().__init__(blocks, *args, **kwargs)
        self.context_dim = blocks.context_dim

    def known(self, timesteps: Tensor, condition: Tensor) -> Known:  # type: ignore[override]
        """Times (N,) and the condition's tokens (N, M, context_dim), in one."""
        return Known(self.embedded(timesteps), condition)


_STAGES = {
    r"input_blocks\.(?P<stage>\d+)\.1": r"down.\g<stage>.1",
    r"middle_block\.1": "middle.1",
    r"output_blocks\.(?P<stage>\d+)\.1": r"up.\g<stage>.1",
}
UNET = keys_of(
    {
        rf"{stage}\.{theirs}": f"{place}.{ours}"
        for stage, place in _STAGES.items()
        for theirs, ours in TRANSFORMER.items()
    },
    head_dim=None,
)


class ConcatenatingUNet(UNet):
    """Denoises latents beside a map of their size, whose channels follow theirs: `in_channels` are those of both."""

    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:  # type: ignore[override]
        """As `UNet`, with maps (N, C', H, W)."""
        return super().forward(torch.cat((x, condition), dim=1), timesteps)


class PlainDownBlock(PlainResidualBlock, DownBlock):
    """Halves the size, by averaging; what is known of the image is added."""


class PlainUpBlock(PlainResidualBlock, UpBlock):
    """Doubles the size, by repeating; what is known of the image is added."""


@dataclass(frozen=True)
class ResamplingBlocks(PlainBlocks):
    """Those of the inpainting U-Net: what makes features smaller or larger is a residual block, too."""

    def down(self, channels: int, embedding_dim: int) -> nn.Module:
        return PlainDownBlock(channels, channels, embedding_dim, self.dropout, self.groups)

    def up(self, channels: int, embedding_dim: int) -> nn.Module:
        return PlainUpBlock(channels, channels, embedding_dim, self.dropout, self.groups)


class TextBlock(nn.Module):
    """A block of the text encoder: tokens look at each other, then each at itself; normalised before each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        # Eight heads of 64 whatever the width, as in the x-transformers that it was copied from.
        self.attention = Attention(width, width, num_heads=8, head_width=64)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, width) to the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class TextEncoder(nn.Module):
    """Tokens to the context that the U-Net looks at; trained from scratch together with it.

    Padding takes part, as any token does, and is what an empty text consists of.

    Args:
        num_tokens: size of the vocabulary; 30522, BERT's.
        max_tokens: length of every text, 77.
        width: of the context, 1280.
        depth: blocks, 32.
        embedding_std: of tokens and places as they start.
    """

    def __init__(self, num_tokens: int, max_tokens: int, width: int, depth: int, embedding_std: float = 0.02) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(num_tokens, width), nn.Embedding(max_tokens, width)
        self.blocks = nn.ModuleList(TextBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        for embedding in (self.words, self.places):
            nn.init.normal_(embedding.weight, std=embedding_std)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L) int64, L at most `max_tokens`, to (N, L, width)."""
        x = self.words(tokens) + self.places.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def _text_encoder_names(depth: int) -> dict[str, str]:
    """Of the authors' list, in which attention and feed-forward take turns."""
    names = {}
    for block in range(depth):
        first, second = (rf"transformer\.attn_layers\.layers\.{2 * block + part}" for part in (0, 1))
        names |= {
            rf"{first}\.0\.(\w+)": rf"blocks.{block}.norm1.\1",
            rf"{second}\.0\.(\w+)": rf"blocks.{block}.norm2.\1",
            rf"{second}\.1\.net\.0\.0\.(\w+)": rf"blocks.{block}.feed_forward.0.\1",
            rf"{second}\.1\.net\.2\.(\w+)": rf"blocks.{block}.feed_forward.2.\1",
            **{
                rf"{first}\.1\.{theirs}\.(\w+)": rf"blocks.{block}.attention.{ours}.\1"
                for theirs, ours in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out", "out"))
            },
        }
    return names


TEXT_ENCODER = KeyMap(
    rename={
        r"transformer\.token_emb\.weight": "words.weight",
        r"transformer\.pos_emb\.emb\.weight": "places.weight",
        r"transformer\.norm\.(\w+)": r"norm.\1",
        **_text_encoder_names(depth=32),
    },
    drop={r"transformer\.to_logits\..*": "a head for words, which the authors never use"},
)


class Posterior(NamedTuple):
    """The normal distribution of an image's latent.

    Attributes:
        mean, log_variance: (N, C, h, w).
    """

    mean: Tensor
    log_variance: Tensor

    def drawn(self, eps: Tensor) -> Tensor:
        """A latent (N, C, h, w), by standard normal numbers of the same shape."""
        return self.mean + (self.log_variance / 2).exp() * eps

    def divergence(self) -> Tensor:
        """From the standard normal distribution, a sum over the dimensions of each latent: (N,)."""
        terms = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return terms.flatten(1).sum(dim=1) / 2


class KLAutoencoder(nn.Module):
    """From images to distributions of latents that are smaller, and back: section 3.1, regularised by a KL term.

    Args:
        width, multipliers, num_blocks, attention_factors, num_groups: as VQGAN's `Encoder`.
        hidden_channels: of the encoder's output, half of it, and of the decoder's input.
        latent_channels: of a latent.
    """

    def __init__(
        self,
        width: int,
        multipliers: Sequence[int],
        num_blocks: int,
        attention_factors: Sequence[int],
        hidden_channels: int,
        latent_channels: int,
        num_groups: int = 32,
    ) -> None:
        super().__init__()
        shape = width, multipliers, num_blocks, attention_factors
        self.latent_channels = latent_channels
        self.encoder = Encoder(*shape, 2 * hidden_channels, num_groups)
        self.decoder = Decoder(*shape, hidden_channels, num_groups)
        self.to_moments = nn.Conv2d(2 * hidden_channels, 2 * latent_channels, 1)
        self.from_latent = nn.Conv2d(latent_channels, hidden_channels, 1)

    @property
    def factor(self) -> int:
        """By which a latent is smaller than its image, a power of two."""
        return self.encoder.factor

    def encode(self, image: Tensor) -> Posterior:
        """Images (N, 3, H, W) in [-1, 1] to the distribution of their latents (N, C, H / factor, W / factor).

        Raises:
            ValueError: H or W is no multiple of `factor`.
        """
        mean, log_variance = self.to_moments(self.encoder(image)).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-30, 20))

    def decode(self, latent: Tensor) -> Tensor:
        """Latents (N, C, h, w) to images (N, 3, H, W), which are not bounded."""
        return self.decoder(self.from_latent(latent))


KL_AUTOENCODER = KeyMap(
    drop={r"loss\..*": "discriminator and LPIPS, with which it was trained"},
    rename=encoder_renamed("encoder.")
    | decoder_renamed("decoder.")
    | {r"quant_conv\.(\w+)": r"to_moments.\1", r"post_quant_conv\.(\w+)": r"from_latent.\1"},
)
