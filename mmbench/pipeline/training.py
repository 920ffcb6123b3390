"""Training a method, and before it the stages it stands on; each once, re-used by everything it depends on."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.profilers import PassThroughProfiler, Profiler

from mmbench.core import application, construction, hashing, results, threads
from mmbench.core.batch_norm import synchronised
from mmbench.core.checkpoints import WholeCheckpoints
from mmbench.core.files import locked, write_json, written_atomically
from mmbench.core.method import Method, last_checkpoint
from mmbench.core.noise import random_stream
from mmbench.core.progress import console, progress_bar
from mmbench.core.weights import encoded
from mmbench.data.base import DataModule
from mmbench.pipeline import costs, mirrors
from mmbench.pipeline.assembly import assembled, load_start, prepared_data
from mmbench.pipeline.profiling import MEMORY, SPEED, Log, Parts, Profile, Throughput
from mmbench.pipeline.selection import Selection, told
from mmbench.pipeline.stages import Stage, learns, num_epochs, predecessors, stage, trainer_of


def trained(plain: dict[str, Any], data: DataModule) -> Stage:
    """Trains what a configuration asks for, the stages before it first; returns at once what is there already.

    A run that was stopped goes on from its last checkpoint and ends with the same weights.

    Raises:
        ValueError: the method has nothing to train, or needs larger batches or other data, or a caption has no known
            word, all of which is said before a stage is trained; the device lacks memory, or a loss or a weight is no
            number; or the checkpoint that is there is none to go on with.
    """
    require_training(plain)
    plain = {**plain, "weights": "trained"}
    wanted = stage(plain, data)
    require_data(plain, data)
    if any(learns(before.plain) and not before.weights.is_file() for before in wanted.before.values()):
        assembled({**plain, "weights": "none"}, data)  # what cannot be built is not worth training stages for
    for before in predecessors(plain).values():
        if learns(before):
            trained(before, _data_of(before, plain, data))
    if "training" not in plain["method"]:  # what it stands on is all that it has learnt
        return wanted
    with locked(wanted.folder):
        if not wanted.weights.is_file():
            _require_unfinished(wanted)
            _fit(wanted, data)
        elif plain["profile"]:
            console.print(f"{wanted.name} is trained already: paths.runs=FOLDER profiles it anew", highlight=False)
    return wanted


def _data_of(before: dict[str, Any], plain: dict[str, Any], data: DataModule) -> DataModule:
    """The data module of a stage: the one that is there, unless the stage sees the data set in another way."""
    return data if before["data"]["module"] == plain["data"]["module"] else prepared_data(before)


def _require_unfinished(wanted: Stage) -> None:
    """Refuses to train again for the weights of an epoch.

    Raises:
        ValueError: the training has ended without keeping them.
    """
    if wanted.final.is_file():
        at = wanted.plain["method"]["training"]["at"]
        raise ValueError(
            f"{wanted.folder}: expected weights after epoch {at}, found a training that ended without keeping them: "
            "paths.runs=FOLDER trains anew"
        )


def require_training(plain: dict[str, Any]) -> None:
    """Refuses what cannot be trained, the stages before it included, before anything is made for it.

    Raises:
        ValueError: the method has nothing to train and stands on nothing that has; or needs larger batches.
    """
    method = plain["method"]
    if "training" in method:
        num_epochs(method["training"])
    if not learns(plain):
        raise ValueError(f"expected a method that learns, found {method['name']}: evaluate it as it is")
    if "training" in method and method["training"]["batch_size"] < (smallest := _smallest_batch(plain)):
        raise ValueError(
            f"expected batches of {smallest} images or more to train {method['name']}, found "
            f"{method['training']['batch_size']}: raise method.training.batch_size"
        )
    for before in predecessors(plain).values():
        if learns(before):
            require_training(before)


def require_data(plain: dict[str, Any], data: DataModule) -> None:
    """Refuses data that a method, or a stage before it, cannot be trained on, before any of them is trained.

    Raises:
        ValueError: the data lack a field; have fewer images than a batch, or fewer captions of one than the method's
            `num_captions`; or all their images are of one class, where those of others are what a loss compares with.
    """
    for before in predecessors(plain).values():
        if learns(before):
            require_data(before, _data_of(before, plain, data))
    if "training" not in plain["method"]:
        return
    name, module = plain["method"]["name"], plain["method"]["module"]
    trains_on = construction.target(module).trains_on
    if missing := sorted(trains_on - data.fields):
        raise ValueError(
            f"expected the fields {', '.join(missing)} to train {name}, found {plain['data']['name']} without them: "
            "choose another data set"
        )
    data.require_batch(plain["method"]["training"]["batch_size"])
    if "num_captions" in module:
        _require_captions(name, module["num_captions"], data)
    records = data.split("train")
    if "class_id" in trains_on and len({record.class_id for record in records}) < 2:
        raise ValueError(
            f"expected training images of two classes or more to train {name}, found one class of {len(records)} "
            "images: use more of the data set"
        )


def _require_captions(name: str, wanted: Any, data: DataModule) -> None:
    if type(wanted) is not int or wanted < 1:
        raise ValueError(f"expected method.module.num_captions as a whole number from 1, found {wanted!r}: correct it")
    for record in data.split("train"):
        if len(record.captions) < wanted:
            raise ValueError(
                f"expected {wanted} captions of each image to train {name}, found {len(record.captions)} of "
                f"{record.id}: lower method.module.num_captions"
            )


def _smallest_batch(plain: dict[str, Any]) -> int:
    return construction.target(plain["method"]["module"]).smallest_batch


class SeededSteps(Callback):
    """Everything random in a step, dropout included, derives from (seed, epoch, step, rank).

    So a run that was stopped and resumed ends with the same weights as one that was not.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, step: int) -> None:
        stream = random_stream(self.seed, trainer.current_epoch, step, trainer.global_rank, "step")
        torch.manual_seed(int(stream.integers(2**63)))


