"""CIDEr and CIDEr-D of captions."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mmbench.metrics.captions import Captioned, CaptionMetric, Words, ngrams

ORDERS = 4
SIGMA = 6.0
Weights = list[dict[Words, float]]  # of sequences of 1, 2, 3 and 4 words


class CIDEr(CaptionMetric):
    """CIDEr of each caption as first published, averaged; from 0 to 10. What COCO's tool calls CIDEr is `CIDErD`.

    10 times the mean, over references and n = 1..4, of the cosine of the weights of candidate and reference. The weight
    of a sequence of n words is how often it is there, times log(images / images of which a reference has it). The
    images are those that are evaluated, so that a score is of a set: of one image alone it is 0. Words are not
    stemmed, which the paper does and its code does not. Source: Vedantam et al., CVPR 2015, arXiv:1411.5726, equations
    1 to 3; code: https://github.com/ruotianluo/cider/tree/dbb3960, pyciderevalcap/cider.
    """

    def score(self, rows: Sequence[Captioned]) -> tuple[None, list[float]]:
        images = len(rows)
        return None, self.against(rows, document_frequencies(row.references for row in rows), images)

    def against(self, rows: Iterable[Captioned], frequencies: Mapping[Words, int], images: int) -> list[float]:
        """The score of each caption.

        Args:
            rows: the captions.
            frequencies: sequence of words to the number of images that have it in a reference.
            images: of how many images they are; the evaluated ones, or those of training where it is a reward.
        """
        found = []
        for row in rows:
            candidate = weights(row.candidate, frequencies, images)
            apart = [len(row.candidate) - len(reference) for reference in row.references]
            references = [weights(reference, frequencies, images) for reference in row.references]
            alike = [self.alike(candidate, *pair) for pair in zip(references, apart, strict=True)]
            found.append(10 * sum(alike) / len(alike))
        return found

    def alike(self, candidate: Weights, reference: Weights, apart: int) -> float:
        """How alike a candidate and a reference are, in [0, 1]; the candidate is longer by `apart` words."""
        return sum(map(cosine, candidate, reference)) / ORDERS


class CIDErD(CIDEr):
    """CIDEr-D of each caption, averaged; from 0 to 10. The "CIDEr" of captioning papers and of COCO's server.

    As `CIDEr`, but a sequence of words counts no more often than the reference has it, and the cosine is multiplied by
    exp(-d^2 / (2 * 6^2)), d the difference of the numbers of words. Source: Vedantam et al., CVPR 2015,
    arXiv:1411.5726, section 6; code:
    https://github.com/tylin/coco-caption/blob/3a9afb2682141a03e1cdc02b0df6770d2c884f6f/pycocoevalcap/cider/cider_scorer.py
    """

    def alike(self, candidate: Weights, reference: Weights, apart: int) -> float:
        clipped = map(cosine_of_clipped, candidate, reference)
        return sum(clipped) * math.exp(-(apart**2) / (2 * SIGMA**2)) / ORDERS


def document_frequencies(images: Iterable[Sequence[Words]]) -> Counter[Words]:
    """Sequence of up to 4 words to the number of images that have it in a reference; each is a list of references."""
    found: Counter[Words] = Counter()
    for references in images:
        found.update(set().union(*(ngrams(reference, ORDERS) for reference in references)))
    return found


def weights(words: Words, frequencies: Mapping[Words, int], images: int) -> Weights:
    """The weight of every sequence of words in a caption; one that no image has counts as one of a single image."""
    found: Weights = [{} for _ in range(ORDERS)]
    for sequence, count in ngrams(words, ORDERS).items():
        rarity = math.log(images) - math.log(max(1, frequencies.get(sequence, 0)))
        found[len(sequence) - 1][sequence] = count * rarity
    return found


def cosine(first: Mapping[Words, float], second: Mapping[Words, float]) -> float:
    """0 where one of them has no length."""
    return _quotient(sum(weight * second.get(words, 0.0) for words, weight in first.items()), first, second)


def cosine_of_clipped(first: Mapping[Words, float], second: Mapping[Words, float]) -> float:
    """As `cosine`, with the first no larger than the second in the product, though not in the lengths."""
    shared = ((weight, second[words]) for words, weight in first.items() if words in second)
    return _quotient(sum(min(pair) * pair[1] for pair in shared), first, second)


def _quotient(product: float, first: Mapping[Words, float], second: Mapping[Words, float]) -> float:
    norms = [math.sqrt(sum(weight**2 for weight in vector.values())) for vector in (first, second)]
    return product / (norms[0] * norms[1]) if all(norms) else product
