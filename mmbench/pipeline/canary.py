"""The drift canary: does this machine still decode, resize and judge as it did when these weights were first used?

Eight toy pictures of ours (`metrics/canary`: PNG and JPEG, grey, with a palette, with transparency, of odd sizes) are
decoded, resized and shown to each extractor before a run's own images are. What comes out is kept the first time below
`assets/canary`, for each version of our own decoding; whatever differs later is named, with what else has changed
since, before it costs a day.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

import mmbench
from mmbench.core import results
from mmbench.core.files import sha256_bytes, written_atomically
from mmbench.core.images import VERSION, read_rgb
from mmbench.metrics.features import Extractor
from mmbench.metrics.suite import MetricSuite
from mmbench.pipeline import scoring

FOLDER = Path(mmbench.__file__).parent / "metrics" / "canary"
SIDE = 128  # pixels, of what extractors are shown
TOLERANCE = 1e-4  # of features, relative to the largest; pixels must be equal
CAPTIONS = ["this bird has a red crown and a white belly", "a yellow flower", "A man, smiling.", "two cars & a house"]

_checked: dict[tuple[Path, str], str | None] = {}  # what was found in this process, by file and device


def check(suite: MetricSuite, assets: Path) -> dict[str, Any]:
    """Looks through every extractor of a suite, once per process; prints a line of warning for each thing that drifted.

    Returns:
        {"pictures": SHA-256 of the resized pixels, "changed": the warnings}, for the record of a run.

    Raises:
        ValueError: a file of what was kept is damaged; names it.
    """
    folder = assets / "canary" / str(VERSION)  # not the libraries': what these change is to be seen
    pictures = {path.name: read_rgb(path) for path in sorted(FOLDER.iterdir())}
    pixels = torch.stack([_resized(picture) for picture in pictures.values()])  # (8, 3, SIDE, SIDE)
    learned = [metric for metric in suite.metrics.values() if metric.extractor is not None]
    readers = {id(metric.extractor) for metric in learned if "prompt" in metric.needs}
    found = [
        _once(folder / "decoded.safetensors", "decoding of images", 0, lambda: pictures),
        _once(folder / "resized.safetensors", "resizing of images", 0, lambda: {"pixels": pixels}),
    ]
    for key, judge in {id(metric.extractor): metric.extractor for metric in learned}.items():
        network = type(judge.network).__name__
        found.append(
            _once(
                folder / f"{judge.weights_sha256[:32]}{judge.settings_sha256[:16]}-{network}.safetensors",
                f"features of {network}",
                TOLERANCE,
                lambda judge=judge, reads=key in readers: _features(judge, pixels.to(suite.device), reads),
            )
        )
    return {"pictures": sha256_bytes(pixels.numpy().tobytes()), "changed": [problem for problem in found if problem]}


def _once(path: Path, what: str, tolerance: float, now: Callable[[], Mapping[str, Tensor]]) -> str | None:
    key = path.resolve(), results.device()
    if key not in _checked:
        _checked[key] = _compare(path, now(), what, tolerance)
        if _checked[key]:
            print(f"mmbench: warning: {_checked[key]}", file=sys.stderr)
    return _checked[key]


def conditions() -> dict[str, str]:
    """What features may depend on beside the weights: libraries, device, and switches of precision."""
    switches = {
        "TF32 of matrix products": torch.backends.cuda.matmul.allow_tf32,
        "TF32 of convolutions": torch.backends.cudnn.allow_tf32,
        "float32 precision": torch.get_float32_matmul_precision(),
        "autocast": torch.is_autocast_enabled("cuda") or torch.is_autocast_enabled("cpu"),
    }
    return {**results.versions(), "device": results.device()} | {name: str(value) for name, value in switches.items()}


def _resized(picture: Tensor) -> Tensor:
    levels = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(levels).copy()).permute(2, 0, 1)


def _features(judge: Extractor, pixels: Tensor, reads: bool) -> dict[str, Tensor]:
    with scoring.full_precision():
        found = {f"image.{name}": value for name, value in judge(pixels).items()}
        found |= {f"text.{name}": value for name, value in (judge(CAPTIONS) if reads else {}).items()}
    judge.forget()
    return found


def _compare(path: Path, now: Mapping[str, Tensor], what: str, tolerance: float) -> str | None:
    """What to say of the difference from what is kept at `path`; keeps it where there is nothing yet."""
    with scoring.full_precision():
        facts = conditions()
    now = {name: value.cpu().contiguous() for name, value in now.items()}
    if not path.is_file():
        with written_atomically(path) as partial:
            partial.write_bytes(save(now, {"conditions": json.dumps(facts)}))
        return None
    try:
        with safe_open(path, "pt") as file:
            before = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
            known = json.loads((file.metadata() or {})["conditions"])
    except Exception:  # safetensors raises its own class, which is no subclass of a public one
        raise ValueError(f"{path}: expected what the canary kept, found a damaged file: remove it") from None
    worst = max((_difference(before[name], now[name]) for name in now.keys() & before.keys()), default=0.0)
    if worst <= tolerance:
        return None
    since = [f"{name} {known.get(name)} -> {value}" for name, value in facts.items() if known.get(name) != value]
    return (
        f"the {what} changed by {worst:.1e} (relative) since its first use here; "
        f"{', '.join(since) or 'no library, device or switch that is known did'}: scores may not compare with older "
        f"ones; remove {path} to take this for granted"
    )


def _difference(before: Tensor, now: Tensor) -> float:
    """Largest difference relative to the largest value; infinite where shapes differ."""
    if before.shape != now.shape:
        return float("inf")
    return float((now.double() - before.double()).abs().max() / before.double().abs().max().clamp(min=1e-12))
