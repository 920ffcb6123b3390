"""One batch changes what is trained and nothing else, for every method that learns."""

import pytest
import torch
import yaml

from mmbench.core import config
from mmbench.core.adversarial import Adversarial
from mmbench.core.frozen import Frozen
from mmbench.core.progress import TRAINER_OPTIONS
from mmbench.pipeline import assembly

WORDS = ["data.source=toy", "data.toy_images=40", "trainer=cpu", "weights=none"]


def learning_methods():
    """Those whose class reads fields of a batch to train on; an ablation's YAML need not repeat the key `training`."""
    described = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))["module"]
        for path in sorted((config.shipped("conf") / "method").glob("*.yaml"))
    }
    return [name for name, module in described.items() if config.target(module).trains_on]


def after_one_batch(name):
    """The method, and copies of its state before and after."""
    plain = config.composed([f"method={name}", *WORDS])
    data = assembly.prepared_data(plain)
    method, _ = assembly.built(plain, data)
    data.batch_size = plain["method"]["training"]["batch_size"]
    before = {key: tensor.clone() for key, tensor in everything(method).items()}
    trainer = config.construct(
        plain["trainer"],
        max_epochs=1,
        limit_train_batches=1,
        logger=False,
        enable_checkpointing=False,
        **TRAINER_OPTIONS,
    )
    trainer.fit(method, datamodule=data)
    return method, before, everything(method)


def everything(method):
    return dict(method.named_parameters()) | dict(method.named_buffers())


def changed(before, after, prefix):
    return {key for key in before if key.startswith(f"{prefix}.") and not torch.equal(before[key], after[key])}


@pytest.mark.parametrize("name", learning_methods())
def test_one_batch_changes_what_is_trained_and_nothing_frozen(tiny, name):
    method, before, after = after_one_batch(name)
    trained = [part for part, child in method.named_children() if any(p.requires_grad for p in child.parameters())]
    if isinstance(method, Adversarial):
        assert set(trained) == set(method.order), "every network that learns has an optimiser"
    for part in trained:
        children = method.get_submodule(part)
        parts = [f"{part}.{n}" for n in range(len(children))] if isinstance(children, torch.nn.ModuleList) else [part]
        for each in parts:
            assert changed(before, after, each), f"{each} learned nothing"
    frozen = [key for key, module in method.named_modules() if isinstance(module, Frozen)]
    for part in frozen:
        assert not changed(before, after, part), f"{part} is frozen"
    held = {key for key, parameter in method.named_parameters() if not parameter.requires_grad}
    averages = {key for key in held if key.startswith("ema.")}
    assert not {key for key in held - averages if not torch.equal(before[key], after[key])}
    assert all(method.get_parameter(key).grad is None for key in held)
    assert all(parameter.requires_grad for parameter in after_training(method, trained)), "held parameters are let go"


def after_training(method, trained):
    """The parameters of what is trained, but for a pretrained trunk, whose parameters stay."""
    return [p for part in trained for key, p in method.get_submodule(part).named_parameters() if "trunk." not in key]


@pytest.mark.parametrize("name", ["manigan_main", "manigan", "manigan_direct", "manigan_without_main", "controlgan"])
def test_the_average_follows_the_network(tiny, name):
    method, before, after = after_one_batch(name)
    part = method.order[0]
    moved = {key.removeprefix(f"{part}.") for key in changed(before, after, part)}
    assert {key.removeprefix("ema.average.") for key in changed(before, after, "ema.average")} == moved
