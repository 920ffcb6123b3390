"""Toy birds that all tests of data share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mmbench.data.cub import CUB, ToyCUB

SEED, COUNT = 3, 80
PLAIN = {"split_scheme": "zero_shot", "image_size": 32, "batch_size": 4, "num_workers": 0, "seed": 0}


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory) -> Path:
    """80 toy birds, two of each class; not to be changed."""
    root = tmp_path_factory.mktemp("toy") / "birds"
    ToyCUB(root=root, assets=root.parent, num_images=COUNT, toy_seed=SEED, **PLAIN).prepare_data()
    return root


@pytest.fixture
def toy(toy_root) -> Callable[..., ToyCUB]:
    """Makes data modules of those birds."""

    def make(**changes: object) -> ToyCUB:
        common = {"root": toy_root, "assets": toy_root.parent, "num_images": COUNT, "toy_seed": SEED}
        return ToyCUB(**{**common, **PLAIN, **changes})

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
def read(tmp_path) -> Callable[..., CUB]:
    """Makes the module of the real data set for a folder that holds a part of it."""

    def make(root: Path, **changes: object) -> CUB:
        return CUB(**{"root": root, "assets": tmp_path, **PLAIN, "complete": False, **changes})

    return make
