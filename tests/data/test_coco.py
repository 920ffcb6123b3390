"""The COCO module reads the archives' layout and COCO's own outlines, and says in one line what is wrong with them."""

import contextlib
import io
import json
import os
import pickle
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import coco as authors
from pycocotools import mask as rle

from mmbench.core.cards import MissingAsset
from mmbench.core.images import to_uint8
from mmbench.data import coco_annotations
from mmbench.data.coco import COCO, ToyCOCO
from mmbench.data.coco_annotations import label_map, largest_box, rasterised
from mmbench.data.records import Instance
from mmbench.data.toy.scenes import CATEGORIES, PARTS

SEED, COUNT = 3, 52
PLAIN = {"split_scheme": "official", "image_size": 32, "batch_size": 4, "num_workers": 0, "seed": 0}


@pytest.fixture(scope="session")
def scenes_root(tmp_path_factory) -> Path:
    """52 toy scenes; not to be changed."""
    root = tmp_path_factory.mktemp("toy") / "scenes"
    ToyCOCO(root=root, assets=root.parent / "assets", num_images=COUNT, toy_seed=SEED, **PLAIN).prepare_data()
    return root


@pytest.fixture
def scenes(scenes_root):
    """Makes data modules of those scenes."""

    def make(**changes):
        common = {"root": scenes_root, "assets": scenes_root.parent / "assets", "num_images": COUNT, "toy_seed": SEED}
        return ToyCOCO(**{**common, **PLAIN, **changes})

    return make


@pytest.fixture
def copy(scenes_root, tmp_path) -> Path:
    """The toy scenes as a folder that may be damaged, to be read as the real data set is."""
    return Path(shutil.copytree(scenes_root, tmp_path / "coco"))


@pytest.fixture
def read_coco(tmp_path):
    """Makes the module of the real data set for a folder that holds a part of it."""

    def make(root, **changes):
        return COCO(**{"root": root, "assets": tmp_path / "assets", **PLAIN, "complete": False, **changes})

    return make


def _refused(module, pattern, kind=ValueError):
    with pytest.raises(kind, match=pattern) as error:
        module.setup()
    assert "\n" not in str(error.value)


def _json(root, kind, folder="train2014"):
    return json.loads((root / "annotations" / f"{kind}_{folder}.json").read_text())


def _edit(root, kind, change, folder="train2014"):
    """Changes what an annotations file says."""
    content = _json(root, kind, folder)
    change(content)
    (root / "annotations" / f"{kind}_{folder}.json").write_text(json.dumps(content))


