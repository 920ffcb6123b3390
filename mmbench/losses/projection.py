"""Cross-modal projection: how well images and texts match, by the length of each along the other's direction.

Ying Zhang, Huchuan Lu. Deep Cross-Modal Projection Learning for Image-Text Matching. ECCV 2018. Text n belongs to image
n. Where a batch is divided among processes, pairs are those of the whole batch.
"""

import torch.nn.functional as F
from torch import Tensor

from mmbench.core.processes import gathered
from mmbench.losses.precision import in_float32

EPSILON = 1e-8  # in the place of a logarithm of 0


@in_float32
def projection_matching(image: Tensor, text: Tensor, class_id: Tensor) -> Tensor:
    """CMPM: the divergence of the projections' distribution over a batch from that of what belongs together.

    With p_ij the softmax over j of x_i . z_j / |z_j|, and q_ij the share of j among those of i's class: the mean over i
    of sum_j p_ij log(p_ij / (q_ij + epsilon)), and the same of texts projected onto images.

    Args:
        image: (N, D), x.
        text: (N, D), z.
        class_id: (N,), images and texts of a class belong together.
    """
    image, text, class_id = gathered(image), gathered(text), gathered(class_id)
    same = (class_id[:, None] == class_id[None]).float()
    wanted = (same / same.sum(dim=1, keepdim=True) + EPSILON).log()  # (N, N)
    return _divergence(image @ F.normalize(text).T, wanted) + _divergence(text @ F.normalize(image).T, wanted)


def _divergence(scores: Tensor, wanted: Tensor) -> Tensor:
    """Mean over rows of the divergence of the scores' softmax from a distribution of which the logarithm is given."""
    return F.kl_div(wanted, scores.log_softmax(dim=1), reduction="batchmean", log_target=True)


@in_float32
def projection_classification(image: Tensor, text: Tensor, vectors: Tensor, target: Tensor) -> Tensor:
    """CMPC: cross-entropy of the class of each image projected onto its text, and of each text onto its image.

    Logits are products with one vector of unit length for each class, without bias.

    Args:
        image: (N, D).
        text: (N, D).
        vectors: (K, D), of the classes; only their direction counts.
        target: (N,) int64, rows of `vectors`.
    """
    vectors = F.normalize(vectors)
    onto = (_projected(image, text), _projected(text, image))
    return sum(F.cross_entropy(features @ vectors.T, target) for features in onto)


def _projected(x: Tensor, other: Tensor) -> Tensor:
    """The part of each row of x (N, D) that lies along the same row of the other (N, D)."""
    along = F.normalize(other)
    return (x * along).sum(dim=1, keepdim=True) * along
