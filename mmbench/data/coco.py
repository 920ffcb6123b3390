"""COCO 2014 (Lin et al., ECCV 2014, https://arxiv.org/abs/1405.0312): images, five captions each, objects, label maps.

The layout on disk is the archives' own: `train2014/`, `val2014/`, and `annotations/` with `captions_*.json` and
`instances_*.json`.
"""

from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmbench.core.cards import MissingAsset
from mmbench.core.pickles import read_list
from mmbench.data.archives import Archive, lacking
from mmbench.data.base import DataModule
from mmbench.data.coco_annotations import (
    REMEDY,
    Captioned,
    Instances,
    entries,
    expecting,
    label_map,
    largest_box,
    object_index,
    read_captions,
)
from mmbench.data.records import Record
from mmbench.data.sources.coco import ARCHIVES, FOLDERS
from mmbench.data.toy import coco as toy_coco
from mmbench.data.toy import scenes as toy_scenes
from mmbench.data.toy.base import TRUTH, Toy

KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


class COCO(DataModule):
    """Everyday scenes, their captions and their objects.

    `class_id` is the image's number: as in AttnGAN, each image is a class of its own. `layout` is the `category_id` of
    every pixel, 1 to 90 with gaps, 0 where there is no object; where objects overlap the one with the smaller box is on
    top, and crowds are below all others. `salient` is the filled box of the largest object that is no crowd, as in
    TDANet; None where there is none. Captions are the first five by annotation id; every run of white space in one is
    a single space, because 83 in 25,000 contain a line end, which would break files of one caption a line, and no
    tokenizer sees the difference.

    Args:
        common: as `DataModule`. The split schemes are `official`, the 2014 folders; `attngan`, the file lists in
            AttnGAN's metadata, whose test list lacks 34 images; and `karpathy`, Karpathy and Fei-Fei (CVPR 2015), with
            the images that they call `restval` in `train`, as captioning has it.
    """

    archives = ARCHIVES
    counts: ClassVar = {
        "official": {"train": 82_783, "test": 40_504},
        "attngan": {"train": 82_783, "test": 40_470},
        "karpathy": {"train": 113_287, "val": 5_000, "test": 5_000},
    }
    num_captions = 5
    fields = DataModule.fields | {"layout", "instances", "boxes", "box_labels"}

    def read_records(self) -> dict[str, list[Record]]:
        found = {folder: self._folder(folder) for folder in FOLDERS}
        if self.split_scheme == "official":
            return {"train": found["train2014"], "test": found["val2014"]}
        records = {record.id: record for folder in FOLDERS for record in found[folder]}
        lists = self._attngan() if self.split_scheme == "attngan" else self._karpathy()
        for path, names in lists.values():
            if absent := [name for name in names if name not in records]:
                raise ValueError(
                    f"{path}: expected images of {' and '.join(FOLDERS)}, found {absent[0]!r} ({len(absent)} are not "
                    "there): unpack the images and annotations again"
                )
        every = [name for _, names in lists.values() for name in names]
        if len(every) != len(set(every)):
            twice = next(name for place, name in enumerate(every) if name in every[:place])
            raise ValueError(f"{path}: expected every image in one split, once, found {twice!r} twice: {REMEDY}")
        return {split: [records[name] for name in names] for split, (_, names) in lists.items()}

    def _folder(self, folder: str) -> list[Record]:
        """The images of a folder."""
        path = self.root / "annotations" / f"captions_{folder}.json"
        images = read_captions(path, self.num_captions)
        present = {path.name for path in (self.root / folder).glob("*.jpg")}
        for image in images.values():
            if image.file not in present:
                absent = self.root / folder / image.file
                raise ValueError(f"{absent}: expected an image that {path.name} lists, {lacking(absent, REMEDY)}")
        if self.complete and (unlisted := sorted(present - {image.file for image in images.values()})):
            raise ValueError(
                f"{path}: expected every image of {folder}, found no entry of {unlisted[0]} ({len(unlisted)} lack "
                f"one): {REMEDY}, or set data.module.complete=false"
            )
        objects = self._objects(folder, images)
        return [self._record(folder, number, image, objects[number]) for number, image in images.items()]

    def _record(self, folder: str, number: int, image: Captioned, objects: Instances) -> Record:
        return Record(
            id=Path(image.file).stem,
            image=self.root / folder / image.file,
            captions=image.captions,
            class_id=number,
            salient=partial(largest_box, objects) if objects.any_single else None,
            layout=partial(label_map, objects),
            instances=objects,  # type: ignore[arg-type]
        )

    def _objects(self, folder: str, images: dict[int, Captioned]) -> dict[int, Instances]:
        """The objects of each image."""
        path = self.root / "annotations" / f"instances_{folder}.json"
        rows = np.asarray(object_index(path, self.assets))
        owners = np.ascontiguousarray(rows["image"])
        numbers = np.array(list(images), np.int64)
        if len(strangers := owners[~np.isin(owners, numbers)]):
            raise ValueError(
                f"{path}: expected objects of images that captions_{folder}.json lists, found some of image "
                f"{strangers[0]}: {REMEDY}"
            )
        bounds = (np.searchsorted(owners, numbers, side).tolist() for side in ("left", "right"))
        return {
            number: Instances(path, image.size, rows[first:last])
            for (number, image), first, last in zip(images.items(), *bounds, strict=True)
        }

    def _attngan(self) -> dict[str, tuple[Path, list[str]]]:
        """Split to the file that lists it, and the ids of its images."""
        train, test = self._wanted("coco.zip")
        return {"train": (train, read_list(train, str)), "test": (test, read_list(test, str))}

    def _karpathy(self) -> dict[str, tuple[Path, list[str]]]:
        (path,) = self._wanted("caption_datasets.zip")
        lists: dict[str, tuple[Path, list[str]]] = {split: (path, []) for split in ("train", "val", "test")}
        for entry in entries(path):
            if entry.section == "images":
                with expecting(path, f"filename and a split of {', '.join(KARPATHY_SPLITS)}", entry):
                    lists[KARPATHY_SPLITS[entry.value["split"]]][1].append(Path(entry.value["filename"]).stem)
        return lists

    def _wanted(self, file: str) -> list[Path]:
        """The files of an optional archive that the split scheme needs."""
        archive = next(archive for archive in self.archives if archive.file == file)
        if not self.holds(archive):
            raise MissingAsset(
                f"expected {' and '.join(archive.contents)} in {self.root} for the {self.split_scheme} split, found "
                f"none: unpack {archive.described()} there, or set data.module.split_scheme=official"
            )
        return [self.root / path for path in archive.contents]


class ToyCOCO(Toy, COCO):
    """Toy scenes (`toy_scenes`) in the same layout, made on first use; with true attributes and part maps besides.

    A quarter of the images is in `val2014`.
    """

    archives = (*COCO.archives, Archive("toy.zip", "made here", None, None, "none", ("toy",)))
    write = staticmethod(toy_coco.write)
    version = toy_coco.VERSION
    part_names = toy_scenes.PARTS

    fields = COCO.fields | TRUTH
