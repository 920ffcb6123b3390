"""What people were seen to do with scores: copies, small sets, full disks, odd terminals and names."""

import errno
import io
import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_folders import refused, scored

from mmbench.commands import score
from mmbench.commands.evaluate import print_scores
from mmbench.core.download import DiskFull
from mmbench.core.noise import Sample
from mmbench.core.results import Result
from mmbench.metrics.base import sample_keys, sample_order
from mmbench.metrics.features import PART
from mmbench.metrics.suite import MetricSuite
from mmbench.pipeline import canary, inspection, scoring
from mmbench.pipeline.captions import read_captions


def draw(folder, names, seed=0):
    rng = np.random.default_rng(seed)
    for name in names:
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(path)


@pytest.fixture
def made(home):
    """Four generated and four real images of 24 x 24 pixels, in the working directory."""
    draw(home / "fake", "abcd", seed=1)
    draw(home / "real", "abcd", seed=2)
    return home


def test_copies_are_counted(made, capsys):
    (made / "fake/e.png").write_bytes((made / "fake/a.png").read_bytes())
    (made / "fake/b.png").write_bytes((made / "real/c.png").read_bytes())
    notes = scored("real=real", "metrics=fid")["data"]["notes"]
    assert notes == {
        "a generated image is, to the byte, another of them": 1,
        "a generated image is, to the byte, one of real=": 1,
    }
    assert "to the byte, one of real=: 1" in capsys.readouterr().out
    assert scored("fake=real", "real=real", "metrics=fid")["data"]["notes"] == {
        "a generated image is, to the byte, one of real=": 4
    }


def test_other_images_are_no_copies(made):
    assert scored("real=real", "metrics=fid")["data"]["notes"] == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("metrics=tv,kid",), "at least 1000 generated images for KID, found 4"),
        (("metrics=kid",), "set protocol.metrics.kid.subset_size=N"),
        (("metrics=is",), "at least 10 generated images for InceptionScore, found 4"),
        (("metrics=is",), "set protocol.metrics.is.splits=N"),
        (("metrics=precision", "protocol.metrics.precision.neighbours=4"), "at least 5 generated images for Precision"),
        (("metrics=recall", "protocol.metrics.recall.neighbours=3", "real=few"), "at least 4 real images for Recall"),
    ],
)
def test_too_few_images_are_found_out_before_one_is_scored(made, monkeypatch, words, message):
    def looked(*_args):
        raise AssertionError("it is too late")

    draw(made / "few", "abc")
    monkeypatch.setattr(scoring, "show", looked)
    given = () if any(word.startswith("real=") for word in words) else ("real=real",)
    assert message in refused(*given, *words)


def test_one_image_has_no_covariance(made, monkeypatch):
    draw(made / "one", "a")
    monkeypatch.setattr(scoring, "show", None)
    assert "at least 2 generated images for FID, found 1" in refused("fake=one", "real=real", "metrics=fid")


class Closed(io.StringIO):
    """A terminal whose reader has gone."""

    def write(self, _text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_record_is_written_though_nobody_reads_the_output(made, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Closed())
    message = refused("metrics=tv")
    monkeypatch.undo()
    assert "Broken pipe" in message
    assert json.loads((made / "record.json").read_text())["metrics"]["tv"]["count"] == 4


def test_a_terminal_without_the_characters_of_a_name_prints_their_numbers(made, monkeypatch):
    (made / "fake/é日.png").write_bytes(b"no picture")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    record = scored("metrics=tv", "skip_bad=1")
    assert list(record["data"]["skipped"]) == ["é日"]
    assert rb"left out: \xe9\u65e5" in terminal.buffer.getvalue()


def test_names_are_utf_8_in_every_locale(made, monkeypatch):
    """What Python makes of a name where the locale is ASCII: bytes as surrogates."""
    draw(made / "named", ["é日"])
    files = [Path(os.fsencode(path).decode("ascii", "surrogateescape")) for path in (made / "named").iterdir()]
    monkeypatch.setattr(inspection, "listed", lambda folder, _suffixes: (files, {}))
    assert list(inspection.Folder.read("fake", made / "named").names) == ["é日"]


def test_a_full_disk_is_one_line_wherever_it_fills(made, monkeypatch, tmp_path):
    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ValueError, match="expected to write this file, found No space left"):
        scoring._write(tmp_path / "kept.safetensors", {"a": torch.zeros(2)}, ["facts"])
    with pytest.raises(ValueError, match="expected to write this file, found No space left"):
        canary._compare(tmp_path / "canary.safetensors", {"a": torch.zeros(2)}, "features", 0)


