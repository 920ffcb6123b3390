"""Rows that bound every table of videos: a picture that stands still, and the truth. No paper, nothing to train."""

from dataclasses import replace

from torch import Tensor

from mmbench.core.method import Batch, Method
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_TO_VIDEO


class RealVideo(Method):
    """Returns the video that the prompt was written for."""

    task = replace(TEXT_TO_VIDEO, inputs=(TEXT_TO_VIDEO.target, "caption"))

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        return batch[self.task.target]


class FrameCopy(RealVideo):
    """Returns the first frame of that video, as often as it has frames: what a method scores that moves nothing.

    No text-to-video method sees that frame, and no image-to-video method sees more: of the real video nothing else is
    used but its length. The prompt is not read.
    """

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        video = super().generate(batch, noise)
        return video[:, :1].expand_as(video)
