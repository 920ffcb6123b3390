"""What training and evaluation see depends on seed, epoch and id alone."""

import pickle

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import BatchSampler

from mmbench.core.images import from_uint8, read_rgb, to_uint8, write_png
from mmbench.core.noise import Sample, random_stream
from mmbench.data.batches import EpochSampler, collate
from mmbench.data.toy.birds import COLOURS, PALETTE, PARTS
from mmbench.data.views import View, square_around


def _epoch(data, epoch):
    """Items of an epoch by id."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    items = {}
    for batch in loader:
        z = batch.pop("noise").normal("z", 3)
        batch = data.on_after_batch_transfer(batch, 0)
        for place, key in enumerate(batch["id"]):
            items[key] = {**{field: batch[field][place] for field in batch}, "z": z[place]}
    return items


def _same(first, second):
    return all(
        torch.equal(first[field], second[field]) if torch.is_tensor(first[field]) else first[field] == second[field]
        for field in first
    )


def test_training_items_do_not_depend_on_batches_or_workers(toy):
    expected = _epoch(toy(), 2)
    assert len(expected) == 60
    assert expected.keys() == {record.id for record in toy().split("train")}
    for changes in ({"batch_size": 10}, {"num_workers": 2}):
        found = _epoch(toy(**changes), 2)
        assert all(_same(expected[key], found[key]) for key in expected), changes


def test_workers_are_handed_data_and_no_trainer(toy):
    """Where workers are spawned and not forked, their data set is pickled."""
    data = toy()
    data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1)
    dataset = data.train_dataloader().dataset
    assert _same(pickle.loads(pickle.dumps(dataset))[1, 5], dataset[1, 5])
    assert data not in vars(dataset).values()


def test_epochs_and_seeds_differ(toy):
    first = _epoch(toy(), 0)
    for other in (_epoch(toy(), 1), _epoch(toy(seed=1), 0)):
        assert list(first) != list(other)
        for field in ("image", "parts", "image_mismatched", "z"):
            changed = sum(not torch.equal(first[key][field], other[key][field]) for key in first)
            assert changed > 50, field
        for field in ("caption", "caption_mismatched"):
            assert sum(first[key][field] != other[key][field] for key in first) > 40


def test_workers_that_live_on_draw_the_next_epoch(toy):
    data = toy(num_workers=1, batch_size=20)
    loader = data.train_dataloader()
    assert loader.persistent_workers
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        expected = _epoch(toy(), epoch)
        for levels in loader:
            batch = data.on_after_batch_transfer(levels, 0)
            assert all(_same({"image": i, "caption": c}, {f: expected[k][f] for f in ("image", "caption")})
                       for k, i, c in zip(batch["id"], batch["image"], batch["caption"]))  # fmt: skip


class _Recorder(pl.LightningModule):
    """Trains nothing; keeps what it was shown in each epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.shown = {}

    def training_step(self, batch, batch_idx):
        self.shown.setdefault(self.current_epoch, []).extend(zip(batch["id"], batch["caption"]))
        return self.weight * 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def _fit(data, folder, epochs, checkpoint=None):
    model = _Recorder()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[pl.callbacks.ModelCheckpoint(folder, "last", save_on_train_epoch_end=True)],
        enable_checkpointing=True, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return model.shown


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")
def test_lightning_shows_each_epoch_its_own_also_when_resumed(toy, tmp_path, num_workers):
    whole = _fit(toy(num_workers=num_workers, batch_size=20), tmp_path / "whole", 3)
    for epoch in range(3):
        assert whole[epoch] == [(key, item["caption"]) for key, item in _epoch(toy(batch_size=20), epoch).items()]
    _fit(toy(num_workers=num_workers, batch_size=20), tmp_path / "parts", 1)
    rest = _fit(toy(num_workers=num_workers, batch_size=20), tmp_path / "parts", 3, tmp_path / "parts" / "last.ckpt")
    assert rest == {epoch: whole[epoch] for epoch in (1, 2)}


def _shares(monkeypatch, size, num_processes, epoch):
    """What each of several processes is given of an epoch."""
    shares = []
    with monkeypatch.context() as patch:
        patch.setattr(torch.distributed, "is_initialized", lambda: True)
        patch.setattr(torch.distributed, "get_world_size", lambda: num_processes)
        for rank in range(num_processes):
            patch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            sampler = EpochSampler(size, seed=0)
            sampler.set_epoch(epoch)
            shares.append(list(sampler))
            assert len(sampler) == len(shares[-1])
    return shares


