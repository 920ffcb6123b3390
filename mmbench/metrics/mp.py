"""Manipulative precision."""

from torch import Tensor

from mmbench.metrics.base import Batch, Metric, Score, finite, joined, mean_score
from mmbench.metrics.features import Extractor
from mmbench.metrics.l1 import mean_absolute_difference
from mmbench.metrics.sim import text_image_cosine


class MP(Metric):
    """Manipulative precision: does the edit follow the text and leave the rest alone?

    MP = (1 - diff) * sim, with diff the mean L1 difference of input and output in [0, 1] and sim the mean cosine of
    output and text; no spread is defined. Source: Li et al., ManiGAN, CVPR 2020, arXiv:1912.06203, equation 8. The
    authors released no code; that the means are multiplied, not each image's two values, is our reading: all printed
    values are the product of their table's means, truncated to three decimals.

    Args:
        extractor: gives `embedding` (N, D) of images and of texts.
    """

    needs = ("image", "prompt")
    higher_is_better = True
    differences: list[Tensor]
    similarities: list[Tensor]

    def __init__(self, extractor: Extractor) -> None:
        super().__init__(extractor)
        self.add_state("differences", default=[], dist_reduce_fx="cat")
        self.add_state("similarities", default=[], dist_reduce_fx="cat")

    def update(self, images: Tensor, batch: Batch) -> None:
        self.differences.append(mean_absolute_difference(images, batch["image"]))
        self.similarities.append(finite(text_image_cosine(self.extractor, images, batch["prompt"]), "MP values"))

    def compute(self) -> Score:
        diff = mean_score("MP", joined(self.differences))
        sim = mean_score("MP", joined(self.similarities))
        return Score((1 - diff.value) * sim.value, None, diff.count)
