"""Configuration: where it lies, how a run is composed, and what to say when a name is misspelt."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NoReturn

import platformdirs
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mmbench.core.files import sha256_json

ROOT = "run"

OmegaConf.register_new_resolver("cache_folder", lambda: platformdirs.user_cache_dir("mmbench"), replace=True)
# Unlike Hydra's oc.env, an empty variable counts as none.
OmegaConf.register_new_resolver("folder", lambda name, default: os.environ.get(name) or default, replace=True)

# What changes neither an image nor a score: where files lie, and how the work is cut up.
NEUTRAL = frozenset({"assets", "root", "batch_size", "num_workers", "cache"})


def shipped(folder: str) -> Path:
    """A folder that comes with mmbench (`conf`, `experiments`, `results/published`): installed, or in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / folder
    return installed if installed.is_dir() else package.parent / folder


def default_assets() -> Path:
    """The folder for data and weights where no command line says another: `$MMBENCH_HOME`, else the user's cache."""
    return Path(os.environ.get("MMBENCH_HOME") or platformdirs.user_cache_dir("mmbench")).expanduser()


def names(group: str) -> list[str]:
    """The names one can choose in a config group (`method`, `data`, ..., also `experiment`), sorted."""
    folder = shipped("experiments") if group == "experiment" else shipped("conf") / group
    return sorted(path.stem for path in folder.glob("*.yaml"))


