"""Shows images to a metric suite: each sample exactly once, on any number of processes, and the real set once.

What `mmbench evaluate` and `mmbench score` share.
"""

import json
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmbench.core.application import within_memory
from mmbench.core.files import locked, sha256_json, written_atomically
from mmbench.core.images import decoder
from mmbench.core.noise import Sample
from mmbench.core.progress import track
from mmbench.core.weights import encoded, read_safetensors
from mmbench.data.batches import collate
from mmbench.metrics.batch import RangeWarning
from mmbench.metrics.features import Cutting
from mmbench.metrics.suite import MetricSuite

BATCH = 32  # images that are read together; a multiple of what goes through a network at once
BATCH_PIXELS = BATCH * 2**19  # of them all: metrics hold some 100 bytes of each, and values depend on no batch size
REMEDY = "score on the processor (trainer=cpu)"


def loader(dataset: Dataset, num_workers: int, make_batch: Any = collate, pixels: int = 1) -> DataLoader:
    """Batches of a data set in its order: of pictures of so many `pixels` as many as memory holds."""
    size = max(1, min(BATCH, BATCH_PIXELS // pixels))
    return DataLoader(dataset=dataset, batch_size=size, num_workers=num_workers, collate_fn=make_batch)


def place() -> tuple[int, int]:
    """This process's number among those of the run, and how many they are."""
    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def place_suite(suite: MetricSuite, accelerator: str) -> None:
    """Moves metrics to where a trainer's `accelerator` says: `cpu`, or an NVIDIA card, by `auto` where there is one.

    Raises:
        ValueError: there is no card, and one is asked for.
    """
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ValueError(f"expected a GPU for trainer.accelerator={accelerator}, found none: use trainer=cpu")
    if accelerator != "cpu" and torch.cuda.is_available():
        suite.cuda()


def share(samples: Sequence[Sample]) -> list[Sample]:
    """This process's part of the samples, in their order; all draws of a prompt stay together."""
    rank, ranks = place()
    prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys((one.id, one.caption) for one in samples))}
    return [one for one in samples if prompts[one.id, one.caption] % ranks == rank]


def show(suite: MetricSuite, batches: Iterable[dict[str, Any]], what: str) -> list[Sample]:
    """Shows batches with what was `generated`, as `Output.judged`, to the suite; the samples that it was shown.

    Networks run in full float32 precision, whatever the training was allowed.
    """
    shown: list[Sample] = []
    with full_precision(), within_memory(BATCH, REMEDY), range_known():
        for batch in track(batches, what):
            made = batch.pop("generated")
            suite.update(made.to(suite.device) if isinstance(made, Tensor) else made, batch)
            shown += batch["sample"]
    return shown


def coverage(shown: Sequence[Sample], expected: Sequence[Sample]) -> dict[str, Any]:
    """The proof that every sample was scored exactly once, over all processes.

    Args:
        shown: the samples that this process scored.
        expected: all samples of the evaluation.

    Returns:
        {"count", "sha256" of the sorted samples, "processes": number scored by each}.

    Raises:
        ValueError: a sample was left out, or scored twice; names the first.
    """
    _, ranks = place()
    shares: list[list[Sample]] = [list(shown)] * ranks
    if ranks > 1:
        torch.distributed.all_gather_object(shares, list(shown))
    found = Counter(sample for share in shares for sample in share)
    wanted = Counter(expected)
    for different, problem in ((wanted - found, "left out"), (found - wanted, "scored again, or not asked for")):
        if different:
            raise ValueError(
                f"expected each of {len(expected)} samples to be scored exactly once, found {min(different).name} "
                f"{problem} ({different.total()} in all): run the evaluation again"
            )
    samples = sorted(expected)
    return {"count": len(samples), "sha256": sha256_json(samples), "processes": [len(share) for share in shares]}


