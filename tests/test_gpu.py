"""On a CUDA device every method makes what it makes on the processor, and learns from the same losses."""

import copy
from dataclasses import replace

import pytest
import test_contract
import torch
from test_contract import enlivened, learns, makes_something, require_finite, seen, subject
from test_divided_methods import still

from mmbench.core import catalogue
from mmbench.core.noise import Noise, TrainingNoise
from mmbench.pipeline.scoring import full_precision

pytestmark = pytest.mark.gpu
place = test_contract.place
FAR = 0.02  # of a range of 2, less than three levels of 255: sums are added up in another order there


def seen_there(method, batch):
    """As `seen`, on the device."""
    method = copy.deepcopy(method).eval().cuda()
    there = {field: column.cuda() if hasattr(column, "cuda") else column for field, column in batch.items()}
    with torch.inference_mode(not method.needs_gradients):
        return method.predict_step({**there, "noise": Noise(0, batch["sample"], "cuda")})


@pytest.fixture
def same_noise(monkeypatch):
    """Noise of training is drawn where it is used, and another kind of device draws another."""
    drawn = TrainingNoise._drawn

    def on_the_processor(noise, draw, name, shape):
        return drawn(TrainingNoise(noise.seed, noise.samples), draw, name, shape).to(noise.device)

    monkeypatch.setattr(TrainingNoise, "_drawn", on_the_processor)


@pytest.mark.parametrize("name", catalogue.names("method"))
def test_it_makes_there_what_it_makes_here(name):
    of_it = subject(name)
    if not makes_something(of_it):
        pytest.skip("not run: a stage that makes nothing itself")
    method, batch = enlivened(of_it.method), of_it.batch()
    with full_precision():
        here, there = seen(method, batch), seen_there(method, batch)
    if isinstance(here, list):
        assert there == here
    else:
        assert there.device.type == "cuda"
        assert (there.cpu() - here).abs().max() < FAR


@pytest.mark.parametrize("name", filter(learns, catalogue.names("method")))
def test_it_learns_there_from_the_losses_of_here(name, same_noise):
    of_it = subject(name)
    of_it = replace(of_it, method=still(of_it.method))  # what a device drops out is drawn by its own generator
    with full_precision():
        (_, here), (method, there) = of_it.fitted(), of_it.fitted(accelerator="gpu")
    assert there.strategy.root_device.type == "cuda"
    require_finite(method)
    expected, found = ({term: float(value) for term, value in one.callback_metrics.items()} for one in (here, there))
    assert found == pytest.approx(expected, rel=0.01, abs=0.001)
