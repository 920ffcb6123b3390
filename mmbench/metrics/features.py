"""Extractors: the learned networks that metrics look through, each run once per batch for all of them."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.cards import Card, find
from mmbench.core.files import sha256_file, sha256_json
from mmbench.core.frozen import Frozen
from mmbench.core.images import to_uint8

Cards = Mapping[str, Mapping[str, Any]]

PART = {False: 8, True: 64}  # images that go through a network at once: on a processor, on CUDA
PART_PIXELS = 2**20  # of each of them; of larger ones fewer go together


@runtime_checkable
class Cutting(Protocol):
    """A network that reads no more than the beginning of a long text.

    Attributes:
        limit: how much that is, in words: "CLIP's 77 tokens".
    """

    limit: str

    def is_cut(self, texts: Sequence[str]) -> Tensor:
        """Which of N texts are longer: (N,) bool."""


class Given(dict[str, Tensor]):
    """What a network gives, by name; asked for what it does not give, it raises ValueError."""

    def __init__(self, features: Mapping[str, Tensor], network: nn.Module) -> None:
        super().__init__(features)
        self.giver = type(network).__name__

    def __missing__(self, name: str) -> Tensor:
        raise ValueError(
            f"expected a network that gives {name}, found {self.giver}, which gives {', '.join(self)}: choose another "
            "extractor"
        )


class Extractor(Frozen):
    """A frozen network from images (or texts) to named features.

    Images go through it a few at a time, always as many, the last ones filled up: features do not depend on the batch
    that an image came in, nor on how it lies in memory, to the last bit, and a processor's caches are not overrun.
    Networks of texts do so themselves, since a part is of texts of one length; on a processor they run in one thread.

    Remembers its last calls, so that metrics of one batch that look at the same images share one pass. What it has seen
    is recognised by the tensor itself (not by its values) or by the words of the texts.

    Args:
        name: "standard" or "toy"; a score is shown as `metric@name`.
        network: takes images (N, 3, H, W) uint8, or a list of N texts where it reads texts, and returns a dict of
            (N, ...) float32 tensors; its `load(path)` fills it from the file of the card, or of several cards from
            a dict of their files.
        card: where its weights come from, or the names of its parts to what the card of each says.
        assets: the folder that holds `weights/`.

    Attributes:
        weights_sha256: of the file of weights, or of the hashes of several.
        settings_sha256: of what the network was built with, sizes and crops of pictures among it; empty where it was
            not built from a configuration. With the weights it is what features depend on.

    Raises:
        MissingAsset: the file of weights is not there and could not be fetched.
        ValueError: the file is another one.
    """

    def __init__(self, name: str, network: nn.Module, card: Card | Cards, assets: str | Path) -> None:
        found = _found(card, assets)
        network.load(found)  # type: ignore[operator]
        super().__init__(network)
        self.name = name
        self.weights_sha256 = _hash(found)
        self.settings_sha256 = ""
        # Of one batch: generated images, real images, texts, and one to spare.
        self._seen: deque[tuple[Any, int, dict[str, Tensor]]] = deque(maxlen=4)

    @torch.no_grad()
    def forward(self, source: Tensor | list[str]) -> dict[str, Tensor]:
        """Features of a batch.

        Args:
            source: (N, 3, H, W) uint8 images, or float ones in [-1, 1], which are rounded first; or N texts.

        Returns:
            The network's features, as the network's docstring says.

        Raises:
            ValueError: it reads no texts.
        """
        version = _version(source)
        for seen, seen_version, features in self._seen:
            same = seen is source if isinstance(source, Tensor) else seen == tuple(source)
            if same and version == seen_version:
                return features
        if isinstance(source, Tensor):
            images = source if source.dtype == torch.uint8 else to_uint8(source)
            features = Given(self._in_parts(images), self.network)
            self._seen.append((source, version, features))
        else:
            features = Given(self._of_texts(source), self.network)
            self._seen.append((tuple(source), version, features))
        return features

    def _of_texts(self, texts: list[str]) -> dict[str, Tensor]:
        with one_thread():
            try:
                return self.network(texts)
            except (AttributeError, TypeError) as error:  # what a tensor has and a list has not
                name = type(self.network).__name__
                raise ValueError(f"expected a network that reads texts, found {name}: choose clip, say") from error

    def _in_parts(self, images: Tensor) -> dict[str, Tensor]:
        most = PART[images.device.type == "cuda"]
        size = max(1, min(most, most * PART_PIXELS // (images.shape[-2] * images.shape[-1])))
        parts = []
        for part in images.contiguous().split(size):  # sums take another order where channels lie together in memory
            filled = F.pad(part, (0, 0) * (part.dim() - 1) + (0, size - len(part)))  # the first axis
            parts.append({name: values[: len(part)] for name, values in self.network(filled).items()})
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def require_features(self, metric: str) -> int:
        """D of the `features` (N, D) that it gives of whole images, for metrics of distributions.

        Raises:
            ValueError: its network gives none.
        """
        found = getattr(self.network, "num_features", None)
        if found is None:
            raise ValueError(
                f"expected a network that gives features of whole images for {metric}, found "
                f"{type(self.network).__name__}: choose another extractor, inception, clip or dinov2 say"
            )
        return found

    def forget(self) -> None:
        """Lets go of the batches it remembers, and of their memory."""
        self._seen.clear()


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, products are the same to the bit whatever the number of threads, which processes share.

    Those of so few rows as texts have, and of sums over many rows, are divided by threads, with other sums.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _found(card: Card | Cards, assets: str | Path) -> Path | dict[str, Path]:
    if isinstance(card, Card):
        return find(card, assets)
    return {part: find(Card(**one), assets) for part, one in card.items()}


def _hash(found: Path | dict[str, Path]) -> str:
    """Of the file, or of the hashes of several by the names of their parts."""
    if isinstance(found, Path):
        return sha256_file(found)
    return sha256_json({part: sha256_file(path) for part, path in found.items()})


def _version(source: Tensor | list[str]) -> int:
    """Changes when a tensor is written to in place. Tensors of inference mode have no such counter."""
    return source._version if isinstance(source, Tensor) and not source.is_inference() else 0
