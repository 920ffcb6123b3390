"""The command line: one line for a mistake, the nearest names, and toy blocks that the command line overrules."""

import os
import subprocess
import sys

import pytest

from mmbench.__main__ import COMMANDS, main
from mmbench.core import catalogue, command_line, composition, config, hashing


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=identty"], "expected a method, found 'identty': did you mean identity"),
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


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("~method.training", "expected key=value, found ~method.training"),
        ("~trainer.precision", "expected key=value, found ~trainer.precision"),
        ("+method.toy.module.width=3", "expected a key of the run, found one of the block method.toy"),
        ("+method.on.cub.module.width=3", "expected a key of the run, found one of the block method.on"),
        ("+method.data.module.image_size=3", "expected a key of the run, found one of the block method.data"),
        ("+data.toy.num_images=3", "expected a key of the run, found one of the block data.toy"),
        ("stages.main=tagan", "expected stages.NAME.KEY=VALUE, found stages.main"),
        ("stages={}", "expected stages.NAME.KEY=VALUE, found stages"),
        ("stages.main.data.toy_images=3", "expected a stage on the same data, found stages.main.data.toy_images"),
        ("stages.main.data.source=real", "expected a stage on the same data, found stages.main.data.source"),
    ],
)
def test_a_word_that_nothing_would_read_is_refused(word, message):
    with pytest.raises(ValueError, match="expected") as caught:
        config.composed(["method=manigan", "data.source=toy", word])
    assert str(caught.value).startswith(message)


def test_no_name_is_suggested_twice():
    with pytest.raises(ValueError, match=r"found 'dat': did you mean date or data\?$"):
        catalogue.unknown("word", "dat", ["date", "data", "data"])
    with pytest.raises(ValueError, match=r"found 'x': choose from data, date$"):
        catalogue.unknown("word", "x", ["date", "data", "data"])


def test_toy_blocks_apply_to_toy_data_and_the_command_line_overrules_them():
    real = config.composed(["method=identity"])
    toy = config.composed(["method=identity", "data.source=toy"])
    mine = config.composed(["method=identity", "data.source=toy", "data.module.image_size=32"])
    assert real["data"]["module"]["image_size"] == 256
    assert toy["data"]["module"]["image_size"] == 64
    assert mine["data"]["module"]["image_size"] == 32
    assert toy["protocol"]["name"] == "strict-toy"
    assert "toy" not in real["data"]


def test_a_block_replaces_what_says_how_to_build_and_merges_the_rest(conf):
    (conf.folder / "method/m.yaml").write_text(
        "# M\nname: m\nmodule: {_target_: a.B, width: 64, depth: 2, net: {_target_: a.C, size: 1}}\n"
        "toy: {module: {width: 8, net: {_target_: a.D, card: x}}}\ntiny: {module: {depth: 1}}\n"
    )
    module = {scale: config.composed(["method=m", f"scale={scale}"])["method"]["module"] for scale in config.SCALES}
    assert module["published"] == {"_target_": "a.B", "width": 64, "depth": 2, "net": {"_target_": "a.C", "size": 1}}
    assert module["toy"] == {"_target_": "a.B", "width": 8, "depth": 2, "net": {"_target_": "a.D", "card": "x"}}
    assert module["tiny"] == {**module["toy"], "depth": 1}


def test_a_scale_may_differ_on_a_data_set(conf):
    (conf.folder / "method/m.yaml").write_text(
        "# M\nname: m\nmodule: {_target_: a.B, width: 64}\non: {cub: {module: {width: 48}}}\n"
        "toy: {module: {width: 8}, on: {coco: {module: {width: 6}, data: {module: {split_scheme: karpathy}}}}}\n"
    )

    def sizes(data, scale):
        plain = config.composed(["method=m", f"data={data}", f"scale={scale}"])
        return plain["method"]["module"]["width"], plain["data"]["module"]["split_scheme"]

    assert [sizes("cub", scale)[0] for scale in config.SCALES] == [48, 8, 8]
    assert [sizes("coco", scale) for scale in config.SCALES] == [(64, "official"), (6, "karpathy"), (6, "karpathy")]
    assert "on" not in config.composed(["method=m", "data=coco", "scale=toy"])["method"]


