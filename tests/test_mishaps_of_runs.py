"""What people do to runs, records, data sets and command lines: no wrong number, traceback or lost work."""

import errno
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from mmbench.__main__ import main
from mmbench.commands import evaluate, score
from mmbench.core import application, checking, command_line, config, construction, files, home, results
from mmbench.core.checkpoints import NEEDED, WholeCheckpoints
from mmbench.core.download import MissingAsset
from mmbench.core.files import CannotWrite, locked
from mmbench.core.noise import Sample
from mmbench.core.outputs import IMAGES
from mmbench.core.results import Result
from mmbench.core.task import TEXT_TO_IMAGE
from mmbench.data.coco_annotations import read_captions
from mmbench.pipeline import mirrors, tables
from mmbench.pipeline.cells import Cell, Value, Verdict
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.experiments import seeds_of
from mmbench.pipeline.generation import Run

TOY = ["data.source=toy", "data.toy_images=40", "trainer=cpu"]


# Words of the command line.


@pytest.mark.parametrize("key", ["sede", "data.root_folder", "paths.run", "logger.wand", "metod.training.epochs"])
@pytest.mark.parametrize("plus", ["+", "++"])
def test_a_key_that_nothing_reads_is_refused_behind_a_plus_too(key, plus):
    with pytest.raises(ValueError, match=f"expected a configuration key, found '{key}': "):
        checking.check(["method=identity", f"{plus}{key}=3"])


@pytest.mark.parametrize("word", ["+seed=3", "++seed=3", "seed=3"])
def test_a_plus_before_a_key_that_is_there_changes_nothing(word):
    assert config.composed(["method=identity", word])["seed"] == 3
    checking.check(["method=identity", word])
    assert command_line.for_hydra(word) in ("++seed=3", "seed=3"), "Hydra takes no `+` before a key that is there"


def test_choices_behind_a_plus_stay_choices():
    for word in ("+mask@protocol.mask=centre", "+metric@protocol.metrics.psnr=psnr", "hydra.mode=MULTIRUN"):
        assert command_line.for_hydra(word) == word


@pytest.mark.parametrize("word", ["~protocol", "~data", "~seed", "~trainer.precision"])
@pytest.mark.parametrize("read", [checking.check, config.composed])
def test_nothing_is_taken_away(word, read):
    with pytest.raises(ValueError, match=f"expected key=value, found {word}: nothing is taken away"):
        read(["method=identity", word])


