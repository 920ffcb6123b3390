"""Mirrors of a run: built from one YAML each, named after the run, and never in its way."""

import errno
import json
import os
import re
import sys
import threading
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from mmbench.__main__ import main
from mmbench.core import catalogue, composition, config
from mmbench.pipeline import assembly, experiment_files, mirrors, publications, training, workspace
from mmbench.pipeline.cells import Cell, Value, Verdict

TOY = ["data.source=toy", "data.toy_images=40", "trainer=cpu", "method.training.batch_size=8"]
FACTS = {name: f"the {name}" for name in mirrors.FACTS}
SEEN = []  # by a Recorder
GOES_ON = threading.Event()


class Recorder:
    """Remembers what it is told."""

    def __init__(self, **options):
        SEEN.append(("built", options))

    def __getattr__(self, name):
        if not name.startswith("log_") and name != "finalize":
            raise AttributeError(name)
        return lambda *args, **kwargs: SEEN.append((name, *args, kwargs))


class FullDisk(Recorder):
    def log_metrics(self, metrics, step=None):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Hanging(Recorder):
    def log_metrics(self, metrics, step=None):
        GOES_ON.wait()


class Uninstalled:
    def __init__(self):
        raise ModuleNotFoundError("No module named 'elsewhere'.\nAnd so on.")


@pytest.fixture(autouse=True)
def _nothing_seen():
    SEEN.clear()
    GOES_ON.clear()
    yield
    GOES_ON.set()


def node(kind, **options):
    return {"_target_": f"{__name__}.{kind.__name__}", **options}


def trained(*words):
    plain = config.composed([*TOY, "method=damsm", "method.training.epochs=2", *words])
    return training.trained(plain, assembly.prepared_data(plain))


@pytest.mark.parametrize("name", [name for name in catalogue.names("logger") if name != "csv"])
def test_every_logger_takes_the_facts_of_a_run_and_options_of_the_command_line(name):
    plain = config.composed(["method=identity", f"logger={name}"])
    (block,) = plain["logger"].values()
    filled = mirrors._filled(block, FACTS, "")
    assert not re.findall(r"\{\w+\}", json.dumps(filled))
    assert "the id" in str(filled)
    option = next(key for key in block if key != "_target_")
    changed = config.composed(["method=identity", f"logger={name}", f"logger.{name}.{option}=mine"])
    assert changed["logger"][name][option] == "mine"


def test_no_logger_is_a_csv_file_alone():
    assert config.composed(["method=identity"])["logger"] == {}


def test_a_logger_changes_neither_weights_nor_keys_and_hears_of_losses_by_stable_names(tiny):
    tiny.change("logger/csv", {"recorder": node(Recorder, called="{job} {group} {seed} {data}")})
    heard = trained("experiment=mine")
    assert SEEN[0] == ("built", {"called": "train mine 0 cub (toy)"})
    (_, described, _), *_ = [entry for entry in SEEN if entry[0] == "log_hyperparams"]
    assert described["seed"] == 0
    logged = [entry[1] for entry in SEEN if entry[0] == "log_metrics"]
    assert len(logged) == 2, "one for each epoch"
    assert {"damsm/L1_w", "damsm/L1_s", "images_per_second", "epoch"} <= logged[0].keys()
    assert SEEN[-1][:2] == ("finalize", "success")
    tiny.change("logger/csv", {"recorder": None})
    (tiny.folder / "logger" / "csv.yaml").write_text("# None\n{}\n")
    composition.forget()
    silent = trained("paths.runs=silent")
    assert silent.key == heard.key
    assert silent.weights.read_bytes() == heard.weights.read_bytes()


def test_a_full_disk_of_a_mirror_is_a_line_and_no_end_of_a_training(tiny, capfd):
    tiny.change("logger/csv", {"full": node(FullDisk)})
    assert trained().weights.is_file()
    shown = capfd.readouterr().err
    assert shown.count("logger full: lost (OSError: [Errno 28] No space left on device)") == 1
    assert shown.count("epoch 2 of 2") == 1


def test_a_mirror_that_hangs_is_not_waited_for(monkeypatch, capfd):
    monkeypatch.setattr(mirrors, "PATIENCE", 0.1)
    (mirror,) = mirrors.mirrors({"slow": node(Hanging)}, FACTS, {})
    for step in range(mirrors.HELD + 10):  # more than it holds
        mirror.log_metrics({"loss": 1.0}, step)
    mirror.finalize("success")
    assert "logger slow: 10000 calls behind" in capfd.readouterr().err
    (mirror,) = mirrors.mirrors({"slow": node(Hanging)}, FACTS, {})
    mirror.log_metrics({"loss": 1.0}, 0)
    mirror.finalize("success")
    assert "logger slow: not done within 0 s, and not waited for" in capfd.readouterr().err
    held = mirror._calls.qsize()
    mirror.log_metrics({"loss": 1.0}, 1)
    assert mirror._calls.qsize() == held, "what is over takes nothing in"


def test_a_missing_package_is_one_line_before_the_work():
    with pytest.raises(ValueError, match="found none") as caught:
        mirrors.require_loggers({"elsewhere": node(Uninstalled)})
    expected = "expected what logger=elsewhere needs, found none (No module named 'elsewhere'): pip install "
    assert str(caught.value) == f"{expected}'mmbench[elsewhere]'"


