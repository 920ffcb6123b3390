"""A small site: one experiment of two rows, run here on toy birds."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from small import CSV, LINT, WORDS, experiment

from mmbench.commands import report, reproduce
from mmbench.core import catalogue


@contextmanager
def working_in(place: Path, toy_assets: Path) -> Iterator[None]:
    """The place as the working folder, where its experiment is the only one."""
    shipped = catalogue.shipped
    own = {"experiments": place / "experiments", "results/published": place / "published"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "shipped", lambda folder: own.get(folder) or shipped(folder))
        patch.setenv("MMBENCH_HOME", str(toy_assets))
        patch.delenv("MMBENCH_RUNS", raising=False)
        patch.delenv("MMBENCH_RESULTS", raising=False)
        patch.chdir(place)
        yield


@pytest.fixture(scope="session")
def workplace(toy_assets, tmp_path_factory):
    """A folder with an experiment of its own, of which two rows are run."""
    place = tmp_path_factory.mktemp("workplace")
    for folder in ("experiments", "published"):
        (place / folder).mkdir()
    text = "# A `small` table <b>of ours</b>\n" + yaml.safe_dump(experiment(), sort_keys=False)
    (place / "experiments" / "small.yaml").write_text(text, encoding="utf-8")
    (place / "published" / "small.csv").write_text(CSV, encoding="utf-8")
    with working_in(place, toy_assets):
        assert reproduce.main(["experiment=small", "method=identity,real", "trainer=cpu", *WORDS]) == 0
    (place / "results" / "tables" / "lint.md").write_text(LINT, encoding="utf-8")
    return place


@pytest.fixture(scope="session")
def site(workplace, toy_assets) -> Path:
    """The site of that experiment."""
    with working_in(workplace, toy_assets):
        assert report.main(["out=site", *WORDS]) == 0
    return workplace / "site"


@pytest.fixture
def at_work(workplace, toy_assets) -> Iterator[Path]:
    """The folder of the experiment, as the working one."""
    with working_in(workplace, toy_assets):
        yield workplace
