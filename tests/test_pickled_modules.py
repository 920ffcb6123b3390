"""Networks that authors saved as objects: their tensors come in, their code does not."""

import os
import pickle
import sys
import types

import pytest
import torch
from torch import nn

from mmbench.core.weights import read_state


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Saves a network of classes of a package that is there then alone."""

    def saved():
        package = types.ModuleType("authors_code")
        monkeypatch.setitem(sys.modules, "authors_code", package)

        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.w = nn.Parameter(torch.randn(3, 2))
                self.register_buffer("count", torch.tensor(4))
                self.register_buffer("table", torch.ones(2), persistent=False)
                self.device, self.size = torch.device("cpu"), {"width": 3}

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.blocks = nn.Sequential(Block(), nn.ReLU(), nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm1d(2))
                self.last = None
                self.register_parameter("nothing", None)

        for kind in (Block, Network):
            kind.__module__, kind.__qualname__ = "authors_code", kind.__name__
            setattr(package, kind.__name__, kind)
        network = Network()
        torch.save(network, tmp_path / "network.pkl")
        monkeypatch.delitem(sys.modules, "authors_code")
        return tmp_path / "network.pkl", network.state_dict()

    return saved


def test_a_network_saved_as_an_object_gives_its_state_dict(save):
    path, state = save()
    found = read_state(path)
    assert list(found) == list(state)
    assert all(torch.equal(found[key], value) for key, value in state.items())
    assert not any(value.requires_grad for value in found.values())


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("content", [Harmful(), [Harmful()], {"weight": torch.ones(2), "more": Harmful()}])
def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "network.pkl")
    with pytest.raises(ValueError, match=r"network\.pkl: expected a network as PyTorch saves one, found .*: fetch"):
        read_state(tmp_path / "network.pkl")
    assert not (tmp_path / "harm").exists()


def test_another_file_is_refused(save, tmp_path):
    path, _ = save()
    content = path.read_bytes()
    for broken in (content[: len(content) // 2], b"", pickle.dumps({"a": 1})):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"network\.pkl: expected a network as PyTorch saves one, found .*: fetch"):
            read_state(path)
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="found an object of another kind: fetch it again"):
        read_state(path)
