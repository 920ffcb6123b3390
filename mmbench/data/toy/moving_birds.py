"""Toy videos: a toy bird that flies over a still background, in a direction and at a speed that captions name.

The bird is drawn as in `toy.birds`, smaller, and moves evenly, by fractions of a pixel; nothing else changes from frame
to frame, grain included.
"""

import json
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from mmbench.core.noise import random_stream
from mmbench.core.outputs import VIDEOS, Video
from mmbench.core.progress import track
from mmbench.data.toy.birds import Bird, describe, drawn, room, sample_bird
from mmbench.data.toy.drawing import choice
from mmbench.data.toy.scenery import background

VERSION = 1  # of what `write` writes; raise it when the same arguments give other videos or captions
SIDE = 96  # of frames, in pixels
FRAME_RATE = 8.0  # frames a second
FRAMES = (8, 16)  # fewest and most
NUM_CAPTIONS = 5
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # (right, down)
SPEEDS = {"slowly": 0.1, "quickly": 0.3}  # sides of the frame a second; birds differ by up to a tenth of that
HELD_OUT = 4  # every fourth video is for tests

_DIRECTION_WORDS = {
    "left": ("to the left", "leftwards"),
    "right": ("to the right", "rightwards"),
    "up": ("up", "upwards"),
    "down": ("down", "downwards"),
}
_SPEED_WORDS = {"slowly": ("slowly",), "quickly": ("quickly", "fast")}
_VERBS = (("flying", "and it flies"), ("moving", "and it moves"))


@dataclass(frozen=True)
class Motion:
    """How a bird moves.

    Attributes:
        direction, speed: keys of `DIRECTIONS` and `SPEEDS`, which captions name.
        pace: sides of the frame a second.
    """

    direction: str
    speed: str
    pace: float

    def after(self, num_frames: int) -> np.ndarray:
        """Way from the first frame to each, (F, 2) right and down, in sides of the frame."""
        steps = np.arange(num_frames)[:, None] / FRAME_RATE
        return steps * self.pace * np.array(DIRECTIONS[self.direction])


class Clip(NamedTuple):
    """A video and where the bird is in it.

    Attributes:
        frames: (F, H, W, 3) uint8.
        masks: (F, H, W) bool, where the bird is.
    """

    frames: np.ndarray
    masks: np.ndarray

    def centre(self, frame: int) -> tuple[float, float]:
        """The middle of the bird's pixels in a frame, (right, down) in pixels; the first pixel's middle is (0, 0)."""
        rows, columns = np.nonzero(self.masks[frame])
        return float(columns.mean()), float(rows.mean())


def motion_of(seed: int, number: int) -> Motion:
    """The motion of a video: of eight that follow one another, each has a direction and speed of its own."""
    pairs = list(product(DIRECTIONS, SPEEDS))
    block, place = divmod(number, len(pairs))
    direction, speed = pairs[random_stream(seed, block, "motions").permutation(len(pairs))[place]]
    return Motion(direction, speed, SPEEDS[speed] * float(random_stream(seed, number, "pace").uniform(0.9, 1.1)))


def sample_flyer(rng: np.random.Generator, motion: Motion) -> Bird:
    """A random bird that flies, small enough to have room; it looks where it flies, if that is left or right."""
    bird = sample_bird(rng)
    faces_left = bird.faces_left if motion.direction in ("up", "down") else motion.direction == "left"
    return replace(bird, pose="flying", size=float(rng.uniform(0.26, 0.34)), faces_left=faces_left)


def film(bird: Bird, motion: Motion, num_frames: int, key: tuple[str | int, ...]) -> Clip:
    """Draws a video, which begins where the motion leaves room; `bird.position` says where in that room.

    Args:
        key: of the random streams of background and grain.
    """
    way = motion.after(num_frames) * SIDE  # (F, 2)
    free = room(bird, SIDE, SIDE)
    least, most = -way.min(0), free - way.max(0)  # of where it may begin
    assert (least <= most).all()
    places = (least + (most - least) * bird.position + way) / free
    scene = background(SIDE, SIDE, random_stream(*key, "background"))
    # An equal stream for each frame, so that the grain stays.
    pictures = [
        drawn(replace(bird, position=(x, y)), scene.copy(), random_stream(*key, "grain")) for x, y in places.tolist()
    ]
    return Clip(np.stack([one.image for one in pictures]), np.stack([one.parts > 0 for one in pictures]))


def caption(bird: Bird, motion: Motion, rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """A caption that names some attributes of the bird, its direction and its speed; and these attributes."""
    text, named = describe(bird, rng)
    participle, clause = choice(rng, _VERBS)
    where = choice(rng, _DIRECTION_WORDS[motion.direction])
    how = choice(rng, _SPEED_WORDS[motion.speed])
    # "a bird with a red crown" wants no second clause, "this bird has a red crown" and the like do.
    joint = participle if text.startswith(("a bird with", "this is")) else clause
    return f"{text.removesuffix('.')}, {joint} {how} {where}.", named


def write(root: Path, seed: int, num_videos: int, num_frames: int) -> None:
    """Writes toy videos: `videos/<id>.png` (animated), `masks/<id>.png`, and `videos.jsonl`, a line for each.

    Masks are 255 where the bird is, those of all frames below one another. Video number k depends on (seed, k) alone:
    more videos change none, and neither do more frames what is seen and said, only where it begins.

    Raises:
        ValueError: too few videos for a training and a test split, or fewer or more frames than `FRAMES`.
    """
    if num_videos < HELD_OUT:
        raise ValueError(f"expected at least {HELD_OUT} toy videos, found {num_videos}: ask for more")
    if not FRAMES[0] <= num_frames <= FRAMES[1]:
        raise ValueError(f"expected {FRAMES[0]} to {FRAMES[1]} frames of a toy video, found {num_frames}: change it")
    for folder in ("videos", "masks"):
        (root / folder).mkdir(parents=True)
    lines = [
        json.dumps(_written(root, (seed, number), f"{number:05d}", num_frames), sort_keys=True) + "\n"
        for number in track(range(num_videos), "drawing toy videos")
    ]
    (root / "videos.jsonl").write_bytes("".join(lines).encode())


def _written(root: Path, key: tuple[int, int], name: str, num_frames: int) -> dict[str, Any]:
    """Draws and writes one video, and says what is true of it."""
    motion = motion_of(*key)
    bird = sample_flyer(random_stream(*key, "bird"), motion)
    wording = random_stream(*key, "captions")
    captions = [caption(bird, motion, wording) for _ in range(NUM_CAPTIONS)]
    clip = film(bird, motion, num_frames, key)
    frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
    VIDEOS.write(root / "videos" / f"{name}.png", Video(frames, FRAME_RATE))
    Image.fromarray(np.concatenate(clip.masks).astype(np.uint8) * 255).save(root / "masks" / f"{name}.png")
    return {
        "id": name,
        "split": "test" if key[1] % HELD_OUT == HELD_OUT - 1 else "train",
        "frames": num_frames,
        "frame_rate": FRAME_RATE,
        "class": bird.bird_class,
        "attributes": bird.attributes,
        "motion": {"direction": motion.direction, "speed": motion.speed},
        "pace": motion.pace,
        "start": clip.centre(0),
        "end": clip.centre(-1),
        "captions": [text for text, _ in captions],
        "caption_attributes": [named for _, named in captions],
    }
