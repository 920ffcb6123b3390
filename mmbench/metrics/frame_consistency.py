"""CLIP frame consistency."""

import torch
from torch import Tensor

from mmbench.metrics.base import Batch, SampleMean, row_means
from mmbench.metrics.features import Extractor
from mmbench.metrics.sim import cosine


class FrameConsistency(SampleMean):
    """Cosine similarity of the CLIP embeddings of consecutive frames, averaged over a video, then over videos.

    Source: Esser et al. (Gen-1), ICCV 2023, arXiv:2302.03011, "frame consistency". Tune-A-Video and its followers
    average over all pairs of frames, which is another number. A video in which nothing moves has 1: read it beside a
    metric of motion, and beside what real videos have.

    Args:
        extractor: gives `embedding` (N, D) of images.
    """

    of = "videos"
    higher_is_better = True

    def __init__(self, extractor: Extractor) -> None:
        super().__init__(extractor)

    def update(self, videos: Tensor, batch: Batch) -> None:
        """Takes in generated videos, (N, F, 3, H, W) uint8.

        Raises:
            ValueError: they have one frame.
        """
        if videos.shape[1] < 2:
            raise ValueError("expected videos of at least 2 frames for frame consistency, found 1: generate more")
        embeddings = self.extractor(videos.flatten(0, 1))["embedding"].unflatten(0, videos.shape[:2])  # (N, F, D)
        self.record(row_means(torch.stack([cosine(frames[:-1], frames[1:]) for frames in embeddings])))
