"""Token shift: some channels of a token are those of tokens before it, before a layer of a transformer looks at it.

Bo Peng's time-mixing, https://github.com/BlinkDL/RWKV-LM, on maps of tokens as in
https://github.com/lucidrains/DALLE-pytorch/tree/58c1e1a, dalle_pytorch/transformer.py, and
https://github.com/lucidrains/nuwa-pytorch/tree/a3e3a6d, nuwa_pytorch/nuwa_pytorch.py. Not in the papers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NOTHING = -1  # the source of zeros


class History:
    """The last tokens that one shift has seen.

    Attributes:
        size: how many it has seen altogether.
        rows: (N, R, D) of them, the last ones; None before the first.
    """

    def __init__(self) -> None:
        self.size = 0
        self.rows: Tensor | None = None


class TokenShift(nn.Module):
    """The first chunks of a token's channels come from other tokens each, the others stay.

    Args:
        sources: (G, L) int64, for each of the first G chunks and each position the position that it comes from, which
            is none behind it; `NOTHING`: zeros.
        num_chunks: that channels are cut into, of equal size but the last, which may be smaller.
    """

    sources: Tensor

    def __init__(self, sources: Tensor, num_chunks: int) -> None:
        super().__init__()
        self.register_buffer("sources", sources, persistent=False)
        self.num_chunks = num_chunks
        places = torch.arange(sources.shape[1]).expand_as(sources)
        self.reach = int((places - sources)[sources != NOTHING].max())

    def forward(self, x: Tensor, history: History | None = None) -> Tensor:
        """(N, L, D) to the same shape; x goes on behind what `history` has seen, and is remembered there."""
        length, chunk = x.shape[1], -(-x.shape[2] // self.num_chunks)
        start, seen = 0, x
        if history is not None:
            start = history.size
            seen = x if history.rows is None else torch.cat((history.rows, x), dim=1)
            history.size, history.rows = start + length, seen[:, max(0, seen.shape[1] - self.reach) :]
        first = start + length - seen.shape[1]
        sources = self.sources[:, start : start + length]
        places = torch.where(sources == NOTHING, 0, sources - first + 1)
        padded = F.pad(seen, (0, 0, 1, 0))
        parts = [padded[:, place, n * chunk : (n + 1) * chunk] for n, place in enumerate(places)]
        return torch.cat((*parts, x[..., len(parts) * chunk :]), dim=-1)
