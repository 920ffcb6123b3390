"""The command line: one line for a mistake, the nearest names, and toy blocks that the command line overrules."""

import os
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from mmbench.core import config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=identty"], "expected a method, found 'identty': did you mean identity?"),
        (["method=identity", "data=cup"], "expected a data set, found 'cup': did you mean cub?"),
        (
            ["method=identity", "data.sorce=toy"],
            "expected a configuration key, found 'data.sorce': did you mean data.source",
        ),
        (["method=identity", "sed=1"], "expected a configuration key, found 'sed': did you mean seed"),
        (["method=identity", "data.toy.image_size=32"], "expected a configuration key, found 'data.toy.image_size'"),
        (["method=identity,reel"], "expected a method, found 'reel': did you mean real?"),
        (["method"], "expected key=value, found 'method'"),
        (["data=cub"], "expected method=NAME, found none: choose from"),
    ],
)
def test_a_misspelt_word_names_the_nearest(words, message):
    with pytest.raises(ValueError, match="expected") as caught:
        config.composed(words)
    assert str(caught.value).startswith(message)


def test_toy_blocks_apply_to_toy_data_and_the_command_line_overrules_them():
    real = config.composed(["method=identity"])
    toy = config.composed(["method=identity", "data.source=toy"])
    mine = config.composed(["method=identity", "data.source=toy", "data.module.image_size=32"])
    assert real.data.module.image_size == 256
    assert toy.data.module.image_size == 64
    assert mine.data.module.image_size == 32
    assert toy.protocol.name == "manigan-toy"
    assert "toy" not in real.data


def test_a_toy_block_replaces_what_says_how_to_build_and_merges_the_rest():
    cfg = OmegaConf.create(
        {
            "method": {
                "name": "m",
                "module": {"_target_": "a.B", "width": 64, "depth": 2},
                "toy": {"module": {"width": 8}},
            },
            "data": {"name": "d", "source": "toy"},
            "protocol": {
                "extractors": {"clip": {"_target_": "big.Clip", "card": "x"}},
                "toy": {"extractors": {"clip": {"_target_": "small.Clip", "size": 1}}},
            },
        }
    )
    plain = config.plain(config.settled(cfg, []))
    assert plain["method"]["module"] == {"_target_": "a.B", "width": 8, "depth": 2}
    assert plain["protocol"]["extractors"]["clip"] == {"_target_": "small.Clip", "size": 1}


def test_hash_ignores_where_files_lie_and_how_work_is_cut():
    here = {"data": {"root": "a", "batch_size": 1, "num_workers": 0, "split": "test"}}
    there = {"data": {"root": "b", "batch_size": 9, "num_workers": 4, "split": "test"}}
    other = {"data": {"root": "a", "batch_size": 1, "num_workers": 0, "split": "train"}}
    assert config.config_hash(here) == config.config_hash(there) != config.config_hash(other)


def test_lists_of_words_and_integers():
    assert config.words("a,b") == config.words("[a, b]") == ["a", "b"]
    assert config.integers("0,1") == [0, 1]
    with pytest.raises(ValueError, match="expected integers"):
        config.integers("0,x")


def _mmbench(*words, **kwargs):
    return subprocess.run([sys.executable, "-m", "mmbench", *words], capture_output=True, text=True, **kwargs)


def test_a_mistake_on_the_command_line_is_one_line_and_no_traceback(tmp_path):
    for words in (["evaluate", "method=identty"], ["reproduce", "experiment=manigum"], ["tabel"], ["list", "grp=x"]):
        done = _mmbench(*words, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert "did you mean" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["train", "evaluate", "reproduce", "prepare", "table", "list"])
def test_every_command_has_help(command, tmp_path):
    done = _mmbench(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: mmbench {command}")


def test_configuration_can_be_printed_and_names_completed(tmp_path):
    done = _mmbench("evaluate", "method=real", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mmbench.methods.reference.Real" in done.stdout
    environment = {**os.environ, "COMP_LINE": "mmbench evaluate method=", "COMP_POINT": "24"}
    done = _mmbench("-sc", "query=bash", cwd=tmp_path, env=environment)
    assert {"method=identity", "method=real"} <= set(done.stdout.split())
