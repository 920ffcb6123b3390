"""Our networks and losses compute what the authors' released code computed."""

import pytest
import torch
from fixture import deviations, layout

from mmbench.core.weights import load_strictly

TOLERANCE = 1e-3  # of the recorded spread


def test_equals_the_recorded_numbers(recorded, adapt, report):
    found = deviations(recorded, adapt(recorded))
    report({f"{recorded['name']}: {output}": deviation for output, deviation in found.items()})
    assert {output: deviation for output, deviation in found.items() if not deviation < TOLERANCE} == {}


def test_released_layout_fills_our_network_exactly(released, adapt):
    network, keys = adapt(released)
    assert all(value.is_meta for value in network.state_dict().values())
    load_strictly(network, keys(layout(released), network), released["name"])


@pytest.mark.parametrize("missing", ["module.", "num_batches_tracked"])
def test_older_layouts_fill_it_too(released, adapt, missing):
    network, keys = adapt(released)
    state = layout(released)
    if missing == "module.":
        state = {f"module.{key}": value for key, value in state.items()}
    else:
        state = {key: value for key, value in state.items() if not key.endswith(missing)}
    load_strictly(network, keys(state, network), released["name"])
    assert all(torch.is_tensor(value) for value in state.values())
