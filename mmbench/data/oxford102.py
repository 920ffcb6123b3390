"""Oxford 102 flowers (Nilsback and Zisserman, 2008) with the ten captions of each image by Reed et al. (CVPR 2016).

The layout on disk is the archives' own: `jpg/image_00001.jpg` and on, `imagelabels.mat` with the class of each image,
`setid.mat` with the official sets, captions in `text_c10/class_00077/image_00001.txt`, one file of ten lines for each
image, and `segmim/segmim_00001.jpg` with a flower before blue.
"""

import warnings
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.io

from mmbench.core.images import read_rgb
from mmbench.data.archives import Archive, lacking
from mmbench.data.embeddings import Embedded
from mmbench.data.records import Record, Size, read_captions
from mmbench.data.sources.oxford102 import ARCHIVES
from mmbench.data.toy import flowers as toy_flowers
from mmbench.data.toy import oxford102 as toy_oxford102
from mmbench.data.toy.base import TRUTH, Toy

NUM_CLASSES = 102
REMEDY = "unpack the archive again"
# The classes no text-to-image method trains on: with them `imagelabels.mat` gives the papers' 7,034 and 1,155 images.
ZERO_SHOT_TEST_CLASSES = frozenset(range(1, 21))
SETS = {"train": "trnid", "val": "valid", "test": "tstid"}  # official split to its key in setid.mat

# A segmentation is a JPEG with blue around the flower: (0, 0, 254), say those who have read it. What is nearer to that
# than this, in levels of RGB, is background; petals, even blue ones, are darker or paler.
BLUE = (0, 0, 254)
NEAR_BLUE = 64


def read_mat(path: Path, *keys: str) -> dict[str, np.ndarray]:
    """Rows of positive whole numbers from a MATLAB file: key to (M,) int64.

    Raises:
        ValueError: the file is damaged, lacks a key, or holds something else there; names it.
    """
    try:
        content = scipy.io.loadmat(path, variable_names=keys)
    except (
        Exception
    ) as error:  # on damaged files SciPy raises almost anything, TypeError and UnboundLocalError included
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path}: expected a MATLAB file, found one that cannot be read ({reason}): fetch it again"
        ) from None
    return {key: _row(path, key, content) for key in keys}


def _row(path: Path, key: str, content: Mapping[str, Any]) -> np.ndarray:
    if key not in content:
        raise ValueError(f"{path}: expected a table {key}, found none: fetch the file again")
    found = content[key]
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "uif" or found.ndim != 2 or len(found) != 1:
        what = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise ValueError(f"{path}: expected {key} as one row of numbers, found {what}: fetch the file again")
    row = found[0]
    # Also false where a number is NaN. MATLAB's own numbers are floating.
    if len(wrong := row[~((row >= 1) & (row < 2**31) & (row == np.floor(row)))]):
        raise ValueError(f"{path}: expected whole numbers from 1 in {key}, found {wrong[0]}: fetch the file again")
    return row.astype(np.int64)


