"""The YAML files below `conf/` as Hydra composes them: one of them, all but the method, and the keys that they have."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, cast

import hydra
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from mmbench.core import catalogue, home  # noqa: F401  (home registers the resolvers that the files use)
from mmbench.core.catalogue import ROOT
from mmbench.core.protocol import Protocol

BLOCKS = {"method": ("on", "toy", "tiny"), "data": ("toy", "small"), "protocol": ("toy",)}  # no keys of a run


def node(path: str) -> dict[str, Any]:
    """One YAML below `conf/` with its defaults, as plain values: `metric/fid`, `network/inception/standard`.

    Raises:
        ValueError: there is no such file; one line with the nearest names.
    """
    group, _, name = path.rpartition("/")
    if name not in catalogue.names(group):
        catalogue.unknown(group.rpartition("/")[2], name, catalogue.names(group))
    cfg = compose([], path)
    for key in group.split("/"):
        cfg = cfg[key]
    return plain(cfg)


def launcher(words: Sequence[str]) -> dict[str, Any]:
    """Hydra's launcher, as `hydra/launcher=NAME` and words of its keys have it, as plain values.

    Raises:
        ValueError: a word is none of Hydra's or of `paths`, or chooses what there is not.
    """
    cfg = compose([f"method={catalogue.names('method')[0]}", *words], return_hydra_config=True)
    found = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
    assert isinstance(found, dict)
    return {str(key): item for key, item in found.items()}


def without_method(words: tuple[str, ...]) -> dict[str, Any]:
    """`conf/run.yaml` with the choices of a command line, but for the method, its interpolations as they stand."""
    return deepcopy(_composed_root(words, catalogue.shipped("conf")))


@cache  # composing takes a tenth of a second, and a table composes hundreds of rows
def _composed_root(words: tuple[str, ...], folder: Path) -> dict[str, Any]:
    return container(compose(["~method", *words]))


def unresolved(group: str, name: str) -> dict[str, Any]:
    """One YAML below `conf/` with its defaults, its interpolations as they stand."""
    return deepcopy(_composed_node(f"{group}/{name}", catalogue.shipped("conf")))


@cache
def _composed_node(path: str, folder: Path) -> dict[str, Any]:
    cfg = compose([], path)
    for key in path.split("/")[:-1]:
        cfg = cfg[key]
    return container(cfg)


def settable(chosen: tuple[str, ...]) -> frozenset[str]:
    """The keys that a command line can set beside its choices, of which one is a method."""
    return _settable(chosen, catalogue.shipped("conf"))


@cache
def _settable(chosen: tuple[str, ...], folder: Path) -> frozenset[str]:
    method = next(word for word in chosen if word.startswith("method="))
    cfg = without_method(tuple(word for word in chosen if word is not method))
    cfg["method"] = laid_over(unresolved("method", method.partition("=")[2]), cfg.pop("method", {}))
    for group, blocks in BLOCKS.items():
        for block in blocks:
            cfg[group].pop(block, None)
    cfg["method"].pop(True, None)
    return frozenset(key_paths(cfg)) | {f"protocol.{one.name}" for one in fields(Protocol)}


def forget() -> None:
    """Forgets what was composed before: for tests that change `conf/`."""
    for composing in (_composed_root, _composed_node, _settable):
        composing.cache_clear()


def compose(overrides: Sequence[str], root: str = ROOT, **options: bool) -> DictConfig:
    """What Hydra makes of a YAML below `conf/` and words, whether or not Hydra runs already.

    Raises:
        ValueError: the words do not compose.
    """
    previous = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(catalogue.shipped("conf")), version_base="1.3"):
            return hydra.compose(root, list(overrides), **options)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"expected words that compose, found {' '.join(str(error).split())}: correct them") from None
    finally:
        GlobalHydra.instance().hydra = previous  # a command that is itself a Hydra application goes on with its own


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nodes as one, the second winning; a node that says what to build is replaced whole.

    Its arguments belong to its target.
    """
    joined = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(joined.get(key), Mapping)
        joined[key] = laid_over(joined[key], value) if both and "_target_" not in value else value
    return joined


def key_paths(node: Mapping[str, Any], keys: Iterable[str] | None = None, prefix: str = "") -> set[str]:
    """All keys, or those below some, with those below them: `a`, `a.b`."""
    found = set()
    for key in node if keys is None else keys:
        found.add(f"{prefix}{key}")
        if isinstance(node[key], Mapping):
            found |= key_paths(node[key], None, f"{prefix}{key}.")
    return found


def container(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as dicts, lists and scalars, its interpolations as they stand."""
    return cast("dict[str, Any]", OmegaConf.to_container(cfg))


def plain(cfg: DictConfig) -> Any:
    """A resolved configuration as dicts, lists and scalars.

    Raises:
        ValueError: a value is missing, or refers to what there is not.
    """
    with one_line():
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


@contextmanager
def one_line() -> Iterator[None]:
    """Raises ValueError where a word of the command line is none that a configuration can take."""
    try:
        yield
    except (OmegaConfBaseException, GrammarParseError, RecursionError) as error:
        key, what = getattr(error, "full_key", "") or "each key", (str(error).splitlines() or ["nothing"])[0]
        raise ValueError(f"expected a value that {key} can have, found one that is none ({what}): correct it") from None
