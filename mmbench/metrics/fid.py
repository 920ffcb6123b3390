"""FID."""

import numpy as np
import torch
from scipy.linalg.lapack import dpstrf
from torch import Tensor

from mmbench.metrics.base import Batch, Metric, Score, finite, joined
from mmbench.metrics.features import Extractor, one_thread

BLOCK = 1024  # rows whose products are added up at a time


class FID(Metric):
    """Fréchet distance between Gaussians fitted to the features of generated and of real images.

    FID = |m - m'|^2 + tr S + tr S' - 2 tr (S S')^(1/2), with means and unbiased covariances over images, from sums in
    float64. Source: Heusel et al., NeurIPS 2017, arXiv:1706.08500, equation 6. `count` is the number of generated
    images; no spread is defined. The features of generated images are kept, as by metrics of both sets, which hold the
    same memory, and added up in an order of their own: the value does not depend on that of the images, on batches or
    on the number of processes, to the bit. Of the real set, which one process sees, sums are kept.

    Args:
        extractor: gives `features` (N, D), and its network says D as `num_features`; for the published metric,
            Inception's pool3 of 2048. FD-DINOv2 is this with DINOv2's ViT-L/14, see `conf/metric/fd_dinov2.yaml`.

    Raises:
        ValueError: the extractor gives no features; on compute, there are fewer than 2 generated or fewer than 2 real
            images.
    """

    needs_reference = True
    higher_is_better = False
    least_count = 2  # of a covariance
    holds = ("features",)
    features: list[Tensor]
    reference_sum: Tensor
    reference_products: Tensor
    reference_count: Tensor

    def __init__(self, extractor: Extractor) -> None:
        super().__init__(extractor)
        dim = extractor.require_features(type(self).__name__)
        self.add_state("features", default=[], dist_reduce_fx="cat")
        self.add_state("reference_sum", torch.zeros(dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("reference_products", torch.zeros(dim, dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("reference_count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, images: Tensor, batch: Batch) -> None:
        self.features.append(self._finite(images))

    def update_reference(self, batch: Batch) -> None:
        features = self._finite(batch["image"])
        _add_up(features, self.reference_sum, self.reference_products)
        self.reference_count.add_(len(features))

    def compute(self) -> Score:
        features = joined(self.features)
        for found, kind in ((len(features), "generated"), (int(self.reference_count), "real")):
            if found < 2:
                raise ValueError(
                    f"expected at least 2 {kind} images for the covariance in FID, found {found}: add {kind} images"
                )
        with one_thread():
            total, products = torch.zeros_like(self.reference_sum), torch.zeros_like(self.reference_products)
            for block in features[_order(features)].split(BLOCK):
                _add_up(block, total, products)
            generated = _gaussian(total, products, len(features))
            real = _gaussian(self.reference_sum, self.reference_products, int(self.reference_count))
            return Score(frechet_distance(*generated, *real), None, len(features))

    def _finite(self, images: Tensor) -> Tensor:
        return finite(self.extractor(images)["features"], "features for FID")


def _order(features: Tensor) -> Tensor:
    """An order of rows (N, D) that depends on nothing but what they are: (N,) int64."""
    rows = np.ascontiguousarray(features.cpu().numpy())
    return torch.from_numpy(np.argsort(rows.view(f"S{rows[0].nbytes}").ravel())).to(features.device)


def _add_up(features: Tensor, total: Tensor, products: Tensor) -> None:
    features = features.double()
    total.add_(features.sum(dim=0))
    products.addmm_(features.T, features)  # in place: 32 MiB for 2048 features


def _gaussian(total: Tensor, products: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D)."""
    mean = total / count
    return mean, (products - count * torch.outer(mean, mean)) / (count - 1)


def frechet_distance(mean_1: Tensor, covariance_1: Tensor, mean_2: Tensor, covariance_2: Tensor) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians: means (D,), covariances (D, D), float64.

    With S = R R^T and S' = R' R'^T the trace of (S S')^(1/2) is the sum of the singular values of R^T R'. R is the
    pivoted Cholesky factor, which has as many columns as S has rank: no root is taken of an eigenvalue that is zero up
    to rounding, as happens when there are fewer images than features, and a set has distance 0 from itself up to
    rounding error.
    """
    product = _root(covariance_1).T @ _root(covariance_2)
    distance = (mean_1 - mean_2).square().sum() + covariance_1.trace() + covariance_2.trace()
    return max(float(distance.cpu() - 2 * _sum_of_singular_values(product)), 0.0)


def _root(covariance: Tensor) -> Tensor:
    """R (D, rank) with R R^T the covariance, on the CPU."""
    factor, order, rank, _ = dpstrf(covariance.cpu().numpy(), lower=1)
    root = np.empty((len(factor), rank))
    root[order - 1] = np.tril(factor)[:, :rank]
    return torch.from_numpy(root)


def _sum_of_singular_values(matrix: Tensor) -> Tensor:
    """Sum of the singular values of (n, m), float64."""
    if matrix.shape[0] == matrix.shape[1] > 0:
        squares = torch.linalg.eigvalsh(matrix.T @ matrix)
        # Four times as fast, and as exact, unless a singular value is below 1e-7 of the largest one.
        if squares[0] > 1e-14 * squares[-1]:
            return squares.sqrt().sum()
    return torch.linalg.svdvals(matrix).sum()