def test_room_for_an_archive_is_looked_for_where_it_is_unpacked(made, monkeypatch):
    def full(*_args):
        raise DiskFull("no room")

    with zipfile.ZipFile("fake.zip", "w") as archive:
        archive.write("fake/a.png", "a.png")
    monkeypatch.setattr(inspection, "unpack_zip", full)
    assert "name a folder on another disk by TMPDIR" in refused("fake=fake.zip", "metrics=tv")


def test_what_is_no_folder_of_pictures_is_named_with_what_helps(made):
    np.savez("levels.npz", np.zeros((2, 8, 8, 3), np.uint8))
    with tarfile.open("fake.tar.gz", "w:gz") as archive:
        archive.add("fake")
    with zipfile.ZipFile("inner.zip", "w") as archive:
        archive.write("fake/a.png", "a.png")
    with zipfile.ZipFile("outer.zip", "w") as archive:
        archive.write("inner.zip")
    helps = {
        "levels.npz": "save each as a file",
        "fake.tar.gz": "unpack it, and name the folder",
        "outer.zip": "unpack the archives that are in it first",
        "fake/a.png": "name the folder that it is in",
    }
    for name, remedy in helps.items():
        assert remedy in refused(f"fake={name}", "metrics=tv"), name


def test_a_home_is_a_home_in_out(made, monkeypatch):
    monkeypatch.setenv("HOME", str(made / "me"))
    assert score.main(["fake=fake", "metrics=tv", "out=~/scores/record.json"]) == 0
    assert (made / "me/scores/record.json").is_file()
    assert not Path("~").exists()


def test_a_row_is_called_by_its_folder(made, monkeypatch):
    for name in ("fake", "step=3.5e4", "v1.0"):
        draw(made / name, "ab")
        assert scored(f"fake={name}", "metrics=tv")["row"]["method"] == name
    monkeypatch.chdir(made / "v1.0")
    assert scored("fake=.", "metrics=tv")["row"]["method"] == "v1.0"


def test_a_size_that_no_memory_holds_is_refused(made):
    assert "at most 9459" in refused("real=real", "metrics=fid", "size=100000")


def test_a_metric_in_capitals_is_answered_with_its_name(made):
    assert "did you mean psnr" in refused("real=real", "metrics=PSNR")


def test_names_of_any_length_are_scored(made):
    """A path is longer than what a key holds; the score is that of short names in the same order."""
    deep = ["x" * 180 + "/" + "y" * 180 + letter for letter in "abcd"]
    draw(made / "deep", deep, seed=1)
    draw(made / "deep_real", deep, seed=2)
    words = ("metrics=kid,fid", "protocol.metrics.kid.subset_size=4", "protocol.metrics.kid.subsets=1")
    short, long = scored("real=real", *words), scored("fake=deep", "real=deep_real", *words)
    for name, found in short["metrics"].items():
        assert long["metrics"][name]["value"] == pytest.approx(found["value"], rel=1e-9)


def test_keys_of_long_names_tell_samples_apart():
    samples = [Sample("a" * 300 + end, caption, draw) for end in "xy" for caption in (0, 1) for draw in (0, 1)]
    samples.append(Sample("a", 0, 0))
    assert len(sample_order(sample_keys(samples), "KID")) == 9
    with pytest.raises(ValueError, match="found 1 again"):
        sample_order(sample_keys([*samples, samples[0]]), "KID")


