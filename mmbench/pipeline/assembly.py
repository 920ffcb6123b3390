"""Assembling what a configuration asks for: its data, and its method with the weights of every stage."""

from pathlib import Path
from typing import Any

import torch

from mmbench.core import catalogue, composition, construction
from mmbench.core.cards import MissingAsset, find
from mmbench.core.fasttext import WordEmbedding
from mmbench.core.files import sha256_file, sha256_json
from mmbench.core.method import Method
from mmbench.core.pickles import read_captions
from mmbench.core.processes import first_alone
from mmbench.core.task import Task
from mmbench.core.text import Vocabulary
from mmbench.core.weights import load_strictly, read_state
from mmbench.data.base import DataModule
from mmbench.pipeline.stages import Stage, from_data, official_cards, predecessors, stage


def built(plain: dict[str, Any], data: DataModule) -> tuple[Method, dict[str, Any]]:
    """The method with the weights that `weights=` asks for, and what a record keeps of them.

    Raises:
        MissingAsset: the weights are not here: not trained yet, not published, or not to be fetched.
        ValueError: they do not fit.
    """
    choice = plain["weights"]
    method, parts = assembled(plain, data)
    if not any(True for _ in method.parameters()):
        return method, {"choice": "none needed", "sha256": None, "verified": True}
    if choice == "none":
        return method, {"choice": "none", "sha256": None, "verified": True}
    own: list[str] = []  # a method that learns nothing itself has the weights of its stages
    verified = all(part["verified"] for part in parts)
    if choice not in ("official", "trained"):
        _require_own(method, Path(choice))
        load_strictly(method, read_state(choice), choice)
        own = [sha256_file(choice)]
    elif "training" not in plain["method"]:
        _require_nothing_untrained(method, plain)
    elif choice == "official":
        found, published = _load_official(method, plain)
        own, verified = [found], verified and published
    else:
        own = [_load_trained(method, stage(plain, data))]
    hashes = [*own, *(part["sha256"] for part in parts)]
    return method, {
        "choice": choice if choice in ("official", "trained") else "file",
        "sha256": hashes[0] if len(hashes) == 1 else sha256_json(hashes),
        "verified": verified,
    }


def _require_nothing_untrained(method: Method, plain: dict[str, Any]) -> None:
    """Refuses parameters that no stage has filled in a method that is never trained."""
    if untrained := sorted(method.state_dict()):
        raise ValueError(
            f"expected a block `training` in the YAML of {plain['method']['name']}, which has weights of its own "
            f"({untrained[0]}), found none: add it, or keep them in a Frozen stage"
        )


def assembled(plain: dict[str, Any], data: DataModule) -> tuple[Method, list[dict[str, Any]]]:
    stages, parts = {}, []
    for argument, before in predecessors(plain).items():
        if before["weights"] not in ("official", "none"):
            before = {**before, "weights": "trained"}
        stages[argument], part = built(before, data)
        parts.append(part)
    cards = official_cards(plain) if plain["weights"] == "official" else {}
    given = {argument: getattr(data, argument)(**told) for argument, told in from_data(plain).items()}
    if "vocabulary" in cards:
        # Released text encoders know their words by the order of their authors' own file.
        given["vocabulary"] = read_captions(find(cards["vocabulary"], plain["paths"]["assets"])).vocabulary
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plain["seed"])
        method = construction.construct(arguments(plain["method"]), **stages, **given)
    if "vocabulary" in given:
        _require_known_words(method, given["vocabulary"], data)
    return method, parts


def arguments(method: dict[str, Any]) -> dict[str, Any]:
    """What builds a method: `module`, and `sampling`, the arguments that no training depends on."""
    return {**method["module"], **method.get("sampling", {})}


