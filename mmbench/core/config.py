"""Configuration: where it lies, how a run is composed, and what to say when a name is misspelt."""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import asdict, fields
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import platformdirs
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from mmbench.core import catalogue, command_line
from mmbench.core.catalogue import ROOT
from mmbench.core.command_line import STAGES
from mmbench.core.files import sha256_json
from mmbench.core.prompts import read_prompts
from mmbench.core.protocol import Protocol


def _cache_folder() -> str:
    """The user's folder for what can be had again.

    Raises:
        ValueError: nobody knows where this user is at home, as in a container that runs as a number.
    """
    try:
        return platformdirs.user_cache_dir("mmbench")
    except RuntimeError as error:
        raise ValueError(
            f"expected a home folder of this user, found none ({error}): set MMBENCH_HOME or HOME"
        ) from None


def _at_home(folder: Any) -> str:
    """A folder with a leading ~, which no shell expands behind a `=`, as the home that it stands for."""
    return os.path.expanduser(str(folder))  # noqa: PTH111  (pathlib raises where there is no home, this leaves it)


def _assets_folder() -> str:
    return os.environ.get("MMBENCH_HOME") or _cache_folder()


OmegaConf.register_new_resolver("assets_folder", _assets_folder, replace=True)
OmegaConf.register_new_resolver("at_home", _at_home, replace=True)
# Unlike Hydra's oc.env, an empty variable counts as none.
OmegaConf.register_new_resolver("folder", lambda name, default: os.environ.get(name) or default, replace=True)

SCALES = ("published", "toy", "tiny")  # each laid over the one before
SOURCES = ("real", "toy")
# Lightning's other spellings of a precision, each as one, so that a run has one name.
PRECISIONS = {
    **dict.fromkeys(("32", "single"), "32-true"),
    **dict.fromkeys(("64", "double"), "64-true"),
    "16": "16-mixed",
    "bf16": "bf16-mixed",
}
CLOSED = frozenset({"data", "paths", "logger"})  # blocks to which no word can add a key, since nothing would read it
BLOCKS = {"method": ("on", "toy", "tiny"), "data": ("toy", "small"), "protocol": ("toy",)}  # no keys of a run
# What a trainer may be told: where and how exactly it computes, and nothing that makes other weights.
HARDWARE = frozenset(
    {
        "accelerator", "devices", "strategy", "precision", "sync_batchnorm", "deterministic", "benchmark", "profiler",
        "num_nodes", "detect_anomaly", "plugins",
    }
)  # fmt: skip

# Arguments of a data module that say which data it has, and not how it shows them.
OF_DATA = frozenset({"root", "assets", "split_scheme", "num_images", "toy_seed", "complete", "seed", "_target_"})
OF_TRAINING = frozenset({"epochs", "steps", "steps_per_epoch", "batch_size", "accumulate", "select", "keep", "at"})
OF_TABLE = frozenset({"experiment", "weights"})  # which no stage hangs on
OF_METHOD = frozenset({"name", "module", "sampling", "stages", "from_data", "start", "official", "training"})

# What changes neither an image nor a score: where files lie, and how the work is cut up. Embeddings that lie somewhere
# are in the fingerprint of the data. Of a method's `training`
# everything counts, the size of its batches first.
NEUTRAL = frozenset({"assets", "root", "batch_size", "num_workers", "cache", "embeddings"})


def default_assets() -> Path:
    """The folder for data and weights where no command line says another: `$MMBENCH_HOME`, else the user's cache."""
    return Path(_at_home(_assets_folder()))


