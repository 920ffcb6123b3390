"""TDANet: what its images, its attention and its steps depend on, and bad input."""

import mmbench.core.torchvision_schema  # noqa: F401  (before torchvision)

# isort: split
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from mmbench.core import config
from mmbench.core.noise import Noise, Sample
from mmbench.core.text import Vocabulary
from mmbench.losses.pyramid import pyramid_l1
from mmbench.methods.inpainting.tdanet import (
    TDANet,
    TDANetDilated,
    TDANetGated,
    TDANetGenerationJudged,
    TDANetInterpolated,
    TDANetPartial,
    between,
)
from mmbench.methods.synthesis.damsm import DAMSM
from mmbench.networks.damsm import EncodedText
from mmbench.networks.pluralistic import targets
from mmbench.networks.tdanet import TextAttention
from mmbench.networks.tdanet_variants import DilatedConvolution, GatedConvolution, PartialConvolution, pooled
from mmbench.networks.toy import ToyInceptionTrunk

CAPTIONS = ["a red bird with blue wings and a long bill", "this bird is yellow", "a small grey bird"]
GAMMAS = {"gamma1": 5.0, "gamma2": 5.0, "gamma3": 10.0}


def method(kind=TDANet, **changes):
    torch.manual_seed(0)
    vocabulary = Vocabulary.from_captions(CAPTIONS)
    adam = partial(torch.optim.Adam, lr=0.001)
    damsm = DAMSM(vocabulary, ToyInceptionTrunk(), 8, 8, 18, adam, 0.25, **GAMMAS).eval()
    sizes = {"width": 4, "max_width": 8, "latent_dim": 4, "num_refining": 1, "depth": 4}
    judges = {"discriminator_width": 4, "discriminator_max_width": 8}
    weights = {"lambda_rec": 20.0, "lambda_gen": 20.0, "lambda_kl": 20.0, "lambda_gan": 1.0, "lambda_match": 0.1}
    optimizers = dict.fromkeys(("encoder", "generator", "discriminator", "discriminator_rec"), adam)
    return kind(damsm, optimizers, **{**sizes, **judges, **weights, **GAMMAS, "max_words": 128, **changes}).eval()


def batch(size=(64, 64), captions=CAPTIONS, hole=(slice(16, 40), slice(24, 56)), draw=0):
    images = torch.rand(len(captions), 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = torch.zeros(len(captions), 1, *size)
    mask[..., hole[0], hole[1]] = 1
    noise = Noise(0, [Sample(f"bird {n}", 0, draw) for n in range(len(captions))])
    return {"image": images, "mask": mask, "caption": list(captions), "noise": noise}


def filled(made, given, noise=None):
    with torch.no_grad():
        return made.generate(given, noise or given["noise"])


def test_known_pixels_stay_and_nothing_in_the_hole_is_looked_at():
    made, given = method(), batch()
    image = filled(made, given)
    hole = given["mask"].bool().expand_as(image)
    assert torch.equal(image[~hole], given["image"][~hole])
    assert not torch.equal(image[hole], given["image"][hole])
    blind = given | {"image": torch.where(given["mask"] > 0, 0.5, given["image"])}
    assert torch.equal(filled(made, blind), image)


def test_a_mask_of_nothing_leaves_the_image_and_one_of_everything_makes_one_from_the_text_alone():
    made, given = method(), batch()
    nothing, everything = torch.zeros_like(given["mask"]), torch.ones_like(given["mask"])
    assert torch.equal(filled(made, given | {"mask": nothing}), given["image"])
    image = filled(made, given | {"mask": everything})
    assert image.isfinite().all()
    assert torch.equal(filled(made, given | {"mask": everything, "image": -given["image"]}), image)
    assert not torch.equal(image[0], image[1]), "the captions are others"
    training = made.train().encoder.both(*made.given(given | {"mask": everything}), made.prompts(given))
    assert all(tensor.isfinite().all() for tensor in (*training.posterior, *training.known.prior))


def test_the_caption_changes_the_hole():
    made, given = method(), batch()
    other = filled(made, given | {"caption": CAPTIONS[::-1]})
    changed = (filled(made, given) - other).abs().amax(dim=(1, 2, 3)) > 0
    assert changed.tolist() == [True, False, True], "the middle caption is its own mirror"


def test_the_first_draw_is_the_middle_of_the_prior_and_the_others_are_drawn_from_it():
    made, given = method(), batch()
    again = Noise(1, given["noise"].samples)
    assert torch.equal(filled(made, given), filled(made, given, again))
    drawn = [filled(made, batch(draw=draw)) for draw in (0, 1, 2)]
    assert not torch.equal(drawn[1], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], filled(made, given, Noise(1, batch(draw=1)["noise"].samples)))


