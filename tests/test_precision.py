"""Mixed precision in float16, whose losses are scaled; what holds of every method in bfloat16 is in the contract."""

import mmbench.core.torchvision_schema  # noqa: F401  (before torchvision)

# isort: split

import copy

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning.plugins.precision import MixedPrecision
from torch.utils.data import DataLoader

from mmbench.core import composition, config, construction
from mmbench.core.progress import TRAINER_OPTIONS
from mmbench.data.batches import as_floats
from mmbench.losses.adversarial import cross_entropy_fake
from mmbench.losses.perceptual import perceptual_loss
from mmbench.methods.manipulation.tagan import mismatched
from mmbench.pipeline import assembly

WORDS = ["scale=tiny", "data.source=toy", "data.toy_images=40", "trainer=cpu", "weights=none"]


def assembled(name):
    """A method that was never trained, and a batch of toy birds."""
    plain = config.composed([f"method={name}", *WORDS])
    data = assembly.prepared_data(plain)
    data.batch_size = 4
    return assembly.built(plain, data)[0], as_floats(next(iter(data.train_dataloader())))


def trainer(**options):
    """A trainer of one step."""
    return construction.construct(
        composition.node("trainer/cpu"),
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        **TRAINER_OPTIONS,
        **options,
    )


def loader(batch):
    return DataLoader(dataset=[batch], batch_size=None)


def trained(method, batch, **options):
    """The terms of a step: those of the second network are judged by a first that was stepped."""
    made = trainer(**options)
    made.fit(method, loader(batch))
    return {term: float(value) for term, value in made.callback_metrics.items()}


def half_precision(scale):
    """Lightning turns float16 on a CPU into bfloat16, unless it is given so."""
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=scale))
    return {"precision": None, "plugins": plugin}


def are_float32_and_finite(method):
    return all(p.dtype == torch.float32 and bool(p.isfinite().all()) for p in method.parameters())


# The others hold an LSTM, which PyTorch has no float16 of on a CPU.
@pytest.mark.parametrize("name", ["tagan", "sisgan"])
def test_several_optimisers_share_a_scale_of_losses(home, name):
    method, batch = assembled(name)
    expected = trained(copy.deepcopy(method), batch)
    found = trained(method, batch, **half_precision(2.0**10))
    assert are_float32_and_finite(method)
    assert found != expected, "nothing was computed in float16"
    assert found == pytest.approx(expected, rel=0.01, abs=0.005)


def test_a_gradient_that_overflows_costs_a_step_and_no_weight(home):
    (method, batch), options = assembled("sisgan"), half_precision(2.0**60)
    before = {name: parameter.clone() for name, parameter in method.named_parameters()}
    trainer(**options).fit(method, loader(batch))
    assert options["plugins"].scaler.get_scale() == 2.0**58, "halved by either network"
    assert all(torch.equal(parameter, before[name]) for name, parameter in method.named_parameters())


def test_losses_are_of_float32_within_autocast():
    logits, features = torch.linspace(-9, 9, 50).bfloat16(), torch.nn.Conv2d(3, 5, 3)
    fake, real = torch.rand(2, 4, 3, 8, 8).unbind()
    with torch.autocast("cpu", torch.bfloat16):
        assert features(fake).dtype == torch.bfloat16
        found = cross_entropy_fake(logits), perceptual_loss(features, fake, real)
        compared = F.mse_loss(features(fake).float(), features(real).float())
        sure = mismatched(torch.tensor([1 - 1e-6]))
    assert found[0].dtype == found[1].dtype == torch.float32
    torch.testing.assert_close(found[0], F.softplus(logits.float()).mean(), rtol=0, atol=0)
    torch.testing.assert_close(found[1], compared, rtol=1e-6, atol=0)
    # In bfloat16 this probability is 1, and its term the 100 that the logarithm of 0 is cut off at.
    assert float(sure) == pytest.approx(13.8, abs=0.1)
