"""The networks of DALL-E 2 (unCLIP): the diffusion prior over CLIP's image embeddings, and the decoder's U-Net.

Ramesh et al., Hierarchical Text-Conditional Image Generation with CLIP Latents, https://arxiv.org/abs/2204.06125.
OpenAI released no code. This is the re-implementation whose priors LAION trained, to which the key maps lead:
https://github.com/lucidrains/DALLE2-pytorch/tree/680dfc4d93b70f9ab23c814a22ca18017a738ef6, dalle2_pytorch.py.

Both networks drop conditions sample by sample: `*_keep` says where a condition stays; elsewhere what was learned for
its absence stands in its place, which is the unconditional branch of classifier-free guidance.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmbench.core.weights import KeyMap

ROTATED = 32  # channels of queries and keys that say where a token is, at most
NUM_BUCKETS, MAX_DISTANCE = 32, 128  # of relative positions, as T5 counts them
COSINE_SCALE = 16.0  # of the cosine between a query and a key
NUM_GROUPS = 8  # of group normalisation
TIME_TOKENS, IMAGE_TOKENS = 2, 4  # that the decoder's attention sees of the timestep and of the image embedding
KERNELS = (3, 7, 15)  # of the decoder's first convolutions


def sinusoids(timesteps: Tensor, dim: int) -> Tensor:
    """Timesteps (N,) to sines and then cosines (N, dim) at frequencies from 1 down to 1 / 10000, which is the last."""
    places = torch.arange(dim // 2, device=timesteps.device, dtype=torch.get_default_dtype())
    angles = timesteps.to(places)[:, None] * torch.exp(-math.log(10000) * places / (dim // 2 - 1))
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def chosen(keep: Tensor, value: Tensor, null: Tensor) -> Tensor:
    """`value` (N, ...) where `keep` (N,) is true, `null` (1, ...) elsewhere."""
    return torch.where(keep.view(-1, *[1] * (value.dim() - 1)), value, null.to(value.dtype))


def words_or_null(words: Tensor, keep: Tensor, null: Tensor) -> Tensor:
    """`words` (N, T, D) filled up to `null` (1, L, D), which stands where words are dropped or all zeros."""
    if words.shape[1] > null.shape[1]:
        raise ValueError(
            f"expected at most {null.shape[1]} words, found {words.shape[1]}: cut captions off, or train with a larger "
            "max_words"
        )
    words = F.pad(words, (0, 0, 0, null.shape[1] - words.shape[1]))
    return torch.where(keep[:, None, None] & words.any(dim=2, keepdim=True), words, null.to(words.dtype))


class PriorCondition(NamedTuple):
    """What a prior is told.

    Attributes:
        text: text embeddings (N, D).
        words: their words (N, T, D), all zeros where there is none.
        text_keep: (N,) bool, where text and words stay.
        image_keep: (N,) bool, where the noised image embedding does.
    """

    text: Tensor
    words: Tensor
    text_keep: Tensor
    image_keep: Tensor

    def dropped(self) -> Self:
        """The same without any condition. The noised embedding goes, too: the re-implementation guides so."""
        return self._replace(text_keep=self.text_keep & False, image_keep=self.image_keep & False)


class DecoderCondition(NamedTuple):
    """What a decoder is told.

    Attributes:
        image: image embeddings (N, D).
        words: of texts, (N, T, text_dim), all zeros where there is none.
        image_keep, text_keep: (N,) bool, where each stays.
    """

    image: Tensor
    words: Tensor
    image_keep: Tensor
    text_keep: Tensor

    def dropped(self) -> Self:
        """The same without any condition."""
        return self._replace(image_keep=self.image_keep & False, text_keep=self.text_keep & False)


class SharedKeyAttention(nn.Module):
    """Self-attention of several heads of queries that share one key and one value, before them one that is learned.

    What is added to its input; which logits there are, a subclass says.

    Args:
        dim: of tokens.
        num_heads, head_dim: of queries.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim, bias=False)
        self.to_query = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.to_key_value = nn.Linear(dim, 2 * head_dim, bias=False)
        self.null_key_value = nn.Parameter(torch.randn(2, head_dim))
        self.to_out = nn.Sequential(nn.Linear(num_heads * head_dim, dim, bias=False), nn.LayerNorm(dim, bias=False))

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (N, L, dim) to queries (N, heads, L, head_dim), keys and values (N, 1, L, head_dim)."""
        x = self.norm(x)
        query = rearrange(self.to_query(x), "n l (h d) -> n h l d", h=self.num_heads)
        key, value = self.to_key_value(x)[:, None].chunk(2, dim=-1)
        return query, key, value

    def attended(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, bias: Tensor | None = None
    ) -> Tensor:
        """Tokens (N, L, dim) from what `projected` gives, and the learned key and value (N, 1, L + 1, head_dim)."""
        key, value = (one.expand(-1, self.num_heads, -1, -1) for one in (key, value))
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
        return self.to_out(rearrange(found, "n h l d -> n l (h d)"))

    def behind_null(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (N, 1, L, head_dim) behind those that are learned: (N, 1, L + 1, head_dim)."""
        null_key, null_value = self.null_key_value.to(key.dtype)
        return tuple(
            torch.cat((null.expand(len(one), 1, 1, -1), one), dim=2)
            for null, one in ((null_key, key), (null_value, value))
        )