def test_a_draw_spreads_as_the_prior_says():
    made, given = method(), batch(draw=1)
    seen = []
    made.generator.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    filled(made, given)
    filled(made, given, Noise(0, batch(draw=0)["noise"].samples))
    with torch.no_grad():
        prior = made.encoder(*made.given(given), made.prompts(given)).prior
    drawn, middle = seen
    torch.testing.assert_close(middle, prior.mu)
    torch.testing.assert_close((drawn - middle) / prior.sigma, given["noise"].normal("z", 4, 4, 4))


@pytest.mark.parametrize("row", range(len(CAPTIONS)))
def test_attention_to_words_is_that_of_a_batch_of_one(row):
    made, given = method(), batch()
    attention = made.word_attention(given)
    length = len(CAPTIONS[row].split())
    alone = made.word_attention({key: value[row : row + 1] for key, value in given.items() if key != "noise"})
    assert attention.shape == (3, 10, 4, 4)
    torch.testing.assert_close(attention[row : row + 1, :length], alone)
    assert not attention[row, length:].any(), "it attends to padding"


def test_attention_sums_to_one_where_nothing_of_the_hole_is_seen():
    made, given = method(), batch()
    total = made.word_attention(given).sum(1)
    # Positions stand at pixels 0, 21, 42 and 63, and the hole is in rows 16 to 39 and columns 24 to 55.
    known = torch.ones(4, 4)
    known[1, 2] = 0
    torch.testing.assert_close(total, known.expand(3, 4, 4))


def test_inverse_attention_is_to_what_a_position_does_not_show():
    layer = TextAttention(2, 2)
    with torch.no_grad():
        layer.project.weight.copy_(torch.eye(2)[:, :, None, None])
    features, words = torch.tensor([3.0, 0.0])[None, :, None, None], torch.eye(2)[None]
    everything = torch.ones(1, 1, 2, dtype=torch.bool), torch.ones(1, 1, 1, 1, dtype=torch.bool)
    plain = layer(features, words, *everything, inverse=False).flatten()
    inverse = layer(features, words, *everything, inverse=True).flatten()
    torch.testing.assert_close(plain, torch.tensor([3.0, 0.0]).softmax(0))
    torch.testing.assert_close(inverse, plain.flip(0))


@pytest.mark.parametrize("size", [(64, 96), (128, 32), (16, 32)])
def test_other_sizes_are_filled_as_well(size):
    made, given = method(), batch(size, hole=(slice(2, 9), slice(3, 20)))
    image = filled(made, given)
    assert image.shape[-2:] == size
    assert image.isfinite().all()


@pytest.mark.parametrize(
    ("size", "mask", "message"),
    [
        (
            (60, 64),
            None,
            r"expected images with sides of a multiple of 16 pixels, .*, found 64 x 60: resize or pad them",
        ),
        ((16, 16), None, r"2 times that area at least, found 16 x 16"),
        ((64, 64), (32, 64), r"expected masks of shape \(3, 1, 64, 64\), as the images are, found \(3, 1, 32, 64\)"),
    ],
)
def test_sizes_that_do_not_work_are_named(size, mask, message):
    given = batch(size)
    given["mask"] = given["mask"] if mask is None else torch.zeros(3, 1, *mask)
    with pytest.raises(ValueError, match=message) as caught:
        filled(method(), given)
    assert "\n" not in str(caught.value)


