"""Stages: what enters a training's key, methods that stand on stages alone, and batches that processes share."""

import pytest
import torch

from mmbench.commands import train
from mmbench.core import config, hashing
from mmbench.core.cards import MissingAsset
from mmbench.core.frozen import Frozen
from mmbench.core.method import Method
from mmbench.core.task import TEXT_GUIDED_EDITING
from mmbench.pipeline import assembly, evaluation, generation, rows, stages, training

WORDS = ["data.source=toy", "data.toy_images=80", "trainer=cpu"]
ON_TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


class Steered(Method):
    """Learns nothing itself: follows the gradient of a trained stage, as an edit by CLIP through a generator does."""

    task = TEXT_GUIDED_EDITING
    needs_gradients = True

    def __init__(self, damsm):
        super().__init__()
        self.damsm = Frozen(damsm)

    def generate(self, batch, noise):
        image = batch["image"].clone().requires_grad_()
        text = self.damsm.network.encode_text(batch["caption_mismatched"])
        match = (self.damsm.network.image_encoder(image).code * text.sentence).sum()
        (gradient,) = torch.autograd.grad(match, image)
        return (image + gradient.sign() / 8).clamp(-1, 1)


class Unfilled(Steered):
    """Has weights of its own, which nobody trains."""

    def __init__(self, damsm):
        super().__init__(damsm)
        self.own = torch.nn.Linear(1, 1)


@pytest.fixture
def steered(tiny):
    for name in ("Steered", "Unfilled"):
        (tiny.folder / f"method/{name.lower()}.yaml").write_text(
            f"# Stands on a stage\nname: {name.lower()}\nstages: {{damsm: damsm}}\n"
            f"module: {{_target_: test_stages.{name}}}\n"
        )
    return tiny


class Sharpened(Method):
    """Learns a level, and shows it times what its sampling says."""

    task = TEXT_GUIDED_EDITING

    def __init__(self, level, times):
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(level))
        self.times = times

    def generate(self, batch, noise):
        return torch.full_like(batch["image"], float(self.level) * self.times)


def test_what_is_sampled_in_another_way_is_another_row_of_the_same_training(tiny, home):
    (tiny.folder / "method/sharpened.yaml").write_text(
        "# Shows a level\nname: sharpened\nmodule: {_target_: test_stages.Sharpened, level: 0.25}\n"
        "sampling: {times: 2.0}\ntraining: {epochs: 1, batch_size: 2}\ntiny: {sampling: {times: 1.0}}\n"
    )
    plain, other, tuned = (
        config.composed(["method=sharpened", *WORDS, *more])
        for more in ([], ["method.sampling.times=3"], ["method.module.level=0.5"])
    )
    data = assembly.prepared_data(plain)
    assert [assembly.assembled(one, data)[0].times for one in (plain, other)] == [1.0, 3]
    assert stages.stage(plain, data).key == stages.stage(other, data).key != stages.stage(tuned, data).key
    assert rows.described(plain) != rows.described(other)
    assert config.composed(["method=sharpened", *WORDS, "scale=toy"])["method"]["sampling"] == {"times": 2.0}
    with pytest.raises(ValueError, match=r"method\.sampling\.time"):
        config.composed(["method=sharpened", *WORDS, "method.sampling.time=3"])


def planned(*words):
    plain = config.composed([*words, "data.source=toy", "data.toy_images=40"])
    return stages.stage(plain, assembly.prepared_data(plain))


def test_a_method_that_stands_on_a_trained_stage_alone_has_its_weights(steered, home, capsys):
    words = ["method=steered", *WORDS, "protocol.count=10", "weights=trained"]
    plain = config.composed(words)
    with pytest.raises(MissingAsset, match=r"expected trained weights of damsm at .* run mmbench train method=damsm"):
        evaluation.evaluate(plain)
    train.report(plain)
    printed = capsys.readouterr().out
    assert "damsm" in printed
    assert "weights.safetensors" in printed
    record, run = evaluation.evaluate(plain)
    (damsm,) = stages.predecessors(plain).values()
    _, alone = assembly.built(damsm, run.data)
    assert record.weights == alone
    assert alone["sha256"]
    changed = [not torch.equal(item["image"], run.method.generate(*_batch(item))[0]) for item in _items(run)]
    assert all(changed), "and gradients flowed while it generated"


def _items(run):
    dataset = run.items(run.samples, {"image", "caption_mismatched"})
    return [dataset[place] for place in range(len(dataset))]


def _batch(item):
    return {"image": item["image"][None], "caption_mismatched": [item["caption_mismatched"]]}, None