def test_processes_share_an_epoch_without_overlap(monkeypatch):
    shares = _shares(monkeypatch, 11, 3, epoch=4)
    assert [len(share) for share in shares] == [3, 3, 3]
    together = [index for share in shares for _, index in share]
    assert len(set(together)) == 9
    assert {epoch for share in shares for epoch, _ in share} == {4}


def _whole_batches(share, size):
    return list(BatchSampler(share, size, drop_last=True))


@pytest.mark.parametrize("num_images", [96, 97, 101, 11, 103])
@pytest.mark.parametrize(("num_processes", "each"), [(2, 3), (3, 4), (8, 1), (4, 6), (5, 2)])
def test_batches_of_several_processes_are_those_of_one(monkeypatch, num_images, num_processes, each):
    """The k-th batches of w processes, of b images each, are together the k-th batch of w * b images of one."""
    [alone] = _shares(monkeypatch, num_images, 1, epoch=2)
    expected = [set(batch) for batch in _whole_batches(alone, num_processes * each)]
    shares = _shares(monkeypatch, num_images, num_processes, epoch=2)
    batches = [_whole_batches(share, each) for share in shares]
    found = [set().union(*together) for together in zip(*batches, strict=True)]
    assert found == expected
    assert all(len(batch) == num_processes * each for batch in found)


def test_partial_batches_are_dropped_in_training_only(toy):
    data = toy(batch_size=7)
    assert len(list(data.train_dataloader())) == 60 // 7
    assert len(data.reference("train")) == 60
    with pytest.raises(ValueError, match="expected at least 61 training images, found 60: lower batch_size"):
        toy(batch_size=61).train_dataloader()


def test_mismatched_captions_are_of_another_class_of_the_split(toy):
    data = toy()
    captions = {caption: record for record in data.split("train") for caption in record.captions}
    ids = {record.id for record in data.split("train")}
    for key, item in _epoch(data, 0).items():
        other = captions[item["caption_mismatched"]]
        assert other.id in ids - {key}
        named = item["caption_mismatched_attributes"].items()
        assert any(named <= record.attributes.items() for record in data.split("train") if record.id != key)
    samples = data.samples("test")
    for sample, item in zip(samples, data.evaluation("test", samples, 0), strict=True):
        others = [r for r in data.split("test") if r.captions[sample.caption] == item["caption_mismatched"]]
        assert any(other.class_id != item["class_id"] for other in others)
        assert not torch.equal(item["image"], item["image_mismatched"])


def test_where_one_class_is_all_there_is_the_other_image_is_taken(toy):
    data = toy()
    first = data.split("test")[0].class_id
    data.records["test"] = [record for record in data.split("test") if record.class_id == first]
    assert len(data.split("test")) == 2
    samples = data.samples("test")
    pairs = data.texts("test", samples, 0)["caption_mismatched"]
    for sample, record, caption in zip(samples, reversed(data.split("test")), pairs, strict=True):
        assert caption == record.captions[sample.caption]
    data.records["test"] = data.records["test"][:1]
    with pytest.raises(ValueError, match="expected at least two images"):
        data.texts("test", samples[:1], 0)


def test_evaluation_depends_on_seed_and_id_alone(toy):
    data = toy()
    samples = data.samples("test", captions_per_image=2, draws=2)
    assert len(samples) == len(set(samples)) == 20 * 4
    assert samples == sorted(samples)
    items = data.evaluation("test", samples, 0)
    some = data.evaluation("test", samples[::-3], 0)
    for sample, item in zip(samples[::-3], some, strict=True):
        assert item["sample"] == sample
        assert _same(item, items[samples.index(sample)])
    texts = data.texts("test", samples, 0)
    assert texts["caption"] == [item["caption"] for item in items]
    assert texts["caption_mismatched"] == [item["caption_mismatched"] for item in items]
    assert data.texts("test", samples, 1)["caption_mismatched"] != texts["caption_mismatched"]
    # One image is edited by captions of one other, whatever caption and draw.
    for sample, item in zip(samples, items, strict=True):
        first = items[next(i for i, s in enumerate(samples) if s.id == sample.id)]
        assert torch.equal(item["image_mismatched"], first["image_mismatched"])


