"""Training: interrupted and resumed, done once, stopped where it diverges."""

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmbench.commands import train
from mmbench.core import config
from mmbench.core.cards import MissingAsset
from mmbench.methods.synthesis.damsm import DAMSM
from mmbench.pipeline import assembly, stages, training
from mmbench.pipeline import rows as rows_of

DATA = ["data.source=toy", "data.toy_images=40", "trainer=cpu"]
SHORT = ["method.training.epochs=2", "method.training.batch_size=8"]  # of 30 images: three steps each


def configured(*words):
    return config.composed([*DATA, *words])


def run(*words):
    plain = configured(*words)
    return training.trained(plain, assembly.prepared_data(plain))


def planned(*words):
    plain = configured(*words)
    return stages.stage(plain, assembly.prepared_data(plain))


def killed(*words):
    """Trains in a process of its own, which is killed in its second epoch."""
    child = os.fork()  # it has imported everything
    if not child:
        seeded = training.SeededSteps.on_train_batch_start

        def kill(self, trainer, module, batch, step):
            seeded(self, trainer, module, batch, step)
            if trainer.current_epoch == 1 and step == 1:
                os.kill(os.getpid(), signal.SIGKILL)

        training.SeededSteps.on_train_batch_start = kill
        try:
            run(*words)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(tiny, capfd):
    words = ["method=tagan", *SHORT]
    killed(*words)
    wanted = planned(*words)
    assert (wanted.folder / "last.ckpt").is_file()
    assert not wanted.weights.exists()
    capfd.readouterr()
    resumed = run(*words)
    assert "resumed" in capfd.readouterr().err
    assert len(list(resumed.folder.glob("log/*/metrics.csv"))) == 2, "each start has a log of its own"
    straight = run(*words, "paths.runs=straight")
    assert "resumed" not in capfd.readouterr().err
    assert resumed.folder != straight.folder
    assert resumed.weights.read_bytes() == straight.weights.read_bytes()


