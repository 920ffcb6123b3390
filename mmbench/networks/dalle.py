"""DALL-E's transformer: one sequence of words and of the codes of an image, told token by token.

Aditya Ramesh et al., Zero-Shot Text-to-Image Generation, ICML 2021, https://arxiv.org/abs/2102.12092. OpenAI released
its autoencoder alone (`mmbench.networks.dalle_vae`); the transformer is that of
https://github.com/lucidrains/DALLE-pytorch/tree/58c1e1a, dalle_pytorch/dalle_pytorch.py and transformer.py.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.categorical import drawn, require_settings
from mmbench.core.weights import KeyMap
from mmbench.layers.scaled_transformer import GatedFeedForward, HeadedAttention, Memory, ScaledBranch
from mmbench.layers.token_shift import NOTHING, TokenShift
from mmbench.networks.clip import AS_VECTOR, block_keys
from mmbench.networks.text_to_codes import PADDING, guided

# From the length of the text with its beginning, T, and the side of the map of codes, S, to which tokens each may look
# at: (T + S * S, T + S * S) bool.
Pattern = Callable[[int, int], Tensor]


def everywhere(text_length: int, side: int) -> Tensor:
    """All tokens before, and itself."""
    length = text_length + side**2
    return torch.ones(length, length, dtype=torch.bool).tril()


def along_rows(text_length: int, side: int) -> Tensor:
    """Codes look at the text, and at those before in their own row."""
    return _limited(text_length, side, lambda rows, columns: rows == 0)


def along_columns(text_length: int, side: int) -> Tensor:
    """Codes look at the text, and at those before in their own column."""
    return _limited(text_length, side, lambda rows, columns: columns == 0)


def nearby(text_length: int, side: int, reach: int = 5) -> Tensor:
    """Codes look at the text, and at a square of so many rows and columns that ends at themselves."""
    return _limited(text_length, side, lambda rows, columns: (rows < reach) & (columns >= 0) & (columns < reach))


def _limited(text_length: int, side: int, near: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """As `everywhere`, of codes those alone that are `near`, by how many rows and columns they stand before."""
    pattern = everywhere(text_length, side)
    place = torch.arange(side**2)
    rows = place[:, None] // side - place // side
    columns = place[:, None] % side - place % side
    pattern[text_length:, text_length:] &= near(rows, columns)
    return pattern


class DALLETransformer(nn.Module):
    """Logits of the next word or code, of a beginning, words, and the codes of an image row by row.

    A padded place of the text has a token of its own for each place, so that nothing is masked.

    Args:
        num_words: of the vocabulary, `PADDING` among them.
        max_words: places of the text.
        num_codes: K of the image's codebook.
        side: codes in a row and in a column of the image.
        dim, depth, num_heads, head_dim: of the transformer.
        patterns: what its layers look at, in turn.
        shifted: whether layers see some channels of neighbours in the place of a token's own.
        sandwiched: whether branches are normalised behind, too.
        stable: whether embeddings learn at a tenth of the rate and outputs are divided by their largest number.
        shared: whether embeddings are rows of the last layer.

    Raises:
        ValueError: channels cannot be cut into four equal parts for the shift.
    """

    rotation: Tensor

    def __init__(
        self,
        num_words: int,
        max_words: int,
        num_codes: int,
        side: int,
        dim: int,
        depth: int,
        num_heads: int,
        head_dim: int,
        patterns: Sequence[Pattern],
        shifted: bool = True,
        sandwiched: bool = False,
        stable: bool = False,
        shared: bool = False,
    ) -> None:
        super().__init__()
        if shifted and dim % 4:
            raise ValueError(f"expected a dim that four parts of the shift share, found {dim}: choose a multiple of 4")
        self.num_words, self.max_words, self.num_codes, self.side = num_words, max_words, num_codes, side
        self.num_text_tokens = num_words + max_words
        self.stable, self.shared = stable, shared
        if not shared:
            self.words = nn.Embedding(self.num_text_tokens, dim)
            self.codes = nn.Embedding(num_codes, dim)
        shift = TokenShift(_sources(max_words + 1, side), num_chunks=4) if shifted else None
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "attention": ScaledBranch(dim, HeadedAttention(dim, num_heads, head_dim), n, sandwiched, shift),
                    "feed_forward": ScaledBranch(dim, GatedFeedForward(dim), n, sandwiched, shift),
                }
            )
            for n in range(1, depth + 1)
        )
        self.norm = nn.LayerNorm(dim)
        self.logits = nn.Linear(dim, self.num_text_tokens + num_codes)
        for number, pattern in enumerate(patterns):
            self.register_buffer(f"pattern{number}", pattern(max_words + 1, side), persistent=False)
        self.num_patterns = len(patterns)
        self.register_buffer("rotation", rotation_table(max_words + 1, side, head_dim), persistent=False)

    def embedded_text(self, text: Tensor) -> Tensor:
        """Words (N, max_words) int64 with `PADDING` behind, and a beginning before them: (N, max_words + 1, dim)."""
        tokens = F.pad(self.word_targets(text), (1, 0), value=PADDING)
        return self._embedded(F.embedding(tokens, self.logits.weight) if self.shared else self.words(tokens))

    def embedded_codes(self, codes: Tensor) -> Tensor:
        """Codes (N, M) int64 to (N, M, dim)."""
        if self.shared:
            return self._embedded(F.embedding(codes + self.num_text_tokens, self.logits.weight))
        return self._embedded(self.codes(codes))

    def _embedded(self, x: Tensor) -> Tensor:
        return 0.1 * x + 0.9 * x.detach() if self.stable else x

    def memory(self) -> Memory:
        """An empty one, with room for a whole sequence."""
        return Memory.empty(len(self.blocks), self.max_words + 1 + self.side**2)

    def read(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        """Embedded tokens (N, L, dim), which go on behind those that `memory` knows, to what tells the next ones."""
        start = 0 if memory is None else memory.size
        stop = start + x.shape[1]
        table = self.rotation[:, start:stop]
        for number, block in enumerate(self.blocks):
            allowed = self.get_buffer(f"pattern{number % self.num_patterns}")[start:stop, :stop]
            cache, (before, then) = (memory.attention[number], memory.shifts[number]) if memory else (None, (None,) * 2)
            x = block["attention"](x, before, allowed=allowed, rotation=lambda part: rotated(part, table), cache=cache)
            x = block["feed_forward"](x, then)
        if self.stable:
            x = x / x.amax(dim=-1, keepdim=True).detach()
        return self.norm(x)

    def text_logits(self, read: Tensor) -> Tensor:
        """What `read` gave of tokens before words, (N, L, dim), to logits of these (N, L, num_words + max_words)."""
        split = self.num_text_tokens
        return F.linear(read, self.logits.weight[:split], self.logits.bias[:split])

    def code_logits(self, read: Tensor) -> Tensor:
        """What `read` gave of tokens before codes, (N, L, dim), to logits of these (N, L, num_codes)."""
        split = self.num_text_tokens
        return F.linear(read, self.logits.weight[split:], self.logits.bias[split:])

    def forward(self, text: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of every word, and of every code.

        Args:
            text: (N, max_words) int64, `PADDING` behind.
            codes: (N, M) int64, row by row, M at most side * side.

        Returns:
            (N, max_words, num_words + max_words), and (N, min(M + 1, side * side), num_codes): those of the next code,
            too, where there is one.
        """
        told = self.embedded_codes(codes[:, : self.side**2 - 1])
        read = self.read(torch.cat((self.embedded_text(text), told), dim=1))
        return self.text_logits(read[:, : self.max_words]), self.code_logits(read[:, self.max_words :])

    def word_targets(self, text: Tensor) -> Tensor:
        """What `text_logits` are to tell of texts (N, max_words): the words, and at padding the token of its place."""
        places = torch.arange(self.num_words, self.num_text_tokens, device=text.device)
        return torch.where(text == PADDING, places, text)

    def sample(self, text: Tensor, uniform: Tensor, temperature: float, top_k: int | None, guidance: float) -> Tensor:
        """Codes of an image for each text, (N, side, side) int64.

        Args:
            text: (N, max_words) int64, `PADDING` behind.
            uniform: (N, side * side) in [0, 1), for the draws.
            temperature: that logits are divided by.
            top_k: so many of the likeliest codes may be drawn; None: all.
            guidance: how far to go from what is told without a text to what is told with it; 1: there.

        Raises:
            ValueError: no such temperature, or more codes than there are.
        """
        require_settings(self.num_codes, temperature, top_k)
        copies = 1 if guidance == 1 else 2
        rows = text if guidance == 1 else torch.cat((text, torch.full_like(text, PADDING)))
        memory, codes, x = self.memory(), [], self.embedded_text(rows)
        for place in range(self.side**2):
            logits = guided(self.code_logits(self.read(x, memory)[:, -1]), guidance)
            codes.append(drawn(logits, uniform[:, place], temperature, top_k))
            x = self.embedded_codes(codes[-1][:, None].repeat(copies, 1))
        return torch.stack(codes, dim=1).unflatten(1, (self.side, self.side))


