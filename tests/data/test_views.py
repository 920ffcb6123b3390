"""Views: what torchvision makes of the same square, and what the fast ones make of it instead."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from mmbench.core import catalogue, composition, config, construction, hashing
from mmbench.core.images import opened
from mmbench.core.noise import random_stream
from mmbench.data.batches import as_floats
from mmbench.data.records import decoded
from mmbench.data.views import Fast, FastView, ShorterSide, Squash, View, Whole

# What the docstring of FastView states: levels on average by side, on average over one square, at one pixel.
MEAN, SQUARE, PIXEL = {32: 1.6, 64: 1.4, 128: 1.2, 256: 0.1}, 3.6, 52


def levels(pixels):
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def _sharp(size, seed=0):
    return Image.fromarray(random_stream(seed).integers(0, 256, (*size[::-1], 3), np.uint8))


def _photograph(size, seed=0):
    """Smooth with fine texture: what JPEG is made for."""
    rng = random_stream(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC))
        for n in (4, 16, 64)
    ]
    return Image.fromarray(np.tensordot((0.5, 0.3, 0.2), np.stack(layers).astype(float), 1).astype(np.uint8))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 500), (200, 90), (96, 96)])
@pytest.mark.parametrize("region", [None, (3, 5, 88, 71)])
def test_exact_is_the_authors_pipeline_pixel_for_pixel(size, region):
    """AttnGAN: the bird cut out, Resize(side * 76 / 64), RandomCrop, flip, ToTensor, Normalize; by torchvision."""
    picture, region = _sharp(size), region or (0, 0, *size)
    for seed in range(4):
        view = ShorterSide().training(region, 64, random_stream(seed))
        square = functional.resize(picture.crop(region), 76)
        assert square.size == view.size
        square = functional.crop(square, view.top, view.left, 64, 64)
        square = functional.hflip(square) if view.flipped else square
        expected = functional.normalize(functional.to_tensor(square), [0.5] * 3, [0.5] * 3)
        assert np.array_equal(view(picture), np.asarray(square))
        assert torch.allclose(as_floats({"image": levels(view(picture))})["image"], expected, atol=1e-6)
    middle = transforms.Compose([transforms.Resize(64), transforms.CenterCrop(64)])(picture.crop(region))
    # torchvision rounds the middle's odd half pixel to even, ours down.
    shifts = [
        np.array_equal(View(region, view.size, view.left + x, view.top + y, 64)(picture), np.asarray(middle))
        for view in [ShorterSide().evaluation(region, 64)]
        for x in (0, 1)
        for y in (0, 1)
    ]
    assert any(shifts)


@pytest.mark.parametrize("exact", [ShorterSide(), Squash()])
def test_the_square_is_cut_out_of_the_whole(exact):
    for seed, size in enumerate([(120, 77), (77, 120), (64, 64), (200, 61)]):
        picture, rng = _sharp(size), random_stream(seed)
        for view in (exact.training((1, 2, *size), 32, rng), exact.evaluation((1, 2, *size), 32)):
            assert np.array_equal(view(picture), view.window(view.resized(picture)))
            assert view(picture).shape == (32, 32, 3)


def _difference(path, exact, side, seed):
    region = (0, 0, *Image.open(path).size)
    views = [kind.training(region, side, random_stream(seed, "m")) for kind in (exact, Fast(exact))]
    assert isinstance(views[1], FastView)
    assert vars(views[0]) == vars(views[1])
    shown = []
    for view in views:
        with opened(path) as file:
            shown.append(view.of(file).astype(int))
            reduced = file.size != region[2:]
    return np.abs(shown[0] - shown[1]), reduced


@pytest.mark.parametrize("side", [64, 128, 256])
@pytest.mark.parametrize("exact", [ShorterSide(), Squash()])
def test_fast_is_near_exact_and_never_the_same(tmp_path, side, exact):
    differences, reductions = [], []
    for seed, size in enumerate([(640, 480), (500, 375), (427, 640), (301, 299)]):
        path = tmp_path / f"{seed}.jpg"
        _photograph(size, seed).save(path, quality=90)
        difference, reduced = _difference(path, exact, side, seed)
        assert difference.mean() < SQUARE
        assert difference.max() <= PIXEL
        differences.append(difference.max())
        reductions.append(reduced)
    assert max(differences) > 0
    assert any(reductions) == (side < 256)


@pytest.mark.assets
@pytest.mark.parametrize("side", [32, 64, 128, 256])
def test_fast_is_near_exact_on_photographs(shared_real, side):
    paths = sorted((shared_real / "coco").rglob("*.jpg")) + sorted((shared_real / "cub").rglob("*.jpg"))
    assert len(paths) == 23
    found = [_difference(path, ShorterSide(), side, seed)[0] for path in paths for seed in range(3)]
    assert np.mean([difference.mean() for difference in found]) < MEAN[side]
    assert max(difference.mean() for difference in found) < SQUARE
    assert max(difference.max() for difference in found) <= PIXEL


def test_fast_and_exact_agree_where_nothing_is_resized():
    picture = _sharp((80, 90))
    view = View((0, 0, 80, 90), (80, 90), 7, 11, 64, True)
    assert np.array_equal(FastView(**vars(view))(picture), view(picture))


def test_fast_sees_maps_as_pictures(toy):
    """Parts cover the pixels that show them, also where the JPEG is decoded at reduced scale."""
    data = toy(preprocessing=Fast(), image_size=32)
    exact = toy(image_size=32)
    for record in data.split("train")[:5]:
        looks = [lambda region, d=d: d.preprocessing.evaluation(region, 32) for d in (data, exact)]
        fast, slow = (decoded(record, look) for look in looks)
        assert np.abs(fast.pixels.astype(int) - slow.pixels).mean() < SQUARE
    items = [d.evaluation("train", d.samples("train", count=5), 0) for d in (data, exact)]
    for fast, slow in zip(*items, strict=True):
        assert (fast["parts"] - slow["parts"]).abs().mean() < SQUARE / 255


def test_fast_is_a_protocol_of_its_own():
    nodes = {name: composition.node(f"preprocessing/{name}") for name in catalogue.names("preprocessing")}
    assert len({hashing.config_hash(node) for node in nodes.values()}) == len(nodes)
    assert isinstance(construction.construct(nodes["exact"]), ShorterSide)
    assert isinstance(construction.construct(nodes["fast"]).exact, ShorterSide)
    assert isinstance(construction.construct(nodes["fast_squash"]).exact, Squash)
    plain = config.composed(["method=identity", "+preprocessing@protocol.preprocessing=fast"])
    assert plain["data"]["evaluation"]["preprocessing"] == nodes["fast"]


def test_whole_shows_all_of_a_picture_and_never_its_mirror_image():
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :6], pixels[:, -6:] = 80, 160
    views = [
        Whole().evaluation((0, 0, 60, 40), 20),
        *(Whole().training((0, 0, 60, 40), 20, random_stream(n)) for n in range(9)),
    ]
    for view in views:
        seen = view(Image.fromarray(pixels))
        assert seen.shape == (20, 20, 3)
        assert (seen[:, 0] == 80).all()
        assert (seen[:, -1] == 160).all()
