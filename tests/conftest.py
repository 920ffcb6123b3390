"""Fixtures and markers for all tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

SHARED_REAL = Path(__file__).resolve().parents[2] / "shared" / "real"


def pytest_collection_modifyitems(items):
    """Reports as not run what needs files or hardware that this machine lacks."""
    import torch

    for item in items:
        if item.get_closest_marker("assets") and not SHARED_REAL.is_dir():
            item.add_marker(pytest.mark.skip(reason="not run: the photographs are not on this machine"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="not run: no CUDA device"))


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
        from mmbench.core import config

        path = self.folder / f"{name}.yaml"
        text = path.read_text(encoding="utf-8")
        head = [line for line in text.splitlines()[:2] if line.startswith("#")]
        content = yaml.safe_load(text)
        _lay_over(content, keys)
        path.write_text("\n".join([*head, yaml.safe_dump(content, sort_keys=False)]), encoding="utf-8")
        config.forget()


def _lay_over(content: dict[str, Any], keys: dict[str, Any]) -> None:
    for key, value in keys.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict):
            _lay_over(content[key], value)
        else:
            content[key] = value


@pytest.fixture
def conf(home, monkeypatch) -> Iterator[Configuration]:
    """A copy of conf/ in the working directory, from which runs of this process are composed."""
    from mmbench.core import config

    shipped = config.shipped
    shutil.copytree(shipped("conf"), home / "conf")
    monkeypatch.setattr(config, "shipped", lambda folder: home / "conf" if folder == "conf" else shipped(folder))
    config.forget()
    yield Configuration(home / "conf")
    config.forget()


@pytest.fixture
def tiny(conf) -> Configuration:
    """A copy of conf/ in which every method has the size of its block `tiny`, and its stages too."""
    conf.change("run", {"scale": "tiny"})
    return conf
