"""BigGAN: layers and regularisation; the networks are compared with the authors' in parity."""

from functools import partial

import pytest
import torch
from torch import nn

from mmbench.layers.self_attention import SelfAttention
from mmbench.layers.spectral_norm import SpectralLinear
from mmbench.losses.penalties import off_diagonal_penalty, orthogonality_penalty
from mmbench.networks.biggan import Discriminator, FlatGenerator, Generator


def test_attention_sums_to_one_and_starts_without_an_effect():
    torch.manual_seed(0)
    layer, x = SelfAttention(16, nn.Conv2d), torch.randn(2, 16, 6, 4)
    assert torch.equal(layer(x), x)
    attention = layer.attention(x)
    assert attention.shape == (2, 24, 6)
    torch.testing.assert_close(attention.sum(dim=2), torch.ones(2, 24))


def test_attention_reaches_every_place():
    torch.manual_seed(0)
    layer, x = SelfAttention(16, nn.Conv2d), torch.randn(1, 16, 4, 4)
    nn.init.ones_(layer.gamma)
    other = x.clone()
    other[..., -1, -1] += 3
    assert (layer(x) - layer(other))[..., 0, 0].abs().max() > 1e-4


def test_too_few_channels_to_attend_are_refused_in_one_line():
    with pytest.raises(ValueError, match="themselves, found 6: widen the network, or let"):
        SelfAttention(6, nn.Conv2d)


def test_filters_of_any_length_are_orthogonal_off_the_diagonal():
    torch.manual_seed(0)
    weight = nn.init.orthogonal_(torch.empty(4, 2, 3, 3))
    longer = weight * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None, None]
    assert off_diagonal_penalty(longer) < 1e-10
    assert orthogonality_penalty(weight) < 1e-10
    torch.testing.assert_close(orthogonality_penalty(longer), torch.tensor((3.0**2 + 8**2 + 15**2) / 2))
    pair = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    torch.testing.assert_close(off_diagonal_penalty(pair), torch.tensor(0.36))


def test_a_latent_that_cannot_be_cut_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^expected a latent that can be cut into 4 pieces, found one of 10: choose"):
        Generator(32, 2, 10, nn.Linear(3, 3), 3, attention_size=0)


@pytest.mark.parametrize(("kind", "reaches"), [(Generator, True), (FlatGenerator, False)])
def test_stages_have_a_piece_of_the_latent_or_none(kind, reaches):
    torch.manual_seed(0)
    network, seen = kind(32, 2, 8, nn.Linear(3, 5), 5, attention_size=0).eval(), []
    for stage in network.stages:
        stage[0].register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    latent, y = torch.randn(2, 8), torch.randn(2, 3)
    network(latent, y)
    assert [condition.shape[1] for condition in seen] == [5 + 2 * reaches] * 3
    if reaches:
        torch.testing.assert_close(torch.cat([condition[:, 5:] for condition in seen], dim=1), latent[:, 2:])


def test_a_condition_adds_its_inner_product_with_the_features():
    torch.manual_seed(0)
    network = Discriminator(32, 2, 0, partial(SpectralLinear, 5, bias=False)).eval()
    image, one, other = torch.randn(2, 3, 32, 32), torch.randn(2, 5), torch.randn(2, 5)
    alone = network(image, torch.zeros(2, 5))
    added = (network(image, given) - alone for given in (one, other, one + other))
    first, second, both = added
    torch.testing.assert_close(first + second, both, atol=1e-5, rtol=1e-4)
    assert first.abs().min() > 1e-4
