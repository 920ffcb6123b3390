"""ControlGAN at the toy size, and as configured; at the published size it is compared with the authors' in parity."""

import json
from pathlib import Path

import pytest
import torch

from mmbench.core import config
from mmbench.core.noise import Noise, Sample
from mmbench.methods.synthesis.controlgan import ControllableGenerator
from mmbench.pipeline import assembly, stages

PARITY = Path(__file__).parent / "parity/fixtures/controlgan"
BASE, WIDTH, TEXT = 16, 6, 10
WORDS = ["method=controlgan", "data=cub", "data.source=toy", "data.toy_images=40", "trainer=cpu", "weights=none"]
LONG = "this small bird has a red crown a blue belly black wings a white back and a short yellow bill"


@pytest.fixture(scope="module")
def generator():
    """A generator whose statistics of a batch are those that it has seen, as after training."""
    torch.manual_seed(0)
    network = ControllableGenerator(WIDTH, TEXT, noise_dim=7, condition_dim=4, num_residual=1, base_size=BASE)
    for _ in range(3):
        words = torch.randn(8, 5, TEXT)
        mask = torch.ones(8, 5, dtype=torch.bool)
        network(torch.randn(8, 7), torch.randn(8, 4), torch.randn(8, TEXT), words, mask)
    return network.eval().requires_grad_(False)


@pytest.fixture
def given():
    stream = torch.Generator().manual_seed(1)
    shapes = {"noise": (7,), "eps": (4,), "sentence": (TEXT,), "words": (8, TEXT)}
    inputs = {name: torch.randn(3, *shape, generator=stream) for name, shape in shapes.items()}
    return inputs | {"word_mask": torch.arange(8) < torch.tensor([5, 2, 8])[:, None]}


def test_sizes_follow_from_the_base_size(generator, given):
    images = generator(**given).images
    assert [tuple(one.shape) for one in images] == [(3, 3, size, size) for size in (16, 32, 64)]
    assert max(one.abs().max() for one in images) <= 1


@pytest.mark.parametrize("name", ["noise", "eps", "sentence", "words"])
def test_words_refine_what_sentence_and_noise_begin(generator, given, name):
    before, after = generator(**given).images, generator(**given | {name: given[name].flip(0)}).images
    changed = [bool((a - b).abs().max() > 1e-4) for a, b in zip(before, after, strict=True)]
    assert changed == [name != "words", True, True]


def test_networks_have_the_size_that_was_published(conf):
    for data, layout in (("cub", "generator-full-layout"), ("coco", "generator-coco-full-layout")):
        module = config.composed(["method=controlgan", f"data={data}"])["method"]["module"]
        published = json.loads((PARITY / f"{layout}.json").read_text())["config"]
        assert module["width"] == published["GF_DIM"]
        assert module["discriminator_width"] == published["DF_DIM"]
        assert module["num_residual"] == published["R_NUM"]
        assert (module["noise_dim"], module["condition_dim"]) == (published["Z_DIM"], published["CONDITION_DIM"])


def test_released_weights_stand_on_the_encoders_released_with_them(conf):
    plain = config.composed(["method=controlgan", "data=cub"])
    (encoders,) = stages.predecessors(plain).values()
    cards = {**plain["method"]["official"]["cub"], **encoders["method"]["official"]["cub"]}
    assert set(cards) == {"ema.average", "vocabulary", "text_encoder", "image_encoder"}
    assert {card["file"].split("/")[0] for card in cards.values()} == {"controlgan"}


@pytest.fixture
def method(tiny):
    plain = config.composed(WORDS)
    built, _ = assembly.built(plain, assembly.prepared_data(plain))
    return built


def test_prompts_keep_more_words_than_training_does(method, monkeypatch):
    lengths = []
    attend = method.ema.average.forward

    def watched(**given):
        lengths.append(given["word_mask"].sum().item())
        return attend(**given)

    monkeypatch.setattr(method.ema.average, "forward", watched)
    known = [word for word in LONG.split() if word in method.guide.network.vocabulary.index]
    assert 18 < len(known) <= 25
    method.generate({"caption": [LONG]}, Noise(0, [Sample("bird", 0, 0)]))
    assert lengths == [len(known)]
