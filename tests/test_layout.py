"""The shape of the house: what may import what, and that every YAML says what it is."""

import ast
import csv
import subprocess
from pathlib import Path

import pytest
import yaml

from mmbench.core import catalogue, config
from mmbench.core.task import BATCH_FIELDS
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.publications import published
from mmbench.pipeline.tables import remarks

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mmbench"

# Imports point down only: a room may import from itself and from these.
BELOW = {
    "core": set(),
    "layers": {"core"},
    "networks": {"core", "layers"},
    "losses": {"core", "layers", "networks"},
    "diffusion": {"core", "layers"},
    "methods": {"core", "layers", "networks", "losses", "diffusion"},
    "data": {"core"},
    "metrics": {"core", "layers", "networks"},
    "statistics": {"core"},
    "pipeline": {"core", "data", "metrics", "statistics"},
    "people": {"core", "data", "statistics", "pipeline"},
    "auditing": {"core"},
    "site": {"core", "data", "metrics", "statistics", "pipeline"},
    "commands": {"core", "data", "metrics", "statistics", "people", "pipeline", "auditing", "site"},
    "benchmarks": {
        *("core", "layers", "networks", "losses", "diffusion", "methods", "data", "metrics", "pipeline", "site"),
    },
    "maintenance": {"core", "layers", "networks", "data", "metrics", "pipeline", "__main__"},
    "__main__": {"core", "commands"},
    "__init__": {"core"},
}


def _modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def _imports(path: Path) -> set[str]:
    return {name for name in _modules(path) if name.startswith("mmbench.")}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("room", sorted({_room(path) for path in PACKAGE.rglob("*.py")}))
def test_imports_point_down_only(room):
    for path in sorted(path for path in PACKAGE.rglob("*.py") if _room(path) == room):
        for name in _imports(path):
            below = name.split(".")[1]
            assert below in {room, *BELOW[room], "__version__"}, f"{path.relative_to(ROOT)} imports {name}"


def test_a_method_imports_no_other_method():
    for path in sorted((PACKAGE / "methods").rglob("*.py")):
        assert not any(name.startswith("mmbench.methods") for name in _imports(path)), path.relative_to(ROOT)


def test_tests_and_benchmarks_do_not_import_each_other():
    """Tests run a benchmark as its command does, by `main`; the package knows no test."""
    tests = sorted((ROOT / "tests").rglob("*.py"))
    for path in tests:
        strangers = {name for name in _imports(path) if name.startswith("mmbench.benchmarks.")}
        commands = {f"mmbench.benchmarks.{command.stem}" for command in (PACKAGE / "benchmarks").glob("*.py")}
        found = {name for name in strangers - commands if name.rpartition(".")[2] != "main"}
        assert not found, f"{path.relative_to(ROOT)} imports {min(found)}"
    own = {path.stem for path in tests} | {"tests", "pytest"}
    for path in PACKAGE.rglob("*.py"):
        found = {name.partition(".")[0] for name in _modules(path)} & own
        assert not found, f"{path.relative_to(ROOT)} imports {min(found)}"


def test_top_level_is_what_the_style_fixes():
    tracked = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True).stdout
    folders = {Path(name).parts[0] for name in tracked.splitlines() if "/" in name}
    assert {name for name in folders if not name.startswith(".")} == {
        "conf",
        "mmbench",
        "experiments",
        "results",
        "tests",
    }


