"""Structure distance, as PIE-Bench's evaluation computes it, on DINO as its authors published it."""

import torch
from fixture import inputs, state
from torch import Tensor

from mmbench.core.weights import load_strictly
from mmbench.metrics.structure_distance import self_similarity, structure_distance
from mmbench.networks.dino_keys import DINOKeys


def distance(fixture: dict) -> dict[str, Tensor]:
    sizes = {name: fixture["config"][name] for name in ("width", "depth", "heads")}
    network = DINOKeys(white=255, antialias=False, **sizes).eval()
    load_strictly(network.network, state(fixture), fixture["name"])
    given = inputs(fixture)
    pairs = (given["source"], (given["source"] + given["shift"]).clamp(max=255))
    with torch.no_grad():
        source, target = (network(levels.byte().permute(0, 3, 1, 2))["keys"] for levels in pairs)
    return {
        "distance": structure_distance(target, source),
        "keys": source[0],
        "self_similarity": self_similarity(source[0]),
    }


ADAPTERS = {"pie/structure-distance": distance}