def split_ids(scheme: str, labels: np.ndarray, sets: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which images make each split.

    Args:
        scheme: `zero_shot` or `official`.
        labels: class of each image, the first image's first: (M,), 1 to 102.
        sets: key of `setid.mat` to numbers of images, from 1.

    Returns:
        Split name to numbers of images, from 1, ascending.
    """
    if scheme == "official":
        return {split: np.sort(sets[key]) for split, key in SETS.items()}
    is_test = np.isin(labels, list(ZERO_SHOT_TEST_CLASSES))
    return {"train": 1 + np.flatnonzero(~is_test), "test": 1 + np.flatnonzero(is_test)}


def read_foreground(path: Path, size: Size) -> np.ndarray:
    """The flower of a segmentation of a picture of that size: (H, W) uint8, 255 where it is not blue, else 0.

    Warns where nothing is blue: that all have this background is hearsay.

    Raises:
        ValueError: the file is damaged or of another size; names it.
    """
    pixels = read_rgb(path).permute(1, 2, 0).numpy()
    if pixels.shape[:2] != size[::-1]:
        raise ValueError(
            f"{path}: expected a segmentation of {size[0]} x {size[1]} pixels, as its image, found "
            f"{pixels.shape[1]} x {pixels.shape[0]}: unpack the archive again"
        )
    flower = np.linalg.norm(pixels.astype(np.float32) - BLUE, axis=-1) > NEAR_BLUE
    if flower.all():
        warnings.warn(f"{path}: expected a flower before blue, found no blue: takes all for the flower", stacklevel=2)
    return flower.astype(np.uint8) * 255


class Oxford102(Embedded):
    """Flowers and their captions. `class_id` is 1 to 102.

    Args:
        common: as `Embedded`. `root` holds `jpg`, `imagelabels.mat`, `setid.mat`, `text_c10` (or
            `cvpr2016_flowers/text_c10`), and `segmim` for masks. The split schemes are `zero_shot`, 82 classes against
            20 others (Reed et al.; every text-to-image paper), and `official`, `setid.mat`, of which the part for
            training is smaller than the one for tests. The tables number the images through, so that
            `complete=False` leaves out those that are not there.
    """

    archives = ARCHIVES
    counts: ClassVar = {
        "zero_shot": {"train": 7034, "test": 1155},
        "official": {"train": 1020, "val": 1020, "test": 6149},
    }
    num_captions = 10

    def holds(self, archive: Archive) -> bool:
        # Some unpack the captions into a folder of the archive's name.
        nested = archive.contents == ("text_c10",) and (self.root / "cvpr2016_flowers" / "text_c10").is_dir()
        return super().holds(archive) or nested

    @cached_property
    def _captions_folder(self) -> Path:
        named = self.root / "cvpr2016_flowers" / "text_c10"
        return named if named.is_dir() and not (self.root / "text_c10").is_dir() else self.root / "text_c10"

    def read_records(self) -> dict[str, list[Record]]:
        labels = self._labels()
        splits = split_ids(self.split_scheme, labels, self._sets(len(labels)))
        records = {
            split: [
                self._record(number, int(labels[number - 1])) for number in numbers.tolist() if self._wanted(number)
            ]
            for split, numbers in splits.items()
        }
        if not any(records.values()):
            first = self._image(1)
            raise ValueError(f"{first.parent}: expected images from {first.name} on, {lacking(first, REMEDY)}")
        return records

    def _labels(self) -> np.ndarray:
        path = self.root / "imagelabels.mat"
        labels = read_mat(path, "labels")["labels"]
        if (labels > NUM_CLASSES).any():
            raise ValueError(
                f"{path}: expected classes from 1 to {NUM_CLASSES}, found class {labels.max()}: fetch the file again"
            )
        return labels

    def _sets(self, num_images: int) -> dict[str, np.ndarray]:
        """The official sets; each image belongs to one of them."""
        path = self.root / "setid.mat"
        sets = read_mat(path, *SETS.values())
        numbers, times = np.unique(np.concatenate(list(sets.values())), return_counts=True)
        if (times > 1).any():
            found = f"image {numbers[times > 1][0]} twice"
        elif len(absent := np.setdiff1d(np.arange(1, num_images + 1), numbers)):
            found = f"no image {absent[0]} ({len(absent)} lack)"
        elif numbers[-1] > num_images:
            found = f"image {numbers[-1]}"
        else:
            return sets
        raise ValueError(
            f"{path}: expected each of the {num_images} images of imagelabels.mat in one of {', '.join(sets)}, found "
            f"{found}: fetch both files again"
        )

    def _image(self, number: int) -> Path:
        return self.root / "jpg" / f"image_{number:05d}.jpg"

    def _wanted(self, number: int) -> bool:
        return self.complete or self._image(number).is_file()

    def _record(self, number: int, class_id: int) -> Record:
        image = self._image(number)
        if not image.is_file():
            raise ValueError(f"{image}: expected an image that imagelabels.mat counts, {lacking(image, REMEDY)}")
        among_its_class = f"class_{class_id:05d}/{image.stem}"
        captions = self._captions_folder / f"{among_its_class}.txt"
        mask = self.root / "segmim" / f"segmim_{number:05d}.jpg"
        return Record(
            image.stem,
            image,
            read_captions(captions, self.num_captions, self.num_captions),
            class_id,
            salient=partial(read_foreground, mask) if mask.is_file() else None,
            extra=self.embedded(image.stem, f"jpg/{image.stem}", among_its_class),
        )


class ToyOxford102(Toy, Oxford102):
    """Toy flowers (`toy_flowers`) in the same layout, made on first use; with true attributes and part maps besides."""

    archives = (*Oxford102.archives, Archive("toy.tgz", "made here", None, None, "none", ("toy",)))
    write = staticmethod(toy_oxford102.write)
    version = toy_oxford102.VERSION
    part_names = toy_flowers.PARTS

    fields = Oxford102.fields | TRUTH

    def _wanted(self, number: int) -> bool:
        return True
