"""GAN-INT-CLS, its ablations and cGAN: captions of a step, interpolation, terms, and what is refused."""

import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmbench.core import config, construction
from mmbench.core.noise import Noise, Sample, random_stream
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real
from mmbench.methods.synthesis.cgan import CGAN, Maxout
from mmbench.methods.synthesis.ganintcls import (
    DISCRIMINATOR,
    GANINTCLS,
    GENERATOR,
    SIZE,
    Discriminator,
    GANCLSFeatures,
    RewrittenDiscriminator,
    interpolated,
)
from mmbench.pipeline import training

DIM = 5
OPTIMIZERS = dict.fromkeys(("generator", "discriminator"), partial(torch.optim.Adam, lr=2e-4))
SIZES = {"text_dim": 3, "noise_dim": 2, "width": 2, "discriminator_width": 2, "halving_epochs": 100}
PAPER = {"num_captions": 2, "lambda_mismatched": 0.5, "lambda_fake": 0.5, "lambda_interpolated": 0.5}


class Encoder(nn.Module):
    """A random vector of each text."""

    embedding_dim = DIM

    def encode_text(self, captions):
        return torch.stack([torch.from_numpy(random_stream(text).standard_normal(DIM, "float32")) for text in captions])


class Embeddings:
    """Published ones, of a dimension, of which none is asked for."""

    dim = DIM


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def method(kind=GANINTCLS, **changes):
    return kind(text_encoder=Encoder(), optimizers=OPTIMIZERS, **{**SIZES, **PAPER, **changes})


def batch_of(count, num_captions=3, size=SIZE):
    image, wrong = torch.rand(2, count, 3, size, size) * 2 - 1
    samples = [Sample(f"bird {n}", 0, 0) for n in range(count)]
    captions = [[f"caption {k} of {n}" for k in range(num_captions)] for n in range(count)]
    return {
        "id": [sample.id for sample in samples],
        "image": image,
        "image_mismatched": wrong,
        "captions": captions,
        "caption": [texts[0] for texts in captions],
        "noise": Noise(0, samples),
    }


