"""DISTS."""

import torch
from torch import Tensor

from mmbench.metrics.base import AgainstReal, Batch, levels


class DISTS(AgainstReal):
    """Distance of structure and texture between a generated image and a real one; 0 for an unchanged image.

    The same with the images exchanged, and tolerant of textures that are another sample of the same: of each feature
    only mean, variance and covariance over the whole picture are compared. Averaged over images. Source: Ding et al.,
    TPAMI 2020, arXiv:2004.07728; the formula stands at the network, `mmbench.networks.dists.DISTSVGG`.

    Args:
        extractor: takes pairs of images (N, 2, 3, H, W), since features of a whole batch would fill the memory, and
            gives `distance` (N,).
        against: the batch field to compare with, (N, 3, H, W) float in [-1, 1].
    """

    higher_is_better = False

    def update(self, images: Tensor, batch: Batch) -> None:
        assert self.extractor is not None
        pairs = torch.stack((images, levels(batch[self.against]).to(images.device)), dim=1)
        self.record(self.extractor(pairs)["distance"].double())
