"""Transformers over tokens: attention, caches, windows."""

import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from mmbench.core import config
from mmbench.core.categorical import drawn
from mmbench.core.noise import Noise, Sample
from mmbench.core.text import Vocabulary
from mmbench.core.weights import load_strictly
from mmbench.layers.cached_attention import CausalSelfAttention, KeyValueCache, SelfAttention, causal
from mmbench.layers.quantisers import VectorQuantiser
from mmbench.methods.synthesis.vqgan_transformer import (
    VQGANClassToImage,
    VQGANLayoutToImage,
    VQGANTextToImage,
    VQSegmentation,
)
from mmbench.networks.token_transformer import BidirectionalTransformer, TokenTransformer, places, sampled

PARITY = Path(__file__).parent / "parity"
sys.path.insert(0, str(PARITY))

import paritykit  # noqa: E402


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
    assert torch.allclose(network.predicted(network.embedding(condition), map_), expected, atol=1e-6)


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
        return network.embedding(condition[:, top : top + 4, left : left + 4].flatten(1))

    with_it, without = (sampled(network, shown, size, 4, drawing(3), cached) for cached in (True, False))
    assert torch.equal(with_it, without)
    assert len(set(map(str, with_it.tolist()))) == 3, "all rows are one"


def test_a_row_of_maps_is_drawn_by_itself():
    network, rows = transformer(), drawing(3)
    condition = network.embedding(tokens(3, 2, seed=2))
    together = sampled(network, lambda top, left: condition, (5, 4), 4, rows)

    def alone(row):
        return lambda logits, number: rows(logits.expand(3, -1), number)[row : row + 1]

    for row in range(3):
        one = sampled(network, lambda top, left, row=row: condition[row : row + 1], (5, 4), 4, alone(row))
        assert torch.equal(one, together[row : row + 1])


def test_cached_decoding_of_256_tokens_is_256_passes_of_one_token():
    network, lengths = transformer(length=256), []
    network.blocks[0].register_forward_pre_hook(lambda block, args: lengths.append(args[0].shape[1]))
    condition = network.embedding(tokens(2, 1))
    sampled(network, lambda top, left: condition, (16, 16), 16, drawing(2))
    assert lengths == [1] * 256
    lengths.clear()
    sampled(network, lambda top, left: condition, (4, 4), 4, drawing(2), cached=False)
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
        sampled(transformer(), lambda top, left: torch.zeros(1, 1, 16), (16, 15), 16, drawing(1))


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


class Stage(nn.Module):
    """A first stage whose codes are the mean colours of squares, in four steps of each channel."""

    num_codes, factor = 64, 4

    def encode(self, images):
        levels = (nn.functional.avg_pool2d((images + 1) * 2, 4) - 1e-4).long().clamp(0, 3)
        return 16 * levels[:, 0] + 4 * levels[:, 1] + levels[:, 2]

    def decode(self, codes):
        levels = torch.stack((codes // 16, codes // 4 % 4, codes % 4), dim=1)
        return (levels.float() / 1.5 - 1).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)


class Layouts(nn.Module):
    """A first stage of layouts: the class in the corner of each square."""

    num_codes, factor = 80, 4

    def encode(self, layout):
        return layout[:, ::4, ::4]


SMALL = partial(TokenTransformer, width=16, num_layers=1, num_heads=2)
SETTINGS = {
    "transformer": SMALL,
    "window": 4,
    "temperature": 1.0,
    "top_k": 10,
    "top_p": 1.0,
    "keep": 1.0,
    "optimizer": partial(torch.optim.AdamW, lr=0.01),
}
VOCABULARY = Vocabulary.from_captions(["a red bird", "a small blue bird"])


def of_text(image_size=16, **more):
    settings = {"text_dropout": 0.0, "guidance": 1.0, **SETTINGS}
    return VQGANTextToImage(Stage(), VOCABULARY, 3, image_size, **{**settings, **more}).eval()


def of_class(image_size=16, **more):
    return VQGANClassToImage(Stage(), [3, 7, 100], image_size, **{**SETTINGS, **more}).eval()


def of_layout(layouts=None, **more):
    return VQGANLayoutToImage(Stage(), layouts or Layouts(), **{**SETTINGS, **more}).eval()


def samples(count):
    return Noise(0, [Sample(f"bird{n}", 0, 0) for n in range(count)])


def images(count=2, size=16):
    return 2 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) - 1