def rotated(x: Tensor) -> Tensor:
    """Queries or keys (N, H, L, D) turned by where they are: pairs of neighbouring channels, `ROTATED` at most."""
    count = min(ROTATED, x.shape[-1])
    frequencies = 10000 ** -(torch.arange(0, count, 2, device=x.device) / count)
    angles = torch.arange(x.shape[2], device=x.device)[:, None] * frequencies  # (L, count / 2)
    even, odd = x[..., 0:count:2], x[..., 1:count:2]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
    return torch.cat((turned, x[..., count:]), dim=-1)


class CosineAttention(SharedKeyAttention):
    """The prior's: logits are cosines times `COSINE_SCALE`, plus a bias.

    Args:
        dim, num_heads, head_dim: as `SharedKeyAttention`.
        rotary: whether queries and keys are turned by where they are.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, rotary: bool) -> None:
        super().__init__(dim, num_heads, head_dim)
        self.rotary = rotary

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Tokens (N, L, dim) and a bias (heads, L, L + 1) of logits to tokens (N, L, dim)."""
        query, key, value = self.projected(x)
        if self.rotary:
            query, key = rotated(query), rotated(key)
        key, value = self.behind_null(key, value)
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        return self.attended(query.to(value.dtype), key.to(value.dtype), value, COSINE_SCALE, bias.to(value.dtype))


class CausalBias(nn.Module):
    """T5's bias of logits by the distance back, by head; nothing sees what comes behind it.

    The learned key counts as a token here, so that key k + 1 is the token k, and a distance is one less than it is:
    so is the re-implementation, and with it LAION's weights.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.by_bucket = nn.Embedding(NUM_BUCKETS, num_heads)

    def forward(self, length: int) -> Tensor:
        """(heads, length, length + 1) for tokens and the learned key before them."""
        device = self.by_bucket.weight.device
        query, key = torch.arange(length, device=device)[:, None], torch.arange(length + 1, device=device)
        bias = rearrange(self.by_bucket(_bucket((query - key).clamp(min=0))), "q k h -> h q k")
        return bias.masked_fill(key > query + 1, -math.inf)


def _bucket(distance: Tensor) -> Tensor:
    """Distances from 0 to buckets: half of them one by one, the others by their logarithm up to `MAX_DISTANCE`."""
    exact = NUM_BUCKETS // 2
    far = torch.log(distance.clamp(min=exact).float() / exact) / math.log(MAX_DISTANCE / exact) * (NUM_BUCKETS - exact)
    return torch.where(distance < exact, distance, (exact + far.long()).clamp(max=NUM_BUCKETS - 1))


class GatedFeedForward(nn.Module):
    """Two layers, of which the first has twice as many outputs: one half, through a SiLU, is the gate of the other.

    Args:
        dim: of tokens.
        expansion: how many times as many features there are within.
        norm: of what is behind the gate, given its size.
    """

    def __init__(self, dim: int, expansion: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, bias=False)
        self.enter = nn.Linear(dim, 2 * expansion * dim, bias=False)
        self.inner_norm = norm(expansion * dim, bias=False)
        self.leave = nn.Linear(expansion * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, dim) to what is added to it."""
        value, gate = self.enter(self.norm(x)).chunk(2, dim=-1)
        return self.leave(self.inner_norm(value * F.silu(gate)))


