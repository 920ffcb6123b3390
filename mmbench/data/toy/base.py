"""What the toy data sets share: they are made on first use, as archives in the layout of the real ones."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from mmbench.core.files import locked, write_json
from mmbench.data.base import DataModule
from mmbench.data.embeddings import SeededEmbeddings
from mmbench.data.fetching import install
from mmbench.data.packing import pack
from mmbench.data.records import Record
from mmbench.data.toy import truth

TRUTH = frozenset({"parts", "attributes", "caption_attributes", "caption_mismatched_attributes"})


class Toy(DataModule):
    """Comes before the real data set among the bases of a toy one.

    What `write` makes is packed as the data set's archives, into the folder `archives`, and unpacked from there, as the
    real ones are. The fields `TRUTH` come with what is true of each image.

    Args:
        num_images: how many to make.
        toy_seed: of pictures and captions.
        common: as the real data set.

    Attributes:
        write: writes the data set's files below a folder, from a seed and a number of images; every file belongs to the
            contents of one of `archives`.
        version: of what `write` writes; raised when the same arguments give other files.
        part_names: of the parts in the maps.
        truth_folder: the folder, below the data set's, of what is true of each image (see `toy.truth`).
    """

    write: ClassVar[Callable[[Path, int, int], None]]
    version: ClassVar[int]
    part_names: ClassVar[Sequence[str]]
    truth_folder: ClassVar[str] = "toy"

    def __init__(self, *, num_images: int, toy_seed: int, **common: Any) -> None:
        self.num_images = num_images  # before what is asked of a data set that knows both
        self.toy_seed = toy_seed
        super().__init__(**{**common, "complete": False})

    def read_records(self) -> dict[str, list[Record]]:
        found = super().read_records()
        facts = truth.read(self.root / self.truth_folder)
        return {
            split: [self.with_truth(record, facts[record.id]) for record in records] for split, records in found.items()
        }

    def with_truth(self, record: Record, known: dict[str, Any]) -> Record:
        """A record as the real data set has it, with true attributes and part maps besides."""
        return replace(
            record,
            parts=self.root / self.truth_folder / "parts" / f"{record.id}.png",
            num_parts=len(self.part_names),
            attributes=known["attributes"],
            caption_attributes=tuple(known["captions"]),
        )

    def caption_embeddings(self) -> Callable[[Sequence[str]], Tensor]:
        """Stand-ins, where no published embeddings are named."""
        return super().caption_embeddings() if "text_embedding" in self.fields else SeededEmbeddings()

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