def _by_authors(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return authors.COCO(str(path))


def _all(data):
    return [record for records in data.records.values() for record in records]


def test_splits_have_the_sizes_that_are_published():
    assert COCO.counts["official"] == {"train": 82783, "test": 40504}
    assert COCO.counts["official"]["test"] - COCO.counts["attngan"]["test"] == 34
    assert sum(COCO.counts["karpathy"].values()) == sum(COCO.counts["official"].values()) == 123287


def test_official_split_is_the_folders(scenes):
    data = scenes()
    assert {record.image.parent.name for record in data.split("train")} == {"train2014"}
    assert {record.image.parent.name for record in data.split("test")} == {"val2014"}
    assert (len(data.split("train")), len(data.split("test"))) == (39, 13)


def test_attngan_split_is_its_lists(scenes, scenes_root):
    data = scenes(split_scheme="attngan")
    for split in ("train", "test"):
        listed = pickle.loads((scenes_root / "coco" / split / "filenames.pickle").read_bytes())
        assert sorted(listed) == [record.id for record in data.split(split)] != listed
    lacking = {record.id for record in scenes().split("test")} - {record.id for record in data.split("test")}
    assert len(lacking) == 1


def test_karpathy_split_trains_on_what_is_left_of_val2014(scenes, scenes_root):
    data = scenes(split_scheme="karpathy")
    listed = json.loads((scenes_root / "dataset_coco.json").read_text())["images"]
    places = Counter(image["split"] for image in listed)
    assert {split: len(records) for split, records in data.records.items()} == {
        "train": places["train"] + places["restval"], "val": places["val"], "test": places["test"]
    }  # fmt: skip
    assert {record.image.parent.name for record in data.split("train")} == {"train2014", "val2014"}
    ids = [record.id for record in _all(data)]
    assert len(ids) == len(set(ids)) == COUNT


def test_records_hold_what_the_files_say(scenes, scenes_root):
    for split, folder in (("train", "train2014"), ("test", "val2014")):
        by_authors = _by_authors(scenes_root / "annotations" / f"captions_{folder}.json")
        for record in scenes().split(split):
            assert re.fullmatch(rf"COCO_{folder}_\d{{12}}", record.id)
            assert record.image == scenes_root / folder / f"{record.id}.jpg"
            assert record.class_id == int(record.id[-12:])
            found = sorted(by_authors.loadAnns(by_authors.getAnnIds(record.class_id)), key=lambda one: one["id"])
            assert [caption.split() for caption in record.captions] == [one["caption"].split() for one in found[:5]]
            assert all(caption == caption.strip() and "\n" not in caption for caption in record.captions)
            assert all(named.items() <= record.attributes.items() for named in record.caption_attributes)
            assert len(record.caption_attributes) == len(found)


def test_cocos_oddities_are_in_the_toy_data(scenes_root):
    content = [_json(scenes_root, "captions", folder) for folder in ("train2014", "val2014")]
    raw = [one["caption"] for part in content for one in part["annotations"]]
    assert any("\n" in caption for caption in raw)
    assert any(caption != caption.strip() for caption in raw)
    assert any(caption.isupper() for caption in raw)
    numbers = Counter(one["image_id"] for part in content for one in part["annotations"])
    assert set(numbers.values()) == {5, 6, 7}
    images = [one["image_id"] for one in content[0]["annotations"]]
    assert images != sorted(images)
    objects = [
        one for folder in ("train2014", "val2014") for one in _json(scenes_root, "instances", folder)["annotations"]
    ]
    assert {one["iscrowd"]: type(one["segmentation"]) for one in objects} == {0: list, 1: dict}
    assert numbers.keys() - {one["image_id"] for one in objects}


def test_objects_are_those_of_cocos_own_reader(scenes, scenes_root):
    by_authors = _by_authors(scenes_root / "annotations" / "instances_train2014.json")
    crowds = 0
    for record in scenes().split("train"):
        found = sorted(by_authors.loadAnns(by_authors.getAnnIds(record.class_id)), key=lambda one: one["id"])
        assert [(one.class_id, list(one.box), one.is_crowd) for one in record.instances] == [
            (one["category_id"], one["bbox"], one["iscrowd"]) for one in found
        ]
        image = by_authors.loadImgs(record.class_id)[0]
        size = image["width"], image["height"]
        for own, theirs in zip(record.instances, found, strict=True):
            assert np.array_equal(own.mask(size), by_authors.annToMask(theirs))
            crowds += own.is_crowd
        assert set(np.unique(record.layout(size))) <= {0, *(one["category_id"] for one in found)}
    assert crowds >= 1


def test_an_image_without_objects(scenes):
    data = scenes()
    record = next(record for record in data.split("test") if not len(record.instances))
    assert record.salient is None
    assert record.attributes == {}
    sample = next(sample for sample in data.samples("test") if sample.id == record.id)
    item = data.evaluation("test", [sample], 0)[0]
    assert item["boxes"].shape == (0, 4)
    assert item["box_labels"].shape == (0,)
    assert not item["layout"].any()


def test_run_lengths_go_down_the_columns():
    wanted = np.array([[0, 1, 0], [1, 0, 0]], np.uint8)
    assert np.array_equal(rasterised({"counts": [1, 2, 3], "size": [2, 3]}, (3, 2)), wanted)
    packed = rle.encode(np.asfortranarray(wanted))
    text = {"counts": packed["counts"].decode(), "size": [2, 3]}
    assert np.array_equal(rasterised(text, (3, 2)), wanted)


def test_polygons_together_are_the_object():
    first, second = [1, 1, 4, 1, 4, 3, 1, 3], [5, 0, 6, 0, 6, 5, 5, 5]
    wanted = np.zeros((5, 6), np.uint8)
    wanted[1:3, 1:4] = wanted[:, 5] = 1
    assert np.array_equal(rasterised([first, second], (6, 5)), wanted)
    assert not rasterised([[0, 0, 4, 4]], (6, 5)).any()  # a line, not the box that pycocotools makes of it


@pytest.mark.parametrize(
    ("segmentation", "found"),
    [
        ({"counts": [1, 2, 4], "size": [2, 3]}, "7 pixels in all, not 6"),
        ({"counts": [9, -3], "size": [2, 3]}, "6 pixels in all"),
        ({"counts": [], "size": [2, 3]}, "0 pixels in all"),
        ({"counts": [6], "size": [3, 2]}, r"run lengths for \[3, 2\] rows and columns, not \[2, 3\]"),
        ([[0, 0, 1, 1, 2]], "half a point"),
    ],
)
def test_damaged_outlines(segmentation, found):
    with pytest.raises(ValueError, match=found):
        rasterised(segmentation, (3, 2))


def _object(class_id, box, is_crowd=False):
    """A filled box as an object."""
    x, y, width, height = box

    def mask(size):
        index = np.zeros(size[::-1], np.uint8)
        index[y : y + height, x : x + width] = 1
        return index

    return Instance(class_id, tuple(map(float, box)), mask, is_crowd)


def test_smaller_objects_are_on_top_and_crowds_below():
    objects = [_object(7, (2, 2, 2, 2)), _object(3, (0, 0, 6, 4)), _object(16, (4, 0, 3, 3), is_crowd=True)]
    index = label_map(objects, (8, 5))
    assert index.dtype == np.uint8
    assert (index[2:4, 2:4] == 7).all()
    assert (index[:3, 4:6] == 3).all()  # though the crowd is smaller
    assert (index[:3, 6] == 16).all()
    assert (index[4] == 0).all()


def test_layout_and_instances_agree_where_a_crowd_is_before_an_object(copy, read_coco):
    def cover(content):
        crowd = next(one for one in content["annotations"] if one["iscrowd"])
        height, width = crowd["segmentation"]["size"]
        whole = [[0, 0, width, 0, width, height, 0, height]]
        content["annotations"].append({**crowd, "id": 1, "iscrowd": 0, "segmentation": whole, "category_id": 3,
                                       "bbox": [0, 0, width, height]})  # fmt: skip

    _edit(copy, "instances", cover)
    data = read_coco(copy)
    record = next(record for record in data.split("train") if any(one.is_crowd for one in record.instances))
    sample = next(sample for sample in data.samples("train") if sample.id == record.id)
    item = data.evaluation("train", [sample], 0)[0]
    assert (item["layout"] > 0).all()
    assert not (item["layout"] == 16).any()
    assert torch.equal(item["box_labels"][item["instances"] - 1], item["layout"])


def test_the_salient_object_is_the_largest_box_filled():
    objects = [
        Instance(1, (0.9, 0.9, 4.0, 3.0), lambda size: np.zeros(size)),  # corners (0, 0), (4, 3)
        Instance(2, (3.0, 1.0, 4.0, 3.0), lambda size: np.zeros(size)),  # as large, later
        Instance(3, (0.0, 0.0, 8.0, 6.0), lambda size: np.zeros(size), True),
    ]
    mask = largest_box(objects, (8, 6))
    wanted = np.zeros((6, 8), np.uint8)
    wanted[0:3, 0:4] = 1
    assert np.array_equal(mask, wanted)


def test_salient_boxes_hold_an_object(scenes):
    for record in scenes().split("train"):
        if record.salient is not None:
            single = [one for one in record.instances if not one.is_crowd]
            largest = max(single, key=lambda one: one.box[2] * one.box[3])
            size = largest.mask.size
            inside = largest.mask(size) > 0
            assert (record.salient(size) > 0)[inside].mean() > 0.95


def test_records_travel_to_workers_without_their_index(scenes):
    record = next(record for record in scenes().split("train") if len(record.instances) > 1)
    size = record.instances[0].mask.size
    packed = pickle.dumps(record)
    assert len(packed) < 6000
    other = pickle.loads(packed)
    assert np.array_equal(other.layout(size), record.layout(size))
    assert list(other.instances) == list(record.instances)
    assert record.instances[-1] == list(record.instances)[-1]
    assert record.instances[1:] == tuple(record.instances)[1:]


def test_batches_do_not_depend_on_workers(scenes):
    batches = [next(iter(scenes(num_workers=number).train_dataloader())) for number in (0, 1)]
    for field in ("image", "layout", "instances", "parts"):
        assert torch.equal(batches[0][field], batches[1][field])
    assert all(torch.equal(*pair) for pair in zip(batches[0]["boxes"], batches[1]["boxes"], strict=True))


def test_maps_move_with_the_image(scenes):
    """Through random crops and flips each part lies in its category's area of the layout."""
    data = scenes(image_size=64)
    numbers = {name: category.number for name, category in CATEGORIES.items()}
    seen = 0
    for batch in data.train_dataloader():
        for parts, layout in zip(batch["parts"], batch["layout"], strict=True):
            for name, part in zip(PARTS, parts, strict=True):
                inside = part > 0.95
                if inside.sum() >= 6:
                    seen += 1
                    assert (layout[inside] == numbers[name]).float().mean() > 0.95, name
    assert seen > 40


def test_objects_are_indexed_once_and_anew_when_they_change(copy, read_coco, monkeypatch, tmp_path):
    first = [[one.box for one in record.instances] for record in read_coco(copy).split("train")]
    before = sorted(copy.rglob("*"))
    assert len(list((tmp_path / "assets" / "instances").glob("*.npy"))) == 2
    with monkeypatch.context() as patched:
        patched.setattr(coco_annotations, "_indexed", lambda path: pytest.fail(f"read {path} again"))
        assert [[one.box for one in record.instances] for record in read_coco(copy).split("train")] == first
    _edit(copy, "instances", lambda content: content["annotations"].pop(0))
    assert [[one.box for one in record.instances] for record in read_coco(copy).split("train")] != first
    assert sorted(copy.rglob("*")) == before


def test_missing_archives_are_named_with_origin_and_place(tmp_path, copy, read_coco):
    _refused(
        read_coco(tmp_path / "none"), r"train2014.zip \(13,510,573,713 bytes, md5 0da8.* from http://", MissingAsset
    )
    (copy / "annotations" / "instances_val2014.json").unlink()
    _refused(read_coco(copy), r"instances_val2014.json in .*annotations_trainval2014.zip.*http://", MissingAsset)


def test_another_data_sets_folder(toy_root, copy, read_coco, read):
    _refused(read_coco(toy_root), f"expected train2014 in {re.escape(str(toy_root))}, found none", MissingAsset)
    _refused(read(copy), f"expected CUB_200_2011 in {re.escape(str(copy))}, found none", MissingAsset)


@pytest.mark.parametrize(
    ("scheme", "file", "archive"),
    [("attngan", "coco/test/filenames.pickle", "coco.zip"), ("karpathy", "dataset_coco.json", "caption_datasets.zip")],
)
def test_missing_lists_are_wanted_by_their_split_only(copy, read_coco, scheme, file, archive):
    (copy / file).unlink()
    read_coco(copy).setup()
    pattern = rf"{re.escape(file)} in .* for the {scheme} split, found none: unpack {archive}.*split_scheme=official"
    _refused(read_coco(copy, split_scheme=scheme), pattern, MissingAsset)


@pytest.mark.parametrize(
    ("scheme", "expected", "found"),
    [
        ("official", "40504 test, 82783 train", "13 test, 39 train"),
        ("attngan", "40470 test, 82783 train", "12 test, 39 train"),
        ("karpathy", "5000 test, 113287 train, 5000 val", "3 test, 45 train, 4 val"),
    ],
)
def test_an_incomplete_real_data_set_is_refused(copy, read_coco, scheme, expected, found):
    pattern = rf"expected {expected} images by the {scheme} split, found {found}.*complete=false"
    _refused(read_coco(copy, complete=True, split_scheme=scheme), pattern)


def test_an_image_that_no_annotation_lists(copy, read_coco):
    shutil.copy(next((copy / "train2014").glob("*.jpg")), copy / "train2014" / "COCO_train2014_000000999999.jpg")
    read_coco(copy).setup()
    pattern = r"captions_train2014.json: expected every image .* found no entry of COCO_train2014_000000999999.jpg \(1 "
    _refused(read_coco(copy, complete=True), pattern)


def test_missing_image(copy, read_coco):
    path = read_coco(copy).split("test")[0].image
    path.unlink()
    _refused(read_coco(copy), f"{re.escape(str(path))}: expected an image that captions_val2014.json lists, found none")


@pytest.mark.parametrize("folder", ["annotations", "train2014"])
def test_an_archive_unpacked_inside_a_folder_of_its_name(copy, read_coco, folder):
    (copy / folder).rename(copy / "moved")
    (copy / folder).mkdir()
    (copy / "moved").rename(copy / folder / folder)
    kind = MissingAsset if folder == "annotations" else ValueError
    _refused(read_coco(copy), rf"expected .* \(found {folder}/{folder}/[\w.]+\): move that up one folder$", kind)


def test_truncated_images(copy, read_coco):
    data = read_coco(copy)
    items = data.reference("test")
    for place, keep in ((0, 700), (1, 0)):
        path = data.split("test")[place].image
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(ValueError, match=re.escape(str(path))) as error:
            items[place]
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["captions_train2014.json", "instances_val2014.json"])
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda text: text[: len(text) // 2], "break off or are damaged"),
        (lambda text: text[:-1], "break off or are damaged"),
        (lambda text: text.replace('"images": [{', '"images": [{,', 1), "break off or are damaged"),
        (lambda text: "<html>quota exceeded</html>", "a file that begins with '<html>quota exceeded'"),
        (lambda text: "", "a file that begins with ''"),
        (lambda text: "[]", r"a file that begins with '\[\]'"),
    ],
)
def test_damaged_annotations(copy, read_coco, file, damage, found, tmp_path):
    path = copy / "annotations" / file
    path.write_text(damage(path.read_text()))
    _refused(read_coco(copy), f"{re.escape(str(path))}: expected a whole JSON object, found .*{found}")
    assert not list((tmp_path / "assets").glob(f"instances/{path.stem}*.npy"))


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        (
            "captions",
            lambda c: c["annotations"][0].pop("caption"),
            "expected id, image_id and caption in each of annot",
        ),
        ("captions", lambda c: c["images"][0].pop("file_name"), "expected id, file_name, width and height in each"),
        ("captions", lambda c: c["annotations"][0].update(image_id=5), "captions of listed images.* of image 5"),
        ("captions", lambda c: c.update(images=[], annotations=[]), "expected images with captions, found none"),
        ("instances", lambda c: c["annotations"][0].update(image_id=5), "of images that captions_train2014.json .* 5"),
        ("instances", lambda c: c["annotations"][0].update(category_id=90), "listed categories, found category 90"),
        ("instances", lambda c: c["annotations"][0].update(category_id=0), "expected image_id, id, category_id"),
        ("instances", lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "bbox of four and segmentation in each"),
        ("instances", lambda c: c["annotations"][0].update(segmentation=None), "bbox of four and segmentation in each"),
    ],
)
def test_annotations_that_contradict_one_another(copy, read_coco, kind, change, expected):
    _edit(copy, kind, change)
    _refused(read_coco(copy), f"{kind}_train2014.json: .*{expected}")


