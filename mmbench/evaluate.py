"""Generates a method's images under a protocol, scores them, and writes one record.

Images and scores are kept apart: images are PNG files in a folder named by everything they depend on, so that a run
that was stopped goes on at the next image and a new metric does not draw them again.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import BasePredictionWriter
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmbench import canary, grid, scoring
from mmbench.core import application, config, results
from mmbench.core.files import locked, sha256_file, sha256_json, write_json, write_text
from mmbench.core.images import read_rgb, to_uint8, write_png
from mmbench.core.method import Batch, Method
from mmbench.core.noise import Noise, Sample
from mmbench.core.progress import TRAINER_OPTIONS, progress_bar
from mmbench.core.results import Result
from mmbench.core.task import Task
from mmbench.data.base import DataModule, collate
from mmbench.metrics.base import check_images
from mmbench.metrics.suite import MetricSuite, build_suite
from mmbench.train import built, predecessors, prepared_data, wandb_mode


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
    def protocol(self) -> dict[str, Any]:
        return self.plain["protocol"]

    def items(self, samples: list[Sample], fields: Set[str]) -> Dataset:
        """What the method, or then the metrics, get to see of each sample."""
        return self.data.evaluation(self.protocol["split"], samples, self.protocol["seed"], fields)

    def image(self, sample: Sample) -> Path:
        return self.folder / "samples" / f"{sample.name}.png"


ROW = (("method", "method", "name"), ("data", "data", "name"), ("source", "data", "source"))
# What the images themselves depend on, among the keys of a protocol. (The data module is told `mask`, `preprocessing`
# and `bird_crop`.)
SAMPLE_SET = ("split", "captions_per_image", "draws", "count", "drop_partial_batch")
SAMPLING = (*SAMPLE_SET, "seed", "rounding", "composite")
TO_NEAREST = {"_target_": "mmbench.core.images.to_uint8"}  # how a protocol rounds that does not say


def described(plain: dict[str, Any]) -> dict[str, Any]:
    """The part of a plain configuration that makes a row what it is; its hash is the record's `config_hash`."""
    facts = config.scientific({key: plain[key] for key in ("data", "protocol", "weights", "seed")})
    facts["data"]["module"].pop("seed", None)  # of training, and `seed` already
    facts["data"].pop("parts", None)  # the protocol's metrics have them
    return {**facts, "method": _method_facts(plain)}


def _method_facts(plain: dict[str, Any]) -> dict[str, Any]:
    """What makes the method, and the stages before it, what they are with the weights that are asked for."""
    method = plain["method"]
    facts = config.scientific({key: method[key] for key in ("name", "module")})
    if plain["weights"] == "trained":
        facts |= {key: method[key] for key in ("start", "training") if key in method}
    if plain["weights"] == "official":
        facts["official"] = method.get("official", {}).get(plain["data"]["name"])
    stages = {argument: _method_facts(before) for argument, before in predecessors(plain).items()}
    return {**facts, "stages": stages} if stages else facts


def prepare(cfg: DictConfig) -> Run:
    """Checks that data set, task and method fit, prepares the data and loads the weights.

    Raises:
        MissingAsset: data or weights are not here and cannot be fetched.
        ValueError: the data set lacks a field that the task needs, or weights do not fit.
    """
    return prepared(config.plain(cfg))


def prepared(plain: dict[str, Any]) -> Run:
    """As `prepare`, of a settled configuration as plain values."""
    data = prepared_data(plain, evaluation=True)
    data.setup("predict")
    method, weights = built(plain, data)
    protocol = plain["protocol"]
    inputs = {"data": data.fingerprint(), "weights": weights["sha256"]}
    if protocol.get("composite") and "mask" not in data.fields:
        raise ValueError(
            f"expected a mask for protocol {protocol['name']}, which puts known pixels back, found none: choose one "
            "with +mask@protocol.mask=NAME"
        )
    samples = wanted_samples(data, protocol)
    facts = described(plain)
    sampling = {key: protocol[key] for key in SAMPLING if key in protocol}
    images = sha256_json([facts["method"], facts["data"], sampling, plain["seed"], inputs])
    name = "-".join(plain[group][key] for _, group, key in ROW)
    folder = Path(plain["paths"]["runs"]) / name / images[:16]
    return Run(plain, method, weights, data, samples, folder, sha256_json([facts, inputs]))


