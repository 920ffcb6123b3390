"""AttnGAN, its variants and MirrorGAN at the toy size, and as configured; parity compares the published sizes."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mmbench.core import config
from mmbench.core.noise import Noise, Sample
from mmbench.losses.attngan import ConditionalDiscriminators
from mmbench.losses.captioning import caption_cross_entropy
from mmbench.methods.synthesis.attngan import AttentionalGenerator, DCGANGenerator
from mmbench.methods.synthesis.mirrorgan import MirrorGenerator
from mmbench.networks.mirrorgan import StreamDecoder
from mmbench.pipeline import assembly, stages

PARITY = Path(__file__).parent / "parity/fixtures"
BASE, WIDTH, TEXT = 16, 6, 10
SIZES = (WIDTH, TEXT, 7, 4, 1, BASE)  # noise of 7, condition of 4, one residual block
WORDS = ["data=cub", "data.source=toy", "data.toy_images=40", "trainer=cpu", "weights=none"]
TEXTS = [
    "a red bird with blue wings",
    "this bird is yellow",
    "a small white bird with a long black bill and a red crown",
]


def trained(kind):
    """A generator whose statistics of a batch are those that it has seen, as after training."""
    torch.manual_seed(0)
    network = kind(*SIZES)
    for _ in range(3):
        network(**inputs(8, [5] * 8, seed=None))
    return network.eval().requires_grad_(False)


def inputs(count, lengths, seed=1):
    stream = torch.Generator().manual_seed(seed) if seed is not None else None
    shapes = {"noise": (7,), "eps": (4,), "sentence": (TEXT,), "words": (max(lengths), TEXT)}
    drawn = {name: torch.randn(count, *shape, generator=stream) for name, shape in shapes.items()}
    return drawn | {"word_mask": torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]}


@pytest.mark.parametrize("kind", [AttentionalGenerator, DCGANGenerator, MirrorGenerator])
def test_an_image_does_not_depend_on_longer_captions_of_its_batch(kind):
    network, given = trained(kind), inputs(3, [5, 2, 8])
    together = network(**given)
    for row, length in enumerate([5, 2, 8]):
        alone = {name: value[row : row + 1] for name, value in given.items()}
        alone |= {name: alone[name][:, :length] for name in ("words", "word_mask")}
        by_itself = network(**alone)
        for image, other in zip(together.images, by_itself.images, strict=True):
            torch.testing.assert_close(image[row : row + 1], other, rtol=0, atol=1e-5)
        for looked, other in zip(together.attention, by_itself.attention, strict=True):
            torch.testing.assert_close(looked[row : row + 1, :length], other, rtol=0, atol=1e-5)
            assert not looked[row, length:].any(), "it looks at padding"


@pytest.mark.parametrize("kind", [AttentionalGenerator, MirrorGenerator])
@pytest.mark.parametrize("name", ["noise", "eps", "sentence", "words"])
def test_words_refine_what_sentence_and_noise_begin(kind, name):
    network, given = trained(kind), inputs(3, [8, 8, 8])
    before, after = network(**given).images, network(**given | {name: given[name].flip(0)}).images
    changed = [bool((a - b).abs().max() > 1e-4) for a, b in zip(before, after, strict=True)]
    assert changed == [name != "words", True, True]


def test_sizes_follow_from_the_base_size_and_the_number_of_stages():
    two = AttentionalGenerator(*SIZES, 2).eval()(**inputs(1, [3]))
    assert [one.shape[-1] for one in two.images] == [BASE, 2 * BASE]
    dcgan = DCGANGenerator(*SIZES).eval()(**inputs(1, [3]))
    assert [one.shape[-1] for one in dcgan.images] == [4 * BASE]
    assert [one.shape[-1] for one in dcgan.attention] == [BASE, 2 * BASE]


def test_a_discriminator_of_pairs_sees_a_wrong_sentence_half_as_much():
    """By hand, with logits of 0: log 2 for the true pairs, and half of twice log 2 for the false ones."""
    torch.manual_seed(0)
    judges = ConditionalDiscriminators([BASE], 4, TEXT)
    assert not any("alone" in name for name, _ in judges.named_parameters())
    nn.init.zeros_(judges[0].paired.weight)
    nn.init.zeros_(judges[0].paired.bias)
    real, fake, sentence = torch.randn(3, 3, BASE, BASE), torch.randn(3, 3, BASE, BASE), torch.randn(3, TEXT)
    expected = torch.tensor(2.0).log()
    torch.testing.assert_close(judges.discriminator_terms([real], [fake], sentence)["L_D16"], 2 * expected)
    torch.testing.assert_close(judges.generator_terms([fake], sentence)["L_G16"], expected)


@pytest.mark.parametrize("family", ["attngan", "mirrorgan"])
def test_networks_have_the_size_that_was_published(conf, family):
    cases = [(family, "cub", f"{family}/generator-full-layout")]
    if family == "attngan":
        cases += [("attngan", "coco", "attngan/generator-coco-full-layout")]
        cases += [("attndcgan", "cub", "attngan/generator-dcgan-full-layout")]
    for method, data, layout in cases:
        module = config.composed([f"method={method}", f"data={data}"])["method"]["module"]
        published = json.loads((PARITY / f"{layout}.json").read_text())["config"]
        named = {"width": "GF_DIM", "num_residual": "R_NUM", "noise_dim": "Z_DIM", "condition_dim": "CONDITION_DIM"}
        assert {name: module[name] for name in named} == {name: published[key] for name, key in named.items()}


def test_released_weights_stand_on_the_encoders_released_with_them(conf):
    for data in ("cub", "coco"):
        plain = config.composed(["method=attngan", f"data={data}"])
        (encoders,) = stages.predecessors(plain).values()
        cards = {**plain["method"]["official"][data], **encoders["method"]["official"][data]}
        assert set(cards) == {"ema.average", "vocabulary", "text_encoder", "image_encoder"}
        assert {card["file"].split("/")[0] for card in cards.values()} == {"attngan"}
    assert "official" not in config.composed(["method=attndcgan", "data=coco"])["method"], "nothing was published"


def test_the_rows_of_the_table_differ_by_stages_and_by_the_weight_of_damsm_alone(conf):
    names = ("attngan1_lambda_0_1", "attngan1_lambda_1", "attngan1", "attngan1_lambda_10")
    for data in ("cub", "coco"):
        modules = [config.composed([f"method={name}", f"data={data}"])["method"]["module"] for name in names]
        weights = [module.pop("lambda_damsm") for module in modules]
        assert weights[:2] + weights[3:] == [0.1, 1.0, 10.0]
        assert all(module == modules[0] for module in modules)
    full = config.composed(["method=attngan", "data=cub"])["method"]["module"]
    assert full == config.composed(["method=attngan1", "data=cub"])["method"]["module"] | {"num_sizes": 3}


@pytest.fixture(params=["attngan", "mirrorgan", "controlgan"])
def method(request, tiny):
    plain = config.composed([f"method={request.param}", *WORDS])
    built, _ = assembly.built(plain, assembly.prepared_data(plain))
    return built.eval()


def test_stages_end_with_what_is_generated_and_attention_is_to_the_known_words(method):
    samples = [Sample(f"bird {number}", 0, 0) for number in range(len(TEXTS))]
    batch = {"caption": TEXTS, "sample": samples, "noise": Noise(0, samples)}
    with torch.no_grad():
        images = method.generate_stages(batch, batch["noise"])
        assert torch.equal(images[-1], method.generate(batch, batch["noise"]))
    assert [tuple(one.shape) for one in images] == [(3, 3, size, size) for size in (16, 32, 64)]
    attention, words = method.word_attention(batch), method.words(TEXTS)
    assert [len(known) for known in words] == [6, 4, 12]
    assert words[1] == TEXTS[1].split()
    assert attention.shape == (3, 12, 32, 32)
    torch.testing.assert_close(attention.sum(1), torch.ones(3, 32, 32))
    assert not attention[1, 4:].any()


def test_gradients_reach_an_image_through_a_captioner_in_evaluation_mode():
    decoder = StreamDecoder(num_words=9, embedding_dim=5, hidden_dim=6).eval().requires_grad_(False)
    assert decoder.lstm.training, "cuDNN has no gradients otherwise"
    feature = torch.randn(2, 5, requires_grad=True)
    tokens, lengths = torch.tensor([[3, 4, 5], [6, 7, 0]]), torch.tensor([3, 2])
    caption_cross_entropy(decoder(feature, tokens), tokens, lengths).backward()
    assert bool(feature.grad.abs().sum(1).all())


def test_captions_are_averaged_over_their_words_and_padding_is_none():
    logits, tokens = torch.randn(2, 3, 9), torch.tensor([[3, 4, 5], [6, 7, 0]])
    logs = logits.log_softmax(2)
    expected = -(logs[0, 0, 3] + logs[0, 1, 4] + logs[0, 2, 5] + logs[1, 0, 6] + logs[1, 1, 7]) / 5
    torch.testing.assert_close(caption_cross_entropy(logits, tokens, torch.tensor([3, 2])), expected)


def test_a_captioner_says_the_likeliest_word_and_reads_what_it_said():
    torch.manual_seed(0)
    decoder, feature = StreamDecoder(num_words=30, embedding_dim=8, hidden_dim=16), torch.randn(4, 8)
    decoder.requires_grad_(False)
    said = decoder.greedy(feature, num_words=6)
    assert torch.equal(decoder(feature, said).argmax(2), said)
    first = decoder.greedy(feature[:1], num_words=1)
    other = decoder.greedy(feature[:1], num_words=1, barred_first=(int(first),))
    assert int(other) == int(decoder(feature[:1], first).flatten().topk(2).indices[1])


def test_the_captioner_reads_the_very_words_that_the_generator_was_told(tiny, monkeypatch):
    plain = config.composed(["method=mirrorgan", *WORDS, "method.module.max_words=4"])
    built, _ = assembly.built(plain, assembly.prepared_data(plain))
    samples = [Sample(f"bird {number}", 0, 3) for number in range(len(TEXTS))]
    batch = {"caption": TEXTS, "noise": Noise(0, samples)}
    seen = []
    monkeypatch.setattr(built.guide.network.text_encoder, "forward", lambda tokens, lengths: seen.append(tokens))
    built.guide.captions(batch)
    decoder = built.stream.network.decoder
    forward = decoder.forward
    monkeypatch.setattr(decoder, "forward", lambda feature, tokens: seen.append(tokens) or forward(feature, tokens))
    built.redescription(torch.zeros(3, 3, 64, 64), batch)
    assert seen[0].shape == (3, 4)
    assert torch.equal(*seen)


ABLATIONS = {"attngan1_lambda_0_1": 0.1, "attngan1_lambda_1": 1.0, "attngan1": 5.0, "attngan1_lambda_10": 10.0}


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_toy_damsm_weighs_a_tenth_of_what_the_ablation_is_of(name):
    words = [f"method={name}", "data=cub"]
    published, toy = (config.composed([*words, *more]) for more in ([], ["data.source=toy"]))
    assert published["method"]["module"]["lambda_damsm"] == ABLATIONS[name]
    assert toy["method"]["module"]["lambda_damsm"] == pytest.approx(ABLATIONS[name] / 10)
