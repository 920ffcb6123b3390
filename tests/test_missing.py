"""Why rows are not run: the sentences of running them, told without building anything."""

import subprocess
import sys
from dataclasses import replace

import pytest

from mmbench.commands import table
from mmbench.core import cards, catalogue, config, construction, results
from mmbench.data import sources
from mmbench.data.cub import CUB, ToyCUB
from mmbench.pipeline import assembly, cells, generation, lookup
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.missing import missing
from mmbench.pipeline.rows import described

NEITHER = "'torch' not in sys.modules and 'pytorch_lightning' not in sys.modules"


@pytest.fixture
def birds(home, monkeypatch):
    """Words of a run on toy birds that pass for photographs, since they have the layout of those; checked already."""
    root = home / "birds"
    words = ["method=identity", "data.source=toy", "data.toy_images=40", f"data.root={root}"]
    construction.construct(config.composed(words)["data"]["module"]).make()
    monkeypatch.setattr(CUB, "test_classes", ToyCUB.test_classes)
    words = [f"data.root={root}", "data.module.complete=false", f"paths.assets={home}", "trainer=cpu"]
    assembly.prepared_data(config.composed(["method=identity", *words]))
    return words


def _refusal(plain):
    with pytest.raises(ValueError, match="expected") as error:
        generation.prepared(plain)
    return str(error.value)


@pytest.mark.parametrize("name", catalogue.names("data"))
def test_archives_are_those_of_the_data_set(name):
    plain = config.composed(["method=identity", f"data={name}"])
    assert construction.target(plain["data"]["module"]).archives == sources.archives(name)


@pytest.mark.parametrize("data", ["cub", "coco"])
def test_a_data_set_that_is_not_here_is_named_as_when_it_is_read(home, data):
    plain = config.composed(["method=manigan", f"data={data}", f"paths.assets={home}"])
    assert missing(plain) == _refusal(plain)
    assert "`mmbench prepare`" in missing(plain)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (
            ["method=manigan"],
            "birds/captions.pickle of manigan/data/birds.zip (size unknown; hash not known: the file's own will be "
            "recorded; from gdrive:",
        ),
        (["method=manigan", "weights=trained"], "expected trained weights of damsm at "),
        (
            ["method=damsm", "protocol=strict_synthesis", "weights=none.pt"],
            "none.pt: expected a file of weights, found none",
        ),
        (
            ["method=manigan_direct", "weights=none"],
            "vgg16-397923af.pth (553,433,881 bytes; sha256 397923af; from https://",
        ),
        (
            ["method=manigan_concat_main", "weights=none"],
            "vgg16-397923af.pth (553,433,881 bytes; sha256 397923af; from https://",
        ),
        (["method=tagan"], "fasttext/"),
    ],
)
def test_a_file_that_is_not_here_is_named_as_when_it_is_loaded(birds, monkeypatch, words, named):
    monkeypatch.setattr(cards, "SCHEMES", ())  # nothing is fetched
    plain = config.composed([*words, *birds])
    assert missing(plain) == _refusal(plain)
    assert named in missing(plain)


def test_what_nobody_published_is_said(birds):
    plain = config.composed(["method=manigan", *birds])
    plain["method"] = {**plain["method"], "stages": {}, "official": {}}
    assert missing(plain) == (
        "expected weights of manigan that its authors published for cub (real), found none: use weights=trained"
    )


def test_nothing_is_missing_of_a_method_without_weights(birds):
    assert missing(config.composed(["method=identity", *birds])) is None


def test_a_card_is_not_fetched_to_render_a_table(birds, monkeypatch):
    monkeypatch.setattr(cards, "_fetch", lambda *_: pytest.fail("a table fetches nothing"))
    plain = config.composed(["method=manigan", *birds])
    assert "put it there; download=yes fetches it" in missing(plain)


def test_a_trained_stage_is_found_by_its_key_and_without_a_mark_by_its_folder(birds, home):
    plain = config.composed(["method=damsm", "weights=trained", *birds])
    place = home / missing(plain).partition(" at ")[2].partition(",")[0]
    other = place.parents[1] / "another" / place.name
    other.parent.mkdir(parents=True)
    other.touch()
    assert missing(plain) is not None, "trained on other data"
    place.parent.mkdir()
    place.touch()
    assert missing(plain) is None
    place.unlink()
    plain["paths"]["assets"] = str(home / "elsewhere")  # which has no marks
    assert missing(plain) is None
    other.unlink()
    assert missing(plain).startswith("expected trained weights of damsm at runs/train/damsm-cub-real-s0, found none")


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("table", ["experiment=manigan", "data.source=real"], "not run (expected CUB_200_2011 in "),
        ("table", ["experiment=manigan", "trainr=cpu"], "did you mean trainer"),
        ("table", ["experiment=manigam"], "did you mean manigan"),
        ("reproduce", ["experiment=manigan", "trainr=cpu"], "did you mean trainer"),
        ("reproduce", ["experiment=manigan", "data=cup"], "did you mean cub"),
        ("reproduce", ["experiment=manigan", "seed=3"], "expected seeds=0,1,2 for the rows of a table"),
    ],
)
def test_tables_and_answers_to_mistakes_need_no_torch(home, command, words, said):
    code = f"""
import os, sys
os.environ["MMBENCH_HOME"] = "nothing"
from mmbench.commands import {command}
try:
    {command}.main({words})
except ValueError as error:
    print(error)
assert {NEITHER}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=home)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_records_are_read_once_and_rows_composed_once(home, monkeypatch):
    experiment = load("manigan")
    composed, read = [], []
    row_config, results_read = lookup.row_config, results.read
    monkeypatch.setattr(lookup, "row_config", lambda *asked: composed.append(asked[1].key) or row_config(*asked))
    monkeypatch.setattr(results, "read", lambda *asked: read.append(asked[1]) or results_read(*asked))
    assert table.main(["experiment=manigan", "seeds=0,1,2"]) == 0
    assert read == ["manigan"], "for both sources"
    assert len(composed) == 2 * len(experiment.rows)
    assert len(set(composed)) == len(experiment.rows)


@pytest.mark.parametrize("method", catalogue.names("method"))
def test_a_seed_is_said_once_in_what_makes_a_row_what_it_is(method):
    for source in ("toy", "real"):
        words = [f"method={method}", f"data.source={source}", "weights=trained"]
        first, second = (described(config.composed([*words, f"seed={seed}"])) for seed in (0, 2))
        assert second == {**first, "seed": 2}


def test_a_reason_of_each_protocol_is_given_once(home):
    experiment = load("tdanet")
    experiment = replace(experiment, rows=[replace(experiment.rows[0], method="sculptor")])
    paths = {"assets": str(home)}
    reasons = {("CSA", "cub", "tdanet_object"): "no boxes"}
    found = {
        cell.metric: cell.value.reason
        for cell in cells.cells_of(experiment, "real", [0], [], paths, {}, experiment.rows, reasons)
    }
    assert found["L1 center"] == "method sculptor is not part of this version of mmbench" == found["L1 delta"]
    assert found["L1 object"] == "no boxes"
