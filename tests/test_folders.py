"""Which files of folders and archives `mmbench score` looks at, what it leaves out, and which sizes it refuses."""

import json
import os
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from mmbench.commands import score
from mmbench.metrics.fid import FID
from mmbench.metrics.suite import MetricSuite
from mmbench.networks.lpips_alexnet import LPIPSAlexNet
from mmbench.pipeline import listing
from mmbench.pipeline.inspection import Folder


@pytest.fixture
def made(home):
    """Four generated and six real images of 48 x 48 pixels, in the working directory."""
    rng = np.random.default_rng(0)
    for what, count in (("fake", 4), ("real", 6)):
        for number in range(count):
            save(home / what / f"{number:02d}.png", rng.integers(0, 256, (48, 48, 3), np.uint8))
    return home


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def scored(*words):
    """The record of a score of `fake`, if nothing else is said."""
    words = words if any(word.startswith("fake=") for word in words) else ("fake=fake", *words)
    assert score.main([*words, "extractor=toy", "out=record.json"]) == 0
    return json.loads(Path("record.json").read_text())


def refused(*words):
    """What is said, in one line, of what cannot be scored."""
    with pytest.raises(ValueError) as error:  # noqa: PT011  (what it says is looked at by the caller)
        scored(*words)
    assert "\n" not in str(error.value)
    return str(error.value)


def values(record):
    return {name: (found["value"], found["count"]) for name, found in record["metrics"].items()}


