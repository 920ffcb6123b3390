"""How long a training is and what is kept of it: steps, parts of batches, the best checkpoint, what lies beside."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mmbench.core import config
from mmbench.core.adversarial import Adversarial
from mmbench.core.ema import EMA
from mmbench.core.learner import Learner
from mmbench.core.task import TEXT_GUIDED_EDITING
from mmbench.data.batches import EpochSampler
from mmbench.pipeline import assembly, selection, stages, training

WORDS = ["data.source=toy", "data.toy_images=40", "trainer=cpu"]  # 30 of them to train on


class Tinted(Learner):
    """Learns one colour to add to a picture."""

    task = TEXT_GUIDED_EDITING
    trains_on = frozenset({"image", "image_mismatched"})

    def __init__(self, lr=0.05):
        super().__init__(partial(torch.optim.SGD, lr=lr))
        self.tint = nn.Parameter(torch.zeros(3, 1, 1))

    def terms(self, batch):
        return {"L": (batch["image"] + self.tint - batch["image_mismatched"]).square().mean()}

    def generate(self, batch, noise):
        return (batch["image"] + self.tint).clamp(-1, 1)


class Opposed(Adversarial):
    """Two networks that pull at one another, and an average."""

    task = TEXT_GUIDED_EDITING
    trains_on = frozenset({"image"})

    def __init__(self):
        super().__init__({name: partial(torch.optim.SGD, lr=0.1) for name in ("one", "other")})
        self.one, self.other = nn.Conv2d(3, 2, 4, 4), nn.Conv2d(2, 1, 4, 4)
        self.ema = EMA(self.one, 0.5)

    def training_step(self, batch, batch_idx):
        made = self.one(batch["image"])
        self.minimise("other", {"D": (self.other(made.detach()) - 1).square().mean()})
        with self.held(self.other):
            self.minimise("one", {"G": self.other(made).square().mean()})
        self.follow(self.ema, self.one)


def plain_of(method, *words):
    return config.composed([f"method={method}", *WORDS, *words])


def trained(method, *words):
    plain = plain_of(method, *words)
    return training.trained(plain, assembly.prepared_data(plain))


def weights(method, *words):
    return load_file(trained(method, *words).weights)


@pytest.fixture
def small(conf, home):
    for name in ("Tinted", "Opposed"):
        (conf.folder / f"method/{name.lower()}.yaml").write_text(
            f"# Small\nname: {name.lower()}\nmodule: {{_target_: test_budgets.{name}}}\n"
            "training: {epochs: 2, batch_size: 10}\n"
        )
    return conf


def drawn(epochs, *arguments):
    sampler = EpochSampler(*arguments)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        yield list(sampler)


def test_virtual_epochs_go_through_the_passes_one_after_another():
    passes = [pair for epoch in drawn(4, 30, 0, 4) for pair in epoch]
    assert len(passes) == 4 * 28, "a pass ends with its last whole batch"
    for steps in (1, 5, 7, 16):
        virtual = list(drawn(4, 30, 0, 4, steps))
        assert {len(epoch) for epoch in virtual} == {4 * steps}
        joined = [pair for epoch in virtual for pair in epoch]
        assert joined[: len(passes)] == passes[: len(joined)]


def test_a_budget_of_steps_is_the_training_of_as_many_batches(small):
    by_epoch = weights("tinted", "paths.runs=one")  # 2 epochs of 3 batches
    steps = ["method.training.epochs=null", "+method.training.steps=6", "+method.training.steps_per_epoch=2"]
    by_step = weights("tinted", *steps)
    assert torch.equal(by_epoch["tint"], by_step["tint"])
    assert stages.num_epochs(plain_of("tinted", *steps)["method"]["training"]) == 3


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"epochs": 1, "steps": 2, "steps_per_epoch": 1}, "found both: choose one"),
        ({}, "found neither: choose one"),
        ({"steps": 5, "steps_per_epoch": 2}, "found 5 steps by steps_per_epoch=2: choose a number that divides it"),
        ({"steps": 5}, "found 5 steps by steps_per_epoch=None"),
    ],
)
def test_a_budget_that_is_none_is_one_line(budget, message):
    with pytest.raises(ValueError, match=message):
        stages.num_epochs(budget)


def test_a_batch_in_parts_makes_the_steps_of_the_whole(small):
    whole, parts = (weights("tinted", f"+method.training.accumulate={count}") for count in (1, 5))
    assert torch.allclose(parts["tint"], whole["tint"], rtol=1e-4, atol=1e-6)
    keys = {trained("tinted", f"+method.training.accumulate={count}").key for count in (1, 5)}
    assert len(keys) == 2
    # Of networks that are trained against each other, the one whose turn comes first.
    words = ["method.training.epochs=1", "method.training.batch_size=30"]
    whole, parts = (weights("opposed", *words, f"+method.training.accumulate={count}") for count in (1, 5))
    start = assembly.built(plain_of("opposed", *words, "weights=none"), None)[0]
    before = start.state_dict()["one.bias"]
    assert not torch.equal(parts["one.bias"], before)
    assert torch.allclose(parts["ema.average.bias"], (before + parts["one.bias"]) / 2), "it followed once"
    for name in ("other.weight", "other.bias"):
        assert torch.allclose(parts[name], whole[name], rtol=1e-4, atol=1e-6), name
    with pytest.raises(ValueError, match="to divide by the 1 processes in 3 parts, found a remainder of 1"):
        trained("opposed", "+method.training.accumulate=3")


SELECT = ["+method.training.select={split: train, metric: l1, every: 1, count: 12}", "method.training.epochs=4"]


def test_the_best_checkpoint_is_kept_and_a_stopped_run_keeps_the_same(small, monkeypatch):
    diverging = ["+method.module.lr=3.0", *SELECT]
    done = trained("tinted", *diverging, "paths.runs=straight")
    found = selection.told(done.folder)
    scores = [float(word.split()[1]) for word in found.partition(": ")[2].split(", ")]
    assert len(scores) == 4
    assert min(scores) < scores[-1], "each step leads further away"
    plain = plain_of("tinted", *diverging, "weights=trained", "paths.runs=straight")
    method, _ = assembly.built(plain, data := assembly.prepared_data(plain))
    again = selection.Selection(done, data).score(method)
    assert again == pytest.approx(min(scores), rel=1e-3)

    fitted = training.SeededSteps.on_train_batch_start

    def stopped(self, trainer, *rest):
        fitted(self, trainer, *rest)
        if trainer.current_epoch == 2:
            raise ZeroDivisionError

    monkeypatch.setattr(training.SeededSteps, "on_train_batch_start", stopped)
    with pytest.raises(ZeroDivisionError):
        trained("tinted", *diverging)
    monkeypatch.setattr(training.SeededSteps, "on_train_batch_start", fitted)
    resumed = trained("tinted", *diverging)
    assert resumed.weights.read_bytes() == done.weights.read_bytes()
    assert selection.told(resumed.folder) == found


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ("{split: test, metric: l1, every: 1}", "expected training.select by a split that no table is scored on"),
        ("{split: val, metric: l1, every: 1}", "expected a split, found 'val'"),
        ("{split: train, metric: l1}", "expected training.select with every, found none"),
        ("{split: train, metric: l1, evry: 1}", "expected a key of training.select, found 'evry': did you mean every"),
        ("{split: train, metric: l0, every: 1}", "expected a metric, found 'l0': did you mean l1"),
    ],
)
def test_a_selection_that_cannot_be_done_is_one_line(small, select, message):
    with pytest.raises(ValueError, match=message):
        trained("tinted", f"+method.training.select={select}")


def test_a_vocabulary_of_some_splits_and_frequent_words_is_in_the_key_and_beside_the_weights(tiny, home):
    plain = plain_of("damsm", "method.from_data={vocabulary: {splits: [train], min_count: 30}}")
    data = assembly.prepared_data(plain)
    done = training.trained(plain, data)
    method, _ = assembly.built({**plain, "weights": "trained"}, data)
    whole, fewer = data.vocabulary(), data.vocabulary(splits=["train"], min_count=30)
    assert set(fewer.words) < set(whole.words)
    assert method.vocabulary.words == fewer.words
    assert done.key != stages.stage(plain_of("damsm"), data).key
    assert (done.folder / "vocabulary.json").is_file()
    fewer.write(other := home / "other/vocabulary.json")
    whole.write(other)
    (home / "other/weights.safetensors").write_bytes(done.weights.read_bytes())
    with pytest.raises(ValueError, match="vocabulary"):
        assembly.built({**plain, "weights": str(home / "other/weights.safetensors")}, data)
