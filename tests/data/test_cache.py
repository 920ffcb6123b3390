"""The cache: the same samples, made once, whole or not at all."""

import errno
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from functools import partial

import numpy as np
import PIL
import pytest
import torch
import yaml
from PIL import Image

from mmbench.core import catalogue, hashing, images
from mmbench.core.noise import random_stream
from mmbench.data import base, cache
from mmbench.data.cache import Cached, prepared
from mmbench.data.records import Record, decoded
from mmbench.data.views import Fast, ShorterSide, Squash

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def records(tmp_path):
    """Twelve JPEG files of several shapes and modes; one with a box."""
    made = []
    for k, size in enumerate([(60, 40), (40, 60), (50, 50), (33, 71)] * 3):
        path = tmp_path / "pictures" / f"{k}.jpg"
        path.parent.mkdir(exist_ok=True)
        pixels = random_stream(k).integers(0, 256, (*size[::-1], 3), np.uint8)
        Image.fromarray(pixels).convert("L" if k == 3 else "RGB").save(path)
        made.append(Record(str(k), path, ("a picture",), k, (5.0, 6.0, 20.0, 18.0) if k == 4 else None))
    return made


def _look(region):
    return ShorterSide().evaluation(region, 16)


def _prepared(tmp_path, records, look=_look, identity="pictures"):
    return prepared(tmp_path / "cache", "test", identity, records, look, 2)


def _folders(tmp_path):
    return sorted(path for path in (tmp_path / "cache").iterdir() if path.is_dir())


def _training(data, epoch):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [{**batch, "noise": batch["noise"].normal("z", 2)} for batch in loader]


