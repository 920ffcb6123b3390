"""The authors' schedule that training is timed against, and ours, compute the same."""

import mmbench.core.torchvision_schema  # noqa: F401  (before torchvision)

# isort: split

import copy

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from mmbench.benchmarks.training import CASES, assembled, largest_difference, main, random_batch, train_ours
from mmbench.core.noise import Noise

SIZES = {"manigan_main": 64, "manigan": 64, "tagan": 64, "sisgan": 64}
STEPS = 3


class DoubleNoise(Noise):
    """The same numbers, for networks of double precision."""

    def normal(self, name, *shape):
        return super().normal(name, *shape).double()


class Terms(Callback):
    """Keeps the terms of each step."""

    def __init__(self):
        self.steps = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.steps.append({name: float(term) for name, term in trainer.callback_metrics.items()})


def doubled(name):
    """A small method and a batch, of double precision: what is left is no rounding."""
    batch = random_batch(SIZES[name], 4)
    batch |= {"image": batch["image"].double(), "noise": DoubleNoise(0, batch["sample"])}
    return assembled(name, "toy").double(), batch


@pytest.mark.parametrize("name", CASES)
def test_both_train_the_same(tiny, name):
    ours, batch = doubled(name)
    theirs = CASES[name].theirs(copy.deepcopy(ours).train())
    kept = Terms()
    train_ours(ours, batch, STEPS, kept)
    for found in kept.steps:
        expected = {name: float(term.detach()) for name, term in theirs.step(batch).items()}
        # Of the second step and the third, these are losses of the weights that the steps before have made.
        assert largest_difference(found, expected) < 1e-7
    assert len(kept.steps) == STEPS
    assert kept.steps[0] != pytest.approx(kept.steps[-1], rel=0.01), "nothing was learned"


def test_networks_start_alike_in_every_process(tiny):
    first, second = (assembled("tagan", "toy").state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_difference_is_relative_to_its_term_or_to_a_thousandth_of_all():
    theirs = {"a": 99.0, "b": 1.0, "c": 0.0}
    assert largest_difference(theirs, theirs) == 0
    assert largest_difference(theirs | {"b": 1.5}, theirs) == pytest.approx(0.5)
    assert largest_difference(theirs | {"c": 0.05}, theirs) == pytest.approx(0.5)
    with pytest.raises(AssertionError, match="other terms"):
        largest_difference({"a": 99.0}, theirs)


def test_a_misspelt_method_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="expected a method, found 'tagann': did you mean tagan"):
        main(["tagann"])
