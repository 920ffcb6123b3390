"""Faces to embeddings, as facenet-pytorch does."""

import torch
from fixture import inputs, state
from torch import Tensor

from mmbench.core.weights import load_strictly
from mmbench.networks.facenet import FACENET, FaceNet


def embedding(fixture: dict) -> dict[str, Tensor]:
    network = FaceNet().eval()
    load_strictly(network, FACENET(state(fixture), network), fixture["name"])
    with torch.no_grad():
        return {"embedding": network.embedding(inputs(fixture)["image"])}


ADAPTERS = {"facenet/embedding": embedding}
