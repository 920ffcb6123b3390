"""PICNet: draws, images of a batch apart, calls in any order, what training compares, and bad input."""

import mmbench.core.torchvision_schema  # noqa: F401  (before torchvision)

# isort: split
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from mmbench.core.noise import Noise, Sample
from mmbench.methods.inpainting.picnet import (
    Generator,
    NormedDiscriminator,
    PatchDiscriminator,
    PICNet,
    PlainDiscriminator,
    assumed_sigma,
    distance,
)
from mmbench.networks.pluralistic import Discriminator

SIZE = 32
JUDGES = [Discriminator, PlainDiscriminator, NormedDiscriminator, PatchDiscriminator]


def method(judge=Discriminator):
    torch.manual_seed(0)
    optimizers = {
        name: partial(torch.optim.Adam, lr=1e-4)
        for name in ("encoder", "generator", "discriminator", "discriminator_rec")
    }
    sizes = {"width": 4, "max_width": 8, "depth": 4, "latent_dim": 4, "num_refining": 1}
    weights = {"lambda_rec": 20.0, "lambda_kl": 20.0, "lambda_gan": 1.0}
    return PICNet(partial(judge, 4, 8, 3), optimizers, **sizes, **weights)


def noise(count, draw=0):
    return Noise(0, [Sample(f"{n}", 0, draw) for n in range(count)])


def batch(count=3, height=SIZE, width=SIZE):
    image = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = torch.zeros(count, 1, height, width)
    for row in range(count):
        mask[row, :, 2 * row : 2 * row + 10 + 4 * row, 8 : 24 - 2 * row] = 1
    return {"image": image, "mask": mask, "noise": noise(count)}


@torch.no_grad()
def test_every_draw_is_another_completion_and_what_is_known_stays():
    made, full = method().eval(), batch()
    first, second = (made.generate(full, noise(3, draw)) for draw in (0, 1))
    hole = full["mask"].expand(-1, 3, -1, -1) > 0
    for row in range(3):
        assert not torch.equal(first[row], second[row])
    for each in (first, second):
        assert torch.equal(each[~hole], full["image"][~hole])
        assert not torch.equal(each[hole], full["image"][hole])
    assert torch.equal(first, made.generate(full, noise(3)))


@torch.no_grad()
def test_what_is_in_the_hole_is_not_looked_at():
    made, full = method().eval(), batch()
    other = {**full, "image": torch.where(full["mask"] > 0, -full["image"], full["image"])}
    assert torch.equal(made.generate(full, noise(3)), made.generate(other, noise(3)))


@torch.no_grad()
@pytest.mark.parametrize("judge", JUDGES)
def test_in_evaluation_calls_may_come_in_any_order_and_in_training_each_one_counts(judge):
    made, full = method(judge).eval(), batch()
    stored = {name: value.clone() for name, value in made.named_buffers()}
    assert any(name.startswith("discriminator") for name in stored), "the last convolution is normalised in all"
    image = made.generate(full, noise(3))
    score = made.discriminator(full["image"])
    for row in (2, 0, 1):
        one = {name: full[name][row : row + 1] for name in ("image", "mask")}
        alone = made.generate(one, Noise(0, full["noise"].samples[row : row + 1]))[0]
        torch.testing.assert_close(alone, image[row], atol=1e-5, rtol=0)
        torch.testing.assert_close(made.discriminator(one["image"])[0], score[row], atol=1e-5, rtol=0)
    assert torch.equal(made.discriminator(full["image"]), score)
    assert all(torch.equal(value, stored[name]) for name, value in made.named_buffers())
    made.train().discriminator(full["image"])
    moved = {name for name, value in made.named_buffers() if not torch.equal(value, stored[name])}
    # A matrix of one row, the last convolution's, has no vector to move.
    assert bool(moved) == (judge is not PlainDiscriminator)
    assert all(name.startswith("discriminator.") for name in moved)


@torch.no_grad()
@pytest.mark.parametrize("everything", [0.0, 1.0])
def test_a_hole_of_nothing_or_of_everything_has_the_right_result(everything):
    made, full = method().eval(), batch()
    full["mask"] = torch.full_like(full["mask"], everything)
    image = made.generate(full, noise(3))
    if everything:
        other = made.generate({**full, "image": -full["image"]}, noise(3))
        assert torch.equal(image, other), "of an image of which nothing is known nothing is seen"
        assert not torch.equal(image[0], image[1]), "draws of their own"
    else:
        assert torch.equal(image, full["image"])


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(16, 32), (48, 32), (64, 80)])
def test_sides_are_any_multiples_of_what_the_network_halves(height, width):
    full = batch(1, height, width)
    assert method().eval().generate(full, noise(1)).shape == (1, 3, height, width)


@pytest.mark.parametrize(
    ("size", "mask", "message"),
    [
        (
            (40, 36),
            None,
            "expected images with sides of a multiple of 16 pixels, 2 times that area at least, found 36",
        ),
        ((16, 16), None, "found 16 x 16: resize or pad them"),
        ((32, 32), torch.zeros(3, 1, 16, 16), r"expected masks of shape \(3, 1, 32, 32\), as the images are, found"),
        ((32, 32), torch.full((3, 1, 32, 32), 0.2), "expected masks of 1 .hole. and 0 .known., found 0.2"),
    ],
)
def test_bad_input_is_one_line(size, mask, message):
    full = batch(3, *size)
    with pytest.raises(ValueError, match=message) as caught:
        method().generate(full if mask is None else {**full, "mask": mask}, noise(3))
    assert "\n" not in str(caught.value)


def test_widths_that_attention_cannot_compare_are_one_line():
    with pytest.raises(
        ValueError, match="expected max_width of 8 at most, with width=4 and depth=4, found 16: lower it"
    ):
        Generator(4, 16, 4, 4)


def test_generation_is_compared_where_pixels_are_known_and_reconstruction_everywhere():
    real, keep = torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 8, 8)
    keep[..., :4] = 0
    made = torch.where(keep > 0, 0.25, 4.0).expand_as(real)
    assert distance([made], real, keep) == 0.125, "a mean over all pixels"
    assert distance([made], real, torch.ones_like(keep)) == 2.125
    small = F.interpolate(real, (2, 2)) + 1
    assert distance([small, made], real, torch.ones_like(keep)) == 3.125, "sizes are added"


def test_the_assumed_prior_is_wide_where_much_is_hidden():
    keep = torch.stack((torch.zeros(1, 10, 10), torch.ones(1, 10, 10)))
    keep = torch.cat((keep, keep[1:]))
    keep[2, :, :2] = 0
    expected = 1 / (1 + torch.exp(8 * (torch.tensor([0.0, 1.0, 0.8]) - 1e-5 - 0.8)))
    torch.testing.assert_close(assumed_sigma(keep)[:, 0, 0, 0], expected)


def test_a_step_gives_the_posterior_no_lesson_from_the_prior(monkeypatch):
    made, full = method().train(), batch()
    turns = []
    monkeypatch.setattr(made, "minimise", lambda names, terms: turns.append(terms))
    made.training_step(full, 0)
    judged, taught = turns
    assert judged.keys() == {"L_D", "L_D_rec"}
    posterior = list(made.encoder.posterior.parameters())

    def lesson(term):
        found = torch.autograd.grad(taught[term], posterior, retain_graph=True, allow_unused=True)
        return sum(float(each.abs().sum()) for each in found if each is not None)

    assert {term for term in taught if lesson(term)} == {"KL_rec", "L_app_rec", "L_ad_rec"}
