"""VQ-VAE: codebooks, their revival, the two stages, and the PixelCNN that draws codes."""

import copy

import pytest
import torch
from torch import nn

from mmbench.core.categorical import drawn
from mmbench.core.noise import Noise, Sample
from mmbench.core.text import Vocabulary
from mmbench.layers.quantisers import (
    EMAQuantiser,
    GumbelQuantiser,
    LegacyVectorQuantiser,
    RevivingEMAQuantiser,
    VectorQuantiser,
    perplexity,
)
from mmbench.methods.synthesis.vqvae import VQVAE, RevivingVQVAE, VQVAEPrior
from mmbench.networks.pixelcnn import PixelCNN

ADAM = torch.optim.Adam


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", [VectorQuantiser, LegacyVectorQuantiser, EMAQuantiser, RevivingEMAQuantiser])
def test_the_gradient_goes_past_the_codebook_as_the_decoder_gives_it(kind):
    quantiser, decoder = kind(7, 4, 0.0), nn.Conv2d(4, 3, 3)
    z = torch.randn(2, 4, 5, 6, requires_grad=True)
    found = quantiser(z)
    (passed,) = torch.autograd.grad(decoder(found.codes).square().sum(), z)
    codes = quantiser.embedded(found.indices).detach().requires_grad_()
    (given,) = torch.autograd.grad(decoder(codes).square().sum(), codes)
    torch.testing.assert_close(passed, given)
    torch.testing.assert_close(found.codes, codes)


def test_each_pixel_becomes_the_nearest_code():
    quantiser, z = EMAQuantiser(9, 3), torch.randn(2, 3, 4, 5)
    by_hand = torch.cdist(z.movedim(1, -1).reshape(-1, 3), quantiser.vectors).argmin(dim=1).view(2, 4, 5)
    assert torch.equal(quantiser.indices(z), by_hand)


def test_a_codebook_that_follows_comes_to_the_means_of_what_is_assigned():
    quantiser = EMAQuantiser(2, 2, decay=0.5)
    quantiser.vectors.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    pixels = torch.randn(1, 2, 8, 8) * 0.1 + torch.tensor([-2.0, 1.0]).view(1, 2, 1, 1)
    pixels[..., :2] += torch.tensor([4.0, 0.0]).view(1, 2, 1, 1)
    for _ in range(60):
        quantiser.collect(pixels, quantiser.indices(pixels))
        quantiser.update()
    means = torch.stack((pixels[..., 2:].mean(dim=(0, 2, 3)), pixels[..., :2].mean(dim=(0, 2, 3))))
    torch.testing.assert_close(quantiser.vectors, means, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(quantiser.counts, torch.tensor([48.0, 16.0]), rtol=1e-4, atol=1e-4)


def test_parts_of_a_batch_move_a_codebook_as_the_whole_one_does():
    whole, z = EMAQuantiser(5, 3), torch.randn(6, 3, 4, 4)
    parts = copy.deepcopy(whole)
    whole.collect(z, whole.indices(z))
    for part in z.split(2):
        parts.collect(part, parts.indices(part))
    whole.update()
    parts.update()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value)


def followed(quantiser, steps):
    """A quantiser after steps over vectors near four points, of whose codes only few are near any."""
    points = torch.tensor([[5.0, 5.0], [5.0, -5.0], [-5.0, 5.0], [-5.0, -5.0]])
    for step in range(steps):
        z = (points.repeat(16, 1) + 0.1 * torch.randn(64, 2)).T.reshape(1, 2, 8, 8)
        if isinstance(quantiser, RevivingEMAQuantiser):
            quantiser.revive(z, Noise(step, [Sample("a", 0, 0)]).uniform("revival", 8, 8))
        quantiser.collect(z, quantiser.indices(z))
        quantiser.update()
    return float(perplexity(quantiser.indices(z), quantiser.num_codes)), quantiser


def test_dead_codes_are_revived_in_the_one_and_not_in_the_other():
    def start(kind):
        quantiser = kind(16, 2)
        # One code is nearer to everything than all others.
        quantiser.vectors.copy_(torch.cat((torch.zeros(1, 2), torch.full((15, 2), 100.0))))
        quantiser.sums.copy_(quantiser.vectors)
        return quantiser

    usage, plain = followed(start(EMAQuantiser), 20)
    assert usage == pytest.approx(1), "one code"
    assert (plain.counts > 1).sum() == 1
    revived_usage, revived = followed(start(RevivingEMAQuantiser), 20)
    assert revived_usage > 8
    assert (revived.vectors.abs().amax(dim=1) < 6).all(), "all of them lie among the vectors"


def test_revived_codes_are_the_vectors_that_come_first():
    quantiser, z = RevivingEMAQuantiser(4, 3, threshold=1.0), torch.randn(1, 3, 2, 3)
    quantiser.counts.copy_(torch.tensor([2.0, 0.5, 3.0, 0.0]))
    before = quantiser.vectors.clone()
    order = torch.tensor([[[0.5, 0.1, 0.9], [0.3, 0.05, 0.7]]])
    assert quantiser.revive(z, order) == 2
    torch.testing.assert_close(quantiser.vectors[1], z[0, :, 1, 1])
    torch.testing.assert_close(quantiser.vectors[3], z[0, :, 0, 1])
    assert torch.equal(quantiser.vectors[[0, 2]], before[[0, 2]])


def test_perplexity_is_the_number_of_codes_that_are_used_alike():
    assert float(perplexity(torch.arange(5).repeat(3), 8)) == pytest.approx(5)


