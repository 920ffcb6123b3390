"""Captions as words, characters and indices, the way each family of text encoders reads them.

The AttnGAN family: `tokenise`, `Vocabulary.encode`. TDANet: `treebank_words`, `Vocabulary.encode_beginning`. The
char-CNN-RNN of Reed et al.: `characters`.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from mmbench.core.files import sha256_json, write_json
from mmbench.core.noise import random_stream

END = "<end>"  # index 0: ends a caption and fills up a batch

# The hyphen is there twice, as theirs is; the second one counts.
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
CHARACTERS = {character: number for number, character in enumerate(ALPHABET, 1)}


def repaired(caption: str) -> str:
    """A raw caption with its spaces put back: a few of Reed's have two U+FFFD in place of every space."""
    return re.sub("(?:\ufffd\ufffd)+", " ", caption).strip()


def tokenise(caption: str) -> list[str]:
    r"""Words of a caption: lower case, runs of `\w`, each stripped to its ASCII characters, empty ones dropped."""
    words = (word.encode("ascii", "ignore").decode() for word in re.findall(r"\w+", caption.lower()))
    return [word for word in words if word]


def treebank_words(caption: str) -> list[str]:
    """Words as NLTK's `word_tokenize` splits the lower-cased caption, each stripped to ASCII, for TDANet.

    `word_tokenize` looks for sentences first with a trained model, which is a download of its own. Here a sentence ends
    at white space after `.`, `!` or `?`: the same for captions of one sentence, and for several but for abbreviations
    and initials within one.
    https://github.com/idealwhite/tdanet/blob/12db2b12f43bf5fca12762c7fa7af5d1895638bf/util/util.py
    """
    sentences = re.split(r"(?<=[.!?])\s+", caption.lower().strip())
    words = (word.encode("ascii", "ignore").decode() for text in sentences for word in _treebank().tokenize(text))
    return [word for word in words if word]


@cache
def _treebank() -> Any:
    from nltk.tokenize import NLTKWordTokenizer  # importing it takes seconds, and most methods need none

    return NLTKWordTokenizer()


def characters(caption: str, length: int = 201) -> list[int]:
    """The first `length` characters as places in `ALPHABET` from 1, filled up with 0: for the char-CNN-RNN.

    A character that is not in the alphabet leaves its place 0; of a non-ASCII one each byte of its UTF-8 does, since
    theirs is Lua. Lower-cased, as the captions that it was trained on are.
    https://github.com/reedscot/icml2016/blob/1d561afb1e635ca8b29a30a7c1634d344398d5fd/txt2img_demo.lua
    """
    places = [CHARACTERS.get(chr(byte), 0) for byte in caption.lower().encode()[:length]]
    return places + [0] * (length - len(places))


