"""Stages: what is trained, in which order, and where its weights lie.

A paper trained in stages has one class and one YAML per stage; `stages` in the YAML names the constructor arguments
that earlier stages fill. Weights lie in a folder named by the hash of configuration, input data, seed and the keys of
the stages before: nothing is trained twice and nothing stale is used.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmbench.core import construction, hashing
from mmbench.core.cards import Card

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

    from mmbench.data.base import DataModule

FULL_PRECISION = ("32-true", "32", "single")  # of the trainer, in Lightning's spellings; in another, numbers are others


@dataclass(frozen=True)
class Stage:
    """One training: a settled plain configuration, its key, the folder of its checkpoint and weights, what it rests on.

    Attributes:
        plain: the settled configuration.
        key: hash of all that its weights depend on.
        folder: where checkpoint, weights and log lie; named by the key.
        before: constructor argument to the stage that fills it.
    """

    plain: dict[str, Any]
    key: str
    folder: Path
    before: dict[str, "Stage"]

    @property
    def final(self) -> Path:
        """The weights that the training ends with."""
        return self.folder / "weights.safetensors"

    @property
    def weights(self) -> Path:
        """The weights that are asked for: the final ones, or those after the epoch `training.at`."""
        at = self.plain["method"].get("training", {}).get("at")
        return self.final if at is None else self.kept(at)

    def kept(self, epoch: int) -> Path:
        """The weights after one of the epochs in `training.keep`."""
        return self.folder / f"epoch-{epoch}.safetensors"

    @property
    def identity(self) -> str:
        """The key, and of weights that are not the final ones their epoch."""
        return self.key if self.weights == self.final else f"{self.key} {self.weights.stem}"

    @property
    def name(self) -> str:
        return self.plain["method"]["name"]


def stage(plain: dict[str, Any], data: "DataModule") -> Stage:
    """The training that a configuration asks for, whether it has been run or not."""
    return known_stage(plain, data.fingerprint())


def known_stage(plain: dict[str, Any], fingerprint: str) -> Stage:
    """As `stage`, of data of which no more than the fingerprint is known."""
    before = {argument: known_stage(one, fingerprint) for argument, one in predecessors(plain).items()}
    training = plain["method"].get("training")
    require_kept(training or {})
    facts = {
        "method": hashing.scientific(
            {key: plain["method"][key] for key in ("name", "module", "start") if key in plain["method"]}
        ),
        # Which epochs are kept, and which of them is used, changes nothing of the training.
        "training": training and {key: item for key, item in training.items() if key not in ("keep", "at")},
        **({"from_data": told} if (told := {key: item for key, item in from_data(plain).items() if item}) else {}),
        "data": hashing.scientific({key: value for key, value in plain["data"].items() if key != "evaluation"}),
        "fingerprint": fingerprint,
        "scale": plain["scale"],
        "seed": plain["seed"],
        "stages": {argument: one.identity for argument, one in before.items()},
        **precision(plain),
    }
    if not plain["trainer"]["sync_batchnorm"] and (processes := num_processes(plain)) > 1:
        facts["processes"] = processes  # each normalises its own part of a batch
    key = hashing.config_hash(facts)
    name = f"{plain['method']['name']}-{plain['data']['name']}-{plain['data']['source']}-s{plain['seed']}"
    return Stage(plain, key, Path(plain["paths"]["runs"]) / "train" / name / key[:16], before)


def precision(plain: dict[str, Any]) -> dict[str, str]:
    """What there is to say of the precision that the trainer computes in: nothing where it is full."""
    found = str(plain["trainer"]["precision"])
    return {} if found in FULL_PRECISION else {"precision": found}


def num_processes(plain: dict[str, Any]) -> int:
    """How many processes a training is divided among."""
    return trainer_of(plain, logger=False, enable_checkpointing=False).world_size


def trainer_of(plain: dict[str, Any], **arguments: Any) -> "Trainer":
    """Lightning's trainer on the hardware that a configuration names.

    Batch normalisation is synchronised in training by us (`core/batch_norm.py`), since Lightning's cannot on a
    processor.

    Raises:
        ValueError: this machine lacks what the configuration names.
    """
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from mmbench.core.own_signals import OwnSignals
    from mmbench.core.progress import TRAINER_OPTIONS

    hardware = {key: item for key, item in plain["trainer"].items() if key != "sync_batchnorm"}
    callbacks = [OwnSignals(), *arguments.pop("callbacks", [])]
    try:
        return construction.construct(hardware, **TRAINER_OPTIONS, callbacks=callbacks, **arguments)
    except (MisconfigurationException, ValueError, TypeError) as error:
        said = ", ".join(f"trainer.{key}={plain['trainer'].get(key)}" for key in ("accelerator", "devices"))
        raise ValueError(f"expected a trainer that this machine can be, found {said} ({error}): change them") from None


def require_hardware(plain: dict[str, Any]) -> None:
    """Refuses hardware that this machine lacks, before anything is done.

    Raises:
        ValueError: as `trainer_of`.
    """
    trainer_of(plain, logger=False, enable_checkpointing=False)


def predecessors(plain: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Constructor argument to the plain configuration of the stage that fills it; seed and hardware are ours."""
    return {argument: {**plain, **before} for argument, before in plain["method"].get("stages", {}).items()}