def _sources(text_length: int, side: int) -> Tensor:
    """Where the first two quarters of channels come from: (2, text_length + side * side).

    Of text from the token before; of codes from the row above, and from the left.
    """
    before = torch.arange(text_length) - 1  # of the first one: NOTHING
    place = torch.arange(side**2)
    above = torch.where(place < side, NOTHING, text_length + place - side)
    left = torch.where(place % side == 0, NOTHING, text_length + place - 1)
    return torch.stack((torch.cat((before, above)), torch.cat((before, left))))


def rotation_table(text_length: int, side: int, head_dim: int) -> Tensor:
    """Cosine and sine of the angles by which neighbouring channels are rotated: (2, text_length + side * side, R / 2).

    A third of them by the place in the text, where all codes are far behind, a third by the row and a third by the
    column, of which text is far outside.
    """
    width = head_dim // 3
    half = width // 2
    by_place = 10000.0 ** -(torch.arange(half) * 2 / width)
    by_line = torch.linspace(1, 5, half) * math.pi
    place = torch.cat((torch.arange(text_length), torch.full((side**2,), 8192))).float()
    line = torch.linspace(-1, 1, side)
    outside = torch.full((text_length,), -10.0)
    row = torch.cat((outside, line.repeat_interleave(side)))
    column = torch.cat((outside, line.repeat(side)))
    # The angles are rounded as theirs are, to float32: of the largest that can be seen.
    angles = torch.cat([place[:, None] * by_place, row[:, None] * by_line, column[:, None] * by_line], dim=1)
    return torch.stack((angles.cos(), angles.sin()))


def rotated(x: Tensor, table: Tensor) -> Tensor:
    """The first R channels of (N, heads, L, D) rotated in neighbouring pairs by a table (2, L, R / 2)."""
    cosine, sine = table.to(x.dtype)
    turning, rest = x.split((2 * cosine.shape[1], x.shape[-1] - 2 * cosine.shape[1]), dim=-1)
    first, second = turning.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    return torch.cat((turned.flatten(-2), rest), dim=-1)


KEYS = KeyMap(
    drop={
        r"vae\..*": "the first stage, which has weights of its own",
        r"(text|image)_emb\.linear\..*": "the last layer again, of which shared embeddings are rows",
        r"transformer\.pos_emb|.*\.mask": "tables, which the network makes itself",
    },
    rename={
        **block_keys("transformer", "blocks"),
        r"to_logits\.0\.(.*)": r"norm.\1",
        r"to_logits\.1\.(.*)": r"logits.\1",
        r"text_emb\.(.*)": r"words.\1",
        r"image_emb\.(.*)": r"codes.\1",
    },
    convert=AS_VECTOR,
)
