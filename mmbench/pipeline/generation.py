"""Generation: a method's images under a protocol.

Images are PNG files in a folder named by everything they depend on, so that a run that was stopped goes on at the next
image and a new metric does not draw them again.
"""

import copy
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import BasePredictionWriter
from torch.utils.data import DataLoader, Dataset

from mmbench.core import application, hashing
from mmbench.core.files import sha256_file, write_json
from mmbench.core.images import to_uint8
from mmbench.core.method import Batch, Method
from mmbench.core.noise import Noise, Sample
from mmbench.core.outputs import IMAGES, VIDEOS, Output, Video
from mmbench.core.progress import progress_bar
from mmbench.core.protocol import Protocol
from mmbench.core.tuned import Tuned
from mmbench.data.base import DataModule
from mmbench.data.batches import collate
from mmbench.data.prompts import following, telling
from mmbench.pipeline.assembly import built, prepared_data
from mmbench.pipeline.costs import CARD, NUM_IMAGES, WARM_UP, GeneratingTime, ParametersRead, on_card
from mmbench.pipeline.rows import ROW, described
from mmbench.pipeline.stages import learns, trainer_of


@dataclass(frozen=True)
class Run:
    """One row of a table, ready to generate and to score.

    Attributes:
        plain: the settled configuration as plain values, paths and hardware included.
        method: the method, its weights loaded.
        weights: {"choice", "sha256", "verified"} of those weights.
        data: the data module, prepared.
        samples: the samples that the protocol asks for.
        folder: where images, manifest and grid lie; named by everything that the images depend on.
        run_key: hash of configuration, input data, weights and seed.
    """

    plain: dict[str, Any]
    method: Method
    weights: dict[str, Any]
    data: DataModule
    samples: list[Sample]
    folder: Path
    run_key: str

    @property
    def row(self) -> dict[str, str]:
        return {name: self.plain[group][key] for name, group, key in ROW}

    @property
    def protocol(self) -> Protocol:
        return Protocol.of(self.plain["protocol"])

    @property
    def told(self) -> DataModule:
        """The data as the method sees them: captions may be others than those that it is judged by, and sizes, too.

        Where the protocol brings images to a size, a method that learned sees its own, and they are brought there.
        """
        seen = telling(self.data, self.protocol.caption, self.method.task)
        if self.protocol.size and learns(self.plain):
            seen = copy.copy(seen)
            seen.image_size = self.plain["data"]["module"]["image_size"]
        return seen

    def items(self, samples: list[Sample], fields: Set[str], told: bool = False) -> Dataset:
        """What the metrics, or with `told` the method, get to see of each sample."""
        data = self.told if told else self.data
        return data.evaluation(self.protocol.split, samples, self.protocol.seed, fields)

    @property
    def output(self) -> Output:
        return self.method.task.output

    def read(self, sample: Sample) -> Any:
        """What was made of a sample, as it was written.

        Raises:
            ValueError: the file is missing or damaged; names it.
        """
        try:
            return self.output.read(self.file(sample))
        except ValueError as error:
            found, _, _ = str(error).rpartition(": ")
            raise ValueError(f"{found}: remove it, and the next run makes it again") from None

    def file(self, sample: Sample) -> Path:
        """Where what is made of a sample lies."""
        return self.folder / "samples" / f"{sample.name}{self.output.suffix}"


def prepared(plain: dict[str, Any]) -> Run:
    """Checks that data set, task, protocol and method fit, prepares the data and loads the weights.

    Raises:
        MissingAsset: data or weights are not here and cannot be fetched.
        ValueError: the data set lacks a field that the task needs, the protocol is for another task, or weights do not
            fit.
    """
    protocol = Protocol.of(plain["protocol"])
    data = prepared_data(plain, evaluation=True)
    data.setup("predict")
    method, weights = built(plain, data)
    inputs = {"data": data.fingerprint(), "weights": weights["sha256"]}
    if protocol.composite and "mask" not in data.fields:
        raise ValueError(
            f"expected a mask for protocol {protocol.name}, which puts known pixels back, found none: choose one with "
            "+mask@protocol.mask=NAME"
        )
    if protocol.prompts:
        data = following(data, protocol.prompts, method.task)
    telling(data, protocol.caption, method.task)  # a caption that cannot be told is said before any work is done
    samples = wanted_samples(data, protocol)
    facts = described(plain)
    sampling = protocol.changing("samples", "images")
    computed = [facts["precision"]] if "precision" in facts else []
    images = hashing.config_hash(
        [facts["method"], facts["data"], sampling, facts["scale"], facts["seed"], inputs, *computed]
    )
    name = "-".join(plain[group][key] for _, group, key in ROW)
    folder = Path(plain["paths"]["runs"]) / name / images[:16]
    if isinstance(method, Tuned):  # for all draws and captions; one more of them does not tune again
        looks = protocol.changing("images")
        tuned = hashing.config_hash([facts["method"], facts["data"], looks, facts["scale"], facts["seed"], inputs])
        method.kept = folder.parent / "tuned" / tuned[:16]
    return Run(plain, method, weights, data, samples, folder, hashing.config_hash([facts, inputs]))


