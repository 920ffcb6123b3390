"""NÜWA's 3D nearby attention: a token of a video looks at those around it, in frames, rows and columns.

Chenfei Wu, Jian Liang, Lei Ji, Fan Yang, Yuejian Fang, Daxin Jiang, Nan Duan. NÜWA: Visual Synthesis Pre-training for
Neural visUal World creAtion. ECCV 2022. https://arxiv.org/abs/2111.12417, section 3.2. Microsoft published no code.
The layers are those of the re-implementation https://github.com/lucidrains/nuwa-pytorch/tree/a3e3a6d,
nuwa_pytorch/nuwa_pytorch.py (Sparse3DNA, SparseCross2DNA, ShiftVideoTokens), in which heads exchange their attention
(Shazeer et al., Talking-Heads Attention, https://arxiv.org/abs/2003.02436), which is not in the paper.

A sequence is a beginning and behind it the tokens of a video, frame by frame and row by row; an image is a video of one
frame.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, einsum, nn

from mmbench.core.categorical import drawn
from mmbench.core.weights import KeyMap
from mmbench.layers.cached_attention import KeyValueCache
from mmbench.layers.scaled_transformer import GatedFeedForward, Memory, ScaledBlock, ScaledBranch
from mmbench.layers.token_shift import NOTHING, TokenShift
from mmbench.networks.text_to_codes import PADDING, guided

Size = tuple[int, int, int]  # frames, rows, columns


class Neighbourhood(NamedTuple):
    """Which tokens of a video each of them looks at, W of them.

    Attributes:
        places: (L, W) int64, numbers of tokens; of what lies outside the video, any.
        inside: (L, W) bool, False where it lies outside.
    """

    places: Tensor
    inside: Tensor


def neighbourhood(video: Size, kernel: Size, dilation: Size, causal: bool) -> Neighbourhood:
    """The kernel around each token, or where causal the one that ends at it on every axis; frames first, then rows."""
    axes = []
    for size, width, step in zip(video, kernel, dilation, strict=True):
        back = width - 1 if causal else (width - 1) // 2
        axes.append(torch.arange(size)[:, None] + step * (torch.arange(width) - back))  # (size, width)
    places, inside = torch.zeros((), dtype=torch.int64), torch.ones((), dtype=torch.bool)
    for axis, (size, near) in enumerate(zip(video, axes, strict=True)):
        shape = [1] * 6
        shape[axis], shape[axis + 3] = near.shape
        near = near.view(shape)
        places = places * size + near.clamp(0, size - 1)
        inside = inside & (near >= 0) & (near < size)
    return Neighbourhood(places.flatten(3).flatten(0, 2), inside.flatten(3).flatten(0, 2))


class NearbyAttention(nn.Module):
    """Self-attention of each token to the beginning of the sequence and to the tokens near it, in three dimensions.

    Args:
        dim: D of the tokens.
        num_heads, head_dim: of the attention.
        video: largest number of frames, rows and columns.
        kernel: extent of the neighbourhood on each axis.
        dilation: distance of its tokens on each axis.
        causal: whether it ends at the token, which may then be decoded one by one.
        positions: whether scores have a learned part for each place of the kernel.
    """

    places: Tensor
    inside: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        video: Size,
        kernel: Size,
        dilation: Size = (1, 1, 1),
        causal: bool = True,
        positions: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads, self.video, self.kernel, self.causal = num_heads, video, kernel, causal
        width = num_heads * head_dim
        self.scale = head_dim**-0.5
        self.query = nn.Linear(dim, width, bias=False)
        self.key_value = nn.Linear(dim, 2 * width, bias=False)
        self.talking = nn.Linear(num_heads, num_heads, bias=False)
        self.out = nn.Linear(width, dim)
        near = neighbourhood(video, kernel, dilation, causal)
        self.register_buffer("places", near.places, persistent=False)
        self.register_buffer("inside", near.inside, persistent=False)
        # None for an axis on which the kernel has one place alone.
        self.positions = nn.ParameterList(
            nn.Parameter(torch.randn(width, num_heads)) for width in kernel if positions and width > 1
        )

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """(N, L, D) to the same shape.

        Args:
            x: a beginning, and the first L - 1 tokens of a video; with a cache, what follows on what it holds.
            cache: of keys and values of the tokens before; is extended by those of x.
        """
        parts = torch.cat((self.query(x), self.key_value(x)), dim=-1)
        query, key, value = rearrange(parts, "n l (part h d) -> part n h l d", part=3, h=self.num_heads)
        start = 0 if cache is None else cache.size
        own = value[:, :, :1] if start == 0 else value[:, :, :0]  # of the beginning, which sees itself alone
        if cache is not None:
            key, value = cache.extended(key, value)
        first, last = max(start, 1) - 1, start + x.shape[1] - 1  # of the video's tokens
        seen = self.attended(query[:, :, own.shape[2] :], key, value, first, last)
        return self.out(rearrange(torch.cat((own, seen), dim=2), "n h l d -> n l (h d)"))

    def attended(self, query: Tensor, key: Tensor, value: Tensor, first: int, last: int) -> Tensor:
        """What tokens `first` to `last` of the video, `query` (N, h, L, d), find in all so far: (N, h, L, d)."""
        if not self.causal:  # what is missing of the last frame is looked at, and is zero
            frame = self.video[1] * self.video[2]
            missing = -(last) % frame
            key, value = F.pad(key, (0, 0, 0, missing)), F.pad(value, (0, 0, 0, missing))
        count = key.shape[2] - 1
        places, inside = self.places[first:last], self.inside[first:last]
        inside = inside & (places < count)
        places = torch.where(inside, places, 0) + 1  # behind the beginning
        places = F.pad(places, (1, 0), value=0)  # (L, 1 + W), the beginning first
        scores = einsum("nhld, nhlwd -> nhlw", self.scale * query, key[:, :, places])
        if len(self.positions):
            scores = scores + F.pad(self.position_scores(), (1, 0))[:, None]
        scores = scores.masked_fill(~F.pad(inside, (1, 0), value=True), -torch.inf)
        mixed = einsum("nhlw, gh -> nglw", scores.softmax(dim=-1), self.talking.weight)
        return einsum("nhlw, nhlwd -> nhld", mixed, value[:, :, places])

    def position_scores(self) -> Tensor:
        """The learned part of the scores, a sum of one part for each axis: (heads, W)."""
        tables, total = iter(self.positions), torch.zeros((1, 1, 1, self.num_heads), device=self.places.device)
        for axis, width in enumerate(self.kernel):
            if width > 1:
                shape = [1, 1, 1, self.num_heads]
                shape[axis] = width
                total = total + next(tables).view(shape)
        return total.flatten(0, 2).T


def nearby_keys(positions: Sequence[str] = ()) -> KeyMap:
    """Of `NearbyAttention` and `NearbyCrossAttention`; `positions` are the authors' names of tables, in order."""
    return KeyMap(
        rename={
            r"to_q\.(.*)": r"query.\1",
            r"to_kv\.(.*)": r"key_value.\1",
            r"talking_heads\.(.*)": r"talking.\1",
            r"to_out\.(.*)": r"out.\1",
            **{rf"rel_pos_bias\.{name}": f"positions.{number}" for number, name in enumerate(positions)},
        },
        convert={r"talking\.weight": lambda weight: weight.flatten(1)},  # theirs is a convolution of one pixel
    )


