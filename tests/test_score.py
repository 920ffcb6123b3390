"""`mmbench score`: anybody's files under mmbench's metrics, with everything that is wrong with them said at once."""

import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from mmbench.commands import score
from mmbench.core import catalogue, composition, hashing
from mmbench.core.files import sha256_file
from mmbench.core.images import read_rgb
from mmbench.core.noise import Sample
from mmbench.core.outputs import VIDEOS, Video
from mmbench.core.results import Result
from mmbench.core.task import TASKS
from mmbench.metrics import MetricSuite
from mmbench.metrics.base import SampleMean
from mmbench.pipeline import by_sample
from mmbench.pipeline.captions import read_captions, read_references


class Found(SampleMean):
    """Share of texts that are one of their references."""

    of = "texts"
    needs = ("captions",)
    higher_is_better = True

    def update(self, texts, batch):
        pairs = zip(texts, batch["captions"], strict=True)
        self.record(torch.tensor([text in references for text, references in pairs]).double())


class Seen(SampleMean):
    """Share of texts whose image is as bright as they say."""

    of = "texts"
    needs = ("image",)
    higher_is_better = True

    def update(self, texts, batch):
        means = batch["image"].mean(dim=(1, 2, 3)).tolist()
        self.record(torch.tensor([(text == "bright") == (mean > 0) for text, mean in zip(texts, means)]).double())


class FrameDifference(SampleMean):
    """Mean difference from the real video, in levels."""

    of = "videos"
    needs = ("video",)
    higher_is_better = False

    def update(self, videos, batch):
        assert videos.dtype == torch.uint8
        real = (batch["video"].double() + 1) * 127.5
        self.record((videos.double() - real).abs().mean(dim=(1, 2, 3, 4)))


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


def test_a_score_says_over_how_many_images_it_is(folders, capsys):
    hole = np.zeros((48, 48), np.uint8)
    hole[8:30, 8:30] = 255
    (folders / "mask/set").mkdir(parents=True)
    for number in range(13):
        empty_or_full = np.full((48, 48), 255 * (number < 2), np.uint8)  # two are all hole, three have none
        Image.fromarray(empty_or_full if number < 5 else hole).save(folders / f"mask/set/{number:02d}.png")
    words = [f"{what}={folders / folder}" for what, folder in (("fake", "fake"), ("input", "real"), ("mask", "mask"))]
    words += ["metrics=psnr,psnr_in_mask,ssim_outside_mask", f"out={folders / 'record.json'}", "trainer=cpu"]
    assert score.main(words) == 0
    printed = {line.split()[0]: line.partition(") ")[2] for line in capsys.readouterr().out.splitlines()}
    assert printed["psnr"] == "over 13"
    assert printed["psnr_in_mask"] == "over 10 of 13"
    assert printed["ssim_outside_mask"] == "over 11 of 13"
    record = Result(**json.loads((folders / "record.json").read_text()))
    assert {name: found["count"] for name, found in record.metrics.items()} == {
        "psnr": 13,
        "psnr_in_mask": 10,
        "ssim_outside_mask": 11,
    }
    assert record.coverage["count"] == 13
    assert len(by_sample.read(record, folders)["psnr_in_mask"]) == 10


def test_where_no_image_has_a_hole_it_is_one_line(folders):
    (folders / "mask/set").mkdir(parents=True)
    for number in range(13):
        Image.new("L", (48, 48)).save(folders / f"mask/set/{number:02d}.png")
    words = [f"{what}={folders / folder}" for what, folder in (("fake", "fake"), ("input", "real"), ("mask", "mask"))]
    expected = "expected at least one image with a hole in its mask for PSNRInMask, found 0 of 13: turn the masks round"
    with pytest.raises(ValueError, match=f"^{expected}"):
        score.main([*words, "metrics=psnr_in_mask", f"out={folders / 'record.json'}", "trainer=cpu"])
    assert not (folders / "record.json").exists()


