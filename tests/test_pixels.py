"""What becomes of the pixels of anybody's files: read right, or said, or refused by name; never another number."""

import json
import struct
import zlib

import numpy as np
import PIL
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageOps, PngImagePlugin
from skimage.metrics import peak_signal_noise_ratio

from mmbench.commands import score
from mmbench.core import images, outputs
from mmbench.core.images import opened, read_rgb, read_upright
from mmbench.core.outputs import IMAGES, MASKS, VIDEOS, Video
from mmbench.data.records import Record, decoded
from mmbench.data.views import View
from mmbench.metrics.suite import MetricSuite
from mmbench.pipeline import canary

NAMES = [f"{number:02d}" for number in range(4)]


@pytest.fixture
def pictures():
    """Four pictures of patches, (20, 28, 3) uint8, whose sides differ so that a turned one is seen."""
    rng = np.random.default_rng(0)
    return [np.kron(rng.integers(0, 256, (5, 7, 3)), np.ones((4, 4, 1))).astype(np.uint8) for _ in NAMES]


@pytest.fixture
def keep(home, tmp_path):
    """Writes pictures, of an array or of Pillow, into a folder by number; the path of the folder."""

    def write(what, pictures, suffix=".png", **how):
        folder = tmp_path / what
        folder.mkdir(exist_ok=True)
        for name, picture in zip(NAMES, pictures, strict=True):
            picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
            picture.save(folder / f"{name}{suffix}", **how)
        return folder

    return write


@pytest.fixture
def scored(tmp_path, capsys):
    """Scores with these words; the record and what was printed."""

    def run(*words):
        assert score.main([*words, "extractor=toy", f"out={tmp_path / 'record.json'}"]) == 0
        return json.loads((tmp_path / "record.json").read_text()), capsys.readouterr().out

    return run


def turned(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def chunk(kind, contents):
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))


def with_chunk(path, new, before):
    """Puts a chunk into a PNG, before the first one of that kind."""
    raw = path.read_bytes()
    place = raw.index(before) - 4
    path.write_bytes(raw[:place] + new + raw[place:])


def twelve_bits(levels):
    """A TIFF of one row of four grey levels of 12 bits."""
    bits = "".join(f"{level:012b}" for level in levels)
    pixels = int(bits, 2).to_bytes(len(bits) // 8)
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1), (279, len(pixels))]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    head += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + bytes(4)
    return head.ljust(122, b"\0") + pixels


def complaint(attempt, path):
    """What is said of a file that is refused; nothing of one that is not."""
    try:
        attempt(path)
    except ValueError as error:
        return str(error)
    return ""


def test_grey_of_more_than_8_bits_is_scaled_and_rounded_to_the_nearest_level(tmp_path):
    levels = np.array([[0, 128, 129, 257, 30000, 65534, 65535]], np.uint16)
    expected = [round(level / 257) for level in levels[0].tolist()]
    assert expected == [0, 0, 1, 1, 117, 255, 255]
    Image.fromarray(levels).save(tmp_path / "a.png")
    Image.fromarray(levels).save(tmp_path / "b.pgm", format="PPM")
    for order in "<>":
        tifffile.imwrite(tmp_path / f"c{ord(order)}.tif", levels.astype(f"{order}u2"), byteorder=order)
    for path in sorted(tmp_path.iterdir()):
        assert read_rgb(path).tolist() == [[expected]] * 3, path.name
        assert IMAGES.notes(path) == ["grey of 16 bits rounded to 8"]
    (tmp_path / "d.tif").write_bytes(twelve_bits([0, 4095, 2048, 16]))
    assert read_rgb(tmp_path / "d.tif")[0].tolist() == [[0, 255, 128, 1]]


def test_what_pillow_makes_of_16_bits_in_colours_is_said(tmp_path):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">HHH", 65535, 0x80FF, 0)))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b""))
    assert read_rgb(path).flatten().tolist() == [255, 0x80, 0]
    assert IMAGES.notes(path) == ["upper 8 of 16 bits a channel"]


@pytest.mark.parametrize(
    ("levels", "how", "said"),
    [
        (np.full((4, 4), 0.5, np.float32), {}, "found mode F"),
        (np.full((4, 4), 70000, np.int32), {}, "found mode I"),
        (np.full((4, 4), 9, np.uint16), {"photometric": "miniswhite"}, "found mode I;16"),
        (np.full((4, 4, 3), 20, np.uint8), {"photometric": "cielab"}, "found mode LAB"),
    ],
)
def test_levels_without_a_white_are_refused_by_name(keep, pictures, scored, levels, how, said):
    folder = keep("fake", [Image.new("L", (4, 4), 128)] * 4, ".tif")
    tifffile.imwrite(folder / "02.tif", levels, **how)
    with pytest.raises(ValueError, match=said) as error:
        scored(f"fake={folder}", "metrics=tv")
    assert "02.tif: expected" in str(error.value)
    assert "\n" not in str(error.value)
    record, _ = scored(f"fake={folder}", "metrics=tv", "skip_bad=1")
    assert list(record["data"]["skipped"]) == ["02"]
    with pytest.raises(ValueError, match=said):
        read_rgb(folder / "02.tif")