def _same(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    return torch.equal(first, second) if torch.is_tensor(first) else first == second


@pytest.mark.parametrize(("preprocessing", "workers"), [(ShorterSide(), (0, 1, 2)), (Squash(), (0,))])
def test_samples_are_the_same_bit_by_bit_for_any_number_of_workers(toy, tmp_path, monkeypatch, preprocessing, workers):
    make = partial(toy, assets=tmp_path, preprocessing=preprocessing, batch_size=20)
    expected = {epoch: _training(make(), epoch) for epoch in (0, 3)}
    samples = make().samples("test", captions_per_image=2)
    items = [*make().evaluation("test", samples, 5)]
    for num_workers in workers:
        data = make(cache=True, num_workers=num_workers)
        for epoch, batches in expected.items():
            found = _training(data, epoch)
            assert len(found) == len(batches) == 3
            assert all(_same(*pair) for pair in zip(found, batches))
    data = make(cache=True)
    assert all(_same(*pair) for pair in zip(data.evaluation("test", samples, 5), items, strict=True))
    assert all(_same(*pair) for pair in zip(data.reference("test"), make().reference("test"), strict=True))
    # One folder for training and one for evaluation, used from now on instead of the files.
    assert len(_folders(tmp_path)) == 2
    monkeypatch.setattr("mmbench.data.records.opened", None)
    training = data.train_dataloader().dataset
    assert training[3, 7]["image"].shape == (3, 32, 32)


def test_every_square_of_every_picture_is_what_its_file_gives(tmp_path, records):
    read = pickle.loads(pickle.dumps(_prepared(tmp_path, records, partial(_random, seed=0))))
    flips = set()
    for record in records:
        for seed in range(20):
            found, expected = (way(record, partial(_random, seed=seed)) for way in (read, decoded))
            assert np.array_equal(found.pixels, expected.pixels)
            assert (found.view, found.size) == (expected.view, expected.size)
            flips.add(found.view.flipped)
    assert flips == {True, False}


def _random(region, seed):
    return ShorterSide().training(region, 16, random_stream(seed, "view"))


def test_pictures_are_mapped_and_not_read(tmp_path, records):
    read = _prepared(tmp_path, records)
    assert not read(records[0], _look).pixels.flags.owndata
    assert not read.pixels.flags.writeable
    assert len(pickle.dumps(read)) < read.pixels.nbytes


def test_no_cache_is_made_where_no_picture_is_shown(toy, tmp_path):
    data = toy(assets=tmp_path, cache=True)
    data.training_fields = frozenset({"caption", "class_id", "caption_mismatched"})
    assert len(_training(data, 0)) == 15
    data.evaluation("test", data.samples("test"), 0, {"caption"})
    assert not (tmp_path / "cache").exists()


def test_other_data_sizes_and_libraries_have_other_folders(toy, tmp_path, monkeypatch):
    def folders(**changes):
        toy(assets=tmp_path, cache=True, **changes).train_dataloader()
        return len(_folders(tmp_path))

    assert folders() == 1
    assert folders(seed=4, batch_size=7, num_workers=1) == 1
    assert folders(image_size=16) == 2
    assert folders(preprocessing=Squash()) == 3
    assert folders(bird_crop=False) == 4
    monkeypatch.setattr(base.DataModule, "fingerprint", lambda self: "changed")
    assert folders() == 5
    monkeypatch.setattr(PIL, "__version__", "0.0")
    assert folders() == 6
    monkeypatch.setattr(images, "VERSION", images.VERSION + 1)
    assert folders() == 7


def test_the_cache_changes_no_hash():
    cfg = yaml.safe_load((catalogue.shipped("conf") / "data" / "cub.yaml").read_text(encoding="utf-8"))
    hashes = set()
    for cache_it in (True, False):
        cfg["module"]["cache"] = cfg["toy"]["module"]["cache"] = cache_it
        hashes.add(hashing.config_hash(cfg))
    assert len(hashes) == 1


def test_the_fast_preprocessing_has_no_cache(toy):
    with pytest.raises(ValueError, match=r"expected an exact preprocessing with .*cache=true, found the fast"):
        toy(cache=True, preprocessing=Fast())


def _counting(region, log):
    with open(log, "a") as file:  # noqa: PTH123  (appends of one byte do not tear)
        file.write(".")
    time.sleep(0.02)
    return _look(region)


def _build_in_a_process(folder, records, log, queue):
    queue.put(_prepared(folder, records, partial(_counting, log=log))(records[5], _look).pixels)


def test_two_processes_that_want_it_at_once_make_it_once(tmp_path, records):
    queue, log = FORK.Queue(), tmp_path / "log"
    processes = [FORK.Process(target=_build_in_a_process, args=(tmp_path, records, log, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    expected = decoded(records[5], _look).pixels
    assert all(np.array_equal(pixels, expected) for pixels in found)
    assert log.stat().st_size == 2 * len(records)  # the header and the pixels of each, by one of the two
    assert len(_folders(tmp_path)) == 1


def _killing(region, log):
    if log.exists() and log.stat().st_size > 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return _counting(region, log)


def test_what_a_killed_builder_leaves_is_not_taken_and_removed(tmp_path, records):
    process = FORK.Process(target=_prepared, args=(tmp_path, records, partial(_killing, log=tmp_path / "log")))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (left,) = _folders(tmp_path)
    assert left.name.endswith(".partial")
    assert (left / "pixels.npy").is_file()
    read = _prepared(tmp_path, records)
    assert all(np.array_equal(read(r, _look).pixels, decoded(r, _look).pixels) for r in records)
    assert _folders(tmp_path) == [read.folder]


def test_a_disk_that_is_too_small_is_told_before(tmp_path, records, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 99, 99))
    with pytest.raises(ValueError, match=r"test-\w+: expected [\d,]+ bytes of free disk .*, found 99: free some, set"):
        _prepared(tmp_path, records)
    assert _folders(tmp_path) == []


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, records, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(ValueError, match="bytes of free disk for prepared images, found less: free some") as caught:
        _prepared(tmp_path, records)
    assert "\n" not in str(caught.value)
    assert _folders(tmp_path) == []


def test_a_damaged_picture_is_named_and_nothing_is_left(tmp_path, records):
    content = records[7].image.read_bytes()
    records[7].image.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"7\.jpg: expected a whole image"):
        _prepared(tmp_path, records)
    assert _folders(tmp_path) == []


def test_an_empty_list_is_never_cached(tmp_path):
    with pytest.raises(ValueError, match="expected images to prepare, found none"):
        _prepared(tmp_path, [])
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("file", ["pixels.npy", "index.npy"])
@pytest.mark.parametrize("keep", [0, 100, 200])
def test_a_damaged_cache_is_named_with_its_remedy(tmp_path, records, file, keep):
    read = _prepared(tmp_path, records)
    path = read.folder / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"{read.folder.name}: expected .*: remove the folder, it is made again"):
        Cached(read.folder, records)


def test_a_cache_of_other_sizes_is_refused(tmp_path, records):
    read = _prepared(tmp_path, records)
    with pytest.raises(ValueError, match=r"expected 3 of \(8, .*: remove the folder"):
        read(records[3], partial(ShorterSide().evaluation, side=8))


def test_a_picture_of_which_a_bit_has_turned_is_found_out(tmp_path, records):
    read = _prepared(tmp_path, records)
    path = read.folder / "pixels.npy"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    again = Cached(read.folder, records)
    again(records[0], _look)
    with pytest.raises(
        ValueError, match=r"expected the pixels of .* as they were written, found others: remove the fol"
    ):
        again(records[-1], _look)
