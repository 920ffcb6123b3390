"""What reaches the terminal is ours: no banner, advertisement or warning of libraries about how they are used here."""

import re
import subprocess
import sys

import pytest

TOY = ["data.source=toy", "data.toy_images=40", "trainer=cpu", "scale=tiny"]
OURS = re.compile(
    r"(drawing|decoding|training|epoch \d+ of \d+:|generating:|scoring:|halves of the images:|real images:|weights:"
    r"|log:|next:|images:|grid:|record:|[a-z0-9_@]+ +-?\d+\.\d{4} )"
)


@pytest.mark.parametrize(
    "words",
    [
        [
            *("train", "method=manigan_main", "method.training.epochs=1", "method.training.batch_size=15"),
            *("stages.damsm.training.epochs=1", "stages.damsm.training.batch_size=15"),
        ],
        ["evaluate", "method=manigan", "weights=none", "data.module.num_workers=1"],
    ],
    ids=lambda words: words[0],
)
def test_every_line_is_ours(home, monkeypatch, words):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of which nothing is to be said on a busy machine
    run = subprocess.run([sys.executable, "-m", "mmbench", *words, *TOY], cwd=home, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = [*run.stdout.splitlines(), *run.stderr.splitlines()]
    assert len(lines) >= 5
    assert [line for line in lines if not OURS.match(line)] == []


WARNING = """
import logging, sys, warnings
from mmbench.core import quiet
quiet.quieten()
import pytorch_lightning
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
rank_zero_info("a banner")
lightning = ["pytorch_lightning.loops.fit_loop", "lightning_fabric.plugins"]
for module in [*lightning, "mmbench.data.x", "a_users_own", "torch.cuda"]:
    warnings.warn_explicit(f"of {module}", UserWarning, "file.py", 1, module)
logging.getLogger("a_users_own").warning("logged")
"""


@pytest.mark.parametrize("asked", [False, True])
def test_warnings_of_others_are_shown_and_all_where_python_is_asked_for_them(asked):
    command = [sys.executable, *(["-W", "default"] if asked else []), "-c", WARNING]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    shown = re.findall(r"UserWarning: of (\S+)", run.stderr)
    own = ["mmbench.data.x", "a_users_own", "torch.cuda"]
    assert shown == ["pytorch_lightning.loops.fit_loop", "lightning_fabric.plugins", *own] if asked else shown == own
    assert "banner" not in run.stdout + run.stderr
    assert "logged" in run.stderr