def test_the_scale_is_a_key_of_its_own():
    def sizes(*words):
        plain = config.composed(["method=tagan", *words])
        return plain["scale"], plain["method"]["module"]["width"], plain["data"]["module"]["image_size"]

    assert sizes() == sizes("scale=published") == ("published", 64, 128)
    assert sizes("data.source=toy") == sizes("scale=toy") == ("toy", 8, 64)
    assert sizes("scale=published", "data.source=toy") == sizes()
    assert config.composed(["method=tagan", "scale=toy"])["data"]["module"]["_target_"] == "mmbench.data.cub.CUB"
    assert (
        config.composed(["method=manigan", "scale=toy"])["method"]["stages"]["main"]["method"]["module"]["width"] == 12
    )
    with pytest.raises(ValueError, match="expected a scale, found 'medium': choose from published, tiny, toy"):
        sizes("scale=medium")


def test_a_method_is_trained_on_a_data_set_as_its_paper_does():
    def module(*words):
        return config.composed(["method=manigan_concat", *words])["method"]["module"]

    assert (module("data=cub")["width"], module("data=cub")["shared_width"]) == (32, 128)
    assert (module("data=coco")["width"], module("data=coco")["shared_width"]) == (48, 192)
    assert module("data=coco", "scale=toy")["width"] == module("data=cub", "scale=toy")["width"] == 12
    plain = {data: config.composed(["method=tagan", f"data={data}"])["data"]["module"] for data in ("cub", "coco")}
    assert plain["cub"]["bird_crop"] is False
    assert "bird_crop" not in plain["coco"]
    assert all(one["preprocessing"] == {"_target_": "mmbench.data.views.Enlarged"} for one in plain.values())


def test_a_stage_has_settings_of_its_own_and_the_command_line_reaches_it(conf):
    (conf.folder / "method/two.yaml").write_text(
        "# Two stages\nname: two\nmodule: {_target_: a.B}\ntraining: {epochs: 9, batch_size: 8}\n"
        "stages: {first: {method: damsm, data: {module: {image_size: 32}}, training: {epochs: 5}}}\n"
    )

    def first(*words):
        stage = config.composed(["method=two", *words])["method"]["stages"]["first"]
        return (
            stage["data"]["module"]["image_size"],
            stage["method"]["training"],
            stage["method"]["module"]["max_words"],
        )

    assert first() == (32, {"epochs": 5, "batch_size": 48}, 18)
    assert first("data=coco") == (32, {"epochs": 5, "batch_size": 48}, 15)
    assert first("stages.first.training.epochs=2") == first("+stages.damsm.training.epochs=2")
    assert first("stages.first.training.epochs=2") == (32, {"epochs": 2, "batch_size": 48}, 18)
    assert first("stages.first.data.module.image_size=16", "method.training.epochs=1")[0] == 16
    assert first("method.training.epochs=1")[1]["epochs"] == 5, "of the method, not of its stages"
    with pytest.raises(ValueError, match="expected a stage of two, found 'frist': did you mean first"):
        first("stages.frist.training.epochs=2")
    with pytest.raises(ValueError, match=r"expected a key of the stage first, found 'training\.epoch': did you mean"):
        first("stages.first.training.epoch=2")


@pytest.mark.parametrize(
    "word", ["+trainer.accumulate_grad_batches=4", "+trainer.gradient_clip_val=1", "+trainer.limit_train_batches=2"]
)
def test_a_trainer_key_that_changes_weights_is_refused(word):
    key = word.strip("+").partition("=")[0]
    with pytest.raises(ValueError, match=rf"expected trainer keys of hardware .*, found {key}: .* method\.training"):
        config.composed(["method=manigan", word])


def test_no_suggestion_stands_twice():
    with pytest.raises(ValueError, match="did you mean") as caught:
        config.composed(["method=identity", "methd=real"])
    offered = str(caught.value).partition("did you mean ")[2].rstrip("?").split(" or ")
    assert len(offered) == len(set(offered))


@pytest.mark.parametrize("name", catalogue.names("method"))
def test_composing_by_parts_is_what_hydra_composes(name):
    """The parts are kept, so that tables of hundreds of rows are composed in seconds; Hydra alone makes the same."""
    whole = composition.container(composition.compose([f"method={name}", "data=coco", "protocol=manigan"]))
    parts = composition.without_method(("data=coco", "protocol=manigan"))
    assert whole == {**parts, "method": composition.unresolved("method", name)}


def test_hash_ignores_where_files_lie_and_how_work_is_cut():
    here = {"data": {"root": "a", "batch_size": 1, "num_workers": 0, "split": "test"}}
    there = {"data": {"root": "b", "batch_size": 9, "num_workers": 4, "split": "test"}}
    other = {"data": {"root": "a", "batch_size": 1, "num_workers": 0, "split": "train"}}
    assert hashing.config_hash(here) == hashing.config_hash(there) != hashing.config_hash(other)


