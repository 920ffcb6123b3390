"""A small site: one experiment of two rows, run here on toy birds."""

from pathlib import Path

import pytest
import yaml
from small import CSV, LINT, WORDS, experiment

from mmbench.commands import report, reproduce
from mmbench.core import catalogue
from mmbench.pipeline import experiments


@pytest.fixture(scope="session")
def workplace(toy_assets, tmp_path_factory):
    """A folder with an experiment of its own, of which two rows are run; the folder while it is the working one."""
    place = tmp_path_factory.mktemp("workplace")
    shipped = catalogue.shipped
    own = {"experiments": place / "experiments", "results/published": place / "published"}
    for folder in own.values():
        folder.mkdir()
    text = "# A small table <b>of ours</b>\n" + yaml.safe_dump(experiment(), sort_keys=False)
    (place / "experiments" / "small.yaml").write_text(text, encoding="utf-8")
    (place / "published" / "small.csv").write_text(CSV, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for module in (catalogue, experiments):
            patch.setattr(module, "shipped", lambda folder: own.get(folder) or shipped(folder))
        patch.setenv("MMBENCH_HOME", str(toy_assets))
        patch.delenv("MMBENCH_RUNS", raising=False)
        patch.delenv("MMBENCH_RESULTS", raising=False)
        patch.chdir(place)
        assert reproduce.main(["experiment=small", "method=identity,real", "trainer=cpu", *WORDS]) == 0
        (place / "results" / "tables" / "lint.md").write_text(LINT, encoding="utf-8")
        yield place


@pytest.fixture(scope="session")
def site(workplace) -> Path:
    """The site of that experiment."""
    assert report.main(["out=site", *WORDS]) == 0
    return workplace / "site"


@pytest.fixture
def at_work(workplace, monkeypatch) -> Path:
    """The folder of the experiment, as the working one."""
    monkeypatch.chdir(workplace)
    return workplace
