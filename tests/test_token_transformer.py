"""Transformers over tokens: attention, caches, windows."""

import pytest
import torch

from mmbench.core.categorical import drawn
from mmbench.layers.cached_attention import CausalSelfAttention, KeyValueCache, SelfAttention, causal
from mmbench.networks.token_transformer import BidirectionalTransformer, TokenTransformer, places, sampled


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


def transformer(kind=TokenTransformer, length=40, **more):
    """With weights so large that tokens and their places matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = kind(24, length, 16, 2, 4, **more).eval().requires_grad_(False)
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return network


def tokens(*shape, seed=0):
    return torch.randint(24, shape, generator=torch.Generator().manual_seed(seed))


def drawing(count, seed=0):
    """A draw by numbers that belong to rows and places."""
    uniform = torch.rand(count, 1000, generator=torch.Generator().manual_seed(seed))
    return lambda logits, number: drawn(logits, uniform[:, number], top_k=10)


@pytest.mark.parametrize("num_unmasked", [0, 5])
def test_logits_in_parts_equal_those_at_once(num_unmasked):
    network, read = transformer(num_unmasked=num_unmasked), tokens(2, 20)
    caches = network.caches()
    in_parts = torch.cat([network(part, caches) for part in read.split([6, 1, 1, 4, 1, 7], dim=1)], dim=1)
    assert (in_parts - network(read)).abs().max() < 1e-5


def test_logits_of_a_condition_and_tokens_are_those_of_what_comes_next():
    network, condition, map_ = transformer(), tokens(2, 3), tokens(2, 6, seed=1)
    expected = network(torch.cat((condition, map_), dim=1))[:, 2:-1]
    assert torch.allclose(network.predicted(condition, map_), expected, atol=1e-6)


def test_a_token_changes_what_comes_after_it_alone_unless_it_is_seen_from_both_sides():
    read, other = tokens(1, 8), tokens(1, 8)
    other[0, 5] = (other[0, 5] + 1) % 24
    changed = {}
    for kind in (TokenTransformer, BidirectionalTransformer):
        network = transformer(kind)
        changed[kind] = [n for n, far in enumerate((network(read) - network(other)).abs().amax((0, 2))) if far > 1e-4]
    assert changed == {TokenTransformer: [5, 6, 7], BidirectionalTransformer: list(range(8))}


@pytest.mark.parametrize("size", [(4, 4), (6, 7), (4, 6), (6, 4)])
def test_maps_with_a_cache_equal_those_without(size):
    network, condition = transformer(), tokens(3, *size, seed=1)

    def shown(top, left):
        return condition[:, top : top + 4, left : left + 4].flatten(1)

    with_it, without = (sampled(network, shown, size, 4, drawing(3), cached) for cached in (True, False))
    assert torch.equal(with_it, without)
    assert len(set(map(str, with_it.tolist()))) == 3, "all rows are one"


def test_a_row_of_maps_is_drawn_by_itself():
    network, condition, rows = transformer(), tokens(3, 2, seed=2), drawing(3)
    together = sampled(network, lambda top, left: condition, (5, 4), 4, rows)

    def alone(row):
        return lambda logits, number: rows(logits.expand(3, -1), number)[row : row + 1]

    for row in range(3):
        one = sampled(network, lambda top, left, row=row: condition[row : row + 1], (5, 4), 4, alone(row))
        assert torch.equal(one, together[row : row + 1])


def test_cached_decoding_of_256_tokens_is_256_passes_of_one_token():
    network, lengths = transformer(length=256), []
    network.blocks[0].register_forward_pre_hook(lambda block, args: lengths.append(args[0].shape[1]))
    sampled(network, lambda top, left: tokens(2, 1), (16, 16), 16, drawing(2))
    assert lengths == [1] * 256
    lengths.clear()
    sampled(network, lambda top, left: tokens(2, 1), (4, 4), 4, drawing(2), cached=False)
    assert lengths == list(range(1, 17))


def test_windows_hold_their_place_in_the_middle_as_far_as_borders_let_them():
    visited = list(places(7, 6, 4))
    assert [(place.row, place.column) for place in visited] == [
        (row, column) for row in range(7) for column in range(6)
    ]
    assert [place.top for place in visited[::6]] == [0, 0, 0, 1, 2, 3, 3]
    assert [place.left for place in visited[:6]] == [0, 0, 0, 1, 2, 2]
    for place in visited:
        inside = (place.row - place.top, place.column - place.left)
        assert min(inside) >= 0
        assert max(inside) < 4
        assert place.local == 4 * inside[0] + inside[1]


def test_a_map_smaller_than_the_window_is_refused():
    with pytest.raises(ValueError, match=r"expected a map of 16 x 16 tokens at least, .* found 16 x 15: ask"):
        sampled(transformer(), lambda top, left: tokens(1, 1), (16, 15), 16, drawing(1))


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(ValueError, match="expected at most 40 tokens, conditions among them, found 41: shorten"):
        transformer()(tokens(1, 41))
    network = transformer()
    caches = network.caches()
    network(tokens(1, 40), caches)
    with pytest.raises(ValueError, match="expected at most 40 tokens, conditions among them, found 41: shorten"):
        network(tokens(1, 1), caches)


def test_weights_of_linear_layers_decay_and_nothing_else():
    network = transformer()
    optimizer = torch.optim.AdamW(network.parameter_groups(), weight_decay=0.01)
    decayed, kept = optimizer.param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.01, 0.0)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(one)] for one in kept["params"]} == {
        name
        for name in names.values()
        if name.endswith("bias") or "norm" in name or name in ("embedding.weight", "position")
    }
    assert len(decayed["params"]) + len(kept["params"]) == len(names)
