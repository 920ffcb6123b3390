"""CelebA-HQ: part masks become label maps, images find their own captions, and what does not fit is refused."""

import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmbench.core.cards import MissingAsset
from mmbench.data import celeba_hq
from mmbench.data.celeba_hq import CelebAHQ, ToyCelebAHQ
from mmbench.data.toy.faces import PARTS

COUNT = 10
PLAIN = {"image_size": 32, "batch_size": 4, "num_workers": 0, "seed": 0}
# As the data set's authors number and paint them.
NUMBERED = {
    1: "skin", 2: "nose", 3: "eye_g", 4: "l_eye", 5: "r_eye", 6: "l_brow", 7: "r_brow", 8: "l_ear", 9: "r_ear",
    10: "mouth", 11: "u_lip", 12: "l_lip", 13: "hair", 14: "hat", 15: "ear_r", 16: "neck_l", 17: "neck", 18: "cloth",
}  # fmt: skip


@pytest.fixture(scope="module")
def toy_faces_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy") / "faces"
    _toy(root).prepare_data()
    return root


def _toy(root, **changes):
    common = {"root": root, "assets": root.parent, "num_images": COUNT, "toy_seed": 3, "split_scheme": "mm_celeba"}
    return ToyCelebAHQ(**{**common, **PLAIN, **changes})


@pytest.fixture
def faces(toy_faces_root, tmp_path):
    """The toy faces as a folder that may be damaged, to be read as the real data set is."""

    def copy(source, target):
        Path(target).symlink_to(source) if source.endswith(".png") else shutil.copyfile(source, target)

    return Path(shutil.copytree(toy_faces_root, tmp_path / "celeba", copy_function=copy))


def _read(root, **changes):
    common = {"root": root, "assets": root.parent, "split_scheme": "mm_celeba", "complete": False}
    return CelebAHQ(**{**common, **PLAIN, **changes})


def _refused(module, pattern, kind=ValueError):
    with pytest.raises(kind, match=pattern) as error:
        module.setup()
    assert "\n" not in str(error.value)


def _edit(path, change):
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def _mask(root, number, part):
    return root / "CelebAMask-HQ" / "CelebAMask-HQ-mask-anno" / "0" / f"{number:05d}_{part}.png"


def _write_list(root, split, names):
    (root / f"mm_celeba_{split}_filenames.pickle").write_bytes(pickle.dumps(names, protocol=2))


def _numbers(data):
    return {split: [record.class_id for record in records] for split, records in data.records.items()}


@pytest.fixture
def mapping(faces):
    return faces / "CelebAMask-HQ" / "CelebA-HQ-to-CelebA-mapping.txt"


@pytest.fixture
def table(faces):
    return faces / "CelebAMask-HQ" / "CelebAMask-HQ-attribute-anno.txt"


def test_published_counts():
    assert sum(CelebAHQ.counts["mm_celeba"].values()) == sum(CelebAHQ.counts["official"].values()) == 30_000
    assert len({archive.file for archive in CelebAHQ.archives}) == len(CelebAHQ.archives)


def test_records_hold_what_the_files_say(faces):
    data = _read(faces)
    assert _numbers(data) == {"train": list(range(8)), "test": [8, 9]}
    header = (faces / "CelebAMask-HQ" / "CelebAMask-HQ-attribute-anno.txt").read_text().splitlines()
    for record in (record for records in data.records.values() for record in records):
        number = record.class_id
        assert record.id == f"{number:05d}"
        assert record.image == faces / "CelebAMask-HQ" / "CelebA-HQ-img" / f"{number}.jpg"
        assert (
            "".join(f"{caption}\n" for caption in record.captions)
            == (faces / "celeba-caption" / f"{number}.txt").read_text()
        )
        values = ["yes" if value == "1" else "no" for value in header[2 + number].split()[1:]]
        assert list(record.attributes.items()) == list(zip(header[1].split(), values))


def test_items_have_the_declared_fields(faces):
    data = _read(faces)
    item = data.evaluation("test", data.samples("test", count=1), 0)[0]
    assert set(item) == data.fields | {"sample"}
    assert item["image"].shape == (3, 32, 32)
    assert item["layout"].shape == (32, 32)