def wanted_samples(data: DataModule, protocol: Protocol) -> list[Sample]:
    """The samples that a protocol asks for.

    Raises:
        ValueError: there are fewer images than asked for, or than a batch.
    """
    samples = data.samples(
        protocol.split,
        count=protocol.count,
        captions_per_image=protocol.captions_per_image,
        draws=protocol.draws,
        seed=protocol.seed,
        classes=protocol.classes,
    )
    size = protocol.drop_partial_batch or 1
    of_an_image = protocol.captions_per_image * protocol.draws
    images = len(samples) // of_an_image
    if images < size:
        raise ValueError(
            f"expected at least {size} images, a whole batch of protocol {protocol.name}, found {images}: set "
            "protocol.drop_partial_batch=null, or use more images"
        )
    return samples[: images // size * size * of_an_image]


class Scored(Dataset):
    """Items of a run, each with what was `generated`, as metrics see it."""

    def __init__(self, run: Run, samples: list[Sample], fields: Set[str]) -> None:
        self.run = run
        self.items = run.items(samples, fields)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        return {**item, "generated": self.run.output.judged(self.run.read(item["sample"]))}


class Writer(BasePredictionWriter):
    """Writes everything that is generated into a file of its own the moment it is there."""

    def __init__(self, run: Run) -> None:
        super().__init__("batch")
        self.run = run

    def write_on_batch_end(
        self, trainer: Any, pl_module: Any, prediction: Any, batch_indices: Any, batch: Batch, *_: int
    ) -> None:
        output = self.run.output
        output.check(prediction, [sample.name for sample in batch["sample"]])
        for sample, item in zip(batch["sample"], output.finished(prediction, batch, self.run.protocol), strict=True):
            output.write(self.run.file(sample), item)


def generate(run: Run) -> None:
    """Makes what is not there yet."""
    missing = [sample for sample in run.samples if not run.file(sample).is_file()]
    if missing:
        trainer = trainer_of(
            run.plain,
            callbacks=[GeneratingTime(run.folder), ParametersRead(run.folder), Writer(run), *progress_bar()],
            logger=False,
            enable_checkpointing=False,
            default_root_dir=run.folder,
            inference_mode=not run.method.needs_gradients,
        )
        known = {"image", "mask"} if run.protocol.composite else set()
        if run.output is VIDEOS:
            known.add("frame_rate")
        items = run.items(missing, {*run.method.task.inputs, *known}, told=True)
        at_once = min(run.data.batch_size, run.method.at_once or run.data.batch_size)
        loader = DataLoader(
            dataset=items,
            batch_size=at_once,
            num_workers=run.data.num_workers,
            collate_fn=partial(with_noise, seed=run.plain["seed"]),
        )
        with application.within_memory(at_once, "lower data.module.batch_size"):
            trainer.predict(run.method, loader, return_predictions=False)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # the first process reads what all of them wrote


def measure(run: Run, device: torch.device) -> None:
    """Writes what images cost by the card of `costs.on_card`, once; samples come again where there are too few."""
    path = run.folder / CARD
    if path.is_file():
        return
    items = run.items(run.samples[: WARM_UP + NUM_IMAGES], {*run.method.task.inputs}, told=True)
    method = run.method.to(device).eval()
    batches = []
    for place in islice(cycle(range(len(items))), WARM_UP + NUM_IMAGES):
        batch = method.transfer_batch_to_device(with_noise([items[place]], run.plain["seed"]), device, 0)
        batches.append(run.data.on_after_batch_transfer(batch, 0))
    write_json(path, on_card(method, batches))


def with_noise(items: Sequence[dict[str, Any]], seed: int) -> Batch:
    """Items as one batch, with the noise of their samples."""
    batch = collate(items)
    return {**batch, "noise": Noise(seed, batch["sample"])}


def write_manifest(run: Run) -> None:
    """Writes manifest.json: every sample with its file, hash and prompt; proof that none is missing."""
    prompt = run.method.task.prompt
    texts = run.told.texts(run.protocol.split, run.samples, run.protocol.seed)[prompt] if prompt else None
    entries = [
        {
            "id": sample.id,
            "caption": sample.caption,
            "draw": sample.draw,
            "file": str(run.file(sample).relative_to(run.folder)),
            "sha256": sha256_file(run.file(sample)),
            "prompt": texts[index] if texts else None,
        }
        for index, sample in enumerate(run.samples)
    ]
    write_json(run.folder / "manifest.json", {"run_key": run.run_key, "count": len(entries), "samples": entries})


def shown(run: Run, count: int) -> Iterator[tuple[Any, str, Any]]:
    """`count` samples spread over the run as (input, prompt, output), cells of a grid; what there is not is ""."""
    chosen = run.samples[:: max(1, len(run.samples) // count)][:count]
    task, fields = run.method.task, run.data.fields
    seen = next((field for field in ("image", "video") if field in fields), None)
    items = run.items(chosen, {field for field in (seen, task.prompt) if field}, told=True)
    for index, sample in enumerate(chosen):
        item = items[index]
        source: Any = ""
        if seen == "image":
            source = IMAGES.cell(to_uint8(item["image"]))
        elif seen == "video":
            source = VIDEOS.cell(Video(to_uint8(item["video"]), 1.0))
        made = run.output.cell(run.read(sample))
        yield source, item[task.prompt] if task.prompt else "", made
