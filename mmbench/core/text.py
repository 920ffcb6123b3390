"""Captions as words and as indices, the way the AttnGAN family reads them."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from mmbench.core.files import sha256_json, write_json
from mmbench.core.noise import random_stream

END = "<end>"  # index 0: ends a caption and fills up a batch


def repaired(caption: str) -> str:
    """A raw caption with its spaces put back: a few of Reed's have two U+FFFD in place of every space."""
    return re.sub("(?:\ufffd\ufffd)+", " ", caption).strip()


def tokenise(caption: str) -> list[str]:
    r"""Words of a caption: lower case, runs of `\w`, each stripped to its ASCII characters, empty ones dropped."""
    words = (word.encode("ascii", "ignore").decode() for word in re.findall(r"\w+", caption.lower()))
    return [word for word in words if word]


@dataclass(frozen=True)
class Vocabulary:
    """The words a text encoder knows.

    There is no token for unknown words: they are dropped, as the authors do. Released encoders fit their authors' order
    of words only (see `core.pickles.read_captions`).

    Attributes:
        words: word of each index; the first is `END`.
        captions_sha256: hash of the captions it was made from (see `captions_hash`); None for an authors' vocabulary.

    Raises:
        ValueError: a word is listed twice or the first is not `END`.
    """

    words: tuple[str, ...]
    captions_sha256: str | None = None

    def __post_init__(self) -> None:
        if self.words[:1] != (END,):
            raise ValueError(f"expected a vocabulary that begins with {END}, found {self.words[:1]}: make it again")
        if len(self.index) != len(self.words):
            raise ValueError(f"expected {len(self.words)} different words, found {len(self.index)}: make it again")

    @cached_property
    def index(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def from_captions(cls, captions: Iterable[str]) -> Self:
        """Every word of the captions, however rare, in alphabetical order."""
        captions = list(captions)
        words = {word for caption in captions for word in tokenise(caption)}
        return cls((END, *sorted(words)), captions_hash(captions))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Reads what `write` wrote.

        Raises:
            ValueError: the file is missing or holds something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(tuple(content["words"]), content["captions_sha256"])
        except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            found = "none" if isinstance(error, FileNotFoundError) else "another file"
            raise ValueError(f"{path}: expected a vocabulary in JSON, found {found}: make it again") from None

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
