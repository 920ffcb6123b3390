"""What metrics of captions share: the words of candidates and references, over all processes, each sample once."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import distributed

from mmbench.core.noise import Sample
from mmbench.core.ptb import ptb_words
from mmbench.metrics.base import Batch, Metric, Score

Words = tuple[str, ...]


class Captioned(NamedTuple):
    """A sample's caption and what people wrote of its image, in words.

    Attributes:
        sample: whose they are.
        candidate: the words of the caption; may be none.
        references: the words of each reference, of which there is one at least.
    """

    sample: Sample
    candidate: Words
    references: tuple[Words, ...]


class CaptionMetric(Metric):
    """A score of captions against references, which are the words of `core.ptb.ptb_words`.

    Keeps the words of each sample. `compute` gathers those of all processes and looks at them in the order of samples,
    so that the score depends on no batch, order or number of processes, to the last bit.
    """

    of = "texts"
    needs = ("captions",)
    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Captioned] = []

    def update(self, texts: list[str], batch: Batch) -> None:
        """Takes in N captions, and the `captions` of their images: N lists of texts.

        Raises:
            ValueError: an image has no references; names the sample.
        """
        for sample, text, captions in zip(batch["sample"], texts, batch["captions"], strict=True):
            if not captions:
                raise ValueError(
                    f"expected references for {sample.name}, found none: use data with captions of every image"
                )
            self.rows.append(Captioned(sample, ptb_words(text), tuple(map(ptb_words, captions))))

    def score(self, rows: Sequence[Captioned]) -> tuple[float | None, list[float]]:
        """The score of all rows, and of each alone, in their order; None where the score is their mean."""
        raise NotImplementedError

    def compute(self) -> Score:
        """The score of all captions taken in.

        Raises:
            ValueError: there are none, or a sample came twice.
        """
        rows, name = gathered(self.rows), type(self).__name__
        if not rows:
            raise ValueError(f"expected captions to score by {name}, found none: generate samples first")
        if repeated := len(rows) - len({row.sample for row in rows}):
            raise ValueError(f"expected each sample once for {name}, found {repeated} again: reset the metric")
        order = sorted(range(len(rows)), key=lambda place: rows[place].sample)
        total, values = self.score([rows[place] for place in order])
        if total is not None:
            return Score(total, None, len(rows))
        shown = torch.empty(len(rows), dtype=torch.float64)
        shown[order] = torch.tensor(values, dtype=torch.float64)
        return self.averaged(shown)

    def reset(self) -> None:
        super().reset()
        self.rows = []


def gathered(rows: list[Captioned]) -> list[Captioned]:
    """The rows of all processes, one after the other."""
    shares = [rows]
    if distributed.is_available() and distributed.is_initialized():
        shares *= distributed.get_world_size()
        distributed.all_gather_object(shares, rows)
    return [row for share in shares for row in share]


def ngrams(words: Words, longest: int = 4) -> Counter[Words]:
    """How often each sequence of 1 to `longest` words is in a caption."""
    return Counter(words[start : start + n] for n in range(1, longest + 1) for start in range(len(words) - n + 1))