@pytest.mark.parametrize(
    ("value", "meant"),
    [("~/runs", "~/runs"), ("a folder/b (1)", None), ("a=b", "a=b"), ("[a", "[a"), ("it's here", None)],
)
def test_what_hydra_cannot_read_is_named_with_a_remedy_that_works(value, meant):
    with pytest.raises(ValueError, match=re.escape(f"found paths.runs={value} (")) as caught:
        command_line.parse(["seed=1", f"paths.runs={value}"])
    advised = re.search(r'as "(.*)"$', str(caught.value))[1]
    [override] = command_line.parse([advised])
    assert override.value() == value.replace("'", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-dir=elsewhere"], "expected the configuration of mmbench, found --config-dir"),
        (["-cn", "other"], "expected the configuration of mmbench, found -cn"),
        (["--multrun"], "expected a flag, found '--multrun': did you mean --multirun"),
        (["--verbose"], "expected a flag, found '--verbose'"),
        (["identity"], "expected key=value, found 'identity': see --help"),
        (["--cfg", "job", "identity"], "expected key=value, found 'identity': see --help"),
    ],
)
def test_flags_that_would_change_nothing_are_refused(words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        application.start(lambda: pytest.fail("it started"), ["method=identity", *words])


@pytest.mark.parametrize(
    "flags", [["--cfg", "job"], ["-m"], ["--info", "all"], ["--info"], ["--cfg=job", "-p", "paths"]]
)
def test_flags_of_hydra_are_handed_on(flags, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mmbench"])
    application.start(lambda: None, ["method=identity", *flags])
    assert sys.argv[-len(flags) :] == flags


@pytest.mark.parametrize("asked", ["-1", "0,0", "2,1,2", ","])
def test_seeds_of_a_table_are_whole_numbers_and_each_once(asked):
    with pytest.raises(ValueError, match=f"found seeds={asked}: correct them"):
        seeds_of(asked, [], load("demo"))


@pytest.mark.parametrize("name", ["image_size", "batch_size", "num_workers"])
@pytest.mark.parametrize("value", ["-1", "2.5", "many", "null", "true"])
def test_sizes_of_a_data_module_are_whole_numbers(home, name, value):
    node = config.composed(["method=identity", *TOY, f"data.module.{name}={value}"])["data"]["module"]
    with pytest.raises(ValueError, match=rf"expected data\.module\.{name} as a whole number from [01], found "):
        construction.construct(node)


@pytest.mark.parametrize("devices", ["many", "[0]", "1.5"])
def test_devices_that_a_processor_has_not_are_one_line(home, devices):
    from mmbench.pipeline.stages import require_hardware

    with pytest.raises(ValueError, match=r"expected a trainer that this machine can be, found trainer\.acc"):
        require_hardware(config.composed(["method=identity", *TOY, f"trainer.devices={devices}"]))


# Homes.


@pytest.mark.parametrize("kind", ["runs", "results", "assets"])
def test_a_tilde_is_the_home_and_no_folder_of_that_name(home, monkeypatch, kind):
    monkeypatch.setenv("HOME", str(home / "me"))
    found = config.composed(["method=identity", f"paths.{kind}='~/there'", "weights='~/weights.pt'"])
    assert found["paths"][kind] == str(home / "me" / "there")
    assert found["weights"] == str(home / "me" / "weights.pt")
    monkeypatch.setenv({"assets": "MMBENCH_HOME"}.get(kind, f"MMBENCH_{kind.upper()}"), "~/elsewhere")
    assert config.composed(["method=identity"])["paths"][kind] == str(home / "me" / "elsewhere")


def test_hydra_too_goes_to_the_home_for_a_tilde(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home / "me"))
    monkeypatch.setattr(sys, "argv", ["mmbench"])
    with pytest.raises(SystemExit):
        evaluate.main(["method=identity", *TOY, "paths.runs='~/runs'", "data.module.batch_size=0"])
    assert list((home / "me" / "runs").glob("hydra/*/*/.hydra"))
    assert not (home / "~").exists()


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    monkeypatch.delenv("MMBENCH_HOME", raising=False)

    def homeless(name):  # as it does where neither HOME nor the list of users says more
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(home.platformdirs, "user_cache_dir", homeless)
    with pytest.raises(ValueError, match=r"expected a home folder of this user, found none .*: set MMBENCH_HOME"):
        home.default_assets()
    with pytest.raises(ValueError, match="set MMBENCH_HOME or HOME"):
        config.composed(["method=identity", "seed=11"])
    monkeypatch.setenv("MMBENCH_HOME", "data")
    assert config.composed(["method=identity", "seed=11"])["paths"]["assets"] == "data"
    assert home.default_assets() == Path("data")


# Records.


def record(**told) -> Result:
    known = {
        "experiment": "demo", "row": {"method": "a", "data": "b", "source": "toy"}, "seed": 0,
        "protocol": {"name": "p", "hash": "h"}, "metrics": {"l1": {"value": 0.5, "std": None, "count": 3}},
        "run_key": "k" * 64, "config_hash": "c", "weights": {"verified": True}, "data": {}, "config": {},
        "commit": "1", "versions": {}, "device": "cpu",
    }  # fmt: skip
    return Result(**{**known, **told})


def test_what_is_not_finished_or_a_companion_of_a_mac_is_no_record(tmp_path):
    path = record().write(tmp_path)
    text = path.read_text()
    path.with_name(f".{path.name}.abc123.json").write_text(text[: len(text) // 2])
    path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert results.read(tmp_path, "demo") == [record(date=results.read(tmp_path, "demo")[0].date)]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda text: text[: len(text) // 2], ""),
        (lambda text: "", ""),
        (lambda text: "[1, 2]", "a list"),
        (lambda text: json.dumps({"loss": 1}), "the unknown key 'loss'"),
        (lambda text: json.dumps({"seed": 0}), "missing"),
        (lambda text: json.dumps({**json.loads(text), "added": 1}), "the unknown key 'added'"),
        (lambda text: json.dumps({**json.loads(text), "date": None}), "None as its date"),
        (lambda text: json.dumps({**json.loads(text), "seed": "0"}), "'0' as its seed"),
        (lambda text: json.dumps({**json.loads(text), "metrics": {"l1": 3}}), "3 as its l1"),
        (lambda text: json.dumps({**json.loads(text), "metrics": {"l1": {"value": "x"}}}), "as its l1"),
        (lambda text: text.replace("0.5", "NaN"), "NaN, which is no number"),
        (lambda text: text.replace("0.5", "-Infinity"), "-Infinity, which is no number"),
        (lambda text: text.replace("0.5", "1e999"), "1e999, which is no number"),
        (lambda text: text.replace("0.5", "true"), "as its l1"),
        (lambda text: json.dumps({**json.loads(text), "samples": {"file": "x"}}), "as its samples"),
        (lambda text: json.dumps({**json.loads(text), "samples": {"file": 5, "sha256": ""}}), "as its samples"),
        (lambda text: text.replace("0.5", f"1{'0' * 400}"), "as its l1"),
        (lambda text: text.replace('"verified": true', '"proven": true'), "as its weights"),
        (lambda text: text.replace('"date": "', '"date": "day'), "Invalid isoformat string"),
        (lambda text: text.replace('"seed": 0', '"seed": 0, "seed": 1'), "a key twice"),
        (lambda text: "[" * 100_000, "recursion"),
        (lambda text: text.replace("0.5", "0.6"), "one that was changed since it was written"),
        (lambda text: text.replace('"count": 3', '"count": 4'), "one that was changed since it was written"),
        (lambda text: text.replace("demo", "d\xe9mo").encode("latin-1"), "decode"),
        (None, "Is a directory"),
    ],
)
def test_what_is_no_record_is_named_and_nothing_is_computed_from_it(tmp_path, change, found):
    path = record().write(tmp_path)
    other = path.with_name("other.json")
    if change is None:
        other.mkdir()
    else:
        changed = change(path.read_text())
        other.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    with pytest.raises(ValueError, match=r"other\.json: expected a record .* move it out of this folder$") as caught:
        results.read(tmp_path, "demo")
    assert found in str(caught.value)


# Checkpoints.


class Small(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)


def checkpoint(method: nn.Module) -> dict:
    rest = {key: 0 for key in NEEDED if key != "state_dict"}
    return {**rest, "state_dict": method.state_dict(), "pytorch-lightning_version": "2.6"}


def test_a_checkpoint_is_written_beside_its_place_and_replaces_the_old_one_whole(tmp_path, monkeypatch):
    places = []
    replace = Path.replace

    def seen(self, target):
        places.append((self.parent, (tmp_path / "last.ckpt").stat().st_size))
        return replace(self, target)

    plugin, path = WholeCheckpoints(Small()), tmp_path / "last.ckpt"
    path.write_bytes(b"old")
    monkeypatch.setattr(Path, "replace", seen)
    plugin.save_checkpoint(checkpoint(plugin.method), path)
    assert places == [(tmp_path, 3)], "the old one is there until the new one is whole, and on the same disk"
    assert torch.equal(plugin.load_checkpoint(path)["state_dict"]["layer.weight"], plugin.method.layer.weight)
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_costs_no_checkpoint(tmp_path, monkeypatch):
    plugin, path = WholeCheckpoints(Small()), tmp_path / "last.ckpt"
    plugin.save_checkpoint(checkpoint(plugin.method), path)
    before = path.read_bytes()

    def full(self, content):
        with self.open("wb") as file:
            file.write(bytes(content)[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CannotWrite, match=r"last\.ckpt: expected to write this file, found No space left on device"):
        plugin.save_checkpoint(checkpoint(Small()), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (lambda raw: raw[: len(raw) // 2], "a damaged file or one of another kind"),
        (lambda raw: raw[:-1], "a damaged file or one of another kind"),
        (lambda raw: b"", "a damaged file or one of another kind"),
        (lambda raw: b"<html>log in</html>", "a damaged file or one of another kind"),
        (lambda raw: Small().state_dict(), "a file without state_dict"),
        (lambda raw: torch.zeros(3), "a Tensor"),
        (lambda raw: {**checkpoint(Small()), "state_dict": Small(5).state_dict()}, "1 differ, layer.weight first"),
        (lambda raw: {**checkpoint(Small()), "state_dict": {"old": torch.zeros(1)}}, "3 differ, layer.bias first"),
        *(
            (lambda raw, key=key: {name: one for name, one in checkpoint(Small()).items() if name != key}, key)
            for key in NEEDED
        ),
    ],
)
def test_a_checkpoint_that_cannot_be_gone_on_with_is_one_line(tmp_path, made, found):
    plugin, path = WholeCheckpoints(Small()), tmp_path / "last.ckpt"
    plugin.save_checkpoint(checkpoint(plugin.method), path)
    made = made(path.read_bytes())
    path.write_bytes(made) if isinstance(made, bytes) else torch.save(made, path)
    wanted = r"last\.ckpt: expected a checkpoint of Small to go on with, found .*: move last\.ckpt elsewhere to train"
    with pytest.raises(ValueError, match=wanted) as caught:
        plugin.load_checkpoint(path, weights_only=True)
    assert found in str(caught.value)


def test_training_writes_its_checkpoints_so_and_says_so_in_one_line(tiny, home):
    from mmbench.pipeline.assembly import prepared_data
    from mmbench.pipeline.training import trained

    words = ["method=damsm", *TOY, "method.training.epochs=1", "method.training.batch_size=15"]
    plain = config.composed(words)
    done = trained(plain, prepared_data(plain))
    last, weights = done.folder / "last.ckpt", done.weights.read_bytes()
    done.weights.unlink()
    trained(plain, prepared_data(plain))
    assert done.weights.read_bytes() == weights, "from the last checkpoint, without a further step"
    done.weights.unlink()
    last.write_bytes(last.read_bytes()[: np.random.default_rng().integers(last.stat().st_size)])
    with pytest.raises(ValueError, match=r"last\.ckpt: expected a checkpoint of DAMSM to go on with, found a damaged"):
        trained(plain, prepared_data(plain))


# Several at once.


def test_who_waits_for_another_run_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    holds, leave = threading.Event(), threading.Event()

    def other():
        with locked(tmp_path / "run"):
            holds.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    holds.wait(30)
    threading.Timer(0.5, leave.set).start()
    with locked(tmp_path / "run"):
        assert leave.is_set()
    thread.join()
    assert capsys.readouterr().err == f"waiting for another run, which is at work on {tmp_path / 'run'}\n"
    with locked(tmp_path / "run"):
        pass
    assert capsys.readouterr().err == ""


# Data sets.


@pytest.fixture
def birds(home, toy_assets) -> SimpleNamespace:
    """A copy of toy birds as a user's own folder of real ones, and what reading it says."""
    from mmbench.pipeline.assembly import prepared_data

    prepared_data(config.composed(["method=identity", *TOY]))
    root = home / "my birds"
    shutil.copytree(toy_assets / "data" / "cub-toy-40-s0", root)

    def read(*words):
        told = [f"data.root='{root}'", "data.module.complete=false", *words]
        return construction.construct(config.composed(["method=identity", *told])["data"]["module"]).records

    return SimpleNamespace(tables=root / "CUB_200_2011", captions=root / "text_c10", read=read)


def relined(path: Path, change) -> None:
    path.write_bytes(b"\n".join(change(path.read_bytes().splitlines())) + b"\n")


TABLES = ["images", "bounding_boxes", "image_class_labels", "classes", "train_test_split"]


@pytest.mark.parametrize("name", TABLES)
def test_an_id_that_a_table_has_twice_is_refused(birds, name):
    relined(birds.tables / f"{name}.txt", lambda lines: [*lines, b"1 " + lines[-1].split(b" ", 1)[1]])
    with pytest.raises(ValueError, match=rf"{name}\.txt: expected each id once, found 1 twice: unpack"):
        birds.read()


def test_an_image_of_two_ids_is_refused(birds):
    for name in TABLES:
        if name != "classes":
            relined(birds.tables / f"{name}.txt", lambda lines: [*lines, b"9999 " + lines[-1].split(b" ", 1)[1]])
    with pytest.raises(ValueError, match=r"my birds: expected each image once, found .* in (train|test), twice"):
        birds.read()
    split = birds.tables / "train_test_split.txt"  # in the official one, the two in different parts
    relined(split, lambda lines: [*lines[:-2], lines[-2].split()[0] + b" 0", b"9999 1"])
    with pytest.raises(ValueError, match=r"found .* in train and test"):
        birds.read("data.module.split_scheme=official")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bounding_boxes", b"nan 5 9 9"),
        ("bounding_boxes", b"5 5 inf 9"),
        ("bounding_boxes", b"5 5 0 9"),
        ("bounding_boxes", b"5 5 9 -9"),
        ("train_test_split", b"7"),
        ("train_test_split", b"-1"),
    ],
)
def test_a_value_that_can_be_none_is_named_with_its_line(birds, name, value):
    relined(birds.tables / f"{name}.txt", lambda lines: [b"1 " + value, *lines[1:]])
    wanted = rf"{name}\.txt: expected lines of an id and its value, found '1 {value.decode()}'"
    with pytest.raises(ValueError, match=wanted):
        birds.read()


def told(records) -> list:
    return [(one.id, one.captions, one.class_id, one.box) for split in records.values() for one in split]


def test_byte_order_marks_and_line_ends_of_other_systems_change_nothing(birds):
    before = birds.read()
    for path in [*birds.tables.glob("*.txt"), *birds.captions.rglob("*.txt")]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert told(birds.read()) == told(before)


def test_an_argument_that_a_target_has_not_is_one_line(home):
    node = config.composed(["method=identity", *TOY, "+data.module.crop=3"])["data"]["module"]
    with pytest.raises(ValueError, match=r"expected arguments that .*ToyCUB has, found 'crop': leave it out"):
        construction.construct(node)


# Weights & Biases.


@pytest.mark.parametrize("command", ["train", "evaluate", "reproduce"])
def test_a_key_that_weights_and_biases_refuses_is_found_out_before_the_work(home, monkeypatch, command):
    def worked(*_, **__):
        raise AssertionError("work was done before the key was looked at")

    for name in ("evaluation.evaluate", "reproducing.run", "training.trained", "assembly.prepared_data"):
        monkeypatch.setattr(f"mmbench.pipeline.{name}", worked)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "short")
    given = {"train": ["method=damsm"], "evaluate": ["method=identity"], "reproduce": ["experiment=demo"]}[command]
    monkeypatch.setattr(sys, "argv", ["mmbench", command, *given, *TOY, "logger=wandb"])
    with pytest.raises((SystemExit, ValueError)) as caught:
        importlib.import_module(f"mmbench.commands.{command}").main(sys.argv[2:])
    message = str(caught.value.code if isinstance(caught.value, SystemExit) else caught.value)
    assert "expected a key that Weights & Biases takes, found WANDB_API_KEY invalid" in message
    assert message.endswith("or set WANDB_MODE=offline")
    assert "\n" not in message


@pytest.mark.parametrize("mode", ["offline", "disabled", "online"])
def test_the_mode_that_a_user_has_set_is_the_mode(monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert mirrors.wandb_mode() == mode


# Terminals and pipes.


@pytest.fixture
def command(monkeypatch):
    """Runs a command line with a standard output of its own; its exit code."""

    def run(stdout, *words):
        monkeypatch.setattr(sys, "argv", ["mmbench", *words])
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    return run


@pytest.mark.parametrize("words", [["--help"], ["list"], ["table", "experiment=demo", "data.source=toy"]])
@pytest.mark.parametrize("is_line_buffered", [False, True])
def test_a_reader_that_leaves_is_no_error(home, command, capfd, words, is_line_buffered):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1 if is_line_buffered else -1) as stdout:
        assert command(stdout, *words) == 128 + signal.SIGPIPE
    assert capfd.readouterr().err == ""


def test_another_broken_pipe_stays_an_error(home, command, monkeypatch):
    def broken(*_):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("mmbench.core.catalogue.names", broken)
    monkeypatch.setattr(sys, "argv", ["mmbench", "list"])
    with (home / "out").open("w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(BrokenPipeError):
            main()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_spelt_out(home, command, monkeypatch, encoding):
    monkeypatch.setattr("mmbench.core.catalogue.summary", lambda *_: "1.5 \xb1 0.5 \u2020")
    with (home / "out").open("w", encoding=encoding) as stdout:
        assert command(stdout, "list", "group=logger") == 0
    shown = {"ascii": r"\xb1 0.5 \u2020", "latin-1": "\xb1 0.5 \\u2020", "utf-8": "\xb1 0.5 \u2020"}[encoding]
    assert f"1.5 {shown}" in (home / "out").read_text(encoding=encoding)


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
def test_no_terminal_is_too_narrow_for_a_number(monkeypatch, capsys, width):
    number = np.random.default_rng().uniform(1000, 9999)
    value = Value({0: number}, number)
    cells = [Cell("a method", "a data set", (64, 64), 1, "FID", None, value, Verdict.UNPUBLISHED)]
    wide = partial(Console, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(tables, "Console", wide)
    tables.show(cells, "a table")
    printed = capsys.readouterr().out
    assert f"{number:.4f}" in printed
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed


# Files of a run that are damaged.


@pytest.mark.parametrize("damage", [lambda raw: b"", lambda raw: raw[: len(raw) // 2], lambda raw: b"<html>"])
def test_a_damaged_sample_is_named_with_what_to_do(tmp_path, damage):
    run = Run({}, SimpleNamespace(task=TEXT_TO_IMAGE), {}, None, [], tmp_path, "")
    sample = Sample("a/b", 0, 0)
    IMAGES.write(run.file(sample), torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8))
    run.read(sample)
    run.file(sample).write_bytes(damage(run.file(sample).read_bytes()))
    with pytest.raises(ValueError, match=r"\.png: expected .*, found .*: remove it, and the next run makes it again$"):
        run.read(sample)


def test_damaged_weights_of_a_training_are_made_again_from_its_checkpoint(tiny, home):
    from mmbench.pipeline.assembly import built, prepared_data
    from mmbench.pipeline.training import trained

    words = ["method=damsm", *TOY, "weights=trained", "method.training.epochs=1", "method.training.batch_size=15"]
    plain = config.composed(words)
    data = prepared_data(plain)
    weights = trained(plain, data).weights
    whole = weights.read_bytes()
    weights.write_bytes(whole[: np.random.default_rng().integers(len(whole))])
    with pytest.raises(ValueError, match=r"remove it, and mmbench train makes it again from the last checkpoint$"):
        built(plain, data)
    weights.unlink()
    trained(plain, data)
    assert weights.read_bytes() == whole


def test_a_folder_that_goes_while_it_is_trained_in_is_one_line(tiny, home, monkeypatch):
    from mmbench.pipeline import training
    from mmbench.pipeline.assembly import prepared_data

    monkeypatch.setattr(training.FiniteWeights, "on_train_epoch_end", lambda *_: shutil.rmtree("runs"))
    plain = config.composed(["method=damsm", *TOY, "method.training.epochs=9", "method.training.batch_size=15"])
    with pytest.raises(ValueError, match="expected the folder of this training as long as it goes on, found it gone"):
        training.trained(plain, prepared_data(plain))


def test_an_image_that_annotations_list_twice_is_refused(tmp_path):
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 8, "height": 8} for number in (3, 5, 3)]
    captions = [{"id": number, "image_id": 3 + 2 * (number % 2), "caption": "a bird"} for number in range(4)]
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"images": images, "annotations": captions}))
    with pytest.raises(ValueError, match=r"captions\.json: expected each image once, found 3 twice"):
        read_captions(path, 1)
    path.write_text(json.dumps({"images": images[:2], "annotations": captions}))
    assert sorted(read_captions(path, 1)) == [3, 5]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not run: no /dev/full on this system")
