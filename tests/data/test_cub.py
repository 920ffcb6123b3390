"""The CUB module reads the archives' layout, and says in one line what is wrong with it."""

import re

import pytest

from mmbench.core.cards import MissingAsset
from mmbench.core.images import to_uint8
from mmbench.data.cub import CUB, TABLES, ZERO_SHOT_TEST_CLASSES, ToyCUB
from mmbench.data.toy.birds import NUM_CLASSES, PARTS, TEST_CLASSES


def _refused(module, pattern, kind=ValueError):
    with pytest.raises(kind, match=pattern) as error:
        module.setup()
    assert "\n" not in str(error.value)


def _edit(path, change):
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def test_zero_shot_classes_are_the_papers():
    assert len(ZERO_SHOT_TEST_CLASSES) == 50
    assert sum(CUB.counts["zero_shot"].values()) == sum(CUB.counts["official"].values()) == 11788


def test_toy_splits_are_disjoint_by_class(toy):
    data = toy()
    train, test = ({record.class_id for record in data.split(name)} for name in ("train", "test"))
    assert test == set(TEST_CLASSES)
    assert train == set(range(1, NUM_CLASSES + 1)) - test
    assert len(data.split("train")) == 60


def test_official_split_is_the_tables(toy, toy_root):
    data = toy(split_scheme="official")
    rows = (toy_root / "CUB_200_2011" / "train_test_split.txt").read_text().splitlines()
    assert len(data.split("train")) == sum(row.endswith(" 1") for row in rows) == 40
    assert {record.class_id for record in data.split("train")} == {record.class_id for record in data.split("test")}


def test_records_hold_what_the_files_say(toy, toy_root):
    records = [record for split in toy().records.values() for record in split]
    assert len(records) == len({record.id for record in records}) == 80
    for record in records:
        assert record.image == toy_root / "CUB_200_2011" / "images" / f"{record.id}.jpg"
        text = (toy_root / "text_c10" / f"{record.id}.txt").read_text()
        assert text == "".join(f"{caption}\n" for caption in record.captions)
        assert int(record.id[:3]) == record.class_id
        assert len(record.caption_attributes) == 10
        assert all(named.items() <= record.attributes.items() for named in record.caption_attributes)


def test_real_layout_reads_without_side_files(real_copy, read):
    data = read(real_copy)
    assert data.fields == {"id", "image", "caption", "captions", "caption_mismatched", "image_mismatched", "class_id"}
    # By the real list of test classes.
    test = {record.class_id for record in data.split("test")}
    assert test == {number for number in ZERO_SHOT_TEST_CLASSES if number <= NUM_CLASSES}
    item = data.evaluation("test", data.samples("test", count=1), 0)[0]
    assert set(item) == data.fields | {"sample"}


def test_attngan_folder_of_captions_is_accepted(real_copy, read):
    before = read(real_copy).split("train")[0].captions
    (real_copy / "text_c10").rename(real_copy / "text")
    assert read(real_copy).split("train")[0].captions == before


def test_a_caption_without_spaces_is_repaired(real_copy, read):
    key = read(real_copy).split("train")[0].id
    _edit(real_copy / "text_c10" / f"{key}.txt", lambda lines: ["a\ufffd\ufffdred\ufffd\ufffdbird.\n", *lines[1:]])
    assert read(real_copy).split("train")[0].captions[0] == "a red bird."


def test_missing_archives_are_named_with_origin_and_place(tmp_path, real_copy, read):
    _refused(
        read(tmp_path / "none"), r"CUB_200_2011.tgz \(1,150,585,339 bytes, sha256 0c68.* from https://", MissingAsset
    )
    (real_copy / "text_c10").rename(real_copy / "elsewhere")
    _refused(
        read(real_copy),
        r"expected text_c10 in .* `mmbench prepare` .*cvpr2016_cub.tar.gz \(.*gdrive:0B0y",
        MissingAsset,
    )


def test_an_incomplete_real_data_set_is_refused(real_copy, read):
    _refused(
        read(real_copy, complete=True), r"expected 2933 test, 8855 train images by the zero_shot split.*complete=false"
    )


