"""sim, the other half of manipulative precision."""

from torch import Tensor

from mmbench.metrics.base import Batch, SampleMean, row_sums
from mmbench.metrics.features import Extractor


class Sim(SampleMean):
    """Cosine similarity of a generated image and the text it is to follow, in [-1, 1].

    Source: Li et al., ManiGAN, CVPR 2020, arXiv:1912.06203, section 4, with the authors' own text and image encoders;
    here with the encoders of the extractor, whose name is part of the metric's.

    Args:
        extractor: gives `embedding` (N, D) of images and of texts.
    """

    needs = ("prompt",)
    higher_is_better = True

    def __init__(self, extractor: Extractor) -> None:
        super().__init__(extractor)

    def update(self, images: Tensor, batch: Batch) -> None:
        self.record(text_image_cosine(self.extractor, images, batch["prompt"]))


def text_image_cosine(extractor: Extractor, images: Tensor, prompts: list[str]) -> Tensor:
    """Cosine of each image with its own text: (N,) float64 in [-1, 1]."""
    return cosine(extractor(images)["embedding"], extractor(prompts)["embedding"])


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of each row of (N, D) with the same row of another: (N,) float64 in [-1, 1]."""
    first, second = first.double(), second.double()
    product, *squares = (row_sums(values) for values in (first * second, first.square(), second.square()))
    return product / (squares[0].sqrt() * squares[1].sqrt())