def _require_known_words(method: Method, vocabulary: Vocabulary, data: DataModule) -> None:
    """Refuses a caption of which the text encoder knows no word before any work is done, not when its turn comes."""
    known = next((module.known for module in method.modules() if isinstance(module, WordEmbedding)), vocabulary)
    # What is read of other splits is for nobody to know beforehand, where no prompt comes of it.
    splits = data.records.values() if method.task.prompt else [data.split("train")]
    for records in splits:
        for record in records:
            for number, caption in enumerate(record.captions[: data.num_captions]):
                if not known.knows(caption):
                    raise ValueError(
                        f"{data.root}: expected captions of known words, found none in caption {number} of "
                        f"{record.id}, {caption!r}: reword it"
                    )


def load_start(method: Method, plain: dict[str, Any]) -> None:
    """Fills what training starts from: submodules pretrained on another task, by `start` in the method's YAML."""
    for part, card in plain["method"].get("start", {}).items():
        method.get_submodule(part).load(find(construction.construct(card), plain["paths"]["assets"]))


def _load_trained(method: Method, wanted: Stage) -> str:
    if not wanted.weights.is_file():
        raise MissingAsset(
            f"expected trained weights of {wanted.name} at {wanted.weights}, found none: run mmbench train "
            f"method={wanted.name} data={wanted.plain['data']['name']} data.source={wanted.plain['data']['source']} "
            f"seed={wanted.plain['seed']}"
        )
    _require_own(method, wanted.weights)
    try:
        state = read_state(wanted.weights)
    except ValueError as error:
        found, _, _ = str(error).rpartition(": ")
        raise ValueError(f"{found}: remove it, and mmbench train makes it again from the last checkpoint") from None
    load_strictly(method, state, str(wanted.weights))
    return sha256_file(wanted.weights)


def _require_own(method: Method, weights: Path) -> None:
    """Refuses weights that lie beside the vocabulary of other captions, or beside other things that go with them."""
    for name, own in method.beside.items():
        path = weights.with_name(name)
        if path.is_file():
            own.require_same(type(own).read(path), str(path))


def _load_official(method: Method, plain: dict[str, Any]) -> tuple[str, bool]:
    cards = official_cards(plain)
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
            state = method.official[part](card.state(path), network)
            if "vocabulary" in cards and "embedding.weight" in state:
                method.vocabulary.require_rows(len(state["embedding.weight"]), str(path))
            load_strictly(network, state, str(path))
        hashes.append(sha256_file(path))
        verified = verified and card.sha256 is not None
    return sha256_json(hashes), verified


def prepared_data(plain: dict[str, Any], evaluation: bool = False) -> DataModule:
    """The data module of a plain configuration, its data made or checked.

    Args:
        plain: the configuration.
        evaluation: whether the protocol's holes and preprocessing take the place of those of training.

    Raises:
        MissingAsset: the data are not here.
        ValueError: the data set lacks a field that the method's task needs, or the protocol is for another task.
    """
    task = construction.target(plain["method"]["module"]).task
    chosen = {}
    if evaluation:
        require_task(plain, task)
        chosen = plain["data"]["evaluation"]
    data: DataModule = construction.construct({**plain["data"]["module"], **chosen})
    if missing := task.missing(data.fields):
        raise ValueError(
            f"expected the fields {', '.join(missing)} for {task.name} with {plain['method']['name']}, found "
            f"{plain['data']['name']} without them: choose another data set"
        )
    with first_alone():
        data.prepare_data()
    return data


def protocols_for(plain: dict[str, Any]) -> list[str]:
    """The names of the protocols that are for the task of a method."""
    task = construction.target(plain["method"]["module"]).task.name
    return [name for name in catalogue.names("protocol") if composition.node(f"protocol/{name}")["task"] == task]


def require_task(plain: dict[str, Any], task: Task) -> None:
    """Refuses a method under a protocol for another task.

    Raises:
        ValueError: names both tasks, and the protocols that are for the method's.
    """
    protocol = plain["protocol"]
    if protocol["task"] != task.name:
        fitting = protocols_for(plain)
        raise ValueError(
            f"expected a protocol for {task.name} with {plain['method']['name']}, found {protocol['name']}, which is "
            f"for {protocol['task']}: choose protocol={', '.join(fitting) or 'one of your own for that task'}"
        )
