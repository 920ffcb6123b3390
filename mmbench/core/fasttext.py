"""Word vectors that were trained elsewhere, in fastText's two published formats, and captions as sequences of vectors.

Text (`.vec`), https://fasttext.cc/docs/en/pretrained-vectors.html: a first line of two numbers, how many words and how
many dimensions, then for each word a line of the word and its numbers, separated by single spaces.

Model (`.bin`): the same vectors unrounded, and vectors of runs of letters, of which those of unknown words are made.
https://github.com/facebookresearch/fastText/blob/1142dc4c4ecbc19cc16eee5cdd28472e689267e6/src/fasttext.cc
"""

import mmap
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from mmbench.core.cards import Card, find
from mmbench.core.noise import random_stream
from mmbench.core.text import END, Vocabulary, padded, tokenise


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
        card: of the file, in either format.
        assets: the folder that holds `weights/`.
        dim: numbers of a vector, 300 for the published ones.
    """

    def __init__(self, card: Card, assets: str | Path, dim: int) -> None:
        self.card, self.assets, self.dim = card, assets, dim

    def of(self, words: Iterable[str]) -> dict[str, np.ndarray]:
        wanted = set(words)
        path = find(self.card, self.assets)
        read = read_model_vectors if is_model(path) else read_text_vectors
        found = read(path, wanted, self.dim)
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


MAGIC = 793712314  # what a model begins with, before its version
BEGINNING = struct.Struct("<2i12id 3i2q")  # magic and version, arguments, sizes of the dictionary


def is_model(path: Path) -> bool:
    """Whether a file begins as a model of fastText does."""
    with path.open("rb") as file:
        return file.read(4) == struct.pack("<i", MAGIC)


def read_model_vectors(path: Path, words: set[str], dim: int) -> dict[str, np.ndarray]:
    """Vectors (dim,) float32 of the words by a model (`.bin`): the mean of a word's own and its letters' vectors.

    Words that the model does not list have those of their runs of letters alone, and none where the model has no runs.
    Only the rows that are needed are read of the matrix.

    Raises:
        ValueError: the file is no plain model of this dimension, or ends early.
    """
    model = _opened(path, {word.encode() for word in words}, dim)
    found = {}
    for word in sorted(words):
        rows = [model.own[own]] if (own := word.encode()) in model.own else []
        rows += [model.num_words + fnv1a(run) % model.buckets for run in letter_runs(word, *model.run_lengths)]
        if rows:
            found[word] = model.matrix[rows].mean(axis=0, dtype=np.float64).astype(np.float32)
    return found


def letter_runs(word: str, shortest: int, longest: int) -> list[bytes]:
    """Every run of `shortest` to `longest` letters of <word>, but for < and > alone."""
    marked = f"<{word}>"
    return [
        marked[start : start + length].encode()
        for length in range(max(shortest, 1), longest + 1)
        for start in range(len(marked) - length + 1)
        if length > 1 or 0 < start < len(marked) - 1
    ]


def fnv1a(text: bytes) -> int:
    """The 32-bit FNV-1a hash as fastText computes it: its bytes are signed."""
    value = 2166136261
    for byte in text:
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return value


class _Model(NamedTuple):
    own: dict[bytes, int]  # row of each wanted word that the model lists
    num_words: int  # rows of words; those of runs follow
    buckets: int  # rows of runs
    run_lengths: tuple[int, int]
    matrix: np.ndarray


def _opened(path: Path, wanted: set[bytes], dim: int) -> _Model:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if len(content) < BEGINNING.size:
            _ends_early(path)
        beginning = BEGINNING.unpack_from(content)
        version, found_dim, buckets, shortest, longest = (beginning[n] for n in (1, 2, 10, 11, 12))
        size, num_words, _, _, pruned = beginning[15:]
        if version not in (11, 12) or pruned >= 0:
            found = f"version {version}" + (", pruned" if pruned >= 0 else "")
            raise ValueError(
                f"{path}: expected a whole model of version 11 or 12, found {found}: use the published one"
            )
        if found_dim != dim:
            raise ValueError(f"{path}: expected vectors of {dim} numbers, found {found_dim}: use others")
        own, at = _rows(path, content, size, wanted)
        shape, offset = _matrix(path, content, at)
    matrix = np.memmap(path, "<f4", "r", offset, shape)
    own = {word: row for word, row in own.items() if row < num_words}  # what follows are labels
    return _Model(own, num_words, buckets, (shortest, longest), matrix)


def _rows(path: Path, content: mmap.mmap, size: int, wanted: set[bytes]) -> tuple[dict[bytes, int], int]:
    """Place of each wanted word in the dictionary, and where the dictionary ends."""
    own, at = {}, BEGINNING.size
    for number in range(size):
        end = content.find(b"\0", at)
        if end < 0:
            _ends_early(path)
        if (word := content[at:end]) in wanted:
            own[word] = number
        at = end + 1 + 9  # beyond the word's count and kind
    return own, at


def _matrix(path: Path, content: mmap.mmap, at: int) -> tuple[tuple[int, int], int]:
    """Shape of the matrix of vectors that is described at `at`, and where its numbers begin."""
    described = struct.Struct("<?2q")
    if len(content) < at + described.size:
        _ends_early(path)
    quantised, num_rows, num_columns = described.unpack_from(content, at)
    if quantised:
        raise ValueError(f"{path}: expected a plain matrix, found a quantised one: use the published model (.bin)")
    if len(content) < at + described.size + 4 * num_rows * num_columns:
        _ends_early(path)
    return (num_rows, num_columns), at + described.size


def _ends_early(path: Path) -> NoReturn:
    raise ValueError(f"{path}: expected a whole model, found one that ends early: fetch fastText's model (.bin) again")