class CausalTransformer(nn.Module):
    """The prior's transformer, in which a token sees those before it.

    Args:
        dim, depth, num_heads, head_dim: of tokens, layers and their attention.
        expansion: of the feed-forward networks.
        rotary: as `CosineAttention`.
        norm_in: whether tokens are normalised before the first layer.
        norm_within: whether feed-forward networks normalise within, as Normformer does.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        head_dim: int,
        expansion: int = 4,
        rotary: bool = True,
        norm_in: bool = False,
        norm_within: bool = False,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.norm_in = nn.LayerNorm(dim, bias=False) if norm_in else nn.Identity()
        self.bias = CausalBias(num_heads)
        self.attentions = nn.ModuleList(CosineAttention(dim, num_heads, head_dim, rotary) for _ in range(depth))
        inner_norm = nn.LayerNorm if norm_within else nn.Identity
        self.feed_forwards = nn.ModuleList(GatedFeedForward(dim, expansion, inner_norm) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, bias=False)
        self.project = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, L, dim) to tokens (N, L, dim)."""
        x, bias = self.norm_in(x), self.bias(x.shape[1])
        for attention, feed_forward in zip(self.attentions, self.feed_forwards, strict=True):
            x = x + attention(x, bias)
            x = x + feed_forward(x)
        # By the largest feature, whatever its sign: what the authors call the stable norm.
        return self.project(self.norm(x / x.amax(dim=-1, keepdim=True).detach()))


class ContinuousTime(nn.Sequential):
    """Embeds timesteps that are not counted: sines and cosines through three layers.

    Args:
        dim: of sines and cosines.
        out_features: of the embedding.
    """

    def __init__(self, dim: int, out_features: int) -> None:
        hidden = 2 * out_features
        layers = nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        super().__init__(*layers, nn.Linear(hidden, out_features))
        self.dim = dim

    def forward(self, timesteps: Tensor) -> Tensor:
        """(N,) to (N, out_features)."""
        return super().forward(sinusoids(timesteps, self.dim))


class Prior(nn.Module):
    """What a noised image embedding was before noise, after a text: section 2.2.

    Its tokens are words, the text's embedding, the timestep, the noised image embedding and a learned query, in whose
    place the transformer answers.

    Args:
        transformer: of the size of embeddings.
        max_words: words of a text.
        num_timesteps: of diffusion, each with an embedding; None: timesteps are any number (`ContinuousTime`).
        text_tokens, time_tokens, image_tokens: how many tokens each of these has.
        self_conditioned: whether its own estimate of a step before is a token, too.
    """

    def __init__(
        self,
        transformer: CausalTransformer,
        max_words: int,
        num_timesteps: int | None,
        text_tokens: int = 1,
        time_tokens: int = 1,
        image_tokens: int = 1,
        self_conditioned: bool = False,
    ) -> None:
        super().__init__()
        dim = transformer.dim
        self.self_conditioned = self_conditioned
        self.learned_query = nn.Parameter(torch.randn(dim))
        self.null_words = nn.Parameter(torch.randn(1, max_words, dim))
        self.null_text = nn.Parameter(torch.randn(1, text_tokens, dim))
        self.null_image = nn.Parameter(torch.randn(1, dim))
        self.to_text_tokens = nn.Linear(dim, text_tokens * dim) if text_tokens > 1 else nn.Identity()
        self.to_image_tokens = nn.Linear(dim, image_tokens * dim) if image_tokens > 1 else nn.Identity()
        self.to_time_tokens = (
            nn.Embedding(num_timesteps, time_tokens * dim)
            if num_timesteps is not None
            else ContinuousTime(dim, time_tokens * dim)
        )
        self.transformer = transformer

    def forward(
        self, image: Tensor, timesteps: Tensor, condition: PriorCondition, previous: Tensor | None = None
    ) -> Tensor:
        """Noised image embeddings (N, D) to what they were without noise, (N, D).

        Args:
            image: with entries that deviate by about 1, as noise does.
            timesteps: (N,) int64.
            condition: with up to `max_words` words.
            previous: (N, D), the estimate of a step before, where it is `self_conditioned`; None: none yet.

        Raises:
            ValueError: there are more words than it takes.
        """
        words = words_or_null(condition.words, condition.text_keep, self.null_words)
        text = chosen(condition.text_keep, self._tokens(self.to_text_tokens(condition.text)), self.null_text)
        image = chosen(condition.image_keep, self._tokens(self.to_image_tokens(image)), self.null_image)
        time = self._tokens(self.to_time_tokens(timesteps))
        query = self.learned_query.expand(len(words), 1, -1)
        tokens = [words, text, time, image]
        if self.self_conditioned:
            tokens.append(torch.zeros_like(query) if previous is None else previous[:, None])
        return self.transformer(torch.cat([*tokens, query], dim=1))[:, -1]

    def _tokens(self, flat: Tensor) -> Tensor:
        """(N, k D) to (N, k, D)."""
        return flat.unflatten(1, (-1, self.transformer.dim))


