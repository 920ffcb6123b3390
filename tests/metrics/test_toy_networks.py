"""The toy judges tell right from wrong on birds and scenes they have not seen; backbones have their interfaces."""

import re
from dataclasses import replace

import pytest
import torch
import yaml
from hydra.utils import instantiate
from safetensors.torch import load_file

from mmbench.core import composition, config
from mmbench.core.catalogue import shipped
from mmbench.core.files import sha256_file
from mmbench.core.images import from_uint8
from mmbench.core.noise import random_stream
from mmbench.data.toy import flowers as toy_flowers
from mmbench.data.toy import scenes as toy_scenes
from mmbench.data.toy.birds import BILL_SHAPES, COLOURS, PARTS, WING_PATTERNS, describe, sample_bird
from mmbench.data.toy.scenes import GROUNDS, sample_scene
from mmbench.maintenance.toy_networks import PACKAGE, mean_square_apart, pixels_told, scale_vgg
from mmbench.maintenance.toy_pictures import (
    FLOWER_VALUES,
    aviary,
    claims_of,
    picture_of_bird,
    picture_of_scene,
    values_of,
    view_of_flower,
)
from mmbench.metrics.fid import FID
from mmbench.metrics.inception_score import inception_score
from mmbench.metrics.lpips import LPIPS
from mmbench.metrics.sim import Sim
from mmbench.networks import toy
from mmbench.networks.pretrained import frozen
from mmbench.pipeline import evaluation

COUNT = 80
NAMES = (
    *("inception/toy", "clip/toy", "lpips/toy", "inception_trunk/toy", "vgg/toy", "vgg/toy_detailed"),
    *("inception/toy_scenes", "clip/toy_scenes", "inception/toy_flowers", "clip/toy_flowers"),
    *("parts/toy", "parts/toy_flowers"),
)


def card_of(name):
    return yaml.safe_load((shipped("conf") / "network" / f"{name}.yaml").read_text(encoding="utf-8"))


def judge_of(name):
    return instantiate(card_of(name), assets="unused")


def backbone_of(name):
    cfg = card_of(name)
    return frozen(instantiate(cfg["network"]), instantiate(cfg["card"]), "unused")


def rms(features):
    return float(features.square().mean().sqrt())


@pytest.fixture(scope="module")
def birds():
    """Inputs, right edits of the named colours, the birds that the texts describe, and the texts."""
    found = {"input": [], "edited": [], "target": [], "prompt": [], "attributes": []}
    for number in range(COUNT):
        rng = random_stream("birds of a test", number)
        bird, other = sample_bird(rng), sample_bird(rng)
        prompt, named = describe(other, rng)
        edited = replace(bird, **{part: colour for part, colour in named.items() if part in PARTS})
        found["input"].append(picture_of_bird(bird, "test", number, 0.75))
        found["edited"].append(picture_of_bird(edited, "test", number, 0.75))
        found["target"].append(picture_of_bird(other, "test, other", number, 0.75))
        found["prompt"].append(prompt)
        found["attributes"].append(bird.attributes)
    return {key: torch.stack(value) if torch.is_tensor(value[0]) else value for key, value in found.items()}


def test_sim_tells_the_target_and_the_right_edit_from_the_input(birds):
    extractor = judge_of("clip/toy")
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
    logits = judge_of("inception/toy")(birds["input"])["attributes"].split(list(toy.ATTRIBUTES.values()), dim=1)
    for part, found in zip(PARTS, logits, strict=False):
        truth = torch.tensor([COLOURS.index(attributes[part]) for attributes in birds["attributes"]])
        assert (found.argmax(1) == truth).double().mean() > 0.9, part


def test_fid_and_is_mean_something(birds):
    extractor = judge_of("inception/toy")
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
    extractor = judge_of("lpips/toy")
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


@pytest.mark.parametrize("name", [name for name in NAMES if name.split("/")[0] in ("inception", "clip", "lpips")])
def test_judges_do_not_depend_on_the_batch_and_take_other_sizes(birds, name):
    judge = judge_of(name).network
    images = birds["input"][:6]
    for key, together in judge(images).items():
        assert torch.allclose(together[2:3], judge(images[2:3])[key], atol=1e-5)
        assert judge(torch.zeros(2, 3, 100, 70, dtype=torch.uint8))[key].shape == together[:2].shape


def test_texts_are_read_whatever_their_length_or_words(birds):
    clip = judge_of("clip/toy").network
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
    trunk, vgg = backbone_of("inception_trunk/toy"), backbone_of("vgg/toy")
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


@pytest.fixture(scope="module")
def flock():
    """Birds with independent attributes, as scales are stated for them."""
    return aviary("scales of a test", 200)


