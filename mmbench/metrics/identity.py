"""Identity: is it still the same person?"""

from torch import Tensor

from mmbench.metrics.base import AgainstReal, Batch
from mmbench.metrics.sim import cosine


class Identity(AgainstReal):
    """Cosine of the face embeddings of a generated image and a real one, in [-1, 1]; 1 for an unchanged image.

    The same with the images exchanged; averaged over images. It is for pictures of one aligned face: nothing is
    detected, so that every picture has a score, one without a face an arbitrary one. Tables of face editing call it ID
    or identity similarity and mostly compute it with ArcFace, whose weights are for research alone; values of different
    face networks are not comparable, and the extractor's name is part of the metric's. It has no toy judge:
    no network was trained to know toy faces again.

    Args:
        extractor: gives `embedding` (N, D) of aligned faces.
        against: the batch field to compare with, (N, 3, H, W) float in [-1, 1].
    """

    higher_is_better = True

    def update(self, images: Tensor, batch: Batch) -> None:
        assert self.extractor is not None
        ours, real = (self.extractor(pictures)["embedding"] for pictures in (images, batch[self.against]))
        self.record(cosine(ours, real))