def test_samples_of_less_are_samples_of_more(toy):
    data = toy()
    all_, fewer = data.samples("test"), data.samples("test", count=7)
    assert len(fewer) == 7
    assert set(data.samples("test", count=3)) < set(fewer) < set(all_)
    assert set(all_) < set(data.samples("test", captions_per_image=3))
    assert {sample.id for sample in data.samples("test", count=7, seed=1)} != {sample.id for sample in fewer}
    assert len({sample.caption for sample in all_}) > 3
    with pytest.raises(ValueError, match="expected count from 1 to 20 images of test, found 21"):
        data.samples("test", count=21)
    with pytest.raises(ValueError, match="expected captions_per_image from 1 to 10, found 11"):
        data.samples("test", captions_per_image=11)
    with pytest.raises(ValueError, match="expected images of test, found 'nowhere'"):
        data.evaluation("test", [Sample("nowhere", 0, 0)], 0)


def test_fields_are_what_is_promised(toy):
    data = toy()
    training = next(iter(data.train_dataloader()))
    samples = data.samples("test", count=3)
    evaluation = collate([*data.evaluation("test", samples, 0)])
    assert set(training) == data.fields | {"sample", "noise"}
    assert set(evaluation) == data.fields | {"sample"}
    assert evaluation["sample"] == samples
    assert evaluation["image"].shape == (3, 3, 32, 32)
    assert evaluation["image"].dtype == torch.float32
    assert evaluation["class_id"].dtype == torch.int64
    assert isinstance(evaluation["caption"], list)


def test_identity_survives_a_png(toy, tmp_path):
    for item in toy().reference("test"):
        write_png(tmp_path / "image.png", to_uint8(item["image"]))
        assert torch.equal(from_uint8(read_rgb(tmp_path / "image.png")), item["image"])


def test_parts_move_with_the_image(toy):
    """Through random crops and flips each part still shows its colour."""
    palette = np.array(list(PALETTE.values()))
    right = total = 0
    for item in _epoch(toy(image_size=64, batch_size=20), 0).values():
        pixels = to_uint8(item["image"]).permute(1, 2, 0).numpy()
        for part, mask in zip(PARTS, item["parts"].numpy()):
            inside = pixels[mask > 0.95]
            if len(inside) >= 6:
                nearest = np.linalg.norm(palette - np.median(inside, axis=0), axis=1).argmin()
                right += COLOURS[nearest] == item["attributes"][part]
                total += 1
    assert total > 200
    assert right / total > 0.99


@pytest.mark.parametrize(
    ("box", "size", "region"),
    [
        ((60.0, 27.0, 325.0, 304.0), (500, 335), (0, 0, 465, 335)),  # CUB's first image, clipped on three sides
        ((100.0, 100.0, 40.0, 20.0), (300, 300), (90, 80, 150, 140)),
        ((100.9, 100.9, 41.9, 20.9), (300, 300), (89, 79, 149, 139)),  # truncated first: 0.75 * 41 is 30
    ],
)
def test_the_bird_crop(box, size, region):
    left, top, right, bottom = square_around(box, *size)
    middle_x, middle_y = int(int(box[0]) + int(box[2]) / 2), int(int(box[1]) + int(box[3]) / 2)
    reach = int(max(int(box[2]), int(box[3])) * 0.75)
    assert (left, top) == (max(0, middle_x - reach), max(0, middle_y - reach))
    assert (right, bottom) == (min(size[0], middle_x + reach), min(size[1], middle_y + reach))
    if region[0]:
        assert right - left == bottom - top == 2 * reach


def test_views_keep_the_aspect_and_agree_with_their_maps():
    picture = Image.fromarray(random_stream(0).integers(0, 256, (90, 200, 3), np.uint8))
    view = View.centred((0, 0, 200, 90), 64)
    assert view.size == (142, 64)
    assert (view.left, view.top) == (39, 0)
    expected = picture.resize((142, 64), Image.Resampling.BILINEAR).crop((39, 0, 103, 64))
    assert np.array_equal(view(picture), np.asarray(expected))
    views = [View.random((0, 0, 200, 90), 64, random_stream(i)) for i in range(300)]
    assert {view.size for view in views} == {(168, 76)}  # int(64 * 76 / 64) = 76
    assert {view.top for view in views} == set(range(13))
    assert 0 <= min(view.left for view in views) < 5
    assert 99 < max(view.left for view in views) <= 168 - 64
    assert {view.flipped for view in views} == {True, False}
    flipped = next(view for view in views if view.flipped)
    straight = View(flipped.region, flipped.size, flipped.left, flipped.top, flipped.side)
    assert np.array_equal(flipped(picture), straight(picture)[:, ::-1])
    assert np.array_equal(flipped(picture.getchannel(0)), flipped(picture)[..., 0])