def test_fewer_than_five_captions(copy, read_coco):
    number = _json(copy, "captions")["images"][0]["id"]

    def drop(content):
        content["annotations"].remove(next(one for one in content["annotations"] if one["image_id"] == number))

    _edit(copy, "captions", drop)
    _refused(read_coco(copy), f"captions_train2014.json: expected at least 5 captions of image {number}, found 4")


def test_white_space_alone_is_no_caption(copy, read_coco):
    number = _json(copy, "captions")["images"][0]["id"]

    def blank(content):
        next(one for one in content["annotations"] if one["image_id"] == number)["caption"] = " \n"

    _edit(copy, "captions", blank)
    _refused(read_coco(copy), f"5 captions of image {number}, found 4")


def test_a_line_end_in_a_caption_is_a_space(copy, read_coco):
    def change(content):
        one = min(content["annotations"], key=lambda one: one["id"])
        one["caption"] = "  A café\non   the beach. \n"
        return one["image_id"]

    numbers = []
    _edit(copy, "captions", lambda content: numbers.append(change(content)))
    record = next(record for record in read_coco(copy).split("train") if record.class_id == numbers[0])
    assert record.captions[0] == "A café on the beach."


def test_lists_that_name_other_images(copy, read_coco):
    path = copy / "coco" / "test" / "filenames.pickle"
    names = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps([*names, "COCO_val2014_000000000001", "COCO_val2014_000000000002"], protocol=2))
    pattern = rf"{re.escape(str(path))}: expected images .* found 'COCO_val2014_000000000001' \(2 are not there\)"
    _refused(read_coco(copy, split_scheme="attngan"), pattern)
    path.write_bytes(pickle.dumps([*names, names[3]], protocol=2))
    _refused(read_coco(copy, split_scheme="attngan"), f"expected every image in one split, once, found '{names[3]}'")
    content = json.loads((copy / "dataset_coco.json").read_text())
    content["images"][0]["filename"] = "COCO_train2014_000000000003.jpg"
    (copy / "dataset_coco.json").write_text(json.dumps(content))
    _refused(read_coco(copy, split_scheme="karpathy"), "dataset_coco.json: .*'COCO_train2014_000000000003' \\(1 are")
    content["images"][0]["split"] = "testing"
    (copy / "dataset_coco.json").write_text(json.dumps(content))
    _refused(read_coco(copy, split_scheme="karpathy"), "expected filename and a split of train, restval, val, test in")