@pytest.mark.parametrize("level", [1, 200, 255])
def test_8_bits_in_a_file_of_16_are_not_taken_for_black(keep, scored, level):
    folder = keep("fake", [np.resize(np.array([0, level], np.uint16), (4, 4))] * 4)
    with pytest.raises(ValueError, match=f"03.png: expected grey of 16 bits.*found no level above {level}:"):
        scored(f"fake={folder}", "metrics=tv")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGBA", "CMYK"])
def test_every_other_mode_gives_the_colours_of_its_file(tmp_path, mode):
    colours = [(255, 255, 255), (0, 0, 0)] + [(200, 30, 90)] * (mode not in {"1", "L", "LA"})
    picture = Image.fromarray(np.array([colours], np.uint8))
    picture = picture.quantize(4).convert(mode) if mode in {"P", "PA"} else picture.convert(mode)
    picture.save(tmp_path / "a.tif")
    assert read_rgb(tmp_path / "a.tif").permute(1, 2, 0)[0].tolist() == [list(colour) for colour in colours]


def test_grey_of_16_bits_scores_as_the_same_in_8(keep, pictures, scored):
    grey = [picture[..., 0] for picture in pictures]
    fake, same = keep("fake", [level.astype(np.uint16) * 257 for level in grey]), keep("same", grey)
    real = keep("real", [np.where(level > 127, level - 8, level + 8).astype(np.uint8) for level in grey])
    record, printed = scored(f"fake={fake}", f"real={real}", "metrics=psnr,tv")
    plain, _ = scored(f"fake={same}", f"real={real}", "metrics=psnr,tv")
    assert record["metrics"] == plain["metrics"]
    assert record["metrics"]["psnr"]["value"] == pytest.approx(20 * np.log10(255 / 8))
    assert record["data"]["notes"] == {"grey of 16 bits rounded to 8": 4}
    assert "note: grey of 16 bits rounded to 8: 4" in printed
    assert plain["data"]["notes"] == {}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_score_turns_upright(tmp_path, pictures, suffix, orientation):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(pictures[0]).save(path, exif=turned(orientation))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert (IMAGES.read(path).permute(1, 2, 0).numpy() == expected).all()
    assert IMAGES.look(path)["{} pixels"] == f"{expected.shape[1]} x {expected.shape[0]}"
    assert IMAGES.notes(path) == (["turned upright as EXIF says"] if orientation > 1 else [])


def test_an_orientation_behind_the_pixels_counts_too(tmp_path, pictures):
    path = tmp_path / "a.png"
    Image.fromarray(pictures[0]).save(path)
    with_chunk(path, chunk(b"eXIf", turned(6).tobytes()[6:]), before=b"IEND")
    assert (read_upright(path).permute(1, 2, 0).numpy() == np.rot90(pictures[0], -1)).all()
    assert IMAGES.look(path)["{} pixels"] == "20 x 28"
    assert IMAGES.notes(path) == ["turned upright as EXIF says"]


@pytest.mark.parametrize("workers", [0, 1])
def test_turned_photographs_are_compared_upright_and_counted_once(keep, pictures, scored, workers):
    real = keep("real", [np.rot90(picture).copy() for picture in pictures[:1]] + pictures[1:], exif=turned(1))
    Image.fromarray(np.rot90(pictures[0]).copy()).save(real / "00.png", exif=turned(6))
    fake = keep("fake", [picture ^ 4 for picture in pictures])
    record, printed = scored(f"fake={fake}", f"input={real}", "metrics=psnr", f"workers={workers}")
    expected = np.mean([peak_signal_noise_ratio(picture, picture ^ 4) for picture in pictures])
    assert record["metrics"]["psnr"]["value"] == pytest.approx(expected)
    assert record["data"]["notes"] == {"turned upright as EXIF says": 1}
    assert "note: turned upright as EXIF says: 1\n" in printed


def test_data_modules_keep_the_pixels_that_boxes_belong_to(tmp_path, pictures):
    path = tmp_path / "a.png"
    Image.fromarray(pictures[0]).save(path, exif=turned(6))
    record = Record("a", path, ("a bird",), 1, box=(8.0, 4.0, 8.0, 8.0))
    seen = decoded(record, lambda region: View.centred(region, 12))
    assert seen.size == (28, 20)
    assert (seen.pixels == pictures[0][2:14, 6:18]).all()