def test_layout_is_the_masks_painted_in_their_order(faces):
    for number, record in enumerate(_read(faces).split("train")):
        expected = np.zeros((64, 64), int)
        for label, part in NUMBERED.items():
            if (path := _mask(faces, number, part)).exists():
                expected = np.where(np.asarray(Image.open(path))[..., 0] == 255, label, expected)
        layout = record.layout((64, 64))
        assert layout.dtype == np.uint8
        assert np.array_equal(layout, expected)
        assert {1, 4, 5, 13, 18} <= set(layout.flat)
        # The pictures are twice as wide and high.
        assert np.array_equal(record.layout((128, 128)), np.kron(expected, np.ones((2, 2), int)))


def test_layout_lies_on_the_picture(toy_faces_root):
    data = _toy(toy_faces_root, image_size=64)
    for item in data.evaluation("train", data.samples("train"), 0):
        hair, drawn = item["layout"] == 13, item["parts"][PARTS.index("hair")] > 0.5
        assert (hair & drawn).sum() / (hair | drawn).sum() > 0.85


def test_a_part_without_a_file_is_absent(faces):
    record = _read(faces).split("train")[0]
    before = record.layout((64, 64))
    for part in ("u_lip", "cloth"):
        _mask(faces, 0, part).unlink()
    after = record.layout((64, 64))
    assert np.array_equal(after[before == 11], np.full((before == 11).sum(), 1))  # skin runs on below lips
    assert (after[before == 18] == 0).all()
    kept = ~np.isin(before, (11, 18))
    assert np.array_equal(after[kept], before[kept])


def test_a_mask_covers_where_it_is_not_black_in_grey_or_colour(faces):
    levels = np.zeros((64, 64), np.uint8)
    levels[:2, :3], levels[2, 0] = 1, 255
    for mode in ("L", "RGB"):
        (path := _mask(faces, 0, "hat")).unlink(missing_ok=True)
        Image.fromarray(levels).convert(mode).save(path)
        layout = _read(faces).split("train")[0].layout((64, 64))
        assert (layout[levels > 0] == 14).all()
        assert (layout == 14).sum() == 7


