"""Checkpoints of a training that are whole or absent, and one line where one does not fit."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from mmbench.core.files import written_atomically
from mmbench.core.method import Method
from mmbench.core.weights import is_plain, require_sums

# What Lightning needs in order to go on.
NEEDED = ("state_dict", "optimizer_states", "epoch", "global_step", "loops", "pytorch-lightning_version")
HANDED_BACK = ".temp.ckpt"  # the weights alone, by which Lightning's launcher gets them from processes that it spawned


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, and moves it there when it is whole.

    Lightning's own way writes it into the system's temporary folder first, which may be small, and copies it where that
    is another disk, so that a run that is killed meanwhile leaves a part and loses the checkpoint that was there.

    Args:
        method: what is trained.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """As Lightning's.

        Raises:
            CannotWrite: the folder cannot be written, or the disk is full; the checkpoint before is still there.
        """
        content = io.BytesIO()  # PyTorch's own writer says of a full disk no more than that it failed
        torch.save(checkpoint, content)
        with written_atomically(path) as partial:
            partial.write_bytes(content.getbuffer())

    def load_checkpoint(
        self, path: Any, map_location: Callable | None = lambda storage, _: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """As Lightning's.

        Raises:
            ValueError: the file is damaged, is no checkpoint of a training, or one of a method that was built
                otherwise; names it.
        """
        if Path(path).name == HANDED_BACK:
            return super().load_checkpoint(path, map_location, weights_only)
        remedy = f"move {Path(path).name} elsewhere to train from the beginning"
        wanted = f"{path}: expected a checkpoint of {type(self.method).__name__} to go on with"
        try:
            require_sums(path)
            found = super().load_checkpoint(path, map_location, weights_only)
        except Exception:  # torch.load raises whatever a damaged file provokes
            raise ValueError(f"{wanted}, found a damaged file or one of another kind: {remedy}") from None
        if not isinstance(found, dict) or (absent := [key for key in NEEDED if key not in found]):
            lacks = f"a file without {absent[0]}" if isinstance(found, dict) else f"a {type(found).__name__}"
            raise ValueError(f"{wanted}, found {lacks}: {remedy}")
        states = found["state_dict"]
        if not isinstance(states, dict) or not all(map(is_plain, states.items())):
            raise ValueError(f"{wanted}, found one whose state_dict holds more than tensors: {remedy}")
        ours = {key: one.shape for key, one in self.method.state_dict().items()}
        theirs = {key: one.shape for key, one in states.items()}
        different = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
        if different:
            raise ValueError(
                f"{wanted}, found one of other parameters ({len(different)} differ, {different[0]} first), as another "
                f"version of mmbench has them: {remedy}, or go on with the version that wrote it"
            )
        return found
