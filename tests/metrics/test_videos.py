"""Videos: image metrics by frame, consistency of frames, and whether they move as their captions say."""

import numpy as np
import pytest
import torch

from mmbench.core.composition import node
from mmbench.core.construction import construct
from mmbench.core.images import from_uint8, to_uint8
from mmbench.core.noise import Sample
from mmbench.data.batches import collate
from mmbench.data.moving_birds import MovingBirds
from mmbench.data.toy import moving_birds as toy
from mmbench.metrics import MetricSuite
from mmbench.metrics.by_frame import FrameLPIPS, FramePSNR, FrameSSIM
from mmbench.metrics.frame_consistency import FrameConsistency
from mmbench.metrics.lpips import LPIPS
from mmbench.metrics.motion_accuracy import MotionAccuracy, velocity
from mmbench.metrics.psnr import PSNR
from mmbench.metrics.ssim import SSIM

NUM_FRAMES = 5


@pytest.fixture
def films(pixels):
    """Random videos by seed: (N, 5, 3, 16, 16) uint8."""
    return lambda count, seed=0: pixels(count * NUM_FRAMES, seed).unflatten(0, (count, NUM_FRAMES))


def batch_of_films(films):
    ids = [f"{row:05d}" for row in range(len(films))]
    return {"id": ids, "sample": [Sample(key, 0, 0) for key in ids], "video": from_uint8(films)}


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """48 videos of 8 frames at 64 pixels: uint8 (N, 8, 3, 64, 64) and their batch."""
    root = tmp_path_factory.mktemp("moving") / "birds"
    data = MovingBirds(
        source="toy", num_frames=8, num_images=48, toy_seed=1, split_scheme="fourths", image_size=64, batch_size=4,
        num_workers=0, seed=0, root=root, assets=root.parent,
    )  # fmt: skip
    data.prepare_data()
    items = [
        item
        for split in ("train", "test")
        for item in data.evaluation(split, data.samples(split), 0, {"video", "motion", "frame_rate"})
    ]
    batch = collate(items)
    return to_uint8(batch["video"]), batch


@pytest.fixture
def accuracy():
    return construct(node("metric/motion_accuracy"))


def scored(metric, videos, batch):
    metric.update(videos, batch)
    return metric.compute().value


def test_by_frame_is_the_mean_of_the_frames(make_extractor, films):
    made, real = films(3), films(3, 1)
    extractor = make_extractor()
    pairs = [
        (FramePSNR(), PSNR(against="image")),
        (FrameSSIM(), SSIM(against="image")),
        (FrameLPIPS(extractor), LPIPS(extractor, against="image")),
    ]
    for of_videos, of_images in pairs:
        of_images.update(made.flatten(0, 1), {"image": from_uint8(real).flatten(0, 1)})
        by_frame = torch.cat(of_images.values).unflatten(0, (3, NUM_FRAMES))
        of_videos.update(made, batch_of_films(real))
        assert torch.cat(of_videos.values) == pytest.approx(by_frame.mean(dim=1), rel=1e-12)
        assert of_videos.compute().count == 3, "videos are counted, and not frames"
        assert of_videos.higher_is_better is of_images.higher_is_better
        assert (of_videos.of, of_videos.unit) == ("videos", of_images.unit)


def test_an_unchanged_video_is_as_near_as_can_be(make_extractor, films):
    made = films(2)
    assert scored(FramePSNR(), made, batch_of_films(made)) == pytest.approx(10 * np.log10(255**2 * 12))
    assert scored(FrameSSIM(), made, batch_of_films(made)) == 1
    assert scored(FrameLPIPS(make_extractor()), made, batch_of_films(made)) == 0


def test_scores_do_not_depend_on_the_batch(make_extractor, films, rows_of):
    made, batch = films(4), batch_of_films(films(4, 1))
    batch |= {"motion": [{"direction": "up", "speed": "slowly"}] * 4, "frame_rate": [8.0] * 4}
    extractor = make_extractor()

    def suite():
        return MetricSuite(
            {
                "psnr": FramePSNR(),
                "ssim": FrameSSIM(),
                "lpips": FrameLPIPS(extractor),
                "consistency": FrameConsistency(extractor),
                "motion": construct(node("metric/motion_accuracy")),
            }
        )

    whole, parts = suite(), suite()
    whole.update(made, batch)
    for rows in (torch.tensor([3]), torch.tensor([0, 2]), torch.tensor([1])):
        parts.update(made[rows], rows_of(batch, rows))
    assert parts.compute() == whole.compute()
    assert parts.by_sample() == whole.by_sample()
    assert len(whole.by_sample()["psnr"]) == 4
    whole.reset()
    whole.update(made, batch)
    assert whole.compute() == parts.compute()