def first_stage(kind=VQVAE, **others):
    quantiser = {VQVAE: EMAQuantiser, RevivingVQVAE: RevivingEMAQuantiser}[kind](8, 4)
    return kind(quantiser, ADAM, **{"width": 6, "num_halvings": 2, "num_residual": 1} | others)


def test_a_first_stage_encodes_to_maps_that_are_smaller_by_its_factor_and_back():
    stage, images = first_stage(), torch.rand(2, 3, 16, 24) * 2 - 1
    codes = stage.encode(images)
    assert (codes.shape, codes.dtype, stage.factor, stage.num_codes) == ((2, 4, 6), torch.int64, 4, 8)
    assert stage.decode(codes).shape == images.shape


def test_a_size_that_the_stride_does_not_allow_is_one_line():
    with pytest.raises(ValueError, match=r"multiples of 4, the autoencoder's stride, found 16 x 18: set") as error:
        first_stage().encode(torch.zeros(1, 3, 16, 18))
    assert "\n" not in str(error.value)


def prior(num_layers=3, kernel=3):
    return PixelCNN(num_codes=6, width=8, kernel=kernel, num_layers=num_layers, condition_dim=5, out_width=8)


def test_a_code_depends_on_all_codes_before_it_and_on_none_behind():
    network, size = prior(num_layers=6).double(), 6
    embedded = torch.randn(1, 8, size, size, dtype=torch.float64, requires_grad=True)
    condition = torch.randn(1, 5, dtype=torch.float64)
    logits = network.along(embedded, network.above(embedded, condition), condition)
    for row in range(size):
        for column in range(size):
            (gradient,) = torch.autograd.grad(logits[0, :, row, column].square().sum(), embedded, retain_graph=True)
            seen = gradient[0].abs().sum(dim=0).flatten() > 0
            before = row * size + column
            assert not seen[before:].any(), f"{row}, {column} sees what comes"
            assert seen[:before].all(), f"{row}, {column} is blind to something"


def test_drawing_row_by_row_equals_looking_at_the_whole_map_for_each_code():
    network, condition = prior(), torch.randn(3, 5)
    numbers = torch.rand(20, 3)
    with torch.no_grad():
        found = network.drawn(condition, (4, 5), lambda logits, place: drawn(logits, numbers[place]))
        slow = torch.zeros(3, 4, 5, dtype=torch.int64)
        for place in range(20):
            row, column = divmod(place, 5)
            slow[:, row, column] = drawn(network(slow, condition)[:, :, row, column], numbers[place])
    assert torch.equal(found, slow)
    assert len(found.unique()) > 2


def settings(**others):
    return {
        "vocabulary": Vocabulary(("<end>", "a", "bird")),
        "optimizer": ADAM,
        "image_size": 16,
        "width": 4,
        "kernel": 3,
        "num_layers": 2,
        "out_width": 4,
        "token_dim": 4,
        "sentence_dim": 4,
        "max_words": 5,
        "temperature": 1.0,
        "top_k": None,
        "top_p": 1.0,
    } | others


def test_codes_hang_on_the_caption_and_where_they_are_drawn_on_the_noise():
    texts = {"caption": ["a", "bird"]}
    noises = [Noise(seed, [Sample(i, 0, 0) for i in "ab"]) for seed in (0, 1)]
    stage = first_stage()
    with torch.no_grad():
        for top_k, same in ((1, True), (None, False)):
            method = VQVAEPrior(stage, **settings(top_k=top_k)).eval()
            one, other = (method.generate(texts, noise) for noise in noises)
            assert torch.equal(one, other) == same
        codes = torch.zeros(2, 4, 4, dtype=torch.int64)
        of_a, of_bird = method.prior(codes, method.sentences([[1], [2]]))
    assert (of_a - of_bird).abs().min() > 0


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"temperature": 0.0}, "expected a temperature above 0"),
        ({"top_k": 9}, "expected top_k from 1 to 8"),
        ({"image_size": 18}, "multiples of 4, the autoencoder's stride, found 18 x 18"),
    ],
)
def test_settings_that_no_code_can_be_drawn_by_are_refused_at_once(others, message):
    with pytest.raises(ValueError, match=message):
        VQVAEPrior(first_stage(), **settings(**others))


def test_a_gumbel_quantiser_draws_by_its_logits():
    quantiser = GumbelQuantiser(4, 3, 2, kl_weight=1.0)
    z = torch.randn(1, 2, 1, 1).expand(4000, -1, 1, 1)
    noise = -torch.empty(4000, 4, 1, 1).exponential_().log()
    with torch.no_grad():
        found = quantiser(z, noise, temperature=0.5)
        expected = quantiser.to_logits(z[:1]).softmax(dim=1).flatten()
    shares = found.indices.flatten().bincount(minlength=4) / 4000
    assert (shares - expected).abs().max() < 4 * (0.25 / 4000) ** 0.5, "four deviations of a share"
    torch.testing.assert_close(found.codes, quantiser.embedded(found.indices))


def test_the_divergence_of_a_gumbel_quantiser_is_0_where_all_codes_are_as_likely():
    quantiser = GumbelQuantiser(8, 3, 2, kl_weight=0.5)
    assert float(quantiser.divergence(torch.zeros(2, 8, 3, 3))) == pytest.approx(0, abs=1e-6)
    sure = torch.zeros(2, 8, 3, 3)
    sure[:, 2] = 50
    assert float(quantiser.divergence(sure)) == pytest.approx(0.5 * torch.tensor(8.0).log())
