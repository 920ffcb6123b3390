"""Motion accuracy: does a video move as its caption says?"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.metrics.base import Batch, SampleMean

Value = TypeVar("Value")

CHANGE = 24  # levels by which a pixel differs from the first frame where something has moved
MIN_PIXELS = 6
STEADY = 0.9  # share of the way that an even motion explains


class MotionAccuracy(SampleMean):
    """Share of videos that move in the captioned direction (within 45 degrees) at the captioned speed; toy data only.

    The speed is right between 1 / 1.5 and 1.5 times that of the word. What moves is one thing before a still
    background (see `velocity`); a video in which nothing moves, or not evenly (a jump, a way there and back), is wrong.

    Args:
        directions: word to (right, down).
        speeds: word to sides of the frame a second, of the shorter side.
    """

    of = "videos"
    needs = ("motion", "frame_rate")
    higher_is_better = True
    tolerance = 1.5

    def __init__(self, directions: Mapping[str, Sequence[float]], speeds: Mapping[str, float]) -> None:
        super().__init__()
        self.directions = {word: torch.tensor(list(way), dtype=torch.float64) for word, way in directions.items()}
        self.speeds = dict(speeds)

    def update(self, videos: Tensor, batch: Batch) -> None:
        """Takes in generated videos, (N, F, 3, H, W) uint8.

        Raises:
            ValueError: the batch names a direction or a speed that the metric does not know.
        """
        right = [
            self._is_right(video, motion, rate)
            for video, motion, rate in zip(videos, batch["motion"], batch["frame_rate"], strict=True)
        ]
        self.record(torch.tensor(right, dtype=torch.float64, device=videos.device))

    def _is_right(self, video: Tensor, motion: Mapping[str, str], frame_rate: float) -> bool:
        way = _known(self.directions, "direction", motion["direction"])
        wanted = _known(self.speeds, "speed", motion["speed"])
        found = velocity(video).cpu() * frame_rate / min(video.shape[-2:])  # sides a second
        speed = float(found.norm())
        along = float(found @ way / way.norm())
        return along > speed * 0.5**0.5 and wanted / self.tolerance <= speed <= wanted * self.tolerance


def _known(words: Mapping[str, Value], what: str, word: str) -> Value:
    if word not in words:
        raise ValueError(f"expected a {what} of {', '.join(words)}, found {word!r}: add it to the metric's YAML")
    return words[word]


def velocity(video: Tensor) -> Tensor:
    """How the one thing that moves before a still background moves, in pixels a frame.

    The way from the first frame to each other one is the shift, by whole pixels, at which the first frame is nearest to
    it (least squares) in the pixels that differ between the two; the velocity is that of the even motion that is
    nearest to these ways. Neither the thing nor the background need be known: where the background is smooth, what is
    around the thing stands for what was under it. In a blurred video a way is
    often mistaken, and the motion then not found: what is counted as right is right, not the other way round.

    Args:
        video: (F, 3, H, W) uint8.

    Returns:
        (2,) float64, right and down; 0 where nothing moves, or not evenly.
    """
    frames = video.double()
    still = frames.new_zeros(2)
    changed = (frames[1:] - frames[0]).abs().amax(dim=1) > CHANGE  # (F - 1, H, W)
    if changed.any(dim=0).sum() < MIN_PIXELS:
        return still
    ways = _shifts(frames[0], frames[1:], changed)  # (F - 1, 2)
    times = torch.arange(1, len(frames), dtype=torch.float64, device=frames.device)
    mean = times @ ways / times.square().sum()
    unexplained = (ways - times[:, None] * mean).square().sum()
    return mean if unexplained <= (1 - STEADY) * ways.square().sum() else still


def _shifts(first: Tensor, others: Tensor, where: Tensor) -> Tensor:
    """At which shift of `first`, its border repeated, each of the others is nearest to it in its pixels `where`.

    For all shifts at once, as sum of w (b(x) - a(x - d))^2 over x = const - 2 (w b * a)(d) + (w * a^2)(d), with
    correlations by Fourier transform.

    Args:
        first: (3, H, W) float64.
        others: (M, 3, H, W) float64.
        where: (M, H, W) bool.

    Returns:
        (M, 2) float64, right and down, of whole numbers.
    """
    height, width = where.shape[1:]
    reach = 3 * max(height, width) // 4
    padded = F.pad(first[None], (reach,) * 4, mode="replicate")
    size = padded.shape[-2:]
    weights = where.double()[:, None]  # (M, 1, H, W)

    def correlated(weighted: Tensor, around: Tensor) -> Tensor:
        """Sum over channels and x of weighted(x) around(x + e): (M, 2 reach + 1, 2 reach + 1)."""
        spectrum = torch.fft.rfft2(around) * torch.fft.rfft2(weighted, s=size).conj()
        return torch.fft.irfft2(spectrum.sum(dim=1), s=size)[:, : 2 * reach + 1, : 2 * reach + 1]

    cost = correlated(weights.expand(-1, 3, -1, -1), padded.square()) - 2 * correlated(weights * others, padded)
    best = cost.flatten(1).argmin(dim=1)
    side = 2 * reach + 1
    return reach - torch.stack((best % side, best // side), dim=1).double()