def test_the_features_of_two_birds_are_as_far_apart_as_stated(flock):
    images = from_uint8(flock.images)
    for name in ("vgg/toy", "vgg/toy_detailed"):
        features = backbone_of(name).network(images)
        assert mean_square_apart(features) == pytest.approx(toy.ToyVGG.APART, rel=0.06)
    assert rms(backbone_of("vgg/toy").network(images)) == pytest.approx(4.3, rel=0.04)
    assert mean_square_apart(images) == pytest.approx(0.3, rel=0.06)


def test_detailed_features_hold_the_pixels(flock):
    assert pixels_told(backbone_of("vgg/toy_detailed").network, flock.images) > 0.95
    assert pixels_told(backbone_of("vgg/toy").network, flock.images) < 0.5


def test_what_is_told_of_pixels_is_all_where_features_are_pixels_and_nothing_where_they_are_none(flock):
    images = flock.images[:20]
    assert pixels_told(torch.nn.PixelUnshuffle(2), images) == pytest.approx(1.0, abs=1e-9)
    assert pixels_told(lambda found: torch.zeros(len(found), 1, 32, 32), images) < 0.05


def test_mean_square_apart_is_that_of_all_pairs():
    features = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    pairs = [(a - b).square().mean() for n, a in enumerate(features) for b in features[:n]]
    assert mean_square_apart(features) == pytest.approx(float(sum(pairs)) / 10, rel=1e-5)


def test_whatever_is_trained_is_scaled_as_stated(flock):
    torch.manual_seed(0)
    vgg = toy.ToyVGG()
    images = from_uint8(flock.images)
    with torch.no_grad():
        before = vgg(images)
        scale_vgg(vgg, flock)
        after = vgg(images)
    assert mean_square_apart(before) < 0.1
    assert mean_square_apart(after) == pytest.approx(toy.ToyVGG.APART, rel=1e-4)
    torch.testing.assert_close(after / rms(after), before / rms(before))  # nothing else changes


def test_the_trunks_features_have_the_stated_scale(flock):
    regions, pooled = backbone_of("inception_trunk/toy").network(from_uint8(flock.images))
    assert rms(regions) == pytest.approx(0.6, rel=0.05)
    assert rms(pooled) == pytest.approx(3.5, rel=0.05)


def test_cosines_have_the_stated_scale(flock):
    rng = random_stream("captions of a scale")
    captions = [flock.captioned(number, rng)[0] for number in range(len(flock.images))]
    clip = judge_of("clip/toy").network
    image, text = clip(flock.images)["embedding"], clip(captions)["embedding"]
    torch.testing.assert_close(torch.cat((image, text)).norm(dim=1), torch.ones(2 * len(image)))
    cosine = image @ text.T
    assert float(cosine.diag().mean()) == pytest.approx(0.43, abs=0.03)
    assert float(cosine.mean()) == pytest.approx(-0.05, abs=0.03)
    assert float(cosine.std()) == pytest.approx(0.18, abs=0.02)


def test_files_are_small_and_named_by_their_cards():
    cards = [card_of(name)["card"] for name in NAMES]
    paths = [PACKAGE / card["file"] for card in cards]
    assert max(path.stat().st_size for path in paths) < 0.7e6
    assert sorted((PACKAGE / "networks/toy").glob("*.safetensors")) == sorted(paths)
    assert [card["sha256"] for card in cards] == [sha256_file(path) for path in paths]
    # A judge is no backbone: their first filters differ.
    judge, backbone = load_file(paths[0])["trunk.0.0.weight"], load_file(paths[3])["stem.0.0.weight"]
    assert judge.shape != backbone.shape


@pytest.fixture(scope="module")
def scenes():
    """Scenes, their captions and their colours; and edited, the scenes in the colours of the next one's caption."""
    found = {"image": [], "edited": [], "prompt": [], "named": [], "scene": []}
    drawn = [sample_scene(random_stream("scenes of a test", number)) for number in range(100)]
    captions = [toy_scenes.describe(scene, random_stream("a caption", n)) for n, scene in enumerate(drawn)]
    for number, scene in enumerate(drawn):
        asked = captions[(number + 1) % len(drawn)][1]
        things = tuple(replace(thing, colour=asked.get(thing.category, thing.colour)) for thing in scene.things)
        found["image"].append(picture_of_scene(scene, "test", number))
        found["edited"].append(picture_of_scene(replace(scene, things=things), "test", number))
        found["prompt"].append(captions[number][0])
        found["named"].append(captions[number][1])
        found["scene"].append(scene)
    return {key: torch.stack(value) if torch.is_tensor(value[0]) else value for key, value in found.items()}


