"""Losses of images of several sizes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.losses.precision import in_float32


@in_float32
def pyramid_l1(made: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """L1 of images (N, 3, s, s') to those of the same sizes, each a mean over all pixels, summed over the sizes."""
    return torch.stack([F.l1_loss(*pair) for pair in zip(made, real, strict=True)]).sum()
