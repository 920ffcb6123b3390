"""The transformer over tokens of VQGAN, and how it draws maps of them, as large as those of training or larger.

Patrick Esser, Robin Rombach, Björn Ommer. Taming Transformers for High-Resolution Image Synthesis. CVPR 2021.
https://arxiv.org/abs/2012.09841, sections 3.2 and 3.3.
Authors' code: https://github.com/CompVis/taming-transformers/tree/3ba01b2, taming/modules/transformer/mingpt.py,
taming/models/cond_transformer.py and scripts/make_samples.py.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from mmbench.core.images import require_size
from mmbench.core.text import Vocabulary, padded
from mmbench.core.weights import KeyMap
from mmbench.layers.cached_attention import CausalSelfAttention, KeyValueCache, SelfAttention, causal

Caches = Sequence[KeyValueCache]  # one for each layer


class Block(nn.Module):
    """Attention and two linear layers, each behind a normalisation and added to what goes in.

    Args:
        attention: which keeps the shape (N, L, D).
        width: D.
        dropout: share dropped in training of what is added.
    """

    def __init__(self, attention: SelfAttention, width: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = attention
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None, visible: Tensor | None = None) -> Tensor:
        """(N, L, D) to the same shape; `cache` and `visible` as `SelfAttention`."""
        x = x + self.dropout(self.attention(self.norm1(x), cache, visible))
        return x + self.dropout(self.mlp(self.norm2(x)))


class TokenTransformer(nn.Module):
    """Tokens to logits of the token that comes after each.

    Args:
        num_tokens: V, those of conditions among them.
        length: positions that it tells apart.
        width: D.
        num_layers: blocks.
        num_heads: of the attention.
        num_unmasked: the first positions, which see one another and are to be read at once.
        num_outputs: the first tokens, which it gives logits of; None: all.
        dropout: share dropped in training of embeddings and of what blocks add.
        embedding_std, position_std: of tokens and of positions as they start; the authors' by default. Where training
            is short, tokens and positions that differ from the start are told apart sooner.
    """

    attention: ClassVar[type[SelfAttention]] = CausalSelfAttention

    def __init__(
        self,
        num_tokens: int,
        length: int,
        width: int,
        num_layers: int,
        num_heads: int,
        num_unmasked: int = 0,
        num_outputs: int | None = None,
        dropout: float = 0.0,
        embedding_std: float = 0.02,
        position_std: float = 0.0,
    ) -> None:
        super().__init__()
        self.width, self.embedding_std = width, embedding_std
        self.length, self.num_unmasked = length, num_unmasked
        self.embedding = nn.Embedding(num_tokens, width)
        self.position = nn.Parameter(torch.zeros(1, length, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(self.attention(width, num_heads), width, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_outputs or num_tokens, bias=False)
        self.apply(_initialise)
        nn.init.normal_(self.embedding.weight, std=embedding_std)
        nn.init.normal_(self.position, std=position_std)

    def caches(self) -> list[KeyValueCache]:
        """An empty one for each layer."""
        return [KeyValueCache(self.length) for _ in self.blocks]

    def features(self, vectors: Tensor, caches: Caches | None = None) -> Tensor:
        """What the head reads, (N, L, D), of vectors (N, L, D) in the place of embedded tokens.

        Args:
            vectors: behind those that the caches hold.
            caches: are extended by them.

        Raises:
            ValueError: there are more positions than it tells apart.
        """
        before, count = caches[0].size if caches else 0, vectors.shape[1]
        if before + count > self.length:
            raise ValueError(
                f"expected at most {self.length} tokens, conditions among them, found {before + count}: shorten the "
                "condition, or build the transformer with a greater length"
            )
        x = self.dropout(vectors + self.position[:, before : before + count])
        visible = causal(count, before + count, self.num_unmasked, x.device) if self.num_unmasked else None
        for number, block in enumerate(self.blocks):
            x = block(x, caches[number] if caches else None, visible)
        return self.norm(x)

    def forward(self, tokens: Tensor, caches: Caches | None = None) -> Tensor:
        """(N, L) int64 to logits (N, L, V) of what comes after each; `caches` as `features`."""
        return self.head(self.features(self.embedding(tokens), caches))

    def predicted(self, condition: Tensor, tokens: Tensor) -> Tensor:
        """Logits (N, L, V) of each of the tokens (N, L) by those before it and a condition (N, P, D), P at least 1."""
        features = self.features(torch.cat((condition, self.embedding(tokens[:, :-1])), dim=1))
        return self.head(features[:, condition.shape[1] - 1 :])

    def parameter_groups(self) -> list[dict]:
        """For an optimiser: weights of linear layers decay as it says, and nothing else does."""
        decaying = {id(module.weight) for module in self.modules() if isinstance(module, nn.Linear)}
        kept = [parameter for parameter in self.parameters() if id(parameter) not in decaying]
        decayed = [parameter for parameter in self.parameters() if id(parameter) in decaying]
        return [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]


class BidirectionalTransformer(TokenTransformer):
    """Tokens to logits of the token in each place; every position sees every other."""

    attention = SelfAttention


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


# Of the whole checkpoint, or of the transformer alone.
TRANSFORMER = KeyMap(
    drop={
        r"(.*\.)?blocks\.\d+\.attn\.mask": "which positions are seen, a constant",
        r"(first|cond)_stage_model\..*": "the autoencoders, which are stages of their own",
    },
    rename={
        r"(?:transformer\.)?pos_emb": "position",
        r"(?:transformer\.)?tok_emb\.(.*)": r"embedding.\1",
        r"(?:transformer\.)?blocks\.(\d+)\.ln(\d)\.(.*)": r"blocks.\1.norm\2.\3",
        r"(?:transformer\.)?blocks\.(\d+)\.attn\.proj\.(.*)": r"blocks.\1.attention.project.\2",
        r"(?:transformer\.)?blocks\.(\d+)\.attn\.(.*)": r"blocks.\1.attention.\2",
        r"(?:transformer\.)?blocks\.(\d+)\.mlp\.(.*)": r"blocks.\1.mlp.\2",
        r"(?:transformer\.)?ln_f\.(.*)": r"norm.\1",
        r"(?:transformer\.)?head\.(.*)": r"head.\1",
    },
)


class Place(NamedTuple):
    """A place of a map of tokens, and the window in which it is predicted.

    Attributes:
        row, column: of the place in the map.
        top, left: of the window in the map.
        local: places of the window that come before it.
    """

    row: int
    column: int
    top: int
    left: int
    local: int


def places(height: int, width: int, window: int) -> Iterator[Place]:
    """Row by row all places of a map, each in the middle of its window as far as the map's borders let it.

    Args:
        height, width: of the map.
        window: height and width of the windows, those of the maps that the transformer was trained with.

    Raises:
        ValueError: the map is smaller than a window.
    """
    if min(height, width) < window:
        raise ValueError(
            f"expected a map of {window} x {window} tokens at least, the transformer's window, found {height} x "
            f"{width}: ask for a larger image"
        )
    for row in range(height):
        for column in range(width):
            top, left = (
                min(max(place - window // 2, 0), size - window) for place, size in ((row, height), (column, width))
            )
            yield Place(row, column, top, left, (row - top) * window + column - left)


def sampled(
    transformer: TokenTransformer,
    condition: Callable[[int, int], Tensor],
    size: tuple[int, int],
    window: int,
    draw: Callable[[Tensor, int], Tensor],
    cached: bool = True,
) -> Tensor:
    """Maps of tokens (N, *size) int64, drawn row by row, each after the condition and what its window shows.

    While the window stays where it is, as it always does in a map of its size, each token is a pass of one token.

    Args:
        transformer: in evaluation mode.
        condition: from a window's top and left to the vectors (N, P, D) before those of its tokens.
        size: height and width of the maps.
        window: as `places`.
        draw: from logits (N, V) and the number of a place, row by row, to tokens (N,).
        cached: whether keys and values are kept from token to token, or computed anew; the tokens are the same.

    Raises:
        ValueError: as `places`, and as `TokenTransformer.features`.
    """
    first = condition(0, 0)
    tokens = torch.zeros(len(first), *size, dtype=torch.int64, device=first.device)
    caches, before = None, None
    for number, (row, column, top, left, local) in enumerate(places(*size, window)):
        if cached and before == (top, left):
            read = transformer.embedding(tokens.flatten(1)[:, number - 1 : number])
        else:
            caches, before = transformer.caches() if cached else None, (top, left)
            shown = tokens[:, top : top + window, left : left + window].flatten(1)
            read = torch.cat((condition(top, left), transformer.embedding(shown[:, :local])), dim=1)
        features = transformer.features(read, caches)
        tokens[:, row, column] = draw(transformer.head(features[:, -1]), number)
    return tokens


def encoded(pictures: Tensor, first: nn.Module) -> Tensor:
    """Codes (N, h, w) that a first stage makes of pictures (N, ...), in full precision whatever that of training is."""
    with torch.no_grad(), torch.autocast(pictures.device.type, enabled=False):
        return first.encode(pictures)


def codes_of(images: Tensor, first: nn.Module, window: int) -> Tensor:
    """The codes that a transformer is trained with, (N, window^2), of images (N, 3, H, W).

    Args:
        images: in [-1, 1].
        first: with `encode` and `factor`.
        window: as `places`.

    Raises:
        ValueError: the images have other sizes.
    """
    require_size(images, window * first.factor, f"a transformer of {window} x {window} codes")
    return encoded(images, first).flatten(1)


def map_size(image_size: int, factor: int, window: int) -> tuple[int, int]:
    """Height and width of the map of tokens of a square image.

    Args:
        image_size: its height and width.
        factor: by which the first stage makes a map smaller than its image.
        window: as `places`.

    Raises:
        ValueError: the size is no multiple of the factor, or the map is smaller than a window.
    """
    if image_size % factor or image_size < window * factor:
        raise ValueError(
            f"expected an image_size that is a multiple of {factor}, the first stage's stride, and at least "
            f"{window * factor}, the transformer's window, found {image_size}: change it"
        )
    return image_size // factor, image_size // factor


def encoded_words(
    vocabulary: Vocabulary, captions: Sequence[str], max_words: int, streams: Sequence[Generator] | None
) -> Tensor:
    """Captions as (N, max_words) int64, indices of words, filled up with 0.

    Args:
        vocabulary: the words that are known; others are left out.
        captions: N texts.
        max_words: that a caption has room for; as `Vocabulary.encode`.
        streams: which words of a longer one stay, in training; None: the caption itself decides.

    Raises:
        ValueError: a caption has no known word; says which.
    """
    rngs = streams or [None] * len(captions)
    found = [vocabulary.encode(caption, max_words, rng) for caption, rng in zip(captions, rngs, strict=True)]
    tokens, _ = padded(found)
    return F.pad(tokens, (0, max_words - tokens.shape[1]))


def token_cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """Of logits (N, L, V) and tokens (N, L): (N,), the mean over the tokens of each sample."""
    return F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").mean(dim=1)
