"""StyleGAN2: what its layers, penalties and training are, against independent computations."""

import math

import pytest
import torch
from torch import nn

from mmbench.core import config
from mmbench.core.noise import Noise, Sample
from mmbench.layers.equalised import EqualisedConvolution, EqualisedLinear, biased_leaky_relu
from mmbench.layers.modulated_convolution import ModulatedConvolution, UpsamplingModulatedConvolution
from mmbench.layers.upfirdn2d import binomial_filter, doubled, upfirdn2d
from mmbench.losses.penalties import path_length_penalty, path_lengths, r1_penalty
from mmbench.networks.stylegan2 import Discriminator, Generator, mixed, resolutions, spread_of_groups, truncated
from mmbench.pipeline import assembly, stages, training

WORDS = ["data=celeba_hq", "data.source=toy", "data.toy_images=40", "trainer=cpu", "weights=none", "scale=tiny"]


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_resizing_keeps_brightness_and_position():
    flat = torch.full((2, 3, 8, 8), 0.5)
    assert torch.allclose(doubled(flat, binomial_filter())[..., 2:-2, 2:-2], torch.tensor(0.5))
    halved = upfirdn2d(flat, binomial_filter(), down=2, padding=(1, 1))
    assert halved.shape == (2, 3, 4, 4)
    assert torch.allclose(halved[..., 1:-1, 1:-1], torch.tensor(0.5))
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    middle = doubled(ramp, binomial_filter())[0, 0, 8, 4:-4]
    assert torch.allclose(middle, (torch.arange(4, 12) + 0.5) / 2 - 0.5), "pixels stay where they are"


@pytest.mark.parametrize("layer", [EqualisedLinear(512, 64), EqualisedConvolution(32, 64, 3, padding=1)])
def test_equalised_layers_keep_the_variance_whatever_their_width(layer):
    shape = (256, 512) if isinstance(layer, EqualisedLinear) else (16, 32, 16, 16)
    y = layer(torch.randn(shape))
    assert 0.8 < y[..., 1:-1].var() < 1.2
    assert 0.8 < biased_leaky_relu(y).square().mean() < 1.2
    assert layer.weight.std().item() == pytest.approx(1, abs=0.05), "weights are stored as standard normal numbers"


