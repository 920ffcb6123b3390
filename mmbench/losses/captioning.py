"""How likely captions are."""

import torch
from torch import Tensor, distributed

from mmbench.core.processes import divided, summed
from mmbench.losses.precision import in_float32


@in_float32
def caption_negative_log_likelihood(log_probabilities: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Of captions, averaged over the words of all of them, those of all processes.

    Args:
        log_probabilities: (N, T, V), of every word.
        tokens: (N, T) int64, padded at the end.
        lengths: (N,) int64, between 1 and T.
    """
    told = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    loss = -log_probabilities.take_along_dim(tokens[..., None], 2)[..., 0][told].sum()
    share = 1 / distributed.get_world_size() if divided() else 1.0  # DDP averages gradients over processes
    return loss / (share * summed(lengths.sum().float()))


@in_float32
def caption_cross_entropy(logits: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
    """As `caption_negative_log_likelihood`, of logits (N, T, V)."""
    return caption_negative_log_likelihood(logits.log_softmax(dim=2), tokens, lengths)