def check(overrides: Sequence[str]) -> None:
    """Checks the words of a command line, sweeps included, before anything starts.

    Raises:
        ValueError: one line with the nearest valid names for a key, a group or a choice that does not exist; a word
            takes a key or a choice away.
    """
    groups = catalogue.groups()
    for override in command_line.parse(overrides):
        if override.is_delete() and command_line.is_value(override):
            key = override.key_or_group
            raise ValueError(f"expected key=value, found ~{key}: nothing is taken away, set another value")
    known = known_keys(overrides)
    for override in command_line.parse(overrides):
        key = override.key_or_group
        if key in groups or not command_line.is_value(override) or key in known or key.startswith(f"{STAGES}."):
            continue
        first, _, _ = key.partition(".")
        block, _, _ = key.rpartition(".")
        adds = override.is_add() or override.is_force_add()
        if not (adds and first in known and block and block not in CLOSED):
            catalogue.unknown("configuration key", key, known | set(groups))


def known_keys(overrides: Sequence[str]) -> frozenset[str]:
    """The keys that a command line can set beside its choices.

    Raises:
        ValueError: a choice does not exist; one line with the nearest names.
    """
    groups = catalogue.groups()
    chosen = []
    for override in command_line.parse(overrides):
        key = override.key_or_group
        if key in groups:
            values = _choices(override)
            for value in values:
                if value is not None and str(value) not in catalogue.names(key):
                    catalogue.unknown("data set" if key == "data" else key, str(value), catalogue.names(key))
            if values:
                chosen.append(f"{key}={values[0]!s}")
    if not any(word.startswith("method=") for word in chosen):
        chosen.append(f"method={catalogue.names('method')[0]}")  # only to learn which keys there are
    return _known(tuple(sorted(chosen)), catalogue.shipped("conf"))


def folders(words: Sequence[str]) -> dict[str, str]:
    """`paths` as the words of a command line, or the environment, have them; other words are passed over.

    Raises:
        ValueError: as `composed`.
    """
    named = [word for word in words if word.startswith("paths.")]
    return composed([f"method={catalogue.names('method')[0]}", *named])["paths"]


def _choices(override: Override) -> list[Any]:
    """What a word chooses of its group: one, or those of a sweep."""
    value = override.value()
    if isinstance(value, Glob):
        group = override.key_or_group
        if not (found := value.filter(catalogue.names(group))):
            catalogue.unknown(group, command_line.line_of(override).partition("=")[2], catalogue.names(group))
        return list(found)
    return list(override.sweep_string_iterator()) if override.is_discrete_sweep() else [value]


def require_method(overrides: Sequence[str]) -> None:
    """Raises ValueError if no word chooses a method."""
    if not any(override.key_or_group == "method" for override in command_line.parse(overrides)):
        raise ValueError(f"expected method=NAME, found none: choose from {', '.join(catalogue.names('method'))}")


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of one run as plain values: `conf/run.yaml` with the words of a command line, settled.

    A method's YAML may have, beside what the run reads: `on`, data set to what is laid over the rest there; `data`,
    what it changes of the data set at its published size; and the blocks `toy` and `tiny`, laid over the rest (`tiny`
    over `toy`) by `scale`, which may have `on` and `data` too. The block `toy` of a data set and of a protocol holds on
    toy data, `small` of a data set at the scales toy and tiny. `stages` becomes, for each constructor argument, the
    whole `method` and `data` of the stage that fills it: as it is trained alone, but for what the method says of it,
    and the words `stages.NAME.KEY`. What the command line says wins over everything.

    Raises:
        ValueError: a name or key does not exist, or a key of the trainer is none of hardware; one line with the
            nearest valid ones.
    """
    return _once(tuple(overrides), lambda: _composed(overrides))


_HELD: ContextVar[dict[Any, dict[str, Any]] | None] = ContextVar("composed before", default=None)


def _once(key: Any, compose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `compose` returns; inside `remembering` of the same key a copy of what it returned first."""
    held = _HELD.get()
    if held is None:
        return compose()
    if key not in held:
        held[key] = compose()
    return deepcopy(held[key])


