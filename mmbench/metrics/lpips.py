"""LPIPS as a distance."""

from torch import Tensor

from mmbench.metrics.base import AgainstReal, Batch, row_sums


class LPIPS(AgainstReal):
    """Learned perceptual distance between a generated image and a real one; 0 for an unchanged image.

    LPIPS = sum over layers of mean over pixels of w . (a - b)^2, with a, b the unit-normalised features of the two
    images and w the learned, non-negative weights of the channels; averaged over images. Source: Zhang et al., CVPR
    2018, arXiv:1801.03924. Diversity (the distance between draws) is another metric.

    Args:
        extractor: gives `embedding` (N, D), whose squared Euclidean distance is LPIPS.
        against: the batch field to compare with, (N, 3, H, W) float in [-1, 1].
    """

    higher_is_better = False

    def update(self, images: Tensor, batch: Batch) -> None:
        self.require_size(*images.shape[:-3:-1])
        generated = self.extractor(images)["embedding"]
        real = self.extractor(batch[self.against])["embedding"]
        self.record(row_sums((generated - real).square()))
