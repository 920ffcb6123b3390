"""`mmbench score`: anybody's folder under mmbench's metrics, with everything that is wrong with it said at once."""

import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from mmbench.commands import score
from mmbench.core.files import sha256_file
from mmbench.core.images import read_rgb
from mmbench.core.noise import Sample
from mmbench.core.results import Result
from mmbench.metrics import MetricSuite
from mmbench.pipeline import by_sample
from mmbench.pipeline.inspection import read_captions


@pytest.fixture
def folders(home, tmp_path):
    """13 generated and 13 real images of one size, and captions."""
    rng = np.random.default_rng(0)
    for what in ("fake", "real"):
        for number in range(13):
            path = tmp_path / what / f"set/{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8)).save(path)
    captions = {f"set/{number:02d}": "this bird has a red crown." for number in range(13)}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    return tmp_path


def scored(capsys, folder, *words):
    words = (f"fake={folder / 'fake'}", "extractor=toy", f"out={folder / 'record.json'}", *words)
    assert score.main(list(words)) == 0
    capsys.readouterr()
    return json.loads((folder / "record.json").read_text())


def test_values_are_those_of_the_images(folders, capsys):
    record = scored(capsys, folders, f"real={folders / 'real'}", "metrics=psnr,fid,lpips")
    expected = [
        peak_signal_noise_ratio(
            *(np.asarray(Image.open(folders / what / f"set/{number:02d}.png")) for what in ("real", "fake"))
        )
        for number in range(13)
    ]
    assert record["metrics"]["psnr"]["value"] == pytest.approx(np.mean(expected), rel=1e-9)
    assert {name: found["count"] for name, found in record["metrics"].items()} == {
        "psnr": 13,
        "fid@toy": 13,
        "lpips@toy": 13,
    }
    assert record["coverage"]["count"] == 13
    assert record["coverage"]["processes"] == [13]
    again = scored(capsys, folders, f"real={folders / 'real'}", "metrics=psnr,fid,lpips")
    assert again["metrics"] == record["metrics"]
    assert again["run_key"] == record["run_key"]


def test_a_set_has_no_distance_from_itself(folders, capsys):
    record = scored(capsys, folders, f"real={folders / 'fake'}", "metrics=fid,ssim,lpips")
    values = {name: found["value"] for name, found in record["metrics"].items()}
    assert values["fid@toy"] == pytest.approx(0, abs=1e-9)
    assert values["ssim"] == 1
    assert values["lpips@toy"] == 0


def test_a_zip_archive_is_a_folder(folders, capsys):
    with zipfile.ZipFile(folders / "fake.zip", "w") as archive:
        for path in (folders / "fake").rglob("*.png"):
            archive.write(path, path.relative_to(folders / "fake"))
    plain = scored(capsys, folders, "metrics=tv")
    assert score.main([f"fake={folders / 'fake.zip'}", "metrics=tv", f"out={folders / 'zip.json'}"]) == 0
    zipped = json.loads((folders / "zip.json").read_text())
    assert zipped["metrics"] == plain["metrics"]
    assert zipped["data"]["fake"] == plain["data"]["fake"]


def test_a_protocol_scores_what_it_can_and_says_what_it_lacks(folders, capsys):
    words = [f"fake={folders / 'fake'}", "protocol=manigan", "extractor=toy", f"out={folders / 'r.json'}"]
    assert score.main([*words, f"captions={folders / 'captions.json'}"]) == 0
    printed = capsys.readouterr().out
    assert "sim@toy" in printed
    assert "not scored (needs input= or real=)" in printed
    record = json.loads((folders / "r.json").read_text())
    assert record["protocol"]["name"] == "manigan"
    assert "needs" not in record["data"]["not scored"]
    assert record["data"]["not scored"]["diff"] == "input= or real="


def test_everything_that_is_wrong_is_said_at_once(folders, capsys):
    fake = folders / "fake/set"
    (fake / "00.png").write_text("no image")
    (fake / "01.png").write_bytes((fake / "01.png").read_bytes()[:3000])
    Image.open(fake / "02.png").convert("L").save(fake / "02.png")
    Image.open(fake / "03.png").resize((20, 20)).save(fake / "03.png")
    (folders / "real/set/04.png").unlink()
    words = [f"fake={folders / 'fake'}", f"real={folders / 'real'}", "metrics=psnr", f"out={folders / 'r.json'}"]
    with pytest.raises(ValueError, match="found 5 that cannot") as error:
        score.main(words)
    said = str(error.value)
    assert "\n" not in said
    for problem in (
        "set/00: 00.png is no image",
        "cannot be decoded",
        "set/02: mode L where most are RGB",
        "set/03: 20 x 20 pixels where most are 48 x 48",
        "set/04: no real image",
        "skip_bad=5",
    ):
        assert problem in said
    assert not (folders / "r.json").exists(), "no record of a score that is none"
    with pytest.raises(ValueError, match="found 5"):
        score.main([*words, "skip_bad=4"])
    assert score.main([*words, "skip_bad=5"]) == 0
    record = json.loads((folders / "r.json").read_text())
    assert record["metrics"]["psnr"]["count"] == record["coverage"]["count"] == 8
    assert sorted(record["data"]["skipped"]) == [f"set/0{number}" for number in range(5)]


