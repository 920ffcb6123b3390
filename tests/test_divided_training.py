"""A training divided among processes is the training of one: the same batches, statistics and pairs."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mmbench.core import config
from mmbench.core.learner import Learner
from mmbench.core.task import TEXT_GUIDED_EDITING
from mmbench.losses.matching import sentence_loss
from mmbench.pipeline import assembly, training


class Paired(Learner):
    """Normalises over the batch, and compares all pairs of the batch."""

    task = TEXT_GUIDED_EDITING
    trains_on = frozenset({"image"})

    def __init__(self):
        super().__init__(partial(torch.optim.SGD, lr=0.05))
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 4, 4), nn.BatchNorm2d(8), nn.Tanh()
        )

    def terms(self, batch):
        code = self.net(batch["image"]).mean((2, 3))
        words, sentences = sentence_loss(code, batch["noise"].normal("text", 8), None, 10.0)
        return {"L": words + sentences, "L_1": code.abs().mean()}


def weights(*words):
    plain = config.composed(["method=paired", "data.source=toy", "data.toy_images=40", *words])
    return load_file(training.trained(plain, assembly.prepared_data(plain)).weights)


@pytest.fixture
def paired(conf):
    (conf.folder / "method/paired.yaml").write_text(
        "# Pairs\nname: paired\nmodule: {_target_: test_divided_training.Paired}\n"
        "training: {epochs: 2, batch_size: 10}\n"
    )


@pytest.mark.timeout(120)
def test_two_processes_end_with_the_weights_of_one(paired, home):
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp_fork"]
    one = weights("trainer=cpu", "paths.runs=one")
    divided = weights(*two, "paths.runs=two")
    alone = weights(*two, "trainer.sync_batchnorm=false", "paths.runs=three")
    for name, value in one.items():
        assert torch.allclose(divided[name], value, rtol=1e-4, atol=1e-5), name  # of float32
    assert not torch.allclose(alone["net.1.running_var"], one["net.1.running_var"], rtol=1e-3), "each by its own part"
