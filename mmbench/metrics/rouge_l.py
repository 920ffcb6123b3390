"""ROUGE-L of captions."""

from collections.abc import Sequence

from mmbench.metrics.captions import Captioned, CaptionMetric, Words

BETA = 1.2


class ROUGEL(CaptionMetric):
    """ROUGE-L of each caption, averaged, as COCO's tool computes it; in [0, 1].

    (1 + beta^2) P R / (R + beta^2 P) with beta = 1.2; P is the largest share of the candidate's words that the longest
    common subsequence with a reference has, R the largest share of a reference's words. The two may be of different
    references. A caption without words counts as one empty word. Source: Lin, ACL workshop 2004; code:
    https://github.com/tylin/coco-caption/blob/3a9afb2682141a03e1cdc02b0df6770d2c884f6f/pycocoevalcap/rouge/rouge.py
    """

    def score(self, rows: Sequence[Captioned]) -> tuple[None, list[float]]:
        return None, [rouge_l(row.candidate or ("",), [one or ("",) for one in row.references]) for row in rows]


def rouge_l(candidate: Words, references: Sequence[Words]) -> float:
    """ROUGE-L of one caption; none of them is without words."""
    common = [(longest_common(candidate, reference), len(reference)) for reference in references]
    precision = max(length / len(candidate) for length, _ in common)
    recall = max(length / words for length, words in common)
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common(first: Words, second: Words) -> int:
    """The number of words of the longest sequence that both have in this order, with or without others between."""
    row = [0] * (len(second) + 1)
    for word in first:
        above = row
        row = [0]
        for place, other in enumerate(second):
            row.append(above[place] + 1 if word == other else max(row[place], above[place + 1]))
    return row[-1]
