"""The command line: one line for a mistake, the nearest names, and toy blocks that the command line overrules."""

import os
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from mmbench.__main__ import COMMANDS, main
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
        (
            ["metod=identity"],
            "expected a configuration key, found 'metod': did you mean method or method.name or method.",
        ),
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


def test_no_name_is_suggested_twice():
    with pytest.raises(ValueError, match=r"found 'dat': did you mean date or data\?$"):
        config.unknown("word", "dat", ["date", "data", "data"])
    with pytest.raises(ValueError, match=r"found 'x': choose from data, date$"):
        config.unknown("word", "x", ["date", "data", "data"])


def test_toy_blocks_apply_to_toy_data_and_the_command_line_overrules_them():
    real = config.composed(["method=identity"])
    toy = config.composed(["method=identity", "data.source=toy"])
    mine = config.composed(["method=identity", "data.source=toy", "data.module.image_size=32"])
    assert real.data.module.image_size == 256
    assert toy.data.module.image_size == 64
    assert mine.data.module.image_size == 32
    assert toy.protocol.name == "strict-toy"
    assert "toy" not in real.data


def test_a_toy_block_replaces_what_says_how_to_build_and_merges_the_rest():
    cfg = OmegaConf.create(
        {
            "method": {
                "name": "m",
                "module": {"_target_": "a.B", "width": 64, "depth": 2},
                "toy": {"module": {"width": 8}},
            },
            "data": {"name": "d", "source": "toy", "module": {}},
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


def test_folders_follow_the_environment_where_it_says_something(monkeypatch):
    monkeypatch.setenv("MMBENCH_HOME", "elsewhere")
    monkeypatch.setenv("MMBENCH_RUNS", "")
    paths = config.plain(config.composed(["method=identity"]).paths)
    assert (paths["assets"], paths["runs"]) == ("elsewhere", "runs")
    monkeypatch.setenv("MMBENCH_HOME", "")
    assert config.plain(config.composed(["method=identity"]).paths)["assets"].endswith("mmbench")


def test_lists_of_words_and_integers():
    assert config.words("a,b") == config.words("[a, b]") == ["a", "b"]
    assert config.integers("0,1") == [0, 1]
    with pytest.raises(ValueError, match="expected integers"):
        config.integers("0,x")


def _run(monkeypatch, capsys, *words):
    """The console command in this process: exit code and what it printed."""
    monkeypatch.setattr(sys, "argv", ["mmbench", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code, capsys.readouterr()


def test_a_mistake_on_the_command_line_is_one_line_and_no_traceback(monkeypatch, capsys, home):
    for words in (["evaluate", "method=identty"], ["reproduce", "experiment=manigum"], ["tabel"], ["list", "grp=x"]):
        code, printed = _run(monkeypatch, capsys, *words)
        assert code == 1
        assert printed.out == ""
        assert len(printed.err.splitlines()) == 1
        assert "did you mean" in printed.err
    assert not list(home.iterdir())


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command, monkeypatch, capsys):
    code, printed = _run(monkeypatch, capsys, command, "--help")
    assert code == 0
    assert printed.out.startswith(f"usage: mmbench {command}")


LOOK = """
import sys
from mmbench.__main__ import main
for words in map(str.split, sys.argv[1:]):
    sys.argv = ["mmbench", *words]
    try:
        main()
    except SystemExit:
        pass
    heavy = sorted({"torch", "pytorch_lightning", "pandas", "matplotlib", "torchmetrics"} & sys.modules.keys())
    assert not heavy, f"{words} imports {heavy}"
"""


def test_help_lists_and_misspelt_words_import_nothing_that_takes_seconds(tmp_path):
    misspelt = [
        "train method=manigan dta=cub",
        "evaluate method=manigan dta=cub",
        "score fake=x metrics=fid dta=cub",
        "score fake=x metrics=fdi",
        "prepare data=cub dta=x",
        "table experiment=demo dta=x",
        "reproduce experiment=demo dta=x",
        "explain record=strict against=manigan method=manigan dta=cub",
        "explain record=strikt against=manigan method=manigan",
    ]
    words = ["--help", "list", *(f"{command} --help" for command in COMMANDS), *misspelt]
    done = subprocess.run([sys.executable, "-c", LOOK, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("mmbench: error: expected a") == len(misspelt), done.stderr
    assert done.stderr.count("did you mean") == len(misspelt), done.stderr


def test_the_command_alone_says_what_there_is(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mmbench"])
    main()
    printed = capsys.readouterr().out
    assert all(f"  {command} " in printed for command in COMMANDS)


def test_everything_that_can_be_chosen_is_listed(monkeypatch, capsys):
    code, printed = _run(monkeypatch, capsys, "list")
    assert code == 0
    for group in ("method", "data", "protocol", "metric", "experiment"):
        for name in config.names(group):
            assert any(line.split()[:2] == [group, name] for line in printed.out.splitlines())


def test_methods_are_listed_below_their_tasks(conf, monkeypatch, capsys):
    (conf.folder / "method/variant.yaml").write_text("# Stands on another\ndefaults: [tagan, _self_]\nname: variant\n")
    (conf.folder / "method/mine.yaml").write_text("# Not of this package\nname: mine\nmodule: {_target_: my.Own}\n")
    _, printed = _run(monkeypatch, capsys, "list", "group=method")
    tasks, task = {}, ""
    for words in map(str.split, printed.out.splitlines()):
        if len(words) == 1:
            task = words[0]
        elif words[0] == "method":
            tasks[words[1]] = task
    assert tasks.keys() == set(config.names("method"))
    assert {tasks["manigan"], tasks["tagan"], tasks["variant"]} == {"manipulation:"}
    assert (tasks["damsm"], tasks["real"], tasks["mine"]) == ("synthesis:", "reference:", "elsewhere:")


def test_configuration_can_be_printed_and_names_completed(tmp_path):
    command = [sys.executable, "-m", "mmbench"]
    words = ["evaluate", "method=real", "--cfg", "job"]
    done = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mmbench.methods.reference.Real" in done.stdout
    environment = {**os.environ, "COMP_LINE": "mmbench evaluate method=", "COMP_POINT": "24"}
    done = subprocess.run(
        [*command, "-sc", "query=bash"], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert {"method=identity", "method=real"} <= set(done.stdout.split())
