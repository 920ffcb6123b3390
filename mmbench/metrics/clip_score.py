"""CLIP score."""

from torch import Tensor

from mmbench.metrics.base import Batch, SampleMean
from mmbench.metrics.features import Extractor
from mmbench.metrics.sim import text_image_cosine


class CLIPScore(SampleMean):
    """CLIP score of a generated image and the text it is to follow: factor * max(cos(image, text), 0), averaged.

    Source: Hessel et al., EMNLP 2021, arXiv:2104.08718, equation 1, where the factor is 2.5; tables of text-to-image
    work mostly print 100 times the cosine. The text is read as it is, without a prefix.

    Args:
        extractor: gives `embedding` (N, D) of images and of texts.
        factor: 100 for [0, 100], 2.5 for Hessel's scale.
    """

    needs = ("prompt",)
    higher_is_better = True

    def __init__(self, extractor: Extractor, factor: float) -> None:
        super().__init__(extractor)
        self.factor = factor

    def update(self, images: Tensor, batch: Batch) -> None:
        self.record(self.factor * text_image_cosine(self.extractor, images, batch["prompt"]).clamp(min=0))
