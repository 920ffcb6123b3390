"""Where the time of a training goes: by structure, never by how long anything takes."""

import csv
import json
import math
from collections import Counter

import pytest
import torch
from torch import nn

from mmbench.core import config
from mmbench.pipeline import assembly, profiling, stages, training

TOY = ["data.source=toy", "data.toy_images=40", "trainer=cpu", "method.training.batch_size=8"]
NAMES = {"data", "forward", "backward", "optimiser", "metrics", "writing", "other"}


def trained(*words):
    plain = config.composed([*TOY, *words])
    return training.trained(plain, assembly.prepared_data(plain))


def logged(folder):
    """Every value of the log by its name, in the order of rows."""
    (path,) = folder.glob("log/*/metrics.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows if row[name]] for name in rows[0]}


def counting(function, name, calls):
    def called(*args, **kwargs):
        calls[name] += 1
        return function(*args, **kwargs)

    return called


# Of one optimiser stepped by Lightning, and of several stepped by hand.
@pytest.mark.parametrize("method", ["damsm", "tagan"])
def test_shares_name_every_part_and_sum_to_one_in_table_log_and_record(tiny, capfd, method):
    done = trained(f"method={method}", "method.training.epochs=2", "profile=true")
    told = json.loads((done.folder / "training.json").read_text())
    shares = told["profile"]
    assert shares.keys() == NAMES
    assert math.isclose(sum(shares.values()), 1)
    for part in NAMES - {"metrics"}:
        assert shares[part] > 0, part
    assert shares["metrics"] == 0, "nothing is scored while this trains"
    log = logged(done.folder)
    assert {part: float(*log[f"profile/{part}"]) for part in NAMES} == shares
    shown = capfd.readouterr().err
    assert all(part in shown for part in NAMES)


def test_scoring_for_a_selection_is_metrics(tiny):
    done = trained("method=showtell", "data=coco", "method.training.epochs=1", "profile=true")
    assert json.loads((done.folder / "training.json").read_text())["profile"]["metrics"] > 0


@pytest.mark.parametrize("method", ["damsm", "tagan"])
def test_every_backward_and_every_step_is_one_of_its_part(tiny, monkeypatch, method):
    entered = Counter()
    start = profiling.Parts.start

    def counted(self, action_name):
        before = self._inside[-1]
        start(self, action_name)
        if self._inside[-1] != before:
            entered[self._inside[-1]] += 1

    calls = Counter()
    for owner, name in ((torch.Tensor, "backward"), (torch.optim.Adam, "step")):
        monkeypatch.setattr(owner, name, counting(getattr(owner, name), name, calls))
    monkeypatch.setattr(profiling.Parts, "start", counted)
    trained(f"method={method}", "method.training.epochs=1", "profile=true")
    assert calls["backward"] == calls["step"] > 0
    assert entered["backward"] == calls["backward"]
    assert entered["optimiser"] >= calls["step"]


def test_an_action_within_another_takes_its_time_from_it(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: next(clock))
    parts = profiling.Parts()
    with parts.profile("[Strategy]Any.training_step"):  # 0 to 1 is other
        with parts.profile("[Callback]X.on_anything"):
            pass
        with parts.profile("backward"):  # 1 to 2 is forward
            pass
        with parts.profile("optimizer_step"), parts.profile("[LightningModule]X.on_before_optimizer_step"):
            pass
    assert parts.seconds == {**dict.fromkeys(NAMES, 0.0), "other": 1, "forward": 3, "backward": 1, "optimiser": 1}


def test_a_profile_is_no_part_of_what_a_run_is(tiny):
    plain, profiled = (config.composed(["method=damsm", *TOY, *words]) for words in ([], ["profile=true"]))
    assert stages.known_stage(plain, "").key == stages.known_stage(profiled, "").key


@pytest.mark.parametrize("words", [["profile=maybe"], ["profile=true", "+trainer.profiler=simple"]])
def test_what_no_profile_can_be_is_refused(words):
    with pytest.raises(ValueError, match=r"expected .*profile"):
        config.composed(["method=damsm", *words])


def test_a_training_reports_its_speed(tiny, capfd):
    done = trained("method=damsm", "method.training.epochs=2")
    assert capfd.readouterr().err.count(" images_per_second ") == 2
    told = json.loads((done.folder / "training.json").read_text())
    speeds = [float(speed) for speed in logged(done.folder)["images_per_second"]]
    assert len(speeds) == 2
    assert told["images_per_second"] == pytest.approx(speeds[-1])
    assert not {"images_per_second", "peak_memory_GiB"} & told["terms"].keys(), "they are no losses"
    assert "profile" not in told
    assert "peak_memory_GiB" not in told, "there is no device with a memory of its own"


def test_speed_counts_the_images_of_all_processes(monkeypatch):
    clock = iter([10.0, 14.0])
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: next(clock))
    module, said = nn.Linear(1, 1), {}
    module.device, module.log = torch.device("cpu"), lambda name, value, **_: said.update({name: value})
    trainer = type("Several", (), {"world_size": 3})
    throughput = profiling.Throughput()
    throughput.on_train_epoch_start(trainer, module)
    for size in (8, 4):
        throughput.on_train_batch_end(trainer, module, None, {"id": ["an image"] * size}, 0)
    throughput.on_train_epoch_end(trainer, module)
    assert said == throughput.found == {"images_per_second": (8 + 4) * 3 / 4}


@pytest.mark.gpu
def test_on_a_gpu_the_device_is_waited_for_and_memory_is_reported(tiny, monkeypatch):
    waited = []
    synchronize = torch.cuda.synchronize
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *device: (waited.append(device), synchronize(*device)))
    done = trained("method=tagan", "method.training.epochs=1", "profile=true", "trainer.accelerator=gpu")
    told = json.loads((done.folder / "training.json").read_text())
    assert waited
    assert math.isclose(sum(told["profile"].values()), 1)
    assert told["peak_memory_GiB"] > 0
    assert float(*logged(done.folder)["peak_memory_GiB"]) == pytest.approx(told["peak_memory_GiB"])