def cut_captions(suite: MetricSuite, texts: Sequence[str]) -> dict[str, int]:
    """What networks of the suite read the beginning of alone: a sentence for each network to how many of the texts."""
    found = {}
    for metric in suite.metrics.values():
        network = metric.extractor.network if metric.extractor is not None and "prompt" in metric.needs else None
        if isinstance(network, Cutting) and (count := int(network.is_cut(texts).sum())):
            found[f"captions cut at {network.limit}"] = count
    return found


def foreign_captions(texts: Sequence[str]) -> dict[str, int]:
    """How many texts are mostly in other letters than Latin ones: the networks here have learned English."""
    count = sum(map(_is_foreign, texts))
    return {"captions in other letters than Latin ones, which networks of English do not read": count} if count else {}


def _is_foreign(text: str) -> bool:
    letters = [unicodedata.name(letter, "").startswith("LATIN") for letter in text if letter.isalpha()]
    return sum(letters) * 2 < len(letters)


def add_reference(
    suite: MetricSuite, real: Dataset, identity: Any, assets: Path, num_workers: int, pixels: int = 1
) -> None:
    """Gives the suite the real set: statistics that another run kept, or else all its images, once.

    Kept by data, split, preprocessing, decoder, extractor, its settings and weights, and what metrics want of them, in
    a file that is checked when it is read. States are summed over processes, so that only one of them may call this.

    Args:
        identity: JSON value of everything that the real images depend on.
        assets: the folder that is to hold `statistics/`.
        pixels: of each picture, as far as is known.

    Raises:
        ValueError: a file of statistics is damaged; names it.
    """
    wanted = {name: metric for name, metric in suite.metrics.items() if metric.needs_reference}
    if not wanted:
        return
    facts = {
        name: [
            identity,
            decoder(),
            metric.reference_kind,
            metric.extractor.name,
            metric.extractor.weights_sha256,
            metric.extractor.settings_sha256,
        ]
        for name, metric in wanted.items()
    }
    paths = {name: assets / "statistics" / f"{sha256_json(facts[name])[:32]}.safetensors" for name in wanted}
    with locked(assets / "statistics" / sha256_json(identity)[:32]):
        absent = [name for name, path in paths.items() if not path.is_file()]
        held = {path: _read(path) for name, path in paths.items() if name not in absent}
        for name in wanted.keys() - set(absent):
            suite.load_reference_state(name, held[paths[name]])
        if not absent:
            return
        with full_precision(), within_memory(BATCH, REMEDY), range_known():
            for batch in track(loader(real, num_workers, pixels=pixels), "real images"):
                batch["image"] = batch["image"].to(suite.device)
                suite.update_reference(batch, only=absent)
        for path, name in {paths[name]: name for name in absent}.items():
            _write(path, suite.reference_state(name), facts[name])


def _write(path: Path, states: Mapping[str, Tensor], facts: Any) -> None:
    with written_atomically(path) as partial:
        partial.write_bytes(encoded(states, {"of": json.dumps(facts)}))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return read_safetensors(path)
    except ValueError:
        raise ValueError(f"{path}: expected statistics of real images, found a damaged file: remove it") from None


def results_of(suite: MetricSuite) -> dict[str, dict[str, Any]]:
    """Every score as a record keeps it: "name@extractor" to {"value", "std", "count", "weights"}.

    Raises:
        ValueError: a metric has seen too few images, or no real set.
    """
    scores = suite.compute()
    judges = {key: suite.metrics[name].extractor for name, key in suite.keys.items()}
    return {
        key: {**scores[key]._asdict(), "weights": judge.weights_sha256 if judge else None}
        for key, judge in judges.items()
    }


@contextmanager
def range_known() -> Iterator[None]:
    """Bright pictures are no reason for a warning: data modules and files give [-1, 1]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        yield


@contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 and no autocast: a score does not depend on what a graphics card would round."""
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    matmul.allow_tf32 = convolution.allow_tf32 = False
    try:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before
