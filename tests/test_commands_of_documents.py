"""Every command line of the READMEs and CONTRIBUTING.md does what it says: run on toy data, composed, or expanded.

A line that `HOW` does not name makes a test fail: say there how it is tried.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmbench.__main__ import main
from mmbench.core import config

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "results/README.md", "CONTRIBUTING.md")
COMMAND = re.compile(r"(\w+=\S+ )*(mmbench|make|pytest|\.venv/bin/\w+|\.ci/run)( |$)")


class Run(tuple):
    """Runs, with these words added that make it small or keep it off the network."""


class Composed(str):
    """Trains for minutes, or needs what was trained so, or photographs, as it says: `--cfg job` composes it."""


class Refused(str):
    """Needs what is not here: one line says so, which names this."""


class Expanded(str):
    """Takes minutes: `make --dry-run` shows what it would run, of which this is a part."""


class Named(str):
    """No command line but the name of one, or what runs these tests."""


SMALL = ("trainer=cpu", "data.toy_images=40")
TOY = ("extractor=toy", "trainer=cpu")
MINUTES = "it trains for minutes"
HOW = {
    "make demo": Expanded("mmbench reproduce experiment=demo data.source=toy"),
    "make demo-seeds": Expanded("mmbench reproduce experiment=demo_seeds data.source=toy"),
    "make test": Expanded("-m pytest"),
    "make lint test": Expanded("ruff check ."),
    "make": Expanded("make %-22s"),
    "make report": Expanded("mmbench report"),
    "make tables": Expanded("mmbench table"),
    "make bench-train": Expanded("-m mmbench.benchmarks.training"),
    "make bench-sample": Expanded("-m mmbench.benchmarks.sampling"),
    "make bench-report": Expanded("-m mmbench.benchmarks.report"),
    "make bench-data": Expanded("-m mmbench.benchmarks.data"),
    "make bench-metrics": Expanded("-m mmbench.benchmarks.metrics"),
    "make train-manigan DATA=toy": Expanded("mmbench train method=manigan data.source=toy"),
    "make reproduce-manigan DATA=toy": Expanded("mmbench reproduce experiment=manigan data.source=toy"),
    "make reproduce-manigan DATA=real": Expanded("mmbench reproduce experiment=manigan data.source=real"),
    "make reproduce-inpainting_area DATA=toy": Expanded("mmbench reproduce experiment=inpainting_area data.source=toy"),
    "make reproduce-inpainting_hole DATA=toy": Expanded("mmbench reproduce experiment=inpainting_hole data.source=toy"),
    "make reproduce-synthesis_toy DATA=toy": Expanded("mmbench reproduce experiment=synthesis_toy data.source=toy"),
    "make reproduce-tdanet DATA=toy": Expanded("mmbench reproduce experiment=tdanet data.source=toy"),
    "make reproduce-tdanet_guidance DATA=toy": Expanded("mmbench reproduce experiment=tdanet_guidance data.source=toy"),
    "make reproduce-tokens_diffusion_toy DATA=toy": Expanded(
        "mmbench reproduce experiment=tokens_diffusion_toy data.source=toy"
    ),
    "make reproduce-guidance_toy DATA=toy": Expanded("mmbench reproduce experiment=guidance_toy data.source=toy"),
    "make reproduce-sampling_steps_toy DATA=toy": Expanded(
        "mmbench reproduce experiment=sampling_steps_toy data.source=toy"
    ),
    "make reproduce-manipulation_toy DATA=toy": Expanded(
        "mmbench reproduce experiment=manipulation_toy data.source=toy"
    ),
    "make reproduce-adm DATA=real": Expanded("mmbench reproduce experiment=adm data.source=real"),
    "make reproduce-dfgan DATA=real": Expanded("mmbench reproduce experiment=dfgan data.source=real"),
    "make table-manigan": Expanded("mmbench table experiment=manigan data.source=real"),
    "make drill": Named("test_drill.py runs a short one"),
    "make resume-manigan": Expanded("mmbench reproduce experiment=manigan data.source=real"),
    "mmbench reproduce experiment=demo data.source=toy hydra/launcher=joblib hydra.launcher.n_jobs=4": Named(
        "test_launching.py runs it on fewer images"
    ),
    "mmbench reproduce experiment=manigan hydra/launcher=slurm hydra.launcher.partition=gpu "
    "hydra.launcher.gpus_per_node=1": Named("needs Slurm"),
    "mmbench reproduce experiment=manigan hydra/launcher=ray hydra.launcher.ray.init.address=auto": Named("needs Ray"),
    "mmbench evaluate --multirun hydra/sweeper=optuna objective=fid@toy weights=trained": Named("without its words"),
    "mmbench status experiment=demo data.source=toy": Run(),
    "mmbench status": Named("without its words"),
    "mmbench lint": Run(),
    "mmbench list": Run(),
    "mmbench list group=mask": Run(),
    "mmbench table experiment=demo data.source=toy format=latex": Run(),
    "mmbench table experiment=demo data.source=toy by=caption_length": Refused("expected records of demo with values"),
    "mmbench power experiment=demo_seeds data.source=toy": Refused(
        "expected two rows of demo_seeds with values by sample"
    ),
    "mmbench report experiment=demo out=site": Run(),
    "mmbench prepare data=cub data.source=toy": Run(SMALL[1:]),
    "mmbench evaluate method=real_video data=moving_birds data.source=toy protocol=strict_video weights=none": Run(
        SMALL
    ),
    "mmbench explain record=strict against=manigan method=real data=cub data.source=toy": Run(SMALL),
    "mmbench score fake=DIR real=DIR metrics=fid,is,lpips": Run(TOY),
    "mmbench score fake=out/ input=in/ captions=prompts.json protocol=strict extractor=standard": Refused("expected "),
    "mmbench score fake=samples.zip data=coco metrics=fid,kid,precision,recall workers=4": Refused("expected "),
    "mmbench explain record=results/x/RECORD.json against=published experiment=manigan": Refused("RECORD.json"),
    "mmbench reproduce experiment=manigan data.source=toy method=manigan data=cub": Refused("1 of 1 rows did not run"),
    "mmbench grid kind=captions method=tdanet data=cub data.source=toy protocol=strict_inpainting_object "
    "weights=trained": Refused("expected trained weights of "),
    "mmbench train method=manigan data=cub data.source=toy": Composed(MINUTES),
    "mmbench evaluate method=manigan data=cub data.source=toy weights=trained": Composed(MINUTES),
    "mmbench evaluate method=projector data=celeba_hq data.source=toy protocol=strict_reconstruction "
    "weights=trained": Composed(MINUTES),
    "mmbench evaluate method=showtell data=coco data.source=toy protocol=karpathy weights=trained": Composed(MINUTES),
    "mmbench evaluate method=ldm data.source=toy protocol=strict_synthesis_64 weights=trained "
    "method.sampling.num_steps=50 method.sampling.guidance=4": Composed(MINUTES),
    "mmbench evaluate method=ldm data.source=toy protocol=strict_synthesis_64 weights=trained "
    "method.sampling.sampler._target_=mmbench.diffusion.samplers.dpm_solver_pp_2m": Composed(MINUTES),
    "mmbench train method=tagan scale=toy data=cub data.root=FOLDER data.module.complete=false": Composed(
        "photographs"
    ),
    "mmbench train method=damsm data=cub data.source=toy profile=true": Composed(MINUTES),
    "mmbench study build experiment=tdanet kind=ranks n=20 raters=5 real=true data.source=toy": Refused(
        "expected rows of tdanet with pictures"
    ),
    "mmbench study score answers/ key=key.json": Refused("key.json: expected "),
    "mmbench wandb experiment=manigan": Refused("expected "),
    "mmbench prepare data=cub": Named("fetches a gigabyte; test_prepare.py tries it with a server of its own"),
    ".venv/bin/mmbench": Named("where it lies"),
    ".ci/run": Named("runs these tests"),
    "pytest tests/parity": Named("is run with these tests"),
    "mmbench grid": Named("without its words"),
    "mmbench prepare": Named("without its words"),
    "mmbench explain": Named("without its words"),
}


def written() -> list[str]:
    """Command lines of the documents, in code blocks and in the text, without their comments; each once."""
    found = []
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        block = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
        found += [line for lines in block.findall(text) for line in lines.splitlines()]
        found += [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", block.sub("", text))]
    lines = (line.partition(" #")[0].strip() for line in found if COMMAND.match(line))
    return list(dict.fromkeys(lines))


def lines(kind):
    return [pytest.param(line, id=line) for line in written() if isinstance(HOW.get(line), kind)]


def test_every_line_is_tried_and_every_try_is_of_a_line():
    assert set(written()) == set(HOW)


@pytest.fixture
def images(home):
    """What the lines call `DIR`, `out/`, `in/`, `prompts.json` and `samples.zip`: 12 pictures."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), np.uint8)
    for folder in ("DIR", "out", "in"):
        (home / folder).mkdir()
        for name, image in enumerate(pixels):
            Image.fromarray(image).save(home / folder / f"{name}.png")
    (home / "prompts.json").write_text(json.dumps({str(name): "a red bird" for name in range(12)}))
    shutil.make_archive("samples", "zip", home / "out")