@dataclass(frozen=True)
class Vocabulary:
    """The words a text encoder knows.

    There is no token for unknown words: they are dropped, as the authors do. Released encoders fit their authors' order
    of words only (see `core.pickles.read_captions`).

    Attributes:
        words: word of each index; the first is `END`.
        captions_sha256: hash of the captions it was made from (see `captions_hash`); None for an authors' vocabulary.

    Raises:
        ValueError: a word is listed twice, the first is not `END`, or there is no other: an empty vocabulary fits no
            captions, and one that is kept spoils every later run.
    """

    words: tuple[str, ...]
    captions_sha256: str | None = None

    def __post_init__(self) -> None:
        if self.words[:1] != (END,):
            raise ValueError(f"expected a vocabulary that begins with {END}, found {self.words[:1]}: make it again")
        if len(self.index) != len(self.words):
            raise ValueError(f"expected {len(self.words)} different words, found {len(self.index)}: make it again")
        if len(self.words) == 1:
            raise ValueError(f"expected a vocabulary with words, found {END} alone: make it again from captions")

    @cached_property
    def index(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def from_captions(cls, captions: Iterable[str], min_count: int = 1) -> Self:
        """Every word that the captions have at least `min_count` times, in alphabetical order."""
        captions = list(captions)
        counts = Counter(word for caption in captions for word in tokenise(caption))
        words = sorted(word for word, count in counts.items() if count >= min_count)
        return cls((END, *words), captions_hash(captions))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Reads what `write` wrote.

        Raises:
            ValueError: the file is missing or holds something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            words, captions = content["words"], content["captions_sha256"]
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise TypeError("words of another kind")
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            found = "none" if isinstance(error, FileNotFoundError) else "another file"
            raise ValueError(f"{path}: expected a vocabulary in JSON, found {found}: make it again") from None
        return cls(tuple(words), captions)

    def knows(self, caption: str) -> bool:
        """Whether a caption has a word of the vocabulary at all."""
        return any(word in self.index for word in tokenise(caption))

    def require_rows(self, num_rows: int, source: str) -> None:
        """Checks that a word embedding of `num_rows` rows, of the file `source`, has one for each word.

        Raises:
            ValueError: it has another number; gives both.
        """
        if num_rows != len(self):
            raise ValueError(
                f"{source}: expected a word embedding of {len(self)} rows, one for each word of the vocabulary with "
                f"{END}, found {num_rows}: use the captions.pickle that the authors published with these weights"
            )

    def require_same(self, stored: Self, source: str) -> None:
        """Checks that `stored`, the vocabulary that weights were trained with, read from `source`, is this one.

        Raises:
            ValueError: it has other words, or in another order; gives the hashes of both collections of captions.
        """
        if stored.words != self.words:
            raise ValueError(
                f"{source}: expected {len(self)} words, of captions with sha256 {self.captions_sha256}, found "
                f"{len(stored)} words, of other captions with sha256 {stored.captions_sha256}: use the data set that "
                "these weights were trained on, or train again"
            )

    def write(self, path: str | Path) -> None:
        write_json(path, {"words": list(self.words), "captions_sha256": self.captions_sha256})

    def encode(self, caption: str, max_words: int, rng: np.random.Generator | None = None) -> list[int]:
        """Indices of the known words of a caption, at most `max_words` of them; may be empty.

        Of a longer caption the AttnGAN family keeps a random subset of positions in their order, not the beginning.

        Args:
            caption: raw text.
            max_words: WORDS_NUM, e.g. 18 for birds.
            rng: chooses the positions in training; None at evaluation, where the caption itself decides.
        """
        indices = [self.index[word] for word in tokenise(caption) if word in self.index]
        if len(indices) <= max_words:
            return indices
        rng = rng or random_stream("words", caption)
        return [indices[place] for place in sorted(rng.permutation(len(indices))[:max_words].tolist())]

    def first_words(self, captions: Sequence[str], max_words: int) -> tuple[Tensor, Tensor]:
        """The first known words of captions, as `padded` gives them; of longer ones the rest is cut off.

        Raises:
            ValueError: a caption has no known word.
        """
        # None is longer than its letters: all its words are there, in order.
        return padded([self.encode(caption, len(caption))[:max_words] for caption in captions])

    def encode_beginning(self, caption: str, max_words: int) -> tuple[list[int], int]:
        """TDANet's: indices of the first `max_words` known words, and how many known words there are uncut.

        Its length is thus larger than what is left of a longer caption.
        https://github.com/idealwhite/tdanet/blob/12db2b12f43bf5fca12762c7fa7af5d1895638bf/util/util.py

        Args:
            caption: raw text.
            max_words: 128 in the paper's configuration.
        """
        indices = [self.index[word] for word in treebank_words(caption) if word in self.index]
        return indices[:max_words], len(indices)


def padded(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Captions as indices in one tensor: (N, T) int64, filled up with 0, and their lengths (N,) int64.

    Raises:
        ValueError: a caption has no word that the vocabulary knows; says which of the batch.
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    if not lengths.all():
        place = int((lengths == 0).nonzero()[0])
        raise ValueError(f"expected captions of known words, found none in caption {place} of the batch: reword it")
    tokens = torch.zeros(len(sequences), int(lengths.max()), dtype=torch.int64)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[: len(sequence)] = torch.tensor(sequence)
    return tokens, lengths


def captions_hash(captions: Iterable[str]) -> str:
    """SHA-256 of a collection of captions, whatever their order."""
    return sha256_json(sorted(captions))