def test_a_caption_without_known_words_is_refused():
    with pytest.raises(ValueError, match="expected captions of known words, found none in caption 1 of the batch"):
        filled(method(), batch(captions=[CAPTIONS[0], "quux!", CAPTIONS[2]]))


def test_no_text_is_nothing_to_attend_to_and_depends_on_no_other_caption():
    made = method()
    text = made.encode_text(["", CAPTIONS[0], "  "])
    for row in (0, 2):
        assert not text.sentence[row].any()
        assert not text.words[row].any()
    torch.testing.assert_close(text.words[1], made.encode_text(CAPTIONS[:1]).words[0])
    told, untold = filled(made, batch()), filled(made, batch(captions=["", CAPTIONS[1], " "]))
    torch.testing.assert_close(untold[1], told[1])
    assert not torch.equal(untold[0], told[0])
    torch.testing.assert_close(untold[0], filled(made, batch(captions=["", "", ""]))[0])


def test_captions_are_split_as_nltk_does_and_cut_at_their_end():
    made = method(max_words=3)
    text = made.encode_text(["a bird - red-blue - that is Yellow, (small) and grey"])
    assert text.words.shape[1] == 3
    expected = made.encode_text(["a bird is"])
    torch.testing.assert_close(text.words, expected.words)
    torch.testing.assert_close(text.sentence, expected.sentence)
    assert made.words(["a bird that is Yellow, (small)", "quux"]) == [["a", "bird", "is"], []]


def test_evaluation_leaves_the_method_as_it_was():
    made = method()
    before = {key: tensor.clone() for key, tensor in made.state_dict().items()}
    first = filled(made, batch())
    filled(made, batch((64, 32), hole=(slice(8), slice(8))))
    assert torch.equal(filled(made, batch()), first)
    assert all(torch.equal(tensor, before[key]) for key, tensor in made.state_dict().items())


def paths(made, given):
    (image, keep), text = made.given(given), made.captions(given)
    return image, text, made.paths(made.encoder.both(image, keep, text), keep, given["noise"])


def test_only_reconstruction_sees_what_the_hole_hides_and_generation_gets_its_words():
    made, given = method(), batch()
    changed = given | {"image": torch.where(given["mask"] > 0, -given["image"], given["image"])}
    with torch.no_grad():
        (_, _, one), (_, _, other) = paths(made, given), paths(made, changed)
        (image, keep), text = made.given(given), made.captions(given)
        known, hidden = made.encoder(image, keep, text), made.encoder.both(image, keep, text).known
    assert not torch.equal(one.posterior.mu, other.posterior.mu)
    assert not torch.equal(one.reconstructed[-1], other.reconstructed[-1])
    torch.testing.assert_close(one.prior.mu, other.prior.mu)
    torch.testing.assert_close(known.hidden, hidden.hidden, msg="training encodes the known region as the test does")
    torch.testing.assert_close(known.prior.mu, hidden.prior.mu)


def test_discriminators_are_trained_on_reconstructions_alone():
    made, given = method(), batch()
    image, _, both = paths(made, given)
    terms = made.discriminator_terms(image, both)
    other = made.discriminator_terms(image, both._replace(generated=[-one for one in both.generated]))
    assert {key: float(term.detach()) for key, term in terms.items()} == {
        key: float(term.detach()) for key, term in other.items()
    }
    sum(terms.values()).backward()
    assert all(parameter.grad is None for parameter in (*made.encoder.parameters(), *made.generator.parameters()))


def test_the_prior_follows_the_posterior_and_not_the_other_way_round():
    made = method()
    image, text, both = paths(made, batch())
    term = made.generator_terms(image, both, text)["KL_gen"]
    posterior, prior = (list(one.parameters()) for one in (made.encoder.posterior, made.encoder.prior))
    gradients = torch.autograd.grad(term, [*posterior, *prior], allow_unused=True)
    assert [gradient is None for gradient in gradients] == [True] * len(posterior) + [False] * len(prior)