@pytest.mark.parametrize("text", ["{jub}", "{", "{job.real}", "{}"])
def test_what_is_no_fact_of_a_run_is_refused_before_the_work(text):
    with pytest.raises(ValueError, match=r"expected .*logger\.mine\.called"):
        mirrors.require_loggers({"mine": node(Recorder, called=text)})


def test_published_values_stand_beside_the_scores_that_they_are_compared_with():
    experiment = experiment_files.load("manigan")
    row = next(row for row in experiment.rows if row.method == "manigan" and row.data == "cub")
    numbers = publications.published(experiment, row)
    names = {shown: experiment.metric(shown, row, "real") for shown in experiment.places}
    record = SimpleNamespace(
        experiment="manigan",
        row={"method": "manigan", "data": "cub", "source": "real"},
        protocol={"name": experiment.protocols("cub")[0]},
        metrics=dict.fromkeys(names.values()),
    )
    found = publications.printed(record)
    assert found == {names[shown]: number.value for shown, number in numbers.items()}
    assert found
    record.row["source"] = "toy"
    assert publications.printed(record) == {}, "photographs' numbers are no reference for toy data"
    record.row["source"], record.protocol["name"] = "real", "strict"
    assert publications.printed(record) == {}, "another protocol"
    record.experiment = "of mine"
    assert publications.printed(record) == {}


def test_a_table_is_a_table_of_a_run_of_its_own(tmp_path):
    experiment = experiment_files.load("manigan").on("toy")
    cells = [
        Cell("A", "CUB", (64, 64), 1, "IS", None, Value({0: 2.5}, 2.5), Verdict.UNPUBLISHED),
        Cell("A", "CUB", (64, 64), 0, "sim", None, Value(reason="no record yet"), Verdict.NOT_RUN),
    ]
    logger = {"mine": node(Recorder, called="{job} {group} {id}")}
    plain = {"logger": logger, "paths": {"runs": str(tmp_path)}}
    for _ in range(2):
        mirrors.show_table(experiment, "toy", [0], plain, cells, [tmp_path / "manigan-cub-toy.png"])
    first, second = (entry for entry in SEEN if entry[0] == "built")
    assert first == second, "the same run goes on"
    assert first[1]["called"].startswith("table manigan table-")
    (_, counts, _), *_ = [entry for entry in SEEN if entry[0] == "log_metrics"]
    assert counts == {"verdict/no published value": 1, "verdict/not run": 1}
    (_, key, table), *_ = [entry for entry in SEEN if entry[0] == "log_table"]
    assert key == "table"
    assert [line[table["columns"].index("reproduced")] for line in table["data"]] == ["2.5000", "-"]
    (_, key, paths, _), *_ = [entry for entry in SEEN if entry[0] == "log_image"]
    assert (key, paths) == ("manigan-cub-toy", [str(tmp_path / "manigan-cub-toy.png")])


def needs(package):
    return pytest.mark.skipif(find_spec(package) is None, reason=f"not run: {package} is not installed")


@needs("tensorboard")
def test_tensorboard_holds_what_was_logged(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _logged("tensorboard", tmp_path)
    (folder,) = (tmp_path / "tensorboard").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("score/psnr")] == [(3, 2.5)]


@needs("mlflow")
def test_mlflow_holds_what_was_logged(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _logged("mlflow", tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = client.get_experiment_by_name("mine")
    (run,) = client.search_runs([found.experiment_id])
    assert run.data.metrics["score/psnr"] == 2.5
    assert {"job": "train", "seed": "7"}.items() <= run.data.tags.items()
    assert run.info.status == "FINISHED"


def _logged(name, folder):
    """One value logged by a logger of ours, of a run in a folder."""
    plain = config.composed(["method=identity", f"logger={name}", f"paths.runs={folder}"])
    mirrors.require_loggers(plain["logger"])
    facts = {**FACTS, "group": "mine", "job": "train", "seed": "7", "id": "train-1", "folder": str(folder)}
    (mirror,) = mirrors.mirrors(plain["logger"], facts, {"a": {"b": [1, 2]}, "seed": 7})
    mirror.log_metrics({"score/psnr": 2.5}, step=3)
    mirror.save()
    mirror.finalize("success")


# The workspace.


@needs("wandb_workspaces")
@pytest.mark.parametrize("name", catalogue.names("experiment"))
def test_a_workspace_shows_every_score_beside_its_published_value_and_groups_runs(name):
    experiment = experiment_files.load(name)
    source = experiment.sources[0]
    made = workspace.specification(workspace.workspace(experiment.on(source), source, "me", "mmbench"))
    told = json.dumps(made)
    for score in workspace.scores(experiment.on(source), source):
        assert json.dumps([f"score/{score}", f"published/{score}"]) in told
    (runs,) = made["spec"]["section"]["runSets"]
    assert [key["name"] for key in runs["grouping"]] == ["group", "jobType", "seed.value"]
    assert name in json.dumps(runs["filters"])


def test_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setattr("sys.argv", ["mmbench", "wandb", "experiment=demo", "dry_run=true"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    found = "mmbench: error: expected the package wandb-workspaces, found none: pip install 'mmbench[workspaces]'\n"
    assert capsys.readouterr().err == found


@pytest.mark.parametrize("words", [[], ["experiment=demo", "seed=1"], ["experiment=demo", "dry_run=maybe"]])
def test_the_command_obeys_or_refuses_every_word(monkeypatch, capsys, words):
    monkeypatch.setattr("sys.argv", ["mmbench", "wandb", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("mmbench: error: expected ")
