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
    done: list[Tensor]
    waiting: list[Tensor]
    keys: list[Tensor]

    def __init__(self, extractor: Extractor, draws: int) -> None:
        super().__init__(extractor)
        if draws < 2:
            raise ValueError(
                f"expected at least 2 draws of each prompt for LPIPS diversity, found {draws}: ask for more"
            )
        self.draws = draws
        for state in ("values", "done", "waiting", "keys"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, images: Tensor, batch: Batch) -> None:
        assert self.extractor is not None
        embedding = finite(self.extractor(images)["embedding"], "embeddings for LPIPS diversity")
        self.waiting.append(embedding)
        self.keys.append(prompt_keys(batch["sample"]).to(images.device))
        self._settle()

    def compute(self) -> Score:
        if len(joined(self.keys)):
            self._settle()  # draws that different processes have seen
        done, waiting = (as_strings(joined(keys)) for keys in (self.done, self.keys))
        prompts, counts = np.unique(np.concatenate((done.repeat(self.draws), waiting)), return_counts=True)
        for prompt in np.flatnonzero(counts != self.draws)[:1]:
            raise ValueError(
                f"expected {self.draws} draws of each prompt for LPIPS diversity, found {counts[prompt]} of "
                f"{prompts[prompt].split(bytes(1))[0].decode()}: set `draws` of the metric to the protocol's"
            )
        score = mean_score("LPIPS diversity", joined(self.values))
        return score._replace(count=self.draws * score.count)

    def _settle(self) -> None:
        """Puts a distance in the place of the embeddings of each prompt whose draws are all there."""
        embedding, keys = joined(self.waiting), joined(self.keys)
        _, prompt, counts = np.unique(as_strings(keys), return_inverse=True, return_counts=True)
        for one in np.flatnonzero(counts == self.draws):
            rows = torch.from_numpy(np.flatnonzero(prompt == one)).to(keys.device)
            self.values = [*_listed(self.values), mean_pairwise(embedding[rows])[None]]
            self.done = [*_listed(self.done), keys[rows[:1]]]
        left = torch.from_numpy(np.flatnonzero(counts[prompt] != self.draws)).to(keys.device)
        self.waiting, self.keys = [embedding[left]], [keys[left]]


def _listed(state: list[Tensor] | Tensor) -> list[Tensor]:
    """A list state as a list; torchmetrics makes a tensor of it when it gathers."""
    return [state] if isinstance(state, Tensor) else state


def mean_pairwise(embedding: Tensor) -> Tensor:
    """Mean over pairs of rows of the squared distance of (K, D): () float64."""
    first, second = torch.triu_indices(len(embedding), len(embedding), offset=1)
    distances = [
        (embedding[one] - embedding[two]).double().square().sum() for one, two in zip(first, second, strict=True)
    ]
    return torch.stack(distances).sort().values.mean()  # sorted: the same whatever the order of the draws
