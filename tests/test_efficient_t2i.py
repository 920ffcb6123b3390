"""Efficient-T2I: interpolation, the average and normalisation; at the published size it is compared in parity."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mmbench.core import config
from mmbench.core.noise import Noise, Sample
from mmbench.layers.spectral_norm import StoredSpectralConv2d, StoredSpectralLinear
from mmbench.methods.synthesis.efficient_t2i import Generator, ReleasedEMA, interpolated, shares
from mmbench.pipeline import assembly

PARITY = Path(__file__).parent / "parity/fixtures/efficientt2i"
TOY = ["data=cub", "data.source=toy", "data.toy_images=40", "trainer=cpu", "weights=none"]
COLOURS = ["red", "blue", "black", "white", "yellow", "grey", "brown", "orange", "green", "pink"]


def built(name, *words):
    plain = config.composed([f"method={name}", *TOY, *words])
    return assembly.built(plain, assembly.prepared_data(plain))[0]


def batch():
    samples = [Sample("one", 0, 0), Sample("other", 0, 0)]
    captions = [[f"this bird has a {colour} crown" for colour in COLOURS] for _ in samples]
    return {"id": ["one", "other"], "captions": captions, "caption": [one[0] for one in captions]} | {
        "noise": Noise(0, samples)
    }


def test_a_sentence_is_a_mean_of_captions_whose_weights_are_a_softmax():
    stream = torch.Generator().manual_seed(0)
    uniform, embeddings = torch.rand(3, 10, generator=stream), torch.randn(3, 10, 6, generator=stream)
    weights = shares(uniform)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(weights[:, 0] / weights[:, 1], (10 * (uniform[:, 0] - uniform[:, 1])).exp())
    torch.testing.assert_close(interpolated(embeddings[:, :1].expand(3, 10, 6), weights), embeddings[:, 0])
    torch.testing.assert_close(interpolated(embeddings, torch.full((3, 10), 0.1)), embeddings.mean(dim=1))


def test_every_caption_of_an_image_has_a_share_that_is_drawn_for_it(tiny):
    method, given = built("efficient_t2i"), batch()
    sentences = method.sentences(given)
    weights = shares(given["noise"].uniform("shares", 10))
    alone = method.encoder.prompts(given["captions"][0])
    torch.testing.assert_close(sentences[0], weights[0] @ alone)
    assert not torch.allclose(sentences[0], sentences[1]), "the captions are the same, and the shares are not"
    plain = built("efficient_t2i_plain")
    assert plain.trains_on == {"image", "caption"}
    torch.testing.assert_close(plain.sentences(given), plain.encoder.prompts(given["caption"]))


def test_a_single_caption_is_nothing_to_interpolate_between(tiny):
    with pytest.raises(ValueError, match=r"expected num_captions from 2 to interpolate between, found 1: raise it"):
        built("efficient_t2i", "method.module.num_captions=1")


def test_blocks_and_attention_forget_twice_as_fast_and_the_gain_is_the_latest():
    torch.manual_seed(0)
    live = Generator(32, 8, 5, 6, attention_size=16)
    ema, before = ReleasedEMA(live, decay=0.9), copy.deepcopy(live.state_dict())
    with torch.no_grad():
        for parameter in live.parameters():
            parameter += 1
        live.norm.running_mean += 1
    ema.update(live)
    moved = {key: value - before[key] for key, value in ema.average.state_dict().items()}
    expected = {"project.weight": 0.1, "to_rgb.bias": 0.1, "norm.weight": 0.1, "norm.running_mean": 1.0}
    expected |= {"stages.0.0.convolution1.weight": 0.19, "attention.query.weight": 0.19, "attention.gamma": 1.0}
    for key, value in expected.items():
        torch.testing.assert_close(moved[key], torch.full_like(moved[key], value))


@pytest.mark.parametrize("made", [lambda: nn.Conv2d(3, 5, 3, padding=1), lambda: nn.Linear(6, 4)])
def test_stored_vectors_divide_as_those_of_pytorch(made):
    torch.manual_seed(0)
    plain = made()
    kind = StoredSpectralConv2d if isinstance(plain, nn.Conv2d) else StoredSpectralLinear
    size = (2, 3, 6, 6) if isinstance(plain, nn.Conv2d) else (2, 6)
    ours = kind(3, 5, 3, padding=1) if isinstance(plain, nn.Conv2d) else kind(6, 4)
    theirs = torch.nn.utils.spectral_norm(plain)
    state = {"weight": theirs.weight_orig, "bias": theirs.bias, "u": theirs.weight_u, "v": theirs.weight_v}
    ours.load_state_dict(state, strict=True)
    for training in (True, True, False, False):
        x = torch.randn(size)
        torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x))
    torch.testing.assert_close(ours.u, theirs.weight_u)


def test_networks_have_the_size_that_was_published(conf):
    published = json.loads((PARITY / "generator-full-layout.json").read_text())["config"]
    for name in ("efficient_t2i", "efficient_t2i_plain"):
        module = config.composed([f"method={name}", "data=cub"])["method"]["module"]
        assert (module["width"], module["latent_dim"], module["image_size"]) == (96, 128, 256)
    assert (published["ngf"], published["z_dim"]) == (96, 128)