def sims(images, prompts):
    metric = Sim(judge_of("clip/toy_scenes"))
    metric.update(images, {"prompt": prompts})
    return metric.compute()


def test_sim_tells_a_scenes_own_caption_from_another(scenes):
    own = sims(scenes["image"], scenes["prompt"])
    other = sims(scenes["image"], scenes["prompt"][1:] + scenes["prompt"][:1])
    assert own.value > other.value + 0.3
    assert own.value > other.value + 8 * other.std / 100**0.5


def test_sim_rises_where_things_take_the_colours_that_the_text_names(scenes):
    changed = [n for n in range(100) if not torch.equal(scenes["edited"][n], scenes["image"][n])]
    prompts = [scenes["prompt"][(n + 1) % 100] for n in changed]
    before, after = (
        [sims(scenes[key][n : n + 1], [prompt]).value for n, prompt in zip(changed, prompts, strict=True)]
        for key in ("image", "edited")
    )
    assert len(changed) > 20
    assert sum(late > early for early, late in zip(before, after, strict=True)) > 0.9 * len(changed)


def test_one_of_a_hundred_scenes_is_found_by_its_caption(scenes):
    clip = judge_of("clip/toy_scenes")
    cosine = clip(scenes["image"])["embedding"] @ clip(scenes["prompt"])["embedding"].T  # (scenes, captions)
    true = torch.tensor([
        [named.items() <= scene.attributes.items() for named in scenes["named"]] for scene in scenes["scene"]
    ])  # fmt: skip
    # Most captions name one or two things, which other scenes may have as well.
    best = float((1 / true.sum(0)).mean())
    first = cosine.argmax(0)
    assert float(true[first, torch.arange(100)].double().mean()) > 0.85
    assert float((first == torch.arange(100)).double().mean()) > 0.9 * best


def test_the_classifier_tells_what_is_in_a_scene(scenes):
    found = judge_of("inception/toy_scenes")(scenes["image"])
    truth = torch.tensor([values_of(scene) for scene in scenes["scene"]])
    for place, logits in enumerate(found["attributes"].split(list(toy.SCENE_ATTRIBUTES.values()), dim=1)):
        assert (logits.argmax(1) == truth[:, place]).double().mean() > 0.9, place
    even = torch.zeros(100, 81)  # the things of a scene have equal shares
    for row, scene in zip(even, scenes["scene"], strict=True):
        for name, colour in scene.attributes.items():
            row[10 * toy.CATEGORIES.index(name) + COLOURS.index(colour)] = 1 / len(scene.things)
    assert (found["logits"].softmax(1) - even).abs().sum(1).mean() / 2 < 0.15
    assert inception_score(found["logits"], 1).value > 15


def test_bare_scenes_are_of_a_class_of_their_own():
    scenes = [sample_scene(random_stream("bare scenes of a test", n), bare=True) for n in range(8)]
    images = torch.stack([picture_of_scene(scene, "test", n) for n, scene in enumerate(scenes)])
    assert (judge_of("inception/toy_scenes")(images)["logits"].argmax(1) == 80).all()


def test_scenes_are_described_in_the_networks_words():
    rng = random_stream("captions of a test")
    words = set()
    for number in range(3000):
        words |= set(re.findall(r"\w+", toy_scenes.describe(sample_scene(rng, bare=number % 9 == 0), rng)[0].lower()))
    assert words <= set(toy.SCENE_VOCABULARY)
    assert toy.CATEGORIES == toy_scenes.PARTS
    assert {*toy.SCENE_ATTRIBUTES} == {*toy.CATEGORIES, "ground"}
    assert toy.SCENE_ATTRIBUTES["ground"] == len(GROUNDS)


def test_a_caption_claims_things_colours_and_the_ground():
    scene = sample_scene(random_stream("three things", 0))
    thing = scene.things[0]
    things = (replace(thing, category="vase", colour="red"), replace(thing, category="cup", colour="blue"))
    scene = replace(scene, things=things, ground="snow")
    caption = "A red flower vase next to a mug in the snow."
    claims = claims_of(scene, caption, {"vase": "red"})
    assert sorted((name, list(values)) for name, values in claims) == [
        ("cup", [*range(10)]),
        ("ground", [3]),
        ("vase", [0]),
        ("vase", [*range(10)]),
    ]


def test_toy_scenes_are_judged_by_networks_of_scenes(home, monkeypatch):
    monkeypatch.setattr(
        evaluation.grid, "write_grid", lambda path, cells, titles: None
    )  # takes longer than all the rest
    found = {}
    for method in ("real", "identity"):
        words = [f"method={method}", "data=coco", "data.source=toy", "data.toy_images=80", "trainer=cpu"]
        record, _ = evaluation.evaluate(config.composed(words))
        found[method] = record.metrics
    for key, network in (("sim@toy", "clip"), ("clip_score@toy", "clip"), ("is@toy", "inception")):
        assert found["real"][key]["weights"] == card_of(f"{network}/toy_scenes")["card"]["sha256"]
    assert found["real"]["sim@toy"]["value"] > found["identity"]["sim@toy"]["value"] + 0.3