def test_captions_in_other_letters_are_counted(made):
    texts = {"a": "一只红色的鸟", "b": "красная птица", "c": "a café, 3 birds", "d": "1234"}
    Path("captions.json").write_text(json.dumps(texts))
    notes = scored("captions=captions.json", "metrics=clip_score")["data"]["notes"]
    assert [count for note, count in notes.items() if "other letters than Latin" in note] == [2]


@pytest.mark.parametrize("broken", [{"a": "a \ud800 bird"}, {"\udc00": "a bird"}])
def test_half_a_character_is_no_caption(tmp_path, broken):
    (tmp_path / "captions.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match=r"found .*\\ud[8c]00.* in entry 1: correct the file"):
        read_captions(tmp_path / "captions.json")


@pytest.mark.parametrize(("pixels", "size"), [(24 * 24, 32), (512 * 512, 32), (2048 * 2048, 4), (9000 * 9000, 1)])
def test_large_pictures_are_read_a_few_at_a_time(pixels, size):
    assert scoring.loader(range(100), 0, pixels=pixels).batch_size == size


def test_a_score_depends_on_no_batch_of_large_pictures(made, monkeypatch):
    words = ("real=real", "metrics=psnr,ssim,lpips,fid")
    usual = scored(*words)["metrics"]
    sizes = []
    update = MetricSuite.update
    monkeypatch.setattr(scoring, "BATCH_PIXELS", 24 * 24 * 2)
    monkeypatch.setattr(
        MetricSuite, "update", lambda suite, made, batch: sizes.append(len(made)) or update(suite, made, batch)
    )
    found = scored(*words)["metrics"]
    assert sizes == [2, 2]
    for name, one in usual.items():
        assert found[name]["value"] == pytest.approx(one["value"], rel=1e-10)


def test_large_pictures_go_through_a_network_a_few_at_a_time(home):
    suite = MetricSuite.named("fid", extractor="toy")
    extractor = suite.metrics["fid"].extractor
    seen = []
    network = extractor.network
    network.register_forward_pre_hook(lambda _module, args: seen.append(len(args[0])))
    for side in (1024, 1536):
        extractor(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    assert seen == [PART[False], PART[False] * 2**20 // 1536**2]


def test_a_score_is_not_that_of_the_real_set_before(home):
    def draws(count, seed):
        return torch.randint(
            0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
        )

    suites = [MetricSuite.named("fid", extractor="toy") for _ in range(2)]
    for suite in suites:
        suite.update(draws(4, 0), {})
        suite.update_reference({"image": draws(4, 1)})
    early = suites[0].compute()["fid@toy"].value
    for suite in suites:
        suite.update_reference({"image": draws(4, 2)})
    late = suites[0].compute()["fid@toy"].value
    assert late == suites[1].compute()["fid@toy"].value != early
    kept = suites[1].reference_state("fid")
    suites[1].update_reference({"image": draws(4, 3)})
    assert suites[1].compute()["fid@toy"].value != late
    suites[1].load_reference_state("fid", kept)
    assert suites[1].compute()["fid@toy"].value == late


@pytest.mark.parametrize("names", [(), (["psnr", "ssim"],)])
def test_a_suite_has_metrics_by_name(names):
    with pytest.raises(ValueError, match="give them one by one"):
        MetricSuite.named(*names)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.0000"), (0.00012, "0.0001"), (4.2e-5, "4.2e-05"), (-3e-6, "-3.0e-06"), (2.5, "2.5000")],
)
def test_a_small_score_is_not_shown_as_none(capsys, value, shown):
    metrics = {"kid@toy": {"value": value, "std": None, "count": 9}}
    print_scores(Result("x", {}, 0, {}, metrics, "", "", {}, {}, {}))
    assert capsys.readouterr().out.split() == ["kid@toy", shown, "over", "9"]