def test_l1_of_a_small_batch_counts_every_size():
    image = torch.rand(2, 3, 32, 32)
    made = [torch.rand(2, 3, side, side) for side in (4, 8, 16, 32)]
    real = targets(image, made)
    rows = [pyramid_l1(*([one[n : n + 1] for one in images] for images in (made, real))) for n in range(2)]
    torch.testing.assert_close(pyramid_l1(made, real), sum(rows) / 2)
    torch.testing.assert_close(pyramid_l1([*made[:3], image], real) + F.l1_loss(made[3], image), pyramid_l1(made, real))


def test_a_step_moves_all_four_networks_and_stores_the_vectors(monkeypatch):
    made, given = method().train(), batch()
    optimizers = made.configure_optimizers()
    order = list(made.partials)

    def minimise(names, terms):
        sum(terms.values()).backward()
        for name in names:
            optimizers[order.index(name)].step()

    monkeypatch.setattr(made, "minimise", minimise)
    before = {key: tensor.clone() for key, tensor in made.state_dict().items()}
    made.training_step(given, 0)
    for network in order:
        for kind in ("weight", "u"):
            keys = [key for key in before if key.startswith(f"{network}.") and key.endswith(f".{kind}")]
            moved = [key for key in keys if not torch.equal(made.state_dict()[key], before[key])]
            assert moved, f"{kind} of {network}"


def test_what_a_data_set_adds_by_a_defaults_list_is_laid_below_what_the_file_says():
    for source in ("toy", "real"):
        birds, scenes = (
            config.composed(["method=tdanet", f"data={data}", f"data.source={source}"])["data"]["module"]
            for data in ("cub", "coco")
        )
        kinds = [[mask["_target_"].rpartition(".")[2] for mask in one["mask"]["masks"]] for one in (birds, scenes)]
        # On toy data the object's hole comes as often as all others together.
        often = (lambda last: [last]) if source == "toy" else (lambda last: [])
        assert kinds == [
            ["Centre", *often(last), "Rectangles", *often(last), "Strokes", last] for last in ("Salient", "LargestBox")
        ]
        assert birds["bird_crop"] is False


def test_matching_is_to_the_texts_that_were_given():
    made = method()
    image, text, both = paths(made, batch())
    terms = made.generator_terms(image, both, text)
    rolled = EncodedText(text.words.roll(1, 0), text.word_mask.roll(1, 0), text.sentence.roll(1, 0))
    others = made.generator_terms(image, both, rolled)
    changed = {key for key in terms if not torch.equal(terms[key], others[key])}
    assert changed == {f"DAMSM_{kind}_{path}" for kind in ("words", "sentence") for path in ("rec", "gen")}


def test_where_generations_are_judged_the_other_discriminator_still_learns_from_reconstructions():
    made = method(TDANetGenerationJudged)
    image, _, both = paths(made, batch())
    others = {
        "L_D": both._replace(generated=[-one for one in both.generated]),
        "L_D_rec": both._replace(reconstructed=[-one for one in both.reconstructed]),
    }
    terms = made.discriminator_terms(image, both)
    for name, other in others.items():
        judged = made.discriminator_terms(image, other)
        assert {key for key in terms if not torch.equal(terms[key], judged[key])} == {name}


@pytest.mark.parametrize("kind", [TDANetGated, TDANetPartial, TDANetDilated])
def test_with_other_convolutions_nothing_in_the_hole_is_looked_at(kind):
    made, given = method(kind), batch()
    image = filled(made, given)
    blind = given | {"image": torch.where(given["mask"] > 0, 0.5, given["image"])}
    assert torch.equal(filled(made, blind), image)
    assert not torch.equal(image, filled(method(), given))
    _, _, both = paths(made.train(), given | {"mask": torch.ones_like(given["mask"])})
    assert all(one.isfinite().all() for one in both.generated)


