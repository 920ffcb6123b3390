"""Word vectors that were trained elsewhere: fastText's published text format, and captions as sequences of vectors.

The format is that of https://fasttext.cc/docs/en/pretrained-vectors.html: a first line of two numbers, how many words
and how many dimensions, then for each word a line of the word and its numbers, separated by single spaces.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmbench.core.noise import random_stream
from mmbench.core.text import END, Vocabulary, padded, tokenise
from mmbench.core.weights import Card, find


class WordVectors(ABC):
    """Where vectors of words come from.

    Attributes:
        dim: numbers of a vector.
    """

    dim: int

    @abstractmethod
    def of(self, words: Iterable[str]) -> dict[str, np.ndarray]:
        """Word to its vector (dim,) float32, of those words that have one.

        Raises:
            ValueError: none has, or the vectors cannot be read.
        """


class FastText(WordVectors):
    """Vectors of a published file, of which only the wanted ones are kept in memory.

    Args:
        card: of the file, in the text format (`.vec`).
        assets: the folder that holds `weights/`.
        dim: numbers of a vector, 300 for the published ones.
    """

    def __init__(self, card: Card, assets: str | Path, dim: int) -> None:
        self.card, self.assets, self.dim = card, assets, dim

    def of(self, words: Iterable[str]) -> dict[str, np.ndarray]:
        wanted = set(words)
        path = find(self.card, self.assets)
        found = read_text_vectors(path, wanted, self.dim)
        if not found:
            raise ValueError(
                f"{path}: expected vectors of {len(wanted)} words of the captions, found none: use vectors of the "
                "captions' language"
            )
        return found


class SeededVectors(WordVectors):
    """A random vector for every word, of that word alone: stands in for published ones where data are toy data.

    Args:
        dim: numbers of a vector.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def of(self, words: Iterable[str]) -> dict[str, np.ndarray]:
        return {word: random_stream("word vector", word).standard_normal(self.dim, np.float32) for word in words}


class WordEmbedding(nn.Module):
    """Captions as sequences of fixed word vectors. Nothing of it is trained or saved.

    A word is a lower-cased run of letters and digits (`text.tokenise`); one without a vector is dropped.

    Args:
        vocabulary: the words that captions may have.
        vectors: where their vectors come from.
    """

    table: Tensor

    def __init__(self, vocabulary: Vocabulary, vectors: WordVectors) -> None:
        super().__init__()
        found = vectors.of(vocabulary.words[1:])
        self.known = Vocabulary((END, *found))
        rows = np.stack([np.zeros(vectors.dim, np.float32), *found.values()])  # the first fills up a batch
        self.register_buffer("table", torch.from_numpy(rows), persistent=False)

    def forward(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Vectors (N, L, dim), zero beyond the end of a caption, and numbers of words (N,) int64 on the CPU.

        Raises:
            ValueError: a caption has no word with a vector.
        """
        index = self.known.index
        tokens, lengths = padded([[index[word] for word in tokenise(text) if word in index] for text in captions])
        return self.table[tokens.to(self.table.device)], lengths


def read_text_vectors(path: Path, words: set[str], dim: int) -> dict[str, np.ndarray]:
    """Vectors (dim,) float32 of those of the words that a text file (`.vec`) lists, in the order of the file.

    Reads line by line and keeps the wanted words only, so that memory does not grow with the file.

    Raises:
        ValueError: the file is of another format or dimension, ends early, or the line of a wanted word is damaged.
    """
    remedy = "fetch fastText's text vectors (.vec) again"
    wanted = {word.encode(): word for word in words}
    found: dict[str, np.ndarray] = {}
    with path.open("rb") as file:
        count = _header(path, file.readline(1000), dim)
        line_number = 1
        # Bytes, since some words are spaces of other alphabets, at which Python would split.
        for line_number, line in enumerate(file, 2):
            word, _, numbers = line.partition(b" ")
            if word in wanted and wanted[word] not in found:  # the first is the most frequent spelling
                found[wanted[word]] = _vector(numbers, dim, f"{path}: line {line_number}", remedy)
        if line_number - 1 != count:
            raise ValueError(
                f"{path}: expected {count} words, as its first line says, found {line_number - 1}: {remedy}"
            )
    return found


def _header(path: Path, line: bytes, dim: int) -> int:
    """How many words a text file has, by its first line."""
    numbers = line.split()
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        raise ValueError(
            f"{path}: expected a first line of the number of words and their dimension, found {line[:40]!r}: use "
            "fastText's text vectors (.vec)"
        )
    if int(numbers[1]) != dim:
        raise ValueError(f"{path}: expected vectors of {dim} numbers, found {int(numbers[1])}: use others")
    return int(numbers[0])


def _vector(numbers: bytes, dim: int, place: str, remedy: str) -> np.ndarray:
    try:
        vector = np.array(numbers.split(), dtype=np.float32)
    except ValueError:
        raise ValueError(f"{place}: expected a word and {dim} numbers, found {numbers[:40]!r}: {remedy}") from None
    if len(vector) != dim or not np.isfinite(vector).all():
        raise ValueError(f"{place}: expected a word and {dim} finite numbers, found {len(vector)}: {remedy}")
    return vector
