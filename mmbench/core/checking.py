"""The words of a command line checked before anything starts, with what to say when a name is misspelt."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Glob, Override

from mmbench.core import catalogue, command_line
from mmbench.core.command_line import STAGES
from mmbench.core.composition import BLOCKS, settable

CLOSED = frozenset({"data", "paths", "logger"})  # blocks to which no word can add a key, since nothing would read it
# Arguments of a data module that say which data it has, and not how it shows them.
OF_DATA = frozenset({"root", "assets", "split_scheme", "num_images", "toy_seed", "complete", "seed", "_target_"})


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
    return settable(tuple(sorted(chosen)))


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


def require_one_choice(choices: Sequence[Override]) -> None:
    """Refuses two choices from one group, of which Hydra would take one.

    Raises:
        ValueError: names the group.
    """
    for group in {word.get_key_element() for word in choices if not word.key_or_group.startswith("hydra")}:
        names_chosen = {str(word.value()) for word in choices if word.get_key_element() == group}
        if len(names_chosen) > 1:
            found = " and ".join(sorted(names_chosen))
            raise ValueError(f"expected one {group}=NAME, found {len(names_chosen)}, {found}: remove all but one")


def require_heard(words: Sequence[Override], groups: Sequence[str]) -> None:
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
