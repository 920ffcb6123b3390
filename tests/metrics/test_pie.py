"""Structure distance, and the scores of masked pictures as PIE-Bench computes them, beside torchmetrics."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.transforms import Normalize, Resize

from mmbench.core.cards import Card
from mmbench.core.composition import node
from mmbench.core.construction import construct
from mmbench.core.files import sha256_file
from mmbench.core.images import from_uint8
from mmbench.core.noise import random_stream
from mmbench.data.toy.birds import PARTS, describe, sample_bird
from mmbench.maintenance.toy_pictures import picture_of_bird
from mmbench.metrics import Extractor
from mmbench.metrics.inside_mask import PSNRInMask
from mmbench.metrics.pie import PieLPIPS, PieMSE, PiePSNR, PieSSIM
from mmbench.metrics.psnr import PSNR
from mmbench.metrics.structure_distance import StructureDistance, structure_distance
from mmbench.networks.dino_keys import DINOKeys
from mmbench.networks.lpips_squeeze import LPIPSSqueeze

BACKGROUND, EDITED = 0, 1
SIZE = 48


def score(metric, images, batch):
    metric.update(images, batch)
    return metric.compute()


@pytest.fixture
def edit(pixels, batch_of):
    """Three edits that differ from their sources everywhere, with masks of several areas."""
    source = pixels(3, 0, SIZE)
    output = (0.8 * source + 0.2 * pixels(3, 1, SIZE)).byte()
    mask = torch.zeros(3, 1, SIZE, SIZE)
    for row, side in enumerate((5, 17, 40)):
        mask[row, :, 3 : 3 + side, 2 : 2 + side] = 1
    return output, batch_of(source, mask=mask)


def as_in_pie_bench(images, source, mask, covered):
    """Masked pairs (3, H, W) of values in [0, 1], as the benchmark's evaluation makes them from arrays."""
    for image, real, covers in zip(images, source, mask[:, 0], strict=True):
        covers = covers.numpy().copy()
        covers[[0, -1], :] = covers[:, [0, -1]] = 1
        kept = covers if covered else 1 - covers
        yield tuple(torch.tensor(picture.numpy().astype(np.float32) / 255 * kept) for picture in (image, real))


def ssim_before_1_5(*pair):
    """Torchmetrics', whose mean was over the places that a window of 11 x 11 fits around."""
    _, places = structural_similarity_index_measure(*pair, data_range=1.0, return_full_image=True)
    return places[..., 5:-5, 5:-5].mean()


@pytest.mark.parametrize("covered", [BACKGROUND, EDITED])
def test_masked_pictures_score_as_with_torchmetrics(edit, covered):
    images, batch = edit
    pairs = list(as_in_pie_bench(images, (batch["image"] + 1) / 2 * 255, batch["mask"], covered))
    expected = {
        PieMSE: [F.mse_loss(*pair) for pair in pairs],
        PiePSNR: [peak_signal_noise_ratio(*pair, data_range=1.0) for pair in pairs],
        PieSSIM: [ssim_before_1_5(*(one[None] for one in pair)) for pair in pairs],
    }
    for metric_type, values in expected.items():
        metric = metric_type(covered)
        found = score(metric, images, batch)
        assert metric.sample_values.tolist() == pytest.approx([float(value) for value in values], rel=1e-5)
        assert found.count == 3


@pytest.fixture(scope="module")
def squeeze(tmp_path_factory):
    """LPIPS on a SqueezeNet of random weights: our extractor, and torchmetrics' network."""
    folder = tmp_path_factory.mktemp("squeeze")
    (folder / "weights").mkdir()
    path = folder / "weights" / "squeezenet.pth"
    torch.manual_seed(0)
    backbone = torchvision.models.squeezenet1_1()
    torch.save(backbone.state_dict(), path)
    theirs = _LPIPS(net="squeeze", pnet_rand=True)
    for part in theirs.net.slices:
        for place, layer in part.named_children():
            layer.load_state_dict(backbone.features[int(place)].state_dict())
    card = Card(path.name, sha256_file(path), "a test", "none")
    return Extractor("squeeze", LPIPSSqueeze(), card, folder), theirs