def test_images_without_masks_and_masks_that_do_not_fit(faces):
    record = _read(faces).split("train")[0]
    skin = _mask(faces, 0, "skin")
    with pytest.raises(
        ValueError, match=r"skin.png: expected a mask .* of its 178 x 218 pixels, found 64 x 64: unpack"
    ):
        record.layout((178, 218))
    skin.unlink()
    Image.new("L", (32, 32), 255).save(skin)
    with pytest.raises(
        ValueError, match=r"nose.png: expected a mask like the image's others, .* found 64 x 64: unpack"
    ):
        record.layout((128, 128))
    for path in skin.parent.glob("00000_*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"00000_skin.png: expected masks of the parts of image 0, found none of 18"):
        record.layout((128, 128))
    skin.parent.rename(skin.parent.with_name("1"))
    _refused(_read(faces), "mask-anno/0: expected the masks of images 0 to 1999, found no folder: unpack CelebAMask-HQ")


def test_damaged_masks_and_images(faces):
    data = _read(faces)
    items = data.evaluation("train", data.samples("train"), 0)
    mask = _mask(faces, 0, "hair")
    whole = mask.read_bytes()
    mask.unlink()
    for path, content in ((mask, whole[: len(whole) // 2]), (data.split("train")[0].image, b"<html>quota</html>")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{re.escape(str(path))}: expected a whole image") as error:
            items[0]
        assert "\n" not in str(error.value)


def test_official_split_is_celebas_partition(faces, mapping):
    originals = (0, 162_769, 162_770, 182_636, 182_637, 202_598)
    mapping.write_text("".join(f"{n:<16}{o:<12}{o + 1:06d}.jpg\n" for n, o in enumerate(originals)))
    assert _numbers(_read(faces, split_scheme="official")) == {"train": [0, 1], "val": [2, 3], "test": [4, 5]}


def test_mapping_without_its_header(faces, mapping):
    before = _numbers(_read(faces, split_scheme="official"))
    assert before == {"train": list(range(8)), "val": [8], "test": [9]}
    _edit(mapping, lambda lines: lines[1:])
    assert _numbers(_read(faces, split_scheme="official")) == before


@pytest.mark.parametrize(
    "row", ["1 1 000001.jpg", "1 202599 202600.jpg", "0 1 000002.jpg", "30000 1 000002.jpg", "1 1", "idx orig_idx"]
)
def test_rows_of_the_mapping_that_are_wrong(faces, mapping, row):
    _edit(mapping, lambda lines: [*lines[:2], f"{row}\n", *lines[3:]])
    module = _read(faces, split_scheme="official")
    _refused(module, f"mapping.txt: expected rows .* each idx once and orig_file = orig_idx . 1, found '{row}': unpack")


def test_tables_that_are_missing_or_empty(faces, mapping, table):
    mapping.write_text("\n")
    _refused(_read(faces, split_scheme="official"), "mapping.txt: expected a table, found an empty file")
    table.unlink()
    _refused(_read(faces), r"attribute-anno.txt in .*", MissingAsset)


def test_lists_are_read_where_their_authors_put_them_and_in_their_order_of_names(faces):
    for split, names in (("train", ["3", "0", "7"]), ("test", ["2", "1"])):
        (faces / f"mm_celeba_{split}_filenames.pickle").unlink()
        (faces / split).mkdir()
        (faces / split / "filenames.pickle").write_bytes(pickle.dumps(names, protocol=0))
    data = _read(faces)
    assert _numbers(data) == {"train": [0, 3, 7], "test": [1, 2]}
    assert all(data.holds(archive) for archive in data.archives)


def test_without_lists_the_last_6000_are_test(faces, table):
    celeba = faces / "CelebAMask-HQ"
    for old, new in ((8, 23_999), (9, 24_000)):
        (celeba / "CelebA-HQ-img" / f"{old}.jpg").rename(celeba / "CelebA-HQ-img" / f"{new}.jpg")
        (faces / "celeba-caption" / f"{old}.txt").rename(faces / "celeba-caption" / f"{new}.txt")
        (celeba / "CelebAMask-HQ-mask-anno" / str(new // 2000)).mkdir()
        table.write_text(re.sub(rf"^{old}\.jpg", f"{new}.jpg", table.read_text(), flags=re.MULTILINE))
    for split in ("train", "test"):
        (faces / f"mm_celeba_{split}_filenames.pickle").unlink()
    assert _numbers(_read(faces)) == {"train": [*range(8), 23_999], "test": [24_000]}


def test_one_list_alone_is_refused(faces):
    (faces / "mm_celeba_test_filenames.pickle").unlink()
    _refused(_read(faces), "mm_celeba_test_filenames.pickle: expected the list of test images beside that of the other")


def test_swapped_lists_are_known_by_their_counts_and_by_their_numbers(faces):
    numbers = np.random.default_rng(0).permutation(30_000).astype(str).tolist()
    _write_list(faces, "train", numbers[:6000])
    _write_list(faces, "test", numbers[6000:])
    wanted = r"mm_celeba_train_filenames.pickle: expected 24000 train images, and 6000 test images in .*mm_celeba_test_"
    swapped = "swapped: exchange the two files"
    _refused(_read(faces), rf"{wanted}filenames.pickle, found 6000 and 24000, {swapped}")
    _write_list(faces, "train", ["24000", "24001"])
    _write_list(faces, "test", ["0", "23999"])
    _refused(_read(faces), rf"{wanted}filenames.pickle, found 2 and 2, {swapped}")


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["0", "30000"], "train_.*: expected numbers of images from 0 to 29999, found '30000'"),
        (["0", "image/1"], "train_.*: expected numbers of images from 0 to 29999, found 'image/1'"),
        (["0", "1", "1"], "train_.*: expected each image once, found 2 different ones in 3 rows"),
        (["0", "9"], r"test_.*: expected other images than in .*train_.*, found 9 in both \(1 are\)"),
        (["0", "10"], "10.jpg: expected an image of the mm_celeba split, found none"),
        ([], "train_.*: expected a list of str, found another or an empty one"),
    ],
)
def test_wrong_lists(faces, names, pattern):
    _write_list(faces, "train", names)
    _refused(_read(faces), pattern)


@pytest.mark.parametrize("name", ["00001.jpg", "30000.jpg", "000001.jpg", "162771.jpg", "face.jpg"])
def test_images_numbered_as_in_other_copies(faces, name):
    folder = faces / "CelebAMask-HQ" / "CelebA-HQ-img"
    (folder / "0.jpg").rename(folder / name)
    _refused(_read(faces), f"CelebA-HQ-img: expected 0.jpg to 29999.jpg, as in CelebAMask-HQ.zip, found {name}, as in")


def test_a_folder_without_images(faces):
    for path in (faces / "CelebAMask-HQ" / "CelebA-HQ-img").iterdir():
        path.unlink()
    _refused(_read(faces), "CelebA-HQ-img: expected 0.jpg to 29999.jpg, as in CelebAMask-HQ.zip, found no .jpg: unpack")


def test_an_archive_unpacked_inside_a_folder_of_its_name(faces):
    (faces / "CelebAMask-HQ").rename(faces / "moved")
    (faces / "CelebAMask-HQ").mkdir()
    (faces / "moved").rename(faces / "CelebAMask-HQ/CelebAMask-HQ")
    found = "CelebAMask-HQ/CelebAMask-HQ/CelebA-HQ-img"
    _refused(_read(faces), rf"found none \(found {found}\): move that up one folder$", MissingAsset)


def test_attribute_tables_that_contradict_themselves(faces, table):
    whole = table.read_text()
    _edit(table, lambda lines: lines[:-1])
    _refused(_read(faces), "attribute-anno.txt: expected as many rows as its first line says, '10', found 9: unpack")
    _edit(table, lambda lines: ["9\n", *lines[1:]])
    _refused(_read(faces), "attribute-anno.txt: expected a row of 9.jpg, found none: unpack")
    for wrong in (whole.replace(" 1\n", " 0\n"), whole.replace(" 1\n", "\n"), whole.replace("9.jpg", "9.png")):
        table.write_text(wrong)
        _refused(_read(faces), r"attribute-anno.txt: expected rows of a file `<i>.jpg` and 10 values 1 or -1, found")


@pytest.mark.parametrize("place", ["text", "text/celeba-caption"])
def test_captions_in_the_folders_of_other_copies(faces, place):
    before = _read(faces).split("train")[0].captions
    (faces / place).parent.mkdir(exist_ok=True)
    (faces / "celeba-caption").rename(faces / place)
    assert _read(faces).split("train")[0].captions == before


def test_captions_that_are_too_few_missing_or_unreadable(faces):
    path = faces / "celeba-caption" / "9.txt"
    _edit(path, lambda lines: [*lines, "An eleventh.\n"])
    assert _read(faces).split("test")[1].captions[10] == "An eleventh."
    _edit(path, lambda lines: lines[:9])
    _refused(_read(faces), "9.txt: expected 10 captions, one on each line, found 9: unpack the captions again")
    path.write_bytes(b"She has \xff hair.\n" * 10)
    _refused(_read(faces), "9.txt: expected text in UTF-8, found other bytes .*invalid start byte")
    path.unlink()
    _refused(_read(faces), "9.txt: expected 10 captions, found no file: unpack the captions again")


def test_an_incomplete_data_set_is_refused_with_both_counts(faces):
    _refused(
        _read(faces, complete=True), "expected 6000 test, 24000 train images .* found 2 test, 8 train: .*complete="
    )
    module = _read(faces, complete=True, split_scheme="official")
    _refused(module, "expected 2824 test, 24183 train, 2993 val images .* found 1 test, 8 train, 1 val")


def test_missing_archives_are_named(faces):
    _refused(_read(faces.parent / "none"), r"CelebAMask-HQ.zip \(size unknown, .* from gdrive:1badu", MissingAsset)
    (faces / "celeba-caption").rename(faces / "captions")
    _refused(_read(faces), r"celeba-caption.zip \(size unknown, .* from gdrive:1LTB", MissingAsset)


def test_toy_faces_say_what_is_true(toy_faces_root):
    data = _toy(toy_faces_root, image_size=64)
    assert data.fields == CelebAHQ.fields | {"parts", "caption_attributes", "caption_mismatched_attributes"}
    for record in (record for records in data.records.values() for record in records):
        assert len(record.caption_attributes) == 10
        assert all(named.items() <= record.attributes.items() for named in record.caption_attributes)
    for item in data.evaluation("test", data.samples("test"), 0):
        assert item["parts"].shape == (len(PARTS), 64, 64)
        assert (item["parts"].sum(0) <= 1.02).all()
        worn = item["attributes"]["hat"] != "none"
        assert bool(item["parts"][PARTS.index("hat")].any()) == worn
        assert bool((item["layout"] == 14).any()) == worn


def test_toy_faces_fill_the_tables_of_the_real_ones(faces, toy_faces_root):
    toy = {record.id: record.attributes for record in _toy(toy_faces_root).split("train")}
    for record in _read(faces).split("train"):
        said = toy[record.id]
        assert (record.attributes["Smiling"], record.attributes["Eyeglasses"]) == (said["smiling"], said["glasses"])
        assert record.attributes["Wearing_Hat"] == ("no" if said["hat"] == "none" else "yes")


def test_layout_classes_are_the_published_ones():
    assert dict(enumerate(celeba_hq.LAYOUT_CLASSES, 1)) == NUMBERED
