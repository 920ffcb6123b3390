"""Jobs over joblib, submitit and Ray: each result is given, who was killed is told, and tables come of it."""

import builtins
import importlib.util
import json
import operator
import os
import sys

import pytest

from mmbench.__main__ import main
from mmbench.commands import reproduce, train
from mmbench.core import application, results
from mmbench.pipeline import launching, reproducing

SMALL = ["data.source=toy", "trainer=cpu", "data.toy_images=80", "protocol.count=12"]


def engine(name, package, *marks):
    """A launcher, not run where its package is not installed."""
    namespace = importlib.util.find_spec("hydra_plugins")
    is_here = namespace is not None and importlib.util.find_spec(f"hydra_plugins.{package}") is not None
    absent = pytest.mark.skipif(not is_here, reason=f"not run: {package.replace('_', '-')} is not installed")
    return pytest.param(f"hydra/launcher={name}", marks=[absent, *marks], id=name)


JOBLIB = engine("joblib", "hydra_joblib_launcher")
SUBMITIT = engine("slurm_local", "hydra_submitit_launcher")
SLOW_SUBMITIT = engine("slurm_local", "hydra_submitit_launcher", pytest.mark.slow, pytest.mark.timeout(600))
RAY = engine("ray", "hydra_ray_launcher", pytest.mark.slow, pytest.mark.timeout(600))


@pytest.fixture
def launcher(home, monkeypatch, request):
    monkeypatch.setattr(launching, "POLL", 0.2)
    return launching.chosen([request.param, f"paths.runs={home / 'runs'}"])


