"""Stages: what is trained, in which order, and where its weights lie.

A paper trained in stages has one class and one YAML per stage; `stages` in the YAML names the constructor arguments
that earlier stages fill. Weights lie in a folder named by the hash of configuration, input data, seed and the keys of
the stages before: nothing is trained twice and nothing stale is used.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmbench.core import config
from mmbench.core.cards import Card
from mmbench.core.files import sha256_json

if TYPE_CHECKING:
    from mmbench.data.base import DataModule

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


def stage(plain: dict[str, Any], data: "DataModule") -> Stage:
    """The training that a configuration asks for, whether it has been run or not."""
    return known_stage(plain, data.fingerprint())


def known_stage(plain: dict[str, Any], fingerprint: str) -> Stage:
    """As `stage`, of data of which no more than the fingerprint is known."""
    facts = {
        "method": config.scientific(
            {key: plain["method"][key] for key in ("name", "module", "start") if key in plain["method"]}
        ),
        "training": plain["method"].get("training"),
        "data": config.scientific({key: value for key, value in plain["data"].items() if key != "evaluation"}),
        "fingerprint": fingerprint,
        "scale": plain["scale"],
        "seed": plain["seed"],
        "stages": {argument: known_stage(before, fingerprint).key for argument, before in predecessors(plain).items()},
    }
    if (precision := plain["trainer"]["precision"]) != FULL_PRECISION:
        facts["precision"] = precision
    if not plain["trainer"].get("sync_batchnorm", True):  # statistics of each process's part of a batch
        facts["processes"] = num_processes(plain["trainer"])
    key = sha256_json(facts)
    name = f"{plain['method']['name']}-{plain['data']['name']}-{plain['data']['source']}-s{plain['seed']}"
    return Stage(plain, key, Path(plain["paths"]["runs"]) / "train" / name / key[:16])


def num_processes(trainer: dict[str, Any]) -> int:
    """How many processes a trainer's configuration asks for."""
    return config.construct(trainer, logger=False, enable_checkpointing=False).world_size


def predecessors(plain: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Constructor argument to the plain configuration of the stage that fills it; seed and hardware are ours."""
    return {argument: {**plain, **before} for argument, before in plain["method"].get("stages", {}).items()}


def learns(plain: dict[str, Any]) -> bool:
    """Whether there is something to train: the method itself, or a stage that it stands on."""
    return "training" in plain["method"] or any(map(learns, predecessors(plain).values()))


def official_cards(plain: dict[str, Any]) -> dict[str, Card]:
    """Submodule, or `vocabulary`, to what the authors published for this data set; for toy data nobody did."""
    data = plain["data"]
    cards = plain["method"].get("official", {}).get(data["name"], {}) if data["source"] == "real" else {}
    return {part: Card(**card) for part, card in cards.items()}
