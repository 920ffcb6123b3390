"""LPIPS as diversity."""

import numpy as np
import torch
from torch import Tensor

from mmbench.metrics.base import Batch, Metric, Score, as_strings, finite, joined, mean_score, prompt_keys
from mmbench.metrics.features import Extractor


class LPIPSDiversity(Metric):
    """How different the draws of one prompt look: mean LPIPS of all pairs of them, averaged over prompts.

    Diversity = mean over prompts of mean over pairs k < l of LPIPS(draw k, draw l), in [0, inf), higher is more
    diverse, 0 where all draws are one image; `std` is over prompts. LPIPS: Zhang et al., CVPR 2018, arXiv:1801.03924,
    and the distance is the lpips package's; as diversity: Zhu et al., BicycleGAN, NeurIPS 2017, arXiv:1711.11586,
    section 5, which takes pairs at random where this takes all of them. The distance to a reference is another metric.

    Embeddings are large (about 2.5 MiB for 256 x 256 pixels) and are kept only until all draws of a prompt are there:
    feed draws one after another, as an evaluation does, and few are held at a time.

    Args:
        extractor: gives `embedding` (N, D), whose squared Euclidean distance is LPIPS.
        draws: images of each prompt, at least 2.

    Raises:
        ValueError: `draws` is below 2; on compute, a prompt has more or fewer draws, or there is none.
    """

    higher_is_better = True
    values: list[Tensor]
    waiting: list[Tensor]
    keys: list[Tensor]

    def __init__(self, extractor: Extractor, draws: int) -> None:
        super().__init__(extractor)
        if draws < 2:
            raise ValueError(
                f"expected at least 2 draws of each prompt for LPIPS diversity, found {draws}: ask for more"
            )
        self.draws = draws
        for state in ("values", "waiting", "keys"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, images: Tensor, batch: Batch) -> None:
        assert self.extractor is not None
        embedding = finite(self.extractor(images)["embedding"], "embeddings for LPIPS diversity")
        waiting = torch.cat([*self.waiting, embedding])
        keys = torch.cat([*self.keys, prompt_keys(batch["sample"]).to(images.device)])
        values, left = self._complete(waiting, keys)
        self.values.append(values)
        self.waiting, self.keys = [waiting[left]], [keys[left]]

    def compute(self) -> Score:
        keys = joined(self.keys)
        values, left = self._complete(joined(self.waiting), keys) if len(keys) else (joined([]), [])
        if len(left):
            prompt = as_strings(keys[left])[0].split(b"\0")[0].decode()
            found = sum(name == as_strings(keys[left])[0] for name in as_strings(keys[left]))
            raise ValueError(
                f"expected {self.draws} draws of each prompt for LPIPS diversity, found {found} of {prompt}: "
                "set `draws` of the metric to the protocol's"
            )
        every = torch.cat([joined(self.values), values.to(self.device)])
        score = mean_score("LPIPS diversity", every)
        return score._replace(count=self.draws * len(every))

    def _complete(self, embedding: Tensor, keys: Tensor) -> tuple[Tensor, list[int]]:
        """Distances of the prompts whose draws are all there, (P,) float64, and the rows of the others."""
        _, prompt, counts = np.unique(as_strings(keys), return_inverse=True, return_counts=True)
        values = [
            mean_pairwise(embedding[torch.from_numpy(np.flatnonzero(prompt == one))])
            for one in np.flatnonzero(counts == self.draws)
        ]
        left = np.flatnonzero(counts[prompt] != self.draws).tolist()
        return torch.tensor(values, dtype=torch.float64, device=embedding.device), left


def mean_pairwise(embedding: Tensor) -> float:
    """Mean over pairs of rows of the squared distance of (K, D)."""
    first, second = torch.triu_indices(len(embedding), len(embedding), offset=1)
    distances = [
        float((embedding[one] - embedding[two]).double().square().sum()) for one, two in zip(first, second, strict=True)
    ]
    return float(np.mean(np.sort(distances)))  # sorted: the same whatever the order of the draws
