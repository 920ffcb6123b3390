"""Vendi score."""

import torch
from torch import Tensor

from mmbench.metrics.base import Score
from mmbench.metrics.feature_sets import FeatureSet
from mmbench.metrics.features import Extractor, one_thread

BLOCK = 1024  # rows whose products are added up at a time


class Vendi(FeatureSet):
    """Vendi score: how many different images there are, as it were; from 1 (all alike) to their number.

    exp(-sum_i l_i log l_i) with l_i the eigenvalues of K / n, and K the cosines of the features of n generated images.
    It needs no real set, says nothing of quality, and grows with n: compare it at equal `count`. Source: Friedman and
    Dieng, TMLR 2023, arXiv:2210.02410, definition 3.1 (q = 1). The eigenvalues that are not 0 are those of the D x D
    products of features over images, in float64: n may be large. No spread is defined.

    Args:
        extractor: gives `features` (N, D).

    Raises:
        ValueError: on compute, there are no images, an image came twice, or one has features that are all 0.
    """

    higher_is_better = True
    name = "the Vendi score"

    def __init__(self, extractor: Extractor) -> None:
        super().__init__(extractor)

    def compute(self) -> Score:
        features = self.generated(1)
        return Score(vendi_score(features), None, len(features))


def vendi_score(features: Tensor) -> float:
    """Vendi score of features (N, D) under the cosine kernel.

    Raises:
        ValueError: some are of length 0.
    """
    lengths = torch.cat([part.double().norm(dim=1) for part in features.split(BLOCK)])
    if not lengths.all():
        raise ValueError(
            f"expected features of a length above 0 for the Vendi score, found {int((lengths == 0).sum())} of length "
            "0, which have no cosine: choose another extractor"
        )
    with one_thread():
        products = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64, device=features.device)
        for part, length in zip(features.split(BLOCK), lengths.split(BLOCK), strict=True):
            unit = part.double() / length[:, None]
            products.addmm_(unit.T, unit)
        shares = torch.linalg.eigvalsh(products / len(features))
    shares = shares[shares > 0]  # those that are 0 come out as a little less or more, which adds nothing
    return float((-shares * shares.log()).sum().exp())