_LAYER = r"causal_transformer\.layers\.(\d+)"
PRIOR = KeyMap(
    rename={
        "null_text_encodings": "null_words",
        "null_text_embeds": "null_text",
        "null_image_embed": "null_image",
        r"to_(text|image)_embeds\.0\.(.*)": r"to_\1_tokens.\2",
        r"to_time_embeds\.0\.weight": "to_time_tokens.weight",
        **{
            rf"to_time_embeds\.0\.1\.net\.{theirs}\.(.*)": rf"to_time_tokens.{ours}.\1"
            for theirs, ours in ((r"0\.0", 0), (r"1\.0", 2), ("2", 4))
        },
        r"causal_transformer\.rel_pos_bias\.relative_attention_bias\.weight": "transformer.bias.by_bucket.weight",
        rf"{_LAYER}\.0\.null_kv": r"transformer.attentions.\1.null_key_value",
        rf"{_LAYER}\.0\.norm\.g": r"transformer.attentions.\1.norm.weight",
        rf"{_LAYER}\.0\.to_q\.weight": r"transformer.attentions.\1.to_query.weight",
        rf"{_LAYER}\.0\.to_kv\.weight": r"transformer.attentions.\1.to_key_value.weight",
        rf"{_LAYER}\.0\.to_out\.0\.weight": r"transformer.attentions.\1.to_out.0.weight",
        rf"{_LAYER}\.0\.to_out\.1\.g": r"transformer.attentions.\1.to_out.1.weight",
        rf"{_LAYER}\.1\.0\.g": r"transformer.feed_forwards.\1.norm.weight",
        rf"{_LAYER}\.1\.1\.weight": r"transformer.feed_forwards.\1.enter.weight",
        rf"{_LAYER}\.1\.3\.g": r"transformer.feed_forwards.\1.inner_norm.weight",
        rf"{_LAYER}\.1\.5\.weight": r"transformer.feed_forwards.\1.leave.weight",
        r"causal_transformer\.init_norm\.g": "transformer.norm_in.weight",
        r"causal_transformer\.norm\.g": "transformer.norm.weight",
        r"causal_transformer\.project_out\.weight": "transformer.project.weight",
    },
    drop={rf"{_LAYER}\.0\.rotary_emb\.freqs": "constants, computed from the number of channels"},
)