@pytest.mark.parametrize("path", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_configuration_begins_with_one_line_of_help(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# "), f"{path.name}: the first line is what `mmbench list` prints"
    assert len(first) <= 120


@pytest.mark.parametrize("data", catalogue.names("data"))
def test_every_data_set_composes(data):
    cfg = config.composed(["method=identity", f"data={data}", "data.source=toy"])
    assert cfg["data"]["name"] == data


@pytest.mark.parametrize("name", catalogue.names("experiment"))
def test_every_experiment_finds_its_published_numbers(name):
    experiment, found = load(name), set()
    for row in experiment.rows:
        numbers = published(experiment, row)
        assert bool(numbers) == bool(row.published), row
        assert numbers.keys() <= set(experiment.metrics), row
        found |= numbers.keys()
        assert all(experiment.metric(metric, row, "toy") for metric in experiment.places)
        assert all(protocol.split()[0] in catalogue.names("protocol") for protocol in experiment.protocols(row.data))
    # A row may lack some, as those of a data set of which a paper prints FID alone; no metric lacks all.
    assert not found or found == set(experiment.metrics)


def test_the_published_manigan_table_is_whole():
    experiment = load("manigan")
    assert len(experiment.rows) == 14
    full = published(experiment, experiment.rows[6])
    assert {metric: number.text for metric, number in full.items()} == {
        "IS": "8.47",
        "sim": "0.101",
        "diff": "0.281",
        "MP": "0.072",
    }
    # The printed MP is (1 - diff) * sim of the printed columns, truncated.
    for row in experiment.rows:
        numbers = {metric: number.value for metric, number in published(experiment, row).items()}
        assert abs((1 - numbers["diff"]) * numbers["sim"] - numbers["MP"]) < 0.0015


def test_the_published_tdanet_table_is_whole():
    experiment = load("tdanet")
    assert experiment.metrics[:5] == ["L1 center", "PSNR center", "TV center", "SSIM center", "L1 object"]
    assert [experiment.protocols(row.data) for row in experiment.rows[2:4]] == [
        ["tdanet_centre", "tdanet_object"],
        ["tdanet_centre", "tdanet_object_coco"],
    ]
    wrong = set()
    printed = [row for row in experiment.rows if row.published]
    assert len(printed) == 6
    for row in printed:
        numbers = published(experiment, row)
        assert len(numbers) == 12
        for shown, (first, second) in experiment.differences.items():
            if abs(abs(numbers[first].value - numbers[second].value) - numbers[shown].value) > 0.011:
                wrong.add((row.label, row.data, shown))
    assert wrong == {("CSA", "cub", "SSIM delta"), ("PICNet", "coco", "PSNR delta")}
    under = " ".join(remarks(experiment))
    assert all(f"{metric} of {method} on {data.upper()}" in under for method, data, metric in wrong)


def test_what_tdanet_printed_bold_is_the_best_but_for_what_the_note_names():
    lines = list(csv.DictReader((ROOT / "results/published/inpainting.csv").open(encoding="utf-8", newline="")))
    of_table = [line for line in lines if line["paper"].startswith("TDANet")]
    wrong = set()
    for bold in (line for line in of_table if line["emphasis"] == "bold"):
        same = ("table", "dataset", "metric", "protocol")
        others = [
            float(line["value"])
            for line in of_table
            if all(line[column] == bold[column] for column in same) and line["method"] != "Ground truth"
        ]
        best = max(others) if bold["higher_is_better"] == "true" else min(others)
        if float(bold["value"]) != best:
            wrong.add((bold["dataset"], bold["metric"], bold["protocol"], bold["value"]))
    assert wrong == {("COCO", "TV", "center mask", "4.54")}
    assert "TV of TDANet on COCO, center (4.54), is printed bold" in " ".join(load("tdanet").notes)


def test_no_file_names_a_machine_of_ours():
    documents = [*ROOT.glob("*.md"), *ROOT.glob("results/*.md"), ROOT / "Makefile"]
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "conf").rglob("*.yaml"), *documents]:
        text = path.read_text(encoding="utf-8")
        assert "/work/" not in text, path
        assert "../shared" not in text, path


def test_batch_vocabulary_has_one_line_per_field():
    assert all(text and "\n" not in text for text in BATCH_FIELDS.values())


def test_experiments_are_plain_data():
    for name in catalogue.names("experiment"):
        content = yaml.safe_load((catalogue.shipped("experiments") / f"{name}.yaml").read_text(encoding="utf-8"))
        assert {"citation", "rows"} <= content.keys()
        of_papers = {"published", "select", "tolerance"}
        printed = any("published" in row for row in content["rows"])
        assert (of_papers & content.keys()) == (of_papers if printed else set())
        assert ({"protocol", "metrics"} <= content.keys()) != ("columns" in content), "one protocol, or several"