def test_a_part_of_the_data_set_may_have_some_of_the_classes(tmp_path):
    """The toy birds, read as if they were photographs."""
    common = {"assets": tmp_path, "bird_crop": True, "image_size": 16, "batch_size": 4, "num_workers": 0}
    common |= {"root": tmp_path / "cub", "split_scheme": "zero_shot", "cache": False, "seed": 0}
    toy = ToyCUB(**common, num_images=40, toy_seed=0)
    toy.prepare_data()
    part = CUB(**common, complete=False)
    part.prepare_data()
    assert sum(map(len, part.records.values())) == 40
    assert part.split("train")
    assert part.split("test")


def test_unknown_split_scheme_and_split(real_copy, read):
    with pytest.raises(ValueError, match="expected split_scheme of zero_shot, official, found 'karpathy'"):
        read(real_copy, split_scheme="karpathy")
    with pytest.raises(ValueError, match="expected a split of train, test, found 'val'"):
        read(real_copy).split("val")


def test_missing_image(real_copy, read):
    path = read(real_copy).split("test")[0].image
    path.unlink()
    _refused(read(real_copy), f"{re.escape(str(path))}: expected an image that images.txt lists, found none")


def test_truncated_and_empty_images(real_copy, read):
    data = read(real_copy)
    items = data.reference("test")
    for place, keep in ((0, 700), (1, 0)):
        path = data.split("test")[place].image
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(ValueError, match=f"{re.escape(str(path))}: expected a whole image") as error:
            items[place]
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "found"), [(lambda lines: [], 0), (lambda lines: lines[:9], 9), (lambda lines: [*lines, "more\n"], 11)]
)
def test_wrong_number_of_captions(real_copy, read, change, found):
    path = real_copy / "text_c10" / f"{read(real_copy).split('test')[0].id}.txt"
    _edit(path, change)
    _refused(read(real_copy), f"{re.escape(str(path))}: expected 10 captions, one on each line, found {found}")


def test_missing_caption_file(real_copy, read):
    path = real_copy / "text_c10" / f"{read(real_copy).split('test')[0].id}.txt"
    path.unlink()
    _refused(read(real_copy), f"{re.escape(str(path))}: expected 10 captions, found no file")


@pytest.mark.parametrize("table", ["bounding_boxes", "image_class_labels", "train_test_split"])
def test_an_id_that_one_table_lacks(real_copy, read, table):
    _edit(real_copy / "CUB_200_2011" / f"{table}.txt", lambda lines: lines[:-1])
    _refused(read(real_copy), rf"{table}.txt: expected the ids of images.txt, found no id 80 \(1 differ\)")


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_not_there_or_is_a_folder(real_copy, read, table):
    path = real_copy / "CUB_200_2011" / f"{table}.txt"
    path.unlink()
    expected = (
        rf"^expected CUB_200_2011/{table}.txt in {re.escape(str(real_copy))}, found none: unpack the archive again$"
    )
    _refused(read(real_copy), expected)
    path.mkdir()
    _refused(read(real_copy), expected)


@pytest.mark.parametrize("held", [True, False])
def test_an_archive_unpacked_inside_a_folder_of_its_name(real_copy, read, held):
    inner = real_copy / "CUB_200_2011/CUB_200_2011"
    if held:
        (real_copy / "CUB_200_2011").rename(real_copy / "moved")
        (real_copy / "CUB_200_2011").mkdir()
        (real_copy / "moved").rename(inner)
    else:
        (real_copy / "CUB_200_2011/images.txt").unlink()
        inner.mkdir()
    _refused(
        read(real_copy),
        rf"^expected CUB_200_2011/images.txt in {re.escape(str(real_copy))}, found none "
        r"\(found CUB_200_2011/CUB_200_2011/...\): move that up one folder$",
    )


def test_captions_unpacked_inside_a_folder_of_their_name(real_copy, read):
    (real_copy / "text_c10").rename(real_copy / "moved")
    (real_copy / "text_c10").mkdir()
    (real_copy / "moved").rename(real_copy / "text_c10/text_c10")
    _refused(read(real_copy), r"expected 10 captions, found no file \(found text_c10/text_c10/...\): move that up one")


def test_a_root_that_is_one_folder_too_high_or_too_low(real_copy, read):
    _refused(
        read(real_copy.parent),
        r"expected CUB_200_2011 in .*, found none \(found cub/CUB_200_2011\): move",
        MissingAsset,
    )
    low = real_copy / "CUB_200_2011"
    _refused(read(low), rf"the folder itself, set data.root={re.escape(str(real_copy))}$", MissingAsset)