@pytest.mark.parametrize("covered", [BACKGROUND, EDITED])
def test_lpips_of_masked_pictures_is_torchmetrics_on_squeezenet(edit, squeeze, covered):
    images, batch = edit
    extractor, theirs = squeeze
    pairs = as_in_pie_bench(images, (batch["image"] + 1) / 2 * 255, batch["mask"], covered)
    expected = [float(theirs(*(one[None] * 2 - 1 for one in pair))) for pair in pairs]
    metric = PieLPIPS(covered, extractor)
    score(metric, images, batch)
    assert metric.sample_values.tolist() == pytest.approx(expected, rel=1e-4)
    assert min(expected) > 0


def test_squeezenet_takes_pictures_of_its_least_size_and_no_smaller(squeeze, pixels, batch_of):
    for size in (17, 16):
        batch = batch_of(pixels(1, 0, size), mask=torch.ones(1, 1, size, size))
        if size == 17:
            assert score(PieLPIPS(EDITED, squeeze[0]), pixels(1, 1, size), batch).value > 0
        else:
            with pytest.raises(ValueError, match="at least 17 x 17 pixels for PieLPIPS on LPIPSSqueeze, found 16 x 16"):
                score(PieLPIPS(EDITED, squeeze[0]), pixels(1, 1, size), batch)


def all_of(covered, extractor):
    return PieMSE(covered), PiePSNR(covered), PieSSIM(covered), PieLPIPS(covered, extractor)


def test_an_unchanged_region_has_no_error_whatever_is_beside_it(edit, squeeze):
    images, batch = edit
    source = ((batch["image"] + 1) * 127.5).round().byte()
    border = torch.ones(1, 1, SIZE, SIZE)
    border[..., 1:-1, 1:-1] = 0
    for covered in (BACKGROUND, EDITED):
        region = (torch.maximum(batch["mask"], border) > 0) == bool(covered)
        output = torch.where(region, source, images)
        assert not torch.equal(output, source)
        values = [score(metric, output, batch).value for metric in all_of(covered, squeeze[0])]
        assert values == [0, pytest.approx(10 * math.log10(255**2 * 12)), pytest.approx(1), 0]


def test_psnr_is_that_of_the_region_less_its_share(edit):
    """The picture's other pixels are equal, so that the error is spread over all of them."""
    images, batch = edit
    batch["mask"][..., [0, -1], :] = batch["mask"][..., [0, -1]] = 1
    whole, region = PiePSNR(EDITED), PSNRInMask()
    score(whole, images, batch), score(region, images, batch)
    share = batch["mask"].double().mean(dim=(1, 2, 3))
    assert torch.allclose(whole.sample_values, region.sample_values - 10 * share.log10(), rtol=1e-12)
    batch["mask"][:] = 1
    assert score(PiePSNR(EDITED), images, batch) == score(PSNR(against="image"), images, batch)


def test_pictures_without_a_region_are_passed_over_and_not_counted(edit, squeeze):
    images, batch = edit
    kept = batch["mask"].clone()
    empty, full, inner = (torch.full_like(kept[0], value) for value in (0, 1, 1))
    inner[:, [0, -1], :] = inner[:, :, [0, -1]] = 0  # all but the border, which counts as covered in any case
    for covered, without in ((BACKGROUND, (full, inner)), (EDITED, (empty, empty))):
        batch["mask"] = torch.stack([without[0], kept[1], without[1]])
        for metric in all_of(covered, squeeze[0]):
            assert score(metric, images, batch).count == 1
            assert metric.sample_values.isnan().tolist() == [True, False, True]
            alone = {key: value[1:2] for key, value in batch.items()}
            other = type(metric)(covered, **({"extractor": squeeze[0]} if metric.extractor else {}))
            assert score(other, images[1:2], alone).value == metric.compute().value
        batch["mask"][1] = without[0]
        where = "in" if covered else "outside"
        with pytest.raises(ValueError, match=f"one image with pixels {where} the hole .* PieMSE, found 0 of 3: turn"):
            score(PieMSE(covered), images, batch)


TINY = {"width": 12, "depth": 2, "heads": 2}


