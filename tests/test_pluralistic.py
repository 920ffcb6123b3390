"""Spectral normalisation, and the blocks that PICNet and TDANet are made of."""

import pytest
import torch
from torch import nn

from mmbench.layers.spectral_norm import SpectralConv2d, SpectralConvTranspose2d
from mmbench.losses.adversarial import least_squares_fake, least_squares_real
from mmbench.losses.kl import kl_between_normals, kl_to_standard_normal
from mmbench.networks.pluralistic import Decoder, Discriminator, ShortLongTermAttention, ShortTermAttention, targets


def seeded(kind, *args, **kwargs):
    torch.manual_seed(0)
    return kind(*args, **kwargs)


def pictures(count=2, size=48):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("kind", [SpectralConv2d, SpectralConvTranspose2d])
def test_after_some_steps_the_largest_singular_value_is_one(kind):
    layer = seeded(kind, 4, 6, 3)
    for _ in range(100):
        layer.normalised()
    values = torch.linalg.svdvals(layer.normalised().flatten(1))
    torch.testing.assert_close(values[0], torch.tensor(1.0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", [SpectralConv2d, SpectralConvTranspose2d])
def test_a_layer_is_the_plain_one_with_a_normalised_weight(kind):
    doubled = {"stride": 2, "padding": 1} | ({"output_padding": 1} if kind is SpectralConvTranspose2d else {})
    layer = seeded(kind, 3, 5, 3, **doubled).eval()
    plain = kind.__mro__[2](3, 5, 3, **doubled)
    plain.load_state_dict({"weight": layer.normalised(), "bias": layer.bias})
    torch.testing.assert_close(layer(pictures()), plain(pictures()))


def test_one_step_of_the_power_iteration_goes_before_a_use_and_training_stores_it():
    layer = seeded(SpectralConv2d, 4, 6, 3)
    matrix, u = layer.weight.detach().flatten(1), layer.u.clone()
    v = matrix.T @ u
    v = v / v.norm()
    expected = matrix @ v
    sigma, expected = expected.norm(), expected / expected.norm()
    torch.testing.assert_close(layer.eval().normalised(), layer.weight / sigma)
    assert torch.equal(layer.u, u)
    torch.testing.assert_close(layer.train().normalised(), layer.weight / sigma)
    torch.testing.assert_close(layer.u, expected)


def test_no_gradient_flows_through_the_vectors():
    layer = seeded(SpectralConv2d, 2, 3, 1).double().eval()
    u, direction = layer.u, torch.randn(3, 2, 1, 1, dtype=torch.float64)
    matrix = layer.weight.detach().flatten(1)
    v = nn.functional.normalize(matrix.T @ u, dim=0)
    u = nn.functional.normalize(matrix @ v, dim=0)
    weight = layer.weight.detach().clone().requires_grad_()
    wanted = torch.autograd.grad((weight / (u @ weight.flatten(1) @ v) * direction).sum(), weight)
    torch.testing.assert_close(torch.autograd.grad((layer.normalised() * direction).sum(), layer.weight), wanted)


def test_a_score_does_not_depend_on_earlier_calls():
    judge = seeded(Discriminator, 4, 8, 4).eval()
    first, other = pictures(1), pictures(3).flip(3)
    before = {key: tensor.clone() for key, tensor in judge.state_dict().items()}
    with torch.no_grad():
        alone = judge(first)
        for _ in range(3):
            judge(other)
        assert torch.equal(judge(first), alone)
    assert all(torch.equal(tensor, before[key]) for key, tensor in judge.state_dict().items())
    judge.train()(other)
    with torch.no_grad():
        assert not torch.equal(judge.eval()(first), alone), "training moves the vectors on"


def test_a_discriminator_gives_a_logit_for_each_part():
    assert seeded(Discriminator, 4, 8, 4)(pictures(2, 64)).shape == (2, 1, 2, 2)
    assert seeded(Discriminator, 4, 8, 5)(pictures(1, 96)).shape == (1, 1, 1, 1)


def test_attention_starts_as_nothing_and_averages_where_all_are_alike():
    layer = seeded(ShortTermAttention, 8)
    x = torch.randn(2, 8, 3, 4)
    assert torch.equal(layer(x), x)
    with torch.no_grad():
        layer.gamma.fill_(1)
        layer.query.weight.zero_()
        expected = x + x.mean(dim=(2, 3), keepdim=True)
        torch.testing.assert_close(layer(x), expected)


def test_long_term_attention_carries_what_was_seen_into_the_hole_alone():
    layer = seeded(ShortLongTermAttention, 8).eval()
    x, encoded = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4)
    keep = torch.ones(1, 1, 4, 4)
    keep[..., :2] = 0
    with torch.no_grad():
        layer.gamma.fill_(0), layer.alpha.fill_(1), layer.query.weight.zero_()
        flow = torch.where(keep > 0, encoded, encoded.mean(dim=(2, 3), keepdim=True))
        torch.testing.assert_close(layer(x, encoded, keep), layer.merge(torch.cat((x, flow), dim=1)))


@pytest.mark.parametrize("depth", [4, 5])
def test_a_decoder_makes_four_images_up_to_the_full_size(depth):
    decoder = seeded(Decoder, 4, 16, depth)
    hidden = torch.randn(2, decoder.channels, 2, 3)
    encoded = torch.randn(2, 16, 8, 12)
    size = (2 * 2**depth, 3 * 2**depth)
    images = decoder(hidden, encoded, torch.ones(2, 1, *size))
    assert [tuple(image.shape[-2:]) for image in images] == [tuple(side // 2**n for side in size) for n in (3, 2, 1, 0)]
    assert all(image.abs().max() <= 1 for image in images)


def test_targets_are_as_large_as_what_is_made_and_the_full_one_is_the_image_itself():
    image = pictures(2, 16)
    made = [torch.zeros(2, 3, side, side) for side in (4, 16)]
    small, full = targets(image, made)
    assert full is image
    assert torch.equal(small[..., 0, 0], image[..., 0, 0])
    assert torch.equal(small[..., -1, -1], image[..., -1, -1])


def test_least_squares_are_distances_from_one_and_from_nothing():
    logits = torch.tensor([1.0, 3.0])
    assert (float(least_squares_real(logits)), float(least_squares_fake(logits))) == (2.0, 5.0)


def test_the_divergence_of_normals_from_a_standard_one_is_the_one_that_is_known():
    mu, sigma = torch.randn(3, 4), torch.rand(3, 4) + 0.5
    standard = torch.zeros_like(mu), torch.ones_like(mu)
    torch.testing.assert_close(kl_between_normals(mu, sigma, *standard), kl_to_standard_normal(mu, 2 * sigma.log()))
    assert float(kl_between_normals(mu, sigma, mu, sigma)) == 0
