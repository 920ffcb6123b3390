"""Every recorded fixture against the adapter that bears its name; adapters are found in `adapters_*.py`.

An adapter is `ADAPTERS["family/part"] = function` from a fixture to our tensors under the names of its outputs. It
renames keys, permutes axes and converts masks, and obeys the fixture's `config`; it computes nothing. For a fixture
without outputs, the layout of a released checkpoint, it returns our network (on the meta device) and its key map.
"""

import importlib
from pathlib import Path

import pytest
import torch
from fixture import RECORDED, is_layout, load_folder

FOUND = pytest.StashKey[dict[str, float]]()
LEFT_OUT = pytest.StashKey[set[str]]()


def adapters():
    """Fixture name to adapter, of all adapter modules."""
    known = {}
    for path in sorted(Path(__file__).parent.glob("adapters_*.py")):
        module = importlib.import_module(path.stem)
        if repeated := known.keys() & module.ADAPTERS.keys():
            raise ValueError(
                f"{path.name}: expected fixtures without an adapter, found {sorted(repeated)} adapted twice"
            )
        known |= module.ADAPTERS
    return known


def pytest_addoption(parser):
    group = parser.getgroup("parity")
    group.addoption("--parity-dir", type=Path, default=None, help="folder of fixtures to run instead of our own")
    group.addoption("--parity-known-only", action="store_true", help="leave out fixtures that no adapter knows")


def pytest_configure(config):
    config.stash[FOUND] = {}
    config.stash[LEFT_OUT] = set()


def pytest_generate_tests(metafunc):
    kinds = {"recorded": False, "released": True}
    for argument, layouts in kinds.items():
        if argument not in metafunc.fixturenames:
            continue
        folder = metafunc.config.getoption("parity_dir", None) or RECORDED
        try:
            fixtures = [one for one in load_folder(folder) if is_layout(one) == layouts]
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
        if metafunc.config.getoption("parity_known_only", False):
            known = adapters()
            metafunc.config.stash[LEFT_OUT] |= {one["name"] for one in fixtures if one["name"] not in known}
            fixtures = [one for one in fixtures if one["name"] in known]
        metafunc.parametrize(argument, fixtures, ids=[one["name"] for one in fixtures])


@pytest.fixture(autouse=True)
def one_thread():
    """The recordings were made on one thread; sums in another order grow to 6e-4 of the spread within Inception."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def adapt():
    """A function from a fixture to what its adapter returns; fails for a fixture that no adapter knows."""

    def call(fixture):
        known = adapters()
        if fixture["name"] not in known:
            pytest.fail(
                f"expected a fixture that an adapter knows, found {fixture['name']}: add it to "
                "tests/parity/adapters_*.py, or leave unknown ones out with --parity-known-only",
                pytrace=False,
            )
        return known[fixture["name"]](fixture)

    return call


@pytest.fixture
def report(request):
    """A function that notes deviations by output for the summary at the end of the run."""
    return request.config.stash[FOUND].update


def pytest_terminal_summary(terminalreporter, config):
    found = config.stash.get(FOUND, {})
    if found:
        worst = max(found, key=found.__getitem__)
        terminalreporter.write_sep("-", "parity")
        terminalreporter.write_line(
            f"{len(found)} recorded outputs compared; largest deviation {found[worst]:.1e} of the spread ({worst})"
        )
    if left_out := config.stash.get(LEFT_OUT, set()):
        terminalreporter.write_line(f"{len(left_out)} fixtures left out, which no adapter knows")