@contextmanager
def remembering() -> Iterator[None]:
    """Inside, the same words are composed once, and a stage that many stand on: environment and files are to stay.

    A site composes each of its rows for its numbers and for its pictures.
    """
    token = _HELD.set({})
    try:
        yield
    finally:
        _HELD.reset(token)


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    check(overrides)
    require_method(overrides)
    words = command_line.parse(overrides)
    groups = catalogue.groups()
    if swept := [word.key_or_group for word in words if word.is_sweep_override()]:
        raise ValueError(
            f"expected one value of {swept[0]}, found several: `train` and `evaluate` --multirun take them"
        )
    choices = [word for word in words if not command_line.is_value(word) or word.key_or_group in groups]
    values = [(word.key_or_group, word.value()) for word in words if word not in choices and not word.is_delete()]
    _require_one_choice(choices)
    method = next(word for word in choices if word.key_or_group == "method" and not word.package)
    _require_heard(words, groups)
    beside = [word for word in choices if word.get_key_element() != "method"]
    root = _root(tuple(sorted(command_line.line_of(word) for word in beside)), catalogue.shipped("conf"))
    own = root.pop("method", {})  # what a choice put there, `+network/vgg@method.module.perceptual=toy` say
    described = _described("method", str(method.value()), catalogue.shipped("conf"))
    settled = _settled(root, _laid_over(described, own), values, {})
    for key, _ in values:
        group, _, path = key.partition(".")
        if group == STAGES and path.partition(".")[0] not in (known := _names_of_stages(settled["method"])):
            catalogue.unknown(f"stage of {settled['method']['name']}", path.partition(".")[0], known)
    if settled["data"]["source"] != "toy" and (toy := [key for key, _ in values if key.startswith("data.toy_")]):
        raise ValueError(f"expected data.source=toy with {toy[0]}, found real data: add it, or leave the key out")
    if strangers := sorted(settled["trainer"].keys() - HARDWARE - {"_target_"}):
        raise ValueError(
            f"expected trainer keys of hardware ({', '.join(sorted(HARDWARE))}), found trainer.{strangers[0]}: what "
            "changes weights belongs to method.training"
        )
    return settled


def _require_one_choice(choices: Sequence[Override]) -> None:
    """Refuses two choices from one group, of which Hydra would take one.

    Raises:
        ValueError: names the group.
    """
    for group in {word.get_key_element() for word in choices if not word.key_or_group.startswith("hydra")}:
        names_chosen = {str(word.value()) for word in choices if word.get_key_element() == group}
        if len(names_chosen) > 1:
            found = " and ".join(sorted(names_chosen))
            raise ValueError(f"expected one {group}=NAME, found {len(names_chosen)}, {found}: remove all but one")


def _require_heard(words: Sequence[Override], groups: Sequence[str]) -> None:
    """Refuses words that nothing would read.

    Raises:
        ValueError: a word renames a choice, sets a key of a block that is laid over the rest, or
            speaks of a stage, or of its data, otherwise than the stage can be told.
    """
    for word in words:
        key = word.key_or_group
        group, _, path = key.partition(".")
        first, _, rest = path.partition(".")
        if first in (*BLOCKS.get(group, ()), *(("data",) if group == "method" else ())):
            found = f"{group}.{first}"
            raise ValueError(f"expected a key of the run, found one of the block {found}: set {group}.KEY or data.KEY")
        if key == "protocol.metrics":
            raise ValueError(f"expected {key}.NAME.KEY=VALUE, found {key}: name a metric and one of its settings")
        if key in ("method.name", "data.name"):
            raise ValueError(f"expected {group}=NAME, found {key}: a {group} has the name of its file")
        if key.startswith(f"method.{STAGES}.") and rest.partition(".")[2]:
            raise ValueError(f"expected {STAGES}.NAME.KEY=VALUE, found {key}: write {STAGES}.{rest}")
        if group == STAGES and (rest == "name" or rest.rpartition(".")[2] == "_target_"):
            raise ValueError(
                f"expected a setting of the stage, found {key}: method.{STAGES}.{first}=NAME names another"
            )
        if group == STAGES and not rest:
            raise ValueError(f"expected {STAGES}.NAME.KEY=VALUE, found {key}: name a stage and one of its keys")
        part, _, argument = rest.partition(".module.")
        if group == STAGES and part.startswith("data") and (not argument or argument in OF_DATA):
            raise ValueError(
                f"expected a stage on the same data, found {key}: set how it sees them, as "
                f"{STAGES}.{first}.data.module.image_size"
            )


