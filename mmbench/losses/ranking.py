"""Losses that put what belongs together before what does not."""

import torch.nn.functional as F
from torch import Tensor

from mmbench.core.processes import gathered
from mmbench.losses.precision import in_float32


@in_float32
def pairwise_ranking_loss(image: Tensor, text: Tensor, margin: float) -> Tensor:
    """The hinge loss of visual-semantic embeddings (Kiros et al., https://arxiv.org/abs/1411.2539, section 2.2).

    Cosines of pairs are to exceed those of every other text with the image, and of every other image with the text, by
    the margin. Summed over the pairs that do not belong together, divided by N; 0 for a batch of one. Where the batch
    is divided among processes, pairs and N are those of the whole batch.

    Args:
        image: (N, D), of any length.
        text: (N, D); text n belongs to image n.
        margin: in units of the cosine.
    """
    image, text = gathered(image), gathered(text)
    cosines = F.normalize(image, dim=1) @ F.normalize(text, dim=1).mT  # (images, texts)
    own = cosines.diagonal()
    excess = (margin - own[:, None] + cosines).relu() + (margin - own[None] + cosines).relu()
    return (excess.sum() - excess.trace()) / len(image)
