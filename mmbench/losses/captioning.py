"""How likely captions are."""

import torch
import torch.nn.functional as F
from torch import Tensor, distributed

from mmbench.core.processes import divided, summed
from mmbench.losses.precision import in_float32


@in_float32
def caption_cross_entropy(logits: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Cross-entropy of captions, averaged over the words of all of them, those of all processes.

    Args:
        logits: (N, T, V), of every word.
        tokens: (N, T) int64, padded at the end.
        lengths: (N,) int64, between 1 and T.
    """
    told = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    loss = F.cross_entropy(logits[told], tokens[told], reduction="sum")
    share = 1 / distributed.get_world_size() if divided() else 1.0  # DDP averages gradients over processes
    return loss / (share * summed(lengths.sum().float()))
