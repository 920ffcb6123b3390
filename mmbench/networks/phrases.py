"""Words as vectors that know their neighbours: text encoders of ours, for methods whose paper has none.

What a colour is of stands beside it in a caption. Training that starts from single words finds that out late, and on
small data not at all.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Phrases(nn.Module):
    """Words to vectors, each with what the two before it and the two behind add.

    Args:
        num_words: that there are.
        width: D, size of a vector.
        std: spread of the words' own vectors at the start.
    """

    def __init__(self, num_words: int, width: int, std: float = 1.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_words, width)
        nn.init.normal_(self.embedding.weight, std=std)
        self.neighbours = nn.Conv1d(width, width, 5, padding=2)

    def forward(self, words: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, L) int64 to (N, L, D); where `mask` (N, L) is False there is no word, and zero."""
        vectors = self.embedding(words)
        if mask is not None:
            vectors = vectors * mask[..., None]
        joined = vectors + F.gelu(self.neighbours(vectors.transpose(1, 2))).transpose(1, 2)
        return joined if mask is None else joined * mask[..., None]


class Sentence(nn.Module):
    """Captions to one vector each: the mean of their phrases, read by a linear layer.

    Args:
        num_words: that there are.
        width: of the phrases.
        dim: D, size of a sentence.
    """

    def __init__(self, num_words: int, width: int, dim: int) -> None:
        super().__init__()
        self.phrases = Phrases(num_words, width)
        self.exit = nn.Linear(width, dim)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        """(N, L) int64, of which the first `lengths` (N,) are there, to (N, D)."""
        mask = torch.arange(words.shape[1], device=words.device) < lengths.to(words.device)[:, None]
        return self.exit(self.phrases(words, mask).sum(dim=1) / mask.sum(dim=1, keepdim=True))
