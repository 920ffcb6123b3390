"""Total variation."""

import torch
from torch import Tensor

from mmbench.metrics.base import Batch, SampleMean


class TV(SampleMean):
    """Anisotropic total variation per pixel of the generated image, of values in [0, 1]; lower is smoother.

    TV = mean |I(y + 1, x) - I(y, x)| + mean |I(y, x + 1) - I(y, x)|, each mean over channels and over the neighbours
    that exist, then averaged over images; in [0, 2]. Source: Rudin et al., 1992, in the l1 form. Not the TV of PICNet
    and TDANet, which takes the length of the gradient, wraps around at the border and uses levels 0 to 255: that one
    is another metric.
    """

    higher_is_better = False
    least_size = 2  # there are neighbours

    def update(self, images: Tensor, batch: Batch) -> None:
        self.require_size(*images.shape[:-3:-1])
        levels = images.to(torch.int16)
        down, right = (levels.diff(dim=dim).abs() for dim in (2, 3))
        total = sum(one.sum(dim=(1, 2, 3)).double() / one[0].numel() for one in (down, right))
        self.record(total / 255)
