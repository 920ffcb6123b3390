"""Videos of toy birds move as their captions say, lie on disk as batches give them, and are the same each time."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmbench.core.files import sha256_file
from mmbench.core.images import read_rgb, to_uint8
from mmbench.core.outputs import VIDEOS, Video
from mmbench.data.batches import as_floats, collate
from mmbench.data.moving_birds import MovingBirds
from mmbench.data.toy import birds as toy_birds
from mmbench.data.toy import moving_birds as toy
from mmbench.data.views import ShorterSide

COUNT = 16
PLAIN = {
    "source": "toy", "num_frames": 8, "num_images": COUNT, "toy_seed": 3, "split_scheme": "fourths", "image_size": 32,
    "batch_size": 4, "num_workers": 0, "seed": 0,
}  # fmt: skip
WORDS = {
    "left": "left|leftwards", "right": "right|rightwards", "up": "up|upwards", "down": "down|downwards",
    "slowly": "slowly", "quickly": "quickly|fast",
}  # fmt: skip


def module(root, **changes):
    return MovingBirds(**{**PLAIN, "root": root, "assets": root.parent, **changes})


@pytest.fixture(scope="session")
def birds_root(tmp_path_factory) -> Path:
    """16 videos of 8 frames; not to be changed."""
    root = tmp_path_factory.mktemp("moving") / "birds"
    module(root).prepare_data()
    return root


@pytest.fixture
def copied(birds_root, tmp_path):
    """The same, as a folder of files that may be damaged."""
    for path in birds_root.rglob("*"):
        if path.is_file():
            target = tmp_path / "birds" / path.relative_to(birds_root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path / "birds"


def facts_of(root):
    return [json.loads(line) for line in (root / "videos.jsonl").read_text(encoding="utf-8").splitlines()]


def clip_of(root, facts):
    """Frames (F, H, W, 3) as levels and masks (F, H, W), as they lie on disk."""
    frames = VIDEOS.read(root / "videos" / f"{facts['id']}.png").frames.permute(0, 2, 3, 1).numpy().astype(int)
    with Image.open(root / "masks" / f"{facts['id']}.png") as strip:
        masks = np.asarray(strip).reshape(frames.shape[:3]) > 0
    return frames, masks


def hashes(root):
    files = [root / "videos.jsonl", *(root / "videos").iterdir(), *(root / "masks").iterdir()]
    return {str(path.relative_to(root)): sha256_file(path) for path in files}


def test_the_bird_moves_evenly_in_its_direction_at_its_pace(birds_root):
    for facts in facts_of(birds_root):
        frames, masks = clip_of(birds_root, facts)
        centres = np.array([np.argwhere(mask).mean(0)[::-1] for mask in masks])  # (F, 2) right, down
        assert centres[0] == pytest.approx(facts["start"])
        assert centres[-1] == pytest.approx(facts["end"])
        step = np.array(toy.DIRECTIONS[facts["motion"]["direction"]]) * facts["pace"] * toy.SIDE / facts["frame_rate"]
        assert abs(np.diff(centres, axis=0) - step).max() < 0.35, "masks are of whole pixels"
        assert abs(centres[-1] - centres[0] - 7 * step).max() < 0.35
        assert facts["pace"] == pytest.approx(toy.SPEEDS[facts["motion"]["speed"]], rel=0.1)
        assert len(frames) == facts["frames"] == 8


def test_nothing_but_the_bird_changes(birds_root):
    left = []
    for facts in facts_of(birds_root):
        frames, masks = clip_of(birds_root, facts)
        # Reduced from three times the size, outlines besides: two pixels beside the bird may hold a little of it.
        near = np.pad(masks, ((0, 0), (2, 2), (2, 2)))
        near = np.max([np.roll(near, shift, (1, 2)) for shift in np.ndindex(5, 5)], axis=0)[:, 4:, 4:]
        never = ~near.any(0)
        assert never.mean() > 0.4
        assert (frames[:, never] == frames[:1, never]).all()
        gone = masks[0] & ~near[-1]
        left += (abs(frames[0] - frames[-1]).max(-1) > 24)[gone].tolist()
    assert np.mean(left) > 0.8, "where it was, the background is seen"


def test_captions_say_how_it_moves_and_what_is_true(birds_root):
    moved = Counter()
    for facts in facts_of(birds_root):
        assert len(facts["captions"]) == toy.NUM_CAPTIONS
        for text, named in zip(facts["captions"], facts["caption_attributes"], strict=True):
            assert named
            assert named.items() <= facts["attributes"].items()
            said = {word for word, forms in WORDS.items() if re.search(rf"\b({forms})\b", text)}
            assert said == set(facts["motion"].values()), text
            values = {*toy_birds.COLOURS, *toy_birds.BILL_SHAPES, *toy_birds.WING_PATTERNS}
            assert set(re.findall(r"\w+", text)) & values == set(named.values())
        moved[tuple(facts["motion"].values())] += 1
    assert len(moved) == 8
    assert set(moved.values()) == {2}, "of sixteen videos, two move in each direction at each speed"


def test_the_same_seed_gives_the_same_bytes_and_more_videos_change_none(birds_root, tmp_path):
    first = hashes(birds_root)
    module(tmp_path / "again").prepare_data()
    assert hashes(tmp_path / "again") == first
    module(tmp_path / "fewer", num_images=4).prepare_data()
    fewer = hashes(tmp_path / "fewer")
    assert len(fewer) == 2 * 4 + 1
    assert all(first[name] == value for name, value in fewer.items() if name != "videos.jsonl")
    assert facts_of(tmp_path / "fewer") == facts_of(birds_root)[:4]
    module(tmp_path / "other", num_images=4, toy_seed=4).prepare_data()
    other = hashes(tmp_path / "other")
    assert not {fewer[name] for name in fewer} & set(other.values())


def test_more_frames_are_a_longer_flight_of_the_same_bird(birds_root, tmp_path):
    module(tmp_path / "longer", num_images=4, num_frames=16).prepare_data()
    for long, short in zip(facts_of(tmp_path / "longer"), facts_of(birds_root), strict=False):
        frames, masks = clip_of(tmp_path / "longer", long)
        assert len(frames) == 16
        assert all(long[key] == short[key] for key in ("id", "attributes", "motion", "pace", "captions"))
        assert masks.sum((1, 2)).min() > 0.9 * masks.sum((1, 2)).max(), "it never leaves the frame"


def test_batches_have_what_lies_on_disk(birds_root):
    data = module(birds_root, image_size=toy.SIDE)
    assert {"video", "frame_rate", "motion", "caption", "image"} <= data.fields
    samples = data.samples("test")
    batch = collate([data.evaluation("test", samples, 0)[place] for place in range(3)])
    assert (batch["video"].shape, batch["video"].dtype) == ((3, 8, 3, 96, 96), torch.float32)
    assert batch["video"].min() >= -1
    assert batch["video"].max() <= 1
    assert batch["frame_rate"] == [8.0] * 3
    facts = {one["id"]: one for one in facts_of(birds_root)}
    for row, key in enumerate(batch["id"]):
        frames = to_uint8(batch["video"][row]).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(frames, clip_of(birds_root, facts[key])[0])
        assert torch.equal(batch["image"][row], batch["video"][row, 0])
        assert batch["motion"][row] == facts[key]["motion"]
        assert batch["caption"][row] in facts[key]["captions"]
        assert batch["attributes"][row] == facts[key]["attributes"]


def test_training_batches_are_never_mirrored(birds_root):
    data = module(birds_root, image_size=toy.SIDE)
    batch = as_floats(next(iter(data.train_dataloader())))
    facts = {one["id"]: one for one in facts_of(birds_root)}
    for key, video in zip(batch["id"], batch["video"], strict=True):
        assert np.array_equal(to_uint8(video).permute(0, 2, 3, 1).numpy(), clip_of(birds_root, facts[key])[0])
    mirroring = module(birds_root, preprocessing=ShorterSide()).train_dataloader()
    with pytest.raises(ValueError, match="expected videos as they are, found mirrored ones") as error:
        list(mirroring)
    assert "\n" not in str(error.value)


def test_a_quarter_is_for_tests_and_what_was_checked_is_marked(birds_root):
    data = module(birds_root)
    ids = {split: [record.id for record in records] for split, records in data.records.items()}
    assert ids["test"] == ["00003", "00007", "00011", "00015"]
    assert len(ids["train"]) == 12
    assert not set(ids["train"]) & set(ids["test"])
    assert data.checked()["counts"] == {"train": 12, "test": 4}


def test_the_fingerprint_is_of_motions_and_files(copied):
    before = module(copied).fingerprint()
    assert before == module(copied).fingerprint()
    lines = (copied / "videos.jsonl").read_text(encoding="utf-8")
    (copied / "videos.jsonl").write_text(lines.replace('"speed": "slowly"', '"speed": "quickly"', 1), encoding="utf-8")
    assert module(copied).fingerprint() != before


def refusal(call):
    with pytest.raises(ValueError, match="expected") as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_video_of_another_length_is_refused(copied):
    assert "expected videos of 12 frames, found 8 in 00000" in refusal(lambda: module(copied, num_frames=12).records)
    path = copied / "videos" / "00003.png"
    VIDEOS.write(path, Video(VIDEOS.read(path).frames[:5], 8.0))
    assert "00003.png: expected a video of 8 frames, found 5" in refusal(lambda: module(copied).verify(full=True))
    items = module(copied).evaluation("test", module(copied).samples("test"), 0)
    assert "00003.png: expected a video of 8 frames, found 5" in refusal(lambda: items[0])


@pytest.mark.parametrize("kept", [0.9, 0.4, 0.02, 0])
def test_a_truncated_video_is_named(copied, kept):
    path = copied / "videos" / "00003.png"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert str(path) in refusal(lambda: module(copied).verify(full=True))


def test_damaged_tables_and_absent_files_are_named(copied):
    (copied / "videos" / "00002.png").unlink()
    assert "00002.png: expected a video that videos.jsonl lists" in refusal(lambda: module(copied).records)
    path = copied / "videos.jsonl"
    for line in ("[1]", "{", '{"id": "00000"}', "\xff"):
        path.write_bytes(line.encode("latin-1"))
        assert "videos.jsonl: expected what is known of a video" in refusal(lambda: module(copied).records)


def test_what_cannot_be_made_is_refused(tmp_path):
    assert "expected data.source=toy for moving_birds" in refusal(module(tmp_path / "real", source="real").prepare_data)
    assert "expected at least 4 toy videos, found 3" in refusal(module(tmp_path / "few", num_images=3).prepare_data)
    for count in (7, 17):
        found = refusal(module(tmp_path / "long", num_frames=count).prepare_data)
        assert f"expected 8 to 16 frames of a toy video, found {count}" in found
    assert not any((tmp_path / name).exists() for name in ("real", "few", "long"))


def test_tensors_of_two_shapes_make_no_batch():
    items = [{"id": key, "generated": torch.zeros(count, 3, 4, 4)} for key, count in (("a", 8), ("b", 8), ("c", 5))]
    found = refusal(lambda: collate(items))
    assert "expected generated of shape (8, 3, 4, 4) of every item, found (5, 3, 4, 4) of c" in found


def test_the_first_frame_is_the_picture(birds_root):
    path = birds_root / "videos" / "00000.png"
    assert torch.equal(read_rgb(path), VIDEOS.read(path).frames[0])