class NearbyCrossAttention(nn.Module):
    """Attention of each token of a video to a sketch: to its place and those around it, in all frames of the sketch.

    Args:
        dim: D of the tokens.
        num_heads, head_dim: of the attention.
        rows, columns: of a frame.
        kernel: side of the neighbourhood.
    """

    places: Tensor
    inside: Tensor

    def __init__(self, dim: int, num_heads: int, head_dim: int, rows: int, columns: int, kernel: int) -> None:
        super().__init__()
        self.num_heads, self.frame = num_heads, rows * columns
        width = num_heads * head_dim
        self.scale = head_dim**-0.5
        self.null_k = nn.Parameter(torch.randn(num_heads, 1, head_dim))
        self.null_v = nn.Parameter(torch.randn(num_heads, 1, head_dim))
        self.query = nn.Linear(dim, width, bias=False)
        self.key_value = nn.Linear(dim, 2 * width, bias=False)
        self.talking = nn.Linear(num_heads, num_heads, bias=False)
        self.out = nn.Linear(width, dim, bias=False)
        near = neighbourhood((1, rows, columns), (1, kernel, kernel), (1, 1, 1), causal=False)
        self.register_buffer("places", near.places, persistent=False)
        self.register_buffer("inside", near.inside, persistent=False)

    def forward(self, x: Tensor, context: Tensor, known: Tensor | None = None) -> Tensor:
        """(N, L, D) to the same shape.

        Args:
            x: a beginning, and the first L - 1 tokens of a video. The beginning looks at the whole sketch.
            context: (N, F * rows * columns, D), the sketch.
            known: (N, F * rows * columns) bool, False where there is no sketch. None: everywhere is.
        """
        query = self.scale * rearrange(self.query(x), "n l (h d) -> n h l d", h=self.num_heads)
        key, value = rearrange(self.key_value(context), "n l (part h d) -> part n h l d", part=2, h=self.num_heads)
        key, value = (
            torch.cat((null.expand(len(x), -1, -1, -1), part), dim=2)
            for null, part in ((self.null_k, key), (self.null_v, value))
        )
        known = context.new_ones(context.shape[:2], dtype=torch.bool) if known is None else known
        known = F.pad(known, (1, 0), value=True)  # (N, 1 + S)
        scores = einsum("nhld, nhsd -> nhls", query[:, :, :1], key).masked_fill(~known[:, None, None], -torch.inf)
        beginning = scores.softmax(dim=-1) @ value
        near = self._near(query[:, :, 1:], key, value, known)
        return self.out(rearrange(torch.cat((beginning, near), dim=2), "n h l d -> n l (h d)"))

    def _near(self, query: Tensor, key: Tensor, value: Tensor, known: Tensor) -> Tensor:
        """What tokens of the video, (N, h, L, d), find near their places: (N, h, L, d)."""
        number = torch.arange(query.shape[2], device=query.device) % self.frame
        frames = torch.arange((key.shape[2] - 1) // self.frame, device=query.device)[:, None]
        # (L, F * W), frame by frame, and what stands for nothing first
        places = (self.places[number, None] + frames * self.frame + 1).flatten(1)
        inside = self.inside[number, None].expand(-1, len(frames), -1).flatten(1)
        places, inside = F.pad(places, (1, 0), value=0), F.pad(inside, (1, 0), value=True)
        scores = einsum("nhld, nhlwd -> nhlw", query, key[:, :, places])
        allowed = inside & known[:, places]  # (N, L, 1 + F * W)
        shares = scores.masked_fill(~allowed[:, None], -torch.inf).softmax(dim=-1)
        mixed = einsum("nhlw, gh -> nglw", shares, self.talking.weight)
        return einsum("nhlw, nhlwd -> nhld", mixed, value[:, :, places])


def video_shift(video: Size, from_frame: bool, from_image: bool) -> TokenShift:
    """The first chunks of channels come from the frame before, the row above and the left; a beginning stays as it is.

    Args:
        video: frames, rows and columns.
        from_frame: whether one chunk comes from the frame before.
        from_image: whether two come from the row above and from the left.
    """
    frames, rows, columns = video
    number = torch.arange(frames * rows * columns)
    column, row, frame = number % columns, number // columns % rows, number // (rows * columns)
    steps = [(frame, rows * columns)] * from_frame + [(row, columns), (column, 1)] * from_image
    # Numbers count from the beginning, which is 0 and its own source.
    sources = [F.pad(torch.where(axis > 0, number - step + 1, NOTHING), (1, 0), value=0) for axis, step in steps]
    return TokenShift(torch.stack(sources), num_chunks=len(steps) + 2)


class TextAttention(nn.Module):
    """Attention to words, or to a learned key that stands for none: (N, L, D) to (N, L, D).

    Args:
        dim: D of tokens and of words.
        num_heads, head_dim: of the attention.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        width = num_heads * head_dim
        self.none = nn.Parameter(torch.randn(2, num_heads, 1, head_dim))  # its key and its value
        self.query = nn.Linear(dim, width, bias=False)
        self.key_value = nn.Linear(dim, 2 * width, bias=False)
        self.out = nn.Linear(width, dim)

    def forward(self, x: Tensor, words: Tensor, known: Tensor) -> Tensor:
        """Tokens x (N, L, D) look at words (N, M, D), known (N, M) bool, False where there is none."""
        query = rearrange(self.query(x), "n l (h d) -> n h l d", h=self.num_heads)
        both = rearrange(self.key_value(words), "n m (part h d) -> part n h m d", part=2, h=self.num_heads)
        none = self.none[:, None].expand(-1, len(x), -1, -1, -1).to(both.dtype)
        key, value = torch.cat((none, both), dim=3)
        allowed = F.pad(known, (1, 0), value=True)[:, None, None]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        return self.out(rearrange(attended, "n h l d -> n l (h d)"))


class NUWA(nn.Module):
    """Logits of the next code of a video, after a text and the codes before: an encoder of words, and a decoder.

    Args:
        num_words: of the vocabulary, `PADDING` among them.
        max_words: places of the text.
        num_codes: K of the codebook.
        video: frames, rows and columns of codes.
        kernel: extent of the neighbourhood on each of these axes.
        dilations: distance of its codes on each axis, of the decoder's layers in turn.
        dim, num_heads, head_dim: of encoder and decoder.
        text_depth: layers of the encoder.
        depth: layers of the decoder.
    """

    def __init__(
        self,
        num_words: int,
        max_words: int,
        num_codes: int,
        video: Size,
        kernel: Size,
        dilations: Sequence[Size],
        dim: int,
        num_heads: int,
        head_dim: int,
        text_depth: int,
        depth: int,
    ) -> None:
        super().__init__()
        self.video, self.length, self.num_codes = video, math.prod(video), num_codes
        self.words = nn.Embedding(num_words, dim)
        self.word_positions = nn.Embedding(max_words, dim)
        self.text_encoder = nn.ModuleList(ScaledBlock(dim, num_heads, head_dim, n) for n in range(1, text_depth + 1))
        self.text_norm = nn.LayerNorm(dim)
        self.beginning = nn.Parameter(torch.randn(dim))
        self.codes = nn.Embedding(num_codes, dim)
        self.positions = nn.ParameterList(nn.Parameter(torch.randn(size, dim)) for size in video)
        shift = video_shift(video, from_frame=video[0] > 1, from_image=True)
        self.blocks = nn.ModuleList()
        for n in range(1, depth + 1):
            near = NearbyAttention(dim, num_heads, head_dim, video, kernel, dilations[(n - 1) % len(dilations)])
            text = TextAttention(dim, num_heads, head_dim)
            block = {
                "near": ScaledBranch(dim, near, n, sandwiched=True, shift=shift),
                "text": ScaledBranch(dim, text, n, sandwiched=True),
                "feed_forward": ScaledBranch(dim, GatedFeedForward(dim), n, sandwiched=True, shift=shift),
            }
            self.blocks.append(nn.ModuleDict(block))
        self.norm = nn.LayerNorm(dim)
        self.logits = nn.Linear(dim, num_codes)

    def encoded(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Texts (N, M) int64 to words (N, M, dim) and which there are, (N, M) bool; there may be none."""
        known = text != PADDING
        x = self.words(text) + self.word_positions.weight[: text.shape[1]]
        # Where there is none, padding sees itself, which the decoder never does.
        seen = known | ~known.any(dim=1, keepdim=True)
        for block in self.text_encoder:
            x = block(x, seen[:, None, None])
        return self.text_norm(x), known

    def embedded_codes(self, codes: Tensor, start: int) -> Tensor:
        """Codes (N, L) int64, of which the first has the number `start` in the video, to (N, L, dim)."""
        frames, rows, columns = self.positions
        places = frames[:, None, None] + rows[:, None] + columns
        return self.codes(codes) + places.flatten(0, 2)[start : start + codes.shape[1]]

    def first(self, count: int) -> Tensor:
        """The beginning of so many sequences, (N, 1, dim)."""
        return self.beginning.expand(count, 1, -1)

    def memory(self) -> Memory:
        """An empty one, with room for a whole sequence."""
        return Memory.empty(len(self.blocks), self.length)

    def read(self, x: Tensor, words: Tensor, known: Tensor, memory: Memory | None = None) -> Tensor:
        """Logits of what follows embedded tokens x (N, L, dim), which go on behind those that `memory` knows.

        Args:
            x: (N, L, dim).
            words, known: as `encoded` gives them.
            memory: of the tokens before; is extended by x.

        Returns:
            (N, L, num_codes).
        """
        for number, block in enumerate(self.blocks):
            cache, (before, then) = (memory.attention[number], memory.shifts[number]) if memory else (None, (None,) * 2)
            x = block["near"](x, before, cache=cache)
            x = block["text"](x, words=words, known=known)
            x = block["feed_forward"](x, then)
        return self.logits(self.norm(x))

    def forward(self, text: Tensor, codes: Tensor) -> Tensor:
        """Logits of every code, and of the next one where there is one.

        Args:
            text: (N, max_words) int64, `PADDING` behind.
            codes: (N, M) int64, frame by frame and row by row.

        Returns:
            (N, min(M + 1, frames * rows * columns), num_codes).
        """
        told = self.embedded_codes(codes[:, : self.length - 1], 0)
        return self.read(torch.cat((self.first(len(text)), told), dim=1), *self.encoded(text))

    def sample(self, text: Tensor, uniform: Tensor, temperature: float, top_k: int | None, guidance: float) -> Tensor:
        """Codes of a video for each text, (N, frames, rows, columns) int64.

        Args:
            text: (N, max_words) int64, `PADDING` behind.
            uniform: (N, frames * rows * columns) in [0, 1), for the draws.
            temperature: that logits are divided by.
            top_k: so many of the likeliest codes may be drawn; None: all.
            guidance: how far to go from what is told without a text to what is told with it; 1: there.
        """
        copies = 1 if guidance == 1 else 2
        rows = text if guidance == 1 else torch.cat((text, torch.full_like(text, PADDING)))
        words, known = self.encoded(rows)
        memory, codes, x = self.memory(), [], self.first(len(rows))
        for place in range(self.length):
            logits = guided(self.read(x, words, known, memory)[:, -1], guidance)
            codes.append(drawn(logits, uniform[:, place], temperature, top_k))
            x = self.embedded_codes(codes[-1][:, None].repeat(copies, 1), place)
        return torch.stack(codes, dim=1).unflatten(1, self.video)