def test_transparency_is_left_out_and_counted(keep, pictures, scored):
    alpha = np.full(pictures[0].shape[:2], 77, np.uint8)
    fake = keep("fake", [np.dstack([picture, alpha]) for picture in pictures])
    real = keep("real", [picture ^ 4 for picture in pictures])
    record, printed = scored(f"fake={fake}", f"real={real}", "metrics=psnr")
    expected = np.mean([peak_signal_noise_ratio(picture, picture ^ 4) for picture in pictures])
    assert record["metrics"]["psnr"]["value"] == pytest.approx(expected)
    assert record["data"]["notes"] == {"transparency left out": 4}
    assert "note: transparency left out: 4" in printed


@pytest.mark.parametrize(
    ("mode", "transparency"), [("L", 7), ("P", 0), ("P", b"\0\x80"), ("RGB", (1, 2, 3)), ("LA", None), ("RGBA", None)]
)
def test_transparency_of_every_kind_is_seen(tmp_path, pictures, mode, transparency):
    picture, path = Image.fromarray(pictures[0]).convert(mode), tmp_path / "a.png"
    colours = np.asarray(picture.convert("RGB"))
    picture.save(path, **({} if transparency is None else {"transparency": transparency}))
    assert IMAGES.notes(path) == ["transparency left out"]
    assert (read_rgb(path).permute(1, 2, 0).numpy() == colours).all()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".gif"])
def test_the_first_of_several_frames_is_read_and_that_is_said(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / f"a{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == ".webp" else {}))
    assert IMAGES.notes(path) == ["first of several frames"]
    assert read_upright(path)[:, 0, 0].tolist() == [255, 0, 0]
    frames[0].save(path)
    assert IMAGES.notes(path) == []


def test_a_video_is_no_picture_of_several_frames(tmp_path):
    VIDEOS.write(tmp_path / "a.png", Video(torch.arange(3 * 3 * 64, dtype=torch.uint8).reshape(3, 3, 8, 8), 5.0))
    assert VIDEOS.notes(tmp_path / "a.png") == []


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([0, 1], "levels 0 and 1 where 0 and 255 are expected"),
        ([0, 128, 255], "levels 0, 128 and 255 where 0 and 255 are expected"),
        ([1], "level 1 where 0 and 255 are expected"),
        (range(20), "levels 0, 1, 2, ... and 19 where 0 and 255 are expected"),
    ],
)
def test_masks_of_other_levels_are_refused_by_name(keep, pictures, scored, levels, said):
    fake, source = keep("fake", pictures), keep("input", [picture ^ 4 for picture in pictures])
    holes = np.zeros(pictures[0].shape[:2], np.uint8)
    holes[:10] = 255
    mask = keep("mask", [holes] * 4)
    wrong = np.resize(np.array(levels, np.uint8), holes.shape)
    Image.fromarray(wrong).save(mask / "01.png")
    words = [f"fake={fake}", f"input={source}", f"mask={mask}", "metrics=l1_outside_mask"]
    with pytest.raises(ValueError, match=said) as error:
        scored(*words)
    assert "01.png" in str(error.value)
    assert "skip_bad=1" in str(error.value)
    record, _ = scored(*words, "skip_bad=1")
    assert list(record["data"]["skipped"]) == ["mask/01"]
    assert record["metrics"]["l1_outside_mask"]["count"] == 3


@pytest.mark.parametrize("levels", [[0, 255], [0], [255]])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16"])
def test_masks_of_black_and_white_are_read(tmp_path, levels, mode):
    holes = np.resize(np.array(levels, np.uint8), (4, 6))
    picture = Image.fromarray(holes.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(holes).convert(mode)
    picture.save(tmp_path / "a.png")
    assert (MASKS.read(tmp_path / "a.png") == torch.from_numpy(holes)).all()


def test_masks_of_colours_and_of_transparency_are_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4), (255, 0, 0)).save(path)
    with pytest.raises(ValueError, match=r"a.png: .* found colours where 0 and 255 are expected"):
        MASKS.read(path)
    Image.new("RGBA", (4, 4), (0, 0, 0, 254)).save(path)
    with pytest.raises(ValueError, match=r"a.png: .* found one of transparency"):
        MASKS.read(path)
    Image.new("RGBA", (4, 4), (0, 0, 0, 255)).save(path)
    assert not MASKS.read(path).any()