def _settled(
    root: dict[str, Any], method: dict[str, Any], values: Sequence[tuple[str, Any]], given: Mapping[str, Any]
) -> dict[str, Any]:
    """A method in its configuration, the stages before it inside.

    Args:
        root: everything but the method, as its files say.
        method: the method as its file says.
        values: the words of the command line that set a value.
        given: of a stage, what the methods that stand on it, and the command line, say of it; its `name` at least.
    """
    said = dict(values)
    cfg = {**deepcopy(root), "method": deepcopy(method)}
    source, data = said.get("data.source", cfg["data"]["source"]), cfg["data"]["name"]
    if source not in SOURCES:
        catalogue.unknown("data.source", str(source), SOURCES)
    scale = said.get("scale", cfg["scale"]) or ("toy" if source == "toy" else "published")
    if scale not in SCALES:
        catalogue.unknown("scale", str(scale), SCALES)
    cfg["scale"] = scale
    cfg["method"] = _at_scale(cfg["method"], data, scale)
    for group in ("data", "protocol"):
        block = cfg[group].pop("toy", {})
        cfg[group] = _laid_over(cfg[group], block) if source == "toy" else cfg[group]
    small = cfg["data"].pop("small", {})
    own_data = _laid_over(cfg["method"].pop("data", {}), given.get("data", {}))
    cfg["data"] = _laid_over(_laid_over(cfg["data"], small if scale != "published" else {}), own_data)
    cfg["method"] = _laid_over(cfg["method"], {key: item for key, item in given.items() if key != "data"})
    whole = OmegaConf.create(cfg)
    is_told = any(key.startswith("protocol.metrics") for key, _ in values)
    as_in_file = _plain(whole.protocol.metrics) if is_told else {}
    for key, value in values:
        if not key.startswith(f"{STAGES}."):
            with _one_line():
                is_list = OmegaConf.is_list(OmegaConf.select(whole, key, throw_on_missing=False))
                OmegaConf.update(whole, key, value, merge=not is_list, force_add=True)
    if given:  # what is said of a stage's data is said of them alone, and outweighs what is said of all
        whole.data = _laid_over(_container(whole.data), own_data)
    found = _plain(whole)
    _require_values(found)
    found["settings"] = {
        name: told
        for name, node in as_in_file.items()
        if (told := settings_told(name, node, found["protocol"]["metrics"][name]))
    }
    judges = found["protocol"].get("extractors") or {}
    kind = "toy" if source == "toy" else "standard"
    found["protocol"]["extractors"] = with_extractors(found["protocol"].get("metrics", {}), judges, kind)
    if isinstance(file := found["protocol"].get("prompts"), str):
        found["protocol"]["prompts"] = read_prompts(file)  # what counts is what it says
    found["protocol"] = asdict(Protocol.of(found["protocol"]))
    _require_read(found["method"], method)
    found["data"]["evaluation"] = of_protocol(found["protocol"], found["data"])
    if stages := found["method"].get(STAGES):
        found["method"][STAGES] = {
            argument: _stage_of(root, argument, entry, values) for argument, entry in stages.items()
        }
    return found


