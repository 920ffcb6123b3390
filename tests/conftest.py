"""Fixtures and markers for all tests."""

from pathlib import Path

import pytest

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