def test_ctrl_c_ends_a_training_as_a_kill_does(tiny, monkeypatch):
    seeded = training.SeededSteps.on_train_batch_start

    def interrupted(self, trainer, *rest):
        seeded(self, trainer, *rest)
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    words = ["method=damsm", *SHORT]
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(training.SeededSteps, "on_train_batch_start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(*words)
    monkeypatch.setattr(training.SeededSteps, "on_train_batch_start", seeded)
    signal.signal(signal.SIGINT, handler)  # which Lightning switches off while it shuts down
    assert not planned(*words).weights.exists()
    assert run(*words).weights.read_bytes() == run(*words, "paths.runs=straight").weights.read_bytes()


def test_a_stage_is_trained_once_and_used_by_what_stands_on_it(tiny, monkeypatch):
    words = ["method.training.epochs=1", "method.training.batch_size=8"]
    fitted = []
    fit = training._fit
    monkeypatch.setattr(training, "_fit", lambda wanted, data: (fitted.append(wanted.name), fit(wanted, data)))
    tiny.change("method/damsm", {"tiny": {"training": {"batch_size": 8}}})
    tiny.change("method/manigan_main", {"tiny": {"training": {"batch_size": 8}}})
    run("method=manigan", *words)
    assert fitted == ["damsm", "manigan_main", "manigan"]
    run("method=manigan", *words)
    run("method=damsm", *words)
    assert fitted == ["damsm", "manigan_main", "manigan"]
    run("method=manigan_main", *words, "method.module.lambda_damsm=1")
    assert fitted[3:] == ["manigan_main"], "another main module stands on the same encoders"


def test_what_changes_weights_is_another_training_and_what_does_not_is_not(tiny):
    one = planned("method=manigan_main")
    assert planned("method=manigan_main", "data.module.batch_size=7", "paths.runs=elsewhere").key == one.key
    assert planned("method=manigan_main", "trainer.precision=bf16-mixed").key != one.key
    for word in ("seed=1", "method.training.epochs=7", "method.module.decay=0.5", "data.toy_images=41"):
        assert planned("method=manigan_main", word).folder != one.folder, word
    tiny.change("method/damsm", {"tiny": {"module": {"embedding_dim": 24}}})
    assert planned("method=manigan_main").folder != one.folder, "it stands on other encoders"


def test_weights_after_an_epoch_are_kept_and_used_as_those_of_a_shorter_training(tiny):
    words = ["method=tagan", *SHORT, "+method.training.keep=[1]"]
    early = run(*words, "+method.training.at=1")
    final = planned(*words)
    assert early.key == final.key == planned("method=tagan", *SHORT).key, "one training, whatever is kept of it"
    assert early.weights != final.weights
    assert final.weights.is_file()
    shorter = run("method=tagan", *SHORT, "method.training.epochs=1")
    assert early.weights.read_bytes() == shorter.weights.read_bytes() != final.weights.read_bytes()
    rows = [rows_of.described(configured(*words, "weights=trained", *more)) for more in ([], ["+method.training.at=1"])]
    assert rows[0] != rows[1], "two records"
    assert rows[0] == rows_of.described(configured("method=tagan", *SHORT, "weights=trained"))


def test_an_epoch_that_was_not_kept_is_refused(tiny):
    run("method=tagan", *SHORT)
    words = ["method=tagan", *SHORT, "+method.training.at=1"]
    with pytest.raises(ValueError, match=r"training\.at as one of the epochs in training\.keep, \[\], found 1"):
        run(*words)
    with pytest.raises(ValueError, match="after epoch 1, found a training that ended without keeping them"):
        run(*words, "+method.training.keep=[1]")
    with pytest.raises(ValueError, match="of epochs up to the last, 2, found 3"):
        planned(*SHORT, "method=tagan", "+method.training.keep=[1,3]")
    with pytest.raises(ValueError, match="as a list of epochs from 1, found 3"):
        planned(*SHORT, "method=tagan", "+method.training.keep=3")


def test_a_stage_is_told_what_to_keep_by_the_whole_key_alone(home):
    plain = configured("method=manigan", "+stages.main.training.keep=[1]")
    assert stages.predecessors(plain)["main"]["method"]["training"]["keep"] == [1]
    with pytest.raises(ValueError, match="expected a key of the stage main, found 'keep'"):
        configured("method=manigan", "+stages.main.keep=[1]")


def test_a_term_that_is_no_number_stops_the_run_and_names_everything(tiny, monkeypatch):
    terms = DAMSM.terms

    def diverging(self, batch):
        found = terms(self, batch)
        if self.current_epoch == 1 and self.trainer.fit_loop.epoch_loop.batch_idx == 1:
            found["L1_s"] = found["L1_s"] * float("inf")
        return found

    monkeypatch.setattr(DAMSM, "terms", diverging)
    with pytest.raises(ValueError, match="found L1_s of damsm to be inf in epoch 1, step 1: lower") as caught:
        run("method=damsm", *SHORT)
    checkpoint = Path(str(caught.value).split("last good checkpoint: ")[1])
    assert checkpoint == (planned("method=damsm", *SHORT).folder / "last.ckpt").absolute()
    kept = torch.load(checkpoint, weights_only=True)
    assert kept["epoch"] == 0
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def test_weights_that_are_no_numbers_are_never_kept(tiny, monkeypatch):
    def poisoned(self, optimizer):
        if self.current_epoch == 1 and self.trainer.fit_loop.epoch_loop.batch_idx == 2:  # the last step
            self.image_encoder.project_image.bias.grad[0] = float("nan")

    monkeypatch.setattr(DAMSM, "on_before_optimizer_step", poisoned)
    with pytest.raises(ValueError, match=r"found NaN or infinity in image_encoder\.project_image\.bias after epoch 1"):
        run("method=damsm", *SHORT)
    wanted = planned("method=damsm", *SHORT)
    assert not wanted.weights.exists()
    assert torch.load(wanted.folder / "last.ckpt", weights_only=True)["epoch"] == 0


@pytest.mark.parametrize("weights", ["trained", "none"])
def test_weights_as_asked_for(tiny, weights):
    words = ["method=damsm", "method.training.batch_size=8", f"weights={weights}"]
    plain = configured(*words)
    data = assembly.prepared_data(plain)
    if weights == "trained":
        with pytest.raises(
            MissingAsset, match=r"expected trained weights of damsm at .* run mmbench train method=damsm"
        ):
            assembly.built(plain, data)
        kept = load_file(run(*words).weights)
    method, found = assembly.built(plain, data)
    again, _ = assembly.built(plain, data)
    assert found["choice"] == weights
    assert found["verified"]
    state = method.state_dict()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in state.items()), "the seed decides"
    if weights == "trained":
        assert all(torch.equal(value, kept[name]) for name, value in state.items())
        other, from_file = assembly.built({**plain, "weights": str(planned(*words).weights)}, data)
        assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
        assert (from_file["choice"], from_file["sha256"]) == ("file", found["sha256"])
    else:
        assert found["sha256"] is None
        other, _ = assembly.built({**plain, "seed": 1}, data)
        assert not torch.equal(
            other.state_dict()["image_encoder.project_image.weight"], state["image_encoder.project_image.weight"]
        )


def test_a_method_that_does_not_learn_is_one_line(home):
    with pytest.raises(SystemExit) as caught:
        train.main(["method=identity", *DATA, "paths.assets=untouched"])
    message = str(caught.value.code)
    assert not (home / "untouched").exists(), "no data are made for it"
    assert message.startswith("mmbench: error: expected a method that learns, found identity")
    assert "\n" not in message


def test_a_run_that_diverges_ends_with_one_line(home):
    words = ["method=damsm", *DATA, "method.training.batch_size=6", "method.module.optimizer.lr=1e30"]
    with pytest.raises(SystemExit) as caught:
        train.main(words)
    message = str(caught.value.code)
    assert message.startswith("mmbench: error: expected finite losses, found L1_w of damsm to be ")
    assert "\n" not in message
