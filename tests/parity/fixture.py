"""Reading recorded fixtures: which there are, and their weights with the recording's own options applied."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paritykit
import torch
from torch import nn

RECORDED = Path(__file__).parent / "fixtures"


def load_folder(folder: Path) -> list[dict]:
    """All fixtures below a folder, sorted by name."""
    fixtures = sorted((paritykit.load(path) for path in sorted(folder.rglob("*.json"))), key=lambda one: one["name"])
    if not fixtures:
        raise ValueError(f"{folder}: expected fixtures (*.json), found none: name the folder that holds them")
    return fixtures


def is_layout(fixture: dict) -> bool:
    """Whether a fixture is the layout of a released checkpoint only, without inputs and outputs."""
    return not fixture["outputs"]


def state(fixture: dict) -> dict[str, torch.Tensor]:
    """The authors' state dict, with `state_scale` and `state_adjust` of the fixture's config applied."""
    weights = paritykit.weights(fixture)
    for pattern, factor in fixture["config"].get("state_scale", []):
        for key in weights:
            if re.fullmatch(pattern, key):
                weights[key] = weights[key] * factor
    for key in weights:
        for pattern, multiply, add in fixture["config"].get("state_adjust", []):
            if re.search(pattern, key):
                weights[key] = weights[key] * multiply + add
                break
    return weights


def part(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The weights whose keys start with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def layout(fixture: dict) -> dict[str, torch.Tensor]:
    """The authors' state dict without its values, on the meta device."""
    return {
        key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for key, shape, dtype in fixture["state"]
    }


def inputs(fixture: dict) -> dict[str, torch.Tensor]:
    """The input tensors; those whose gradient was recorded require one."""
    tensors = paritykit.inputs(fixture)
    for name, tensor in tensors.items():
        tensor.requires_grad_(f"grad/{name}" in fixture["outputs"])
    return tensors


def gradients(fixture: dict, loss: torch.Tensor, tensors: dict[str, torch.Tensor], scale: float = 1) -> dict:
    """Recorded gradients of `loss` times the fixture's `grad_scale` (where its config has none, `scale`).

    Args:
        tensors: by the names under which gradients were recorded, without `grad/`.
    """
    wanted = [name for name in tensors if f"grad/{name}" in fixture["outputs"]]
    if not wanted:
        return {}
    scaled = loss * fixture["config"].get("grad_scale", scale)
    return {
        f"grad/{name}": gradient
        for name, gradient in zip(wanted, torch.autograd.grad(scaled, [tensors[name] for name in wanted]))
    }


@contextmanager
def outputs_of(modules: dict[str, nn.Module]) -> Iterator[dict]:
    """Yields a dict that fills with the latest output of each module while the block runs."""
    seen: dict = {}
    handles = [
        module.register_forward_hook(lambda module, args, output, name=name: seen.__setitem__(name, output))
        for name, module in modules.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def deviations(fixture: dict, results: dict[str, torch.Tensor]) -> dict[str, float]:
    """Deviation of every recorded output in units of its spread; every one must be among `results`."""
    found = {name: paritykit.check(fixture, name, results[name]) for name in fixture["outputs"]}
    for name, values in fixture["config"].get("values", {}).items():
        want = torch.tensor(values, dtype=torch.float64)
        spread = max(float(want.std(correction=0)), float(want.mean().abs()) / 10, 1e-3)
        found[f"values/{name}"] = float((results[name].detach().double() - want).abs().max()) / spread
    return found