def test_weights_that_nobody_trains_are_refused(steered, home):
    plain = config.composed(["method=unfilled", *WORDS, "weights=trained"])
    training.trained(plain, assembly.prepared_data(plain))
    with pytest.raises(ValueError, match=r"expected a block `training` in the YAML of unfilled.*\(own\.bias\)"):
        evaluation.evaluate(plain)


def test_what_a_stage_is_told_enters_the_keys_of_what_stands_on_it(tiny, home):
    plain = planned("method=manigan_main")
    told = planned("method=manigan_main", "stages.damsm.training.epochs=3")
    seen = planned("method=manigan_main", "stages.damsm.data.module.image_size=32")
    assert len({stage.key for stage in (plain, told, seen)}) == 3
    (damsm,) = stages.predecessors(told.plain).values()
    assert stages.known_stage(damsm, "f").key != stages.known_stage(planned("method=damsm").plain, "f").key
    assert stages.known_stage(damsm, "f").key == (
        stages.known_stage(planned("method=damsm", "method.training.epochs=3").plain, "f").key
    )


def test_a_stage_that_sees_the_data_otherwise_is_trained_so(tiny, home):
    words = ["method=manigan_without_main", *WORDS, "stages.damsm.data.module.image_size=32"]
    plain = config.composed([*words, "method.training.epochs=1", "method.training.batch_size=8"])
    sizes = []
    fit = training._fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_fit", lambda wanted, data: (sizes.append(data.image_size), fit(wanted, data)))
        training.trained(plain, assembly.prepared_data(plain))
    assert sizes == [32, 64]


def test_the_scale_is_in_the_key(conf, home):
    one, other = (planned("method=damsm", f"scale={scale}") for scale in ("toy", "tiny"))
    assert one.key != other.key


def test_hardware_that_changes_no_weight_is_not_in_the_key_and_what_does_is(tiny, home):
    one = planned("method=tagan", "trainer=cpu")
    assert planned("method=tagan", *ON_TWO).key == one.key
    alone = planned("method=tagan", *ON_TWO, "trainer.sync_batchnorm=false")
    assert alone.key != one.key
    assert planned("method=tagan", *ON_TWO, "trainer.devices=3", "trainer.sync_batchnorm=false").key != alone.key
    assert planned("method=tagan", "trainer=cpu", "trainer.sync_batchnorm=false").key == one.key


def test_the_size_of_a_batch_of_training_is_in_the_keys(tiny, home):
    words = ["method=manigan_main", "weights=trained"]
    own, before = "method.training.batch_size=8", "stages.damsm.training.batch_size=8"
    planned_ones = [planned(*words, *more) for more in ((), (own,), (before,))]
    assert len({one.key for one in planned_ones}) == 3
    assert len({hashing.config_hash(rows.described(one.plain)) for one in planned_ones}) == 3


def test_precision_is_in_the_keys_of_weights_images_and_rows(tiny, home):
    words = ["method=tagan", *WORDS, "weights=none"]
    full, same, mixed = (
        config.composed([*words, f"trainer.precision={one}"]) for one in ("32-true", "32", "bf16-mixed")
    )
    assert stages.known_stage(full, "f").key == stages.known_stage(same, "f").key
    runs = [generation.prepared(plain) for plain in (full, same, mixed)]
    for found in ([run.run_key for run in runs], [run.folder for run in runs]):
        assert found[0] == found[1] != found[2]
    hashes = [hashing.config_hash(rows.described(plain)) for plain in (full, same, mixed)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("word", ["epochs=two", "epochs=1.5", "epochs=0", "epochs=-1", "batch_size=8.5"])
def test_a_training_of_no_whole_number_is_refused(conf, word):
    name, _, found = word.partition("=")
    plain = config.composed(["method=tagan", "data.source=toy", f"method.training.{word}"])
    with pytest.raises(ValueError, match=rf"expected training.{name} of a whole number from 1, found '?{found}"):
        training.require_training(plain)


def test_processes_share_a_batch_and_a_remainder_is_refused(conf):
    plain = config.composed(["method=manigan", "data.source=toy", "method.training.batch_size=16"])
    assert [training.share_of_batch(plain, processes) for processes in (1, 2, 8)] == [16, 8, 2]
    with pytest.raises(
        ValueError, match=r"expected batches of 16 .* divide by the 3 processes, found a remainder of 1"
    ):
        training.share_of_batch(plain, 3)
    with pytest.raises(ValueError, match="expected 2 images or more of manigan for each process, found 1, a batch"):
        training.share_of_batch(plain, 16)