class FiniteWeights(Callback):
    """Stops before weights that are no numbers become a checkpoint: the last step of an epoch can make them.

    Raises:
        ValueError: a parameter is NaN or infinite; says which, after which epoch, and where the last checkpoint is.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, parameter in pl_module.named_parameters():
            if parameter.requires_grad and not parameter.isfinite().all():
                raise ValueError(
                    f"expected finite weights, found NaN or infinity in {name} after epoch {trainer.current_epoch}: "
                    f"lower the learning rate; last good checkpoint: {last_checkpoint(trainer)}"
                )


class Kept(Callback):
    """Writes the weights after each of the epochs in `training.keep`."""

    def __init__(self, wanted: Stage) -> None:
        self.wanted = wanted
        self.epochs = wanted.plain["method"]["training"].get("keep") or []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch in self.epochs and trainer.is_global_zero:
            _write_weights(self.wanted.kept(epoch), pl_module)


def _fit(wanted: Stage, data: DataModule) -> None:
    plain, training = wanted.plain, wanted.plain["method"]["training"]
    method, _ = assembled(plain, data)
    load_start(method, plain)
    data.training_fields = method.trains_on
    checkpoint = wanted.folder / "last.ckpt"
    resumed = str(checkpoint) if checkpoint.is_file() else None
    console.print(
        f"training {wanted.name}: {num_epochs(training)} epochs of {plain['data']['name']} "
        f"({plain['data']['source']}), seed {plain['seed']}, in {wanted.folder}" + (", resumed" if resumed else ""),
        highlight=False,
    )
    start = time.monotonic()
    profile = Profile(Parts()) if plain["profile"] else None
    trainer = _trainer(wanted, method, data, profile)
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.is_global_zero and (advice := threads.advice()):
        console.print(advice, highlight=False)
    divide(plain, method, data, trainer)
    try:
        with application.within_memory(data.batch_size, "lower method.training.batch_size"):
            trainer.fit(method, datamodule=data, ckpt_path=resumed, weights_only=True)
    except FileNotFoundError as error:
        if not Path(str(error.filename)).absolute().is_relative_to(wanted.folder.absolute()):
            raise
        raise ValueError(
            f"{wanted.folder}: expected the folder of this training as long as it goes on, found it gone: train again"
        ) from None
    except SystemExit:  # what Lightning makes of Ctrl-C
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    if trainer.is_global_zero:
        _keep(wanted, method, trainer, time.monotonic() - start)
        if profile:
            console.print(profile.table(wanted.name))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # what comes next reads the weights that the first process wrote


def divide(plain: dict[str, Any], method: Method, data: DataModule, trainer: pl.Trainer) -> None:
    """Gives each of a trainer's processes its share of a batch, which is normalised by the statistics of all of it.

    Raises:
        ValueError: as `share_of_batch`.
    """
    training = plain["method"]["training"]
    data.batch_size = share_of_batch(plain, trainer.world_size)
    data.whole_batch, data.steps_per_epoch = training["batch_size"], training.get("steps_per_epoch")
    if trainer.world_size > 1 and plain["trainer"]["sync_batchnorm"]:
        synchronised(method, native=not isinstance(trainer.accelerator, CPUAccelerator))


def share_of_batch(plain: dict[str, Any], processes: int) -> int:
    """How many images of a training batch each of several processes takes at once, so that together they make it.

    With `training.accumulate` each takes its share in so many parts, one after the other. Pairs of a batch and its
    statistics are then those of a part.

    Raises:
        ValueError: they cannot be shared out evenly, or a share is smaller than the method needs.
    """
    name, size = plain["method"]["name"], plain["method"]["training"]["batch_size"]
    parts = plain["method"]["training"].get("accumulate", 1)
    divisor = processes * parts
    by = f"{processes} processes" + (f" in {parts} parts" if parts > 1 else "")
    remedy = "change method.training.batch_size or trainer.devices"
    if size % divisor:
        raise ValueError(
            f"expected batches of {size} images of {name} to divide by the {by}, found a remainder of "
            f"{size % divisor}: {remedy}"
        )
    share, smallest = size // divisor, _smallest_batch(plain)
    if share < smallest:
        raise ValueError(
            f"expected {smallest} images or more of {name} for each process, found {share}, a batch of {size} by "
            f"{by}: {remedy}"
        )
    return share


def _trainer(wanted: Stage, method: Method, data: DataModule, profile: Profile | None) -> pl.Trainer:
    plain, folder, training = wanted.plain, wanted.folder, wanted.plain["method"]["training"]
    parts = training.get("accumulate", 1)
    profiler = profile.parts if profile else PassThroughProfiler()
    method.accumulate = parts
    trainer = trainer_of(
        plain,
        max_epochs=num_epochs(training),
        # Methods that step their optimisers by hand see to it themselves.
        accumulate_grad_batches=parts if method.automatic_optimization else 1,
        callbacks=[
            *([profile] if profile else []),
            Throughput(),
            SeededSteps(plain["seed"]),
            FiniteWeights(),
            *([Selection(wanted, data)] if "select" in training else []),
            Kept(wanted),
            costs.CpuTime(),  # behind all that takes long
            ModelCheckpoint(folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True),
            *progress_bar(),
        ],
        logger=_loggers(wanted, profiler),
        **({"profiler": profiler} if profile else {}),
        default_root_dir=folder,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    trainer.strategy.checkpoint_io = WholeCheckpoints(method)
    return trainer


def _keep(wanted: Stage, method: Method, trainer: pl.Trainer, seconds: float) -> None:
    """Writes what is known of a training that ended, and last its weights."""
    spent = {"seconds": round(seconds, 1), **costs.of_fit(trainer, method.accumulate)}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Throughput):
            spent |= callback.found
        if isinstance(callback, Profile):
            spent["profile"] = callback.shares
    facts = {"key": wanted.key, **spent, "commit": results.commit()}
    terms = {name: float(value) for name, value in trainer.callback_metrics.items() if name not in (SPEED, MEMORY)}
    write_json(wanted.folder / "training.json", {**facts, "versions": results.versions(), "terms": terms})
    for name, own in method.beside.items():
        own.write(wanted.folder / name)
    best = next((callback for callback in trainer.callbacks if isinstance(callback, Selection)), None)
    if best:
        console.print(f"kept the best of {told(wanted.folder)}", highlight=False)
        best.weights.replace(wanted.final)
        return
    _write_weights(wanted.final, method)


def _write_weights(path: Path, method: pl.LightningModule) -> None:
    with written_atomically(path) as partial:
        partial.write_bytes(encoded(method.state_dict()))


def _loggers(wanted: Stage, profiler: Profiler) -> list[Any]:
    plain = wanted.plain
    data = plain["data"]
    facts = {
        "job": "train",
        "group": plain["experiment"] or wanted.name,
        "name": f"train-{wanted.folder.parent.name}",
        "id": mirrors.identity("train", wanted.key),
        "seed": str(plain["seed"]),
        "method": wanted.name,
        "data": f"{data['name']} ({data['source']})",
        "folder": str(wanted.folder),
    }
    described = {key: facts[key] for key in ("job", "data")}
    described |= {"seed": plain["seed"], "scale": plain["scale"], "method": hashing.scientific(plain["method"])}
    return [Log(wanted.folder, profiler), *mirrors.mirrors(plain["logger"], facts, described)]
