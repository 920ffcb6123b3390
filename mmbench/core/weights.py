"""Weights: the authors' keys, strict loading, and files that hold tensors only."""

import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from mmbench.core.files import sha256_bytes
from mmbench.core.torch7 import parameters, read_t7

SUM = "sha256"  # in the metadata of a safetensors file of ours


@dataclass(frozen=True)
class KeyMap:
    """How a state dict in the authors' layout becomes one in ours. Applied in the order of the attributes.

    Patterns are regular expressions that must match a whole key. A prefix `module.` on every key, which DataParallel
    writes, is removed before anything else.

    Attributes:
        alias: (key, key) pairs that the authors list twice; they must be equal, the first is dropped.
        drop: pattern to reason, for what our network does not need.
        rename: ordered pattern to replacement (with \\1 groups); the first that matches applies, a key that matches
            none keeps its name.
        merge: our key to (our-side partial keys, function of their tensors): several of theirs make one of ours.
        convert: pattern on our key to a function of the tensor.
        fill: pattern on our keys to the value that old checkpoints lack (`num_batches_tracked`: 0).
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    drop: Mapping[str, str] = field(default_factory=dict)
    convert: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    merge: Mapping[str, tuple[Sequence[str], Callable[..., Tensor]]] = field(default_factory=dict)
    fill: Mapping[str, float] = field(default_factory=dict)
    alias: Sequence[tuple[str, str]] = ()

    def __call__(self, authors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        """The authors' state dict under the keys of `network`.

        Raises:
            ValueError: an alias pair is incomplete or differs, two keys are renamed to one, or a merge lacks a part.
        """
        wrapped = all(key.startswith("module.") for key in authors)
        state = {key.removeprefix("module.") if wrapped else key: value for key, value in authors.items()}
        for first, second in self.alias:
            if absent := [key for key in (first, second) if key not in state]:
                raise ValueError(f"expected {first} and {second}, one tensor listed twice, found no {absent[0]}")
            if not torch.equal(state[first], state[second]):
                raise ValueError(f"expected {first} and {second} to be one tensor listed twice, found them to differ")
            del state[first]
        state = {key: value for key, value in state.items() if not _first_match(self.drop, key)}
        ours: dict[str, Tensor] = {}
        for key, value in state.items():
            renamed = self.name(key)
            if renamed in ours:
                raise ValueError(f"expected one source for {renamed}, found a second one, {key}: correct the key map")
            ours[renamed] = value
        for key, (parts, function) in self.merge.items():
            absent = [part for part in parts if part not in ours]
            if absent:
                raise ValueError(f"expected {', '.join(parts)} to make {key}, found no {', '.join(absent)}")
            ours[key] = function(*(ours.pop(part) for part in parts))
        for key in ours:
            if pattern := _first_match(self.convert, key):
                ours[key] = self.convert[pattern](ours[key])
        for key, tensor in network.state_dict().items():
            if key not in ours and (pattern := _first_match(self.fill, key)):
                ours[key] = torch.full_like(tensor, self.fill[pattern])
        return ours

    def name(self, key: str) -> str:
        """Our name of one of the authors' keys, before any merge."""
        for pattern, replacement in self.rename.items():
            if match := re.fullmatch(pattern, key):
                return match.expand(replacement)
        return key


