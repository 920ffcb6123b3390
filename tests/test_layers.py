"""Building blocks against what they are by definition."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmbench.core.ema import EMA
from mmbench.layers.affine_combination import AffineCombination, watched
from mmbench.layers.conditioning_augmentation import Condition, ConditioningAugmentation
from mmbench.layers.convolution import ConvNorm
from mmbench.layers.gated_convolution import GatedConvolution, GatedResidual, ResizeBlock, UpBlock
from mmbench.layers.initialisation import initialise_normally, initialise_orthogonally
from mmbench.layers.lstm import LSTM
from mmbench.layers.upsampling import UpsamplingConvolution
from mmbench.layers.word_attention import ChannelAttention, SpatialAttention


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_mask(num_captions, num_words, rows=1):
    mask = torch.rand(num_captions, rows, num_words) < 0.5
    mask[..., 0] = True
    return mask


@pytest.mark.parametrize("rows", [1, 20])
def test_spatial_attention_is_unscaled_dot_product_attention(rows):
    layer, hidden, words = SpatialAttention(6, 8), torch.randn(3, 6, 4, 5), torch.randn(3, 7, 8)
    mask = random_mask(3, 7, rows)
    context, attention = layer(hidden, words, mask)
    projected = layer.project(words)
    expected = F.scaled_dot_product_attention(hidden.flatten(2).mT, projected, projected, attn_mask=mask, scale=1)
    torch.testing.assert_close(context.flatten(2).mT, expected)
    torch.testing.assert_close(attention.sum(1), torch.ones(3, 4, 5))
    assert (attention.flatten(2).mT[~mask.expand(3, 20, 7)] == 0).all()


def test_channel_attention_is_unscaled_dot_product_attention():
    layer, context, words = ChannelAttention(20, 8), torch.randn(3, 6, 4, 5), torch.randn(3, 7, 8)
    mask = random_mask(3, 7)
    out, attention = layer(context, words, mask)
    projected = layer.project(words)
    expected = F.scaled_dot_product_attention(context.flatten(2), projected, projected, attn_mask=mask, scale=1)
    torch.testing.assert_close(out.flatten(2), expected)
    torch.testing.assert_close(attention.sum(1), torch.ones(3, 6))


def test_affine_combination_is_affine_in_hidden_and_linear_in_image_features():
    layer, h, v = AffineCombination(6, 4), torch.randn(2, 6, 5, 5), torch.randn(2, 4, 5, 5)
    shift = layer(torch.zeros_like(h), v)
    torch.testing.assert_close(layer(3 * h, v) - shift, 3 * (layer(h, v) - shift))
    torch.testing.assert_close(layer(h, 2 * v), 2 * layer(h, v))


def test_a_watched_network_says_what_its_affine_combinations_are_made_of_and_makes_the_same():
    network = nn.ModuleDict({"coarse": AffineCombination(6, 4), "fine": nn.ModuleList([AffineCombination(6, 4)])})
    h, v = torch.randn(2, 6, 5, 5), torch.randn(2, 4, 5, 5)

    def run():
        first = network["fine"][0](h, v)
        return first, network["coarse"](first, v)

    made = run()
    with watched(network) as found:
        assert all(torch.equal(one, other) for one, other in zip(made, run(), strict=True))
    assert list(found) == ["fine.0", "coarse"], "in the order of running"
    for combined, given, expected in zip(found.values(), (h, made[0]), made, strict=True):
        assert torch.equal(combined.hidden, given)
        assert {tuple(maps.shape) for maps in combined} == {(2, 6, 5, 5)}
        torch.testing.assert_close(given * combined.scale + combined.shift, expected)
        torch.testing.assert_close(combined.scaled + combined.shift, expected)
    layer = network["coarse"]
    for maps, of in ((found["coarse"].scale, layer.scale), (found["coarse"].shift, layer.shift)):
        torch.testing.assert_close(maps, of(layer.shared(v)))
    found.clear()
    run()
    assert not found, "nobody watches any more"


def test_upsampling_17_to_64_reads_the_pixels_that_early_pytorch_read_for_a_scale_of_3_8():
    columns = torch.arange(17.0).expand(1, 1, 17, 17)
    read = ResizeBlock(1, 1, 64)[0](columns)[0, 0, 0].long().tolist()
    assert read == [i * 17 // 64 for i in range(64)]
    assert [i for i in range(64) if read[i] != int(i / 3.8)] == [34, 49, 53]


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 8)])
def test_upsampling_and_convolving_at_once_is_upsampling_and_then_convolving(size):
    layer, x = UpsamplingConvolution(5, 7).double(), torch.randn(2, 5, *size, dtype=torch.float64, requires_grad=True)
    found = layer(x)
    expected = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), layer.weight, padding=1)
    torch.testing.assert_close(found, expected)
    above = torch.randn_like(found)
    gradients = (torch.autograd.grad(image, (x, layer.weight), above) for image in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert list(layer.state_dict()) == ["weight"]


def test_an_up_block_doubles_and_a_gate_halves():
    assert UpBlock(3, 5)(torch.randn(2, 3, 4, 6)).shape == (2, 5, 8, 12)
    assert GatedConvolution(3, 5).convolution.out_channels == 10


def test_a_residual_block_without_weights_returns_its_input():
    block, x = GatedResidual(3), torch.randn(2, 3, 4, 4)
    nn.init.zeros_(block.convolution.weight)
    assert torch.equal(block(x), x)


def test_a_condition_has_the_mean_and_variance_it_states():
    layer, sentence = ConditioningAugmentation(8, 5), torch.randn(1, 8).expand(20_000, 8)
    condition, mu, log_variance = layer(sentence, torch.randn(20_000, 5))
    torch.testing.assert_close(condition.mean(0), mu[0], atol=0.05, rtol=0)
    torch.testing.assert_close(condition.var(0), log_variance[0].exp(), atol=0.05, rtol=0.05)
    at_the_mean, _, _ = layer(sentence[:1], torch.zeros(1, 5))
    torch.testing.assert_close(at_the_mean, mu[:1])


@pytest.mark.parametrize("bias", [True, False])
def test_a_leaky_condition_has_the_mean_and_deviation_it_states(bias):
    layer, sentence = Condition(8, 5, bias), torch.randn(1, 8).expand(20_000, 8)
    condition, mu, log_sigma = layer(sentence, torch.randn(20_000, 5))
    torch.testing.assert_close(condition.mean(0), mu[0], atol=0.05, rtol=0)
    torch.testing.assert_close(condition.std(0), log_sigma[0].exp(), atol=0.05, rtol=0.05)
    assert any("bias" in name for name in layer.state_dict()) == bias


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, 8), (1, 1, 8), (4, 2, 4)])
def test_a_normalised_convolution_keeps_or_halves_the_size_and_has_no_bias(kernel, stride, size):
    plain, activated = ConvNorm(3, 5, kernel, stride), ConvNorm(3, 5, kernel, stride, nn.ReLU())
    found = plain(torch.randn(2, 3, 8, 8))
    assert found.shape == (2, 5, size, size)
    torch.testing.assert_close(found.mean(dim=(0, 2, 3)), torch.zeros(5), atol=1e-5, rtol=0)
    assert plain.state_dict().keys() == activated.state_dict().keys()
    assert "0.bias" not in plain.state_dict()
    assert activated(torch.randn(2, 3, 8, 8)).min() == 0


def test_normal_initialisation_starts_without_shift_and_leaves_what_is_frozen():
    network = nn.Sequential(nn.Linear(50, 50), nn.BatchNorm2d(50), nn.Conv2d(20, 20, 3), nn.Linear(4, 4))
    frozen = network[3].requires_grad_(False).weight.clone()
    initialise_normally(network)
    for layer, mean in zip(network, (0, 1, 0), strict=False):
        assert float(layer.weight.detach().mean()) == pytest.approx(mean, abs=0.01)
        assert 0.015 < float(layer.weight.detach().std()) < 0.025
        assert not layer.bias.any()
    assert torch.equal(network[3].weight, frozen)


def test_orthogonal_initialisation_keeps_lengths_and_starts_without_shift():
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Conv2d(3, 5, 2))
    initialise_orthogonally(network)
    torch.testing.assert_close(network[0].weight @ network[0].weight.T, torch.eye(4))
    kernels = network[2].weight.flatten(1)
    torch.testing.assert_close(kernels @ kernels.T, torch.eye(5))
    assert not network[0].bias.any()
    assert not network[1].bias.any()
    assert 0 < (network[1].weight - 1).abs().max() < 0.1


def test_an_average_over_training_has_its_closed_form():
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 2)
    average = EMA(network, decay=0.9)
    nn.init.constant_(network.weight, 5)
    for _ in range(4):
        average.update(network)
    assert average(torch.ones(1, 1)).item() == pytest.approx(5 + (2 - 5) * 0.9**4)


def test_an_average_keeps_the_latest_buffers_and_is_not_trained_but_saved():
    network = nn.BatchNorm1d(3)
    average = EMA(network, decay=0.9).train()
    network(torch.randn(8, 3) + 4)
    average.update(network)
    assert torch.equal(average.average.running_mean, network.running_mean)
    assert not average.average.training
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert {"average.weight", "average.running_mean"} <= average.state_dict().keys()


def test_an_lstm_is_pytorchs_and_stays_in_full_precision_within_autocast():
    ours, theirs = (kind(4, 5, batch_first=True) for kind in (LSTM, nn.LSTM))
    theirs.load_state_dict(ours.state_dict())
    sequence = torch.randn(2, 3, 4)
    outputs, state = theirs(sequence)
    with torch.autocast("cpu", torch.bfloat16):
        found, after = ours(sequence[:, :2].bfloat16())
        found = torch.cat((found, ours(sequence[:, 2:], after)[0]), dim=1)
    torch.testing.assert_close(found, outputs, atol=0.01, rtol=0)  # of a sequence that was rounded
    torch.testing.assert_close(ours(sequence), (outputs, state), atol=0, rtol=0)
    assert found.dtype == torch.float32
