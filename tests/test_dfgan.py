"""DF-GAN: what its parts do, at sizes of seconds; at the published size it is compared with the authors' in parity."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import truncnorm
from torch import nn

from mmbench.core import config
from mmbench.core.weights import read_state
from mmbench.layers.upsampling import UpsamplingConvolution
from mmbench.losses.penalties import matching_aware_penalty
from mmbench.methods.synthesis.dfgan import (
    DFGAN,
    Affine,
    DFGANTwoWay,
    Discriminator,
    DownBlock,
    FusionUpBlock,
    Generator,
    cut_off,
)
from mmbench.pipeline import assembly

PARITY = Path(__file__).parent / "parity/fixtures/dfgan"
TOY = ["data=cub", "data.source=toy", "data.toy_images=40", "trainer=cpu", "weights=none"]


def test_noise_is_that_of_a_normal_distribution_cut_off_at_two():
    shares = torch.linspace(0, 1 - 2**-24, 1001)
    found, expected = cut_off(shares), torch.from_numpy(truncnorm.ppf(shares.double().numpy(), -2, 2))
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
    assert found.abs().max() <= 2


def test_the_penalty_of_linear_logits_is_a_power_of_their_weights():
    torch.manual_seed(0)
    image, sentence = torch.randn(3, 3, 4, 4, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    by_image, by_sentence = torch.randn(3, 4, 4), torch.randn(5)
    logits = (image * by_image).sum(dim=(1, 2, 3)) + sentence @ by_sentence
    squared = by_image.square().sum() + by_sentence.square().sum()
    torch.testing.assert_close(matching_aware_penalty(image, sentence, logits, power=6), squared**3)
    torch.testing.assert_close(matching_aware_penalty(image, sentence, logits, power=2), squared)


def test_the_penalty_of_constant_logits_moves_nothing():
    image, sentence = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 5, requires_grad=True)
    weight = torch.zeros(5, requires_grad=True)
    logits = sentence @ weight + 0 * image.sum(dim=(1, 2, 3))
    penalty = matching_aware_penalty(image, sentence, logits, power=6)
    assert penalty == 0
    assert torch.equal(torch.autograd.grad(penalty, weight)[0], torch.zeros(5))


def test_upsampling_and_convolving_at_once_adds_the_bias_once():
    torch.manual_seed(0)
    layer, x = UpsamplingConvolution(3, 4, bias=True).double(), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    expected = F.conv2d(F.interpolate(x, scale_factor=2), layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)


def test_fusion_starts_without_an_effect_and_then_follows_the_condition():
    torch.manual_seed(0)
    affine, x, condition = Affine(6, 4), torch.randn(2, 4, 3, 3), torch.randn(2, 6)
    assert torch.equal(affine(x, condition), x)
    nn.init.normal_(affine.scale[-1].weight)
    changed = affine(x, condition) - affine(x, condition.flip(0))
    assert changed.abs().max() > 0.1


@pytest.mark.parametrize("channels", [(6, 6), (6, 3)])
def test_before_upsampling_is_as_behind_it(channels):
    torch.manual_seed(0)
    block, x, condition = (
        FusionUpBlock(5, *channels).double(),
        torch.randn(2, 6, 4, 4).double(),
        torch.randn(2, 5).double(),
    )
    for affine in (*block.fusion1.affines, *block.fusion2.affines):
        nn.init.normal_(affine.scale[-1].weight)
    large = F.interpolate(x, scale_factor=2)
    first = F.conv2d(block.fusion1(large, condition), block.convolution1.weight, block.convolution1.bias, padding=1)
    expected = block.shortcut(large) + block.convolution2(block.fusion2(first, condition))
    torch.testing.assert_close(block(x, condition), expected)


def test_a_pooled_shortcut_is_as_a_shortcut_that_is_pooled():
    torch.manual_seed(0)
    block, x = DownBlock(3, 5).double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(block(x), F.avg_pool2d(block.shortcut(x), 2))  # gamma is 0
    nn.init.ones_(block.gamma)
    torch.testing.assert_close(block(x), F.avg_pool2d(block.shortcut(x), 2) + block.residual(x))


def test_the_discriminator_sees_the_sentence_at_every_place():
    torch.manual_seed(0)
    network, image = Discriminator(32, 4, 6), torch.randn(3, 3, 32, 32)
    sentence = torch.randn(3, 6)
    logits = network(image, sentence)
    assert logits.shape == (3,)
    assert (logits - network(image, sentence.flip(0))).abs()[[0, 2]].min() > 1e-4
    torch.testing.assert_close(network(image[1:2], sentence[1:2]), logits[1:2])


def test_networks_have_the_size_that_was_published(conf):
    module = config.composed(["method=dfgan", "data=cub"])["method"]["module"]
    published = json.loads((PARITY / "generator-full-layout.json").read_text())["config"]
    assert (module["width"], module["noise_dim"], module["image_size"]) == (32, 100, 256)
    assert (published["nf"], published["z_dim"], published["imsize"]) == (32, 100, 256)


def test_weights_are_read_out_of_a_file_that_holds_more(tmp_path):
    network = Generator(32, 2, 3, 4)
    content = {
        "model": {"netG": network.state_dict(), "netD": {}},
        "optimizers": {"state": {0: {"step": 3}}},
        "epoch": 7,
    }
    torch.save(content, tmp_path / "state_epoch_007.pth")
    state = read_state(tmp_path / "state_epoch_007.pth", "model.netG")
    assert state.keys() == network.state_dict().keys()
    with pytest.raises(
        ValueError, match=r"expected model\.net in it, found no net: fetch the file that its card names"
    ):
        read_state(tmp_path / "state_epoch_007.pth", "model.net")
    with pytest.raises(ValueError, match="found 'model' of type dict"):
        read_state(tmp_path / "state_epoch_007.pth")


def built(name, tiny):
    plain = config.composed([f"method={name}", *TOY])
    return assembly.built(plain, assembly.prepared_data(plain))[0]


@pytest.fixture
def given():
    stream = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(4, 3, 32, 32, generator=stream) for _ in range(2))
    sentence = torch.randn(4, 16, generator=stream)
    return {"real": real.requires_grad_(), "fake": fake, "sentence": sentence.requires_grad_()}


def test_a_false_pair_is_the_next_image_with_this_sentence(tiny, given):
    method = built("dfgan", tiny)
    terms = DFGAN.discriminator_terms(method, **given)
    logits = method.discriminator(given["real"].roll(-1, dims=0), given["sentence"])
    torch.testing.assert_close(terms["L_D_mismatched"], F.relu(1 + logits).mean() / 2)
    logits = method.discriminator(given["real"], given["sentence"])
    torch.testing.assert_close(terms["L_D_real"], F.relu(1 - logits).mean())


def test_with_two_ways_the_image_is_judged_without_its_sentence_as_well(tiny, given):
    method = built("dfgan_two_way", tiny)
    assert isinstance(method, DFGANTwoWay)
    terms = method.discriminator_terms(**given)
    other = method.discriminator_terms(**{**given, "sentence": given["sentence"].flip(0)})
    changed = {name for name in terms if not torch.equal(terms[name], other[name])}
    assert {"L_D_real_alone", "L_D_fake_alone"} <= terms.keys() - changed
    assert {"L_D_real", "L_D_fake", "L_D_mismatched"} <= changed
    one_way = DFGAN.generator_terms(method, given["fake"], given["sentence"])
    assert method.generator_terms(given["fake"], given["sentence"]).keys() - one_way.keys() == {"L_G_alone"}
