"""The first stage of a generator: a vector becomes features of a small image (AttnGAN, ControlGAN, ManiGAN)."""

from math import log2

import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.layers.gated_convolution import Norm, UpBlock


class FirstStage(nn.Module):
    """From one vector to hidden features, by way of 4x4.

    Args:
        in_features: size of the vector.
        width: channels of the features.
        size: their height and width, 4 times a power of two.
        norm: normalisation where the features are larger than 4x4; the vector is batch-normalised in any case.
    """

    def __init__(self, in_features: int, width: int, size: int, norm: Norm = nn.InstanceNorm2d) -> None:
        super().__init__()
        num_doublings = int(log2(size // 4))
        assert size == 4 * 2**num_doublings, f"not 4 times a power of two: {size}"
        channels = [width * 2**n for n in reversed(range(num_doublings + 1))]
        self.project = nn.Linear(in_features, 2 * 4 * 4 * channels[0], bias=False)
        self.norm = nn.BatchNorm1d(2 * 4 * 4 * channels[0])
        self.upsample = nn.Sequential(*(UpBlock(channels[n], channels[n + 1], norm=norm) for n in range(num_doublings)))

    def forward(self, vector: Tensor) -> Tensor:
        """(N, in_features) to (N, width, size, size)."""
        hidden = F.glu(self.norm(self.project(vector)), dim=1)
        return self.upsample(hidden.unflatten(1, (-1, 4, 4)))
