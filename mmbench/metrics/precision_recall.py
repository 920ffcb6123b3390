"""Improved precision and recall."""

import torch
from torch import Tensor

from mmbench.metrics.base import Score
from mmbench.metrics.feature_sets import FeatureSets
from mmbench.metrics.features import Extractor

BLOCK = 1024  # images of each kind that are compared at a time
# Equal distances come out equal up to float64's rounding, which depends on where in a block a pair stands.
ROUNDING = 1e-9


class Neighbourhoods(FeatureSets):
    """What precision and recall share, and density and coverage.

    Args:
        extractor: gives `features` (N, D).
        neighbours: k, 3 in the paper.
    """

    higher_is_better = True

    def __init__(self, extractor: Extractor, neighbours: int) -> None:
        super().__init__(extractor)
        self.neighbours = neighbours

    @property
    def least_count(self) -> int:
        return self.neighbours + 1

    def sets(self) -> tuple[Tensor, Tensor]:
        """Features of the generated and of the real images."""
        return self.generated(self.neighbours + 1), self.real(self.neighbours + 1)


class Precision(Neighbourhoods):
    """Improved precision: the share of generated images that lie among the real ones; in [0, 1], higher is better.

    An image lies among others if it is, for at least one of them, no farther than this one's k-th nearest neighbour
    among them (Euclidean distance of features; an image is not its own neighbour). Source: Kynkäänniemi et al.,
    NeurIPS 2019, arXiv:1904.06991, equations 1 and 2, which looks through VGG-16; with Inception's features and k = 3
    the value is torch-fidelity's. Distances are taken in float64 and block by block. No spread is defined.

    Raises:
        ValueError: on compute, there are fewer than k + 1 generated or real images, or an image came twice.
    """

    name = "precision"

    def compute(self) -> Score:
        generated, real = self.sets()
        return Score(share_among(generated, real, self.neighbours), None, len(generated))


class Recall(Neighbourhoods):
    """Improved recall: the share of real images that lie among the generated ones; in [0, 1], higher is better.

    As `Precision`, with the two sets exchanged; `count` is the number of generated images.

    Raises:
        ValueError: as `Precision`.
    """

    name = "recall"

    def compute(self) -> Score:
        generated, real = self.sets()
        return Score(share_among(real, generated, self.neighbours), None, len(generated))


def share_among(points: Tensor, centres: Tensor, neighbours: int) -> float:
    """The share of points (N, D) within the radius of some centre (M, D): its distance to its k-th neighbour."""
    radii = squared_radii(centres, neighbours) * (1 + ROUNDING)
    within = 0
    for part in points.split(BLOCK):
        found = torch.zeros(len(part), dtype=torch.bool, device=part.device)
        for others, radius in zip(centres.split(BLOCK), radii.split(BLOCK), strict=True):
            found |= (squared_distances(part, others) <= radius).any(dim=1)
        within += int(found.sum())
    return within / len(points)


def squared_radii(features: Tensor, neighbours: int) -> Tensor:
    """Squared distance of each image to its k-th nearest neighbour among the others: (N,) float64."""
    radii = []
    for part in features.split(BLOCK):
        nearest = torch.empty(len(part), 0, dtype=torch.float64, device=part.device)
        for others in features.split(BLOCK):
            nearest = torch.cat((nearest, squared_distances(part, others)), dim=1)
            # One more than k: an image's nearest is itself.
            nearest = nearest.topk(min(neighbours + 1, nearest.shape[1]), dim=1, largest=False).values
        radii.append(nearest.amax(dim=1))
    return torch.cat(radii)


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """(N, D) and (M, D) to (N, M) float64."""
    first, second = first.double(), second.double()
    squares = first.square().sum(dim=1)[:, None] + second.square().sum(dim=1)
    return squares.addmm_(first, second.T, alpha=-2).clamp_(min=0)