@pytest.mark.parametrize("count", [2, 5, 6])
def test_sentences_of_both_halves_meet_half_way(count):
    sentence = torch.randn(count, DIM)
    found = interpolated(sentence)
    assert found.shape == (count // 2, DIM)
    for n, between in enumerate(found):
        assert torch.allclose(between, (sentence[n] + sentence[count // 2 + n]) / 2)


def test_a_sentence_is_the_mean_of_captions_of_its_own_image():
    batch, gan = batch_of(3), method()
    for captions, sentence in zip(batch["captions"], gan.sentences(batch), strict=True):
        encoded = Encoder().encode_text(captions)
        means = [(one + other) / 2 for one in encoded for other in encoded]
        assert any(torch.allclose(sentence, mean, atol=1e-6) for mean in means)
    later = {**batch, "noise": Noise(0, [sample._replace(draw=1) for sample in batch["noise"].samples])}
    assert not torch.equal(gan.sentences(batch), gan.sentences(later)), "other captions in another epoch"


def test_terms_whose_weight_is_0_are_left_out():
    batch = batch_of(4)
    for changes, d_terms, g_terms in (
        ({}, {"L_D_real", "L_D_mismatched", "L_D_fake"}, {"L_G", "L_G_interpolated"}),
        ({"lambda_interpolated": 0.0}, {"L_D_real", "L_D_mismatched", "L_D_fake"}, {"L_G"}),
        ({"lambda_mismatched": 0.0}, {"L_D_real", "L_D_fake"}, {"L_G", "L_G_interpolated"}),
    ):
        gan = method(**changes)
        sentence = gan.sentences(batch)
        wrong = batch["image_mismatched"]
        assert gan.discriminator_terms(batch["image"], wrong, wrong, sentence).keys() == d_terms
        assert gan.generator_terms(batch, sentence).keys() == g_terms


def test_an_image_of_another_class_with_the_sentence_is_a_negative_of_its_weight():
    batch, gan = batch_of(4), method(lambda_mismatched=0.25, lambda_fake=0.75)
    real, wrong, fake = batch["image"], batch["image_mismatched"], -batch["image"]
    sentence = gan.sentences(batch)
    found = gan.discriminator_terms(real, wrong, fake, sentence)
    assert torch.allclose(found["L_D_real"], cross_entropy_real(gan.judged(real, sentence)))
    assert torch.allclose(found["L_D_mismatched"], 0.25 * cross_entropy_fake(gan.judged(wrong, sentence)))
    assert torch.allclose(found["L_D_fake"], 0.75 * cross_entropy_fake(gan.judged(fake, sentence)))


def test_interpolated_images_are_judged_with_interpolated_sentences():
    batch, gan = batch_of(4), method(lambda_interpolated=2.0)
    gan.eval()  # so that one row does not depend on another
    sentence = gan.sentences(batch)
    between, noise = interpolated(sentence), batch["noise"].normal("z interpolated", gan.noise_dim)[:2]
    expected = 2 * cross_entropy_real(gan.judged(gan.generator(between, noise), between))
    assert torch.allclose(gan.generator_terms(batch, sentence)["L_G_interpolated"], expected, atol=1e-6)


def test_images_that_meet_real_ones_have_no_distance_from_them():
    batch = batch_of(4)
    gan = method(GANCLSFeatures, real_label=0.9, lambda_features=100.0, lambda_pixels=50.0, lambda_interpolated=0.0)
    gan.drawn = lambda sentence, noise: batch["image"]
    terms = gan.generator_terms(batch, gan.sentences(batch))
    assert terms["features"] < 1e-9
    assert terms["pixels"] == 0


def test_a_smoothed_label_is_met_where_the_probability_is_that():
    logits = torch.tensor([0.9, 0.9]).logit().requires_grad_()
    gan = method(GANCLSFeatures, real_label=0.9, lambda_features=1.0, lambda_pixels=1.0)
    (gradient,) = torch.autograd.grad(gan.real_term(logits), logits)
    assert gradient.abs().max() < 1e-6


def test_the_largest_of_the_maps_of_a_unit_is_its_value():
    unit = Maxout(4, num_units=2, num_pieces=3, dropout=0.5).eval()
    x = torch.randn(5, 4)
    maps = x @ unit.maps.weight.T + unit.maps.bias
    assert torch.equal(unit(x), torch.stack([maps[:, :3].amax(dim=1), maps[:, 3:].amax(dim=1)], dim=1))


def cgan():
    sizes = {"noise_dim": 2, "widths": (3, 3, 4), "image_size": 16, "units": (3, 2, 3), "pieces": (2, 2, 2)}
    return CGAN(Encoder(), OPTIMIZERS, **sizes, dropout=0.5)


@pytest.mark.parametrize(("make", "side"), [(method, 64), (cgan, 16)])
def test_images_of_another_size_are_one_line(make, side):
    with pytest.raises(ValueError, match=rf"expected images of {side} x {side} pixels .*found 32 x 32: set") as caught:
        make().training_step(batch_of(4, size=32), 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [method, cgan])
def test_an_image_depends_on_its_caption_and_its_noise(make):
    gan, batch = make().eval(), batch_of(2)
    noise = batch["noise"]
    image = gan.generate(batch, noise)
    assert torch.equal(image, gan.generate(batch, noise))
    assert not torch.equal(image, gan.generate({**batch, "caption": batch["caption"][::-1]}, noise))
    assert not torch.equal(image, gan.generate(batch, Noise(1, noise.samples)))


def plain_of(name, *words):
    return config.composed([f"method={name}", "protocol=strict_synthesis", "data.source=toy", "trainer=cpu", *words])


@pytest.mark.parametrize("name", ["char_cnn_rnn", "ganintcls"])
def test_a_batch_of_one_is_refused_before_anything_is_made(name):
    with pytest.raises(ValueError, match=f"expected batches of 2 images or more to train {name}, found 1: raise"):
        training.require_training(plain_of(name, "method.training.batch_size=1"))


@pytest.mark.parametrize(
    ("name", "lacking"), [("char_cnn_rnn", "class_id"), ("ganintcls_published", "image_mismatched")]
)
def test_data_without_classes_are_one_line(name, lacking, tmp_path):
    fields = {"image", "caption", "captions", "class_id", "image_mismatched"} - {lacking}
    data = SimpleNamespace(fields=fields, fingerprint=lambda: "birds", caption_embeddings=Embeddings)
    with pytest.raises(ValueError, match=f"expected the fields {lacking} to train {name}, found cub without") as caught:
        training.trained(plain_of(name, "scale=tiny", f"paths.runs={tmp_path}"), data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("discriminator", "pairs"), [(Discriminator, True), (RewrittenDiscriminator, False)])
def test_only_the_authors_discriminator_sees_whether_image_and_text_match(discriminator, pairs):
    subject = method()
    subject.discriminator = discriminator(DIM, SIZES["text_dim"], SIZES["discriminator_width"])
    subject.eval()
    for weight in subject.discriminator.parameters():
        nn.init.normal_(weight, std=0.3)
    (one, other), sentences = torch.randn(2, 1, 3, SIZE, SIZE), 100 * torch.randn(2, DIM)
    with torch.no_grad():
        nearer = [subject.judged(image.expand(2, -1, -1, -1), sentences) for image in (one, other)]
    # What one text is above the other is the same for every image where image and text are summed.
    gains = [float(logits[0] - logits[1]) for logits in nearer]
    assert (gains[0] == pytest.approx(gains[1], rel=1e-3)) is not pairs


@pytest.mark.parametrize(("name", "theirs"), [("ganintcls", False), ("gan_cls", False), ("gan_cls_features", True)])
def test_what_follows_the_rewriting_has_its_networks(name, theirs):
    module = plain_of(name, "scale=tiny")["method"]["module"]
    sizes = [module[key] for key in ("text_dim", "noise_dim", "width")]
    kind = construction.target(module)
    networks = SimpleNamespace(
        generator=kind.generator_type(DIM, *sizes),
        discriminator=kind.discriminator_type(DIM, module["text_dim"], module["discriminator_width"]),
    )
    for network, keys in ((networks.generator, GENERATOR), (networks.discriminator, DISCRIMINATOR)):
        # A key map has every weight that the rewriting's checkpoints have, and none that the authors' networks add.
        renamed = [re.escape(ours).replace(r"\\1", ".*") for ours in keys.rename.values()]
        missed = [key for key in network.state_dict() if not any(re.fullmatch(one, key) for one in renamed)]
        assert (not missed) is theirs
