"""The Oxford-102 module reads the archives' layout, and says in one line what is wrong with it."""

import json
import re
import shutil

import numpy as np
import pytest
import scipy.io
from PIL import Image

from mmbench.core.cards import MissingAsset
from mmbench.core.images import read_rgb
from mmbench.data import oxford102
from mmbench.data.oxford102 import Oxford102, ToyOxford102, read_mat, split_ids

PLAIN = {"split_scheme": "zero_shot", "image_size": 32, "batch_size": 4, "num_workers": 0, "seed": 0}
COUNT = 110


@pytest.fixture(scope="module")
def toy_root(tmp_path_factory):
    """110 toy flowers, one or two of each class; not to be changed."""
    root = tmp_path_factory.mktemp("toy") / "flowers"
    ToyOxford102(root=root, assets=root.parent, num_images=COUNT, toy_seed=3, **PLAIN).prepare_data()
    return root


@pytest.fixture
def toy(toy_root):
    def make(**changes):
        common = {"root": toy_root, "assets": toy_root.parent, "num_images": COUNT, "toy_seed": 3}
        return ToyOxford102(**{**common, **PLAIN, **changes})

    return make


@pytest.fixture
def real_copy(toy_root, tmp_path):
    """The toy flowers as a folder that may be damaged, to be read as the real data set is."""
    return shutil.copytree(toy_root, tmp_path / "flowers", ignore=shutil.ignore_patterns("toy"))


@pytest.fixture
def own_tables(toy_root, tmp_path):
    """The same, of which only the tables may be damaged."""
    for name in ("jpg", "text_c10"):
        (tmp_path / name).symlink_to(toy_root / name)
    for name in ("imagelabels.mat", "setid.mat"):
        shutil.copy(toy_root / name, tmp_path)
    return tmp_path


@pytest.fixture
def read(tmp_path):
    def make(root, **changes):
        return Oxford102(**{"root": root, "assets": tmp_path, **PLAIN, "complete": False, **changes})

    return make


def _refused(module, pattern, kind=ValueError):
    with pytest.raises(kind, match=pattern) as error:
        module.setup()
    assert "\n" not in str(error.value)


def _change(path, **arrays):
    """Writes other arrays into a MATLAB file; None takes one out."""
    found = {key: value for key, value in scipy.io.loadmat(path).items() if not key.startswith("__")} | arrays
    scipy.io.savemat(path, {key: value for key, value in found.items() if value is not None})


def _captions(root, record):
    return root / "text_c10" / f"class_{record.class_id:05d}" / f"{record.id}.txt"


def test_counts_are_of_all_8189_images():
    assert {scheme: sum(counts.values()) for scheme, counts in Oxford102.counts.items()} == {
        "zero_shot": 8189,
        "official": 8189,
    }


def test_zero_shot_split_is_by_class(toy):
    data = toy()
    assert {record.class_id for record in data.split("test")} == set(range(1, 21))
    assert {record.class_id for record in data.split("train")} == set(range(21, 103))
    assert len(data.split("train")) + len(data.split("test")) == COUNT


def test_official_split_is_the_table(toy, toy_root):
    data = toy(split_scheme="official")
    sets = scipy.io.loadmat(toy_root / "setid.mat")
    for split, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid")):
        assert [record.id for record in data.split(split)] == [f"image_{n:05d}" for n in sorted(sets[key][0])]
    assert len(data.split("test")) > len(data.split("train")) > 0


def test_records_hold_what_the_files_say(toy, toy_root):
    labels = scipy.io.loadmat(toy_root / "imagelabels.mat")["labels"][0]
    records = [record for split in toy().records.values() for record in split]
    assert len({record.id for record in records}) == COUNT
    for record in records:
        assert record.image == toy_root / "jpg" / f"{record.id}.jpg"
        assert record.class_id == labels[int(record.id[-5:]) - 1]
        assert _captions(toy_root, record).read_text() == "".join(f"{caption}\n" for caption in record.captions)
        assert len(record.caption_attributes) == 10
        assert all(named.items() <= record.attributes.items() for named in record.caption_attributes)


def test_real_layout_reads_without_side_files(real_copy, read, toy):
    data = read(real_copy)
    assert data.fields == {"id", "image", "caption", "captions", "caption_mismatched", "image_mismatched", "class_id"}
    assert {split: [record.id for record in records] for split, records in data.records.items()} == {
        split: [record.id for record in records] for split, records in toy().records.items()
    }
    assert set(data.evaluation("test", data.samples("test", count=1), 0)[0]) == data.fields | {"sample"}
    before = data.fingerprint()
    (real_copy / "cvpr2016_flowers").mkdir()
    (real_copy / "text_c10").rename(real_copy / "cvpr2016_flowers" / "text_c10")
    assert read(real_copy).fingerprint() == before


