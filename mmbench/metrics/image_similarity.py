"""Similarity of images in a network's features: DINO similarity, CLIP-I."""

from torch import Tensor

from mmbench.metrics.base import AgainstReal, Batch
from mmbench.metrics.features import Extractor
from mmbench.metrics.sim import cosine


class ImageSimilarity(AgainstReal):
    """Cosine of a generated image's features and a real one's, averaged over images; in [-1, 1], 1 for an equal image.

    On DINO's class token it is called DINO, on CLIP's embedding CLIP-I. Source: Ruiz et al., DreamBooth, CVPR 2023,
    arXiv:2208.12242, section 4.2, between generated and real pictures of a subject; tables of editing print it between
    output and input (InstructPix2Pix) or between output and a picture of the wanted result (MagicBrush), which is
    another number: `against` says which. Backbone, resize and crop decide about it, and are in the extractor's name.

    Args:
        extractor: gives `features` (N, D).
        against: the batch field to compare with, (N, 3, H, W) float in [-1, 1].

    Raises:
        ValueError: the extractor gives no features.
    """

    higher_is_better = True

    def __init__(self, extractor: Extractor, against: str) -> None:
        super().__init__(extractor, against=against)
        extractor.require_features("the similarity of images")

    def update(self, images: Tensor, batch: Batch) -> None:
        assert self.extractor is not None
        self.record(cosine(self.extractor(images)["features"], self.extractor(batch[self.against])["features"]))