def test_a_set_has_no_distance_from_itself(folders, capsys):
    record = scored(capsys, folders, f"real={folders / 'fake'}", "metrics=fid,ssim,lpips")
    values = {name: found["value"] for name, found in record["metrics"].items()}
    assert values["fid@toy"] == pytest.approx(0, abs=1e-9)
    assert values["ssim"] == 1
    assert values["lpips@toy"] == 0


def test_a_zip_archive_is_a_folder(folders, capsys):
    with zipfile.ZipFile(folders / "fake.zip", "w") as archive:
        for path in (folders / "fake").rglob("*.png"):
            archive.write(path, path.relative_to(folders))
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
        "00.png: expected a whole image, found what is no image",
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
        (
            ["fake={fake}", "input={fake}", "metrics=psnr_outside_mask"],
            "expected mask= for the metric psnr_outside_mask",
        ),
        (
            ["fake={fake}", "metrics=l1_outside_parts"],
            "and parts, which only mmbench's own data have and prompt_attrib",
        ),
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
    shipped = catalogue.shipped("conf").parent / "mmbench" / composition.node("network/inception/toy")["card"]["file"]
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


def test_the_facts_of_images_are_the_metrics_and_the_size(folders, capsys):
    record = scored(capsys, folders, f"real={folders / 'real'}", "metrics=psnr")
    psnr = {"_target_": "mmbench.metrics.psnr.PSNR", "against": "image"}
    assert record["config"] == {"metrics": {"psnr": psnr}, "extractors": {}, "size": None}
    assert record["config_hash"] == hashing.config_hash(record["config"])
    assert sorted(record["data"]) == ["captions", "fake", "not scored", "notes", "real", "reference", "size", "skipped"]


@pytest.fixture
def others(conf, tmp_path):
    """Metrics of texts and of videos, and a protocol of captioning."""
    for metric in (Found, Seen, FrameDifference):
        described = f"# {metric.__doc__}\n_target_: {metric.__module__}.{metric.__name__}\n"
        (conf.folder / f"metric/{metric.__name__.lower()}.yaml").write_text(described)
    protocol = "# Captions\ndefaults: [/metric@metrics.found: found, /metric@metrics.seen: seen, _self_]\n"
    (conf.folder / "protocol/told.yaml").write_text(protocol + "name: told\ntask: captioning\n")
    composition.forget()
    return tmp_path


@pytest.fixture
def texts(others):
    """Three texts, two of which are among their references."""
    made = {"set/a": "a red bird.", "set/b": "zwei Vögel", "c": "nothing"}
    for name, text in made.items():
        path = others / f"fake/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (others / "made.json").write_text(json.dumps(made))
    references = {"set/a": ["a bird.", "a red bird."], "set/b": "zwei Vögel", "c.jpg": ["a car"], "more": ["a bus"]}
    (others / "references.json").write_text(json.dumps(references))
    return others


def test_texts_are_scored_against_all_their_references(texts, capsys):
    record = scored(capsys, texts, f"captions={texts / 'references.json'}", "metrics=found")
    assert record["metrics"]["found"]["value"] == pytest.approx(2 / 3)
    assert record["coverage"]["count"] == 3
    values = by_sample.read(Result(**record), texts)
    assert {sample.id: value for sample, value in values["found"].items()} == {"set/a": 1, "set/b": 1, "c": 0}


@pytest.mark.parametrize("form", ["zip", "json", "csv", "tsv"])
def test_texts_in_one_file_are_those_of_a_folder(texts, capsys, form):
    words = [f"captions={texts / 'references.json'}", "metrics=found"]
    folder = scored(capsys, texts, *words)
    path = texts / f"made.{form}"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in (texts / "fake").rglob("*.txt"):
                archive.write(file, file.relative_to(texts / "fake"))
    elif form != "json":
        comma = "," if form == "csv" else "\t"
        rows = json.loads((texts / "made.json").read_text()).items()
        path.write_text("".join(f"{name}.txt{comma}{text}\n" for name, text in rows), encoding="utf-8")
    assert score.main([f"fake={path}", *words, f"out={texts / 'other.json'}"]) == 0
    other = json.loads((texts / "other.json").read_text())
    assert other["metrics"] == folder["metrics"]
    assert other["data"] == folder["data"]
    assert other["run_key"] == folder["run_key"]


