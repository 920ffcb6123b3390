"""Training a method, and before it the stages it stands on; each once, re-used by everything it depends on."""

import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from safetensors.torch import save_file

from mmbench.core import application, config, results
from mmbench.core.files import locked, write_json, written_atomically
from mmbench.core.method import last_checkpoint
from mmbench.core.noise import random_stream
from mmbench.core.progress import TRAINER_OPTIONS, console, progress_bar, wandb_mode
from mmbench.data.base import DataModule
from mmbench.pipeline.assembly import VOCABULARY, assembled, load_start
from mmbench.pipeline.stages import Stage, predecessors, stage


def trained(plain: dict[str, Any], data: DataModule) -> Stage:
    """Trains what a configuration asks for, the stages before it first; returns at once what is there already.

    A run that was stopped goes on from its last checkpoint and ends with the same weights.

    Raises:
        ValueError: the method has nothing to train, or needs larger batches, or a caption has no known word, or the
            device lacks memory, or a loss or a weight is no number.
    """
    require_training(plain)
    plain = {**plain, "weights": "trained"}
    wanted = stage(plain, data)
    for before in predecessors(plain).values():
        trained(before, data)
    with locked(wanted.folder):
        if not wanted.weights.is_file():
            _fit(wanted, data)
    return wanted


def require_training(plain: dict[str, Any]) -> None:
    if "training" not in plain["method"]:
        raise ValueError(f"expected a method that learns, found {plain['method']['name']}: evaluate it as it is")
    smallest, found = config.target(plain["method"]["module"]).smallest_batch, plain["method"]["training"]["batch_size"]
    if found < smallest:
        raise ValueError(
            f"expected batches of {smallest} images or more to train {plain['method']['name']}, found {found}: raise "
            "method.training.batch_size"
        )


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


def _fit(wanted: Stage, data: DataModule) -> None:
    plain, folder = wanted.plain, wanted.folder
    training = plain["method"]["training"]
    method, _ = assembled(plain, data)
    load_start(method, plain)
    data.batch_size = training["batch_size"]
    if missing := sorted(method.trains_on - data.fields):
        raise ValueError(
            f"expected the fields {', '.join(missing)} to train {wanted.name}, found {plain['data']['name']} without "
            "them: choose another data set"
        )
    data.training_fields = method.trains_on
    checkpoint = folder / "last.ckpt"
    console.print(
        f"training {wanted.name}: {training['epochs']} epochs of {plain['data']['name']} "
        f"({plain['data']['source']}), seed {plain['seed']}, in {folder}"
        + (", resumed" if checkpoint.is_file() else ""),
        highlight=False,
    )
    start = time.monotonic()
    trainer: pl.Trainer = config.construct(
        plain["trainer"],
        max_epochs=training["epochs"],
        callbacks=[
            SeededSteps(plain["seed"]),
            FiniteWeights(),
            ModelCheckpoint(folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True),
            *progress_bar(),
        ],
        logger=_loggers(wanted),
        default_root_dir=folder,
        **TRAINER_OPTIONS,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    resumed = str(checkpoint) if checkpoint.is_file() else None
    try:
        with application.within_memory(training["batch_size"], "lower method.training.batch_size"):
            trainer.fit(method, datamodule=data, ckpt_path=resumed, weights_only=True)
    except SystemExit:  # what Lightning makes of Ctrl-C
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    if trainer.is_global_zero:
        facts = {"key": wanted.key, "seconds": round(time.monotonic() - start, 1), "commit": results.commit()}
        terms = {name: float(value) for name, value in trainer.callback_metrics.items()}
        write_json(folder / "training.json", {**facts, "versions": results.versions(), "terms": terms})
        if hasattr(method, "vocabulary"):
            method.vocabulary.write(folder / VOCABULARY)
        with written_atomically(wanted.weights) as partial:
            save_file({name: value.contiguous().cpu() for name, value in method.state_dict().items()}, partial)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # what comes next reads the weights that the first process wrote


def _loggers(wanted: Stage) -> list[Any]:
    loggers: list[Any] = [CSVLogger(wanted.folder, name="log")]
    if options := wanted.plain["logger"]["wandb"]:
        loggers.append(
            WandbLogger(
                **options,
                name=f"train-{wanted.folder.parent.name}",
                save_dir=wanted.folder,
                mode=wandb_mode(),
                config=config.scientific(wanted.plain["method"]),
            )
        )
    return loggers