def test_a_segmentation_is_read_as_the_salient_object(toy, toy_root):
    for record in toy().split("test"):
        parts = read_rgb(record.parts)[0].numpy() > 0
        found = record.salient(parts.shape[::-1]) > 0
        assert found.shape == parts.shape
        # JPEG stores colours at half the resolution: only pixels within two of the border may be wrong.
        padded = np.pad(parts, 2, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
        inside, outside = windows.all((2, 3)), ~windows.any((2, 3))
        assert inside.any()
        assert found[inside].all()
        assert not found[outside].any()


def test_segmentations_of_another_kind(real_copy, read, tmp_path):
    record = read(real_copy).split("test")[0]
    path = real_copy / "segmim" / f"segmim_{record.id[-5:]}.jpg"
    with Image.open(path) as image:
        width, height = image.size
    with pytest.raises(ValueError, match=f"expected a segmentation of {width + 1} x {height} pixels.*found {width} x"):
        record.salient((width + 1, height))
    Image.new("RGB", (width, height), (90, 200, 40)).save(path)
    with pytest.warns(UserWarning, match=f"{re.escape(str(path))}: expected a flower before blue"):
        assert record.salient((width, height)).all()
    path.unlink()
    assert read(real_copy).split("test")[0].salient is None


def test_missing_archives_are_named_with_origin_and_place(tmp_path, real_copy, read):
    _refused(read(tmp_path / "none"), r"102flowers.tgz \(344,862,509 bytes, md5 5280.* from https://", MissingAsset)
    shutil.rmtree(real_copy / "segmim")
    read(real_copy).setup()
    (real_copy / "setid.mat").unlink()
    _refused(read(real_copy), r"expected setid.mat in .*setid.mat \(14,989 bytes, md5 a535", MissingAsset)
    (real_copy / "text_c10").rename(real_copy / "elsewhere")
    shutil.copy(real_copy / "imagelabels.mat", real_copy / "setid.mat")
    _refused(read(real_copy), r"expected text_c10 in .*cvpr2016_flowers.tar.gz \(size unknown", MissingAsset)


@pytest.mark.parametrize(
    ("scheme", "expected", "found"),
    [
        ("zero_shot", "1155 test, 7034 train", "28 test, 82 train"),
        ("official", "6149 test, 1020 train, 1020 val", r"\d+ test, \d+ train, \d+ val"),
    ],
)
def test_other_counts_are_refused_with_both(own_tables, read, scheme, expected, found):
    _refused(
        read(own_tables, complete=True, split_scheme=scheme),
        f"expected {expected} images by the {scheme} split, found {found}.*complete=false",
    )


@pytest.mark.parametrize("name", ["imagelabels.mat", "setid.mat"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"<!DOCTYPE html><html><body>Quota exceeded</body></html>" * 9,
        lambda content: content[:140] + bytes(byte ^ 0x55 for byte in content[140:]),
        lambda content: content[:128] + b"\xff" * 8 + content[136:],
    ],
)
def test_damaged_tables(own_tables, read, name, damage):
    path = own_tables / name
    path.write_bytes(damage(path.read_bytes()))
    _refused(read(own_tables), f"^{re.escape(str(path))}: expected .*fetch")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": None, "etiquettes": np.ones((1, COUNT))}, "expected a table labels, found none"),
        (
            {"labels": np.ones((COUNT, 1), np.uint8)},
            rf"expected labels as one row of numbers, found uint8 \({COUNT}, 1\)",
        ),
        ({"labels": np.array([["a", "b"]])}, "expected labels as one row of numbers, found <U"),
        ({"labels": np.array([[1, 0, 3]], np.uint8)}, "expected whole numbers from 1 in labels, found 0"),
        ({"labels": np.array([[1.0, np.nan]])}, "expected whole numbers from 1 in labels, found nan"),
        ({"labels": np.array([[1.5, 2.0]])}, "expected whole numbers from 1 in labels, found 1.5"),
        ({"labels": np.array([[1, 103]], np.uint8)}, "expected classes from 1 to 102, found class 103"),
    ],
)
def test_labels_that_are_none(own_tables, read, arrays, message):
    _change(own_tables / "imagelabels.mat", **arrays)
    _refused(read(own_tables), f"imagelabels.mat: {message}")


@pytest.mark.parametrize("scheme", ["zero_shot", "official"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: None, "expected a table valid, found none"),
        (lambda ids: ids[:, 1:], r"each of the 110 images of imagelabels.mat .* found no image \d+ \(1 lack\)"),
        (lambda ids: np.append(ids, ids[:, :1], 1), r"found image \d+ twice"),
        (lambda ids: np.append(ids, [[111]], 1), "found image 111: fetch"),
        (lambda ids: np.append(ids, [[0]], 1), "expected whole numbers from 1 in valid, found 0"),
    ],
)
def test_sets_that_do_not_divide_the_images(own_tables, read, scheme, change, message):
    path = own_tables / "setid.mat"
    _change(path, valid=change(scipy.io.loadmat(path)["valid"]))
    _refused(read(own_tables, split_scheme=scheme), f"{re.escape(str(path))}: .*{message}")


def test_numbers_of_matlab_are_floating(own_tables, read, toy):
    labels = scipy.io.loadmat(own_tables / "imagelabels.mat")["labels"]
    _change(own_tables / "imagelabels.mat", labels=labels.astype(np.float64))
    assert np.array_equal(read_mat(own_tables / "imagelabels.mat", "labels")["labels"], labels[0])
    assert [record.class_id for record in read(own_tables).split("test")] == [r.class_id for r in toy().split("test")]


