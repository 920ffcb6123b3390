"""How well images and captions match: DAMSM's losses over words and sentences, and the word-level correlation.

AttnGAN, https://arxiv.org/abs/1711.10485, section 3.2; gamma1, gamma2 and gamma3 are its smoothing factors. Authors'
code: https://github.com/taoxugit/AttnGAN/blob/0d000e652b407e976cb88fab299e8566f3de8a37/code/miscc/losses.py

Shapes: captions `words` (N, L, D) with `word_mask` (N, L) bool, True at words; image `regions` (N, D, h, w). Whatever
stands at padding has no influence. Caption n belongs to image n. Where a batch is divided among processes, the losses
over all pairs are over those of the whole batch: each process gathers what the others encoded (`core.processes`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, einsum
from torch.linalg import vector_norm

from mmbench.core.processes import gathered, gathered_sequences, own
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real
from mmbench.losses.precision import in_float32
from mmbench.networks.damsm import EncodedImage, EncodedText


def region_attention(words: Tensor, word_mask: Tensor, regions: Tensor, gamma1: float) -> tuple[Tensor, Tensor]:
    """Each word of caption n attends to the regions of image n (equations 7 to 9).

    Returns:
        Region context of every word (N, L, D), and attention (N, L, h, w), which sums to 1 over the regions.
    """
    scores = einsum("nld, ndhw -> nlhw", words, regions).flatten(2)  # (N, L, R)
    attention = _region_weights(scores, word_mask, gamma1)
    context = attention @ regions.flatten(2).mT
    return context, attention.unflatten(2, regions.shape[2:])


@in_float32
def words_loss(
    regions: Tensor,
    words: Tensor,
    word_mask: Tensor,
    class_ids: Tensor | None,
    gamma1: float,
    gamma2: float,
    gamma3: float,
) -> tuple[Tensor, Tensor]:
    """Contrastive loss of all N x N pairs of image and caption, compared word by word (equations 7 to 13).

    A caption's score sums over its words, so longer captions score higher. Equation 10 divides its logarithm by gamma2,
    the code that produced the released weights does not, and neither do we:
    https://github.com/taoxugit/AttnGAN/blob/0d000e652b407e976cb88fab299e8566f3de8a37/code/miscc/losses.py#L108

    Args:
        class_ids: (N,) classes; other images of the same class are no negatives. None: every other image is one.

    Returns:
        Cross-entropy of finding each image's caption, and of finding each caption's image.
    """
    regions, words, word_mask = gathered(regions), gathered_sequences(words), gathered_sequences(word_mask)
    # One product for all pairs: i counts images, n captions.
    scores = einsum("nld, idr -> inlr", words, regions.flatten(2))
    attention = _region_weights(scores, word_mask, gamma1)
    context = einsum("inlr, idr -> inld", attention, regions.flatten(2))
    relevance = _cosine(context, words)  # (images, captions, L)
    return _contrast(gamma3 * _pooled(relevance, word_mask, gamma2), class_ids)


@in_float32
def sentence_loss(
    code: Tensor, sentence: Tensor, class_ids: Tensor | None, gamma3: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Contrastive loss of all N x N pairs of image and caption, compared as a whole.

    Args:
        code: (N, D), images.
        sentence: (N, D), captions.
        class_ids: as for `words_loss`.

    Returns:
        Cross-entropy of finding each image's caption, and of finding each caption's image.
    """
    code, sentence = gathered(code), gathered(sentence)
    return _contrast(gamma3 * _cosine(code[:, None], sentence[None]), class_ids)


@torch.no_grad()
@in_float32
def word_correlation(regions: Tensor, words: Tensor, word_mask: Tensor, gamma1: float, gamma2: float) -> Tensor:
    """Logits (N,) that image n shows what caption n says (ControlGAN, https://arxiv.org/abs/1909.07083).

    Carries no gradient, as in the code that produced the released weights, which rebuilds the probability from plain
    numbers; in a loss it is a constant:
    https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/miscc/losses.py#L268
    The importance that the paper gives each word scales a context vector by a positive number before its cosine is
    taken, which changes nothing, and is left out.
    """
    context, _ = region_attention(words, word_mask, regions, gamma1)
    return _pooled(_cosine(context, words), word_mask, gamma2)


def word_level_term(
    image: EncodedImage, text: EncodedText, mismatched: EncodedText, gamma1: float, gamma2: float
) -> Tensor:
    """The discriminator's word-level term on real images: a number that is logged and carries no gradient.

    The authors compute it at every image size, which takes three passes of the image encoder; ours re-uses the pass
    over the full size, since none of them reaches a parameter.
    https://github.com/mrlibw/ManiGAN/blob/e4afc93d8c77e6bf3830f00b12237f585f329bba/code/miscc/losses.py#L152
    """
    match = word_correlation(image.regions, text.words, text.word_mask, gamma1, gamma2)
    mismatch = word_correlation(image.regions, mismatched.words, mismatched.word_mask, gamma1, gamma2)
    return (cross_entropy_real(match) + cross_entropy_fake(mismatch)) / 2


def row_before(rows: Tensor) -> Tensor:
    """Row n - 1 in the place of row n, the last row in that of the first: each image with the text of another one.

    Where a batch is divided among processes, rows are those of the whole batch.
    """
    return own(gathered(rows).roll(1, dims=0))


def sequence_before(rows: Tensor) -> Tensor:
    """As `row_before`, of (N, L, ...), which zeros fill up to the longest L of all processes."""
    return own(gathered_sequences(rows).roll(1, dims=0))


def _region_weights(scores: Tensor, word_mask: Tensor, gamma1: float) -> Tensor:
    """(..., N, L, R) scores to weights over R; regions first share their attention among the caption's words."""
    shares = scores.masked_fill(~word_mask[..., None], float("-inf")).softmax(dim=-2)
    return (gamma1 * shares).softmax(dim=-1)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine over the last dimension; the product of norms is at least 1e-8."""
    return (a * b).sum(-1) / (vector_norm(a, dim=-1) * vector_norm(b, dim=-1)).clamp(min=1e-8)


def _pooled(relevance: Tensor, word_mask: Tensor, gamma2: float) -> Tensor:
    """log sum exp(gamma2 * relevance) over the words: (..., N, L) to (..., N)."""
    return (gamma2 * relevance).masked_fill(~word_mask, float("-inf")).logsumexp(dim=-1)


def _contrast(scores: Tensor, class_ids: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the diagonal of (images, captions) scores, along captions and along images.

    Scores are of all processes' pairs, classes of this one's.
    """
    target = torch.arange(len(scores), device=scores.device)
    if class_ids is not None:
        class_ids = gathered(class_ids)
        same_class = class_ids[:, None] == class_ids[None]
        scores = scores.masked_fill(same_class & (target[:, None] != target[None]), float("-inf"))
    return F.cross_entropy(scores, target), F.cross_entropy(scores.T, target)
