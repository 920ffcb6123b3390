"""The configuration of one run, settled: scales, data sources, the stages before it, and the command line over all."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import asdict
from inspect import signature
from typing import Any

from omegaconf import OmegaConf

from mmbench.core import catalogue, command_line
from mmbench.core.checking import check, require_heard, require_method, require_one_choice
from mmbench.core.command_line import STAGES
from mmbench.core.composition import container, key_paths, laid_over, one_line, plain, unresolved, without_method
from mmbench.core.construction import target
from mmbench.core.home import at_home
from mmbench.core.prompts import read_prompts
from mmbench.core.protocol import Protocol

SCALES = ("published", "toy", "tiny")  # each laid over the one before
SOURCES = ("real", "toy")
# Lightning's other spellings of a precision, each as one, so that a run has one name.
PRECISIONS = {
    **dict.fromkeys(("32", "single"), "32-true"),
    **dict.fromkeys(("64", "double"), "64-true"),
    "16": "16-mixed",
    "bf16": "bf16-mixed",
}
# What a trainer may be told: where and how exactly it computes, and nothing that makes other weights.
HARDWARE = frozenset(
    {
        "accelerator", "devices", "strategy", "precision", "sync_batchnorm", "deterministic", "benchmark", "profiler",
        "num_nodes", "detect_anomaly", "plugins",
    }
)  # fmt: skip
OF_TRAINING = frozenset({"epochs", "steps", "steps_per_epoch", "batch_size", "accumulate", "select", "keep", "at"})
OF_TABLE = frozenset({"experiment", "weights"})  # which no stage hangs on
OF_METHOD = frozenset({"name", "module", "sampling", "stages", "from_data", "start", "official", "training"})


def folders(words: Sequence[str]) -> dict[str, str]:
    """`paths` as the words of a command line, or the environment, have them; other words are passed over.

    Raises:
        ValueError: as `composed`.
    """
    named = [word for word in words if word.startswith("paths.")]
    return composed([f"method={catalogue.names('method')[0]}", *named])["paths"]


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
    require_one_choice(choices)
    method = next(word for word in choices if word.key_or_group == "method" and not word.package)
    require_heard(words, groups)
    beside = [word for word in choices if word.get_key_element() != "method"]
    root = without_method(tuple(sorted(command_line.line_of(word) for word in beside)))
    own = root.pop("method", {})  # what a choice put there, `+network/vgg@method.module.perceptual=toy` say
    described = unresolved("method", str(method.value()))
    settled = _settled(root, laid_over(described, own), values, {})
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
        cfg[group] = laid_over(cfg[group], block) if source == "toy" else cfg[group]
    small = cfg["data"].pop("small", {})
    own_data = laid_over(cfg["method"].pop("data", {}), given.get("data", {}))
    cfg["data"] = laid_over(laid_over(cfg["data"], small if scale != "published" else {}), own_data)
    cfg["method"] = laid_over(cfg["method"], {key: item for key, item in given.items() if key != "data"})
    whole = OmegaConf.create(cfg)
    is_told = any(key.startswith("protocol.metrics") for key, _ in values)
    as_in_file = plain(whole.protocol.metrics) if is_told else {}
    for key, value in values:
        if not key.startswith(f"{STAGES}."):
            with one_line():
                is_list = OmegaConf.is_list(OmegaConf.select(whole, key, throw_on_missing=False))
                OmegaConf.update(whole, key, value, merge=not is_list, force_add=True)
    if given:  # what is said of a stage's data is said of them alone, and outweighs what is said of all
        whole.data = laid_over(container(whole.data), own_data)
    found = plain(whole)
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
        found["paths"][key] = at_home(folder)
    found["weights"] = at_home(found["weights"])
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
            found[wanted] = unresolved(f"network/{folder}", file or kind)
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
    method = unresolved("method", name)
    inherited = [(key, value) for key, value in values if not key.startswith(("method.", "protocol."))]
    said = OmegaConf.create(entry)
    told: dict[str, str] = {}
    for key, value in values:
        group, _, path = key.partition(".")
        first, _, rest = path.partition(".")
        if group == STAGES and first in (argument, name):
            if told.setdefault(rest, key) != key:
                raise ValueError(f"expected one word for {rest} of the stage {name}, found {told[rest]} and {key}")
            known = key_paths(_settled(root, method, inherited, {}), ("method", "data"))
            known |= {f"method.training.{name}" for name in OF_TRAINING}  # those that its file leaves out, too
            if _of_a_stage(rest) not in known:
                catalogue.unknown(f"key of the stage {first}", rest, (path.removeprefix("method.") for path in known))
            OmegaConf.update(said, rest, value, force_add=True)
    settled = _settled(root, method, inherited, {"name": name, **container(said)})
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
            method = laid_over(method, blocks[name])
    if method.get("official", {}) is None:  # an ablation has all of the full method but its published weights
        method.pop("official")
    return method


def _on(block: Mapping[Any, Any], data: str) -> dict[str, Any]:
    """A block with what its `on` says of a data set laid over it."""
    keys = dict(block)
    # YAML reads a bare `on` as true; a defaults list writes the word itself.
    here = laid_over(keys.pop("on", {}), keys.pop(True, {})).get(data, {})
    return laid_over(keys, here)


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
