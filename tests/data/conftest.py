"""Toy birds that all tests of data share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mmbench.data import toy_cub
from mmbench.data.cub import CUB, ToyCUB

SEED, COUNT = 3, 80


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory) -> Path:
    """80 toy birds, two of each class; not to be changed."""
    root = tmp_path_factory.mktemp("toy") / "birds"
    toy_cub.write_dataset(root, SEED, COUNT)
    return root


@pytest.fixture
def toy(toy_root) -> Callable[..., ToyCUB]:
    """Makes data modules of those birds."""

    def make(**changes: object) -> ToyCUB:
        plain = {"split_scheme": "zero_shot", "image_size": 32, "batch_size": 4, "num_workers": 0, "seed": 0}
        return ToyCUB(toy_root, COUNT, SEED, **{**plain, **changes})

    return make


@pytest.fixture
def real_copy(toy_root, tmp_path) -> Path:
    """The toy birds as a folder that may be damaged, to be read as the real data set is."""
    root = tmp_path / "cub"
    shutil.copytree(toy_root, root)
    # The real classes: the toy's 40 have folders, the other 160 have none.
    with (root / "CUB_200_2011" / "classes.txt").open("a", encoding="ascii") as file:
        file.writelines(f"{number} {number:03d}.Unseen\n" for number in range(41, 201))
    return root


@pytest.fixture
def read() -> Callable[..., CUB]:
    """Makes the module of the real data set for a folder that holds a part of it."""

    def make(root: Path, **changes: object) -> CUB:
        plain = {"split_scheme": "zero_shot", "image_size": 32, "batch_size": 4, "num_workers": 0, "seed": 0}
        return CUB(root, **{**plain, "complete": False, **changes})

    return make
