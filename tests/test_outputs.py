"""Images, videos and texts: written without loss, read as they were, and refused where they are wrong."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmbench.core.noise import Sample
from mmbench.core.outputs import IMAGES, TEXTS, VIDEOS, Video
from mmbench.core.protocol import Protocol
from mmbench.core.task import BATCH_FIELDS, Task
from mmbench.metrics import Metric, MetricSuite
from mmbench.metrics.psnr import PSNR

PROTOCOL = Protocol("p", "t", {})


def frames(count=6, side=9, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), np.uint8))


@pytest.mark.parametrize("rate", [4.0, 8.0, 12.0, 24.0, 25.0, 29.97])
@pytest.mark.parametrize("equal", [[], [(1, 0)], [(1, 0), (2, 0), (3, 0)], [(5, 4)], [(n, 0) for n in range(1, 6)]])
def test_a_video_comes_back_as_it_was_with_its_equal_frames_and_its_rate(tmp_path, rate, equal):
    video = frames()
    for place, same in equal:
        video[place] = video[same]
    VIDEOS.write(tmp_path / "v.png", Video(video, rate))
    found = VIDEOS.read(tmp_path / "v.png")
    assert torch.equal(found.frames, video)
    assert found.rate == rate
    assert VIDEOS.size(found) == [6, 9, 9]
    assert VIDEOS.cell(found).shape == (9, 4 * 9, 3)


def test_a_video_of_one_frame_comes_back(tmp_path):
    VIDEOS.write(tmp_path / "v.png", Video(frames(1), 8.0))
    assert torch.equal(VIDEOS.read(tmp_path / "v.png").frames, frames(1))


def test_a_picture_is_no_video_and_a_damaged_one_is_named(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "still.png")
    with pytest.raises(ValueError, match=r"still\.png: expected a video that says its frames and frame rate"):
        VIDEOS.read(tmp_path / "still.png")
    VIDEOS.write(tmp_path / "v.png", Video(frames(), 8.0))
    whole = (tmp_path / "v.png").read_bytes()
    (tmp_path / "v.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"v\.png: expected"):
        VIDEOS.read(tmp_path / "v.png")


def test_videos_are_rounded_by_the_protocol():
    made = torch.linspace(-1.2, 1.2, 2 * 3 * 3 * 4 * 4).reshape(2, 3, 3, 4, 4)
    first, second = VIDEOS.finished(made, {"frame_rate": [8, 4.0]}, PROTOCOL)
    assert (first.rate, second.rate) == (8.0, 4.0)
    assert first.frames.dtype == torch.uint8
    assert torch.equal(second.frames, ((made[1] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))


@pytest.mark.parametrize("text", ["a red car.", "zwei\nZeilen\r\n", "красная птица  ", "\ufeffx", "a\u2028b"])
def test_a_text_comes_back_to_the_byte(tmp_path, text):
    TEXTS.write(tmp_path / "t.txt", text)
    assert TEXTS.read(tmp_path / "t.txt") == text
    assert TEXTS.cell(text) == text


def test_a_text_that_is_none_is_named(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"t\.txt: expected a text in UTF-8, found UnicodeDecodeError"):
        TEXTS.read(tmp_path / "t.txt")


@pytest.mark.parametrize(
    ("output", "made", "message"),
    [
        (IMAGES, torch.zeros(2, 3, 4), r"expected images \(N, 3, H, W\) of 2 samples, found \(2, 3, 4\)"),
        (IMAGES, torch.zeros(1, 3, 4, 4), "of 2 samples, found"),
        (IMAGES, ["a", "b"], "of 2 samples, found list"),
        (IMAGES, torch.full((2, 3, 4, 4), torch.nan), "expected finite pixel values, found NaN or infinity in a, b"),
        (VIDEOS, torch.zeros(2, 3, 4, 4), r"expected videos \(N, F, 3, H, W\) of 2 samples, found \(2, 3, 4, 4\)"),
        (TEXTS, ["one"], "expected a list of 2 texts, one for each sample, found 1 of them"),
        (TEXTS, torch.zeros(2), "expected a list of 2 texts, one for each sample, found Tensor"),
        (TEXTS, ["one", " "], "expected texts with a word at least, found none for b"),
    ],
)
def test_what_a_method_must_not_return_is_one_line(output, made, message):
    with pytest.raises(ValueError, match=message) as caught:
        output.check(made, ["a", "b"])
    assert "\n" not in str(caught.value)


class Length(Metric):
    of = "texts"
    higher_is_better = True


def test_a_metric_of_another_output_is_refused_in_one_line():
    suite = MetricSuite({"psnr": PSNR(against="image"), "length": Length()})
    with pytest.raises(ValueError, match="expected metrics of texts, found psnr, which judges images: leave it out"):
        suite.require("texts")
    MetricSuite({"length": Length()}).require("texts")


def test_beside_what_is_made_of_a_text_stands_no_input():
    assert Task("text to image", ("caption",), "caption", "image").example == "real"
    assert Task("editing", ("image", "caption"), "caption", "image").example == "input"


def test_another_task_is_one_entry_and_its_output_follows():
    assert Task("video captioning", ("video",), None, "caption").output is TEXTS
    assert Task("frame interpolation", ("image",), None, "video").output is VIDEOS
    with pytest.raises(AssertionError, match="no kind of output for class_id"):
        Task("classification", ("image",), None, "class_id")
    assert {"captions", "frame_rate"} <= BATCH_FIELDS.keys()
    assert Sample("a", 0, 0).name == "a.c0.k0"
