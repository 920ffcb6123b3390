"""Trains a method, and before it the stages it stands on; each once, re-used by everything it depends on.

A paper trained in stages has one class and one YAML per stage; `stages` in the YAML names the constructor arguments
that earlier stages fill. Weights lie in a folder named by the hash of configuration, input data, seed and the keys of
the stages before: nothing is trained twice and nothing stale is used.
"""

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_class
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from safetensors.torch import save_file

from mmbench.core import application, config, results
from mmbench.core.fasttext import WordEmbedding
from mmbench.core.files import locked, sha256_file, sha256_json, write_json, written_atomically
from mmbench.core.method import Method, last_checkpoint
from mmbench.core.noise import random_stream
from mmbench.core.pickles import read_captions
from mmbench.core.progress import TRAINER_OPTIONS, console, progress_bar
from mmbench.core.text import Vocabulary
from mmbench.core.weights import Card, MissingAsset, find, load_strictly, read_state
from mmbench.data.base import DataModule

VOCABULARY = "vocabulary.json"  # beside weights, of a method that has one
FULL_PRECISION = "32-true"  # of the trainer; weights trained in another are others


@dataclass(frozen=True)
class Stage:
    """One training: a settled plain configuration, its key, and the folder of its checkpoint and weights."""

    plain: dict[str, Any]
    key: str
    folder: Path

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def name(self) -> str:
        return self.plain["method"]["name"]


def stage(plain: dict[str, Any], data: DataModule) -> Stage:
    """The training that a configuration asks for, whether it has been run or not."""
    facts = {
        "method": config.scientific(
            {key: plain["method"][key] for key in ("name", "module", "start") if key in plain["method"]}
        ),
        "training": plain["method"]["training"],
        "data": config.scientific({key: value for key, value in plain["data"].items() if key != "evaluation"}),
        "fingerprint": data.fingerprint(),
        "seed": plain["seed"],
        "stages": {argument: stage(before, data).key for argument, before in predecessors(plain).items()},
    }
    if (precision := plain["trainer"]["precision"]) != FULL_PRECISION:
        facts["precision"] = precision
    key = sha256_json(facts)
    name = f"{plain['method']['name']}-{plain['data']['name']}-{plain['data']['source']}-s{plain['seed']}"
    return Stage(plain, key, Path(plain["paths"]["runs"]) / "train" / name / key[:16])


