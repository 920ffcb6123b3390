"""VQGAN's first stage: its weights, its conventions, and the discriminator that comes later."""

import pytest
import torch
from test_contract import subject
from torch import nn

from mmbench.core.noise import Noise, Sample
from mmbench.core.weights import load_strictly, read_state
from mmbench.layers.quantisers import GumbelQuantiser, LegacyVectorQuantiser, VectorQuantiser
from mmbench.losses.adaptive import LARGEST, adaptive_weight
from mmbench.losses.perceptual import perceptual_distance
from mmbench.methods.synthesis.vqgan import GumbelVQGAN
from mmbench.networks.vqgan import Autoencoder, Encoder
from mmbench.networks.vqgan_keys import AUTOENCODER


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def autoencoder(num_codes=6):
    return Autoencoder(4, [1, 2], 1, [2], 3, LegacyVectorQuantiser(num_codes, 2), num_groups=2)


def authors(network):
    """A state dict under the authors' keys: ours, renamed backwards by hand."""
    theirs = {
        "to_codes": "quant_conv",
        "from_codes": "post_quant_conv",
        "quantiser.vectors": "quantize.embedding.weight",
        ".entry": ".conv_in",
        ".exit": ".conv_out",
        "coder.norm.": "coder.norm_out.",
        ".middle.0": ".mid.block_1",
        ".middle.1": ".mid.attn_1",
        ".middle.2": ".mid.block_2",
        ".shortcut": ".nin_shortcut",
        ".query": ".q",
        ".key": ".k",
        ".value": ".v",
        ".project": ".proj_out",
        ".blocks": ".block",
        ".attentions": ".attn",
    }
    found = {}
    for key, value in network.state_dict().items():
        for ours, name in theirs.items():
            key = key.replace(ours, name)
        key = key.replace("levels", "down" if key.startswith("encoder") else "up")
        key = key.replace("halvings.0", "down.0.downsample").replace("doublings.1", "up.1.upsample")
        found[key] = value
    return found


def test_a_lightning_checkpoint_fills_the_autoencoder_and_leaves_out_what_trained_it(tmp_path):
    network, other = autoencoder(), autoencoder()
    state = authors(network) | {"loss.discriminator.main.0.weight": torch.zeros(2)}
    torch.save({"epoch": 3, "state_dict": state, "optimizer_states": []}, tmp_path / "last.ckpt")
    load_strictly(other, AUTOENCODER(read_state(tmp_path / "last.ckpt", "state_dict"), other), "last.ckpt")
    image = torch.rand(2, 3, 8, 8) * 2 - 1
    assert torch.equal(other.decode(other.encode(image)), network.decode(network.encode(image)))
    assert len(network.encode(image).unique()) > 1


def test_a_codebook_of_another_size_is_one_line():
    with pytest.raises(
        ValueError, match=r"last\.ckpt: .* quantiser\.vectors has shape \(6, 2\) instead of \(7, 2\): use"
    ) as error:
        load_strictly(autoencoder(7), AUTOENCODER(authors(autoencoder(6)), autoencoder(7)), "last.ckpt")
    assert "\n" not in str(error.value)


def test_a_size_that_the_stride_does_not_allow_is_one_line():
    encoder = Encoder(4, [1, 1, 2], 1, [], 3, num_groups=2)
    with pytest.raises(ValueError, match=r"multiples of 4, the autoencoder's stride, found 8 x 6: set") as error:
        encoder(torch.zeros(1, 3, 8, 6))
    assert "\n" not in str(error.value)


def test_an_autoencoder_without_residual_blocks_is_one_line():
    with pytest.raises(ValueError, match=r"^expected at least 1 residual block of each size, found 0: set num_blocks"):
        Encoder(width=8, multipliers=[1, 2], num_blocks=0, attention_factors=[], out_channels=4, num_groups=4)


def test_the_legacy_convention_has_its_weight_before_the_other_term():
    paper, legacy = VectorQuantiser(5, 3, beta=0.25), LegacyVectorQuantiser(5, 3, beta=0.25)
    legacy.load_state_dict(paper.state_dict())
    z = torch.randn(2, 3, 4, 4, requires_grad=True)
    of_paper, of_legacy = (torch.autograd.grad(one(z).loss, (z, one.vectors)) for one in (paper, legacy))
    torch.testing.assert_close(of_paper[0], of_legacy[0] / 4)
    torch.testing.assert_close(of_paper[1], of_legacy[1] * 4)
    torch.testing.assert_close(paper(z).loss, legacy(z).loss)


@pytest.mark.parametrize(("bound", "largest"), [(None, 1 / 50), (0.5, 0.5)])
def test_codes_begin_within_a_bound_and_fill_it(bound, largest):
    vectors = VectorQuantiser(50, 4, bound=bound).vectors
    assert 0.9 * largest < vectors.abs().max() <= largest


def test_the_adaptive_weight_makes_both_gradients_of_the_last_layer_as_large():
    layer, features = nn.Conv2d(3, 3, 3), torch.randn(2, 3, 6, 6)
    fake = layer(features)
    fit, judged = fake.square().mean(), -0.01 * fake.sin().mean()
    weight = adaptive_weight(fit, judged, layer.weight)
    sizes = [torch.autograd.grad(one, layer.weight, retain_graph=True)[0].norm() for one in (fit, weight * judged)]
    assert float(sizes[1]) == pytest.approx(float(sizes[0]), rel=0.1), "but for the 1e-4 in the denominator"
    assert not weight.requires_grad


def test_the_adaptive_weight_ends_at_ten_thousand():
    last = torch.ones(3, requires_grad=True)
    assert float(adaptive_weight(100 * last.sum(), 0 * last.sum(), last)) == LARGEST


def test_a_perceptual_distance_is_of_images_in_levels_and_has_no_gradient_to_the_real_one():
    fake, real = (torch.rand(2, 3, 4, 4).requires_grad_() for _ in range(2))
    distance = perceptual_distance(lambda levels: {"embedding": levels.flatten(1)}, fake, real)
    torch.testing.assert_close(distance, (127.5 * (fake - real)).square().sum(dim=(1, 2, 3)))
    distance.sum().backward()
    assert fake.grad is not None
    assert real.grad is None


def test_the_discriminator_takes_part_from_its_first_step_on_and_not_before(home):
    of_it = subject("vqgan")
    of_it.method.discriminator_start = 1
    before = {key: value.clone() for key, value in of_it.method.discriminator.state_dict().items()}
    for epochs, moved in ((1, False), (2, True)):
        method, trainer = of_it.fitted(epochs=epochs)
        after = method.discriminator.state_dict()
        assert any(not torch.equal(before[key], after[key]) for key in before) == moved
        assert ("autoencoder/L_G" in trainer.callback_metrics) == moved
        assert int(method.steps) == epochs


def test_the_temperature_falls_from_its_first_to_its_last(home):
    method, seen = subject("vqgan_gumbel").method, []
    assert isinstance(method, GumbelVQGAN)

    class Watching(GumbelQuantiser):
        def forward(self, z, gumbel, temperature):
            seen.append(temperature)
            return super().forward(z, gumbel, temperature)

    quantiser = method.autoencoder.quantiser
    quantiser.__class__ = Watching
    for share in (0, 0.5, 1, 2):
        method.steps.fill_(int(share * method.temperature_steps))
        method.quantised(torch.randn(1, quantiser.in_channels, 2, 2), Noise(0, [Sample("a", 0, 0)]))
    first, last = method.temperature
    assert seen == pytest.approx([first, (first + last) / 2, last, last])
