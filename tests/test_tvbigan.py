"""TVBi-GAN: who is told of the sentence, and who plays which side of the bidirectional game."""

import pytest
import torch
from torch import nn

from mmbench.core.adversarial import Adversarial
from mmbench.layers.initialisation import initialise_orthogonally
from mmbench.methods.synthesis.tvbigan import ImageEncoder, NextStage, SemanticConvolution, TVBiGAN
from mmbench.networks.attngan import ConditionalDiscriminator, Told

WIDTH, TEXT, CONDITION = 4, 6, 5


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_normalisation_is_scaled_and_shifted_by_the_condition_alone():
    layer = SemanticConvolution(nn.Conv2d(3, 8, 1, bias=False), 4, CONDITION)
    x, none = torch.randn(6, 3, 5, 5), torch.zeros(6, CONDITION)
    for linear in (layer.norm.scale, layer.norm.shift):
        nn.init.zeros_(linear.bias)
    plain = layer.norm(layer.convolution(x), none)
    assert torch.allclose(plain.mean(dim=(0, 2, 3)), torch.zeros(8), atol=1e-5)
    assert torch.allclose(plain.var(dim=(0, 2, 3), correction=0), torch.ones(8), atol=1e-3)
    condition = torch.randn(6, CONDITION)
    told = layer.norm(layer.convolution(x), condition)
    scale, shift = 1 + condition @ layer.norm.scale.weight.T, condition @ layer.norm.shift.weight.T
    assert torch.allclose(told, plain * scale[..., None, None] + shift[..., None, None], atol=1e-5)


def test_the_sentence_asks_for_words():
    stage = NextStage(WIDTH, TEXT, CONDITION, num_residual=1).eval()
    hidden, words = torch.randn(2, WIDTH, 3, 3), torch.randn(2, 4, TEXT)
    mask = torch.tensor([[[True] * 4], [[True, True, False, False]]])
    found, attention = stage(hidden, Told(words, mask, torch.randn(2, CONDITION)))
    _, other = stage(hidden, Told(words, mask, torch.randn(2, CONDITION)))
    assert found.shape == (2, WIDTH, 6, 6)
    assert torch.allclose(attention.sum(dim=1), torch.ones(2, 3, 3))
    assert attention[1, 2:].abs().max() == 0
    assert (attention - other).abs().max() > 0.01, "the same features of another sentence look at other words"


def test_features_of_images_are_as_sentences_are():
    encoder = ImageEncoder(32, width=4, embedding_dim=TEXT)
    features = encoder(torch.randn(3, 3, 32, 32))
    assert features.shape == (3, TEXT)
    assert features.abs().max() < 1
    with pytest.raises(AssertionError, match="not a power of two"):
        ImageEncoder(24, width=4, embedding_dim=TEXT)


@pytest.fixture
def method():
    """The bidirectional part alone."""
    part = TVBiGAN.__new__(TVBiGAN)
    Adversarial.__init__(part, {})
    part.encoder = ImageEncoder(16, width=4, embedding_dim=TEXT)
    part.joint = ConditionalDiscriminator(16, width=4, embedding_dim=TEXT)
    initialise_orthogonally(part.joint)
    return part.eval()


def test_encoder_and_joint_discriminator_play_against_each_other(method):
    real, fake, sentence = torch.randn(3, 3, 16, 16), torch.randn(3, 3, 16, 16), torch.randn(3, TEXT)
    real_logits, fake_logits = method.judged(real, method.encoder(real)), method.judged(fake, sentence)
    terms = method.joint_terms(real, fake, sentence)
    # Of BiGAN's equation 2: log D(x, E(x)) and log(1 - D(G(z, s), s)), D being the sigmoid of logits.
    assert terms["L_bi_real"].item() == pytest.approx(-real_logits.sigmoid().log().mean().item(), rel=1e-4)
    assert terms["L_bi_fake"].item() == pytest.approx(-(1 - fake_logits.sigmoid()).log().mean().item(), rel=1e-4)
    wanted = -(1 - real_logits.sigmoid()).log().mean().item()
    assert method.encoder_terms(real)["L_bi"].item() == pytest.approx(wanted, rel=1e-4)


def test_each_side_of_the_game_leaves_the_other_alone(method):
    real, sentence = torch.randn(3, 3, 16, 16), torch.randn(3, TEXT)
    fake = torch.randn(3, 3, 16, 16, requires_grad=True)
    sum(method.joint_terms(real, fake, sentence).values()).backward()
    assert fake.grad is None
    assert all(p.grad is None for p in method.encoder.parameters())
    assert all(p.grad is not None for p in method.joint.parameters())
    method.encoder_terms(real)["L_bi"].backward()
    assert all(p.grad is not None for p in method.encoder.parameters())
