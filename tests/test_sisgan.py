"""SISGAN: its ranking loss the slow way, torchvision's weights, texts of a batch, and what an image depends on."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from mmbench.core import config, construction
from mmbench.core.fasttext import SeededVectors, WordEmbedding
from mmbench.core.frozen import Frozen
from mmbench.core.noise import Noise, Sample, random_stream
from mmbench.core.text import Vocabulary
from mmbench.core.weights import load_strictly
from mmbench.layers.initialisation import initialise_normally
from mmbench.losses.matching import row_before
from mmbench.losses.ranking import pairwise_ranking_loss
from mmbench.methods.manipulation.sisgan import (
    SISGAN,
    SIZE,
    Generator,
    PlainEncoder,
    TextEncoder,
    relevant_texts,
)
from mmbench.networks.vgg import IMAGENET_MEAN, IMAGENET_STD, VGG16_TRUNK, VGG_ENCODER, VGG16Trunk, VGGEncoder

CAPTIONS = ["a red bird", "this bird is blue with a yellow belly", "bird", "a bird with a long orange bill"]
DIM = 6
WEIGHTS = {"lambda_mismatched": 0.5, "lambda_fake": 0.5, "lambda_kl": 1.0}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def vgg():
    from torchvision.models import vgg  # mmbench comes first: it makes torchvision importable beside a CPU-only torch

    return vgg


@pytest.fixture
def text_encoder():
    return TextEncoder(WordEmbedding(Vocabulary.from_captions(CAPTIONS), SeededVectors(DIM)), DIM)


@pytest.fixture
def method(text_encoder):
    embedding = SimpleNamespace(text_encoder=text_encoder, embedding_dim=DIM)
    sizes = {"condition_dim": 3, "num_residual": 1, "discriminator_width": 2, "compressed_dim": 3}
    optimizers = {
        name: lambda parameters: torch.optim.Adam(parameters, lr=2e-4) for name in ("generator", "discriminator")
    }
    return SISGAN(embedding, PlainEncoder(2), optimizers, **sizes, **WEIGHTS, halving_epochs=100)


def batch_of(count):
    samples = [Sample(f"bird {n}", 0, 0) for n in range(count)]
    images = torch.stack([torch.from_numpy(random_stream(n).random((3, SIZE, SIZE), "float32")) for n in range(count)])
    captions = CAPTIONS[:count]
    return {
        "image": images * 2 - 1,
        "caption": captions,
        "caption_mismatched": captions[::-1],
        "noise": Noise(0, samples),
    }


def slow_ranking_loss(image, text, margin):
    """One hinge at a time."""
    total = 0.0
    for n in range(len(image)):
        own = F.cosine_similarity(image[n], text[n], dim=0)
        for k in range(len(image)):
            if k != n:
                total += max(0.0, float(margin - own + F.cosine_similarity(image[n], text[k], dim=0)))
                total += max(0.0, float(margin - own + F.cosine_similarity(image[k], text[n], dim=0)))
    return total / len(image)


def test_ranking_loss_sums_the_hinges_of_all_wrong_pairs():
    image, text = torch.randn(5, DIM), torch.randn(5, DIM)
    assert pairwise_ranking_loss(image, text, 0.2).item() == pytest.approx(slow_ranking_loss(image, text, 0.2), 1e-5)


def test_ranking_loss_is_zero_beyond_the_margin_and_for_a_single_pair():
    apart = torch.eye(4)
    assert pairwise_ranking_loss(3 * apart, apart, 0.9).item() == 0
    assert pairwise_ranking_loss(apart, apart.roll(1, 0), 0.2).item() > 1
    assert pairwise_ranking_loss(torch.randn(1, 4), torch.randn(1, 4), 0.2).item() == pytest.approx(0, abs=1e-6)


def test_the_image_encoder_is_torchvisions_vgg_without_its_third_pooling(vgg):
    theirs, ours = vgg.make_layers(vgg.cfgs["D"], batch_norm=True).eval(), VGGEncoder().eval()
    # As old files are: without the count of batches.
    old = {f"features.{key}": value for key, value in theirs.state_dict().items() if "num_batches" not in key}
    load_strictly(ours, VGG_ENCODER(old, ours), "torchvision")
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    hidden = (pixels - mean) / std
    with torch.no_grad():
        for place, layer in enumerate(theirs[:33]):
            hidden = hidden if place == 23 else layer(hidden)
        found = ours(pixels * 2 - 1)
    assert isinstance(theirs[23], torch.nn.MaxPool2d)
    assert found.shape == (2, 512, 8, 8)
    torch.testing.assert_close(found, hidden, rtol=1e-4, atol=1e-5)


def test_torchvisions_files_fill_both_networks(vgg):
    with torch.device("meta"):
        for network, keys, theirs in (
            (VGGEncoder(), VGG_ENCODER, vgg.vgg16_bn()),
            (VGG16Trunk(), VGG16_TRUNK, vgg.vgg16()),
        ):
            load_strictly(network, keys(theirs.state_dict(), network), "torchvision")


def test_the_trunk_sees_224_pixels_whatever_it_is_given():
    with torch.device("meta"):
        features, codes = VGG16Trunk()(torch.empty(2, 3, SIZE, SIZE))
    assert (features.shape, codes.shape) == ((2, 512, 7, 7), (2, 4096))


def test_initialisation_leaves_what_is_frozen():
    frozen = Frozen(PlainEncoder(2))
    before = {key: value.clone() for key, value in frozen.network.state_dict().items()}
    network = Generator(frozen, DIM, condition_dim=3, num_residual=1)
    initialise_normally(network)
    assert all(torch.equal(before[key], value) for key, value in frozen.network.state_dict().items())
    assert network.join[0].weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert network.join[1].weight.mean().item() == pytest.approx(1, abs=0.05)
    assert not network.to_rgb.bias.any()


def test_a_caption_does_not_depend_on_those_beside_it(text_encoder):
    with torch.no_grad():
        together = text_encoder(CAPTIONS)
        for caption, encoded in zip(CAPTIONS, together, strict=True):
            torch.testing.assert_close(text_encoder([caption])[0], encoded)
    assert torch.cdist(together, together).fill_diagonal_(1).min() > 1e-3


@pytest.mark.parametrize("caption", ["", "...", "zzz qqq"])
def test_a_caption_without_a_known_word_is_refused_in_one_line(method, caption):
    batch = batch_of(2) | {"caption_mismatched": ["a red bird", caption]}
    with pytest.raises(ValueError, match="expected captions of known words, found none in caption 1") as caught:
        method.eval().generate(batch, batch["noise"])
    assert "\n" not in str(caught.value)


def test_every_image_meets_anothers_text_and_half_of_a_batch_is_edited():
    text = torch.arange(5.0)[:, None]
    assert row_before(text).flatten().tolist() == [4, 0, 1, 2, 3]
    assert relevant_texts(text).flatten().tolist() == [1, 0, 2, 3, 4]
    assert relevant_texts(text[:1]).tolist() == [[0]]


def test_input_text_and_noise_change_the_image(method):
    for parameter in method.eval().generator.parameters():
        if parameter.dim() > 1:
            torch.nn.init.orthogonal_(parameter)  # so that signals neither fade nor grow
    batch = batch_of(4)
    with torch.no_grad():
        together = method.generate(batch, batch["noise"])
        for change in (
            {"caption_mismatched": CAPTIONS},
            {"image": batch["image"].flip(0)},
            {"noise": Noise(1, batch["noise"].samples)},
        ):
            changed = batch | change
            assert (method.generate(changed, changed["noise"]) - together).abs().max() > 1e-3


def test_shared_passes_have_the_gradients_of_separate_ones(method):
    """The authors' order: a pass of the whole discriminator for each pair of images and texts."""
    batch, judge = batch_of(4), method.discriminator
    real, fake, text = batch["image"], batch["image"].flip(0), torch.randn(4, DIM)

    def judged(image, text):
        return judge(judge.features(image), text)

    def cross_entropy(logits, target):
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    apart = (
        cross_entropy(judged(real, text), 1.0)
        + 0.5 * cross_entropy(judged(real, text[[3, 0, 1, 2]]), 0.0)
        + 0.5 * cross_entropy(judged(fake, text[[1, 0, 2, 3]]), 0.0)
    )
    shared = sum(method.discriminator_terms(real, fake, text, relevant_texts(text)).values())
    torch.testing.assert_close(shared, apart)
    for ours, theirs in zip(
        torch.autograd.grad(shared, list(judge.parameters())),
        torch.autograd.grad(apart, list(judge.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_batch_of_one_has_no_mismatched_text(method):
    batch = batch_of(1)
    terms = method.discriminator_terms(batch["image"], batch["image"], torch.randn(1, DIM), torch.randn(1, DIM))
    assert terms.keys() == {"L_D_real", "L_D_fake"}
    assert all(term.isfinite() for term in terms.values())


def test_images_of_another_size_are_refused(method):
    batch = batch_of(2)
    with pytest.raises(ValueError, match=r"expected images of 64 x 64 pixels.*found 32 x 32: set data.module"):
        method.training_step(batch | {"image": batch["image"][..., ::2, ::2]}, 0)


def test_learning_rates_are_halved_every_hundred_epochs(method, monkeypatch):
    optimizers = method.configure_optimizers()
    monkeypatch.setattr(method, "optimizers", lambda: optimizers)
    rates = []
    for epoch in (0, 99, 100, 250, 599):
        monkeypatch.setattr(SISGAN, "current_epoch", epoch)
        method.on_train_epoch_start()
        rates.append([group["lr"] for one in optimizers for group in one.param_groups])
    assert rates == [[rate] * 2 for rate in (2e-4, 2e-4, 1e-4, 5e-5, 2e-4 / 32)]


@pytest.mark.parametrize("data", ["cub", "coco", "oxford102"])
def test_photographs_are_cut_to_64_out_of_74_pixels_and_toy_pictures_stay_as_they_are(data):
    plain = config.composed(["method=sisgan", f"data={data}"])
    real = plain["data"]["module"]
    view = construction.construct(real["preprocessing"]).evaluation((0, 0, 400, 300), real["image_size"])
    assert (view.size, view.left, view.top, view.side) == ((98, 74), 17, 5, 64)
    assert real.get("bird_crop") is (False if data == "cub" else None)
    toy = config.composed(["method=sisgan", f"data={data}", "data.source=toy"])["data"]["module"]
    assert toy["image_size"] == 64
    assert "preprocessing" not in toy


def test_the_embedding_sees_224_pixels_out_of_256():
    (embedding,) = config.composed(["method=sisgan"])["method"]["stages"].values()
    seen = embedding["data"]["module"]
    view = construction.construct(seen["preprocessing"]).evaluation((0, 0, 400, 300), seen["image_size"])
    assert (min(view.size), view.side, seen["bird_crop"]) == (256, 224, False)
    assert seen == config.composed(["method=sisgan_embedding"])["data"]["module"]