def predecessors(plain: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Constructor argument to the plain configuration of the stage that fills it; data, seed and hardware are ours."""
    data, assets = plain["data"], plain["paths"]["assets"]
    return {
        argument: {**plain, "method": _composed_method(method, data["name"], data["source"], assets)}
        for argument, method in plain["method"].get("stages", {}).items()
    }


@cache  # composing takes half a second, and a run asks for its stages time and again
def _composed_method(method: str, data: str, source: str, assets: str) -> dict[str, Any]:
    quoted = assets.replace("\\", "\\\\").replace("'", "\\'")
    words = [f"method={method}", f"data={data}", f"data.source={source}", f"paths.assets='{quoted}'"]
    return config.plain(config.composed(words).method)


def built(plain: dict[str, Any], data: DataModule) -> tuple[Method, dict[str, Any]]:
    """The method with the weights that `weights=` asks for, and what a record keeps of them.

    Raises:
        MissingAsset: the weights are not here: not trained yet, not published, or not to be fetched.
        ValueError: they do not fit.
    """
    choice = plain["weights"]
    method, parts = _assembled(plain, data)
    if not any(True for _ in method.parameters()):
        return method, {"choice": "none needed", "sha256": None, "verified": True}
    if choice == "none":
        return method, {"choice": "none", "sha256": None, "verified": True}
    if choice == "official":
        found, verified = _load_official(method, plain)
    elif choice == "trained":
        found, verified = _load_trained(method, stage(plain, data)), True
    else:
        _require_own_words(method, Path(choice))
        load_strictly(method, read_state(choice), choice)
        found, verified = sha256_file(choice), True
    return method, {
        "choice": choice if choice in ("official", "trained") else "file",
        "sha256": sha256_json([found, *(part["sha256"] for part in parts)]) if parts else found,
        "verified": verified and all(part["verified"] for part in parts),
    }


def _assembled(plain: dict[str, Any], data: DataModule) -> tuple[Method, list[dict[str, Any]]]:
    stages, parts = {}, []
    for argument, before in predecessors(plain).items():
        if before["weights"] not in ("official", "none"):
            before = {**before, "weights": "trained"}
        stages[argument], part = built(before, data)
        parts.append(part)
    cards = _official_cards(plain) if plain["weights"] == "official" else {}
    given = {argument: getattr(data, argument)() for argument in plain["method"].get("from_data", [])}
    if "vocabulary" in cards:
        # Released text encoders know their words by the order of their authors' own file.
        given["vocabulary"] = read_captions(find(cards["vocabulary"], plain["paths"]["assets"])).vocabulary
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plain["seed"])
        method = config.construct(plain["method"]["module"], **stages, **given)
    if "vocabulary" in given:
        _require_known_words(method, given["vocabulary"], data)
    return method, parts


def _require_known_words(method: Method, vocabulary: Vocabulary, data: DataModule) -> None:
    """Refuses a caption of which the text encoder knows no word before any work is done, not when its turn comes."""
    known = next((module.known for module in method.modules() if isinstance(module, WordEmbedding)), vocabulary)
    for records in data.records.values():
        for record in records:
            for number, caption in enumerate(record.captions[: data.num_captions]):
                if not known.knows(caption):
                    raise ValueError(
                        f"{data.root}: expected captions of known words, found none in caption {number} of "
                        f"{record.id}, {caption!r}: reword it"
                    )


def _load_start(method: Method, plain: dict[str, Any]) -> None:
    """Fills what training starts from: submodules pretrained on another task, by `start` in the method's YAML."""
    for part, card in plain["method"].get("start", {}).items():
        method.get_submodule(part).load(find(config.construct(card), plain["paths"]["assets"]))


def _load_trained(method: Method, wanted: Stage) -> str:
    if not wanted.weights.is_file():
        raise MissingAsset(
            f"expected trained weights of {wanted.name} at {wanted.weights}, found none: run mmbench train "
            f"method={wanted.name} data={wanted.plain['data']['name']} data.source={wanted.plain['data']['source']} "
            f"seed={wanted.plain['seed']}"
        )
    _require_own_words(method, wanted.weights)
    load_strictly(method, read_state(wanted.weights), str(wanted.weights))
    return sha256_file(wanted.weights)


def _require_own_words(method: Method, weights: Path) -> None:
    """Refuses weights that lie beside the vocabulary of other captions (see `_fit`)."""
    path = weights.with_name(VOCABULARY)
    if hasattr(method, "vocabulary") and path.is_file():
        method.vocabulary.require_same(Vocabulary.read(path), str(path))


def _official_cards(plain: dict[str, Any]) -> dict[str, Card]:
    """Submodule, or `vocabulary`, to what the authors published for this data set; for toy data nobody did."""
    data = plain["data"]
    cards = plain["method"].get("official", {}).get(data["name"], {}) if data["source"] == "real" else {}
    return {part: Card(**card) for part, card in cards.items()}


def _load_official(method: Method, plain: dict[str, Any]) -> tuple[str, bool]:
    cards = _official_cards(plain)
    if not cards:
        name, data = plain["method"]["name"], plain["data"]
        raise MissingAsset(
            f"expected weights of {name} that its authors published for {data['name']} ({data['source']}), found none: "
            "use weights=trained"
        )
    hashes, verified = [], True
    for part, card in cards.items():
        path = find(card, plain["paths"]["assets"])
        if part != "vocabulary":
            network = method.get_submodule(part)
            state = method.official[part](read_state(path), network)
            if "vocabulary" in cards and "embedding.weight" in state:
                method.vocabulary.require_rows(len(state["embedding.weight"]), str(path))
            load_strictly(network, state, str(path))
        hashes.append(sha256_file(path))
        verified = verified and card.sha256 is not None
    return sha256_json(hashes), verified


def trained(plain: dict[str, Any], data: DataModule) -> Stage:
    """Trains what a configuration asks for, the stages before it first; returns at once what is there already.

    A run that was stopped goes on from its last checkpoint and ends with the same weights.

    Raises:
        ValueError: the method has nothing to train, or needs larger batches, or a caption has no known word, or the
            device lacks memory, or a loss or a weight is no number.
    """
    _require_training(plain)
    plain = {**plain, "weights": "trained"}
    wanted = stage(plain, data)
    for before in predecessors(plain).values():
        trained(before, data)
    with locked(wanted.folder):
        if not wanted.weights.is_file():
            _fit(wanted, data)
    return wanted


def _require_training(plain: dict[str, Any]) -> None:
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
    method, _ = _assembled(plain, data)
    _load_start(method, plain)
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


def wandb_mode() -> str:
    """Weights & Biases' mode: `online` where it has a key for this user, else `offline`, in the run's own folder."""
    import wandb

    return "online" if wandb.login(prompt=False) else "offline"


def prepared_data(plain: dict[str, Any], evaluation: bool = False) -> DataModule:
    """The data module of a plain configuration, its data made or checked.

    Args:
        plain: the configuration.
        evaluation: whether the protocol's holes and preprocessing take the place of those of training.

    Raises:
        MissingAsset: the data are not here.
        ValueError: the data set lacks a field that the method's task needs.
    """
    task = get_class(plain["method"]["module"]["_target_"]).task
    chosen = plain["data"]["evaluation"] if evaluation else {}
    data: DataModule = config.construct({**plain["data"]["module"], **chosen})
    if missing := task.missing(data.fields):
        raise ValueError(
            f"expected the fields {', '.join(missing)} for {task.name} with {plain['method']['name']}, found "
            f"{plain['data']['name']} without them: choose another data set"
        )
    data.prepare_data()
    return data


def report(cfg: DictConfig) -> None:
    """Trains and says where the weights are."""
    plain = config.plain(cfg)
    _require_training(plain)  # before any data are made
    done = trained(plain, prepared_data(plain))
    if rank_zero_only.rank > 0:
        return
    method, data = plain["method"]["name"], plain["data"]
    print(f"weights: {done.weights}\nlog: {done.folder / 'log'}")
    print(
        f"next: mmbench evaluate method={method} data={data['name']} data.source={data['source']} seed={plain['seed']} "
        "weights=trained"
    )


job = application.application(report)

HELP = """usage: mmbench train method=NAME [data=NAME] [data.source=toy|real] [seed=N] [key=value ...]

Trains a method, the stages it stands on first. What has been trained with the same configuration, data and seed is
used as it is; a run that was stopped goes on from its last checkpoint.

  method.training.epochs=N   any key of the method's YAML can be set; a changed one is another training
  trainer                    auto (default, one accelerator), cpu, or ddp (all accelerators)
  trainer.precision          32-true (default), bf16-mixed or 16-mixed: faster on a GPU; losses and images stay float32
  logger                     csv (default) or wandb (offline where no key is set)
  --multirun                 sweep: method=a,b seed=0,1,2;  --cfg job: print the configuration
"""


def main(arguments: list[str]) -> int:
    return application.start(job, arguments)
