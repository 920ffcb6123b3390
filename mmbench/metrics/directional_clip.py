"""Directional CLIP similarity."""

from torch import Tensor

from mmbench.metrics.base import Batch, SampleMean
from mmbench.metrics.features import Extractor
from mmbench.metrics.sim import cosine


class DirectionalCLIP(SampleMean):
    """Does an edit move an image as its text moves? cos(E(out) - E(in), T(prompt) - T(caption)); in [-1, 1].

    E and T are CLIP's unit embeddings of images and texts, `caption` describes the input and `prompt` what is wanted.
    Source: Gal et al., StyleGAN-NADA, SIGGRAPH 2022, arXiv:2108.00946, equation 3, as a score in Brooks et al.,
    InstructPix2Pix, CVPR 2023, arXiv:2211.09800, section 4.2. It says nothing of how much was edited, or where.

    Where a difference is exactly 0 there is no direction. An image that was not changed counts as 0, neither right nor
    wrong, which is what the published code gives; one whose texts have the same embedding asks for nothing, has no
    value, and is not counted.

    Args:
        extractor: gives `embedding` (N, D) of images and of texts.

    Raises:
        ValueError: on compute, no text differs from the caption of its image, as in tasks that draw from a caption.
    """

    needs = ("image", "caption", "prompt")
    scored = "image whose prompt differs from its caption"
    otherwise = "it is for editing, choose another metric"
    higher_is_better = True

    def __init__(self, extractor: Extractor) -> None:
        super().__init__(extractor)

    def update(self, images: Tensor, batch: Batch) -> None:
        moved = self._embedded(images) - self._embedded(batch["image"])
        wanted = self._embedded(batch["prompt"]) - self._embedded(batch["caption"])
        values = cosine(moved, wanted).masked_fill(~moved.any(dim=1), 0)
        self.record(values, judged=wanted.any(dim=1))

    def _embedded(self, source: Tensor | list[str]) -> Tensor:
        assert self.extractor is not None
        return self.extractor(source)["embedding"].double()