@pytest.mark.parametrize("name", ["strict", "manigan", "attngan", "dfgan_coco"])
def test_each_toy_data_set_has_its_judges(name):
    for data, ending in (("coco", "_scenes"), ("cub", "")):
        words = ["method=identity", f"protocol={name}", f"data={data}", "data.source=toy"]
        protocol = config.composed(words)["protocol"]
        used = {node["extractor"] for node in protocol["metrics"].values() if "extractor" in node} - {"lpips"}
        files = {protocol["extractors"][key]["card"]["file"] for key in used}
        assert files <= {f"networks/toy/{network}{ending}.safetensors" for network in ("clip", "inception")}


@pytest.fixture(scope="module")
def flowers():
    """Flowers of classes, with a caption each."""
    found = {"image": [], "prompt": [], "named": [], "attributes": []}
    for number in range(100):
        rng = random_stream("flowers of a test", number)
        flower = toy_flowers.sample_flower(rng)
        caption, named = toy_flowers.describe(flower, rng)
        found["image"].append(view_of_flower(flower, "test", number)[0])
        found["prompt"].append(caption)
        found["named"].append(named)
        found["attributes"].append(flower.attributes)
    return {**found, "image": torch.stack(found["image"])}


def test_the_judges_of_flowers_tell_what_is_true_of_them(flowers):
    found = judge_of("inception/toy_flowers")(flowers["image"])
    parts = found["attributes"].split(list(toy.FLOWER_ATTRIBUTES.values()), dim=1)
    logits = dict(zip(toy.FLOWER_ATTRIBUTES, parts, strict=True))
    for key in (*toy_flowers.PARTS, "petal_shape"):
        truth = torch.tensor([FLOWER_VALUES[key].index(attributes[key]) for attributes in flowers["attributes"]])
        right = (logits[key].argmax(1) == truth).double().mean()
        assert right > (0.7 if key == "petal_shape" else 0.95), key  # of 64 pixels, shapes are the harder part
    assert found["logits"].shape == (100, 40)
    assert inception_score(found["logits"], 1).value > 10
    clip = judge_of("clip/toy_flowers")
    cosine = clip(flowers["image"])["embedding"] @ clip(flowers["prompt"])["embedding"].T  # (flowers, captions)
    assert float(cosine.diag().mean() - cosine.mean()) > 0.3
    true = torch.tensor([[named.items() <= one.items() for named in flowers["named"]] for one in flowers["attributes"]])
    assert float(true[cosine.argmax(0), torch.arange(100)].double().mean()) > 0.7


def test_flowers_are_described_in_the_networks_words():
    rng = random_stream("captions of a test")
    words = set()
    for _ in range(2000):
        words |= set(re.findall(r"\w+", toy_flowers.describe(toy_flowers.sample_flower(rng), rng)[0]))
    assert words <= set(toy.FLOWER_VOCABULARY)
    assert {key: len(FLOWER_VALUES[key]) for key in toy.FLOWER_ATTRIBUTES} == toy.FLOWER_ATTRIBUTES
    assert toy.ToyFlowerParts.num_parts == len(toy_flowers.PARTS)
    assert toy.ToyParts.num_parts == len(PARTS)


def test_toy_flowers_are_judged_by_networks_of_flowers():
    words = ["method=real_image", "protocol=strict_synthesis", "data=oxford102", "data.source=toy"]
    protocol = config.composed(words)["protocol"]
    used = {node["extractor"] for node in protocol["metrics"].values() if "extractor" in node}
    files = {protocol["extractors"][key]["card"]["file"] for key in used}
    assert files == {f"networks/toy/{network}_flowers.safetensors" for network in ("clip", "inception", "parts")}


def test_captioners_see_scenes_through_the_features_of_the_judge():
    described = composition.node("network/inception_trunk/toy_scenes")
    judged = composition.node("network/inception/toy_scenes")
    assert described["card"] == judged["card"]
    trunk = frozen(instantiate(described["network"]), instantiate(described["card"]), "unused")
    judge = frozen(instantiate(judged["network"]), instantiate(judged["card"]), "unused")
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    regions, pooled = trunk(from_uint8(images))
    assert regions.shape == (2, trunk.network.region_channels, 8, 8)
    assert pooled.shape == (2, trunk.network.global_channels)
    assert torch.equal(pooled, judge(images)["features"])
