"""DALL-E: its autoencoders, its transformer with what it keeps from token to token, and the choice among candidates."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.categorical import drawn, gumbel
from mmbench.core.method import Method
from mmbench.core.noise import Noise, Sample
from mmbench.core.text import Vocabulary
from mmbench.core.weights import load_strictly
from mmbench.methods.synthesis.dalle import DALLE, DiscreteVAE, OpenAIVAE, cosine
from mmbench.networks import dalle_vae
from mmbench.networks.dalle import DALLETransformer, along_columns, along_rows, everywhere, nearby
from mmbench.networks.text_to_codes import PADDING, guided

PATTERNS = [everywhere, along_rows, along_columns, nearby]
SIDE, WORDS, CODES = 4, 6, 11
TEXT = torch.tensor([[3, 4, 5, 0, 0, 0], [1, 2, 8, 6, 7, 3]])


def largest(difference: Tensor) -> float:
    return float(difference.abs().max())


def transformer(**changes) -> DALLETransformer:
    torch.manual_seed(0)
    sizes = {"dim": 16, "depth": 4, "num_heads": 2, "head_dim": 12, "patterns": PATTERNS}
    network = DALLETransformer(9, WORDS, CODES, SIDE, **{**sizes, **changes}).eval()
    for block in network.blocks:
        for branch in block.values():
            nn.init.ones_(branch.scale)  # deep layers would hide a fault
    return network


KINDS = {
    "everywhere": {"patterns": [everywhere], "shifted": False},
    "rows": {"patterns": [along_rows], "shifted": False},
    "columns": {"patterns": [along_columns], "shifted": False},
    "nearby": {"patterns": [nearby], "shifted": False},
    "all, shifted": {},
    "stable": {"stable": True, "sandwiched": True, "shared": True},
}
of_each_kind = pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)


@of_each_kind
@torch.no_grad()
def test_with_a_memory_logits_are_what_they_are_without(changes):
    network, codes = transformer(**changes), torch.randint(CODES, (2, SIDE**2))
    _, whole = network(TEXT, codes)
    memory, x, found = network.memory(), network.embedded_text(TEXT), []
    for place in range(SIDE**2):
        found.append(network.code_logits(network.read(x, memory)[:, -1]))
        x = network.embedded_codes(codes[:, place : place + 1])
    assert largest(torch.stack(found, dim=1) - whole) < 1e-5


@of_each_kind
@torch.no_grad()
def test_codes_drawn_with_a_memory_are_those_drawn_without(changes):
    network, uniform = transformer(**changes), torch.rand(2, SIDE**2)
    found = network.sample(TEXT, uniform, 0.8, 5, 2.0)
    codes = torch.zeros(2, 0, dtype=torch.int64)
    for place in range(SIDE**2):
        rows = torch.cat((TEXT, torch.full_like(TEXT, PADDING)))
        logits = guided(network(rows, codes.repeat(2, 1))[1][:, -1], 2.0)
        codes = torch.cat((codes, drawn(logits, uniform[:, place], 0.8, 5)[:, None]), dim=1)
    assert torch.equal(found, codes.unflatten(1, (SIDE, SIDE)))


@of_each_kind
@torch.no_grad()
def test_nothing_is_told_of_what_comes_later(changes):
    network, codes = transformer(**changes), torch.randint(CODES, (1, SIDE**2))
    words, pictures = network(TEXT[1:], codes)
    assert words.shape == (1, WORDS, 9 + WORDS)
    assert pictures.shape == (1, SIDE**2, CODES)
    later = codes.clone()
    later[:, 6] = (later[:, 6] + 1) % CODES
    same, others = network(TEXT[1:], later)
    assert torch.equal(same, words)
    changed = (others - pictures).abs().amax(dim=(0, 2)) > 1e-6
    assert not changed[:7].any()
    assert changed[7:].any()
    assert largest(network(TEXT[:1], codes)[1] - pictures) > 1e-4


def codes_seen(pattern, place: int) -> set[int]:
    start = WORDS + 1
    row = pattern(start, SIDE)[start + place]
    assert row[:start].all(), "all of the text is seen"
    return set(row[start:].nonzero().flatten().tolist())


def test_each_pattern_sees_what_it_says():
    assert codes_seen(everywhere, 9) == set(range(10))
    assert codes_seen(along_rows, 10) == {8, 9, 10}
    assert codes_seen(along_columns, 10) == {2, 6, 10}
    assert codes_seen(nearby, 9) == {0, 1, 4, 5, 8, 9}
    # Two rows and two columns that end at it: less than the map.
    assert codes_seen(lambda *sizes: nearby(*sizes, reach=2), 10) == {5, 6, 9, 10}
    text = nearby(WORDS + 1, SIDE)[: WORDS + 1]
    assert torch.equal(text, torch.ones_like(text).tril())


def test_logits_of_words_are_told_of_words_alone_and_padding_by_its_place():
    network = transformer()
    assert network.word_targets(TEXT)[0].tolist() == [3, 4, 5, 9 + 3, 9 + 4, 9 + 5]
    embedded = network.embedded_text(TEXT)
    assert torch.equal(embedded[0, 4], network.words.weight[9 + 3])
    assert torch.equal(embedded[0, 0], network.words.weight[PADDING])


def test_stable_embeddings_learn_at_a_tenth():
    gradients = []
    for stable in (False, True):
        network = transformer(stable=stable)
        network.embedded_codes(torch.zeros(1, 1, dtype=torch.int64)).sum().backward()
        gradients.append(network.codes.weight.grad[0])
    assert torch.allclose(gradients[1], 0.1 * gradients[0])


def test_guidance_goes_from_what_is_told_without_a_text():
    with_text, without = torch.randn(2, 3, 5)
    both = torch.cat((with_text, without))
    assert largest(guided(both, 0.0) - without) == 0
    assert largest(guided(both, 3.0) - (3 * with_text - 2 * without)) < 1e-5
    assert torch.equal(guided(with_text, 1), with_text)


def dvae(**changes) -> DiscreteVAE:
    torch.manual_seed(0)
    settings = {
        "num_codes": CODES,
        "code_dim": 6,
        "num_layers": 2,
        "num_residual": 1,
        "width": 8,
        "relaxation": dalle_vae.soft,
        "distance": F.mse_loss,
        "lambda_kl": 0.0,
        "least_temperature": 0.5,
        "annealing": 1e-5,
        "decay": 0.98,
        "optimizer": torch.optim.Adam,
    }
    return DiscreteVAE(**{**settings, **changes}).eval()


def openai() -> OpenAIVAE:
    torch.manual_seed(0)
    return OpenAIVAE(8, 8, CODES, 6.6, 10, 0.0625, 100, torch.optim.Adam, 1e-5, 100).eval()


@pytest.mark.parametrize("make", [dvae, lambda: dvae(num_residual=0), openai], ids=["ours", "plain", "openai"])
@torch.no_grad()
def test_a_first_stage_codes_and_decodes(make):
    method, images = make(), torch.rand(2, 3, 32, 16) * 2 - 1
    codes = method.encode(images)
    assert codes.shape == (2, 32 // method.factor, 16 // method.factor)
    assert 0 <= codes.min() <= codes.max() < method.num_codes
    made = method.decode(codes)
    assert made.shape == images.shape
    assert made.abs().max() <= 1


@pytest.mark.parametrize("make", [dvae, openai])
def test_a_size_that_the_stride_does_not_allow_is_refused(make):
    method = make()
    with pytest.raises(
        ValueError, match=rf"expected images whose sides are multiples of {method.factor} pixels, found 36x18: choose"
    ):
        method.encode(torch.zeros(1, 3, 18, 36))


def test_a_codebook_of_another_size_is_refused():
    with pytest.raises(
        ValueError, match=r"a\.safetensors: .*codebook\.weight has shape \(11, 6\) instead of \(12, 6\)"
    ):
        load_strictly(dvae(num_codes=12), dvae().state_dict(), "a.safetensors")


@pytest.mark.parametrize("relaxation", [dalle_vae.soft, dalle_vae.straight_through, dalle_vae.reinmax])
def test_relaxed_codes_are_shares_of_one_with_a_gradient(relaxation):
    logits = torch.randn(2, 5, 3, 3, requires_grad=True)
    weights = relaxation(logits, gumbel(torch.rand(2, 5, 3, 3)), 0.5)
    assert largest(weights.sum(dim=1) - 1) < 1e-5
    if relaxation is not dalle_vae.soft:
        assert largest(weights.detach().amax(dim=1) - 1) < 1e-5
    (gradient,) = torch.autograd.grad((weights * torch.randn_like(weights)).sum(), logits)
    assert gradient.abs().max() > 1e-3


def test_relaxed_codes_are_drawn_from_their_logits():
    logits = torch.tensor([0.5, 0.3, 0.2]).log().view(1, 3, 1, 1).expand(20000, -1, -1, -1)
    uniform = torch.rand(20000, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    shares = dalle_vae.straight_through(logits, gumbel(uniform), 0.7).mean(dim=0).flatten()
    assert largest(shares - torch.tensor([0.5, 0.3, 0.2])) < 0.02


def test_the_logit_laplace_distribution_is_one():
    """Its density sums to 1 over (0, 1)."""
    pixels = torch.linspace(0, 1, 200002, dtype=torch.float64)[1:-1].view(1, 1, 1, -1).expand(1, 3, 1, -1)
    location = torch.tensor([0.0, 1.0, -0.5], dtype=torch.float64).view(1, 3, 1, 1).expand_as(pixels)
    scale = torch.tensor([-0.7, 0.1, -1.5], dtype=torch.float64).view(1, 3, 1, 1).expand_as(pixels)
    density = (-dalle_vae.logit_laplace(pixels, torch.cat((location, scale), dim=1))).exp()
    assert largest(density.sum(dim=-1) / 200001 - 1) < 0.01


def test_pixels_are_squeezed_and_widened_back():
    image = torch.linspace(-1, 1, 9)
    assert dalle_vae.squeezed(image)[[0, -1]].tolist() == pytest.approx([0.1, 0.9])
    assert largest(dalle_vae.widened(dalle_vae.squeezed(image)) - image) < 1e-6
    assert dalle_vae.widened(torch.tensor([0.0, 1.0])).tolist() == [-1, 1]


def test_the_temperature_falls_as_the_authors_loop_does():
    temperature = 1.0
    for step in range(1800):
        at_step = SimpleNamespace(annealing=1e-4, least_temperature=0.3, global_step=step)
        assert DiscreteVAE.temperature.fget(at_step) == pytest.approx(temperature)
        if step % 100 == 0:
            temperature = max(temperature * math.exp(-1e-4 * step), 0.3)
    assert temperature == 0.3


def test_half_a_cosine_goes_from_one_value_to_the_other():
    assert [cosine(1.0, 0.2, step, 100) for step in (0, 50, 100, 1000)] == pytest.approx([1.0, 0.6, 0.2, 0.2])


class Scores(Method):
    """In the place of CLIP: prefers bright pictures where the caption says so, else dark ones."""

    def encode_text(self, captions):
        return torch.tensor([[1.0 if caption == "bright bird" else -1.0] for caption in captions])

    def encode_image(self, images):
        return images.mean(dim=(1, 2, 3))[:, None]


def dalle(**changes) -> DALLE:
    torch.manual_seed(0)
    settings = {
        "first_stage": dvae(),
        "clip": Scores(),
        "image_size": 16,
        "max_words": WORDS,
        "dim": 16,
        "depth": 1,
        "num_heads": 1,
        "head_dim": 12,
        "patterns": [everywhere],
        "shifted": True,
        "sandwiched": False,
        "stable": False,
        "shared": False,
        "lambda_image": 7.0,
        "num_candidates": 1,
        "text_dropout": 0.5,
        "temperature": 1.0,
        "top_k": None,
        "guidance": 1.0,
        "optimizer": torch.optim.Adam,
        "gradient_clip": 1.0,
    }
    return DALLE(Vocabulary.from_captions(["bright dark bird"]), **{**settings, **changes}).eval()


def batch(*captions):
    return {"caption": list(captions)}, Noise(0, [Sample(f"{n}", 0, 0) for n in range(len(captions))])


@torch.no_grad()
def test_of_several_candidates_the_closest_is_kept():
    given, noise = batch("bright bird", "dark bird")
    method = dalle(num_candidates=5)
    text = method.tokens(given["caption"])
    brightness = torch.stack([method.candidate(text, noise, n).mean(dim=(1, 2, 3)) for n in range(5)])
    assert brightness.std(dim=0).min() > 1e-4
    found = method.generate(given, noise).mean(dim=(1, 2, 3))
    assert float(found[0]) == float(brightness[:, 0].max())
    assert float(found[1]) == float(brightness[:, 1].min())


@torch.no_grad()
def test_a_caption_of_training_is_left_out_as_often_as_asked():
    method = dalle(text_dropout=0.25)
    given, noise = batch(*["bright bird"] * 400)
    shown = method.shown_tokens({**given, "noise": noise})
    left_out = (shown == PADDING).all(dim=1)
    assert 60 < int(left_out.sum()) < 140
    assert torch.equal(shown[~left_out], method.tokens(given["caption"])[~left_out])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": CODES + 1}, r"expected top_k from 1 to 11, the number of tokens, found 12: change it"),
        ({"temperature": 0.0}, r"expected a temperature above 0, found 0\.0"),
        ({"image_size": 18}, r"expected an image_size that is a multiple of 4, the first stage's stride, found 18"),
        ({"text_dropout": 0.0, "guidance": 3.0}, r"expected guidance=1 where text_dropout=0 .*, found 3\.0: train"),
        ({"dim": 18}, r"expected a dim that four parts of the shift share, found 18: choose a multiple of 4"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(changes, message):
    with pytest.raises(ValueError, match=message):
        dalle(**changes)


def test_a_transformer_for_another_codebook_is_refused():
    with pytest.raises(ValueError, match=r"x: .*codes\.weight has shape \(11, 16\) instead of \(12, 16\)"):
        load_strictly(dalle(first_stage=dvae(num_codes=12)), dalle().state_dict(), "x")