def summary(group: str, name: str) -> str:
    """The one-line help of a choice: the first line of its YAML, a comment."""
    folder = shipped("experiments") if group == "experiment" else shipped("conf") / group
    with (folder / f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().strip().removeprefix("#").strip()


def unknown(kind: str, found: str, valid: Iterable[str]) -> NoReturn:
    """Raises the one-line error for a name that does not exist, with the nearest valid ones."""
    valid = sorted(set(valid))
    nearest = difflib.get_close_matches(found, valid, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"choose from {', '.join(valid)}"
    raise ValueError(f"expected a {kind}, found {found!r}: {hint}")


def config_groups() -> list[str]:
    """Groups that a command line may choose from, e.g. `method`."""
    defaults = yaml.safe_load((shipped("conf") / f"{ROOT}.yaml").read_text(encoding="utf-8"))["defaults"]
    keys = (key for entry in defaults if isinstance(entry, dict) for key in entry)
    return [key.removeprefix("optional ") for key in keys if not key.startswith("override ")]


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's reading of `key=value` words.

    Raises:
        ValueError: a word is not in Hydra's grammar.
    """
    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            raise ValueError(f"expected key=value, found {word!r}: see `mmbench --help`")
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ValueError(f"expected key=value in Hydra's grammar, found {str(error).splitlines()[0]}") from None


def check(overrides: Sequence[str]) -> None:
    """Checks the words of a command line, sweeps included, before anything starts.

    Raises:
        ValueError: one line with the nearest valid names for a key, a group or a choice that does not exist.
    """
    parsed = parse(overrides)
    groups = config_groups()
    chosen = []
    for override in parsed:
        key = override.key_or_group
        if key in groups:
            values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
            for value in values:
                if value is not None and str(value) not in names(key):
                    unknown("data set" if key == "data" else key, str(value), names(key))
            if values:
                chosen.append(f"{key}={values[0]!s}")
    if not any(word.startswith("method=") for word in chosen):
        chosen.append(f"method={names('method')[0]}")  # only to learn which keys there are
    known = _paths(_compose(chosen))
    for override in parsed:
        key = override.key_or_group
        if key in groups or override.package or key.startswith("hydra") or override.is_add() or override.is_force_add():
            continue
        if key not in known:
            unknown("configuration key", key, known.union(groups))


def require_method(overrides: Sequence[str]) -> None:
    """Raises ValueError if no word chooses a method."""
    if not any(override.key_or_group == "method" for override in parse(overrides)):
        raise ValueError(f"expected method=NAME, found none: choose from {', '.join(names('method'))}")


def composed(overrides: Sequence[str]) -> DictConfig:
    """Composes `conf/run.yaml` with the words of a command line and settles it (see `settled`).

    Raises:
        ValueError: a name or key does not exist; one line with the nearest valid ones.
    """
    check(overrides)
    require_method(overrides)
    return settled(_compose(overrides), overrides)


def node(path: str) -> dict[str, Any]:
    """One YAML below `conf/` with its defaults, as plain values: `metric/fid`, `network/inception/standard`.

    Raises:
        ValueError: there is no such file; one line with the nearest names.
    """
    group, _, name = path.rpartition("/")
    if name not in names(group):
        unknown(group.rpartition("/")[2], name, names(group))
    cfg = _compose([], path)
    for key in group.split("/"):
        cfg = cfg[key]
    return plain(cfg)


def target(described: Mapping[str, Any]) -> Any:
    """The class that a node builds."""
    return get_class(described["_target_"])


def split_options(arguments: Sequence[str], own: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Splits a command's words into its own options and those for `conf/run.yaml`.

    Raises:
        ValueError: a word is not key=value, or an option of the command is given twice.
    """
    found: dict[str, str] = {}
    rest = []
    for word in arguments:
        key, equals, value = word.partition("=")
        if not equals or key.startswith("-"):
            raise ValueError(f"expected key=value, found {word!r}: see --help")
        if key not in own:
            rest.append(word)
        elif key in found:
            raise ValueError(f"expected {key}= once, found it twice: remove one")
        else:
            found[key] = value
    return found, rest


def words(text: str) -> list[str]:
    """`a,b` or `[a,b]` as a list of words."""
    return [word.strip() for word in text.strip("[]").split(",") if word.strip()]


def integers(text: str) -> list[int]:
    """`0,1,2` as a list of integers.

    Raises:
        ValueError: a part is no integer.
    """
    try:
        return [int(word) for word in words(text)]
    except ValueError:
        raise ValueError(f"expected integers separated by commas, found {text!r}") from None


def _compose(overrides: Sequence[str], root: str = ROOT) -> DictConfig:
    previous = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(shipped("conf")), version_base="1.3"):
            return compose(root, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(" ".join(str(error).split())) from None
    finally:
        GlobalHydra.instance().hydra = previous  # a command that is itself a Hydra application goes on with its own


def settled(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration as it will run: the `toy` blocks applied where `data.source=toy`, the others removed.

    A method, a data set and a protocol may each have a block `toy`, laid over their other keys when the data are toy
    data. What the command line says wins over both.
    """
    cfg = deepcopy(cfg)
    with open_dict(cfg):
        for group in ("method", "data", "protocol"):
            toy = cfg[group].pop("toy", None)
            cfg[group].pop("tiny", None)
            if toy is not None and cfg.data.source == "toy":
                _lay_over(cfg[group], toy)
        if cfg.method.get("official", {}) is None:  # an ablation has all of the full method but its published weights
            cfg.method.pop("official")
        cfg.data.evaluation = {
            argument: f"${{protocol.{key}}}" for argument, key in of_protocol(cfg.protocol, cfg.data.module).items()
        }
        groups = config_groups()
        for override in parse(overrides):
            key = override.key_or_group
            if key not in groups and not override.package and not key.startswith("hydra") and not override.is_delete():
                OmegaConf.update(cfg, key, override.value(), force_add=True)
    return cfg


def of_protocol(protocol: Mapping[str, Any], module: Mapping[str, Any]) -> dict[str, str]:
    """Arguments of a data module that a protocol gives at evaluation, and not in training, to the protocol's key.

    They say where the holes are and how pictures become squares. A `default_preprocessing` is for methods that have
    none of their own, by their recipe.
    """
    given = {argument: argument for argument in ("mask", "preprocessing", "bird_crop") if argument in protocol}
    if "bird_crop" not in module:  # other data sets have no box to crop to
        given.pop("bird_crop", None)
    if "default_preprocessing" in protocol and not module.get("preprocessing"):
        given.setdefault("preprocessing", "default_preprocessing")
    return given


def _lay_over(node: DictConfig, overlay: DictConfig) -> None:
    for key in overlay:
        value = overlay._get_node(key)
        below = node.get(key) if key in node else None
        # A node that says what to build is replaced whole: its arguments belong to its target.
        if isinstance(value, DictConfig) and isinstance(below, DictConfig) and "_target_" not in value:
            _lay_over(below, value)
        else:
            node[key] = value


def _paths(cfg: DictConfig, prefix: str = "") -> set[str]:
    found = set()
    for key in map(str, cfg):
        path = f"{prefix}{key}"
        found.add(path)
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            found |= _paths(node, f"{path}.")
    # The blocks that `settled` applies are not keys of a run.
    return {path for path in found if not re.match(r"(method|data|protocol)\.(toy|tiny)(\.|$)", path)}


def construct(node: Mapping[str, Any], **arguments: Any) -> Any:
    """Hydra's `instantiate`, but objects are handed on, and errors of the target raised, as they are.

    Raises:
        ValueError: whatever the target raises; MissingAsset among them.
    """
    try:
        # As a partial, so that Hydra does not turn the given objects (data classes, say) into configuration.
        return instantiate(node, _partial_=True)(**arguments)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ValueError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from None


def plain(cfg: Any) -> Any:
    """A resolved configuration as dicts, lists and scalars."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def scientific(value: Any) -> Any:
    """A plain configuration without the keys that change no result (`NEUTRAL`)."""
    if isinstance(value, dict):
        return {key: scientific(item) for key, item in value.items() if key not in NEUTRAL}
    if isinstance(value, list):
        return [scientific(item) for item in value]
    return value


def config_hash(value: Any) -> str:
    """SHA-256 of a plain configuration, the same on every machine."""
    return sha256_json(scientific(value))
