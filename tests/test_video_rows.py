"""The two rows that bound tables of videos, from the command line's words to the record."""

import pytest
import torch

from mmbench.core import config
from mmbench.core.images import to_uint8
from mmbench.core.outputs import VIDEOS, Video
from mmbench.pipeline import evaluation

WORDS = ["data=moving_birds", "data.toy_images=16", "protocol=strict_video", "weights=none", "trainer=cpu"]


def evaluated(method):
    return evaluation.evaluate(config.composed([f"method={method}", *WORDS]))


def test_a_copied_frame_and_the_real_video_bound_the_table(home):
    (copied, run), (real, _) = evaluated("frame_copy"), evaluated("real_video")
    copy, truth = ({name: score["value"] for name, score in record.metrics.items()} for record in (copied, real))
    assert copy.keys() == truth.keys()
    assert {name.partition("@")[0] for name in copy} == {
        "frame_psnr", "frame_ssim", "frame_lpips", "frame_consistency", "motion_accuracy",
    }  # fmt: skip
    assert (copy["motion_accuracy"], truth["motion_accuracy"]) == (0, 1)
    assert copy["frame_psnr"] < 40 < truth["frame_psnr"] == pytest.approx(58.92, abs=0.01)
    assert copy["frame_ssim"] < truth["frame_ssim"] == 1
    assert copy["frame_lpips@toy"] > truth["frame_lpips@toy"] == 0
    assert copy["frame_consistency@toy"] == pytest.approx(1)
    assert copy["frame_consistency@toy"] > truth["frame_consistency@toy"]
    assert copied.size == [8, 64, 64]
    assert all(score["count"] == 4 for score in copied.metrics.values())
    items = run.items(run.samples, {"video"})
    for place, sample in enumerate(run.samples):
        made = VIDEOS.read(run.file(sample))
        assert made.rate == 8
        assert torch.equal(made.frames, to_uint8(items[place]["video"][:1]).expand(8, -1, -1, -1))


@pytest.mark.parametrize("damage", ["frames", "bytes"])
def test_a_sample_that_was_damaged_is_named_in_one_line(home, damage):
    _, run = evaluated("real_video")
    path = run.file(run.samples[2])
    if damage == "frames":
        VIDEOS.write(path, Video(VIDEOS.read(path).frames[:5], 8.0))
    else:
        path.write_bytes(path.read_bytes()[:-900])
    for record in (home / "results").rglob("*.json"):
        record.unlink()
    with pytest.raises(ValueError, match="expected") as error:
        evaluated("real_video")
    assert "\n" not in str(error.value)
    assert run.samples[2].id in str(error.value)