def test_another_decoder_never_reads_what_is_kept(keep, tmp_path, pictures, scored, monkeypatch):
    monkeypatch.setenv("MMBENCH_HOME", str(tmp_path / "assets"))
    real, fake = keep("real", pictures), keep("fake", [picture ^ 4 for picture in pictures])

    def kept():
        monkeypatch.setattr(canary, "_checked", {})
        scored(f"fake={fake}", f"real={real}", "metrics=fid")
        return len(list((tmp_path / "assets" / "statistics").glob("*.safetensors")))

    assert kept() == 1
    assert kept() == 1
    monkeypatch.setattr(images, "VERSION", images.VERSION + 1)
    assert kept() == 2
    monkeypatch.setattr(PIL, "__version__", "0.0")
    assert kept() == 3


def test_the_canary_begins_anew_with_our_own_decoding_and_with_no_library(tmp_path, monkeypatch):
    suite = MetricSuite.named("psnr", extractor="toy")

    def kept():
        monkeypatch.setattr(canary, "_checked", {})
        canary.check(suite, tmp_path)
        return len(list(tmp_path.rglob("decoded.safetensors")))

    assert kept() == 1
    monkeypatch.setattr(PIL, "__version__", "0.0")
    assert kept() == 1
    monkeypatch.setattr(canary, "VERSION", canary.VERSION + 1)
    assert kept() == 2


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_two_megabytes_of_text_do_not_make_a_picture_worse(keep, pictures, scored, before, kind):
    folder = keep("fake", pictures)
    plain, _ = scored(f"fake={folder}", "metrics=tv")
    text = zlib.compress(b"x" * 2**21)
    with_chunk(
        folder / "02.png", chunk(kind, b"workflow\0" + (b"\0" if kind == b"zTXt" else b"\1\0\0\0") + text), before
    )
    record, _ = scored(f"fake={folder}", "metrics=tv")
    assert record["metrics"] == plain["metrics"]


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_more_text_than_pillow_reads_is_named(keep, pictures, scored, before):
    folder = keep("fake", pictures)
    bomb = zlib.compress(b"x" * (PngImagePlugin.MAX_TEXT_MEMORY + 1))
    with_chunk(folder / "02.png", chunk(b"zTXt", b"workflow\0\0" + bomb), before)
    with pytest.raises(ValueError, match=r"02.png: expected a whole image, found one that cannot be decoded"):
        scored(f"fake={folder}", "metrics=tv")
    record, _ = scored(f"fake={folder}", "metrics=tv", "skip_bad=1")
    assert list(record["data"]["skipped"]) == ["02"]


@pytest.mark.parametrize("limit", [700_000, 400_000])  # of a picture of a million pixels: Pillow warns, and refuses
def test_a_picture_over_the_limit_of_pillow_is_named(keep, pictures, scored, monkeypatch, limit):
    folder = keep("fake", pictures)
    Image.new("RGB", (1000, 1000)).save(folder / "02.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=rf"02.png: expected a picture of at most {limit:,} pixels.*: scale it down"):
        scored(f"fake={folder}", "metrics=tv")
    record, printed = scored(f"fake={folder}", "metrics=tv", "skip_bad=1")
    assert list(record["data"]["skipped"]) == ["02"]
    assert record["metrics"]["tv"]["count"] == 3
    assert "Warning" not in printed


@pytest.mark.parametrize("suffix", sorted({*outputs.Images.suffixes, ".gif", ".ppm"}))
@pytest.mark.filterwarnings("ignore")  # Pillow's, of tags that it leaves out
def test_damage_of_any_kind_is_one_line_that_names_the_file(tmp_path, pictures, suffix):
    rng, path = np.random.default_rng(0), tmp_path / f"a{suffix}"
    Image.fromarray(pictures[0]).save(path, exif=turned(6))
    raw = np.frombuffer(path.read_bytes(), np.uint8)
    said = []
    for _ in range(150):
        wrong = raw[: rng.integers(len(raw))] if rng.random() < 0.3 else raw.copy()
        places = rng.integers(min(len(raw), int(rng.choice([64, len(raw)]))), size=rng.integers(1, 9))
        wrong = wrong.copy()
        wrong[places[places < len(wrong)]] ^= rng.integers(1, 256, dtype=np.uint8)
        path.write_bytes(wrong.tobytes())
        IMAGES.notes(path)
        for attempt in (IMAGES.look, IMAGES.read):
            said.append(complaint(attempt, path))
    said = [line for line in said if line]
    assert len(said) > 30
    assert all(str(path) in line and "\n" not in line for line in said)


def test_what_the_caller_raises_is_not_taken_for_damage(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(KeyError), opened(tmp_path / "a.png"):
        raise KeyError("of the caller")
