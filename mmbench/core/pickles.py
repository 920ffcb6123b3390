"""Authors' pickles that hold plain data, read without running anything.

AttnGAN and its family publish vocabularies, file lists and class numbers as pickles of Python 2 (protocols 0 and 2),
and StackGAN's authors embeddings. A pickle may call any function while it loads; this reader allows lists, dicts,
strings and integers, and in `read_arrays` arrays of NumPy's, which it puts together itself, and refuses the rest.
"""

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np

from mmbench.core.text import END, Vocabulary

Item = TypeVar("Item", str, int)

PLAIN = (list, dict, str, int)


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"the name {module}.{name}")


class _NumberType:
    """NumPy's `dtype` of floating-point numbers as a pickle describes it: its kind first, then its byte order."""

    def __init__(self, kind: str, *_: Any) -> None:
        if kind not in ("f4", "f8"):
            raise pickle.UnpicklingError(f"an array of {kind!r}")
        self.name = f"<{kind}"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.name = f"{state[1]}{self.name[1:]}"


class _Array:
    """NumPy's array as a pickle describes it: a shape, a kind of number, and the bytes of all."""

    content: np.ndarray

    def __init__(self, *_: Any) -> None:
        """Its class, and the shape and kind of an empty one, say nothing."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, numbers = state
        numbers = numbers.encode("latin1") if isinstance(numbers, str) else numbers
        found = np.frombuffer(numbers, kind.name)
        if len(found) != math.prod(shape):
            raise pickle.UnpicklingError(f"{len(found)} numbers for an array of {shape}")
        self.content = found.reshape(shape, order="F" if by_columns else "C").astype(np.float32)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray")):
            return _Array
        if (module, name) == ("numpy", "dtype"):
            return _NumberType
        raise pickle.UnpicklingError(f"the name {module}.{name}")


WANTED = "a pickle of lists, dicts, strings and integers"
REMEDY = "fetch it again from its authors, as a binary file"


def read_plain(path: str | Path) -> Any:
    """Reads a pickle of lists, dicts, strings and integers; strings of Python 2 are taken as Latin-1.

    Raises:
        ValueError: the file is missing, damaged, or holds anything else, which is not run.
    """
    content = _loaded(path, _PlainUnpickler, WANTED)
    if stranger := _stranger(content):
        raise ValueError(f"{path}: expected {WANTED}, found {stranger}: {REMEDY}")
    return content


def read_arrays(path: str | Path) -> list[np.ndarray]:
    """Reads a pickle of a list of NumPy's arrays of floating-point numbers: float32.

    Raises:
        ValueError: the file is missing, damaged, or holds anything else, which is not run.
    """
    wanted = "a pickle of a list of arrays of floating-point numbers"
    content = _loaded(path, _ArrayUnpickler, wanted)
    arrays = content if isinstance(content, list) else [content]
    if stranger := next((item for item in arrays if not isinstance(getattr(item, "content", None), np.ndarray)), None):
        raise ValueError(f"{path}: expected {wanted}, found a value of type {type(stranger).__name__}: {REMEDY}")
    return [array.content for array in arrays] if isinstance(content, list) else list(content.content)


def _loaded(path: str | Path, unpickler: Callable[..., pickle.Unpickler], wanted: str) -> Any:
    try:
        with Path(path).open("rb") as file:
            return unpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        found = "no file"
    except Exception as error:  # a damaged pickle raises whatever its opcodes happen to do
        found = " ".join(str(error).split()) or type(error).__name__
    raise ValueError(f"{path}: expected {wanted}, found {found}: {REMEDY}")


def _stranger(content: Any) -> str | None:
    """What a value holds that is not plain; None if all of it is. Visits shared and circular parts once."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if type(value) not in PLAIN:
            return f"a value of type {type(value).__name__}"
        if isinstance(value, str) and value.endswith("\r"):
            return f"{value!r}, whose line end was converted"
        if isinstance(value, list | dict) and id(value) not in seen:
            seen.add(id(value))
            waiting += value if isinstance(value, list) else [*value.keys(), *value.values()]
    return None


class Captions(NamedTuple):
    """What AttnGAN's `captions.pickle` holds.

    Attributes:
        train, test: captions as word indices, flat: caption k of image i at i * K + k, images in the order of
            `filenames.pickle`.
        vocabulary: the authors' order of words, which their released encoders need.
    """

    train: list[list[int]]
    test: list[list[int]]
    vocabulary: Vocabulary


def read_captions(path: str | Path) -> Captions:
    """Reads AttnGAN's `captions.pickle` (DF-GAN's `captions_DAMSM.pickle`).

    Raises:
        ValueError: the file is no such pickle, is empty, or its parts contradict one another.
    """
    content = read_plain(path)
    problem = _captions_problem(content)
    if problem:
        raise ValueError(
            f"{path}: expected [train captions, test captions, index to word, word to index], found {problem}: "
            "remove it and fetch it from its authors (a wrong data path makes their code write an empty one)"
        )
    train, test, words, _ = content
    return Captions(train, test, Vocabulary(tuple(words[index] for index in range(len(words)))))


def _captions_problem(content: Any) -> str | None:
    if not isinstance(content, list) or [type(part) for part in content] != [list, list, dict, dict]:
        return "other parts"
    train, test, words, indices = content
    if not train and not test:
        return "no captions"
    if set(words) != set(range(len(words))) or words.get(0) != END:
        return f"indices that do not run from 0 ({END}) without gaps"
    if indices != {word: index for index, word in words.items()}:
        return "two tables of words that differ"
    for caption in (*train, *test):
        if not isinstance(caption, list) or not all(type(index) is int and 0 < index < len(words) for index in caption):
            return "a caption that is no list of word indices"
    return None


def read_list(path: str | Path, kind: type[Item]) -> list[Item]:
    """Reads a pickled list of one kind: `filenames.pickle` (str) or `class_info.pickle` (int).

    Raises:
        ValueError: the file holds something else, or nothing.
    """
    content = read_plain(path)
    if not isinstance(content, list) or not content or not all(type(item) is kind for item in content):
        raise ValueError(f"{path}: expected a list of {kind.__name__}, found another or an empty one: fetch it again")
    return content
