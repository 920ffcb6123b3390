"""Every option of every command is obeyed, or refused in one line."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmbench.benchmarks.training import main as bench_training
from mmbench.commands import evaluate, explain, prepare, reproduce, score, table, train
from mmbench.commands import list as listing
from mmbench.core import config
from mmbench.core.images import read_rgb
from mmbench.core.results import Result
from mmbench.metrics import MetricSuite
from mmbench.metrics.inception_score import inception_score
from mmbench.pipeline import cells
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.lookup import Found

DATA = ["data=cub", "data.source=toy", "data.toy_images=40"]
MAIN = {
    "train": train, "evaluate": evaluate, "score": score, "reproduce": reproduce, "explain": explain,
    "prepare": prepare, "table": table, "list": listing,
}  # fmt: skip


@pytest.fixture
def fake(home, tmp_path) -> Path:
    """A folder of 12 images of noise, the working directory beside it."""
    rng = np.random.default_rng(np.random.SeedSequence().entropy)
    (tmp_path / "fake").mkdir()
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / f"fake/{number:02d}.png")
    return tmp_path / "fake"


def scored(*words: str) -> Result:
    """The record of a score."""
    assert score.main(["fake=fake", "extractor=toy", "out=record.json", *words]) == 0
    return Result(**json.loads(Path("record.json").read_text(encoding="utf-8")))


def leaves(node: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """All keys of a configuration that have no keys below, each with its value."""
    if isinstance(node, dict) and node:
        for key, item in node.items():
            yield from leaves(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, node


def changed(key: str, value: object) -> str:
    """Another value of the same kind, as a command line says it."""
    known = {"protocol.reference": "train", "data.source": "real", "data.module.split_scheme": "official"}
    known |= {"protocol.task": "text to image", "scale": "published", "protocol.reference_classes": "[1]"}
    if key in known:
        return known[key]
    if isinstance(value, bool):
        return str(not value).lower()
    if isinstance(value, int | float):
        return str(value + 8)
    return "[other]" if isinstance(value, list) else "other"


def test_each_key_of_the_configuration_is_refused_by_score_or_changes_its_record(fake, monkeypatch, capsys):
    words = ["metrics=fid", *DATA]
    monkeypatch.setenv("MMBENCH_HOME", "assets")  # a folder of its own, so that what is made is seen
    plain = config.composed(["method=identity", *DATA])
    choices = dict.fromkeys(("method", "judges", "logger", "hydra.run.dir", "stages.a.b"), "other")
    before = scored(*words)
    obeyed, refused = set(), set()
    for key, value in [*leaves(plain), *choices.items()]:
        if key.startswith("settings") or "data.evaluation" in key:
            continue  # no keys of a command line
        given = [word for word in words if not word.startswith(f"{key}=")]
        try:
            after = scored(*given, f"{key}={changed(key, value)}")
        except ValueError:
            refused.add(key)
            continue
        assert key in ("data.root", "data.module.cache", "paths.assets") or after.run_key != before.run_key, key
        obeyed.add(key)
    assert Path("other").is_dir(), "paths.assets and data.root"
    assert list(Path("assets/cache").iterdir()), "data.module.cache"
    assert {"data.toy_seed", "protocol.reference", "data.module.image_size", "scale"} <= obeyed
    assert {"method.name", "seed", "weights", "protocol.split", "protocol.count", "trainer.devices"} <= refused
    assert {"paths.runs", "paths.mirror", "data.parts", "data.module.batch_size", "experiment", "judges"} <= refused
    capsys.readouterr()


def test_the_settings_of_metrics_are_obeyed_and_named(fake, capsys):
    (usual,) = scored("metrics=is").metrics.items()
    assert usual[0] == "is@toy"
    record = scored("metrics=is", "protocol.metrics.is.splits=1")
    assert set(record.metrics) == {"is(splits=1)@toy"}
    assert "is(splits=1)@toy" in capsys.readouterr().out
    images = torch.stack([read_rgb(path) for path in sorted(fake.iterdir())])
    logits = MetricSuite.named("is", extractor="toy").metrics["is"].extractor(images)["logits"]
    assert record.metrics["is(splits=1)@toy"]["value"] == pytest.approx(inception_score(logits, 1).value, rel=1e-6)
    assert record.metrics["is(splits=1)@toy"]["value"] != pytest.approx(usual[1]["value"], rel=0.01)
    assert set(scored("metrics=is", "protocol.metrics.is.splits=10").metrics) == {"is@toy"}, "the usual one"
    found = scored("metrics=kid,fid", *DATA, "protocol.metrics.kid.subset_size=4", "protocol.metrics.kid.subsets=3")
    assert set(found.metrics) == {"kid(subset_size=4,subsets=3)@toy", "fid@toy"}
    assert found.config["metrics"]["kid"]["subset_size"] == 4
    protocol = scored("protocol=strict_unconditional", *DATA, "protocol.metrics.kid.subset_size=4")
    assert "kid(subset_size=4)@toy" in protocol.metrics


def test_evaluate_names_settings_as_score_does_and_no_table_takes_them_for_others(fake):
    words = ["method=identity", *DATA, "trainer=cpu", "protocol.metrics.is.splits=2"]
    assert evaluate.main(words) == 0
    (path,) = Path("results/identity").glob("*.json")
    record = Result(**json.loads(path.read_text(encoding="utf-8")))
    assert "is(splits=2)@toy" in record.metrics
    assert "is@toy" not in record.metrics
    assert "fid@toy" in record.metrics
    experiment = load("demo").on("toy")
    row = next(row for row in experiment.rows if row.method == "identity")
    shown = next(name for name in experiment.places if experiment.metric(name, row, "toy") == "is@toy")
    found = {experiment.protocol_of(shown, row.data): Found([record])}
    value = cells._value(experiment, shown, row, "toy", found)
    assert value.mean is None
    assert value.reason.endswith("which has is(splits=2)@toy")


TAKEN_BY_NONE = [
    ("score fake=fake metrics=is protocol.metrics.is.splits=0", "splits as a whole number from 1, found 0"),
    ("score fake=fake metrics=is protocol.metrics.is.splits=a", "splits as a whole number from 1, found 'a'"),
    ("score fake=fake metrics=is protocol.metrics.is.split=1", "a setting of is, found 'split': did you mean splits"),
    ("score fake=fake metrics=is protocol.metrics.fid.splits=1", "expected a metric that is to be scored, found 'fid'"),
    ("score fake=fake metrics=is extractor=toy protocol.metrics.is.extractor=clip", "gives logits, found ToyCLIP"),
    ("score fake=fake metrics=is protocol.metrics.is.extractor=clop", "metric is: expected an extractor among"),
    ("score fake=fake metrics=is protocol.metrics.is.extractor=vgg", "expected an extractor, found vgg, which judges"),
    ("score fake=fake real=fake metrics=kid extractor=toy protocol.metrics.kid.subset_size=1", "subset_size from 2"),
    ("score fake=fake protocol=strict_unconditional protocol.metrics.kid.subsets=3", "expected real= or data= for the"),
    ("score fake=fake metrics=tv method=identity", "expected options that change a score, found method"),
    ("score fake=fake metrics=tv +mask@protocol.mask=centre", "expected options that change a score, found mask"),
    ("score fake=fake metrics=tv ~logger", "expected key=value, found '~logger'"),
    ("score fake=fake metrics=tv +sed=1", "expected an option of score, found 'sed'"),
    ("score fake=fake metrcs=tv", "expected an option of score, found 'metrcs': did you mean metrics"),
    ("score fake=fake metrics=tv paths.result=x", "did you mean paths.results"),
    ("score fake=fake metrics=tv data.source=toy", "expected data=NAME, a data set as real images, with data.source"),
    ("score fake=fake metrics=tv data=cub data.source=toy", "expected a metric that compares with a real set"),
    ("score fake=fake metrics=fid data=cub,coco", "expected one value of data, found several"),
    ("score fake=fake metrics=fid data=cub data.toy_images=9", "expected data.source=toy with data.toy_images"),
    ("score fake=fake metrics=tv trainer=ddp", "expected trainer=auto, cpu for a score, found ddp"),
    ("score fake=fake metrics=tv size=9", "expected real=, input= or mask= with size="),
    ("score fake=fake metrics=tv out=a.json paths.results=b", "expected out=FILE or paths.results=FOLDER, found both"),
    ("score fake=fake metrics=tv paths.results=a paths.results=b", "expected paths.results= once"),
    ("score fake=fake metrics=is extractor.inception.file=a extractor.inception.file=b", "file= once, found it twice"),
    ("score fake=fake metrics=tv extractor=tyo", "did you mean toy"),
    ("score fake=fake protocol=strict extractor=cub", "expected an extractor, found 'cub'"),
    ("score fake= metrics=tv", "expected fake=VALUE, found ''"),
    ("score fake=fake metrics=tv skip_bad=", "expected skip_bad=N, a whole number of 0 or more, found ''"),
    ("score fake=fake metrics=tv skip_bad=1,2", "a whole number of 0 or more, found '1,2'"),
    ("score fake=fake metrics=tv skip_bad=-1", "a whole number of 0 or more, found '-1'"),
    ("score fake=fake metrics=tv workers=1.5", "expected workers=N, a whole number of 0 or more, found '1.5'"),
    ("score fake=fake real=fake metrics=l1 size=0", "expected size=N, a whole number of 1 or more, found '0'"),
    ("score fake=fake real=fake metrics=l1 size=two", "a whole number of 1 or more, found 'two'"),
    ("train method=damsm weights=none", "expected options of a training, found weights"),
    ("train method=damsm protocol.draws=2", "expected options of a training, found protocol.draws"),
    ("train method=damsm seed=0 seed=1", "expected seed= once, found seed=0 and seed=1"),
    ("evaluate method=identity data=cub data=coco", "expected data= once, found data=cub and data=coco"),
    ("evaluate method=identity trainer.devices=1 +trainer.devices=2", "expected trainer.devices= once"),
    ("reproduce experiment=demo protocol=strict", "expected the protocols of the experiment, found protocol=strict"),
    ("reproduce experiment=demo method=", "expected method=VALUE, found ''"),
    ("table experiment=demo data=cub", "expected words for all rows of a table, found data=cub"),
    ("table experiment=demo protocol=strict", "expected the protocols of the experiment"),
    ("prepare data=cub data.source=toy seed=1", "expected options of a data set, found seed"),
    ("prepare data=cub data.source=toy trainer=cpu", "expected options of a data set, found trainer"),
    ("list group=", "expected group=VALUE, found ''"),
    ("explain record=strict against=manigan experiment=demo", "expected experiment=NAME with against=published"),
    ("explain record=x.json against=manigan method=identity", "expected the row of the record, found method=identity"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), TAKEN_BY_NONE)
def test_what_a_command_does_not_obey_is_refused_in_one_line(fake, line, message):
    command, *words = line.split()
    with pytest.raises(ValueError, match="expected") as caught:
        MAIN[command].main(words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=a"], "expected seed=N, a whole number from 0 to 2^63 - 1, found 'a'"),
        (["seed=null"], "found None"),
        (["seed=-1"], "found -1"),
        (["data.source=toy", "data.toy_images=nan"], "expected finite numbers, found data.toy_images=nan"),
        (["method=null"], "expected words that compose"),
        (["weights=null"], "expected weights=official, trained, none or a file, found None"),
        (["data.source=tyo"], "did you mean toy"),
        (["paths.runs=null"], "expected paths.runs=FOLDER, found None"),
        (["method.name=x"], "expected method=NAME, found method.name"),
        (["+trainer.max_time=1"], "found trainer.max_time"),
        (["protocol.mask=centre"], "expected protocol.mask as a block of keys, found 'centre'"),
        (["protocol.metrics={}"], "expected protocol.metrics.NAME.KEY=VALUE"),
        (["protocol=strict", "protocol=manigan"], "expected one protocol=NAME, found 2, manigan and strict"),
        (["stages.main.name=x"], "expected a setting of the stage, found stages.main.name"),
        (["stages.main.module._target_=x"], "expected a setting of the stage"),
        (["++method.stages.main.training.epochs=2"], "write stages.main.training.epochs"),
        (
            ["stages.main.training.epochs=1", "stages.manigan_main.training.epochs=2"],
            "expected one word for training.epo",
        ),
    ],
)
def test_a_value_that_no_run_could_use_is_one_line(words, message):
    with pytest.raises(ValueError, match="expected") as caught:
        config.composed(["method=manigan", "data.source=toy" if "data.source" not in words[0] else "data=cub", *words])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_spellings_of_a_precision_are_one_run():
    for one, other in (("bf16", "bf16-mixed"), ("16", "16-mixed"), ("32", "32-true"), ("double", "64-true")):
        found = [config.composed(["method=identity", f"trainer.precision={word}"]) for word in (one, other)]
        assert found[0]["trainer"]["precision"] == found[1]["trainer"]["precision"] == other


@pytest.mark.parametrize("word", ["trainer.devices=0", "trainer.accelerator=gpu", "trainer.accelerator=none"])
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_hardware_that_is_not_there_is_one_line_before_anything_is_made(home, monkeypatch, command, word):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SystemExit) as caught:
        MAIN[command].main(["method=damsm", *DATA, word, "paths.assets=untouched"])
    assert str(caught.value.code).startswith(
        "mmbench: error: expected a trainer that this machine can be, found trainer"
    )
    assert "\n" not in str(caught.value.code)
    assert not Path("untouched").exists()


def test_a_gpu_that_is_not_there_is_one_line_of_score(fake, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"expected a GPU for trainer\.accelerator=gpu, found none"):
        score.main(["fake=fake", "metrics=tv", "trainer.accelerator=gpu"])


def test_a_misspelt_metric_of_a_published_table_is_one_line(home):
    words = ["record=strict", "against=published", "experiment=demo", "method=identity", "data=cub", "data.source=toy"]
    with pytest.raises(ValueError, match="found 'edit_acuracy': did you mean edit_accuracy"):
        explain.main([*words, "metric=edit_acuracy"])


def test_what_no_metric_looks_at_is_said(fake, capsys):
    record = scored("metrics=tv", "real=fake")
    note = "real= was given, and none of these metrics looks at it"
    assert record.data["notes"] == {note: 12}
    assert f"note: {note}: 12" in capsys.readouterr().out
    assert note not in scored("metrics=l1", "real=fake").data["notes"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("manigan_main=1", "expected manigan_main=N, a batch of 2 images or more, found '1'"),
        ("tagan=", "found ''"),
        ("tagan=4,8", "found '4,8'"),
        ("tagan=0", "found '0'"),
    ],
)
@pytest.mark.parametrize("check", [[], ["check"]])
def test_a_batch_that_is_too_small_to_time_is_one_line(word, message, check):
    with pytest.raises(ValueError, match=r"expected \w+=N, a batch of") as caught:
        bench_training([*check, word])
    assert message in str(caught.value)