@pytest.mark.parametrize("kind", [ModulatedConvolution, UpsamplingModulatedConvolution])
def test_modulation_is_that_of_each_images_own_weights(kind):
    layer, x, w = kind(5, 4, 3, 8), torch.randn(3, 5, 6, 6), torch.randn(3, 8)
    whole = layer(x, w)
    for row in range(3):
        weight = layer.weight / math.sqrt(5 * 9) * layer.style(w)[row][:, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        assert torch.allclose(layer.convolve(x[row : row + 1], weight)[0], whole[row], atol=1e-5)


def generator():
    return Generator(16, style_dim=8, mapping_layers=2, channel_base=128, channel_max=8)


def maps(network, count=2):
    return [torch.randn(count, 1, size, size) for size in network.synthesis.noise_sizes]


def test_styles_and_noise_of_a_generator():
    network = generator()
    for parameter in network.parameters():
        if parameter.shape == (1,):
            nn.init.ones_(parameter)  # noise strengths start at 0
    z, noise = torch.randn(2, 8), maps(network)
    assert network.synthesis.num_styles == 6
    assert network.synthesis.noise_sizes == [4, 8, 8, 16, 16]
    image = network(z, noise)
    assert image.shape == (2, 3, 16, 16)
    assert torch.allclose(network(3 * z, noise), image, atol=1e-4), "a latent's length does not matter"
    for place in range(len(noise)):
        other = [torch.randn_like(one) if at == place else one for at, one in enumerate(noise)]
        assert not torch.allclose(network(z, other), image, atol=1e-4), f"noise map {place} is seen"
    styles = network.styles(network.mapping(z)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network.synthesis(styles, noise).square().sum(), styles)
    assert (gradient.abs().sum(dim=2) > 0).all(), "each layer has a style"


def test_truncation_and_mixing():
    styles, average = torch.randn(2, 6, 8), torch.randn(8)
    assert torch.equal(truncated(styles, average, 1.0), styles)
    assert torch.equal(truncated(styles, average, 0.0), average.expand(2, 6, 8))
    others = torch.randn(2, 6, 8)
    both = mixed(styles, others, torch.tensor([2, 6]))
    assert torch.equal(both[0], torch.cat((styles[0, :2], others[0, 2:])))
    assert torch.equal(both[1], styles[1])


@pytest.mark.parametrize("size", [0, 4, 24, -8])
def test_a_size_that_is_no_power_of_two_is_refused(size):
    with pytest.raises(ValueError, match=rf"expected an image_size of 8, 16, 32, \.\.\., found {size}: choose"):
        resolutions(size)


def test_groups_of_images_that_are_alike_have_no_spread():
    alike = torch.randn(1, 3, 4, 4).repeat(8, 1, 1, 1)
    assert spread_of_groups(alike).max() < 2e-4
    x = torch.randn(8, 3, 4, 4)
    x[1::2] = x[1]  # 1, 3, 5 and 7 are one group of the two
    found = spread_of_groups(x)
    assert found.shape == (8, 1, 4, 4)
    assert found[1::2].max() < 2e-4
    assert torch.allclose(found[::2], x[::2].std(dim=0, correction=0).mean(), atol=1e-5)
    assert spread_of_groups(torch.randn(5, 3, 4, 4)).shape == (5, 1, 4, 4)


def test_the_r1_penalty_of_a_linear_discriminator_is_the_squared_norm_of_its_weights():
    weight, image = torch.randn(3 * 4 * 4), torch.randn(5, 3, 4, 4, requires_grad=True)
    assert r1_penalty(image, image.flatten(1) @ weight).item() == pytest.approx(weight.square().sum().item(), rel=1e-5)


def test_path_lengths_of_a_linear_generator_are_norms_of_its_columns():
    matrix, styles = torch.randn(2 * 8, 3 * 4 * 4), torch.randn(5, 2, 8, requires_grad=True)
    eps = torch.randn(5, 3, 4, 4)
    lengths = path_lengths((styles.flatten(1) @ matrix).view(5, 3, 4, 4), styles, eps)
    back = (eps.flatten(1) / 4) @ matrix.T  # (5, 16)
    assert torch.allclose(lengths, (back.square().sum(dim=1) / 2).sqrt(), rtol=1e-5)
    penalty, average = path_length_penalty(torch.tensor([1.0, 3.0]), torch.tensor(0.0), decay=0.5)
    assert (float(penalty), float(average)) == (2.0, 1.0)


def method_of(*words):
    plain = config.composed(["method=stylegan2", "protocol=strict_unconditional", *WORDS, *words])
    data = assembly.prepared_data(plain)
    return assembly.built(plain, data)[0], plain, data


def test_penalties_are_lazy_and_averages_follow(home):
    method, plain, data = method_of("method.module.r1_every=3", "method.module.path_every=2")
    data.training_fields, data.batch_size = method.trains_on, 4
    stepped = []
    minimise = method.minimise
    method.minimise = lambda name, terms: (stepped.append((name, *terms)), minimise(name, terms))
    trainer = stages.trainer_of(
        plain, max_epochs=1, limit_train_batches=4, callbacks=[training.SeededSteps(0)], logger=False
    )
    trainer.fit(method, datamodule=data)
    g, path = ("generator", "L_G"), ("generator", "L_path")
    d, r1 = ("discriminator", "L_D_real", "L_D_fake"), ("discriminator", "R1")
    assert stepped == [g, path, d, r1, g, d, g, path, d, g, d, r1]
    assert method.steps == 4
    assert method.path_average > 0
    assert method.w_average.abs().max() > 0


def test_parts_of_batches_are_refused(home):
    _, plain, data = method_of("+method.training.accumulate=2")
    with pytest.raises(
        ValueError, match=r"expected whole batches for StyleGAN2, .* found training\.accumulate=2: lower"
    ):
        training.trained(plain, data)


def test_truncated_to_nothing_all_samples_have_one_style(home):
    method, _, _ = method_of("method.module.truncation=0.0")
    method.w_average.normal_()
    samples = [Sample(name, 0, 0) for name in "abc"]
    one, *others = method.generate({}, Noise(0, samples))
    assert all(torch.allclose(one, other, atol=1e-6) for other in others), "noise strengths are 0 at the start"
    method.truncation = 1.0
    one, other, _ = method.generate({}, Noise(0, samples))
    assert not torch.allclose(one, other, atol=1e-3)


def test_a_discriminator_tells_one_image_from_many(home):
    judge = Discriminator(16, channel_base=128, channel_max=8)
    image = torch.randn(4, 3, 16, 16)
    alone = torch.cat([judge(row[None]) for row in image])
    assert not torch.allclose(judge(image), alone), "the spread of a batch is seen"
