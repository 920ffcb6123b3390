"""The base of methods that optimise something for an input before they generate, as inversion does."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from mmbench.core.files import sha256_bytes, written_atomically
from mmbench.core.method import Batch, Method
from mmbench.core.noise import Noise, Sample
from mmbench.core.progress import track

State = dict[str, Tensor]


class Tuned(Method):
    """A method that optimises something for each input once, and generates all that is wanted of it from that.

    What was tuned is kept in a file of its own the moment it is there, so that a run that was stopped goes on at the
    next input, and all draws of an input, in whatever batch or process, share one.

    Attributes:
        largest_batch: inputs that are tuned together at most; None: all of a batch. With 1 a result is the same to the
            last bit, whatever was beside it.
        kept: folder of what was tuned, named by everything that it depends on; None: it is not kept.
    """

    needs_gradients = True
    largest_batch: ClassVar[int | None] = None
    kept: Path | None = None

    def tuned_by(self, sample: Sample) -> str:
        """What is tuned for a sample is tuned once for all samples of this name: by default the input's id."""
        return sample.id

    def tune(self, inputs: Batch, noise: Noise) -> list[State]:
        """Optimises what each input needs. Losses are summed over rows, so that a row does not depend on the others.

        Args:
            inputs: the fields that `task.inputs` names, of M inputs.
            noise: the only source of randomness; row m belongs to input m, and is the same for all its draws.

        Returns:
            M times name to tensor, without gradients.
        """
        raise NotImplementedError

    def draw(self, batch: Batch, tuned: list[State], noise: Noise) -> Any:
        """What `generate` returns, from what was tuned for each of the batch's N samples."""
        raise NotImplementedError

    def generate(self, batch: Batch, noise: Noise) -> Any:
        rows: dict[str, int] = {}
        names = [self.tuned_by(sample) for sample in noise.samples]
        for row, name in enumerate(names):
            rows.setdefault(name, row)
        found = {name: state for name in rows if (state := self._read(name)) is not None}
        wanted = [name for name in sorted(rows) if name not in found]
        group: list[str] = []
        if wanted:
            for name in track(wanted, "tuning"):
                group.append(name)
                if len(group) == self.largest_batch or name == wanted[-1]:
                    found |= self._tuned({one: rows[one] for one in group}, batch, noise)
                    group = []
        return self.draw(batch, [found[name] for name in names], noise)

    def _tuned(self, rows: dict[str, int], batch: Batch, noise: Noise) -> dict[str, State]:
        """Tunes and keeps inputs, those that another process has not tuned in the meantime."""
        with ExitStack() as locks:
            if self.kept:
                self.kept.mkdir(parents=True, exist_ok=True)
                for name in rows:  # sorted, so that two processes never wait for each other
                    lock = self._path(name).with_suffix(".lock")
                    locks.enter_context(FileLock(lock))
                    locks.callback(lock.unlink, missing_ok=True)  # who waits for it finds the input tuned
            found = {name: state for name in rows if (state := self._read(name)) is not None}
            if left := {name: row for name, row in rows.items() if name not in found}:
                of_inputs = Noise(noise.seed, [Sample(name, 0, 0) for name in left], noise.device)
                tuned = self.tune(rows_of(batch, list(left.values())), of_inputs)
                for name, state in zip(left, tuned, strict=True):
                    self._write(name, state)
                    found[name] = state
        return found

    def _path(self, name: str) -> Path:
        assert self.kept
        return self.kept / f"{sha256_bytes(name.encode())[:16]}.safetensors"

    def _write(self, name: str, state: State) -> None:
        if self.kept:
            state = {key: tensor.detach().contiguous().cpu() for key, tensor in state.items()}
            with written_atomically(self._path(name)) as partial:
                save_file(state, partial, metadata={"sha256": _digest(name, state)})

    def _read(self, name: str) -> State | None:
        """What was kept of an input.

        Raises:
            ValueError: the file is damaged.
        """
        if not self.kept or not (path := self._path(name)).is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no mapping)
                facts = file.metadata() or {}
        except Exception:  # safetensors raises its own class, which is no subclass of a public one
            state, facts = {}, {}
        if facts.get("sha256") != _digest(name, state):
            raise ValueError(
                f"{path}: expected what was tuned for {name}, found a damaged file: remove it, and it is tuned again"
            )
        return {key: tensor.to(self.device) for key, tensor in state.items()}


def _digest(name: str, state: State) -> str:
    return sha256_bytes(name.encode() + save(state))


def rows_of(batch: Batch, rows: Sequence[int]) -> Batch:
    """Rows of the fields of a batch, without its noise."""
    return {
        field: column[list(rows)] if isinstance(column, Tensor) else [column[row] for row in rows]
        for field, column in batch.items()
        if not isinstance(column, Noise)
    }