def works(home, *pairs):
    return [
        launching.Work.of(function, argument, home / f"{number}.log", home / f"{number}.json")
        for number, (function, argument) in enumerate(pairs)
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("launcher", [JOBLIB, SUBMITIT, RAY], indirect=True)
def test_every_result_is_given_and_who_was_killed_is_told_from_the_others(home, launcher):
    jobs = works(home, (operator.neg, 1), (os._exit, 9), (operator.neg, 3), (builtins.print, "said"))
    jobs[1].mark.touch()  # as one that was at work leaves it
    ended = {one.index: one for one in launching.launched(jobs, launcher)}
    assert sorted(ended) == [0, 1, 2, 3]
    assert {index: one.result for index, one in ended.items()} == {0: -1, 1: None, 2: -3, 3: None}
    assert [index for index, one in ended.items() if one.died] == [1]
    said = (home / "3.log").read_text().split()  # twice, where it was begun again beside the one that died
    assert set(said) == {"said"}, "what a job prints is in its own log"


@pytest.fixture
def run(home, monkeypatch, capsys):
    """Runs a command line; exit code, and what it printed."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["mmbench", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr()

    return run


@pytest.mark.timeout(600)
@pytest.mark.parametrize("word", [JOBLIB, SLOW_SUBMITIT, RAY])
def test_rows_and_seeds_of_a_table_run_at_once_and_share_what_they_stand_on(home, run, monkeypatch, word):
    monkeypatch.setenv("MMBENCH_HOME", str(home / "own"))  # in which nothing was made yet
    words = ["experiment=demo", "method=identity,real", *SMALL]
    code, printed = run("reproduce", *words, word)
    assert code == 0, printed
    records = results.read(home / "results", "demo")
    assert sorted(record.row["method"] for record in records) == ["identity", "real"]
    assert len({record.data["fingerprint"] for record in records}) == 1
    logs = [path.read_text() for path in home.glob("runs/rows/demo/*.log")]
    assert len(logs) == 2
    assert sum(log.count("real images: ") for log in logs) == 1, "statistics of the real set are made once"
    assert sorted(line.split(": ")[2] for line in printed.err.splitlines() if ": row " in line)[0] == "row 1 of 2"
    assert list(home.glob("results/tables/demo-cub-toy.png"))
    assert not list(home.glob("runs/rows/demo/[!.]*.json")), "no row is at work or failed"
    # Once they are there, nothing is handed out; and one after the other they are the same.
    monkeypatch.setattr(launching, "launched", lambda works, _: pytest.fail("a job was sent") if works else [])
    assert run("reproduce", *words, word)[0] == 0
    assert results.read(home / "results", "demo") == records
    monkeypatch.setenv("MMBENCH_RESULTS", str(home / "other"))
    assert run("reproduce", *words)[0] == 0
    alone = results.read(home / "other", "demo")
    assert {one.run_key: one.metrics for one in alone} == {one.run_key: one.metrics for one in records}


def test_a_job_whose_process_ends_is_a_row_that_failed(home, run, monkeypatch):
    def launched(works, _):
        yield launching.Ended(1, died="Job 7 was killed", log="7.err")
        yield launching.Ended(0, reproducing.Done())

    monkeypatch.setattr(launching, "chosen", lambda _: {"_target_": "x.JoblibLauncher"})
    monkeypatch.setattr(launching, "launched", launched)
    code, printed = run("reproduce", "experiment=demo", "method=identity,real", *SMALL, "hydra/launcher=joblib")
    assert code == 1
    assert "failed (Job 7 was killed, " in printed.out
    assert "not run (no record yet)" in printed.out
    assert "1 of 2 rows did not run" in printed.out


def test_a_row_of_several_processes_is_no_job_of_an_engine(home, monkeypatch):
    job = reproducing.Job(("a", "b", "c"), "a", {}, "0" * 64, 0)
    monkeypatch.setattr(reproducing, "num_processes", lambda _: 4)
    with pytest.raises(ValueError, match=r"expected one process for each row with hydra/launcher, found 4"):
        list(reproducing._launched([job], {}))


@pytest.mark.parametrize("word", ["hydra/launcher=slurm", "hydra/sweeper=optuna"])
@pytest.mark.parametrize("command", ["reproduce", "train", "evaluate"])
def test_a_package_that_is_not_installed_is_one_line(home, run, monkeypatch, command, word):
    if command == "reproduce" and "sweeper" in word:
        pytest.skip("not run: a table has no sweeper")
    monkeypatch.setattr(application.importlib.util, "find_spec", lambda _: None)
    given = ["experiment=demo"] if command == "reproduce" else ["method=damsm", "--multirun"]
    code, printed = run(command, *given, "data.source=toy", "trainer=cpu", word)
    assert code == 1
    package, extra = ("submitit-launcher", "slurm") if "slurm" in word else ("optuna-sweeper", "optuna")
    assert printed.err.splitlines()[-1] == (
        f"mmbench: error: expected the package hydra-{package} for {word}, found none: pip install 'mmbench[{extra}]'"
    )


def test_a_launcher_that_is_none_is_one_line(home, run):
    code, printed = run("reproduce", "experiment=demo", *SMALL, "hydra/launcher=jobblib")
    assert code == 1
    assert "jobblib" in printed.err.splitlines()[-1]
    assert "Traceback" not in printed.err


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("word", [JOBLIB, SUBMITIT, RAY])
def test_a_sweep_whose_jobs_run_elsewhere_says_which_failed(home, run, word):
    code, printed = run("evaluate", "-m", "method=identity,manigan", *SMALL, word)
    assert code == 1, "nobody published weights for toy data"
    assert "expected weights of damsm that its authors published for cub (toy)" in printed.err
    assert [json.loads(path.read_text())["row"]["method"] for path in home.glob("results/*/*.json")] == ["identity"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("word", [JOBLIB])
def test_jobs_share_one_training_of_a_stage(home, run, monkeypatch, word):
    monkeypatch.setenv("MMBENCH_HOME", str(home / "own"))
    words = ["method=manigan_main", "scale=tiny", "data.source=toy", "data.toy_images=50", "trainer=cpu"]
    short = ["method.training.batch_size=15", "stages.damsm.training.batch_size=15", "stages.damsm.training.epochs=1"]
    code, printed = run("train", "-m", *words, *short, "method.training.epochs=1,2", word)
    assert code == 0, printed
    [damsm] = home.glob("runs/train/damsm-cub-toy-s0/*/log")
    assert len(list(damsm.iterdir())) == 1, "of two jobs one has trained it"
    assert len(list(home.glob("runs/train/manigan_main-cub-toy-s0/*/weights.safetensors"))) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("word", [engine("optuna", "hydra_optuna_sweeper")])
def test_optuna_looks_for_the_words_with_the_least_score(home, run, word):
    words = ["method=frame_copy,real_video", "data=moving_birds", "protocol=strict_video", "weights=none"]
    looked = ["objective=frame_psnr", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=4"]
    code, printed = run("evaluate", "-m", "hydra/sweeper=optuna", *words, *looked, "data.source=toy", "trainer=cpu")
    assert code == 0, printed
    [found] = home.glob("runs/hydra/*/*/optimization_results.yaml")
    assert "real_video" in found.read_text()


def test_a_training_takes_no_objective_from_elsewhere(home):
    with pytest.raises(ValueError, match="expected options of a training, found objective"):
        train.main(["method=damsm", "objective=fid@toy"])


def test_reproduce_sends_a_row_once_for_each_seed(home, monkeypatch):
    sent = []

    def launched(works, _):
        sent.extend(works)
        return iter([launching.Ended(index, reproducing.Done()) for index in range(len(works))])

    monkeypatch.setattr(launching, "launched", launched)
    monkeypatch.setattr(launching, "chosen", lambda _: {"_target_": "x.JoblibLauncher"})
    reproduce.main(["experiment=demo", "method=identity,real", "seeds=0,1,2", *SMALL, "hydra/launcher=joblib"])
    assert len({work.mark for work in sent}) == len(sent) == 6