def test_a_partial_convolution_is_the_plain_one_where_all_is_known_and_grows_by_a_pixel():
    layer = PartialConvolution(3, 5, 3, padding=1).eval()
    x, known = torch.randn(2, 3, 8, 8), torch.ones(2, 1, 8, 8)
    with torch.no_grad():
        plain = F.conv2d(x, layer.normalised(), layer.bias, padding=1)
        features, grown = layer(x, known)
        torch.testing.assert_close(features[..., 1:-1, 1:-1], plain[..., 1:-1, 1:-1])
        known[..., :5] = 0
        features, grown = layer(x, known)
        assert grown[0, 0, 3].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
        assert not features[..., :4].any()
        half = layer(torch.ones_like(x), known)[0][..., 4, 5]  # of nine pixels of 1, six are known
    weight = layer.normalised()[..., 1:].sum(dim=(1, 2, 3)) * 9 / 6
    torch.testing.assert_close(half, (weight + layer.bias).expand(2, 5))


def test_what_is_pooled_is_the_mean_of_what_is_known():
    features = torch.tensor([[1.0, 5.0, 2.0], [3.0, 7.0, 4.0]])[None, None, :, :2]
    known = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[None, None]
    assert [one.item() for one in pooled(features, known)] == [2.0, 1.0]
    assert [one.item() for one in pooled(features, 0 * known)] == [0.0, 0.0]


def test_a_gated_convolution_weighs_one_half_of_its_channels_by_the_other():
    layer = GatedConvolution(3, 4, 3, padding=1).eval()
    x = torch.randn(1, 3, 5, 5)
    features, gate = F.conv2d(x, layer.normalised(), layer.bias, padding=1).chunk(2, dim=1)
    torch.testing.assert_close(layer(x), features * gate.sigmoid())


def test_a_dilated_convolution_reaches_two_pixels():
    layer = DilatedConvolution(1, 1, 3, padding=1).eval()
    impulse = torch.zeros(1, 1, 9, 9)
    impulse[..., 4, 4] = 1
    reached = (layer(impulse) - layer.bias)[0, 0].abs().gt(1e-6).nonzero()
    assert reached.amin(0).tolist() == [2, 2]
    assert reached.amax(0).tolist() == [6, 6]
    assert len(reached) == 9


def test_between_two_captions_lies_the_one_the_other_and_their_mean():
    made = method()
    one, other = made.encode_text(CAPTIONS), made.encode_text(CAPTIONS[::-1])
    for share, end in ((0.0, one), (1.0, other)):
        mixed = between(one, other, torch.full((3, 1), share))
        torch.testing.assert_close(mixed.sentence, end.sentence)
        torch.testing.assert_close(mixed.words[end.word_mask], end.words[end.word_mask])
    mixed = between(one, other, torch.full((3, 1), 0.5))
    length = one.word_mask.sum(1)
    assert mixed.word_mask.sum(1).tolist() == torch.maximum(length, length.flip(0)).tolist()
    torch.testing.assert_close(mixed.words[0, :4], (one.words[0, :4] + other.words[0, :4]) / 2)
    torch.testing.assert_close(mixed.words[0, 4:], one.words[0, 4:], msg="the shorter caption has ended")


def test_mixed_captions_are_of_one_image_and_of_training_alone():
    made, given = method(TDANetInterpolated), batch()
    given["captions"] = [[caption] for caption in CAPTIONS]
    torch.testing.assert_close(made.captions(given).words, made.encode_text(CAPTIONS).words)
    given["captions"] = [[CAPTIONS[1]]] * 3
    mixed = made.captions(given)
    assert not torch.equal(mixed.sentence[0], made.encode_text(CAPTIONS).sentence[0])
    torch.testing.assert_close(mixed.sentence[1], made.encode_text(CAPTIONS).sentence[1])
    alone = {key: value[:1] for key, value in given.items() if key != "noise"}
    alone["noise"] = Noise(0, given["noise"].samples[:1])
    torch.testing.assert_close(made.captions(alone).sentence, mixed.sentence[:1])
    assert torch.equal(filled(made, given), filled(method(), given))
