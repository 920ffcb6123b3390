"""Transformers over tokens: attention, caches, windows."""

import pytest
import torch

from mmbench.layers.cached_attention import CausalSelfAttention, KeyValueCache, SelfAttention, causal


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attention(kind, width=12, num_heads=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(width, num_heads)


@pytest.mark.parametrize("parts", [[1] * 7, [3, 1, 1, 1, 1], [2, 4, 1]])
def test_attention_in_parts_equals_attention_at_once(parts):
    layer, x, cache = attention(CausalSelfAttention), features(2, 7, 12), KeyValueCache(7)
    with torch.no_grad():
        in_parts = torch.cat([layer(part, cache) for part in x.split(parts, dim=1)], dim=1)
        assert torch.allclose(in_parts, layer(x), atol=1e-6)
    assert cache.size == 7


def test_attention_equals_its_definition():
    layer, x = attention(SelfAttention), features(2, 5, 12)
    query, key, value = (part(x).unflatten(2, (3, 4)) for part in (layer.query, layer.key, layer.value))
    scores = torch.einsum("nqhd, nkhd -> nhqk", query, key) / 4**0.5
    seen = torch.einsum("nhqk, nkhd -> nqhd", scores.softmax(dim=-1), value)
    assert torch.allclose(layer(x), layer.project(seen.flatten(2)), atol=1e-6)


def test_nothing_behind_a_position_changes_it():
    layer, x = attention(CausalSelfAttention), features(1, 6, 12)
    other = torch.cat((x[:, :4], features(1, 2, 12, seed=1)), dim=1)
    assert torch.equal(layer(x)[:, :4], layer(other)[:, :4])
    assert not torch.allclose(attention(SelfAttention)(x)[:, :4], attention(SelfAttention)(other)[:, :4])


def test_unmasked_positions_see_one_another():
    assert causal(4, 4, num_unmasked=2).int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert causal(2, 4).int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_a_cache_refuses_more_than_it_has_room_for():
    layer, cache = attention(CausalSelfAttention), KeyValueCache(4)
    layer(features(1, 3, 12), cache)
    with pytest.raises(ValueError, match="expected at most 4 tokens, found 5: ask for fewer"):
        layer(features(1, 2, 12), cache)


def test_heads_that_do_not_share_the_width_are_refused():
    with pytest.raises(ValueError, match="expected a width that 5 heads share, found 12: choose a multiple"):
        SelfAttention(12, 5)
