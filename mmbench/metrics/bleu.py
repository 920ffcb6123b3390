"""BLEU of captions."""

import math
from collections.abc import Sequence

import numpy as np

from mmbench.metrics.captions import Captioned, CaptionMetric, ngrams

# What keeps the quotients finite; a caption of fewer than n words has a tiny BLEU-n instead of 0.
TINY, SMALL = 1e-15, 1e-9


class BLEU(CaptionMetric):
    """BLEU-n of a whole set of captions, as COCO's tool computes it; in [0, 1], no spread is defined.

    BLEU-n = (product over k = 1..n of p_k)^(1/n) * min(1, exp(1 - r / c)). p_k is the share of the candidates'
    sequences of k words that are in a reference, each counted at most as often as in the reference that has it most;
    c is the number of the candidates' words, and r that of the references: of each image the one whose length is
    nearest to the candidate's, the shorter one in a tie. All are sums over the set: it is not the mean of the images'
    values. Source: Papineni et al., ACL 2002; code with its constants:
    https://github.com/tylin/coco-caption/blob/3a9afb2682141a03e1cdc02b0df6770d2c884f6f/pycocoevalcap/bleu/bleu_scorer.py

    Args:
        order: n, from 1 to 4.
    """

    def __init__(self, order: int) -> None:
        super().__init__()
        self.order = order

    def score(self, rows: Sequence[Captioned]) -> tuple[float, list[float]]:
        counts = np.array([_counts(row, self.order) for row in rows])  # (N, 2 + 2 n) int64
        return _bleu(counts.sum(axis=0)), [_bleu(row) for row in counts]


def _counts(row: Captioned, order: int) -> list[int]:
    """Lengths of candidate and reference; right sequences of 1 to n words; how many there are."""
    words = len(row.candidate)
    nearest = min((abs(len(reference) - words), len(reference)) for reference in row.references)[1]
    most = ngrams(())
    for reference in row.references:
        most |= ngrams(reference, order)
    right = [0] * order
    for sequence, count in (ngrams(row.candidate, order) & most).items():
        right[len(sequence) - 1] += count
    return [words, nearest, *right, *(max(0, words - length) for length in range(order))]


def _bleu(counts: np.ndarray) -> float:
    candidate, reference, *sequences = counts.tolist()
    order = len(sequences) // 2
    product = 1.0
    for right, found in zip(sequences[:order], sequences[order:], strict=True):
        product *= (right + TINY) / (found + SMALL)
    ratio = (candidate + TINY) / (reference + SMALL)
    return product ** (1 / order) * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0)