def wanted_samples(data: DataModule, protocol: dict[str, Any]) -> list[Sample]:
    """The samples that a protocol asks for.

    `drop_partial_batch` of N leaves out the last images, by id, that fill no batch of N.

    Raises:
        ValueError: there are fewer images than asked for, or than a batch.
    """
    samples = data.samples(
        protocol["split"],
        count=protocol["count"],
        captions_per_image=protocol["captions_per_image"],
        draws=protocol["draws"],
        seed=protocol["seed"],
    )
    size = protocol.get("drop_partial_batch") or 1
    of_an_image = protocol["captions_per_image"] * protocol["draws"]
    images = len(samples) // of_an_image
    if images < size:
        raise ValueError(
            f"expected at least {size} images, a whole batch of protocol {protocol['name']}, found {images}: set "
            "protocol.drop_partial_batch=null, or use more images"
        )
    return samples[: images // size * size * of_an_image]


class Scored(Dataset):
    """Items of a run, each with its generated image as it was written: (3, H, W) uint8."""

    def __init__(self, run: Run, samples: list[Sample], fields: Set[str]) -> None:
        self.run = run
        self.items = run.items(samples, fields)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        return {**item, "generated": read_rgb(self.run.image(item["sample"]))}


class ImageWriter(BasePredictionWriter):
    """Writes every generated image as a PNG of its own the moment it is there."""

    def __init__(self, run: Run) -> None:
        super().__init__("batch")
        self.run = run

    def write_on_batch_end(
        self, trainer: Any, pl_module: Any, prediction: Tensor, batch_indices: Any, batch: Batch, *_: int
    ) -> None:
        check_images(prediction, [sample.name for sample in batch["sample"]])
        protocol = self.run.protocol
        if protocol.get("composite"):  # what was known is put back
            prediction = torch.where(batch["mask"] > 0, prediction, batch["image"])
        images = config.construct(protocol.get("rounding") or TO_NEAREST, images=prediction)
        for sample, image in zip(batch["sample"], images, strict=True):
            write_png(self.run.image(sample), image)


def generate(run: Run) -> None:
    """Draws the images that are not there yet."""
    missing = [sample for sample in run.samples if not run.image(sample).is_file()]
    if missing:
        trainer: pl.Trainer = config.construct(
            run.plain["trainer"],
            callbacks=[ImageWriter(run), *progress_bar()],
            logger=False,
            enable_checkpointing=False,
            **TRAINER_OPTIONS,
            default_root_dir=run.folder,
            inference_mode=True,
        )
        known = {"image", "mask"} if run.protocol.get("composite") else set()
        items = run.items(missing, {*run.method.task.inputs, *known})
        loader = _loader(run, items, partial(_with_noise, seed=run.plain["seed"]))
        with application.within_memory(run.data.batch_size, "lower data.module.batch_size"):
            trainer.predict(run.method, loader, return_predictions=False)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # the first process reads what all of them wrote


def _with_noise(items: Sequence[dict[str, Any]], seed: int) -> Batch:
    batch = collate(items)
    return {**batch, "noise": Noise(seed, batch["sample"])}


def _loader(run: Run, dataset: Dataset, make_batch: Callable[..., Batch] = collate) -> DataLoader:
    return DataLoader(
        dataset=dataset, batch_size=run.data.batch_size, num_workers=run.data.num_workers, collate_fn=make_batch
    )


def score(run: Run, suite: MetricSuite) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Scores the images of a run; "name@extractor" to {"value", "std", "count", "weights"}, and the coverage record.

    Each of several processes takes its share of the samples, none twice and none left out.

    Raises:
        ValueError: the data set lacks a field that a metric needs, or a sample was not scored exactly once.
    """
    task: Task = run.method.task
    suffixes = [suffix for suffix in ("", "_attributes") if f"{task.prompt}{suffix}" in run.data.fields]
    fields = run.data.fields | {f"prompt{suffix}" for suffix in suffixes}
    if missing := sorted(set(suite.needs) - fields):
        raise ValueError(
            f"expected the fields {', '.join(missing)} for the metrics of {run.protocol['name']}, found "
            f"{run.plain['data']['name']} without them: choose another protocol or data set"
        )
    rank, _ = scoring.place()
    wanted = (suite.needs & run.data.fields) | {f"{task.prompt}{suffix}" for suffix in suffixes}

    def batch_of(items: Sequence[dict[str, Any]]) -> Batch:
        batch = collate(items)
        return {**batch, **{f"prompt{suffix}": batch[f"{task.prompt}{suffix}"] for suffix in suffixes}}

    mine = Scored(run, scoring.share(run.samples), wanted)
    covered = scoring.coverage(
        scoring.show(suite, scoring.loader(mine, run.data.num_workers, batch_of), "scoring"), run.samples
    )
    if suite.needs_reference and rank == 0:  # states are summed over the processes
        split = run.protocol["reference"]
        identity = [described(run.plain)["data"], run.data.fingerprint(), split]
        assets = Path(run.plain["paths"]["assets"]).expanduser()
        scoring.add_reference(suite, run.data.reference(split), identity, assets, run.data.num_workers)
    return scoring.results_of(suite), covered


def write_manifest(run: Run) -> None:
    """Writes manifest.json: every sample with its file, hash and prompt; proof that none is missing."""
    prompt = run.method.task.prompt
    texts = run.data.texts(run.protocol["split"], run.samples, run.protocol["seed"])[prompt] if prompt else None
    entries = [
        {
            "id": sample.id,
            "caption": sample.caption,
            "draw": sample.draw,
            "file": str(run.image(sample).relative_to(run.folder)),
            "sha256": sha256_file(run.image(sample)),
            "prompt": texts[index] if texts else None,
        }
        for index, sample in enumerate(run.samples)
    ]
    write_json(run.folder / "manifest.json", {"run_key": run.run_key, "count": len(entries), "samples": entries})


def shown(run: Run, count: int) -> Iterator[tuple[Any, str, Any]]:
    """`count` samples spread over the run as (input, prompt, output); images (H, W, 3) uint8; no prompt is ""."""
    chosen = run.samples[:: max(1, len(run.samples) // count)][:count]
    prompt = run.method.task.prompt
    items = run.items(chosen, {"image", prompt} if prompt else {"image"})
    for index, sample in enumerate(chosen):
        item = items[index]
        source = to_uint8(item["image"]).permute(1, 2, 0).numpy()
        yield source, item[prompt] if prompt else "", read_rgb(run.image(sample)).permute(1, 2, 0).numpy()


def evaluate(cfg: DictConfig) -> tuple[Result | None, Run]:
    """Generates and scores one row; re-uses the images, and the record, that are there already.

    Several processes share the work; the first of them gets the record, the others None.

    Raises:
        MissingAsset, ValueError: as `prepare`, `build_suite` and `score` say.
    """
    run = prepare(cfg)
    results_folder = run.plain["paths"]["results"]
    experiment = run.plain["experiment"] or run.plain["method"]["name"]
    with locked(run.folder):
        record = results.newest(results_folder, experiment, run_key=run.run_key)
        if record and all(run.image(sample).is_file() for sample in run.samples):
            log(run, record)
            return record, run
        assets = Path(run.plain["paths"]["assets"]).expanduser()
        suite = build_suite(run.protocol["metrics"], run.protocol["extractors"], assets)
        if torch.cuda.is_available() and run.plain["trainer"]["accelerator"] != "cpu":
            suite.cuda()
        drift = canary.check(suite, assets) if rank_zero_only.rank == 0 else {}
        generate(run)
        metrics, covered = score(run, suite)
        if rank_zero_only.rank > 0:
            return None, run
        write_manifest(run)
        grid.write_grid(run.folder / "grid.png", list(shown(run, 8)), ["input", "prompt", run.plain["method"]["name"]])
        record = Result(
            experiment=experiment,
            row=run.row,
            seed=run.plain["seed"],
            protocol={"name": run.protocol["name"], "hash": config.config_hash(run.protocol)},
            metrics=metrics,
            coverage=covered,
            canary=drift,
            size=list(read_rgb(run.image(run.samples[0])).shape[1:]),
            run_key=run.run_key,
            config_hash=sha256_json(described(run.plain)),
            weights=run.weights,
            data={"fingerprint": run.data.fingerprint(), "split": run.protocol["split"]},
            config=described(run.plain),
        )
        record.write(results_folder)
    log(run, record)
    return record, run


def log(run: Run, record: Result) -> None:
    """Writes the scores to metrics.csv in the run folder and, on request, to Weights & Biases with table and grid."""
    rows = [{"metric": name, **score} for name, score in sorted(record.metrics.items())]
    frame = pd.DataFrame(rows)
    write_text(run.folder / "metrics.csv", frame.to_csv(index=False))
    if options := run.plain["logger"]["wandb"]:
        logger = WandbLogger(
            **options,
            name="-".join([*run.row.values(), f"s{record.seed}"]),
            save_dir=run.folder,
            mode=wandb_mode(),
            config=record.config,
        )
        logger.log_metrics({name: score["value"] for name, score in record.metrics.items()})
        logger.log_table("metrics", dataframe=frame)
        logger.log_image("grid", [str(run.folder / "grid.png")])
        logger.experiment.finish()


def report(cfg: DictConfig) -> None:
    """Evaluates one row and says where everything is."""
    record, run = evaluate(cfg)
    if record is None:
        return
    for name, found in sorted(record.metrics.items()):
        spread = "" if found["std"] is None else f" (std {found['std']:.4f})"
        print(f"{name:<28} {found['value']:.4f}{spread} over {found['count']}")
    print(f"images: {run.folder / 'samples'}\ngrid: {run.folder / 'grid.png'}")
    print(f"record: {Path(run.plain['paths']['results']) / record.experiment}")
    print("next: another method (`mmbench list`), or a whole table: mmbench reproduce experiment=NAME")


job = application.application(report)

HELP = """usage: mmbench evaluate method=NAME [data=NAME] [data.source=toy|real] [protocol=NAME] [key=value ...]

Generates the images that the protocol asks for, scores them and writes one record below results/.

  method, data, protocol   names that `mmbench list` shows
  data.source              real (default) or toy: procedural data in the same layout, made on first use
  weights                  official (default), trained, none (as initialised), or a file
  seed                     of training and of the noise (default 0)
  logger                   csv (default) or wandb (offline where no key is set)
  experiment               folder below results/ that the record goes to (default: the method's name)
  --multirun               sweep: method=a,b seed=0,1,2;  --cfg job: print the configuration
"""


def main(arguments: list[str]) -> int:
    return application.start(job, arguments)