def copied(folder, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(folder.read_bytes())


@pytest.mark.parametrize(
    "name",
    [
        ".ipynb_checkpoints/00-checkpoint.png",
        ".thumbnails/deep/x.png",
        "._01.png",
        "sub/._00.png",
        ".hidden.png",
        "__MACOSX/00.png",
        "__macosx/sub/00.png",
        "Thumbs.db",
        "desktop.ini",
        ".DS_Store",
    ],
)
def test_hidden_names_are_no_samples_and_are_counted(made, name):
    words = ("real=real", "metrics=psnr,fid")
    before = scored(*words)
    assert before["data"]["notes"] == {}
    copied(made / "real/05.png", made / "fake" / name)
    after = scored(*words)
    assert values(after) == values(before)
    assert after["metrics"]["fid@toy"]["count"] == 4
    assert after["data"]["notes"] == {f"{listing.HIDDEN} in fake=, not looked at": 1}


def test_hidden_names_of_the_real_set_are_no_samples(made):
    before = scored("real=real", "metrics=fid")
    copied(made / "fake/00.png", made / "real/.ipynb_checkpoints/00-checkpoint.png")
    assert values(scored("real=real", "metrics=fid")) == values(before)


def test_a_folder_that_is_hidden_itself_is_scored(made):
    (made / "fake").rename(made / ".fake")
    assert scored("fake=.fake", "metrics=tv")["metrics"]["tv"]["count"] == 4


def test_other_suffixes_are_counted_in_output_and_record(made, capsys):
    for name in ("notes.txt", "00.json", "more/01.json", "README"):
        path = made / "fake" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    kind = "files with other suffixes (.json, .txt, none) in fake=, not looked at"
    assert scored("metrics=tv")["data"]["notes"] == {kind: 4}
    assert f"note: {kind}: 4\n" in capsys.readouterr().out


def test_where_there_are_other_files_only_they_are_named(made):
    (made / "texts").mkdir()
    (made / "texts/a.txt").write_text("a")
    assert "found none of" in (said := refused("fake=texts", "metrics=tv"))
    assert "files with other suffixes (.txt): 1" in said


def test_links_to_folders_and_files_are_followed(made):
    for number in range(3):
        copied(made / f"real/{number:02d}.png", made / f"elsewhere/deep/{number:02d}.png")
    (made / "fake/b").symlink_to(made / "elsewhere", target_is_directory=True)
    (made / "fake/c.png").symlink_to(made / "real/03.png")
    (made / "linked").symlink_to(made / "fake", target_is_directory=True)
    record = scored("metrics=tv")
    assert record["metrics"]["tv"]["count"] == 8
    assert record["data"]["notes"] == {}
    assert values(scored("fake=linked", "metrics=tv")) == values(record)


def test_a_folder_that_two_ways_lead_to_has_two_names(made):
    (made / "fake/a").mkdir()
    copied(made / "real/00.png", made / "fake/a/x.png")
    (made / "fake/b").symlink_to("a", target_is_directory=True)
    assert Folder.read("fake", made / "fake").names == {"00", "01", "02", "03", "a/x", "b/x"}


@pytest.mark.parametrize("target", [".", "..", "a", "../real/up"])
def test_a_link_that_leads_back_ends(made, target):
    (made / "fake/a").mkdir()
    (made / "fake/a/loop").symlink_to((made / "fake" / target).absolute(), target_is_directory=True)
    (made / "real/up").symlink_to(made / "fake/a", target_is_directory=True)  # two folders that hold each other
    record = scored("metrics=tv")
    assert record["metrics"]["tv"]["count"] == 4
    assert record["data"]["notes"] == {f"{listing.LOOPS} in fake=, not looked at": 1}


def test_what_leads_nowhere_is_counted(made):
    (made / "fake/gone.png").symlink_to(made / "no/such.png")
    (made / "fake/self.png").symlink_to(made / "fake/self.png")
    os.mkfifo(made / "fake/pipe.png")
    assert scored("metrics=tv")["data"]["notes"] == {f"{listing.NOWHERE} in fake=, not looked at": 3}


def test_folders_that_cannot_be_read_are_counted(made, monkeypatch):
    copied(made / "fake/00.png", made / "fake/locked/00.png")
    entries = Path.iterdir

    def guarded(path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return entries(path)

    monkeypatch.setattr(Path, "iterdir", guarded)
    files, passed = listing.listed(made / "fake", {".png"})
    assert len(files) == 4
    assert passed == {listing.UNREADABLE: 1}


@pytest.mark.parametrize(
    "suffix",
    [
        *(".gif", ".jfif", ".jpe", ".ppm", ".pgm", ".tga", ".PNG", ".Jpeg", ".TIF"),
        pytest.param(".avif", marks=pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")),
    ],
)
def test_suffixes_of_pictures_are_read_in_any_case(made, suffix):
    kind = {".jfif": "JPEG", ".jpe": "JPEG", ".pgm": "PPM"}.get(suffix)
    for path in (made / "fake").iterdir():
        picture = Image.open(path)
        (picture.convert("L") if suffix == ".pgm" else picture).save(path.with_suffix(suffix), format=kind)
        if suffix != ".PNG" or path.suffix != ".PNG":
            path.unlink()
    record = scored("real=real", "metrics=psnr")
    assert record["metrics"]["psnr"]["count"] == 4
    assert record["data"]["notes"] == {}


def test_a_name_with_two_suffixes_is_refused_with_both_files(made):
    save(made / "fake/00.JPG", noise(48, 48))
    assert "found 00 twice: '00.JPG' and '00.png': remove one" in refused("metrics=tv")


def test_names_match_whatever_their_normalisation(made):
    words = ["vögel", "카나리아", "été"]
    composed = [unicodedata.normalize("NFC", word) for word in words]
    decomposed = [unicodedata.normalize("NFD", word) for word in words]
    level = np.zeros((48, 48, 3), np.uint8)
    for number, (nfc, nfd) in enumerate(zip(composed, decomposed, strict=True)):
        save(made / f"nfd/{nfd}/{nfd}.png", noise(48, 48, number))
        save(made / f"nfc/{nfc}/{nfc}.png", noise(48, 48, 9 + number))
        level[:24] = 255
        save(made / f"masks/{nfd}/{nfc}.png", level)
    captions = {f"{nfc}/{nfd}.png": "a red bird" for nfc, nfd in zip(composed, decomposed, strict=True)}
    (made / "captions.json").write_text(json.dumps(captions))
    words = ["fake=nfd", "input=nfc", "mask=masks", "captions=captions.json"]
    record = scored(*words, "metrics=l1_outside_mask,clip_score,diff")
    assert {found["count"] for found in record["metrics"].values()} == {3}
    save(made / f"nfd/{decomposed[0]}/{composed[2]}.png", noise(48, 48))
    save(made / f"nfd/{composed[0]}/{decomposed[2]}.png", noise(48, 48))
    assert "twice: " in (said := refused("fake=nfd", "metrics=tv"))
    assert r"e\u0301te\u0301.png" in said
    assert r"\xe9t\xe9.png" in said


@pytest.mark.parametrize("name", ["a\nb.png", "a\u2028b.png", os.fsdecode(b"v\xf6gel.png")])
def test_names_that_no_record_can_hold_are_refused(made, name):
    copied(made / "fake/00.png", made / "fake" / name)
    assert "expected names in UTF-8 and without line ends" in refused("metrics=tv")


def test_screenshots_of_a_mac_have_names_that_can_be_held(made):
    copied(made / "fake/00.png", made / "fake/Screenshot at 1.00.00\u202fPM.png")
    assert scored("metrics=tv")["metrics"]["tv"]["count"] == 5


# Archives.


def archived(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def contents(folder, prefix=""):
    return {f"{prefix}{file.name}": file.read_bytes() for file in sorted(folder.iterdir())}


MAC = {"__MACOSX/fake/._00.png": b"\0\5\26\7", "fake/.DS_Store": b"\0"}


@pytest.mark.parametrize("metrics", ["psnr", "psnr,fid", "tv"])
def test_an_archive_of_a_mac_is_its_folder(made, metrics):
    archived(made / "Fake.ZIP", contents(made / "fake", "fake/") | MAC)
    words = (["real=real"] if metrics != "tv" else []) + [f"metrics={metrics}"]
    zipped, plain = scored("fake=Fake.ZIP", *words), scored("fake=fake", *words)
    assert values(zipped) == values(plain)
    assert zipped["data"]["fake"] == plain["data"]["fake"]


def test_two_archives_with_top_folders_of_other_names(made):
    archived(made / "fake.zip", contents(made / "fake", "samples/"))
    archived(made / "real.zip", contents(made / "real", "photographs/"))
    plain = scored("real=real", "metrics=psnr")
    assert values(scored("fake=fake.zip", "real=real.zip", "metrics=psnr")) == values(plain)


def test_a_top_folder_that_the_others_have_too_is_part_of_the_names(made):
    for what in ("fake", "real"):
        (made / "birds" / what).mkdir(parents=True)
        (made / what).rename(made / "birds" / what / "set")
    archived(made / "fake.zip", contents(made / "birds/fake/set", "set/"))
    words = ("real=birds/real", "metrics=psnr")
    assert values(scored("fake=fake.zip", *words)) == values(scored("fake=birds/fake", *words))
    captions = {f"set/{number:02d}": "a red bird" for number in range(4)}
    (made / "captions.json").write_text(json.dumps(captions))
    assert scored("fake=fake.zip", "captions=captions.json", "metrics=clip_score")["coverage"]["count"] == 4


def test_one_top_folder_alone_is_no_part_of_the_names(made):
    archived(made / "fake.zip", contents(made / "fake", "a/b/"))
    save(made / "other/b/00.png", noise(48, 48))
    said = refused("fake=fake.zip", "real=real", "metrics=psnr")
    assert "expected a real image of the name of each generated image, found none for any" in said
    assert "'00' and 'b/00'" in said


def _encrypted(content):
    """The archive with the flag of encryption on every member."""
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + place] |= 1
            at = content.find(mark, at + 4)
    return content


def _flipped(content):
    content[200] ^= 255
    return content


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_encrypted, "00.png: expected a file or a folder, found a file that is encrypted: .*unpack it first"),
        (_flipped, "00.png: expected a whole archive, found Bad CRC-32.*: make it again"),
        (lambda content: content[:-2000], "expected a whole archive, found File is not a zip file: make it again"),
        (lambda content: bytearray(), "expected a whole archive, found File is not a zip file: make it again"),
        (lambda content: content[5000:], "expected a whole archive, found .*: make it again"),
    ],
    ids=["encrypted", "flipped", "cut", "empty", "headless"],
)
def test_an_archive_that_does_not_open_is_named_with_what_helps(made, change, reason):
    path = archived(made / "fake.zip", contents(made / "fake"))
    path.write_bytes(change(bytearray(path.read_bytes())))
    with pytest.raises(ValueError, match=f"^fake.zip: .*{reason}") as error:
        scored("fake=fake.zip", "metrics=tv")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../escaped.png", "leads out of it"),
        ("/tmp/escaped.png", "leads out of it"),
        (f"{'x' * 300}.png", "too long"),
        ("a/" * 2500 + "x.png", "too long"),
        ("00.png/x.png", "found"),  # a file and a folder of one name
    ],
)
def test_an_archive_of_absurd_names_is_refused(made, name, reason):
    archived(made / "fake.zip", contents(made / "fake") | {name: b"x"})
    said = refused("fake=fake.zip", "metrics=tv")
    assert said.startswith("fake.zip: ")
    assert reason in said
    assert len(said) < 600


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_that_names_a_file_twice_is_refused(made):
    path = archived(made / "fake.zip", contents(made / "fake"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("00.png", (made / "real/00.png").read_bytes())
    assert "expected each name once, found 00.png twice" in refused("fake=fake.zip", "metrics=tv")


def test_an_archive_out_of_all_proportion_is_refused(made, monkeypatch):
    monkeypatch.setattr("mmbench.core.unpacking.MAX_SMALL", 100_000)
    archived(made / "fake.zip", {"00.png": bytes(10_000_000)}, zipfile.ZIP_DEFLATED)
    assert "bytes in all when unpacked, found more: make it again, or unpack it first" in refused(
        "fake=fake.zip", "metrics=tv"
    )


def test_an_archive_without_pictures_is_named_itself(made):
    archived(made / "fake.zip", {"a.txt": b"a"})
    assert refused("fake=fake.zip", "metrics=tv").startswith("expected images in fake=fake.zip, found none of")


def test_a_file_in_the_place_of_a_folder_and_a_path_to_nothing(made):
    assert "found fake/00.png, which is one image: name the folder that it is in" in refused(
        "fake=fake/00.png", "metrics=tv"
    )
    assert "found nowhere, which is no such thing" in refused("fake=nowhere", "metrics=tv")


# skip_bad and the reference set.


def _cut(path):
    path.write_bytes(path.read_bytes()[:4000])  # the head is whole, the pixels are not


def _no_image(path):
    path.write_text("no image")


def _other_size(path):
    save(path, noise(72, 48))


@pytest.mark.parametrize("damage", [_cut, _no_image, _other_size])
@pytest.mark.parametrize(("metrics", "name"), [("fid", "05"), ("fid,psnr", "05"), ("fid,psnr", "02")])
def test_what_is_left_out_is_left_out_of_the_real_set(made, metrics, damage, name):
    words = ["real=real", f"metrics={metrics}"]
    lacking = [made / f"real/{name}.png", *([made / f"fake/{name}.png"] if "psnr" in metrics and name == "02" else [])]
    kept = [path.rename(made / f"{path.parent.name}.png") for path in lacking]
    expected = values(scored(*words))
    for path, place in zip(kept, lacking, strict=True):
        path.rename(place)
    damage(lacking[0])
    assert f"found 1 that cannot (real/{name}: " in refused(*words)
    record = scored(*words, "skip_bad=1")
    assert list(record["data"]["skipped"]) == [f"real/{name}"]
    assert values(record) == expected


def test_what_is_damaged_in_the_real_set_is_named_by_processes_too(made):
    _cut(made / "real/05.png")
    _cut(made / "real/04.png")
    said = refused("real=real", "metrics=fid", "workers=1")
    assert "found 2 that cannot (real/04: " in said
    assert "skip_bad=2" in said


def test_each_file_counts_once(made):
    _cut(made / "real/01.png")
    _no_image(made / "real/04.png")
    _other_size(made / "real/05.png")
    _cut(made / "fake/00.png")
    words = ["real=real", "metrics=fid,psnr"]
    assert "found 4 that cannot" in refused(*words)
    assert "found 4 that cannot" in refused(*words, "skip_bad=3")
    record = scored(*words, "skip_bad=4")
    assert record["coverage"]["count"] == record["metrics"]["psnr"]["count"] == 2
    assert list(record["data"]["skipped"]) == ["00", "real/01", "real/04", "real/05"]


def test_kept_statistics_are_those_of_what_is_in_them(made, monkeypatch):
    """Statistics without a file are never taken for those of the whole folder, nor the other way."""
    save(made / "real/00.png", noise(48, 48, seed=77))  # which no other test has kept any of
    seen = []
    update = FID.update_reference
    monkeypatch.setattr(FID, "update_reference", lambda self, batch: seen.extend(batch["id"]) or update(self, batch))
    whole = values(scored("real=real", "metrics=fid"))
    good = (made / "real/05.png").read_bytes()
    assert seen.count("05") == 1
    _cut(made / "real/05.png")
    part = values(scored("real=real", "metrics=fid", "skip_bad=1"))
    assert seen.count("05") == 1
    assert part != whole
    (made / "real/05.png").write_bytes(good)
    assert values(scored("real=real", "metrics=fid", "skip_bad=1")) == whole


def test_too_small_a_real_set_is_one_line(made):
    for path in (made / "real").iterdir():
        _other_size(path)
    said = refused("real=real", "metrics=fid", "skip_bad=6")
    assert said.startswith("expected at least 2 real images to compare with, found 0 beside 6 left out (real/00: real")
    _cut(made / "real/00.png")
    assert "found 6 that cannot" in refused("real=real", "metrics=fid")
    for number in range(1, 6):
        (made / f"real/{number:02d}.png").unlink()
    save(made / "real/00.png", noise(48, 48))
    assert "expected at least 2 real images to compare with, found 1: add some" in refused("real=real", "metrics=fid")


def test_a_real_image_without_a_partner_of_another_size_does_not_get_into_the_real_set(made):
    _other_size(made / "real/05.png")
    assert "real/05: real image of 72 x 48 pixels" in refused("real=real", "metrics=fid,psnr")
    assert scored("real=real", "metrics=psnr")["metrics"]["psnr"]["count"] == 4  # which it is no part of


# Sizes.


@pytest.mark.parametrize("metrics", ["lpips", "psnr", "ssim", "l1", "fid,lpips"])
def test_a_size_that_is_not_the_generated_one_is_refused_for_pairs(made, metrics):
    for path in (made / "fake").iterdir():
        save(path, noise(72, 48))
    said = refused("real=real", f"metrics={metrics}", "size=48")
    assert "size=48 makes 48 x 48, generated images are 72 x 48" in said


@pytest.mark.parametrize("what", ["input", "mask"])
def test_a_size_of_inputs_and_masks_is_refused_too(made, what):
    for path in (made / "fake").iterdir():
        save(path, noise(72, 48))
        save(made / "input" / path.name, noise(96, 96))
        save(made / "mask" / path.name, np.zeros((96, 96, 3), np.uint8))
    metrics = {"input": "diff", "mask": "l1_outside_mask"}[what]
    said = refused("input=input", "mask=mask", f"metrics={metrics}", "size=64")
    assert "size=64 makes 64 x 64, generated images are 72 x 48" in said


def test_a_size_that_is_not_the_generated_one_is_allowed_for_sets(made):
    for path in (made / "fake").iterdir():
        save(path, noise(72, 48))
    assert scored("real=real", "metrics=fid", "size=32")["metrics"]["fid@toy"]["count"] == 4


@pytest.fixture
def alexnet(tmp_path):
    """Random weights in torchvision's layout, in a file."""
    state = {}
    for name, value in LPIPSAlexNet().network.net.state_dict().items():
        _, layer, kind = name.split(".")
        state[f"features.{layer}.{kind}"] = value
    torch.save(state, tmp_path / "alexnet.pth")
    return tmp_path / "alexnet.pth"


def test_lpips_names_its_least_size_before_anything_is_scored(made, alexnet):
    for folder in ("fake", "real"):
        for path in (made / folder).iterdir():
            save(path, noise(40, 24))
    words = ["fake=fake", "real=real", "metrics=psnr,lpips", f"extractor.lpips.file={alexnet}", "out=record.json"]
    with pytest.raises(
        ValueError, match="expected images of at least 31 x 31 pixels for LPIPS on LPIPSAlexNet, found 40 x 24: "
    ):
        score.main(words)
    for folder in ("fake", "real"):
        for path in (made / folder).iterdir():
            save(path, noise(31, 31))
    assert score.main(words) == 0


def test_the_least_size_of_alexnet_is_the_least_that_it_can_see():
    network, least = LPIPSAlexNet(), LPIPSAlexNet.least_size
    assert network(torch.zeros(1, 3, least, least, dtype=torch.uint8))["embedding"].isfinite().all()
    with pytest.raises(RuntimeError, match="too small"):
        network(torch.zeros(1, 3, least, least - 1, dtype=torch.uint8))


@pytest.mark.parametrize(("metric", "least"), [("ssim", 11), ("tv", 2)])
def test_metrics_with_windows_name_their_least_size(made, metric, least):
    for folder in ("fake", "real"):
        for path in (made / folder).iterdir():
            save(path, noise(20, least - 1))
    real = [] if metric == "tv" else ["real=real"]
    wanted = f"expected images of at least {least} x {least} pixels for {metric.upper()}, found 20 x {least - 1}"
    assert wanted in refused(*real, f"metrics={metric}")
    suite = MetricSuite.named(metric)
    images = torch.zeros(2, 3, least - 1, 20, dtype=torch.uint8)
    with pytest.raises(ValueError, match=wanted):
        suite.update(images, {"image": torch.zeros(2, 3, least - 1, 20), "id": ["a", "b"]})
