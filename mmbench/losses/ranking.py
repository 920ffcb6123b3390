"""Losses that put what belongs together before what does not."""

import torch
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


@in_float32
def structured_joint_embedding_loss(image: Tensor, text: Tensor, class_ids: Tensor | None) -> tuple[Tensor, Tensor]:
    """The hinge loss of Reed et al. (https://arxiv.org/abs/1605.05395, equations 3 to 5), over the pairs of a batch.

    Products of pairs are to exceed those of every text of another class with the image, and of every image of another
    class with the text, by 1. Summed over the pairs, divided by N^2, as the authors' code does, whose batches have
    no class twice. Where the batch is divided among processes, pairs and N are those of the whole batch.

    Args:
        image: (N, D).
        text: (N, D); text n belongs to image n.
        class_ids: (N,); None: each pair is a class of its own.

    Returns:
        The loss of finding each image's text, and of finding each text's image.
    """
    image, text = gathered(image), gathered(text)
    products = image @ text.mT  # (images, texts)
    classes = torch.arange(len(image), device=image.device) if class_ids is None else gathered(class_ids)
    apart = classes[:, None] != classes[None]
    own = products.diagonal()
    excess_of_texts = (1 + products - own[:, None]).relu() * apart
    excess_of_images = (1 + products - own[None]).relu() * apart
    return excess_of_texts.mean(), excess_of_images.mean()
