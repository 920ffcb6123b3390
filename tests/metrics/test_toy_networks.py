"""The toy judges tell right from wrong on birds they have not seen; the backbones have the interfaces of theirs."""

import re
from dataclasses import replace

import pytest
import torch
import yaml
from hydra.utils import instantiate
from safetensors.torch import load_file

from mmbench.core.config import shipped
from mmbench.core.files import sha256_file
from mmbench.core.images import from_uint8
from mmbench.core.noise import random_stream
from mmbench.data.toy_birds import BILL_SHAPES, COLOURS, PARTS, WING_PATTERNS, describe, sample_bird
from mmbench.metrics.fid import FID
from mmbench.metrics.inception_score import inception_score
from mmbench.metrics.lpips import LPIPS
from mmbench.metrics.sim import Sim
from mmbench.networks import toy
from mmbench.networks.pretrained import frozen
from mmbench.train_toy_networks import FOLDER, picture

COUNT = 80
NAMES = ("inception", "clip", "lpips", "inception_trunk", "vgg")


def card_of(name):
    return yaml.safe_load((shipped("conf") / "network" / name / "toy.yaml").read_text(encoding="utf-8"))


def judge_of(name):
    return instantiate(card_of(name), assets="unused")


def backbone_of(name):
    cfg = card_of(name)
    return frozen(instantiate(cfg["network"]), instantiate(cfg["card"]), "unused")


@pytest.fixture(scope="module")
def birds():
    """Inputs, right edits of the named colours, the birds that the texts describe, and the texts."""
    found = {"input": [], "edited": [], "target": [], "prompt": [], "attributes": []}
    for number in range(COUNT):
        rng = random_stream("birds of a test", number)
        bird, other = sample_bird(rng), sample_bird(rng)
        prompt, named = describe(other, rng)
        edited = replace(bird, **{part: colour for part, colour in named.items() if part in PARTS})
        found["input"].append(picture(bird, "test", number, 0.75))
        found["edited"].append(picture(edited, "test", number, 0.75))
        found["target"].append(picture(other, "test, other", number, 0.75))
        found["prompt"].append(prompt)
        found["attributes"].append(bird.attributes)
    return {key: torch.stack(value) if torch.is_tensor(value[0]) else value for key, value in found.items()}


def test_sim_tells_the_target_and_the_right_edit_from_the_input(birds):
    extractor = judge_of("clip")
    scores = {}
    for key in ("input", "edited", "target"):
        metric = Sim(extractor)
        metric.update(birds[key], {"prompt": birds["prompt"]})
        scores[key] = metric.compute()
    error = scores["target"].std / COUNT**0.5
    assert scores["target"].value > scores["input"].value + 8 * error
    assert scores["edited"].value > scores["input"].value + 8 * error
    shuffled = Sim(extractor)
    shuffled.update(birds["target"], {"prompt": birds["prompt"][1:] + birds["prompt"][:1]})
    assert scores["target"].value > shuffled.compute().value + 8 * error


def test_the_classifier_tells_the_colours_of_unseen_birds(birds):
    logits = judge_of("inception")(birds["input"])["attributes"].split(list(toy.ATTRIBUTES.values()), dim=1)
    for part, found in zip(PARTS, logits, strict=False):
        truth = torch.tensor([COLOURS.index(attributes[part]) for attributes in birds["attributes"]])
        assert (found.argmax(1) == truth).double().mean() > 0.9, part


def test_fid_and_is_mean_something(birds):
    extractor = judge_of("inception")
    blurred = torch.nn.functional.avg_pool2d(birds["target"].float(), 8).repeat_interleave(8, 2).repeat_interleave(8, 3)

    def fid(images):
        metric = FID(extractor)
        metric.update(images, {})
        metric.update_reference({"image": from_uint8(birds["input"])})
        return metric.compute().value

    assert fid(birds["input"]) == pytest.approx(0, abs=1e-4)
    assert fid(birds["target"]) < fid(blurred.byte())
    logits = extractor(birds["target"])["logits"]
    assert logits.shape == (COUNT, 100)
    assert inception_score(logits, 1).value > 15  # 40 toy classes
    assert inception_score(extractor(blurred.byte())["logits"], 1).value < inception_score(logits, 1).value


