"""Inpainting without training: pictures whose right fill is known, and what holds of every such method."""

import itertools

import numpy as np
import pytest
import torch

from mmbench.core import composition, construction
from mmbench.core.images import from_uint8, to_uint8
from mmbench.core.method import Method
from mmbench.methods.inpainting.criminisi import Criminisi, Filling
from mmbench.methods.inpainting.navier_stokes import NavierStokes
from mmbench.methods.inpainting.patchmatch import PatchMatch
from mmbench.methods.inpainting.telea import Telea
from mmbench.methods.reference import MeanColour

NAMES = ("navier_stokes", "telea", "criminisi", "patchmatch", "mean_colour")
SIDE = 32


def method(name):
    return construction.construct(composition.node(f"method/{name}")["module"])


def random_pixels(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).byte()


def stripes(side=SIDE, period=8):
    """(H, W, 3) uint8: vertical stripes on a slope from top to bottom."""
    down, across = np.mgrid[:side, :side]
    return np.stack([200 * (across // (period // 2) % 2), 4 * down, np.full_like(down, 60)], -1).astype(np.uint8)


def square(first, last, side=SIDE):
    hole = np.zeros((side, side), bool)
    hole[first:last, first:last] = True
    return hole


def batch_of(levels, hole):
    """(N, 3, H, W) uint8 and (N, H, W) bool as a batch."""
    return {"image": from_uint8(levels), "mask": hole[:, None].float()}


@pytest.fixture
def batch():
    """Four smooth pictures with other holes each."""
    coarse = random_pixels(4, 3, 5, 5).float()
    levels = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear").round().byte()
    hole = torch.zeros(4, SIDE, SIDE, dtype=torch.bool)
    for row, (top, left) in enumerate([(8, 8), (0, 3), (20, 20), (5, 0)]):
        hole[row, top : top + 9, left : left + 12] = True
    return batch_of(levels, hole)


@pytest.mark.parametrize("name", NAMES)
def test_known_pixels_are_as_they_came_and_what_is_in_the_hole_does_not_matter(name, batch):
    of_it, hole = method(name), batch["mask"] > 0
    batch["image"] = batch["image"] + 0.001  # no whole level
    made = of_it.generate(batch, None)
    assert made.dtype == torch.float32
    assert torch.equal(made[~hole.expand_as(made)], batch["image"][~hole.expand_as(made)])
    other = {**batch, "image": torch.where(hole, -batch["image"], batch["image"])}
    assert torch.equal(of_it.generate(other, None), made)
    for row in range(4):
        alone = of_it.generate({field: values[row : row + 1] for field, values in batch.items()}, None)
        assert torch.equal(alone[0], made[row]), "an image does not depend on its batch"


@pytest.mark.parametrize("name", NAMES)
def test_no_hole_leaves_the_picture_and_a_hole_that_is_all_of_it_is_grey(name):
    levels = random_pixels(2, 3, SIDE, SIDE)
    hole = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    hole[1] = True
    given = batch_of(levels, hole)
    made = method(name).generate(given, None)
    assert torch.equal(made[0], given["image"][0])
    assert not made[1].any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("known", ["a corner", "a column", "a comb"])
def test_little_that_is_known_is_enough(name, known):
    levels = torch.full((1, 3, SIDE, SIDE), 40, dtype=torch.uint8)
    hole = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    if known == "a corner":
        hole[0, 0, 0] = False
    elif known == "a column":
        hole[0, :, 7] = False
    else:
        hole[0, ::2, ::3] = False
    made = to_uint8(method(name).generate(batch_of(levels, hole), None))
    assert made.float().mean() == pytest.approx(40, abs=4), "OpenCV's fast marching ripples a little on flat ground"


@pytest.mark.parametrize("name", NAMES[:4])
def test_a_mask_of_another_size_is_one_line(name):
    given = {"image": torch.zeros(1, 3, SIDE, SIDE), "mask": torch.ones(1, 1, SIDE, 8)}
    with pytest.raises(
        ValueError, match=r"expected masks of the images' size \(32, 32\), found \(32, 8\): resize them"
    ):
        method(name).generate(given, None)


def test_the_mean_colour_is_that_of_what_is_known():
    levels = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    levels[0, :, 0] = torch.tensor([[100, 200], [0, 0], [30, 50]])
    levels[0, :, 1] = 255
    hole = torch.tensor([[[False, False], [True, True]]])
    made = to_uint8(MeanColour().generate(batch_of(levels, hole), None))
    assert made[0, :, 1].T.tolist() == [[150, 0, 40]] * 2


@pytest.mark.parametrize("diffusion", [NavierStokes(3), Telea(3)])
def test_diffusion_continues_a_slope_and_keeps_the_order_of_channels(diffusion):
    down = np.mgrid[:SIDE, :SIDE][0]
    image = np.stack([6 * down, 200 - 6 * down, np.full_like(down, 30)], -1).astype(np.uint8)
    hole = square(13, 19)
    filled = diffusion.fill(np.where(hole[..., None], 127, image).astype(np.uint8), hole)
    assert np.abs(filled[hole].astype(int) - image[hole]).max() < 25, "a tenth of the range is 20 levels"
    assert np.abs(filled[hole][:, 2].astype(int) - 30).max() < 4


@pytest.mark.parametrize("patches", [Criminisi(9), PatchMatch(3)])
def test_patches_continue_a_texture_where_diffusion_blurs_it(patches):
    image, hole = stripes(64), square(20, 40, 64)
    errors = {}
    for one in (patches, NavierStokes(3), Telea(3)):
        filled = one.fill(np.where(hole[..., None], 127, image).astype(np.uint8), hole)
        errors[type(one).__name__] = np.abs(filled[hole].astype(int) - image[hole])[:, 0].mean()
    of_patches, *others = errors.values()
    assert of_patches < 0.5 * min(others)


def test_patchmatch_does_not_depend_on_what_was_drawn_before():
    image, hole = stripes(), square(10, 20)
    first = PatchMatch(2).fill(image, hole)
    PatchMatch(2).fill(image, square(3, 9))
    assert np.array_equal(PatchMatch(2).fill(image, hole), first)


def test_criminisi_repeats_what_repeats_exactly():
    across = np.mgrid[:SIDE, :SIDE][1]
    image = np.stack([60 * (across % 4), 255 - 60 * (across % 4), across % 4], -1).astype(np.uint8)
    hole = square(11, 20)
    assert np.array_equal(Criminisi(5).fill(np.where(hole[..., None], 9, image).astype(np.uint8), hole), image)


def test_a_line_is_continued_before_its_surroundings():
    """A dark bar runs into the hole from both sides: priorities by confidence alone would begin at the corners."""
    image = np.full((40, 40, 3), 200, np.uint8)
    image[18:22] = 20
    hole = square(12, 28, 40)
    filled = Criminisi(7).fill(np.where(hole[..., None], 127, image).astype(np.uint8), hole)
    assert np.array_equal(filled, image)
    filling = Filling(image, hole, 7)
    filling.step()
    changed = np.argwhere(hole & ~filling.hole[3:-3, 3:-3])
    assert {row for row, _ in changed} & set(range(17, 23)), "the first patch lies on the bar"


def test_confidence_and_data_are_those_of_the_paper():
    """By hand: left of the hole the picture has a horizontal edge of 100 levels, and the hole a vertical rim."""
    image = np.zeros((12, 12, 3), np.uint8)
    image[6:] = 100
    hole = np.zeros((12, 12), bool)
    hole[2:10, 5:] = True
    filling = Filling(image, hole, 3)
    rows, columns = np.array([6, 8, 2]) + 1, np.array([5, 5, 5]) + 1  # of the map with its border of one pixel
    confidence, data = filling.terms(rows, columns)
    assert confidence.tolist() == pytest.approx([3 / 9, 3 / 9, 5 / 9])
    # A central difference across the edge is 50; those beside the hole have an unknown neighbour: none.
    assert data.tolist() == [0, 0, 0]
    confidence, data = Filling(image, hole, 5).terms(rows + 1, columns + 1)
    assert confidence.tolist() == pytest.approx([10 / 25, 13 / 25, 16 / 25])
    assert data.tolist() == pytest.approx([50 / 255, 50 / 255, 0])


def test_the_nearest_patch_is_that_of_the_smallest_sum_of_squares():
    image = random_pixels(20, 20, 3).numpy()
    hole = square(7, 13, 20)
    filling = Filling(image, hole, 5)
    target = (slice(6, 11), slice(7, 12))  # with its border of two pixels, across the upper rim
    known = filling.known[target]
    assert 0 < known.sum() < 25
    distances = {}
    for top, left in itertools.product(range(16), range(16)):
        if not hole[top : top + 5, left : left + 5].any():
            source = filling.lab[top + 2 : top + 7, left + 2 : left + 7]
            distances[top, left] = float((((source - filling.lab[target]) ** 2).sum(-1) * known).sum())
    found = filling.corners[filling.nearest(target)] - 2
    assert tuple(found.tolist()) == min(distances, key=distances.get)
    assert len(filling.sources) == len(distances)


def test_where_no_patch_is_known_smaller_ones_are_taken():
    image, hole = stripes(period=4), np.ones((SIDE, SIDE), bool)
    hole[:, :4] = False  # three pixels wide at most, of odd widths
    filled = Criminisi(9).fill(np.where(hole[..., None], 0, image).astype(np.uint8), hole)
    assert {tuple(colour) for colour in filled[hole]} <= {tuple(colour) for colour in image[~hole]}


@pytest.mark.parametrize("patch", [4, 1, -3])
def test_a_width_of_patches_that_has_no_middle_is_one_line(patch):
    with pytest.raises(ValueError, match=f"expected patches of an odd width of 3 or more, found {patch}: change patch"):
        Criminisi(patch)


def test_none_of_them_has_anything_to_learn():
    for name in NAMES:
        of_it = method(name)
        assert isinstance(of_it, Method)
        assert not list(of_it.parameters())
        assert "training" not in composition.node(f"method/{name}")