class _Evil:
    def __reduce__(self):
        return os.mkdir, ("was-run",)


@pytest.mark.parametrize("content", [[_Evil()], {"names": []}, [1, 2], []])
def test_wrong_pickles_are_refused_and_run_nothing(copy, read_coco, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = copy / "coco" / "train" / "filenames.pickle"
    path.write_bytes(pickle.dumps(content, protocol=2))
    _refused(read_coco(copy, split_scheme="attngan"), f"{re.escape(str(path))}: expected a (pickle of )?list")
    assert not (tmp_path / "was-run").exists()


def test_pictures_of_another_size_than_annotated(copy, read_coco):
    record = next(record for record in read_coco(copy).split("train") if len(record.instances))
    with pytest.raises(ValueError, match=r"instances_train2014.json: expected an image of .* found one of 64 x 48"):
        record.layout((64, 48))


def test_a_damaged_outline_names_its_file(copy, read_coco):
    data = read_coco(copy)
    record = next(record for record in data.split("train") if len(record.instances))
    path = copy / "annotations" / "instances_train2014.json"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: expected polygons or run lengths in the object at"):
        record.instances[0].mask(record.instances[0].mask.size)


def test_fingerprint_follows_objects_and_captions(copy, read_coco):
    first = read_coco(copy).fingerprint()
    assert read_coco(copy, seed=4).fingerprint() == first
    _edit(copy, "instances", lambda content: content["annotations"][0].update(bbox=[1.0, 2.0, 3.0, 4.0]))
    second = read_coco(copy).fingerprint()
    _edit(copy, "captions", lambda content: content["annotations"][0].update(caption="Another."))
    assert len({first, second, read_coco(copy).fingerprint()}) == 3


def test_fields_are_what_is_promised(scenes):
    data = scenes(image_size=64)
    samples = data.samples("test")
    for item in data.evaluation("test", samples, 0):
        assert set(item) == data.fields | {"sample"}
        assert item["layout"].shape == item["instances"].shape == (64, 64)
        assert len(item["boxes"]) == len(item["box_labels"])
        labels = torch.cat((torch.zeros(1, dtype=torch.int64), item["box_labels"]))
        assert torch.equal(labels[item["instances"]], item["layout"])
        assert item["caption_attributes"].items() <= item["attributes"].items()
        assert to_uint8(item["image"]).shape == (3, 64, 64)


@pytest.mark.assets
class TestPhotographs:
    """The eleven real images: a greyscale one without objects, a crowd of run lengths, captions as they are."""

    @pytest.fixture
    def photographs(self, shared_real, read_coco):
        return read_coco(shared_real / "coco", image_size=64, batch_size=2)

    def test_all_are_read(self, photographs):
        assert [len(photographs.split(split)) for split in ("train", "test")] == [4, 7]
        for split in ("train", "test"):
            for item in photographs.evaluation(split, photographs.samples(split), 0):
                assert item["image"].shape == (3, 64, 64)
                assert len(item["caption"]) > 10
                assert len(item["boxes"]) == len(item["box_labels"])
        assert len(list(photographs.train_dataloader())) == 2

    def test_layouts_have_the_annotated_classes(self, photographs, shared_real):
        for split, folder in (("train", "train2014"), ("test", "val2014")):
            by_authors = _by_authors(shared_real / "coco" / "annotations" / f"instances_{folder}.json")
            for record in photographs.split(split):
                found = by_authors.loadAnns(by_authors.getAnnIds(record.class_id))
                assert len(record.instances) == len(found)
                if not found:
                    continue
                image = by_authors.loadImgs(record.class_id)[0]
                index = record.layout((image["width"], image["height"]))
                covered = np.zeros(index.shape, bool)
                for one in found:
                    covered |= by_authors.annToMask(one) > 0
                assert np.array_equal(index > 0, covered)
                assert set(np.unique(index)) - {0} == {one["category_id"] for one in found}

    def test_the_crowd_is_decoded(self, photographs):
        crowds = [
            one for records in photographs.records.values() for record in records for one in record.instances
            if one.is_crowd
        ]  # fmt: skip
        assert len(crowds) == 1
        x, y, width, height = crowds[0].box
        rows, columns = np.nonzero(crowds[0].mask(crowds[0].mask.size))
        assert (columns.min(), rows.min()) == (x, y)
        # COCO's boxes of crowds end at the last pixel, not behind it.
        assert (columns.max() - x, rows.max() - y) == (width, height)

    def test_the_greyscale_one(self, photographs):
        record = next(record for record in photographs.split("test") if record.class_id == 431848)
        assert (len(record.instances), record.salient) == (0, None)
        image = next(item["image"] for item in photographs.reference("test") if item["id"] == record.id)
        assert torch.equal(image[0], image[1])