def _endless(value: Any, key: str = "") -> Iterator[str]:
    """`KEY=VALUE` of each number that is infinite or none."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{key}={value}"
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from _endless(part, f"{key}.{name}" if key else str(name))


def _require_values(found: dict[str, Any]) -> None:
    """Refuses values of a run's own keys that nothing could use, and gives each spelling of a precision one name.

    Raises:
        ValueError: a seed is no whole number, a folder has no name, there is no choice of weights, a block of the
            protocol is none, or `profile` is neither true nor false, or is asked for beside a profiler of the trainer;
            or a number anywhere is none that a hash or a record can have.
    """
    seed, precision = found["seed"], found["trainer"]["precision"]
    if endless := next(_endless(found), ""):
        raise ValueError(f"expected finite numbers, found {endless}: correct it")
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise ValueError(f"expected seed=N, a whole number from 0 to 2^63 - 1, found {seed!r}: correct it")
    if not isinstance(found["profile"], bool):
        raise ValueError(f"expected profile=true or false, found {found['profile']!r}: choose one")
    if found["profile"] and found["trainer"].get("profiler"):
        raise ValueError("expected one of profile and trainer.profiler, found both: leave one out")
    if not isinstance(found["weights"], str) or not found["weights"]:
        raise ValueError(f"expected weights=official, trained, none or a file, found {found['weights']!r}: choose one")
    for key, folder in found["paths"].items():
        if folder is None and key == "mirror":
            continue
        if folder in (None, ""):
            raise ValueError(f"expected paths.{key}=FOLDER, found {folder!r}: name one")
        found["paths"][key] = _at_home(folder)
    found["weights"] = _at_home(found["weights"])
    for key in ("mask", "preprocessing", "default_preprocessing", "data", "rounding", "extractors"):
        if not isinstance(node := found["protocol"].get(key, {}), Mapping | None):
            raise ValueError(f"expected protocol.{key} as a block of keys, found {node!r}: set keys below it")
    if found["experiment"] is not None:
        found["experiment"] = str(found["experiment"])
        if found["experiment"] in ("", ".", "..") or set(found["experiment"]) & set("/\\"):
            raise ValueError(
                f"expected experiment=NAME, a folder below {found['paths']['results']}, found {found['experiment']!r}: "
                "name one without slashes, and set paths.results to write elsewhere"
            )
    found["trainer"]["precision"] = PRECISIONS.get(str(precision), precision)


def with_extractors(
    metrics: Mapping[str, Mapping[str, Any]], extractors: Mapping[str, dict[str, Any]], kind: str
) -> dict[str, dict[str, Any]]:
    """The extractors of a protocol, and those of `conf/network` that its metrics name and it lacks.

    Args:
        metrics: name to what builds it; an `extractor` that the protocol lacks is a folder of `conf/network`, `dinov2`
            say, or one of its files, `clip/vitl14`.
        extractors: name to what builds it.
        kind: the file that stands for a folder, `standard` or `toy`. Toy judges are those of birds: of scenes and
            flowers name the file, `clip/toy_scenes`.
    """
    found = dict(extractors)
    for metric in metrics.values():
        wanted = str(metric.get("extractor")) if isinstance(metric, Mapping) else ""
        folder, _, file = wanted.partition("/")
        if wanted not in found and (file or kind) in catalogue.names(f"network/{folder}"):
            found[wanted] = _described(f"network/{folder}", file or kind, catalogue.shipped("conf"))
    return found


def settings_told(name: str, usual: Mapping[str, Any], node: Any) -> str:
    """What a command line says of a metric beside its file, as a score's name has it: `(splits=1)`; "" where nothing.

    Another extractor is part of it, since toy ones are all called "toy".

    Args:
        name: the metric's.
        usual: what builds it, by its file and by the protocol's.
        node: the same with what the command line says.

    Raises:
        ValueError: a key is none of the metric's settings, or its value is of another kind.
    """
    settings = sorted(usual.keys() - {"_target_", "extractor"})
    if not isinstance(node, Mapping):
        raise ValueError(f"expected protocol.metrics.{name}.KEY=VALUE, found {node!r}: choose from {settings}")
    told = []
    for key in sorted(usual.keys() | node.keys()):
        if key == "_target_" and usual.get(key) != node.get(key):
            raise ValueError(
                f"expected a setting of {name}, found protocol.metrics.{name}._target_: name another metric"
            )
        if key not in usual:
            catalogue.unknown(f"setting of {name}", key, settings)
        if usual[key] == node.get(key):
            continue
        is_count = key != "extractor" and signature(target(usual)).parameters[key].annotation is int
        _require_alike(f"protocol.metrics.{name}.{key}", usual[key], node.get(key), is_count)
        told.append(f"{key}={node[key]}")
    return f"({','.join(told)})" if told else ""


def _require_alike(key: str, usual: Any, value: Any, is_count: bool) -> None:
    """Refuses a value of another kind than the usual one."""
    wanted = "as a whole number from 1" if is_count else "as a positive number"
    if isinstance(usual, int | float) and not isinstance(usual, bool):
        is_number = type(value) is int or (type(value) is float and not is_count)
        if not is_number or not (1 if is_count else 0) <= value < math.inf or value == 0:
            raise ValueError(f"expected {key} {wanted}, found {value!r}: correct it")
    elif not isinstance(value, type(usual)):
        raise ValueError(f"expected {key} as {usual!r} is, found {value!r}: correct it")


def _require_read(settled: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    """Refuses keys of a method that nothing reads, misspelt blocks among them.

    Keys of its own that others refer to (`${method.trunk}`) are read.

    Raises:
        ValueError: names the key, and the nearest valid ones.
    """
    text = str(described)
    for key in settled.keys() - OF_METHOD:
        if f"${{method.{key}" not in text:
            catalogue.unknown(f"key of method {settled['name']}", str(key), OF_METHOD | {"on", "data", "toy", "tiny"})
    for key in settled.get("training", {}).keys() - OF_TRAINING:
        catalogue.unknown("key of method.training", str(key), OF_TRAINING)


def _stage_of(root: dict[str, Any], argument: str, entry: Any, values: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """{"method", "data"} of a stage, settled."""
    root = {**root, "protocol": {"name": "none", "task": "none", "metrics": {}}}  # of evaluation, and large
    own = [(key, value) for key, value in values if key not in OF_TABLE]
    return _once(repr((root, argument, entry, own)), lambda: _stage(root, argument, entry, own))


def _stage(root: dict[str, Any], argument: str, entry: Any, values: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    entry = {"method": entry} if isinstance(entry, str) else dict(entry)
    name = entry.pop("method")
    if name not in catalogue.names("method"):
        catalogue.unknown("method", name, catalogue.names("method"))
    method = _described("method", name, catalogue.shipped("conf"))
    inherited = [(key, value) for key, value in values if not key.startswith(("method.", "protocol."))]
    said = OmegaConf.create(entry)
    told: dict[str, str] = {}
    for key, value in values:
        group, _, path = key.partition(".")
        first, _, rest = path.partition(".")
        if group == STAGES and first in (argument, name):
            if told.setdefault(rest, key) != key:
                raise ValueError(f"expected one word for {rest} of the stage {name}, found {told[rest]} and {key}")
            known = _paths(_settled(root, method, inherited, {}), ("method", "data"))
            known |= {f"method.training.{name}" for name in OF_TRAINING}  # those that its file leaves out, too
            if _of_a_stage(rest) not in known:
                catalogue.unknown(f"key of the stage {first}", rest, (path.removeprefix("method.") for path in known))
            OmegaConf.update(said, rest, value, force_add=True)
    settled = _settled(root, method, inherited, {"name": name, **_container(said)})
    return {
        "method": settled["method"],
        "data": {key: settled["data"][key] for key in settled["data"] if key != "evaluation"},
    }


def _of_a_stage(path: str) -> str:
    return path if path.partition(".")[0] == "data" else f"method.{path}"


def _names_of_stages(method: Mapping[str, Any]) -> set[str]:
    """By which the command line can speak of the stages of a method: argument, or name of the method that fills it."""
    found = set()
    for argument, stage in method.get(STAGES, {}).items():
        found |= {argument, stage["method"]["name"], *_names_of_stages(stage["method"])}
    return found


def _at_scale(method: dict[str, Any], data: str, scale: str) -> dict[str, Any]:
    """A method on a data set, at a scale: see `composed`."""
    blocks = {name: _on(method.pop(name, {}), data) for name in SCALES[1:]}
    method = _on(method, data)
    if scale != "published":
        method.pop("data", None)  # of the published size
        for name in SCALES[1 : SCALES.index(scale) + 1]:
            method = _laid_over(method, blocks[name])
    if method.get("official", {}) is None:  # an ablation has all of the full method but its published weights
        method.pop("official")
    return method


def _on(block: Mapping[Any, Any], data: str) -> dict[str, Any]:
    """A block with what its `on` says of a data set laid over it."""
    keys = dict(block)
    # YAML reads a bare `on` as true; a defaults list writes the word itself.
    here = _laid_over(keys.pop("on", {}), keys.pop(True, {})).get(data, {})
    return _laid_over(keys, here)


@cache  # composing takes a tenth of a second, and a table composes hundreds of rows
def _composed_root(words: tuple[str, ...], folder: Path) -> dict[str, Any]:
    return _container(_compose(["~method", *words]))


def _root(words: tuple[str, ...], folder: Path) -> dict[str, Any]:
    return deepcopy(_composed_root(words, folder))


@cache
def _composed_node(path: str, folder: Path) -> dict[str, Any]:
    cfg = _compose([], path)
    for key in path.split("/")[:-1]:
        cfg = cfg[key]
    return _container(cfg)


def _described(group: str, name: str, folder: Path) -> dict[str, Any]:
    """One YAML below `conf/` with its defaults, its interpolations as they stand."""
    return deepcopy(_composed_node(f"{group}/{name}", folder))


@cache
def _known(chosen: tuple[str, ...], folder: Path) -> frozenset[str]:
    """The keys that a command line can set, by its choices."""
    method = next(word for word in chosen if word.startswith("method="))
    cfg = _root(tuple(word for word in chosen if word is not method), folder)
    described = _described("method", method.partition("=")[2], folder)
    cfg["method"] = _laid_over(described, cfg.pop("method", {}))
    for group, blocks in BLOCKS.items():
        for block in blocks:
            cfg[group].pop(block, None)
    cfg["method"].pop(True, None)
    return frozenset(_paths(cfg)) | {f"protocol.{one.name}" for one in fields(Protocol)}


def forget() -> None:
    """Forgets what was composed before: for tests that change `conf/`."""
    for composing in (_composed_root, _composed_node, _known):
        composing.cache_clear()


def node(path: str) -> dict[str, Any]:
    """One YAML below `conf/` with its defaults, as plain values: `metric/fid`, `network/inception/standard`.

    Raises:
        ValueError: there is no such file; one line with the nearest names.
    """
    group, _, name = path.rpartition("/")
    if name not in catalogue.names(group):
        catalogue.unknown(group.rpartition("/")[2], name, catalogue.names(group))
    cfg = _compose([], path)
    for key in group.split("/"):
        cfg = cfg[key]
    return _plain(cfg)


def launcher(words: Sequence[str]) -> dict[str, Any]:
    """Hydra's launcher, as `hydra/launcher=NAME` and words of its keys have it, as plain values.

    Raises:
        ValueError: a word is none of Hydra's or of `paths`, or chooses what there is not.
    """
    cfg = _compose([f"method={catalogue.names('method')[0]}", *words], return_hydra_config=True)
    found = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
    assert isinstance(found, dict)
    return {str(key): item for key, item in found.items()}


def target(described: Mapping[str, Any]) -> Any:
    """The class that a node builds."""
    return get_class(described["_target_"])


def _compose(overrides: Sequence[str], root: str = ROOT, **options: bool) -> DictConfig:
    previous = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(catalogue.shipped("conf")), version_base="1.3"):
            return compose(root, list(overrides), **options)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"expected words that compose, found {' '.join(str(error).split())}: correct them") from None
    finally:
        GlobalHydra.instance().hydra = previous  # a command that is itself a Hydra application goes on with its own


def of_protocol(protocol: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a data module that a protocol gives at evaluation, and not in training.

    They say where the holes are, how large pictures are and how they become squares. A `default_preprocessing` is for
    methods that have none of their own.
    """
    given = {key: protocol[key] for key in ("mask", "preprocessing") if protocol.get(key)}
    if protocol.get("size"):
        given["image_size"] = protocol["size"]
    if protocol.get("default_preprocessing") and not data["module"].get("preprocessing"):
        given.setdefault("preprocessing", protocol["default_preprocessing"])
    return {**given, **protocol.get("data", {}).get(data["name"], {})}


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nodes as one, the second winning; a node that says what to build is replaced whole.

    Its arguments belong to its target.
    """
    joined = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(joined.get(key), Mapping)
        joined[key] = _laid_over(joined[key], value) if both and "_target_" not in value else value
    return joined


def _container(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg)  # type: ignore[return-value]


def _paths(node: Mapping[str, Any], keys: Iterable[str] | None = None, prefix: str = "") -> set[str]:
    """All keys, or those below some, with those below them: `a`, `a.b`."""
    found = set()
    for key in node if keys is None else keys:
        found.add(f"{prefix}{key}")
        if isinstance(node[key], Mapping):
            found |= _paths(node[key], None, f"{prefix}{key}.")
    return found


def construct(node: Mapping[str, Any], **arguments: Any) -> Any:
    """Hydra's `instantiate`, but objects are handed on, and errors of the target raised, as they are.

    Raises:
        ValueError: whatever the target raises; MissingAsset among them; it has no argument of such a name.
    """
    try:
        # As a partial, so that Hydra does not turn the given objects (data classes, say) into configuration.
        return instantiate(node, _partial_=True)(**arguments)
    except (InstantiationException, TypeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ValueError | TypeError):
            cause = cause.__cause__
        if isinstance(cause, ValueError):
            raise cause from None
        if cause and (stranger := re.search(r"unexpected keyword argument '(\w+)'", str(cause))):
            raise ValueError(
                f"expected arguments that {node['_target_']} has, found {stranger[1]!r}: leave it out, or correct its "
                "name"
            ) from None
        raise


def _plain(cfg: DictConfig) -> Any:
    """A resolved configuration as dicts, lists and scalars.

    Raises:
        ValueError: a value is missing, or refers to what there is not.
    """
    with _one_line():
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


@contextmanager
def _one_line() -> Iterator[None]:
    """Raises ValueError where a word of the command line is none that a configuration can take."""
    try:
        yield
    except (OmegaConfBaseException, GrammarParseError, RecursionError) as error:
        key, what = getattr(error, "full_key", "") or "each key", (str(error).splitlines() or ["nothing"])[0]
        raise ValueError(f"expected a value that {key} can have, found one that is none ({what}): correct it") from None


def scientific(value: Any) -> Any:
    """A plain configuration without the keys that change no result (`NEUTRAL`)."""
    if isinstance(value, dict):
        return {
            key: item if key == "training" else scientific(item) for key, item in value.items() if key not in NEUTRAL
        }
    if isinstance(value, list):
        return [scientific(item) for item in value]
    return value


def config_hash(value: Any) -> str:
    """SHA-256 of plain values, the same on every machine, whatever changes no result in them left out.

    Of the card of a file, what counts is which file it is (name, hash, member) and not where it comes from.
    """
    return sha256_json(identifying(scientific(value)))


def identifying(value: Any) -> Any:
    """Plain values in which each card of a file is only which file it is."""
    if isinstance(value, dict):
        if {"file", "sha256", "origin"} <= value.keys():
            return {key: value[key] for key in ("file", "sha256", "member") if key in value}
        return {key: identifying(item) for key, item in value.items()}
    if isinstance(value, list):
        return [identifying(item) for item in value]
    return value
