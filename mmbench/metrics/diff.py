"""diff, half of manipulative precision."""

from torch import Tensor

from mmbench.metrics.base import Batch, SampleMean
from mmbench.metrics.l1 import mean_absolute_difference


class Diff(SampleMean):
    """How much an edit changed its input: mean |output - input| of values in [0, 1].

    Source: Li et al., ManiGAN, CVPR 2020, arXiv:1912.06203, section 4, "L1 pixel difference between the input image and
    the corresponding modified image". The authors released no code for it; that values are in [0, 1] and that
    differences are averaged over pixels and channels, then over images, is our reading.
    """

    needs = ("image",)
    higher_is_better = False

    def update(self, images: Tensor, batch: Batch) -> None:
        self.record(mean_absolute_difference(images, batch["image"]))