def from_data(plain: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Constructor argument to what the data module's method of that name is called with, which gives it.

    In a YAML a list of names (`from_data: [vocabulary]`), or a mapping to arguments
    (`from_data: {vocabulary: {splits: [train], min_count: 5}}`).
    """
    told = plain["method"].get("from_data", {})
    return {name: {} for name in told} if isinstance(told, list) else {name: told[name] or {} for name in told}


def num_epochs(training: dict[str, Any]) -> int:
    """Epochs of a training: `epochs`, or `steps` in virtual ones of `steps_per_epoch`.

    A block of a scale takes one of them back with null.

    Raises:
        ValueError: both are given, or neither; or the steps make no whole number of epochs.
    """
    epochs, steps, size = (training.get(key) for key in ("epochs", "steps", "steps_per_epoch"))
    if (epochs is None) == (steps is None):
        found = "neither" if epochs is None else "both"
        raise ValueError(f"expected training with epochs, or with steps and steps_per_epoch, found {found}: choose one")
    for name in ("epochs", "steps", "batch_size"):
        if (found := training.get(name, 1)) is not None and (not isinstance(found, int) or found < 1):
            raise ValueError(f"expected training.{name} of a whole number from 1, found {found!r}: correct it")
    if epochs is not None:
        return epochs
    if not size or steps % size:
        raise ValueError(
            f"expected training.steps of whole virtual epochs, found {steps} steps by steps_per_epoch={size}: choose a "
            "number that divides it"
        )
    return steps // size


def require_kept(training: dict[str, Any]) -> None:
    """Refuses `keep` of epochs that a training does not have, and `at` of one that it does not keep.

    Raises:
        ValueError: says which.
    """
    keep, at = training.get("keep") or [], training.get("at")
    if not isinstance(keep, list) or any(type(epoch) is not int or epoch < 1 for epoch in keep):
        raise ValueError(f"expected training.keep as a list of epochs from 1, found {keep!r}: correct it")
    if keep and max(keep) > (last := num_epochs(training)):
        raise ValueError(f"expected training.keep of epochs up to the last, {last}, found {max(keep)}: leave it out")
    if at is not None and at not in keep:
        raise ValueError(f"expected training.at as one of the epochs in training.keep, {keep}, found {at!r}: add it")


def learns(plain: dict[str, Any]) -> bool:
    """Whether there is something to train: the method itself, or a stage that it stands on."""
    return "training" in plain["method"] or any(map(learns, predecessors(plain).values()))


def official_cards(plain: dict[str, Any]) -> dict[str, Card]:
    """Submodule, or `vocabulary`, to what the authors published for this data set; for toy data nobody did."""
    data = plain["data"]
    cards = plain["method"].get("official", {}).get(data["name"], {}) if data["source"] == "real" else {}
    return {part: Card(**card) for part, card in cards.items()}