def test_an_input_without_an_output_is_an_output_that_is_missing(folders):
    (folders / "fake/set/12.png").unlink()
    with pytest.raises(ValueError, match="set/12: no generated image"):
        score.main([f"fake={folders / 'fake'}", f"input={folders / 'real'}", "metrics=diff"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["metrics=tv"], "expected fake=DIR"),
        (["fake=nowhere", "metrics=tv"], "expected a folder or a zip archive for fake=, found nowhere"),
        (["fake={fake}"], "expected metrics=A,B or protocol=NAME"),
        (["fake={fake}", "metrics=psmr"], "did you mean psnr"),
        (["fake={fake}", "metrics=psnr"], "expected input= or real= for the metric psnr"),
        (["fake={fake}", "metrics=fid"], "expected real= or data= for the metric fid"),
        (["fake={fake}", "metrics=clip_score"], "expected captions= for the metric clip_score"),
        (["fake={fake}", "metrics=edit_accuracy"], "which only mmbench's own data have"),
        (["fake={fake}", "real={fake}", "data=cub", "metrics=fid"], "expected real=DIR or data=NAME, found both"),
        (["fake={fake}", "captions={fake}/none.json", "metrics=tv"], "found no file"),
        (["fake={fake}", "metrics=is", "extractor.inception.file={fake}/no.pth"], "expected the weights of inception"),
        (["fake={fake}", "metrics=tv", "extractor.inception.file={fake}/no.pth"], "found one for inception"),
        (["fake={fake}", "real={fake}", "metrics=fid", "extractor=tyo"], "did you mean toy"),
        (["fake={fake}", "metrics=tv", "extractor.inception.flie=x"], "did you mean extractor.inception.file"),
        (["fake={fake}", "metrics="], "expected metrics=A,B or protocol=NAME"),
        (["fake={fake}", "metrics=tv", "size="], "expected size=N, a whole number of 1 or more, found ''"),
        (["fake={fake}", "metrics=tv", "size=64,32"], "a whole number of 1 or more, found '64,32'"),
        (["fake={fake}", "metrics=tv", "skip_bad=-1"], "expected skip_bad=N, a whole number of 0 or more"),
    ],
)
def test_what_is_missing_is_said_in_one_line(folders, words, message):
    with pytest.raises(ValueError, match=message) as error:
        score.main([word.format(fake=folders / "fake") for word in words])
    assert "\n" not in str(error.value)


def test_weights_may_be_given_by_path(folders, capsys):
    from mmbench.core import config

    shipped = config.shipped("conf").parent / "mmbench" / config.node("network/inception/toy")["card"]["file"]
    copy = folders / "mine.safetensors"
    copy.write_bytes(shipped.read_bytes())
    record = scored(capsys, folders, "metrics=is", f"extractor.inception.file={copy}")
    assert record["metrics"]["is@toy"]["weights"] == sha256_file(copy)


def test_other_sizes_are_resized_where_that_is_asked_for(folders, capsys):
    for path in (folders / "real").rglob("*.png"):
        Image.open(path).resize((96, 72)).save(path)
    with pytest.raises(ValueError, match="real image of 96 x 72 pixels"):
        score.main([f"fake={folders / 'fake'}", f"real={folders / 'real'}", "metrics=psnr"])
    record = scored(capsys, folders, f"real={folders / 'real'}", "metrics=psnr,fid", "size=48")
    assert record["config"]["size"] == 48
    assert record["metrics"]["fid@toy"]["count"] == 13


def test_one_line_of_python(folders):
    suite = MetricSuite.named("psnr", "tv", "is", extractor="toy")
    images = torch.stack([read_rgb(path) for path in sorted((folders / "fake").rglob("*.png"))])
    samples = [Sample(str(number), 0, 0) for number in range(len(images))]
    suite.update(images, {"image": images, "sample": samples})
    scores = suite.compute()
    assert set(scores) == {"psnr", "tv", "is@toy"}
    assert scores["tv"].count == 13


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_captions_in_a_table(folders, suffix):
    path = folders / f"captions{suffix}"
    comma = "," if suffix == ".csv" else "\t"
    path.write_text(f'set/00.png{comma}"a bird, red"\nset/01{comma}blue\n')
    assert read_captions(path) == {"set/00": "a bird, red", "set/01": "blue"}
    path.write_text("set/00\n")
    with pytest.raises(ValueError, match="expected"):
        read_captions(path)


def test_the_values_by_sample_lie_beside_the_record(folders, capsys):
    record = Result(**scored(capsys, folders, f"real={folders / 'real'}", "metrics=psnr,l1"))
    values = by_sample.read(record, folders)
    for name, found in values.items():
        assert len(found) == 13
        assert np.mean(list(found.values())) == pytest.approx(record.metrics[name]["value"], rel=1e-12)
    assert set(values) == {"psnr", "l1"}