def test_a_missing_image(real_copy, read, toy, toy_root):
    shutil.copytree(toy_root / "toy", real_copy / "toy")
    path = read(real_copy).split("test")[0].image
    path.unlink()
    _refused(read(real_copy, complete=True), f"{re.escape(str(path))}: expected an image that imagelabels.mat counts")
    _refused(toy(root=real_copy), f"{re.escape(str(path))}: expected an image")
    # A part of the data set is what is there.
    assert path.stem not in [record.id for record in read(real_copy).split("test")]
    assert sum(map(len, read(real_copy).records.values())) == COUNT - 1
    shutil.rmtree(real_copy / "jpg")
    (real_copy / "jpg").mkdir()
    _refused(read(real_copy), "jpg: expected images from image_00001.jpg on, found none")


@pytest.mark.parametrize("complete", [True, False])
def test_an_archive_unpacked_inside_a_folder_of_its_name(real_copy, read, complete):
    (real_copy / "jpg").rename(real_copy / "moved")
    (real_copy / "jpg").mkdir()
    (real_copy / "moved").rename(real_copy / "jpg/jpg")
    _refused(read(real_copy, complete=complete), r"found none \(found jpg/jpg/...\): move that up one folder$")


def test_a_truncated_image(real_copy, read):
    data = read(real_copy)
    path = data.split("test")[0].image
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: expected a whole image"):
        data.verify(full=True)
    assert data.checked() is None


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda lines: [], "found 0"),
        (lambda lines: lines[:9], "found 9"),
        (lambda lines: ["\n", *lines[1:]], "found 9"),
        (lambda lines: [*lines, "more\n"], "found 11"),
    ],
)
def test_wrong_number_of_captions(real_copy, read, change, found):
    path = _captions(real_copy, read(real_copy).split("test")[0])
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
    _refused(read(real_copy), f"{re.escape(str(path))}: expected 10 captions, one on each line, {found}")


def test_missing_captions_and_bytes_that_are_no_text(real_copy, read):
    path = _captions(real_copy, read(real_copy).split("train")[0])
    path.write_bytes(b"this flower is ros\xe9.\n" * 10)
    _refused(read(real_copy), f"{re.escape(str(path))}: expected text in UTF-8, found other bytes")
    path.unlink()
    _refused(read(real_copy), f"{re.escape(str(path))}: expected 10 captions, found no file")


def test_a_caption_without_spaces_is_repaired(real_copy, read):
    path = _captions(real_copy, read(real_copy).split("train")[0])
    path.write_text("a\ufffd\ufffdred\ufffd\ufffdflower.\r\n" * 10)
    assert read(real_copy).split("train")[0].captions == ("a red flower.",) * 10


# The real ones: six photographs, and the tables of all 8,189.


@pytest.fixture(scope="module")
def tables(shared_real):
    folder = shared_real / "oxford102"
    labels = np.array(json.loads((folder / "imagelabels.json").read_text())["labels"], np.uint8)
    sets = json.loads((folder / "setid.json").read_text())
    return labels, {key: np.array(sets[key], np.uint16) for key in oxford102.SETS.values()}


@pytest.mark.assets
def test_the_real_tables_give_the_published_counts(tables):
    labels, sets = tables[0][0], {key: ids[0] for key, ids in tables[1].items()}
    for scheme, expected in Oxford102.counts.items():
        splits = split_ids(scheme, labels, sets)
        assert {split: len(ids) for split, ids in splits.items()} == expected
        assert sorted(np.concatenate(list(splits.values()))) == list(range(1, 8190))


@pytest.mark.assets
def test_the_real_photographs_load(shared_real, tables, tmp_path, read):
    root = tmp_path / "real"
    root.mkdir()
    (root / "jpg").symlink_to(shared_real / "oxford102" / "jpg")
    scipy.io.savemat(root / "imagelabels.mat", {"labels": tables[0]}, do_compression=True)
    scipy.io.savemat(root / "setid.mat", tables[1])
    numbers = sorted(int(path.stem[-5:]) for path in (root / "jpg").glob("*.jpg"))
    for number in numbers:  # their captions are known to nobody
        folder = root / "text_c10" / f"class_{tables[0][0, number - 1]:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"image_{number:05d}.txt").write_text(f"this flower is number {number}.\n" * 10)
    data = read(root, image_size=256)
    assert [len(data.split(name)) for name in ("train", "test")] == [3, 3]
    assert data.split("test")[-1].captions[0] == f"this flower is number {int(data.split('test')[-1].id[-5:])}."
    items = [item for split in data.records for item in data.evaluation(split, data.samples(split), 0)]
    assert sorted(item["id"] for item in items) == [f"image_{number:05d}" for number in numbers]
    assert all(item["image"].shape == (3, 256, 256) and item["image"].std() > 0.1 for item in items)
    assert data.verify(full=True)["decoded"] == 6
    _refused(read(root, complete=True), "image_00001.jpg: expected an image that imagelabels.mat counts, found none")