def test_hash_ignores_where_a_file_comes_from_but_not_which_it_is():
    card = {"_target_": "mmbench.core.cards.Card", "file": "a.pth", "sha256": "1", "origin": "here", "licence": "MIT"}
    same = {**card, "origin": "there", "licence": "other", "_target_": "elsewhere.Card"}
    hashes = [hashing.config_hash({"card": one}) for one in (card, same, {**card, "sha256": "2"})]
    assert hashes[0] == hashes[1] != hashes[2]


def test_folders_follow_the_environment_where_it_says_something(monkeypatch):
    monkeypatch.setenv("MMBENCH_HOME", "elsewhere")
    monkeypatch.setenv("MMBENCH_RUNS", "")
    paths = config.composed(["method=identity"])["paths"]
    assert (paths["assets"], paths["runs"]) == ("elsewhere", "runs")
    monkeypatch.setenv("MMBENCH_HOME", "")
    assert config.composed(["method=identity"])["paths"]["assets"].endswith("mmbench")


def test_lists_of_words_and_integers():
    assert command_line.listed("a,b") == command_line.listed("[a, b]") == ["a", "b"]
    assert command_line.integers("0,1") == [0, 1]
    with pytest.raises(ValueError, match="expected integers"):
        command_line.integers("0,x")


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
        "grid kind=draws method=manigan dta=cub",
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
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"  {command} " in printed for command in COMMANDS)


def test_everything_that_can_be_chosen_is_listed(monkeypatch, capsys):
    code, printed = _run(monkeypatch, capsys, "list")
    assert code == 0
    for group in ("method", "data", "protocol", "metric", "experiment"):
        for name in catalogue.names(group):
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
    assert tasks.keys() == set(catalogue.names("method"))
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


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("+method.training.epoch=3", "expected a key of method.training, found 'epoch': did you mean epochs"),
        ("+method.stagse=3", "expected a key of method manigan, found 'stagse': did you mean stages"),
        ("protocol.count=x", "protocol strict: expected count as a whole number of 1 or more, found 'x'"),
        ("protocol.draws=0", "protocol strict: expected draws as a whole number of 1 or more, found 0"),
        ("protocol.classes=1", "protocol strict: expected classes as a list, found 1"),
        ("protocol.prompts=[]", r"protocol strict: expected prompts as a list, found \[\]"),
        ("stages.damsm.data.module.num_images=4", "expected a stage on the same data, found stages.damsm.data.module"),
        ("stages.damsm.data.module.split_scheme=official", "expected a stage on the same data"),
    ],
)
def test_a_word_that_nothing_could_use_is_one_line(word, message):
    with pytest.raises(ValueError, match=message) as caught:
        config.composed(["method=manigan", word])
    assert "\n" not in str(caught.value)


def test_what_is_said_of_a_stage_outweighs_what_is_said_of_all():
    def sizes(*words):
        plain = config.composed(["method=manigan", *words])
        main = plain["method"]["stages"]["main"]
        damsm = main["method"]["stages"]["damsm"]
        return [one["data"]["module"]["image_size"] for one in (plain, main, damsm)]

    assert sizes("data.module.image_size=128") == [128, 128, 128]
    assert sizes("data.module.image_size=128", "stages.damsm.data.module.image_size=64") == [128, 128, 64]
    assert sizes("stages.main.data.module.image_size=64") == [256, 64, 256]
    (embedding,) = config.composed(["method=sisgan", "data.module.image_size=128"])["method"]["stages"].values()
    assert embedding["data"]["module"]["image_size"] == 224, "which its own YAML says"


def test_inside_remembering_a_row_is_composed_once_and_is_the_same(monkeypatch):
    changes = ("seed=1", "seed=2", "experiment=x", "stages.damsm.training.epochs=1")
    rows = [
        [f"method={name}", "data=cub", "data.source=toy", change]
        for name in ("manigan", "manigan_main")
        for change in changes
    ]
    expected = [config.composed(words) for words in rows]
    with config.remembering():
        first = [config.composed(words) for words in rows]
        first[0]["method"].clear()  # what one caller does to its own changes no other's
        monkeypatch.setattr(config, "_settled", None)
        again = [config.composed(words) for words in rows]
    assert again == expected
    assert first[1:] == expected[1:]
    with pytest.raises(TypeError):
        config.composed(rows[0])