def run(line, more, monkeypatch):
    monkeypatch.setattr(sys, "argv", [*line.split(), *more])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.parametrize("line", lines(Run))
def test_it_runs(images, monkeypatch, capsys, line):
    assert run(line, HOW[line], monkeypatch) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("line", lines(Composed))
def test_it_composes(home, monkeypatch, capsys, line):
    assert run(line, ["--cfg", "job"], monkeypatch) == 0
    method = re.search(r"method=(\w+)", line)[1]
    assert f"name: {method}\n" in capsys.readouterr().out
    assert config.composed(line.split()[2:])["method"]["name"] == method


@pytest.mark.parametrize("line", lines(Refused))
def test_what_it_lacks_is_one_line(images, monkeypatch, capfd, line):
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing is fetched
    monkeypatch.setattr("mmbench.pipeline.reproducing.trained", absent)
    assert run(line, [] if {"score", "wandb"} & set(line.split()) else ["trainer=cpu"], monkeypatch) == 1
    out, errors = capfd.readouterr()
    assert HOW[line] in out + errors
    assert "Traceback" not in errors


def absent(*_):
    raise ValueError("expected a longer test, found this one: train it by hand")


@pytest.mark.parametrize("line", lines(Expanded))
def test_make_runs_what_it_says(line):
    environment, make, targets = line.rpartition("make")[0].split(), "make", line.rpartition("make")[2].split()
    command = ["env", *environment, make, "--dry-run", "--always-make", *targets]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert HOW[line] in run.stdout
