"""DISTS on random VGG weights, and the authors' own weights of channels, as torchmetrics computes it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torchmetrics.functional.image import dists as peer
from torchvision.models.vgg import cfgs, make_layers

from mmbench.core.composition import node
from mmbench.core.construction import construct
from mmbench.core.files import sha256_file
from mmbench.core.images import from_uint8
from mmbench.core.noise import random_stream
from mmbench.data.toy.birds import sample_bird
from mmbench.maintenance.toy_pictures import picture_of_bird
from mmbench.metrics import Extractor, MetricSuite
from mmbench.metrics.dists import DISTS
from mmbench.metrics.lpips import LPIPS
from mmbench.networks.dists import DISTSVGG, similarities, sized
from mmbench.pipeline import canary

WEIGHTS = peer._PATH_WEIGHT_DISTS


def smooth(seed, size=64):
    """Pictures with structure, (3, 3, size, size) uint8."""
    coarse = torch.rand(3, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    return (255 * torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)).byte()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Our extractor, and torchmetrics' network, of which only the file of VGG is not the published one."""
    folder = tmp_path_factory.mktemp("dists")
    (folder / "weights").mkdir()
    (folder / "weights" / "weights.pt").write_bytes(WEIGHTS.read_bytes())
    torch.manual_seed(0)
    layers = make_layers(cfgs["D"])
    for layer in layers:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.uniform_(layer.bias, -0.1, 0.1)
    torch.save({**layers.state_dict(prefix="features."), "classifier.0.weight": torch.zeros(1)}, folder / "weights/vgg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer, "vgg16", lambda weights: torch.nn.ModuleDict({"features": layers}))
        theirs = peer.DISTSNetwork()
    card = {
        part: {"file": file, "sha256": None, "origin": "a test", "licence": "none"}
        for part, file in (("backbone", "vgg"), ("weights", "weights.pt"))
    }
    return Extractor("vgg", DISTSVGG(), card, folder), theirs


def test_dists_equals_torchmetrics(pair, batch_of):
    extractor, theirs = pair
    first = smooth(0, 48)
    second = (0.7 * first + 0.3 * smooth(1, 48)).byte()
    metric = DISTS(extractor=extractor, against="image")
    metric.update(second, batch_of(first))
    found = metric.compute()
    expected = theirs(second / 255, first / 255).detach().double()
    assert metric.sample_values.tolist() == pytest.approx(expected.tolist(), abs=2e-6)
    assert found.value == pytest.approx(float(expected.mean()), abs=2e-6)
    assert expected.min() > 0.01


def test_the_card_has_the_sum_and_the_size_of_the_file_that_torchmetrics_ships():
    card = node("network/dists/standard")["card"]["weights"]
    assert (sha256_file(WEIGHTS), WEIGHTS.stat().st_size) == (card["sha256"], card["size"])


def test_dists_is_zero_for_the_input_and_symmetric(pair, batch_of):
    first, second = smooth(0, 32), smooth(1, 32)
    scores = []
    for one, other in ((first, first), (first, second), (second, first)):
        metric = DISTS(extractor=pair[0], against="image")
        metric.update(one, batch_of(other))
        scores.append(metric.compute())
    assert scores[0] == (0.0, 0.0, 3)
    assert scores[1] == scores[2]
    assert scores[1].value > 0


def test_a_pair_does_not_depend_on_its_batch(pair):
    pairs = torch.stack((smooth(0, 32), smooth(1, 32)), dim=1)
    together = pair[0](pairs)["distance"]
    for row in range(3):
        assert torch.equal(pair[0](pairs[row : row + 1].clone())["distance"], together[row : row + 1])


def test_a_canary_that_shows_single_images_sees_each_beside_its_mirror_image(pair, tmp_path):
    extractor, _ = pair
    suite = MetricSuite({"dists": DISTS(extractor=extractor, against="image")})
    assert canary.check(suite, tmp_path)["changed"] == []
    kept = next(path for path in tmp_path.rglob("*.safetensors") if "DISTSVGG" in path.name)
    found = load_file(kept)["image.distance"]
    assert found.shape == (8,)
    assert (found > 0).all()
    images = smooth(0, 32)
    assert torch.equal(extractor(images)["distance"], extractor(torch.stack((images, images.flip(-1)), 1))["distance"])


def test_places_of_a_texture_may_be_shuffled_for_the_means_alone():
    first = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    shuffled = first.flatten(1)[..., order].unflatten(1, (8, 8))
    means, covariances = similarities(first, shuffled)
    assert torch.allclose(means, torch.ones(4, dtype=torch.float64), rtol=1e-14)
    assert covariances.abs().max() < 0.5
    both = similarities(shuffled, first.flatten(1)[..., order].unflatten(1, (8, 8)))
    assert all(torch.equal(kind, torch.ones_like(kind)) for kind in both)


@pytest.fixture(scope="module")
def toy():
    return construct(node("network/dists/toy"), assets="unused")


def scored(metric, images, real):
    metric.update(images, {"image": from_uint8(real)})
    return metric.compute().value


def test_the_toy_judge_is_the_formula_on_the_layers_of_toy_lpips(toy):
    first, second = smooth(0), smooth(1)
    layers = toy.network.layers
    expected = []
    for images in zip(first, second, strict=True):
        found, maps = [], [image.numpy().astype(np.float32) / 127.5 - 1 for image in images]
        for depth in range(4):
            if depth:
                maps = [layers[depth - 1](torch.from_numpy(one)[None]).relu()[0].detach().numpy() for one in maps]
            pair = [(one / 2 + 0.5 if not depth else one).astype(np.float64).reshape(len(one), -1) for one in maps]
            for one, other in zip(*pair, strict=True):
                means, c = (one.mean(), other.mean()), 1e-6
                found.append((2 * means[0] * means[1] + c) / (means[0] ** 2 + means[1] ** 2 + c))
                table = np.cov(one, other, bias=True)
                found.append((2 * table[0, 1] + c) / (table[0, 0] + table[1, 1] + c))
        expected.append(1 - np.mean(found))
    metric = DISTS(extractor=toy, against="image")
    scored(metric, second, first)
    assert metric.sample_values.tolist() == pytest.approx(expected, abs=1e-5)
    assert scored(DISTS(extractor=toy, against="image"), first, first) == 0


def test_the_toy_judge_puts_another_sample_of_a_texture_before_no_texture(toy):
    """Toy LPIPS, on the same network, has it the other way round."""
    stream = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 12, 3, 64, 64, generator=stream)
    one, other = ((128 + 120 * F.avg_pool2d(sample, 5, 1, 2)).clamp(0, 255).byte() for sample in noise)
    flat = torch.full_like(one, 128)
    judges = {
        DISTS: lambda: DISTS(extractor=toy, against="image"),
        LPIPS: lambda: LPIPS(construct(node("network/lpips/toy"), assets="unused"), against="image"),
    }
    same, none = ({kind: scored(make(), made, one) for kind, make in judges.items()} for made in (other, flat))
    assert same[DISTS] < 0.8 * none[DISTS]
    assert same[LPIPS] > none[LPIPS]