@pytest.mark.parametrize(("white", "antialias"), [(1, True), (255, False)])
def test_dino_sees_pictures_as_torchvision_would_show_them(pixels, white, antialias):
    images = pixels(2, size=300)
    shown = Resize(224, antialias=antialias)(images.float() * white / 255)
    expected = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(shown)
    found = DINOKeys(white, antialias, **TINY).preprocess(images)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-4)
    assert found[:, :, 0, 0].equal(DINOKeys(white, antialias, **TINY).preprocess(images)[:, :, 0, 0])


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dino")
    (folder / "weights").mkdir()
    torch.manual_seed(0)
    path = folder / "weights" / "dino.pth"
    torch.save(DINOKeys(1, True, **TINY).network.state_dict(), path)
    card = Card(path.name, sha256_file(path), "a test", "none")
    return Extractor("dino", DINOKeys(1, True, **TINY), card, folder)


def test_structure_distance_is_zero_for_the_input_and_symmetric(dino, pixels, batch_of):
    first, second = pixels(3, 0, 64), pixels(3, 1, 64)
    assert score(StructureDistance(dino, against="image"), first, batch_of(first)) == (0.0, 0.0, 3)
    there, back = (
        score(StructureDistance(dino, against="image"), *pair)
        for pair in ((first, batch_of(second)), (second, batch_of(first)))
    )
    assert there == back
    assert there.value > 0


def test_keys_do_not_depend_on_the_batch(dino, pixels):
    images = pixels(3, 0, 64)
    together = dino(images)["keys"]
    assert together.shape == (3, 1 + 28 * 28, 12)
    for row in range(3):
        assert torch.equal(dino(images[row : row + 1].clone())["keys"], together[row : row + 1])


def test_the_distance_of_known_keys():
    """Two places that are alike, beside two that are at right angles: of four cosines two differ, by 1."""
    alike = torch.tensor([[[1.0, 0.0], [2.0, 0.0]]])
    square = torch.tensor([[[0.0, 3.0], [1.0, 0.0]]])
    assert structure_distance(alike, square).tolist() == pytest.approx([0.5])
    assert structure_distance(alike, -alike * torch.tensor([[[1.0], [-1.0]]])).tolist() == pytest.approx([2.0])


def test_only_which_places_are_alike_counts():
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(2, 30, 8, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64)).Q
    scale = torch.rand(2, 30, 1, generator=generator, dtype=torch.float64) + 0.5
    assert structure_distance(keys @ turn * scale, keys).max() < 1e-25
    assert structure_distance(keys.flip(1), keys).min() > 1e-3  # the same places in another order


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save({"pos_embed": torch.zeros(1, 785, 12)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: .*missing"):
        DINOKeys(1, True, **TINY).load(tmp_path / "other.pth")


def test_the_standard_network_has_the_size_of_vit_b_8():
    described = {name: node(f"network/{name}/standard") for name in ("dino_keys", "dino_keys_pie")}
    with torch.device("meta"):
        state = construct(described["dino_keys"]["network"]).network.state_dict()
    assert state["pos_embed"].shape == (1, 785, 768)
    assert sum(value.numel() for value in state.values()) == 85_807_872
    assert described["dino_keys"]["card"] == described["dino_keys_pie"]["card"]
    changed = {"white": 255, "antialias": False}
    assert described["dino_keys_pie"]["network"] == described["dino_keys"]["network"] | changed


def test_the_toy_judge_sees_where_things_are_rather_than_their_light():
    count, pictures = 16, {"input": [], "edited": [], "other": []}
    for number in range(count):
        rng = random_stream("structure of a test", number)
        bird, other = sample_bird(rng), sample_bird(rng)
        _, named = describe(other, rng)
        edited = replace(bird, **{part: colour for part, colour in named.items() if part in PARTS})
        pictures["input"].append(picture_of_bird(bird, "structure", number, 0.75))
        pictures["edited"].append(picture_of_bird(edited, "structure", number, 0.75))
        pictures["other"].append(picture_of_bird(other, "structure, other", number, 0.75))
    shown = {name: torch.stack(images) for name, images in pictures.items()}
    shown |= {"darker": (0.7 * shown["input"]).byte(), "mirrored": shown["input"].flip(-1)}
    extractor = construct(node("network/dino_keys/toy"), assets="unused")
    found = {}
    for name, images in shown.items():
        metric = StructureDistance(extractor, against="image")
        found[name] = score(metric, images, {"image": from_uint8(shown["input"])}).value
    assert found["input"] == 0
    assert found["edited"] < 0.3 * found["other"]
    assert found["darker"] < 0.7 * found["mirrored"]