def test_words_come_with_their_neighbours_and_only_codes_are_drawn():
    method = of_text()
    shown, size = method.condition({"caption": ["a red bird", "blue", "blue bird"]}, None)
    words = [[VOCABULARY.index[word] for word in ("a", "red", "bird")], [VOCABULARY.index["blue"], 0, 0]]
    assert torch.equal(shown(0, 0)[:2], method.phrases(torch.tensor(words)))
    assert not torch.allclose(shown(0, 0)[1, 0], shown(0, 0)[2, 0]), "the same whatever follows"
    assert size == (4, 4)
    assert method.transformer.head.out_features == method.transformer.embedding.num_embeddings == 64


def test_guidance_leads_away_from_what_is_drawn_without_a_caption():
    made = {}
    for guidance in (0.0, 1.0, 3.0):
        torch.manual_seed(0)
        method = of_text(text_dropout=0.5, guidance=guidance)
        nn.init.normal_(method.transformer.head.weight)
        made[guidance] = [
            method.generate({"caption": captions}, samples(2)) for captions in (["red", "blue"], ["a bird", "small"])
        ]
    assert torch.equal(*made[0.0]), "by what is said without a caption"
    assert not torch.equal(*made[1.0])
    assert not torch.equal(made[1.0][0], made[3.0][0])
    torch.manual_seed(0)
    without = of_text()
    nn.init.normal_(without.transformer.head.weight)
    assert torch.equal(without.generate({"caption": ["red", "blue"]}, samples(2)), made[1.0][0])


def test_some_captions_are_left_out_of_training():
    method, many = of_text(text_dropout=0.25), 400
    shown, _ = method.condition({"caption": ["red"] * many}, samples(many))
    nothing = method.phrases(torch.zeros(1, 3, dtype=torch.int64))
    share = ((shown(0, 0) - nothing).abs().amax((1, 2)) < 1e-5).float().mean()
    assert share == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize("size", [16, 24])
def test_images_are_as_large_as_in_training_or_larger(size):
    made = of_text(size).generate({"caption": ["a red bird", "blue"]}, samples(2))
    assert made.shape == (2, 3, size, size)
    made = of_class(size).generate({"class_id": torch.tensor([100, 3])}, samples(2))
    assert made.shape == (2, 3, size, size)
    layout = torch.randint(80, (2, size, size + 8), generator=torch.Generator().manual_seed(0))
    assert of_layout().generate({"layout": layout}, samples(2)).shape == (2, 3, size, size + 8)


def test_a_window_is_shown_its_own_part_of_the_layout():
    layout = torch.arange(36).reshape(1, 6, 6).repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    method = of_layout()
    shown, size = method.condition({"layout": layout}, None)
    assert size == (6, 6)
    seen = torch.tensor([[8, 9, 10, 11, 14, 15, 16, 17, 20, 21, 22, 23, 26, 27, 28, 29]])
    assert torch.equal(shown(1, 2), method.transformer.embedding(seen))


def test_the_loss_is_of_codes_after_those_that_are_kept():
    noise, codes = samples(2), Stage().encode(images()).flatten(1)
    assert of_class().disturbed(codes, noise) is codes
    assert not torch.equal(of_class(keep=0.0).disturbed(codes, noise), codes)
    many = torch.full((50, 16), 64)
    kept = (of_class(keep=0.7).disturbed(many, samples(50)) == 64).float().mean()
    assert kept == pytest.approx(0.7, abs=0.05)
    batch = {"image": images(), "class_id": torch.tensor([7, 3]), "noise": noise}
    with torch.no_grad():
        undisturbed, disturbed = (method.terms(batch)["L"] for method in (of_class(), of_class(keep=0.5)))
    # At the start all codes are about as likely, whatever comes before.
    assert float(undisturbed) == pytest.approx(math.log(64), rel=0.05)
    assert float(undisturbed) != float(disturbed)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: of_text(18), "expected an image_size that is a multiple of 4, .* found 18: change it"),
        (lambda: of_class(12), "expected an image_size that is .* at least 16, the transformer's window, found 12"),
        (lambda: of_text(guidance=2.0), r"expected guidance=1 where text_dropout=0 .*, found 2\.0: train"),
        (lambda: of_text(temperature=0.0), "expected a temperature above 0, found 0.0"),
        (lambda: of_layout(top_k=65), "expected top_k from 1 to 64, the number of tokens, found 65"),
        (lambda: of_class(top_p=0.0), "expected top_p above 0 and at most 1, found 0.0"),
        (lambda: of_class(keep=1.5), "expected keep from 0 to 1, the share of codes that stay, found 1.5"),
        (lambda: of_layout(Halved()), "expected codes of layouts in a map 4 times smaller, .* found 2 times"),
    ],
)
def test_what_does_not_go_together_is_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()