def test_the_toy_judge_puts_weaker_distortions_of_birds_before_stronger_ones(toy):
    birds = torch.stack([
        picture_of_bird(sample_bird(random_stream("birds of a distance", number)), "distance", number, 0.75)
        for number in range(12)
    ])  # fmt: skip
    noise = torch.randn(birds.shape, generator=torch.Generator().manual_seed(0))
    weaker, stronger = (
        [F.avg_pool2d(birds.float(), kernel, 1, kernel // 2), birds + 10 * level * noise]
        for kernel, level in ((3, 1), (7, 3))
    )
    for weak, strong in zip(weaker, stronger, strict=True):
        values = [
            scored(DISTS(extractor=toy, against="image"), made.clamp(0, 255).byte(), birds) for made in (weak, strong)
        ]
        assert 0 < values[0] < 0.5 * values[1]
        assert values[1] < scored(DISTS(extractor=toy, against="image"), birds.roll(1, 0), birds)


@pytest.mark.parametrize(("shape", "expected"), [((300, 400), (256, 341)), ((256, 300), (256, 300)), ((64, 64),) * 2])
def test_larger_pictures_are_resized_as_the_authors_do(shape, expected):
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    picture = coarse.resize(shape[::-1], Image.Resampling.BICUBIC)
    found = sized(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])[0]
    theirs = np.array(picture.resize(expected[::-1], Image.Resampling.BILINEAR))
    assert found.shape == (3, *expected)
    assert (found - torch.from_numpy(theirs).permute(2, 0, 1)).abs().max() <= 1  # Pillow resizes in fixed point


def test_weights_of_other_channels_are_refused(pair, tmp_path):
    torch.save({"alpha": torch.ones(1, 3, 1, 1), "beta": torch.ones(1, 3, 1, 1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt: expected alpha and beta of 1475 channels, found"):
        DISTSVGG().load({"backbone": tmp_path / "none", "weights": tmp_path / "other.pt"})