def test_captions_that_are_a_file(real_copy, read):
    (real_copy / "text_c10").rename(real_copy / "moved")
    (real_copy / "text_c10").write_text("an archive, say")
    _refused(read(real_copy), "expected 10 captions, found no file: unpack the captions again")


def test_an_id_that_the_index_lacks(real_copy, read):
    _edit(real_copy / "CUB_200_2011" / "images.txt", lambda lines: lines[:-1])
    _refused(read(real_copy), "images.txt: expected the ids of bounding_boxes.txt, found no id 80")


def test_unknown_classes(real_copy, read):
    cub = real_copy / "CUB_200_2011"
    _edit(cub / "image_class_labels.txt", lambda lines: ["1 999\n", *lines[1:]])
    _refused(read(real_copy), "image_class_labels.txt: expected the classes of classes.txt, found class 999")
    _edit(cub / "image_class_labels.txt", lambda lines: ["1 1\n", *lines[1:]])
    _edit(cub / "classes.txt", lambda lines: lines[:196])
    _refused(
        read(real_copy, complete=True),
        "classes.txt: expected every test class of the zero_shot split, found no class 197",
    )


def test_lines_that_are_no_rows(real_copy, read):
    _edit(real_copy / "CUB_200_2011" / "bounding_boxes.txt", lambda lines: ["1 10.0 20.0\n", *lines[1:]])
    _refused(read(real_copy), "bounding_boxes.txt: expected lines of an id and its value, found '1 10.0 20.0'")


def test_a_box_outside_its_picture(real_copy, read):
    _edit(real_copy / "CUB_200_2011" / "bounding_boxes.txt", lambda lines: ["1 900.0 9.0 20.0 20.0\n", *lines[1:]])
    with pytest.raises(ValueError, match=r"_0001_001001.jpg: expected a box inside the picture of .* found \(900.0"):
        read(real_copy).reference("test")[0]


def test_fingerprint_follows_the_data_not_the_place_or_the_settings(real_copy, toy, read, tmp_path):
    first = read(real_copy).fingerprint()
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert read(real_copy, seed=5, batch_size=2, image_size=64).fingerprint() == first
    moved = real_copy.rename(tmp_path / "moved")
    assert read(moved).fingerprint() == first
    path = moved / "text_c10" / f"{read(moved).split('test')[0].id}.txt"
    _edit(path, lambda lines: ["another caption.\n", *lines[1:]])
    second = read(moved).fingerprint()
    image = read(moved).split("test")[0].image
    image.write_bytes(image.read_bytes() + b"\0")
    assert len({first, second, read(moved).fingerprint(), toy().fingerprint()}) == 4


def test_summary_counts(toy):
    summary = toy().summary()
    assert (summary["train images"], summary["test images"], summary["captions"]) == (60, 20, 800)
    assert (summary["train classes"], summary["test classes"]) == (30, 10)


def test_vocabulary_is_of_both_splits(toy):
    data = toy()
    words = set(data.vocabulary().words)
    assert {"<end>", "bird", "crown", *(colour for colour in ("red", "grey"))} <= words
    assert all(data.vocabulary().encode(record.captions[0], 99) for record in data.split("test"))


def test_toy_data_are_made_when_they_are_wanted(tmp_path, toy):
    data = toy()
    data.root = tmp_path / "fresh"
    data.prepare_data()
    assert data.fingerprint() == toy().fingerprint()


def test_parts_cover_the_bird_in_the_picture(toy):
    data = toy(image_size=64)
    for item in data.evaluation("test", data.samples("test"), 0):
        parts = item["parts"]
        assert parts.shape == (len(PARTS), 64, 64)
        assert 0 <= parts.min() <= parts.max() <= 1
        assert (parts.sum(0) <= 1.02).all()
        # The crop makes the bird fill about two thirds of the picture in its longer direction.
        extent = (parts.sum(0) > 0.5).nonzero()
        assert 36 <= (extent.max(0).values - extent.min(0).values).max() <= 64
        image = to_uint8(item["image"])
        assert image.shape == (3, 64, 64)
