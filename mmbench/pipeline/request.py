"""What `mmbench score` is asked for. Nothing here reads a file or imports a network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    """A request to score, as the command line says it; its words are checked, its files are not.

    Attributes:
        folders: `fake`, and where they are given `real`, `input` and `mask`, to a folder or a zip archive; `fake`
            may be a table of texts.
        metrics: names of metrics, all of which are wanted; empty where a protocol's are asked for.
        protocol: of whose metrics those are wanted that the folders allow; None where `metrics` are named.
        extractor: `standard` or `toy`.
        judges: extractor to a file of weights that stands for that on its card.
        settings: metric to settings that are not those of its file, each with its value.
        told: metric to these settings as the name of its score has them.
        captions: file of the prompts; of texts, file of what they are compared with.
        data: the data set whose test images are the real set.
        size: shorter side, in pixels, that real, input and mask are resized to; None: they have that of `fake`.
        skip_bad: number of those that may be left out because they cannot be scored.
        workers: number of processes that read files.
        out: file of the record; None: below the folder of results.
        plain: settled configuration of data, protocol, hardware and paths.
    """

    folders: dict[str, str]
    metrics: tuple[str, ...]
    protocol: str | None
    extractor: str
    judges: dict[str, str]
    settings: dict[str, dict[str, Any]]
    told: dict[str, str]
    captions: Path | None
    data: str | None
    size: int | None
    skip_bad: int
    workers: int
    out: str | None
    plain: dict[str, Any]

    @property
    def has_reference(self) -> bool:
        """Whether there is a real set, for FID and its kin."""
        return self.data is not None or "real" in self.folders
