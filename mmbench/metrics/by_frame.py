"""PSNR, SSIM and LPIPS of videos: those of images, frame by frame."""

from typing import ClassVar

from torch import Tensor

from mmbench.metrics.base import Batch, SampleMean, joined, row_means
from mmbench.metrics.batch import CheckedBatch
from mmbench.metrics.features import Extractor
from mmbench.metrics.lpips import LPIPS
from mmbench.metrics.psnr import PSNR
from mmbench.metrics.ssim import SSIM


class ByFrame(SampleMean):
    """An image metric of each frame and the real video's frame at the same time; mean over frames, then over videos.

    All frames count, the first among them, which methods that are given it have for nothing.

    Args:
        extractor: of the image metric; None where it has none.

    Attributes:
        judge: the image metric.
    """

    of = "videos"
    needs = ("video",)
    judge: ClassVar[type[SampleMean]]

    def __init__(self, extractor: Extractor | None = None) -> None:
        super().__init__(extractor)
        given = {} if extractor is None else {"extractor": extractor}
        self.frames = self.judge(against="image", **given)  # type: ignore[call-arg]
        self.least_size = self.frames.least_size

    def update(self, videos: Tensor, batch: Batch) -> None:
        """Takes in generated videos, (N, F, 3, H, W) uint8.

        Raises:
            ValueError: they have another number of frames than the real ones, or another size.
        """
        # One video at a time: features of all frames of a batch would be large.
        for made, true in zip(videos, batch["video"], strict=True):
            self.frames.update(made, CheckedBatch({"image": true}, made))
        values = joined(self.frames.values).unflatten(0, videos.shape[:2])  # (N, F)
        self.frames.reset()
        self.record(row_means(values))


class FramePSNR(ByFrame):
    """`PSNR` by frame, in dB."""

    judge = PSNR
    higher_is_better = PSNR.higher_is_better
    unit = PSNR.unit


class FrameSSIM(ByFrame):
    """`SSIM` by frame."""

    judge = SSIM
    higher_is_better = SSIM.higher_is_better


class FrameLPIPS(ByFrame):
    """`LPIPS` by frame."""

    judge = LPIPS
    higher_is_better = LPIPS.higher_is_better
