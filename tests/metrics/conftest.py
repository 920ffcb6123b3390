"""Extractors with known features, and batches in the vocabulary of the tasks."""

import pytest
import torch
from torch import nn

from mmbench.core.cards import Card
from mmbench.core.images import from_uint8
from mmbench.core.noise import Sample
from mmbench.metrics import Extractor


class Known(nn.Module):
    """Features that a test can compute by itself: the first pixels of an image, and the letters of a text."""

    num_features = 5

    def __init__(self):
        super().__init__()
        self.calls = 0

    def load(self, path):
        assert path.is_file()

    def forward(self, source):
        self.calls += 1
        if isinstance(source, list):
            return {"embedding": torch.tensor([[float(ord(letter)) for letter in text[:3]] for text in source])}
        values = source.flatten(1).float()
        return {
            "features": values[:, :5],
            "logits": values[:, :7] / 50,
            "embedding": values[:, :3],
            "keys": values[:, :12].unflatten(1, (4, 3)),
            "distance": (values[:, :9] - values[:, -9:]).square().mean(dim=1),  # of pairs: from either picture
        }


@pytest.fixture
def make_extractor(tmp_path):
    def make(network=None, name="toy"):
        path = tmp_path / "weights" / "known.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"known")
        return Extractor(name, network or Known(), Card("known.bin", None, "a test", "none"), tmp_path)

    return make


@pytest.fixture
def pixels():
    """Random uint8 images by seed."""

    def make(count, seed=0, size=16):
        return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed)).byte()

    return make


@pytest.fixture
def batch_of():
    def make(images, **fields):
        ids = [f"bird/{index:04d}" for index in range(len(images))]
        return {"id": ids, "sample": [Sample(key, 0, 0) for key in ids], "image": from_uint8(images), **fields}

    return make


def parts_of(batch, rows):
    """The rows of a batch."""
    return {
        key: value[rows] if isinstance(value, torch.Tensor) else [value[int(row)] for row in rows]
        for key, value in batch.items()
    }


@pytest.fixture
def rows_of():
    return parts_of
