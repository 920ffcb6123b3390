"""What the toy data sets share: they are made on first use, as archives in the layout of the real ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from mmbench.core.files import locked, write_json
from mmbench.data.base import DataModule
from mmbench.data.fetching import install
from mmbench.data.packing import pack


class Toy(DataModule):
    """Comes before the real data set among the bases of a toy one.

    What `write` makes is packed as the data set's archives, into the folder `archives`, and unpacked from there, as the
    real ones are.

    Args:
        num_images: how many to make.
        toy_seed: of pictures and captions.
        common: as the real data set.

    Attributes:
        write: writes the data set's files below a folder, from a seed and a number of images; every file belongs to the
            contents of one of `archives`.
        version: of what `write` writes; raised when the same arguments give other files.
    """

    write: ClassVar[Callable[[Path, int, int], None]]
    version: ClassVar[int]

    def __init__(self, *, num_images: int, toy_seed: int, **common: Any) -> None:
        super().__init__(**{**common, "complete": False})
        self.num_images = num_images
        self.toy_seed = toy_seed

    def prepare_data(self) -> None:
        """Makes the data set if it is not there, and checks it.

        Raises:
            ValueError: other files are there, or damaged ones.
        """
        self.make()
        super().prepare_data()

    def make(self) -> None:
        """Makes the data set below `root` if it is not there.

        It appears whole or not at all, also when two runs want it at once or one is killed.

        Raises:
            ValueError: other files are there.
        """
        with locked(self.root):
            wanted = {"version": self.version, "seed": self.toy_seed, "images": self.num_images}
            if self.root.exists() and any(self.root.iterdir()):
                self._require(wanted)
            else:
                self._write(wanted)

    def _write(self, wanted: dict[str, int]) -> None:
        partial = self.root.with_name(f".{self.root.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # left by a killed owner of the lock
        tree, folder = partial / "tree", partial / "archives"
        self.write(tree, self.toy_seed, self.num_images)
        archives = pack(tree, self.archives, folder)
        shutil.rmtree(tree)
        for archive in archives:
            install(archive, folder / archive.file, partial)
        write_json(partial / "toy.json", wanted)
        partial.replace(self.root)

    def _require(self, wanted: dict[str, int]) -> None:
        path = self.root / "toy.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else "other files"
        if found != wanted:
            raise ValueError(
                f"{self.root}: expected toy data {wanted} or no folder, found {found}: remove it or name another"
            )
