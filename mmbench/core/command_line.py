"""The words of a command line: what Hydra's grammar makes of them, and a command's own options among them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from mmbench.core.protocol import Protocol

STAGES = "stages"


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's reading of `key=value` words.

    Raises:
        ValueError: a word is not in Hydra's grammar.
    """
    return list(_parsed(tuple(overrides)))


@cache  # a command and each of its rows ask several times
def _parsed(overrides: tuple[str, ...]) -> list[Override]:
    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            raise ValueError(f"expected key=value, found {word!r}: see `mmbench --help`")
    parser = OverridesParser.create()
    parsed = []
    for word in overrides:
        try:
            parsed += parser.parse_overrides([word])
        except HydraException as error:
            what = str(error).splitlines()[0].removesuffix(word).strip(": ")
            key, _, value = word.partition("=")
            shown = value.replace("'", "")
            raise ValueError(
                f"expected key=value in Hydra's grammar, found {word} ({what}): quote a value with spaces, brackets, "
                f"commas, = or ~ in it twice, for the shell and for Hydra, as \"{key}='{shown}'\""
            ) from None
    return parsed


def require_once(words: Sequence[str]) -> None:
    """Refuses words of which one would silently win over another.

    Args:
        words: what was typed; what is no key=value is passed over.

    Raises:
        ValueError: a key has two values; names it.
    """
    found: dict[str, str] = {}
    for override in parse([word for word in words if "=" in word and not word.startswith("-")]):
        key, word = override.get_key_element().lstrip("+~"), line_of(override)
        if found.setdefault(key, word) != word:
            raise ValueError(f"expected {key}= once, found {found[key]} and {word}: remove one")


def split_options(arguments: Sequence[str], own: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Splits a command's words into its own options and those for `conf/run.yaml`.

    Raises:
        ValueError: a word is not key=value, an option of the command is given twice, or another key has two values.
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
    require_once(rest)
    return found, rest


def require_said(own: Mapping[str, str]) -> None:
    """Refuses options without a value.

    Raises:
        ValueError: names the option.
    """
    for key, value in own.items():
        if not value.strip():
            raise ValueError(f"expected {key}=VALUE, found {value!r}: say it, or leave the option out")


def listed(text: str) -> list[str]:
    """`a,b` or `[a,b]` as a list of words."""
    return [word.strip() for word in text.strip("[]").split(",") if word.strip()]


def integers(text: str) -> list[int]:
    """`0,1,2` as a list of integers.

    Raises:
        ValueError: a part is no integer.
    """
    try:
        return [int(word) for word in listed(text)]
    except ValueError:
        raise ValueError(f"expected integers separated by commas, found {text!r}") from None


def for_hydra(word: str) -> str:
    """A word as Hydra takes it: keys of stages, and those of a protocol that its file leaves out, are to be added.

    What a `+` adds may be there already.
    """
    if word.startswith(f"{STAGES}."):
        return f"+{word}"
    if word.startswith("+") and "@" not in word and "/" not in word.partition("=")[0]:
        return f"++{word.lstrip('+')}"
    if any(word.startswith(f"protocol.{one.name}=") for one in fields(Protocol)):
        return f"++{word}"
    return word


def is_value(override: Override) -> bool:
    """Whether a word sets a value, and is no choice of a group and none of Hydra's own."""
    return not override.package and not override.key_or_group.startswith("hydra") and "/" not in override.key_or_group


def line_of(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line


def whole_number(option: str, text: str, least: int) -> int:
    """What a command line says of an option that is a number.

    Raises:
        ValueError: it is no whole number, or a smaller one than `least`.
    """
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"expected {option}=N, a whole number of {least} or more, found {text!r}: correct it")
    return int(text)