def test_lpips_grows_with_the_distortion(birds):
    extractor = judge_of("lpips")
    noise = torch.randn(birds["input"].shape, generator=torch.Generator().manual_seed(0))

    def distance(images):
        metric = LPIPS(extractor, against="image")
        metric.update(images, {"image": from_uint8(birds["input"])})
        return metric.compute().value

    noisy = [distance((birds["input"] + level * noise).round().clamp(0, 255).byte()) for level in (0, 5, 20, 60)]
    assert noisy[0] == 0
    assert noisy == sorted(noisy)
    assert noisy[1] < distance(birds["edited"]) < distance(birds["target"])
    assert distance(birds["target"]) == pytest.approx(1, rel=0.25)  # two different birds
    assert all((head >= 0).all() for head in extractor.network.heads)


@pytest.mark.parametrize("name", ["inception", "clip", "lpips"])
def test_judges_do_not_depend_on_the_batch_and_take_other_sizes(birds, name):
    judge = judge_of(name).network
    images = birds["input"][:6]
    for key, together in judge(images).items():
        assert torch.allclose(together[2:3], judge(images[2:3])[key], atol=1e-5)
        assert judge(torch.zeros(2, 3, 100, 70, dtype=torch.uint8))[key].shape == together[:2].shape


def test_texts_are_read_whatever_their_length_or_words(birds):
    clip = judge_of("clip").network
    texts = [*birds["prompt"][:5], "", "zebra", "Red CROWN!"]
    together = clip(texts)["embedding"]
    for row, text in enumerate(texts):
        assert torch.allclose(together[row], clip([text])["embedding"][0], atol=1e-5)
    assert torch.allclose(together.norm(dim=1), torch.ones(8))
    assert torch.equal(clip(["Red CROWN!"])["embedding"], clip(["red crown"])["embedding"])


def test_the_vocabulary_covers_the_captions():
    rng = random_stream("captions of a test")
    words = set()
    for _ in range(2000):
        words |= set(re.findall(r"\w+", describe(sample_bird(rng), rng)[0]))
    assert words <= set(toy.VOCABULARY)
    sizes = [len(COLOURS)] * len(PARTS) + [len(BILL_SHAPES), len(WING_PATTERNS)]
    assert dict(zip([*PARTS, "bill_shape", "wing_pattern"], sizes, strict=True)) == toy.ATTRIBUTES


def test_backbones_have_the_interfaces_of_theirs_and_pass_gradients(birds):
    image = from_uint8(birds["input"][:2]).requires_grad_()
    trunk, vgg = backbone_of("inception_trunk"), backbone_of("vgg")
    regions, pooled = trunk(image)
    assert regions.shape == (2, trunk.network.region_channels, 8, 8)
    assert pooled.shape == (2, trunk.network.global_channels)
    features = vgg(image)
    assert features.shape == (2, vgg.network.channels, 32, 32)
    assert (features >= 0).all()
    for output in (pooled, features):
        image.grad = None
        output.sum().backward(retain_graph=True)
        assert image.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for network in (trunk, vgg) for parameter in network.parameters())
    assert trunk(torch.zeros(1, 3, 128, 128))[0].shape[-2:] == (8, 8)
    assert vgg(torch.zeros(1, 3, 128, 96)).shape[-2:] == (64, 48)


def test_files_are_small_and_named_by_their_cards():
    paths = [FOLDER / f"{name}.safetensors" for name in NAMES]
    assert sum(path.stat().st_size for path in paths) < 2e6
    assert sorted(FOLDER.glob("*.safetensors")) == sorted(paths)
    for name, path in zip(NAMES, paths, strict=True):
        assert card_of(name)["card"]["sha256"] == sha256_file(path)
    # A judge is no backbone: their first filters differ.
    judge, backbone = load_file(paths[0])["trunk.0.0.weight"], load_file(paths[3])["stem.0.0.weight"]
    assert judge.shape != backbone.shape