def test_a_full_disk_behind_the_output_is_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123  (a device, not a file)
        done = subprocess.run([sys.executable, "-m", "mmbench", "list"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "mmbench: error: expected room for what is written, found none: free some, then again\n"


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", "'a\\b'"])
def test_an_experiment_is_a_folder_below_that_of_the_records(name):
    with pytest.raises(ValueError, match=r"experiment=NAME, a folder below .*set paths.results to"):
        config.composed(["method=identity", f"experiment={name}"])


def test_who_scores_folders_is_told_of_toy_networks_and_not_of_toy_data(home):
    pictures = home / "pictures"
    pictures.mkdir()
    for index in range(12):
        IMAGES.write(pictures / f"{index}.png", torch.full((3, 8, 8), 20 * index, dtype=torch.uint8))
    nowhere = f"paths.assets={home / 'nowhere'}"
    with pytest.raises(MissingAsset, match=r"put it there, or fetch it by download=yes; extractor=toy needs none$"):
        score.main([f"fake={pictures}", "metrics=is", nowhere])


# Clocks and file systems.


def test_a_record_is_the_newest_also_where_the_clock_was_set_back_and_takes_no_other_s_place(tmp_path):
    ahead = record(date="2099-01-01T00:00:00+00:00", config_hash="c")
    ahead.write(tmp_path)
    now = record(config_hash="c", metrics={"l1": {"value": 0.25, "std": None, "count": 3}})
    for second in (1, 2):  # twice in one second of its own clock
        written = now.behind(tmp_path)
        assert written.date == f"2099-01-01T00:00:0{second}+00:00"
        written.write(tmp_path)
    assert len(list(tmp_path.rglob("*.json"))) == 3
    assert results.by_configuration(tmp_path, "demo")["c"].metrics["l1"]["value"] == 0.25
    assert results.newest(tmp_path, "demo", run_key="k" * 64).metrics["l1"]["value"] == 0.25
    other = record(seed=1)
    assert other.behind(tmp_path) is other, "another seed has a clock of its own"


def test_looking_for_the_record_of_a_run_reads_no_other(tmp_path, monkeypatch):
    for number in range(9):
        record(run_key=f"{number}" * 64, config_hash=str(number)).write(tmp_path)
    read = []
    monkeypatch.setattr(results, "read_record", lambda path, real=results.read_record: read.append(path) or real(path))
    assert results.newest(tmp_path, "demo", run_key="7" * 64).config_hash == "7"
    assert len(read) == 1


def test_a_record_from_before_it_had_a_sum_is_read(tmp_path):
    path = record().write(tmp_path)
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content))
    assert results.read_record(path).metrics["l1"]["value"] == 0.5


def lockless(monkeypatch, number):
    """Lets the file system lock nothing, and say so by an error of that number."""

    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("filelock._unix.fcntl.flock", refused)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ESTALE])
def test_a_file_system_that_cannot_lock_is_one_line(tmp_path, monkeypatch, number):
    lockless(monkeypatch, number)
    wanted = f"run: expected to write this file, found {os.strerror(number)}"
    with pytest.raises(CannotWrite, match=wanted), locked(tmp_path / "run"):
        pass


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_who_waits_for_an_owner_that_died_on_another_machine_is_told_what_to_remove(tmp_path, monkeypatch, capsys):
    lockless(monkeypatch, errno.ENOSYS)
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    left = tmp_path / ".run.lock"
    left.write_text("4711\nnode-17\n")
    threading.Timer(0.5, left.unlink).start()
    with locked(tmp_path / "run"):
        pass
    told = f"(process 4711 on node-17; if that is gone, remove {left})"
    assert capsys.readouterr().err == f"waiting for another run, which is at work on {tmp_path / 'run'} {told}\n"
