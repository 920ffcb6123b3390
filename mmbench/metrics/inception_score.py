"""Inception score."""

import numpy as np
from torch import Tensor

from mmbench.metrics.base import Batch, Metric, Score, finite, joined, sample_keys, sample_order
from mmbench.metrics.features import Extractor


class InceptionScore(Metric):
    """Inception score: are single images certain and all together diverse, as a classifier sees them?

    IS = exp(mean over images of KL(p(y|x) || p(y))), with p(y) the mean of p(y|x) within a split; `value` is the mean
    over splits and `std` the standard deviation over them (divided by their number). Source: Salimans et al., NeurIPS
    2016, arXiv:1606.03498. Images are sorted by sample, permuted with the seed 2020 and cut into splits as
    torch-fidelity does: the score does not depend on the order in which images arrive.

    Args:
        extractor: gives `logits` (N, K); for the published metric, Inception's 1008 without the bias.
        splits: number of splits; 10 in the papers.

    Raises:
        ValueError: on compute, there are fewer images than splits, or a sample came twice.
    """

    higher_is_better = True
    holds = ("logits",)
    fewer = ", or set protocol.metrics.is.splits=N to fewer (the score is another one then, and is named so)"
    logits: list[Tensor]
    keys: list[Tensor]

    def __init__(self, extractor: Extractor, splits: int) -> None:
        super().__init__(extractor)
        self.splits = splits
        self.add_state("logits", default=[], dist_reduce_fx="cat")
        self.add_state("keys", default=[], dist_reduce_fx="cat")

    @property
    def least_count(self) -> int:
        return self.splits

    def update(self, images: Tensor, batch: Batch) -> None:
        logits = finite(self.extractor(images)["logits"], "logits for IS")
        self.logits.append(logits)
        self.keys.append(sample_keys(batch["sample"]).to(logits.device))

    def compute(self) -> Score:
        logits, keys = joined(self.logits), joined(self.keys)
        if len(logits) < self.splits:
            raise ValueError(
                f"expected at least {self.splits} images, one for each split of IS, found {len(logits)}: "
                "generate more samples or ask for fewer splits"
            )
        return inception_score(logits.cpu()[sample_order(keys, "IS")], self.splits)


def inception_score(logits: Tensor, splits: int) -> Score:
    """Inception score of (N, K) logits in sample order."""
    count = len(logits)
    order = np.random.RandomState(2020).permutation(count)
    scores = []
    for split in range(splits):
        rows = order[split * count // splits : (split + 1) * count // splits]
        chunk = logits[rows].double().log_softmax(dim=1)  # (n, K), a split at a time: float64 is large
        log_marginal = chunk.logsumexp(dim=0) - np.log(len(chunk))  # (K,)
        divergence = (chunk.exp() * (chunk - log_marginal)).sum(dim=1)
        scores.append(float(divergence.mean().exp()))
    return Score(float(np.mean(scores)), float(np.std(scores)), count)