def _first_match(patterns: Mapping[str, Any], key: str) -> str | None:
    return next((pattern for pattern in patterns if re.fullmatch(pattern, key)), None)


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Fills `network` with `state`; every key and every shape must fit, in both directions.

    Raises:
        ValueError: one line that names `source`, how many keys are missing, unexpected or of another shape, and the
            first of each.
    """
    wanted = network.state_dict()
    problems = []
    if missing := sorted(wanted.keys() - state.keys()):
        problems.append(f"{len(missing)} missing (first {missing[0]})")
    if unexpected := sorted(state.keys() - wanted.keys()):
        problems.append(f"{len(unexpected)} unexpected (first {unexpected[0]})")
    for key in sorted(wanted.keys() & state.keys()):
        if wanted[key].shape != state[key].shape:
            found, expected = tuple(state[key].shape), tuple(wanted[key].shape)
            problems.append(f"{key} has shape {found} instead of {expected}")
            break
    if problems:
        raise ValueError(
            f"{source}: expected the weights of {type(network).__name__}, found {'; '.join(problems)}: "
            "use the file that its card names, or the configuration that the file was made with"
        )
    network.load_state_dict(dict(state), strict=True)


def read_state(
    path: str | Path, entry: str | None = None, prefix: str = "", averaged: bool = False
) -> dict[str, Tensor]:
    """Reads a state dict from a safetensors file, a PyTorch file of any age that holds tensors only, or one of Torch7.

    PyTorch files are pickles; whatever is no tensor is refused before it is built, so that a file cannot run code. Of
    Torch7's (`.t7`), keys are the places of modules (`torch7.parameters`).

    Args:
        path: of the file.
        entry: where a PyTorch file holds the state dict beside others and beside plain numbers and texts, the keys
            that lead to it, with dots between. Objects beside it, as Lightning leaves its callbacks there, are passed
            over: their classes are not looked for, and nothing of theirs is called.
        prefix: where the state dict is of several networks, the start of the wanted one's keys; they lose it.
        averaged: whether to take the averages over training that stand beside latent diffusion's weights
            (`with_averages`).

    Raises:
        ValueError: there is no file, it holds something else, or it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a file of weights, found none: put it there or correct the path")
    state = _content(path, with_objects=entry is not None)
    for key in entry.split(".") if entry else ():
        if not isinstance(state, Mapping) or key not in state:
            raise ValueError(f"{path}: expected {entry} in it, found no {key}: fetch the file that its card names")
        state = state[key]
    if not isinstance(state, Mapping) or not all(map(is_plain, state.items())):
        raise ValueError(
            f"{path}: expected a mapping of names to tensors, found {_description(state)}: save its state dict alone"
        )
    try:
        return below(prefix, with_averages(state) if averaged else state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _content(path: Path, with_objects: bool) -> Any:
    """What a file holds; objects of classes that are not PyTorch's as empty ones where `with_objects`."""
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix == ".t7":
        return {key: torch.from_numpy(value) for key, value in parameters(read_t7(path)).items()}
    try:
        require_sums(path)
        # PyTorch's list of what a file asks for is of zip archives alone; older files have no Lightning's objects.
        foreign = get_unsafe_globals_in_checkpoint(path) if with_objects and zipfile.is_zipfile(path) else []
        empty: list[Any] = [(type(name.rpartition(".")[2], (_Empty,), {}), name) for name in foreign]
        with safe_globals(empty):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever a damaged file provokes
        found, remedy = _refusal(error)
        raise ValueError(f"{path}: expected a PyTorch file of tensors only, found {found}: {remedy}") from None


class _Empty:
    """Takes the place of an object in a file, whatever its class, and forgets what it is given."""

    def __init__(self, *_: Any) -> None:
        """Nothing of it is used."""

    def __setstate__(self, _: Any) -> None:
        """Nothing of it is used."""


def below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose keys start with a prefix, without it; `first_stage_model.` is one of latent diffusion's.

    Raises:
        ValueError: there is none.
    """
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if prefix and not found:
        raise ValueError(
            f"expected keys that start with {prefix}, found {min(state, default='none')}: fetch the file that its card "
            "names"
        )
    return found


AVERAGES = "model_ema."


def with_averages(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict whose parameters are their averages over training, as latent diffusion's `LitEma` keeps them.

    It writes the average of `model.a.b` (in a first stage, of `a.b`) as `model_ema.ab`, without dots, and `decay` and
    `num_updates` beside; buffers have none and stay as they are.

    Raises:
        ValueError: there are no averages, or some of no tensor in it, or of two, or of another shape.
    """
    averages = {key.removeprefix(AVERAGES): value for key, value in state.items() if key.startswith(AVERAGES)}
    latest = {key: value for key, value in state.items() if not key.startswith(AVERAGES)}
    for count in ("decay", "num_updates"):
        averages.pop(count, None)
    if not averages:
        raise ValueError(f"expected averages over training ({AVERAGES}*), found none: take the file as it is")
    dotted: dict[str, list[str]] = {}
    for key in latest:
        dotted.setdefault(key.removeprefix("model.").replace(".", ""), []).append(key)
    for name, average in averages.items():
        keys = dotted.get(name, [])
        if len(keys) != 1 or latest[keys[0]].shape != average.shape:
            found = " and ".join(keys) if len(keys) != 1 else f"{keys[0]} of another shape"
            raise ValueError(
                f"expected one tensor that {AVERAGES}{name} is the average of, found {found or 'none'}: fetch the file "
                "that its card names"
            )
        latest[keys[0]] = average
    return latest


def encoded(state: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> bytes:
    """Named tensors as a safetensors file with the sum of its contents, by which a damaged one is known.

    As bytes, since the library's own writer raises no OSError of a full disk.

    Args:
        about: what its metadata say beside the sum.
    """
    content = {name: value.detach().contiguous().cpu() for name, value in state.items()}
    return save(content, {**(about or {}), SUM: sha256_bytes(save(content))})


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, compared with its sum where it has one (`encoded`).

    Raises:
        ValueError: it is damaged, or no such file; names it.
    """
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
            expected = (file.metadata() or {}).get(SUM)
        found = sha256_bytes(save(state)) if expected else None
    except Exception as error:  # safetensors raises its own class, which is no subclass of a public one
        raise ValueError(f"{path}: expected a safetensors file, found {error}: fetch it again") from None
    if found != expected:
        raise ValueError(f"{path}: expected contents with sha256 {expected}, found {found}: fetch it again")
    return state


def _refusal(error: Exception) -> tuple[str, str]:
    """What torch.load objected to, and the remedy; its own text advises to switch the protection off."""
    if match := re.search(r"[Uu]nsupported (?:global: )?GLOBAL ([\w.]+)", str(error)):
        return f"a pickle that also needs {match[1]}", "save its state dict alone, with code you trust"
    return "a damaged file or one of another kind", "fetch it again"


def require_sums(path: str | Path) -> None:
    """Compares the sums in a PyTorch file of today's kind, a zip archive, which PyTorch itself does not.

    Raises:
        BadZipFile: one differs.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"{damaged} is damaged")


def is_plain(entry: tuple[Any, Any]) -> bool:
    """Whether an entry of a state dict is a name and a dense tensor of real numbers, as networks here have them."""
    name, value = entry
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and not (value.is_meta or value.is_quantized or value.is_complex())
    )


def _description(state: Any) -> str:
    if not isinstance(state, Mapping):
        return type(state).__name__
    name, value = next(entry for entry in state.items() if not is_plain(entry))
    kind = f"{str(value.dtype).removeprefix('torch.')} {value.layout}" if isinstance(value, Tensor) else ""
    return f"{name!r} of type {type(value).__name__}{f' ({kind})' if kind else ''} among them"
