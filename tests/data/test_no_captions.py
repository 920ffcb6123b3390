"""Data without captions (label maps, edges, unpaired domains), and a field that one data set alone has."""

import pickle
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from mmbench.core.noise import Sample, random_stream
from mmbench.data.base import DataModule
from mmbench.data.batches import collate
from mmbench.data.records import Record, read_map
from mmbench.data.statistics import measured

COMMON = {"split_scheme": "all", "image_size": 16, "batch_size": 4, "num_workers": 0, "seed": 0}
TEXTS = {"caption", "captions", "caption_mismatched", "caption_attributes", "caption_mismatched_attributes"}


class Plots(DataModule):
    """Pictures of one colour and their label maps, in two domains."""

    archives = ()
    counts: ClassVar = {"all": {"train": 10, "test": 3}}
    num_captions = 0
    fields = DataModule.fields | {"layout"}

    def read_records(self):
        return {
            split: [self._record(split, number) for number in range(count)]
            for split, count in self.counts["all"].items()
        }

    def _record(self, split, number):
        layout = partial(read_map, self.root / f"{split}{number}.png")
        return Record(f"{split}{number}", self.root / f"{split}{number}.jpg", (), number % 2, layout=layout)


@pytest.fixture(scope="session")
def plots_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("plots")
    for split, count in Plots.counts["all"].items():
        for number in range(count):
            rng = random_stream(split, number)
            Image.fromarray(np.tile(rng.integers(0, 256, 3, np.uint8), (24, 30, 1))).save(root / f"{split}{number}.jpg")
            Image.fromarray(rng.integers(0, 5, (24, 30), np.uint8)).save(root / f"{split}{number}.png")
    return root


@pytest.fixture
def plots(plots_root, tmp_path):
    return lambda of=Plots, **changes: of(**{"root": plots_root, "assets": tmp_path, **COMMON, **changes})


def test_no_text_is_offered_and_nothing_else_lacks(plots):
    data = plots()
    data.prepare_data()
    assert data.fields == Plots.fields - TEXTS == {"id", "image", "image_mismatched", "class_id", "layout"}
    batches = list(data.train_dataloader())
    assert [len(batch["id"]) for batch in batches] == [4, 4]
    for batch in batches:
        assert set(batch) == data.fields | {"sample", "noise"}
        assert batch["sample"] == [Sample(key, 0, 0) for key in batch["id"]]
        assert batch["layout"].shape == (4, 16, 16)
        assert not torch.equal(batch["image"], batch["image_mismatched"])
    samples = data.samples("test", draws=2)
    assert samples == [Sample(f"test{number}", 0, draw) for number in range(3) for draw in range(2)]
    items = data.evaluation("test", samples, 0)
    batch = collate([*items])
    assert set(batch) == data.fields | {"sample"}
    assert batch["image"].shape == (6, 3, 16, 16)
    assert data.texts("test", samples, 0) == {}
    assert [item["id"] for item in data.reference("train")] == [record.id for record in data.split("train")]
    assert all(
        torch.equal(item["image"], items[2 * place]["image"]) for place, item in enumerate(data.reference("test"))
    )


def test_the_mismatched_image_is_of_the_other_domain(plots):
    data = plots()
    images = {record.class_id: [] for record in data.split("test")}
    for record, item in zip(data.split("test"), data.reference("test"), strict=True):
        images[record.class_id].append(item["image"])
    for item in data.evaluation("test", data.samples("test"), 0):
        others = images[1 - int(item["class_id"])]
        assert any(torch.equal(item["image_mismatched"], other) for other in others)


def test_it_takes_one_caption_of_each_image_to_mean_no_caption(plots):
    for wrong in (0, 2):
        with pytest.raises(ValueError, match=f"expected captions_per_image of 1 .* 0 captions .*, found {wrong}: set"):
            plots().samples("test", captions_per_image=wrong)


def test_one_image_is_enough_where_no_other_is_shown(plots):
    data = plots()
    data.records["test"] = data.records["test"][:1]
    samples = data.samples("test")
    [item] = data.evaluation("test", samples, 0, {"image", "layout"})
    assert set(item) == {"id", "image", "layout", "sample"}
    with pytest.raises(ValueError, match="expected at least two images in a split, found 1"):
        data.evaluation("test", samples, 0)[0]


def test_numbers_are_those_there_are(plots):
    found = measured(plots(image_size=64))
    assert (found["train images"], found["test images"]) == (10, 3)
    assert not any("caption" in name or "vocabulary" in name for name in found)


def _label(item):
    return torch.tensor(item.record.extra["season"])


def _boxes(item):
    return torch.from_numpy(item.seen.view.boxes(np.array(item.record.extra["boxes"], np.float64).reshape(-1, 4)))


class Seasons(Plots):
    """As `Plots`, with what only this data set knows: a label of each image, and boxes of its own."""

    own_fields: ClassVar = {"label": _label, "boxes": _boxes}

    def _record(self, split, number):
        extra = {"season": number % 4, "boxes": [[0, 0, 10, 10]] * number}
        return replace(super()._record(split, number), extra=extra)


def test_a_field_of_one_data_set_is_one_entry_there(plots):
    data = plots(Seasons)
    assert data.fields == plots().fields | {"label", "boxes"}
    batch = next(iter(data.train_dataloader()))
    numbers = [int(key.removeprefix("train")) for key in batch["id"]]
    assert batch["label"].tolist() == [number % 4 for number in numbers]
    assert [len(boxes) for boxes in batch["boxes"]] == numbers
    items = data.evaluation("test", data.samples("test"), 0, {"label"})
    assert [dict(item) for item in items] == [
        {"id": f"test{number}", "label": torch.tensor(number), "sample": Sample(f"test{number}", 0, 0)}
        for number in range(3)
    ]


def test_workers_can_be_handed_fields_of_ones_own(plots):
    data = plots(Seasons, mask=None)
    data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1)
    dataset = data.train_dataloader().dataset
    assert pickle.loads(pickle.dumps(dataset))[0, 5]["label"] == dataset[0, 5]["label"]


def test_what_one_data_set_knows_more_is_part_of_its_fingerprint(plots, tmp_path):
    plain, known = plots(), plots(Seasons)
    assert known.fingerprint() != plain.fingerprint()
    for records in known.records.values():
        records[:] = [replace(record, extra={}) for record in records]
    del known.__dict__["_fingerprint"]
    assert known.fingerprint() == plain.fingerprint()
    file = tmp_path / "edges.bin"
    found = []
    for size in (3, 4, 4):
        file.write_bytes(bytes(size))
        data = plots()
        data.records["test"][0] = replace(data.records["test"][0], extra={"edges": file})
        found.append(data.fingerprint())
    assert found[0] != found[1] == found[2]
