"""NUWA: attention to what is near in a video, and decoding with what was kept."""

import math

import pytest
import torch
from torch import Tensor

from mmbench.core.categorical import drawn
from mmbench.layers.cached_attention import KeyValueCache
from mmbench.layers.token_shift import History
from mmbench.networks.nuwa import NUWA, NearbyAttention, neighbourhood, video_shift
from mmbench.networks.text_to_codes import PADDING, guided

VIDEO = (2, 3, 4)


def largest(difference: Tensor) -> float:
    return float(difference.abs().max())


def near(causal: bool, kernel=(2, 3, 3), dilation=(1, 1, 1)) -> NearbyAttention:
    torch.manual_seed(0)
    return NearbyAttention(8, 2, 6, VIDEO, kernel, dilation, causal, positions=True).eval()


def small(**changes) -> NUWA:
    torch.manual_seed(0)
    sizes = {
        "kernel": (2, 3, 3),
        "dilations": [(1, 1, 1), (1, 2, 1)],
        "dim": 20,
        "num_heads": 2,
        "head_dim": 8,
        "text_depth": 1,
        "depth": 2,
    }
    network = NUWA(9, 5, 7, changes.pop("video", VIDEO), **{**sizes, **changes}).eval()
    for block in network.blocks:
        for branch in block.values():
            torch.nn.init.ones_(branch.scale)  # deep layers would hide a fault
    return network


def offsets(place: int, causal: bool, kernel, dilation) -> set[int]:
    """The tokens near one, counted out."""
    frame, row, column = place // 12, place // 4 % 3, place % 4
    found = set()
    for other in range(24):
        apart = (frame - other // 12, row - other // 4 % 3, column - other % 4)
        steps = [distance / step for distance, step in zip(apart, dilation, strict=True)]
        if all(step == int(step) for step in steps):
            low = [0 if causal else -(width - 1 - (width - 1) // 2) for width in kernel]
            high = [width - 1 if causal else (width - 1) // 2 for width in kernel]
            if all(a <= step <= b for a, step, b in zip(low, steps, high, strict=True)):
                found.add(other)
    return found


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("kernel", "dilation"), [((2, 3, 3), (1, 1, 1)), ((1, 3, 2), (1, 2, 1)), ((3, 1, 5), (1, 1, 1))]
)
def test_a_neighbourhood_is_what_is_near_and_inside(causal, kernel, dilation):
    found = neighbourhood(VIDEO, kernel, dilation, causal)
    for place in range(math.prod(VIDEO)):
        seen = found.places[place][found.inside[place]].tolist()
        assert len(seen) == len(set(seen))
        assert set(seen) == offsets(place, causal, kernel, dilation)


def test_a_token_learns_of_the_beginning_and_of_what_is_near_alone():
    layer, x = near(causal=True), torch.randn(1, 25, 8, requires_grad=True)
    for place in (0, 5, 14, 23):
        (gradient,) = torch.autograd.grad(layer(x)[0, 1 + place].sum(), x)
        touched = set(gradient[0].abs().sum(dim=1).nonzero().flatten().tolist())
        assert touched == {0} | {1 + other for other in offsets(place, True, (2, 3, 3), (1, 1, 1))}


@pytest.mark.parametrize("dilation", [(1, 1, 1), (1, 2, 1)])
@torch.no_grad()
def test_with_a_cache_attention_gives_what_it_gives_without(dilation):
    layer, x, cache = near(causal=True, dilation=dilation), torch.randn(2, 25, 8), KeyValueCache(25)
    whole = layer(x)
    pieces = [layer(part, cache) for part in x.split([1, 1, 6, 1, 16], dim=1)]
    assert largest(torch.cat(pieces, dim=1) - whole) < 1e-5


@torch.no_grad()
def test_a_shift_remembers_what_it_has_seen():
    shift, x, history = video_shift(VIDEO, from_frame=True, from_image=True), torch.randn(2, 25, 11), History()
    whole = shift(x)
    pieces = [shift(part, history) for part in x.split([1, 3, 1, 13, 1, 6], dim=1)]
    assert torch.equal(torch.cat(pieces, dim=1), whole)
    assert torch.equal(whole[:, 0], x[:, 0])
    assert torch.equal(whole[:, 14, :3], x[:, 2, :3])  # of the frame before
    assert torch.equal(whole[:, 14, 3:6], torch.zeros(2, 3))  # no row above
    assert torch.equal(whole[:, 14, 6:9], x[:, 13, 6:9])  # at the left


@pytest.mark.parametrize("video", [(1, 3, 4), VIDEO])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@torch.no_grad()
def test_codes_drawn_with_a_cache_are_those_drawn_without(video, guidance):
    network, text = small(video=video), torch.tensor([[3, 4, 5, 0, 0], [1, 2, 8, 6, 7]])
    uniform = torch.rand(2, math.prod(video))
    found = network.sample(text, uniform, 0.8, 5, guidance)
    assert found.shape == (2, *video)
    codes = torch.zeros(2, 0, dtype=torch.int64)
    for place in range(math.prod(video)):
        rows = text if guidance == 1 else torch.cat((text, torch.full_like(text, PADDING)))
        logits = network(rows, codes.repeat(len(rows) // 2, 1))[:, -1]
        codes = torch.cat((codes, drawn(guided(logits, guidance), uniform[:, place], 0.8, 5)[:, None]), dim=1)
    assert torch.equal(found.flatten(1), codes)


@torch.no_grad()
def test_logits_depend_on_the_text_and_on_no_code_behind():
    network, codes = small(), torch.randint(7, (1, 24))
    text = torch.tensor([[3, 4, 5, 0, 0]])
    logits = network(text, codes)
    assert logits.shape == (1, 24, 7)
    later = codes.clone()
    later[:, 13] = (later[:, 13] + 1) % 7
    changed = (network(text, later) - logits).abs().amax(dim=(0, 2))
    assert not changed[:14].any()
    assert changed[14] > 0
    assert largest(network(torch.tensor([[3, 4, 6, 0, 0]]), codes) - logits) > 1e-4
    without = network(torch.zeros_like(text), codes)
    assert without.isfinite().all()
    assert largest(without - logits) > 1e-4
