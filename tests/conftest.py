"""Fixtures and markers for all tests."""

import itertools
import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CONTRACT = "contract"  # of a report: a method's name and seconds
BAR = 3.0  # seconds
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHARED_REAL = Path(__file__).resolve().parents[2] / "shared" / "real"


def pytest_collection_modifyitems(items):
    """Reports as not run what needs files or hardware that this machine lacks."""
    # Lightning's log writes to the stderr that it finds when it is imported: that of all tests, and not that of one.
    import pytorch_lightning  # noqa: F401
    import torch

    for item in items:
        if item.get_closest_marker("assets") and not SHARED_REAL.is_dir():
            item.add_marker(pytest.mark.skip(reason="not run: the photographs are not on this machine"))
        if item.get_closest_marker("browser") and not CHROMIUM:
            item.add_marker(pytest.mark.skip(reason="not run: no Chromium on this machine"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="not run: no CUDA device"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Measures the tests of the contract: seconds of the processor, which others on the machine hardly change."""
    start = time.process_time()
    try:
        return (yield)
    finally:
        name = item.callspec.params.get("name") if hasattr(item, "callspec") else None
        if item.module.__name__ == "test_contract" and name:
            item.user_properties.append((CONTRACT, (name, time.process_time() - start)))


def pytest_terminal_summary(terminalreporter):
    """Prints what the contract took of each method, the slowest first."""
    seconds: dict[str, float] = defaultdict(float)
    for report in itertools.chain(*terminalreporter.stats.values()):
        if getattr(report, "when", None) == "call":
            for key, value in report.user_properties:
                if key == CONTRACT:
                    seconds[value[0]] += value[1]
    if seconds:
        terminalreporter.section(f"seconds of the contract for each method, at most {BAR:.0f} on an idle core")
    for name, taken in sorted(seconds.items(), key=lambda item: -item[1]):
        terminalreporter.line(f"{taken:5.2f}  {name}{'  too long' * (taken > BAR)}")


@pytest.fixture(autouse=True)
def log():
    """Takes away the handlers of a log that a test set up, as Hydra does: they write to what is closed after it."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    yield
    root.handlers[:] = handlers


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium, one for all tests of a process; ask for it in tests marked `browser` only."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def shared_real() -> Path:
    """The folder of real miniatures; ask for it in tests marked `assets` only."""
    return SHARED_REAL


@pytest.fixture(scope="session")
def toy_assets(tmp_path_factory) -> Path:
    """A `paths.assets` for tests, made once: toy data and extractor statistics are shared by all of them."""
    return tmp_path_factory.mktemp("assets")


@pytest.fixture
def home(toy_assets, tmp_path, monkeypatch) -> Path:
    """An empty working directory with the directories of a run pointing into it; assets are shared."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMBENCH_HOME", str(toy_assets))
    monkeypatch.delenv("MMBENCH_RUNS", raising=False)
    monkeypatch.delenv("MMBENCH_RESULTS", raising=False)
    return tmp_path


class Configuration:
    """A copy of conf/ that a test may change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def change(self, name: str, keys: dict[str, Any]) -> None:
        """Lays `keys` over those of a YAML, `method/damsm` say, and keeps its first lines of comment."""
        from mmbench.core import composition

        path = self.folder / f"{name}.yaml"
        text = path.read_text(encoding="utf-8")
        head = [line for line in text.splitlines()[:2] if line.startswith("#")]
        content = yaml.safe_load(text)
        _lay_over(content, keys)
        path.write_text("\n".join([*head, yaml.safe_dump(content, sort_keys=False)]), encoding="utf-8")
        composition.forget()


def _lay_over(content: dict[str, Any], keys: dict[str, Any]) -> None:
    for key, value in keys.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict):
            _lay_over(content[key], value)
        else:
            content[key] = value


@pytest.fixture
def conf(home, monkeypatch) -> Iterator[Configuration]:
    """A copy of conf/ in the working directory, from which runs of this process are composed."""
    from mmbench.core import catalogue, composition

    shipped = catalogue.shipped
    shutil.copytree(shipped("conf"), home / "conf")
    monkeypatch.setattr(catalogue, "shipped", lambda folder: home / "conf" if folder == "conf" else shipped(folder))
    composition.forget()
    yield Configuration(home / "conf")
    composition.forget()


@pytest.fixture
def tiny(conf) -> Configuration:
    """A copy of conf/ in which every method has the size of its block `tiny`, and its stages too."""
    conf.change("run", {"scale": "tiny"})
    return conf