def test_another_number_of_frames_is_refused_in_one_line(make_extractor, films):
    for metric in (FramePSNR(), FrameSSIM(), FrameLPIPS(make_extractor())):
        with pytest.raises(ValueError, match=r"expected generated videos of 5 frames, .*, found 3: ") as error:
            metric.update(films(2)[:, :3], batch_of_films(films(2, 1)))
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="expected videos of at least 2 frames for frame consistency, found 1"):
        FrameConsistency(make_extractor()).update(films(2)[:, :1], {})


def test_consistency_is_the_cosine_of_consecutive_frames(make_extractor, films):
    made = films(3)
    rows = made.flatten(2)[..., :3].double().numpy()  # what the extractor gives
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    expected = (rows[:, 1:] * rows[:, :-1]).sum(-1).mean()
    metric = FrameConsistency(make_extractor())
    assert scored(metric, made, {}) == pytest.approx(expected)
    assert metric.compute().count == 3
    still = made[:, :1].expand_as(made)
    assert scored(FrameConsistency(make_extractor()), still, {}) == pytest.approx(1)


def test_real_videos_move_as_their_captions_say(moving, accuracy):
    videos, batch = moving
    assert scored(accuracy, videos, batch) >= 0.97
    assert accuracy.compute().count == 48


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda videos: videos[:, :1].expand_as(videos), id="first frame copied"),
        pytest.param(lambda videos: videos.flip(1), id="reversed"),
        pytest.param(lambda videos: videos[:, ::2], id="at double speed"),
        pytest.param(lambda videos: videos.repeat_interleave(2, dim=1)[:, :8], id="at half speed"),
        pytest.param(lambda videos: videos[:, [0, 7, 7, 7, 7, 7, 7, 7]], id="a jump"),
        pytest.param(lambda videos: videos[:, [0, 2, 4, 6, 6, 4, 2, 0]], id="there and back"),
        pytest.param(lambda videos: videos.transpose(3, 4), id="turned"),
        pytest.param(lambda videos: torch.full_like(videos, 127), id="grey"),
    ],
)
def test_videos_that_move_otherwise_are_wrong(moving, accuracy, change):
    videos, batch = moving
    assert scored(accuracy, change(videos), batch) == 0


def test_noise_does_not_hide_a_motion_and_is_none(moving, accuracy):
    videos, batch = moving
    noise = torch.randn(videos.shape, generator=torch.Generator().manual_seed(0)) * 5
    noisy = (videos + noise).round().clamp(0, 255).byte()
    assert scored(accuracy, noisy, batch) >= 0.9
    accuracy.reset()
    trembling = (videos[:, :1] + noise).round().clamp(0, 255).byte()
    assert scored(accuracy, trembling, batch) == 0


@pytest.mark.parametrize("way", [(2, 0), (-1, 0), (0, 2), (0, -2), (2, -1)])
def test_velocity_is_that_of_a_patch_before_a_ramp(way):
    frames = (torch.arange(40).float().expand(3, 30, 40) * 2).repeat(6, 1, 1, 1)
    patch = torch.randint(100, 256, (3, 6, 6), generator=torch.Generator().manual_seed(0)).float()
    for number in range(6):
        top, left = 12 + number * way[1], 16 + number * way[0]
        frames[number, :, top : top + 6, left : left + 6] = patch
    assert velocity(frames.byte()).tolist() == pytest.approx(way, abs=0.02)


def test_words_are_those_of_the_toy_videos_and_others_are_refused(moving, accuracy):
    described = node("metric/motion_accuracy")
    assert {word: tuple(way) for word, way in described["directions"].items()} == toy.DIRECTIONS
    assert described["speeds"] == toy.SPEEDS
    videos, _ = moving
    for motion, named in (
        ({"direction": "in", "speed": "slowly"}, "direction"),
        ({"direction": "up", "speed": ""}, "speed"),
    ):
        with pytest.raises(ValueError, match=f"expected a {named} of ") as error:
            accuracy.update(videos[:1], {"motion": [motion], "frame_rate": [8.0]})
        assert "\n" not in str(error.value)
    assert isinstance(accuracy, MotionAccuracy)
