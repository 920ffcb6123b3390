"""Embeddings of captions as their authors published them, beside the images that the captions are of.

Reed et al. (ICML 2016) published a file of Torch7 for each image, StackGAN's authors (ICCV 2017) a pickle for each
split, of the same encoder (`mmbench.networks.char_cnn_rnn`): a vector for each of an image's ten captions, in the order
of its file in `text_c10`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mmbench.core.fasttext import SeededVectors
from mmbench.core.pickles import read_arrays, read_list
from mmbench.core.progress import track
from mmbench.core.text import tokenise
from mmbench.core.torch7 import read_t7
from mmbench.data.base import DataModule
from mmbench.data.fields import Item

PICKLE = "char-CNN-RNN-embeddings.pickle"
SPLITS = ("train", "test")
REMEDY = "name the folder of those that were published for this data set as data.module.embeddings"


class Source(Protocol):
    """Published embeddings by the names of images.

    Attributes:
        places: name of an image to the file that its embeddings are in.
    """

    places: dict[str, Path]

    def __getitem__(self, name: str) -> np.ndarray:
        """What is stored for an image: (K, D) for K captions, if it is what it should be."""


class Pickles:
    """StackGAN's: folders, one for each split, with `filenames.pickle` and a pickle of arrays in its order.

    Raises:
        ValueError: a file is missing or damaged, or the two do not fit; names it.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.places: dict[str, Path] = {}
        self._arrays: dict[str, np.ndarray] = {}
        for folder in folders:
            names, arrays = read_list(folder / "filenames.pickle", str), read_arrays(folder / PICKLE)
            if len(names) != len(arrays):
                raise ValueError(
                    f"{folder / PICKLE}: expected embeddings of the {len(names)} images of filenames.pickle, found "
                    f"those of {len(arrays)}: fetch both again"
                )
            self.places |= dict.fromkeys(names, folder / PICKLE)
            self._arrays |= zip(names, arrays, strict=True)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]


