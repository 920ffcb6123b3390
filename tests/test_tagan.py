"""TAGAN: what its images and judgements depend on, its step against the authors' order of passes, and bad input."""

import mmbench.core.torchvision_schema  # noqa: F401  (before torchvision)

# isort: split
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from mmbench.core.fasttext import SeededVectors
from mmbench.core.noise import Noise, Sample, random_stream
from mmbench.core.text import Vocabulary
from mmbench.data.views import Enlarged
from mmbench.layers.initialisation import initialise_normally
from mmbench.losses.matching import row_before
from mmbench.methods.manipulation.tagan import TAGAN

CAPTIONS = ["a red bird with blue wings", "this bird is yellow", "a small grey bird that has a long bill"]
WORD_DIM = 6


def method(**changes):
    torch.manual_seed(0)
    sizes = {"image_size": 32, "width": 4, "hidden_dim": 8, "condition_dim": 5, "halving_epochs": 100}
    weights = {"lambda_match": 10.0, "lambda_reconstruction": 0.2, "lambda_kl": 0.5}
    optimizers = {name: partial(torch.optim.Adam, lr=0.0002) for name in ("generator", "discriminator")}
    vocabulary = Vocabulary.from_captions(CAPTIONS)
    return TAGAN(vocabulary, SeededVectors(WORD_DIM), optimizers, **{**sizes, **weights, **changes})