class CrossAttention(nn.Module):
    """What features at every position find among tokens, before which one is learned that all heads share.

    Args:
        channels: of the features.
        token_dim: of tokens.
        num_heads, head_dim: of the attention.
    """

    def __init__(self, channels: int, token_dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(channels, bias=False)
        self.to_query = nn.Linear(channels, num_heads * head_dim, bias=False)
        self.to_key_value = nn.Linear(token_dim, 2 * num_heads * head_dim, bias=False)
        self.null_key_value = nn.Parameter(torch.randn(2, head_dim))
        self.to_out = nn.Sequential(
            nn.Linear(num_heads * head_dim, channels, bias=False), nn.LayerNorm(channels, bias=False)
        )

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """(N, C, H, W) and tokens (N, L, token_dim) to what is added to x."""
        query = self.to_query(self.norm(rearrange(x, "n c h w -> n (h w) c")))
        query = rearrange(query, "n p (h d) -> n h p d", h=self.num_heads)
        found = rearrange(self.to_key_value(tokens), "n l (k h d) -> k n h l d", k=2, h=self.num_heads)
        null = self.null_key_value.to(found.dtype)[:, None, None, None].expand(-1, *found.shape[1:3], 1, -1)
        key, value = torch.cat((null, found), dim=3)
        found = rearrange(F.scaled_dot_product_attention(query, key, value), "n h p d -> n p (h d)")
        return rearrange(self.to_out(found), "n (h w) c -> n c h w", h=x.shape[2])


class SpatialSelfAttention(SharedKeyAttention):
    """Adds to features at every position what they find at the others.

    Logits are divided by the size of a head, not by its root: the re-implementation scales queries once more.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        query, key, value = self.projected(rearrange(x, "n c h w -> n (h w) c"))
        key, value = self.behind_null(key, value)
        return x + rearrange(
            self.attended(query, key, value, 1 / query.shape[-1]), "n (h w) c -> n c h w", h=x.shape[2]
        )


class ResidualBlock(nn.Module):
    """Two convolutions with a shortcut; the timestep scales and shifts what the first makes of the features.

    Args:
        in_channels, out_channels: of features.
        time_dim: of what says the timestep and the image embedding.
        attention: to tokens, between the two convolutions; None: tokens are not looked at.
    """

    def __init__(self, in_channels: int, out_channels: int, time_dim: int, attention: CrossAttention | None) -> None:
        super().__init__()
        self.modulate = nn.Linear(time_dim, 2 * out_channels)
        self.convolution1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm1 = nn.GroupNorm(NUM_GROUPS, out_channels)
        self.attention = attention
        self.convolution2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(NUM_GROUPS, out_channels)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        """(N, in_channels, H, W), (N, time_dim) and (N, L, token_dim) to (N, out_channels, H, W)."""
        scale, shift = self.modulate(F.silu(time))[..., None, None].chunk(2, dim=1)
        hidden = F.silu(self.norm1(self.convolution1(x)) * (1 + scale) + shift)
        if self.attention is not None:
            hidden = hidden + self.attention(hidden, tokens)
        return F.silu(self.norm2(self.convolution2(hidden))) + self.shortcut(x)


class Level(nn.Module):
    """The blocks of one resolution: the first, the others, and self-attention where there is any.

    Args:
        blocks: the first of them enters.
        attention: `SpatialSelfAttention`, or nothing.
        resample: to the next resolution.
    """

    def __init__(self, blocks: Sequence[ResidualBlock], attention: nn.Module, resample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attention = attention
        self.resample = resample


class DecoderUNet(nn.Module):
    """The decoder: predicts an image's noise, and what its variance is made of, after a CLIP embedding and a text.

    Args:
        width: channels at the first resolution.
        multipliers: of `width`, by resolution; each is half the one before.
        num_blocks: residual blocks of a resolution behind its first.
        self_attention: by resolution, whether features look at each other.
        image_dim: of CLIP embeddings.
        text_dim: of words.
        token_dim: of what attention sees of both.
        max_words: words of a text.
        num_heads, head_dim: of self-attention.
        cross_heads, cross_head_dim: of attention to tokens, 8 of 64 as published.
        out_channels: 6, noise and its variance.
    """

    def __init__(
        self,
        width: int,
        multipliers: Sequence[int],
        num_blocks: int,
        self_attention: Sequence[bool],
        image_dim: int,
        text_dim: int,
        token_dim: int,
        max_words: int,
        num_heads: int,
        head_dim: int,
        cross_heads: int = 8,
        cross_head_dim: int = 64,
        out_channels: int = 6,
    ) -> None:
        super().__init__()
        if len(self_attention) != len(multipliers):
            raise ValueError(
                f"expected self_attention for each of {len(multipliers)} resolutions, found {len(self_attention)}: "
                "say for each of multipliers whether there is any"
            )
        self.width, time_dim = width, 4 * width
        widths = [width // 2, width // 4, width - width // 2 - width // 4]
        self.enter = nn.ModuleList(
            nn.Conv2d(3, channels, kernel, padding=kernel // 2)
            for channels, kernel in zip(widths, KERNELS, strict=True)
        )
        self.time = nn.Sequential(nn.Linear(width, time_dim), nn.GELU())
        self.time_to_time = nn.Linear(time_dim, time_dim)
        self.time_to_tokens = nn.Linear(time_dim, TIME_TOKENS * token_dim)
        self.image_to_time = nn.Sequential(nn.Linear(image_dim, time_dim), nn.GELU())
        self.image_to_tokens = nn.Linear(image_dim, IMAGE_TOKENS * token_dim)
        self.text_to_tokens = nn.Linear(text_dim, token_dim)
        self.null_image_tokens = nn.Parameter(torch.randn(1, IMAGE_TOKENS, token_dim))
        self.null_image_time = nn.Parameter(torch.randn(1, time_dim))
        self.null_words = nn.Parameter(torch.randn(1, max_words, token_dim))
        self.norm, self.norm_middle = nn.LayerNorm(token_dim), nn.LayerNorm(token_dim)

        def block(in_channels: int, out_channels: int, crossed: bool) -> ResidualBlock:
            attention = CrossAttention(out_channels, token_dim, cross_heads, cross_head_dim) if crossed else None
            return ResidualBlock(in_channels, out_channels, time_dim, attention)

        def attention(channels: int, wanted: bool) -> nn.Module:
            return SpatialSelfAttention(channels, num_heads, head_dim) if wanted else nn.Identity()

        channels = [width, *(width * multiplier for multiplier in multipliers)]
        resolutions = list(enumerate(zip(pairwise(channels), self_attention, strict=True)))
        last = len(multipliers) - 1
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for place, ((inner, outer), attends) in resolutions:
            blocks = [block(inner, inner, False), *(block(inner, inner, place > 0) for _ in range(num_blocks))]
            resample = nn.Conv2d(inner, outer, 1) if place == last else Downsampling(inner, outer)
            self.down.append(Level(blocks, attention(inner, attends), resample))
        self.middle = Level([block(outer, outer, True) for _ in range(2)], attention(outer, True), nn.Identity())
        for place, ((inner, outer), attends) in reversed(resolutions):
            blocks = [block(inner + outer, outer, place > 0) for _ in range(1 + num_blocks)]
            resample = Upsampling(outer, inner) if place > 0 else nn.Identity()
            self.up.append(Level(blocks, attention(outer, attends), resample))
        self.final = block(channels[1] + width, width, False)
        self.leave = nn.Conv2d(width, out_channels, 1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    @property
    def stride(self) -> int:
        """Which the sides of images are multiples of."""
        return 2 ** (len(self.down) - 1)

    def forward(self, x: Tensor, timesteps: Tensor, condition: DecoderCondition) -> Tensor:
        """Noised images (N, 3, H, W) to (N, out_channels, H, W).

        Args:
            x: whose height and width are multiples of `stride`.
            timesteps: (N,) int64.
            condition: with up to `max_words` words.

        Raises:
            ValueError: there are more words than it takes.
        """
        time, tokens, middle_tokens = self.conditions(timesteps, condition)
        x = entered = torch.cat([convolution(x) for convolution in self.enter], dim=1)
        skips = []
        for level in self.down:
            first, *others = level.blocks
            x = first(x, time, tokens)
            for block in others:
                x = block(x, time, tokens)
                skips.append(x)
            x = level.attention(x)
            skips.append(x)
            x = level.resample(x)
        first, second = self.middle.blocks
        x = second(self.middle.attention(first(x, time, middle_tokens)), time, middle_tokens)
        for level in self.up:
            for block in level.blocks:
                x = block(torch.cat((x, skips.pop()), dim=1), time, tokens)
            x = level.resample(level.attention(x))
        return self.leave(self.final(torch.cat((x, entered), dim=1), time, tokens))

    def conditions(self, timesteps: Tensor, condition: DecoderCondition) -> tuple[Tensor, Tensor, Tensor]:
        """What blocks are told: (N, 4 width), tokens (N, 6, D), and those of the middle (N, 6 + max_words, D)."""
        image, words, image_keep, text_keep = condition
        hidden = self.time(sinusoids(timesteps, self.width))
        time = self.time_to_time(hidden) + chosen(image_keep, self.image_to_time(image), self.null_image_time)
        of_image = self.image_to_tokens(image).unflatten(1, (IMAGE_TOKENS, -1))
        of_image = chosen(image_keep, of_image, self.null_image_tokens)
        tokens = torch.cat((self.time_to_tokens(hidden).unflatten(1, (TIME_TOKENS, -1)), of_image), dim=1)
        # A word of zeros is none, whatever the layer's bias makes of it.
        there = words.any(dim=2, keepdim=True)
        of_text = words_or_null(self.text_to_tokens(words) * there, text_keep, self.null_words)
        return time, self.norm(tokens), self.norm_middle(torch.cat((tokens, of_text), dim=1))


class Downsampling(nn.Sequential):
    """Halves the size: the pixels of 2 x 2 become channels, which a convolution of one pixel mixes."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.PixelUnshuffle(2), nn.Conv2d(4 * in_channels, out_channels, 1))


class Upsampling(nn.Sequential):
    """Doubles the size: a convolution of one pixel makes the channels that become 2 x 2 pixels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.Conv2d(in_channels, 4 * out_channels, 1), nn.SiLU(), nn.PixelShuffle(2))


_ATTENTION = {
    "null_kv": "null_key_value",
    r"norm\.g": "norm.weight",
    r"to_q\.weight": "to_query.weight",
    r"to_kv\.weight": "to_key_value.weight",
    r"to_out\.0\.weight": "to_out.0.weight",
    r"to_out\.1\.g": "to_out.1.weight",
}
_BLOCK = {
    r"time_mlp\.1\.(weight|bias)": "modulate",
    r"block1\.project\.(weight|bias)": "convolution1",
    r"block1\.norm\.(weight|bias)": "norm1",
    r"block2\.project\.(weight|bias)": "convolution2",
    r"block2\.norm\.(weight|bias)": "norm2",
    r"res_conv\.(weight|bias)": "shortcut",
}


def _of_block(theirs: str, ours: str) -> dict[str, str]:
    """Names of a residual block's parameters."""
    return {
        **{rf"{theirs}\.{key}": rf"{ours}.{name}.\1" for key, name in _BLOCK.items()},
        **{rf"{theirs}\.cross_attn\.{key}": f"{ours}.attention.{name}" for key, name in _ATTENTION.items()},
    }


def decoder_keys(num_resolutions: int, num_blocks: int) -> KeyMap:
    """From the re-implementation's keys of a U-Net to those of `DecoderUNet`."""
    names = {
        **{rf"init_conv\.convs\.{place}\.(.*)": rf"enter.{place}.\1" for place in range(len(KERNELS))},
        r"to_time_hiddens\.1\.(.*)": r"time.0.\1",
        r"to_time_cond\.0\.(.*)": r"time_to_time.\1",
        r"to_time_tokens\.0\.(.*)": r"time_to_tokens.\1",
        r"to_image_hiddens\.0\.(.*)": r"image_to_time.0.\1",
        r"image_to_tokens\.0\.(.*)": r"image_to_tokens.\1",
        r"text_to_cond\.(.*)": r"text_to_tokens.\1",
        "null_image_embed": "null_image_tokens",
        "null_image_hiddens": "null_image_time",
        "null_text_embed": "null_words",
        r"norm_cond\.(.*)": r"norm.\1",
        r"norm_mid_cond\.(.*)": r"norm_middle.\1",
        r"to_out\.(.*)": r"leave.\1",
        **_of_block("final_resnet_block", "final"),
        **_of_block("mid_block1", "middle.blocks.0"),
        **_of_block("mid_block2", "middle.blocks.1"),
        **{rf"mid_attn\.fn\.fn\.{key}": f"middle.attention.{name}" for key, name in _ATTENTION.items()},
    }
    last = num_resolutions - 1
    for level in range(num_resolutions):
        # Down there is an entry for what comes before the blocks, which is empty.
        for way, first in (("down", 1), ("up", 0)):
            theirs, ours = rf"{way}s\.{level}", f"{way}.{level}"
            names |= _of_block(rf"{theirs}\.{first}", f"{ours}.blocks.0")
            for block in range(num_blocks):
                names |= _of_block(rf"{theirs}\.{first + 1}\.{block}", f"{ours}.blocks.{block + 1}")
            names |= {
                rf"{theirs}\.{first + 2}\.fn\.fn\.{key}": f"{ours}.attention.{name}" for key, name in _ATTENTION.items()
            }
        # Behind what halves the size, which has no parameters.
        theirs, ours = ("", "") if level == last else (r"1\.", "1.")
        names[rf"downs\.{level}\.4\.{theirs}(weight|bias)"] = rf"down.{level}.resample.{ours}\1"
        names[rf"ups\.{level}\.3\.net\.0\.(.*)"] = rf"up.{level}.resample.0.\1"
    return KeyMap(rename=names)