class Torch7Files:
    """Reed et al.'s: a file for each image in folders of classes, read when it is wanted."""

    def __init__(self, root: Path) -> None:
        self.places = {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.t7"))}

    def __getitem__(self, name: str) -> np.ndarray:
        content = read_t7(self.places[name])
        found = content.get("txt") if isinstance(content, Mapping) else None
        if not isinstance(found, np.ndarray):
            raise ValueError(f"{self.places[name]}: expected a table with a tensor `txt`, found none: fetch it again")
        return found


class PublishedEmbeddings:
    """The vectors of the captions of images; files are read when something is asked for first.

    Args:
        root: a folder with StackGAN's pickles, or with Reed et al.'s files.
        num_captions: of each image.
    """

    def __init__(self, root: Path, num_captions: int) -> None:
        self.root, self.num_captions = root, num_captions
        self._latest: tuple[str, np.ndarray] | None = None

    @cached_property
    def source(self) -> Source:
        """What is there.

        Raises:
            ValueError: nothing of either kind, or it is damaged.
        """
        folders = [folder for folder in (self.root, *(self.root / split for split in SPLITS)) if holds_pickle(folder)]
        source: Source = Pickles(folders) if folders else Torch7Files(self.root)
        if not source.places:
            raise ValueError(
                f"{self.root}: expected {PICKLE} in it or in its folders {' and '.join(SPLITS)}, or files .t7 of "
                f"images, found neither: {REMEDY}"
            )
        return source

    @cached_property
    def dim(self) -> int:
        """Numbers of a vector, those of the first image's."""
        return self._checked(next(iter(self.source.places)), None).shape[1]

    def known(self, *names: str) -> dict[str, Any]:
        """What a record keeps of an image: its name among those here, and the file of its embeddings.

        Args:
            names: by which it may go, its id first.

        Raises:
            ValueError: it goes by none of them.
        """
        for name in names:
            if name in self.source.places:
                return {"embedded_as": name, "embeddings": self.source.places[name]}
        raise ValueError(
            f"{self.root}: expected embeddings of {names[0]}, found those of {len(self.source.places)} other images: "
            f"{REMEDY}"
        )

    def vector(self, name: str, caption: int) -> Tensor:
        """The embedding of an image's caption of a number: (dim,) float32.

        Raises:
            ValueError: what is stored for the image is damaged, or of another dimension or number of captions.
        """
        if self._latest is None or self._latest[0] != name:
            self._latest = name, self._checked(name, self.dim)
        return torch.tensor(self._latest[1][caption], dtype=torch.float32)

    def _checked(self, name: str, dim: int | None) -> np.ndarray:
        found, wanted = self.source[name], f"{self.num_captions} x {dim or 'D'}"
        alike = found.ndim == 2 and found.dtype.kind == "f" and dim in (None, found.shape[-1])
        if not alike or len(found) != self.num_captions or not np.isfinite(found).all():
            shape = " x ".join(map(str, found.shape))
            raise ValueError(
                f"{self.source.places[name]}: expected embeddings of {name} as {wanted} finite numbers, a row for each "
                f"caption, found {shape} of {found.dtype}: fetch them again"
            )
        return found


def holds_pickle(folder: Path) -> bool:
    """Whether StackGAN's pickle lies in a folder."""
    return (folder / PICKLE).is_file()


class ByText:
    """Published embeddings by the texts of captions, which one encoder has for a text, whatever its image.

    Args:
        published: the embeddings.
        places: a caption's text to the name of an image, and the caption's number.
    """

    def __init__(self, published: PublishedEmbeddings, places: Mapping[str, tuple[str, int]]) -> None:
        self.published, self.places, self.dim = published, places, published.dim

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """N captions to (N, dim) float32.

        Raises:
            ValueError: a text is no caption of the data set.
        """
        if strangers := [text for text in texts if text not in self.places]:
            raise ValueError(
                f"{self.published.root}: expected captions of the data set, whose embeddings were published, found "
                f"{strangers[0]!r}: choose a text encoder for other texts, as method.stages.text_encoder=char_cnn_rnn"
            )
        return torch.stack([self.published.vector(*self.places[text]) for text in texts])


class SeededEmbeddings:
    """The mean of a random vector of each word of a text: stands in for published ones where data are toy data."""

    dim = 64

    def __init__(self) -> None:
        self._vectors: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """N texts to (N, dim) float32.

        Raises:
            ValueError: a text has no word.
        """
        return torch.from_numpy(np.stack([self._mean(text) for text in texts]))

    def _mean(self, text: str) -> np.ndarray:
        words = tokenise(text)
        if not words:
            raise ValueError(f"expected texts of a word or more, found {text!r}: reword it")
        self._vectors |= SeededVectors(self.dim).of(word for word in words if word not in self._vectors)
        return np.mean([self._vectors[word] for word in words], axis=0)


class Embedded(DataModule):
    """Comes before the base of a data set whose captions' embeddings were published.

    Args:
        embeddings: the folder of those: StackGAN's pickles, or Reed et al.'s files .t7. None: there are none, and no
            field `text_embedding`.
        common: as `DataModule`.
    """

    def __init__(self, *, embeddings: str | Path | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.published: PublishedEmbeddings | None = None
        if embeddings is not None:
            self.published = PublishedEmbeddings(Path(embeddings).expanduser(), self.num_captions)
            self.fields |= {"text_embedding"}
            self._makers["text_embedding"] = partial(_text_embedding, published=self.published)

    def embedded(self, *names: str) -> dict[str, Any]:
        """What `Record.extra` has of an image that goes by one of these names, its id first."""
        return self.published.known(*names) if self.published else {}

    def verify(self, full: bool = False) -> dict[str, Any]:
        """As the base, and reads the embeddings of every image.

        Raises:
            ValueError: as the base; or embeddings are damaged, or of another dimension or number of captions.
        """
        if self.published:
            records = [record for found in self.records.values() for record in found]
            for record in track(records, "reading embeddings"):
                self.published.vector(record.extra["embedded_as"], 0)
        return super().verify(full)

    def caption_embeddings(self) -> Callable[[Sequence[str]], Tensor]:
        """The published embeddings of the data set's captions, by their texts, as `ByText`.

        Raises:
            ValueError: none are named.
        """
        if not self.published:
            return super().caption_embeddings()
        places = {
            text: (record.extra["embedded_as"], number)
            for records in self.records.values()
            for record in records
            for number, text in enumerate(record.captions)
        }
        return ByText(self.published, places)


def _text_embedding(item: Item, published: PublishedEmbeddings) -> Tensor:
    return published.vector(item.record.extra["embedded_as"], item.caption)