def batch(captions=CAPTIONS, size=32):
    images = torch.rand(len(captions), 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    noise = Noise(0, [Sample(f"bird {n}", 0, 0) for n in range(len(captions))])
    return {"image": images, "caption": captions, "caption_mismatched": captions[::-1], "noise": noise}


def test_the_prompt_and_the_noise_change_the_image():
    made, full = method().eval(), batch()
    with torch.no_grad():
        image = made.generate(full, full["noise"])
        other_prompt = made.generate({**full, "caption_mismatched": CAPTIONS}, full["noise"])
        other_noise = made.generate(full, Noise(1, full["noise"].samples))
    assert not torch.equal(image, other_noise)
    changed = (image - other_prompt).abs().amax(dim=(1, 2, 3)) > 0
    assert changed.tolist() == [True, False, True], "the middle caption is its own mirror"


@pytest.mark.parametrize("n", range(3))
def test_a_match_does_not_depend_on_the_batch_or_its_padding(n):
    made, full = method().eval(), batch()
    network = made.discriminator

    def judged(images, captions):
        _, features = network(images)
        return network.match(network.pooled(features), network.judges(*made.words(captions)))

    with torch.no_grad():
        alone = judged(full["image"][n : n + 1], CAPTIONS[n : n + 1])
        torch.testing.assert_close(alone[0], judged(full["image"], CAPTIONS)[n])


def test_rolled_judges_are_those_of_the_text_one_row_before():
    made = method().eval()
    network, (_, features) = made.discriminator, method().eval().discriminator(batch()["image"])
    pooled = network.pooled(features)
    rolled = network.match(pooled, network.judges(*made.words(CAPTIONS)).rolled())
    before = [CAPTIONS[-1], *CAPTIONS[:-1]]
    torch.testing.assert_close(rolled, network.match(pooled, network.judges(*made.words(before))))


def as_the_authors_step(made, full):
    """Gradients by their order of passes, each on its own, with our noise: D on real and on fake, G twice."""
    real, text = full["image"], made.words(full["caption"])
    other = made.words([full["caption"][-1], *full["caption"][:-1]])
    eps, own_eps = full["noise"].normal("eps", 5), full["noise"].normal("own eps", 5)
    generator, judge = made.generator, made.discriminator

    def judged(images, *texts):
        logits, features = judge(images)
        return logits, *(judge.match(judge.pooled(features), judge.judges(*each)) for each in texts)

    def kl(edited):
        return (-edited.log_sigma + ((2 * edited.log_sigma).exp() + edited.mu**2 - 1) / 2).mean()

    logits, match, mismatch = judged(real, text, other)
    ones, zeros = torch.ones_like(logits), torch.zeros_like(logits)
    word = (F.binary_cross_entropy(match, ones) + F.binary_cross_entropy(mismatch, zeros)) / 2
    (F.binary_cross_entropy_with_logits(logits, ones) + 10 * word).backward()
    (logits,) = judged(generator(real, *other, eps).image.detach())
    F.binary_cross_entropy_with_logits(logits, zeros).backward()
    found = {f"discriminator.{name}": p.grad for name, p in judge.named_parameters()}
    judge.requires_grad_(False)
    fake = generator(real, *other, eps)
    logits, match = judged(fake.image, other)
    adversarial = F.binary_cross_entropy_with_logits(logits, ones) + 10 * F.binary_cross_entropy(match, ones)
    (adversarial + kl(fake) / 2).backward()
    again = generator(real, *text, own_eps)
    (0.2 * F.l1_loss(again.image, real) + kl(again) / 2).backward()
    return found | {f"generator.{name}": p.grad for name, p in generator.named_parameters()}


class DoubleNoise(Noise):
    """The same numbers, for networks of double precision."""

    def normal(self, name, *shape):
        return super().normal(name, *shape).double()


def test_a_step_has_the_gradients_of_the_authors_passes(monkeypatch):
    full = batch()
    full |= {"image": full["image"].double(), "noise": DoubleNoise(0, full["noise"].samples)}
    expected = as_the_authors_step(method().double().train(), full)
    ours = method().double().train()
    monkeypatch.setattr(ours, "minimise", lambda name, terms: sum(terms.values()).backward())
    ours.training_step(full, 0)
    for name, parameter in ours.named_parameters():
        deviation = (parameter.grad - expected[name]).abs().max() / expected[name].abs().max()
        assert deviation < 1e-9, name


def test_the_row_before_is_another_text():
    assert row_before(torch.arange(4)).tolist() == [3, 0, 1, 2]


def test_the_learning_rate_halves_every_hundred_epochs(monkeypatch):
    made = method()
    optimizers = made.configure_optimizers()
    monkeypatch.setattr(made, "optimizers", lambda: optimizers)
    rates = []
    for epoch in (0, 99, 100, 599):
        monkeypatch.setattr(TAGAN, "current_epoch", epoch)
        made.on_train_epoch_start()
        rates.append([group["lr"] for one in optimizers for group in one.param_groups])
    assert rates == [[rate] * 2 for rate in (0.0002, 0.0002, 0.0001, 0.0002 / 32)]


def test_networks_start_as_the_authors_do():
    made = method(width=16, hidden_dim=32)
    initialise_normally(made.generator)
    convolution = made.generator.fusion[3].layers[0]
    assert 0.019 < float(convolution.weight.detach().std()) < 0.021
    assert not made.generator.encoder[0].bias.any()
    recurrence = made.generator.text_encoder.recurrence.weight_hh_l0.detach()
    assert float(recurrence.abs().max()) <= 32**-0.5
    assert float(recurrence.std()) > 0.08, "uniform up to 1 / sqrt(32), as PyTorch has it"


def test_another_size_is_refused_with_the_remedy():
    full = batch(size=64)
    with pytest.raises(ValueError, match=r"expected images of 32 x 32, found 64 x 64: set data\.module\.image_size=32"):
        method().eval().generate(full, full["noise"])


@pytest.mark.parametrize("caption", ["", "unheard"])
def test_a_caption_without_known_words_is_refused(caption):
    full = batch([CAPTIONS[0], caption])
    with pytest.raises(ValueError, match="expected captions of known words, found none in caption 0 of the batch"):
        method().eval().generate(full, full["noise"])


@pytest.mark.parametrize("size", [(136, 136), (200, 151), (97, 300), (50, 41)])
def test_the_view_at_evaluation_is_torchvisions_resize_and_centre_crop(size):
    picture = Image.fromarray(random_stream(*size).integers(256, size=(size[1], size[0], 3), dtype=np.uint8))
    theirs = Compose([Resize(136), CenterCrop(128)])(picture)
    ours = Enlarged().evaluation((0, 0, *size), 128)(picture)
    np.testing.assert_array_equal(ours, np.asarray(theirs))


def test_views_of_training_lie_within_the_enlarged_picture_and_reach_its_edges():
    views = [Enlarged().training((0, 0, 200, 151), 128, random_stream(n)) for n in range(300)]
    assert {view.size for view in views} == {(180, 136)}
    assert {view.top for view in views} == set(range(9))
    assert min(view.left for view in views) >= 0
    assert max(view.left for view in views) <= 52
    assert {view.flipped for view in views} == {False, True}