def test_a_protocol_says_by_its_task_what_is_scored(texts, capsys):
    record = scored(capsys, texts, f"captions={texts / 'references.json'}", "protocol=told")
    assert set(record["metrics"]) == {"found"}
    assert record["data"]["not scored"] == {"seen": "input="}
    assert {task.output.name for task in TASKS.values()} == {"images", "videos", "texts"}


def test_what_texts_are_written_about_may_be_of_many_sizes_if_it_is_resized(texts, capsys):
    for name, side, level in (("set/a", 8, 200), ("set/b", 8, 200), ("c", 12, 20)):
        path = texts / f"input/{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((side, side, 3), level, np.uint8)).save(path)
    (texts / "fake/set/a.txt").write_text("bright")
    words = [f"input={texts / 'input'}", "metrics=seen"]
    with pytest.raises(ValueError, match=r"c: input image of 12 x 12 pixels where most are 8 x 8 \(size=N resizes\)"):
        scored(capsys, texts, *words)
    assert scored(capsys, texts, *words, "size=8")["metrics"]["seen"]["value"] == pytest.approx(2 / 3)
    (texts / "fake/c.txt").unlink()
    with pytest.raises(ValueError, match=r"found 1 that cannot \(c: no generated text"):
        scored(capsys, texts, *words, "size=8")


def test_everything_that_is_wrong_with_texts_is_said_at_once(texts, capsys):
    (texts / "fake/set/a.txt").write_text(" \n")
    (texts / "fake/set/b.txt").write_bytes(b"V\xf6gel")
    (texts / "fake/d.txt").write_text("a car")
    words = [f"captions={texts / 'references.json'}", "metrics=found"]
    with pytest.raises(ValueError, match="expected texts that can be scored, found 3 that cannot") as error:
        scored(capsys, texts, *words)
    assert "\n" not in str(error.value)
    for problem in ("set/a: an empty text", "set/b: b.txt is no text in UTF-8", "d: no caption"):
        assert problem in str(error.value)
    record = scored(capsys, texts, *words, "skip_bad=3")
    assert record["metrics"]["found"]["count"] == 1
    (texts / "made.json").write_text(json.dumps({"set/a": "", "c": "a car"}))
    with pytest.raises(ValueError, match=r"found 1 that cannot \(set/a: an empty text"):
        score.main([f"fake={texts / 'made.json'}", *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["metrics=found"], "expected captions= for the metric found"),
        (["metrics=seen"], "expected input= for the metric seen, found none"),
        (["metrics=framedifference"], "expected videos in fake=.*fake, found none of .png"),
        (["metrics=tv"], "expected images in fake=.*fake, found none of .apng"),
        (["metrics=tv,found"], "one output, found tv, which judges images, and found, which judges texts: score them"),
        (
            ["metrics=found", "real={fake}"],
            "expected what texts are compared with by captions=, found real=: give that",
        ),
        (["metrics=found", "captions={made}", "fake={none}"], r"archive, or a table \(.csv, .json, .tsv\) for fake="),
        (
            ["metrics=found", "captions={lists}"],
            r"expected \{name: text or list of texts\} in .json.*found \('a', \[\]\)",
        ),
        (["metrics=found", "fake={lists}"], r"expected \{name: text\} in .json.*found \('a', \[\]\)"),
        (["metrics=tv", "fake={lists}"], "expected a folder or a zip archive for fake=, found .*lists.json"),
        (["protocol=told", "captions={made}", "protocol.task=captoining"], "did you mean captioning"),
    ],
)
def test_what_is_missing_for_texts_is_said_in_one_line(texts, words, message):
    (texts / "lists.json").write_text(json.dumps({"a": []}))
    paths = {what: texts / what for what in ("fake", "none")}
    paths |= {what: texts / f"{what}.json" for what in ("made", "lists")}
    words = [word.format(**paths) for word in words]
    if not any(word.startswith("fake=") for word in words):
        words.append(f"fake={texts / 'fake'}")
    with pytest.raises(ValueError, match=message) as error:
        score.main(words)
    assert "\n" not in str(error.value)


