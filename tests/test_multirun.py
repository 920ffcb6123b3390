"""Sweeps: every job of `--multirun` runs and leaves its record, wherever the flag stands and whatever is swept."""

import json
import sys

import pytest

from mmbench.__main__ import main

TOY = ["data.source=toy", "data.toy_images=50", "trainer=cpu"]  # of which 10 faces are test images, as IS needs
SHORT = ["method.training.epochs=1", "method.training.batch_size=15", "scale=tiny"]


@pytest.fixture
def run(home, monkeypatch):
    """Runs a command line; its exit code."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["mmbench", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    return run


def records(home):
    """What is swept, of each record."""
    found = [json.loads(path.read_text()) for path in home.glob("results/*/*.json")]
    return sorted(
        (one["row"]["method"], one["row"]["data"], one["protocol"]["name"].removesuffix("-toy"), one["seed"])
        for one in found
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--multirun", "method=identity,real", "seed=0,1"], [(m, "cub", "strict", s) for m in "ir" for s in (0, 1)]),
        pytest.param(
            ["method=identity", "-m", "data=cub,celeba_hq"],
            [("i", d, "strict", 0) for d in ("cub", "celeba_hq")],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["protocol=strict,manigan", "method=identity", "seed=range(2,4)", "--multirun"],
            [("i", "cub", p, s) for p in ("manigan", "strict") for s in (2, 3)],
            marks=pytest.mark.slow,
        ),
        (["-m", "method=glob(id*)", "experiment=choice(a,b)"], [("i", "cub", "strict", 0)] * 2),
        (["hydra.mode=MULTIRUN", "method=real", "seed=0,3"], [("r", "cub", "strict", s) for s in (0, 3)]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value[0], str) else "",
)
def test_evaluate_sweeps(run, home, words, expected):
    methods = {"i": "identity", "r": "real"}
    assert run("evaluate", *words, *TOY) == 0
    assert records(home) == sorted((methods[method], *rest) for method, *rest in expected)
    assert {path.name for path in home.iterdir()} == {"results", "runs"}, "nothing else lies in the working directory"
    assert len(list(home.glob("runs/hydra/*/*/*/.hydra"))) == len(expected), "each job has a folder"


def test_train_sweeps_over_keys_of_stages(run, home):
    words = ["stages.damsm.training.epochs=1,2", "stages.damsm.training.batch_size=15"]
    assert run("train", "method=manigan_main", *words, "--multirun", *TOY, *SHORT) == 0
    assert len(list(home.glob("runs/train/damsm-cub-toy-s0/*/weights.safetensors"))) == 2
    assert len(list(home.glob("runs/train/manigan_main-cub-toy-s0/*/weights.safetensors"))) == 2


def test_a_job_that_fails_is_one_line_and_the_others_run(run, home, capfd):
    assert run("evaluate", "-m", "method=real,manigan,identity", *TOY) == 1  # nobody published weights for toy data
    assert [record[0] for record in records(home)] == ["identity", "real"]
    lines = [line for line in capfd.readouterr().err.splitlines() if "error" in line.lower()]
    assert len(lines) == 1
    assert lines[0].startswith("mmbench: error: expected weights of damsm that its authors published for cub (toy)")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=identity,real"], "expected one value of method, found identity,real: add --multirun for a sweep"),
        (["method=real", "seed=range(0,3)"], "expected one value of seed, found range(0,3): add --multirun"),
        (["-m", "method=real", "seed=interval(0,3)"], "expected values of seed one by one, found interval(0,3)"),
        (["-m", "method=glob(nothing*)"], "expected a method, found 'glob(nothing*)': choose from "),
        (["-m", "method=real,identiy"], "expected a method, found 'identiy': did you mean identity"),
        (["-m", "seed=0,1"], "expected method=NAME, found none: choose from "),
        (["method=real", "sede=0,1", "-m"], "expected a configuration key, found 'sede': did you mean seed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_runs(run, home, capfd, words, message):
    assert run("evaluate", *words, *TOY) == 1
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith(f"mmbench: error: {message}")
    assert not list(home.iterdir())


def test_two_sweeps_that_start_in_one_second_have_folders_of_their_own(run, home):
    for _ in range(2):
        run("evaluate", "-m", "method=identity", "seed=0", *TOY, "data.module.image_size=-1")  # fails at once
    assert len(list(home.glob("runs/hydra/*/*/0/.hydra"))) == 2
