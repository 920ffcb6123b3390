"""R-precision."""

import hashlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmbench.core.noise import random_stream
from mmbench.metrics.base import Batch, Metric, Score, finite, joined, mean_score, sample_keys, sample_order
from mmbench.metrics.features import Extractor


class RPrecision(Metric):
    """R-precision with R = 1: how often is an image's own text nearest to it, among texts of other images?

    R-precision = 100 * share of images whose own text has the largest cosine with them among `candidates` texts: their
    own and `candidates` - 1 others; in [0, 100] %, higher is better, 100 / `candidates` by chance. Source: Xu et al.,
    AttnGAN, CVPR 2018, arXiv:1711.10485, section 4.1, with DAMSM's encoders and 100 candidates; the authors released
    no code for it. DAMSM is also a training loss of that family, CLIP is not.

    The pool of candidates: the prompts of all images of this evaluation that differ from the image's own in the batch
    field `apart`, drawn without repetition, by a random stream of the sample's own. Other people draw from all texts
    of the split. A text that equals the image's own is never a mistake.

    Args:
        extractor: gives `embedding` (N, D) of images and of texts.
        candidates: texts that each image is shown, its own included; 100 in the papers.
        apart: the batch field that tells other images: `id`, or `class_id` where texts of one class are too much alike.

    Raises:
        ValueError: on compute, some image has too few others, or a sample came twice.
    """

    higher_is_better = True
    unit = "%"
    images: list[Tensor]
    texts: list[Tensor]
    names: list[Tensor]
    keys: list[Tensor]

    def __init__(self, extractor: Extractor, candidates: int, apart: str) -> None:
        super().__init__(extractor)
        self.candidates = candidates
        self.apart = apart
        self.needs = ("prompt",) if apart == "id" else ("prompt", apart)
        for state in ("images", "texts", "names", "keys"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, images: Tensor, batch: Batch) -> None:
        assert self.extractor is not None
        for state, source in ((self.images, images), (self.texts, batch["prompt"])):
            embedding = finite(self.extractor(source)["embedding"], "embeddings for R-precision")
            state.append(F.normalize(embedding.double(), dim=1))
        names = [
            [_number(group), _number(text)] for group, text in zip(batch[self.apart], batch["prompt"], strict=True)
        ]
        self.names.append(torch.tensor(names, device=images.device))
        self.keys.append(sample_keys(batch["sample"]).to(images.device))

    def compute(self) -> Score:
        images, texts, names, keys = (joined(state) for state in (self.images, self.texts, self.names, self.keys))
        if not len(images):
            return mean_score("R-precision", images)
        order = sample_order(keys, "R-precision")
        # By group, and within one by sample: the others of an image are then all but one stretch.
        order = order[names.cpu()[order, 0].argsort(stable=True)].to(images.device)
        images, texts, names, keys = images[order], texts[order], names[order], keys[order].cpu()
        groups = names[:, 0].contiguous()
        starts = torch.searchsorted(groups, groups).tolist()
        stops = torch.searchsorted(groups, groups, right=True).tolist()
        right = torch.empty(len(images), dtype=torch.float64)
        for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            others = torch.from_numpy(self._others(keys[row], start, stop, len(images))).to(images.device)
            better = texts[others] @ images[row] > texts[row] @ images[row]
            wrong = bool((better & (names[others, 1] != names[row, 1])).any())
            right[order[row]] = 0 if wrong else 100
        return self.averaged(right)

    def _others(self, key: Tensor, start: int, stop: int, count: int) -> np.ndarray:
        """Rows of the texts that an image is shown beside its own."""
        wanted, there = self.candidates - 1, count - (stop - start)
        if there < wanted:
            raise ValueError(
                f"expected at least {wanted} texts of another {self.apart} for R-precision, found {there}: "
                "evaluate more images or ask for fewer candidates"
            )
        stream = random_stream("r_precision", key.numpy().tobytes().hex())
        rows = stream.choice(there, wanted, replace=False)
        return rows + (rows >= start) * (stop - start)


def _number(value: Any) -> int:
    """A number that stands for a class or a text, the same in all processes."""
    return int.from_bytes(hashlib.sha256(str(_plain(value)).encode()).digest()[:8], signed=True)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value