def test_a_protocol_with_a_metric_of_another_output_is_refused(conf, texts):
    conf.change("protocol/told", {"task": "text-to-video synthesis"})
    _videos(texts / "made")
    with pytest.raises(ValueError, match="expected metrics of videos, found seen, which judges texts"):
        score.main([f"fake={texts / 'made'}", f"input={texts / 'made'}", "protocol=told"])


def test_references_may_be_a_text_or_several(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"a.png": "one", "b": ["one", "two"]}))
    assert read_references(path) == {"a": ["one"], "b": ["one", "two"]}
    with pytest.raises(ValueError, match=r"expected \{name: text\} in .json"):
        read_captions(path)
    path.write_text(json.dumps({"a": ["one", " "]}))
    with pytest.raises(ValueError, match=r"found \('a'"):
        read_references(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match="found UnicodeDecodeError"):
        read_references(path)


def _videos(folder, count=5, frames=4, size=12, rate=8.0, seed=0):
    rng = np.random.default_rng(seed)
    for number in range(count):
        made = torch.from_numpy(rng.integers(0, 256, (frames, 3, size, size), np.uint8))
        VIDEOS.write(folder / f"{number}.png", Video(made, rate))


@pytest.fixture
def videos(others):
    """Five videos and five real ones."""
    _videos(others / "fake")
    _videos(others / "real", seed=1)
    return others


def test_videos_are_compared_frame_by_frame(videos, capsys):
    record = scored(capsys, videos, f"real={videos / 'real'}", "metrics=framedifference")
    pairs = [[VIDEOS.read(videos / f"{what}/{n}.png").frames.double() for what in ("fake", "real")] for n in range(5)]
    expected = np.mean([float((made - real).abs().mean()) for made, real in pairs])
    assert record["metrics"]["framedifference"]["value"] == pytest.approx(expected, rel=1e-6)
    same = scored(capsys, videos, f"real={videos / 'fake'}", "metrics=framedifference")
    assert same["metrics"]["framedifference"]["value"] == pytest.approx(0, abs=1e-4)


def test_everything_that_is_wrong_with_videos_is_said_at_once(videos, capsys):
    fake = videos / "fake"
    VIDEOS.write(fake / "0.png", Video(torch.zeros(3, 3, 12, 12, dtype=torch.uint8), 8.0))
    VIDEOS.write(fake / "1.png", VIDEOS.read(fake / "1.png")._replace(rate=4.0))
    (fake / "2.png").write_bytes((fake / "2.png").read_bytes()[:-400])
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(fake / "3.png")
    (videos / "real/4.png").unlink()
    _videos(fake / "more")
    _videos(videos / "real/more", count=4)
    VIDEOS.write(videos / "real/more/4.png", Video(torch.zeros(4, 3, 9, 9, dtype=torch.uint8), 8.0))
    words = [f"real={videos / 'real'}", "metrics=framedifference"]
    with pytest.raises(ValueError, match="expected videos that can be scored, found 6 that cannot") as error:
        scored(capsys, videos, *words)
    assert "\n" not in str(error.value)
    for problem in (
        "0: 3 frames where most are 4",
        "1: 4.0 frames a second where most are 8.0",
        "2.png: expected",
        "3: 3.png is no video that says its frames and frame rate",
        "4: no real video",
        "more/4: real video of 9 x 9 pixels where generated ones are 12 x 12 (size=N resizes)",
    ):
        assert problem in str(error.value)
    assert scored(capsys, videos, *words, "skip_bad=5", "size=12")["metrics"]["framedifference"]["count"] == 5
