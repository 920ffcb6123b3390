"""Random numbers that belong to a sample, not to a batch, a worker or a process."""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor


class Sample(NamedTuple):
    """Identity of one generated image.

    Attributes:
        id: key of the input image (or of the image whose caption is the prompt) within its data set.
        caption: index of the prompt among the captions of the image it was written for.
        draw: k-th image generated for this input and prompt, from 0.
    """

    id: str
    caption: int
    draw: int

    @property
    def name(self) -> str:
        """The sample as a relative file name without extension; a `/` in the id makes a folder."""
        return f"{self.id}.c{self.caption}.k{self.draw}"


def random_stream(*key: str | int) -> np.random.Generator:
    """A random stream of its own for every key, e.g. `random_stream(seed, epoch, image_id, "crop")`.

    Philox, keyed by SHA-256 of the key's parts and their types: independent of call order, process and platform.
    """
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(*key)[:16], "big")))


def _digest(*key: str | int) -> bytes:
    return hashlib.sha256(repr(key).encode()).digest()


class Noise:
    """The random numbers of a batch of samples: row n depends on the seed and on sample n alone.

    Handed to `Method.generate`. Moves between devices like a tensor; numbers are drawn on the CPU, so that every device
    sees the same ones.
    """

    def __init__(self, seed: int, samples: Sequence[Sample], device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.samples = list(samples)
        self.device = torch.device(device)

    def streams(self, name: str) -> list[np.random.Generator]:
        """A random stream for each sample, for draws that are no tensor."""
        return [random_stream(self.seed, *sample, name) for sample in self.samples]

    def normal(self, name: str, *shape: int) -> Tensor:
        """Standard normal numbers named `name` (one name per use in a method): (N, *shape) float32."""
        rows = [stream.standard_normal(shape, np.float32) for stream in self.streams(name)]
        return torch.from_numpy(np.stack(rows)).to(self.device)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) named `name`: (N, *shape) float32."""
        rows = [stream.random(shape, np.float32) for stream in self.streams(name)]
        return torch.from_numpy(np.stack(rows)).to(self.device)

    def to(self, device: torch.device | str, *args: object, **kwargs: object) -> Self:
        """The same noise on another device (Lightning calls this when it moves a batch)."""
        return type(self)(self.seed, self.samples, device)


class TrainingNoise(Noise):
    """The random numbers of a training batch, where the draw is the epoch: drawn on the device that uses them.

    They belong to a sample, too, so that processes which share a batch draw what one alone would. Another kind of
    device draws others. (For 16 samples of 3 x 256 x 256 it took a third of the time on one core of a processor, and
    on an accelerator there is no copy.)
    """

    def normal(self, name: str, *shape: int) -> Tensor:
        """Standard normal numbers named `name`: (N, *shape) float32."""
        return self._drawn(torch.randn, name, shape)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) named `name`: (N, *shape) float32."""
        return self._drawn(torch.rand, name, shape)

    def _drawn(self, draw: Callable[..., Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
        generator = torch.Generator(self.device)
        rows = []
        for sample in self.samples:
            generator.manual_seed(int.from_bytes(_digest(self.seed, *sample, name)[:8], "big"))
            rows.append(draw(shape, generator=generator, device=self.device))
        return torch.stack(rows)
