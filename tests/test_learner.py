"""What the bases of learning methods do with optimisers: who is stepped, by how much, and at which rate."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from mmbench.core import composition, construction
from mmbench.core.adversarial import Adversarial
from mmbench.core.learner import Learner
from mmbench.core.progress import TRAINER_OPTIONS
from mmbench.core.schedules import halved, set_learning_rates

STEP = partial(SGD, lr=1.0)


def parts():
    return {name: nn.Linear(3, 1, bias=False) for name in ("first", "second", "third")}


class OneLoss(Learner):
    """A loss that is the sum of what three layers say; the last is not trained."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        for name, layer in parts().items():
            setattr(self, name, layer.requires_grad_(name != "third"))

    def terms(self, batch):
        return {name: getattr(self, name)(batch).sum() for name in parts()}


class ClipsTheFirst(OneLoss):
    def clipped(self):
        return self.first.parameters()


class SeveralSteps(Adversarial):
    """Three layers with an optimiser each, of which a step names some."""

    def __init__(self, names, gradient_clip=None):
        super().__init__(dict.fromkeys(parts(), STEP))
        self.names, self.largest = names, gradient_clip
        for name, layer in parts().items():
            setattr(self, name, layer)

    def training_step(self, batch, batch_idx):
        self.minimise(self.names, {"sum": sum(getattr(self, name)(batch).sum() for name in parts())}, self.largest)


def moved(method, epochs=1, batch=((3.0, 0.0, 4.0),)):
    """How far the weights of each layer went, and the trainer; the gradient of each of them is (3, 0, 4), of norm 5."""
    before = {name: getattr(method, name).weight.detach().clone() for name in parts()}
    trainer = construction.construct(
        composition.node("trainer/cpu"), max_epochs=epochs, logger=False, enable_checkpointing=False, **TRAINER_OPTIONS
    )
    trainer.fit(method, DataLoader(dataset=[torch.tensor(batch)], batch_size=None))
    went = {name: float((getattr(method, name).weight.detach() - before[name]).norm()) for name in parts()}
    return went, trainer


def test_a_learner_steps_everything_that_takes_gradients():
    went, trainer = moved(OneLoss(STEP))
    assert went == pytest.approx({"first": 5, "second": 5, "third": 0})
    assert {f"oneloss/{name}" for name in parts()} <= trainer.callback_metrics.keys()


def test_a_learner_clips_the_norm_of_what_it_names():
    assert moved(OneLoss(STEP, gradient_clip=1.0))[0] == pytest.approx(
        {"first": 0.5**0.5, "second": 0.5**0.5, "third": 0}, rel=1e-3
    )
    assert moved(ClipsTheFirst(STEP, gradient_clip=1.0))[0] == pytest.approx(
        {"first": 1, "second": 5, "third": 0}, rel=1e-3
    )


def test_a_learners_rate_follows_its_schedule():
    went, _ = moved(OneLoss(STEP, schedule=halved(2)), epochs=5)
    assert went["first"] == pytest.approx(5 * (1 + 1 + 1 / 2 + 1 / 2 + 1 / 4))


@pytest.mark.parametrize(("names", "logged"), [("first", "first"), (("third", "first"), "third+first")])
def test_one_loss_steps_the_submodules_that_are_named(names, logged):
    went, trainer = moved(SeveralSteps(names))
    assert went == pytest.approx({name: 5.0 * (name in logged) for name in parts()})
    assert f"{logged}/sum" in trainer.callback_metrics


def test_each_submodules_gradient_is_clipped_on_request():
    went, _ = moved(SeveralSteps(["first", "second"], gradient_clip=2.0))
    assert went == pytest.approx({"first": 2, "second": 2, "third": 0}, rel=1e-3)


def test_a_clip_is_of_the_gradient_and_not_of_its_scaled_copy():
    from pytorch_lightning.plugins.precision import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    method = SeveralSteps(["first"], gradient_clip=2.0)
    before = method.first.weight.detach().clone()
    trainer = construction.construct(
        {**composition.node("trainer/cpu"), "precision": None},
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        plugins=MixedPrecision("16-mixed", "cpu", scaler=scaler),
        **TRAINER_OPTIONS,
    )
    trainer.fit(method, DataLoader(dataset=[torch.tensor([[3.0, 0.0, 4.0]])], batch_size=None))
    assert float((method.first.weight.detach() - before).norm()) == pytest.approx(2, rel=1e-2)


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1), (99, 1), (100, 1 / 2), (250, 1 / 4), (599, 1 / 32)])
def test_every_group_of_parameters_has_its_own_rate_halved(epoch, factor):
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.01}], lr=0.1)
    set_learning_rates([optimizer], halved(100), 0)
    resumed = SGD([{"params": weights[:1]}, {"params": weights[1:]}], lr=1.0)
    resumed.load_state_dict(optimizer.state_dict())
    set_learning_rates([resumed], halved(100), epoch)
    assert [group["lr"] for group in resumed.param_groups] == [0.1 * factor, 0.01 * factor]