class Halved(Layouts):
    factor = 2


def test_pictures_and_layouts_that_the_window_does_not_allow_are_refused():
    batch = {"image": images(size=20), "class_id": torch.tensor([7, 3]), "noise": samples(2)}
    with pytest.raises(ValueError, match="expected images of 16 x 16 pixels to train a transformer of 4 x 4 codes"):
        of_class().terms(batch)
    with pytest.raises(ValueError, match=r"expected a map of 4 x 4 tokens at least, .* found 3 x 4: ask"):
        of_layout().generate({"layout": torch.zeros(1, 12, 16, dtype=torch.int64)}, samples(1))


def test_a_class_that_was_not_trained_on_is_refused():
    with pytest.raises(ValueError, match="expected one of the 3 classes that were trained on, found class 8"):
        of_class().generate({"class_id": torch.tensor([8])}, samples(1))


def test_weights_for_a_codebook_of_another_size_are_refused():
    state = of_class().state_dict()
    other = of_class()
    other.transformer = SMALL(num_tokens=32, length=17)
    with pytest.raises(ValueError, match=r"w\.ckpt: expected .* has shape \(64, 16\) instead of \(32, 16\)"):
        load_strictly(other, state, "w.ckpt")


def test_a_class_of_layouts_that_there_is_no_channel_of_is_refused():
    method = VQSegmentation(5, VectorQuantiser(8, 4), 8, [1, 2], 1, [], 4, 4, 1.0, partial(torch.optim.Adam, lr=0.01))
    layout = torch.zeros(1, 8, 8, dtype=torch.int64)
    assert method.encode(layout).shape == (1, 4, 4)
    assert method.decode(method.encode(layout)).shape == (1, 8, 8)
    layout[0, 3, 3] = 5
    with pytest.raises(ValueError, match=r"expected layouts with classes from 0 to 4, found 5: set method"):
        method.encode(layout)


def test_a_first_stage_of_layouts_learns_them():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = VQSegmentation(
            3, VectorQuantiser(16, 4), 8, [1, 2], 1, [], 8, 4, 1.0, partial(torch.optim.Adam, lr=0.01)
        )
    layout = torch.zeros(4, 8, 8, dtype=torch.int64)
    layout[0, :4], layout[1, :, 4:], layout[2, 4:] = 1, 2, 2
    optimizer = method.configure_optimizers()
    for _ in range(30):
        optimizer.zero_grad()
        sum(method.terms({"layout": layout}).values()).backward()
        optimizer.step()
    assert (method.decode(method.encode(layout)) == layout).float().mean() > 0.95


def test_the_published_transformer_after_layouts_has_the_recorded_layout():
    told = config.composed(["method=vqgan_layout", "data=coco"])["method"]["module"]
    recorded = paritykit.load(PARITY / "fixtures/vqgan/transformer-drin-full-layout.json")["config"]
    found = told["transformer"] | {"length": 2 * told["window"] ** 2}
    names = {"width": "n_embd", "num_layers": "n_layer", "num_heads": "n_head", "length": "block_size"}
    assert {theirs: found[ours] for ours, theirs in names.items()} == {
        theirs: recorded[theirs] for theirs in names.values()
    }


def test_captions_and_classes_say_what_is_drawn():
    """Red and blue pictures: a few steps are enough to draw the one that is asked for."""
    colours = torch.tensor([[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]])
    image = colours.repeat(4, 1)[:, :, None, None].expand(8, 3, 16, 16)
    asked = {"caption": ["a red bird", "a blue bird"] * 4, "class_id": torch.tensor([3, 7] * 4)}
    for build in (of_text, of_class):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            method = build()
        optimizer = method.configure_optimizers()
        for _ in range(40):
            optimizer.zero_grad()
            sum(method.terms({"image": image, "noise": samples(8), **asked}).values()).backward()
            optimizer.step()
        made = method.generate(asked, samples(8)).mean(dim=(2, 3))
        assert (made - colours.repeat(4, 1)).abs().max() < 0.2
