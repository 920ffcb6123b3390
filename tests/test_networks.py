"""Networks with official weights: sizes, keys, and independence of the batch."""

import mmbench.core.torchvision_schema  # noqa: F401  (before torchvision)

# isort: split
import pytest
import torch
from torch import nn
from torchvision.models import inception_v3, vgg16

from mmbench.core.weights import load_strictly
from mmbench.losses.adversarial import matching_aware_discriminator
from mmbench.losses.attngan import Discriminators
from mmbench.networks.attngan import Discriminator
from mmbench.networks.damsm import ImageEncoder, TextEncoder
from mmbench.networks.inception_v3 import INCEPTION_V3, InceptionV3Trunk
from mmbench.networks.vgg import VGG16, vgg16_keys


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_a_caption_does_not_depend_on_its_batch_its_order_or_its_padding():
    encoder = TextEncoder(num_tokens=30, embedding_dim=16, token_dim=12).eval()
    tokens, lengths = torch.randint(1, 30, (4, 9)), torch.tensor([3, 9, 1, 6])
    together = encoder(tokens, lengths)
    for n, length in enumerate(lengths):
        alone = encoder(tokens[n : n + 1, :length], lengths[n : n + 1])
        torch.testing.assert_close(together.sentence[n], alone.sentence[0])
        torch.testing.assert_close(together.words[n, :length], alone.words[0])
        assert not together.words[n, length:].any()
    assert together.word_mask.sum(1).tolist() == lengths.tolist()
    wider = encoder(nn.functional.pad(tokens, (0, 5)), lengths)
    assert torch.equal(wider.words, together.words)


def test_dropout_acts_on_the_text_encoder_in_training_only():
    encoder = TextEncoder(num_tokens=30, embedding_dim=16, token_dim=12)
    tokens, lengths = torch.randint(1, 30, (2, 4)), torch.tensor([4, 2])
    assert not torch.equal(encoder(tokens, lengths).sentence, encoder(tokens, lengths).sentence)
    encoder.eval()
    assert torch.equal(encoder(tokens, lengths).sentence, encoder(tokens, lengths).sentence)


class Trunk(nn.Module):
    region_channels, global_channels = 5, 7

    def forward(self, image):
        return image.mean(1, keepdim=True).expand(-1, 5, -1, -1), image.mean((1, 2, 3))[:, None].expand(-1, 7)


def test_an_image_encoder_takes_any_trunk():
    encoded = ImageEncoder(Trunk(), embedding_dim=6)(torch.randn(2, 3, 4, 4))
    assert encoded.regions.shape == (2, 6, 4, 4)
    assert encoded.code.shape == (2, 6)


def test_imagenet_weights_fill_the_inception_trunk_exactly():
    with torch.device("meta"):
        released = inception_v3(init_weights=False, aux_logits=True).state_dict()
        trunk = InceptionV3Trunk()
    load_strictly(trunk, INCEPTION_V3(released, trunk), "inception_v3_google-0cc3c7bd.pth")


@pytest.mark.parametrize(("layer", "index"), [("relu1_2", 3), ("relu2_2", 8), ("relu4_3", 22)])
def test_vgg_is_torchvisions_up_to_the_layer(layer, index):
    whole, ours, image = vgg16().features, VGG16(layer), torch.randn(1, 3, 32, 32)
    state = {f"features.{key}": value for key, value in whole.state_dict().items()} | {"classifier.0.bias": image}
    load_strictly(ours, vgg16_keys(layer)(state, ours), "vgg16-397923af.pth")
    features = ours(image)
    assert torch.equal(features, whole[: index + 1](image))
    assert features.shape[1] == ours.channels


def test_an_unknown_layer_of_vgg_is_one_line_with_those_there_are():
    with pytest.raises(ValueError, match=r"relu2_2.*found 'conv2_2'"):
        VGG16("conv2_2")


@pytest.mark.parametrize(
    ("size", "channels"), [(8, 1), (16, 2), (32, 4), (64, 8), (128, 8), (256, 8)], ids=lambda value: str(value)
)
def test_a_discriminator_of_any_size_ends_at_4x4(size, channels):
    network = Discriminator(size, width=3, embedding_dim=5).eval()
    features = network(torch.randn(2, 3, size, size))
    assert features.shape == (2, 3 * channels, 4, 4)
    assert network.unconditional(features).shape == (2,)
    assert network.conditional(features, torch.randn(2, 5)).shape == (2,)


def test_a_judgement_does_not_depend_on_the_batch_and_depends_on_the_sentence():
    network = Discriminator(16, width=4, embedding_dim=5).eval()
    images, sentences = torch.randn(3, 3, 16, 16), torch.randn(3, 5)
    together = network.conditional(network(images), sentences)
    alone = network.conditional(network(images[1:2]), sentences[1:2])
    torch.testing.assert_close(together[1], alone[0])
    assert not torch.allclose(together, network.conditional(network(images), sentences.flip(0)), atol=1e-4)


def test_a_mismatched_pair_is_an_image_with_the_next_sentence_and_fakes_get_no_gradient():
    network = Discriminator(16, width=4, embedding_dim=5).eval()
    real, fake = torch.randn(3, 3, 16, 16), torch.randn(3, 3, 16, 16, requires_grad=True)
    sentence = torch.randn(3, 5)
    logits = network.judge_pairs(real, fake, sentence)
    torch.testing.assert_close(logits.real_mismatched, network.conditional(network(real[:2]), sentence[1:]))
    sum(part.sum() for part in logits).backward()
    assert fake.grad is None


def test_discriminators_of_several_sizes_have_a_term_for_each_side_and_size():
    judges = Discriminators((8, 16), width=3, embedding_dim=5)
    real, fake = ([torch.randn(3, 3, size, size, requires_grad=True) for size in (8, 16)] for _ in range(2))
    sentence = torch.randn(3, 5)
    judged = judges.discriminator_terms(real, fake, sentence)
    assert list(judged) == ["L_D8", "L_D16"]
    expected = matching_aware_discriminator(*judges[1].judge_pairs(real[1], fake[1], sentence))
    torch.testing.assert_close(judged["L_D16"], expected)
    sum(judged.values()).backward()
    assert all(image.grad is None for image in fake)
    terms = judges.generator_terms(fake, sentence)
    assert list(terms) == ["L_G8", "L_G16"]
    sum(terms.values()).backward()
    assert all(image.grad.any() for image in fake)
