"""DALL-E 2: what its networks see, which embedding its prior draws, and what it refuses; numbers are in parity."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmbench.core.noise import Noise, Sample, TrainingNoise
from mmbench.diffusion.denoisers import Prediction, predicted_noise
from mmbench.diffusion.samplers import ddim
from mmbench.diffusion.schedules import cosine, gathered, scaled_linear
from mmbench.methods.synthesis.dalle2 import DALLE2, DALLE2Prior, DALLE2Text, on_sphere, shifted_ddim
from mmbench.networks.dalle2 import (
    CausalBias,
    CausalTransformer,
    DecoderCondition,
    DecoderUNet,
    Prior,
    PriorCondition,
    rotated,
)

DIM, WORDS = 8, 5
TEXTS = ["a red bird", "a bird with a blue crown", "a bird"]


class Reader(nn.Module):
    """What stands in for a trained CLIP: embeddings of letters, and of an image's mean colour."""

    embedding_dim = word_dim = DIM
    max_words = WORDS

    def encode_words(self, texts):
        words = torch.zeros(len(texts), WORDS, DIM)
        for row, text in zip(words, texts, strict=True):
            for place, word in enumerate(text.split()[:WORDS]):
                row[place] = torch.tensor([math.sin(1 + k * sum(map(ord, word))) for k in range(DIM)])
        return words

    def encode_text(self, texts):
        return F.normalize(self.encode_words(texts).sum(dim=1), dim=1)

    def encode_image(self, images):
        return F.normalize(images.mean(dim=(2, 3)) @ torch.arange(1.0, 3 * DIM + 1).view(3, DIM).cos(), dim=1)


class WideReader(Reader):
    word_dim = DIM + 1


TRANSFORMER = partial(CausalTransformer, depth=2, num_heads=2, head_dim=4)
UNET = partial(
    DecoderUNet,
    width=8,
    multipliers=[1, 2],
    num_blocks=1,
    self_attention=[False, True],
    token_dim=6,
    num_heads=2,
    head_dim=4,
    cross_heads=2,
    cross_head_dim=4,
)
OPTIMIZER = partial(torch.optim.Adam, lr=0.001)


def a_prior(clip=None, **changes):
    given = {"num_steps": 4, "num_candidates": 2, "guidance": 1.5, "forgotten": 0.1, **changes}
    return DALLE2Prior(clip or Reader(), TRANSFORMER, cosine(20), decay=0.9, optimizer=OPTIMIZER, **given)


def a_decoder(kind, embedder, **changes):
    given = {
        "image_size": 16,
        "decoder_size": 8,
        "unet": UNET,
        "noise_schedule": scaled_linear(8, 0.01, 0.3),
        "num_steps": 4,
        "sampler": ddim,
        "guidance": 2.0,
        "forgotten": 0.1,
        "captions_forgotten": 0.5,
        "predicts": predicted_noise(),
        **changes,
    }
    return kind(embedder, decay=0.9, optimizer=OPTIMIZER, **given)


def of_samples(kind=Noise, count=3):
    return kind(0, [Sample(str(place), 0, 0) for place in range(count)])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def a_network(kind):
    """A network of each kind whose last layer gives something, its noisy input, and its condition."""
    if kind is Prior:
        network, x = Prior(TRANSFORMER(DIM), WORDS, 20), torch.randn(2, DIM)
        embedding = {"text": torch.randn(2, DIM)}
    else:
        network, x = UNET(image_dim=DIM, text_dim=DIM, max_words=WORDS), torch.randn(2, 3, 8, 8)
        nn.init.normal_(network.leave.weight)
        embedding = {"image": torch.randn(2, DIM)}
    keep = {name: torch.tensor([True, False]) for name in ("text_keep", "image_keep")}
    condition = {Prior: PriorCondition, DecoderUNet: DecoderCondition}[kind]
    return network, x, condition(**embedding, words=torch.randn(2, 3, DIM), **keep)


@pytest.mark.parametrize("kind", [Prior, DecoderUNet])
def test_what_is_dropped_has_no_influence_and_what_is_kept_has(kind):
    network, x, condition = a_network(kind)
    timesteps = torch.tensor([3, 3])
    first = network(x, timesteps, condition)
    for name in condition._fields:
        if name.endswith("_keep"):
            continue
        others = network(x, timesteps, condition._replace(**{name: torch.randn_like(getattr(condition, name))}))
        moved = (others - first).flatten(1).abs().amax(dim=1)
        assert moved[0] > 1e-3, f"{name} is not seen"
        assert moved[1] == 0, f"{name} is seen where it is dropped"
    nothing = network(x[:1].expand_as(x), timesteps, condition.dropped())
    torch.testing.assert_close(nothing[0], nothing[1])


def test_a_prior_without_its_condition_does_not_see_the_noised_embedding():
    network, x, condition = a_network(Prior)
    timesteps = torch.tensor([3, 7])
    without = network(x, timesteps, condition.dropped())
    assert torch.equal(network(-x, timesteps, condition.dropped()), without)
    assert not torch.allclose(without[0], without[1]), "the timestep is not seen"


@pytest.mark.parametrize("kind", [Prior, DecoderUNet])
def test_words_of_zeros_are_none(kind):
    network, x, condition = a_network(kind)
    filled_up = condition._replace(words=F.pad(condition.words, (0, 0, 0, 2)))
    expected = network(x, torch.tensor([3, 5]), condition)
    torch.testing.assert_close(network(x, torch.tensor([3, 5]), filled_up), expected)


@pytest.mark.parametrize("kind", [Prior, DecoderUNet])
def test_more_words_than_a_network_has_places_for_are_refused(kind):
    network, x, condition = a_network(kind)
    longer = condition._replace(words=torch.randn(2, WORDS + 1, DIM))
    with pytest.raises(ValueError, match="expected at most 5 words, found 6: cut captions off"):
        network(x, torch.tensor([3, 5]), longer)


def test_a_token_sees_those_before_it_alone():
    transformer, tokens = TRANSFORMER(DIM), torch.randn(1, 6, DIM)
    changed = tokens.clone()
    changed[:, 4] = torch.randn(DIM)
    moved = (transformer(changed) - transformer(tokens)).abs().amax(dim=2)[0] > 1e-3
    assert moved.tolist() == [False] * 4 + [True] * 2


def test_turned_queries_and_keys_know_no_more_than_their_distance():
    query, key = torch.randn(2, 40)
    turned_query, turned_key = (rotated(x.expand(1, 1, 9, 40))[0, 0] for x in (query, key))
    products = turned_query @ turned_key.T
    for distance in range(-8, 9):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=0)
    assert products[0].std() > 0.1


def test_the_bias_counts_near_tokens_one_by_one_and_far_ones_by_their_logarithm():
    bias = CausalBias(1)
    bias.by_bucket.weight.data = torch.arange(32.0)[:, None]
    last = bias(201)[0, 200].flip(0)  # of the last of 201 tokens, from its own key to the learned one, which counts too
    assert last[:2].tolist() == [0, 0], "a token and that before it, whose key has its own number"
    assert last[1:17].tolist() == list(range(16))
    expected = [16 + int(math.log(distance / 16) / math.log(8) * 16) for distance in range(16, 120)]
    assert last[17:121].tolist() == expected
    assert set(last[129:].tolist()) == {31}
    assert torch.isinf(bias(3)[0]).tolist() == [[False, False, True, True], [False] * 3 + [True], [False] * 4]


def test_a_decoder_begins_by_predicting_nothing():
    network = UNET(image_dim=DIM, text_dim=DIM, max_words=WORDS)
    keep = torch.ones(1, dtype=torch.bool)
    told = DecoderCondition(torch.randn(1, DIM), torch.randn(1, 3, DIM), keep, keep)
    assert not network(torch.randn(1, 3, 8, 8), torch.tensor([3]), told).any()


def gaussian(schedule, mean, spread):
    """The exact denoiser of numbers that are normal, with a mean and a deviation."""

    def denoiser(x, step, condition):
        level = gathered(schedule.alphas_cumprod, step, x)
        share = level.sqrt() * spread**2 / (level * spread**2 + 1 - level)
        return Prediction(mean + share * (x - level.sqrt() * mean))

    return denoiser


def test_the_priors_sampler_draws_from_a_distribution_whose_denoiser_is_exact():
    schedule, generator = cosine(1000), torch.Generator().manual_seed(0)
    asked = []

    def noise(step):
        asked.append(step)
        return torch.randn(4000, 2, generator=generator)

    found = shifted_ddim(gaussian(schedule, 0.5, 0.7), schedule, 200, noise(1000), None, noise)
    assert asked == sorted(set(asked), reverse=True), "a step's noise is drawn twice, or out of order"
    assert len(asked) == 1 + 198
    # What the recorded sampler takes for the level below moves the mean by a twentieth of a deviation.
    assert found.mean() == pytest.approx(0.5, abs=0.05)
    assert found.std() == pytest.approx(0.7, rel=0.04)


def test_an_estimate_that_is_no_number_is_refused_with_its_step():
    schedule = cosine(20)

    def broken(x, step, condition):
        return Prediction(torch.where(step[:, None] < 10, math.nan, x))

    with pytest.raises(ValueError, match="expected finite numbers in the latent, found NaN or infinity after step 9"):
        shifted_ddim(broken, schedule, 4, torch.randn(2, DIM), None, lambda step: torch.zeros(2, DIM))


class OfCandidate(Noise):
    """Draws for the first candidate what is another's, whose number `candidate` is."""

    candidate = 0

    def normal(self, name, *shape):
        return super().normal(name.replace("prior 0", f"prior {self.candidate}"), *shape)


def test_the_candidate_that_is_nearest_to_the_text_is_taken():
    prior = a_prior(num_candidates=3).eval()
    alone = a_prior(num_candidates=1).eval()
    alone.load_state_dict(prior.state_dict())
    each = []
    with torch.no_grad():
        found = prior.embeddings(TEXTS, of_samples())
        for candidate in range(3):
            noise = of_samples(OfCandidate)
            noise.candidate = candidate
            each.append(alone.embeddings(TEXTS, noise))
    nearness = torch.stack([(one * prior.clip.network.encode_text(TEXTS)).sum(dim=1) for one in each])
    expected = torch.stack(each)[nearness.argmax(dim=0), torch.arange(len(TEXTS))]
    torch.testing.assert_close(found, expected)
    assert nearness.std(dim=0).min() > 1e-4, "candidates are all the same"
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(TEXTS)))


def test_embeddings_deviate_as_noise_does():
    embedding = on_sphere(torch.randn(5, 64))
    torch.testing.assert_close(embedding.square().mean(dim=1), torch.ones(5))


def a_batch():
    noise, image = of_samples(TrainingNoise), 2 * torch.rand(len(TEXTS), 3, 16, 16) - 1
    return {"image": image, "caption": TEXTS, "noise": noise}


def test_a_decoder_learns_from_images_embeddings_and_without_a_prior_from_texts():
    batch, clip = a_batch(), Reader()
    unclip, without = a_decoder(DALLE2, a_prior(clip)), a_decoder(DALLE2Text, clip)
    assert torch.equal(unclip.of_images(batch), clip.encode_image(batch["image"]))
    assert torch.equal(without.of_images(batch), clip.encode_text(TEXTS))
    assert torch.equal(without.of_texts(TEXTS, of_samples()), clip.encode_text(TEXTS))
    with torch.no_grad():
        drawn = unclip.prior.network.embeddings(TEXTS, of_samples())
        assert torch.equal(unclip.of_texts(TEXTS, of_samples()), drawn)


def test_an_image_is_of_the_size_that_clip_looks_at_and_follows_its_text():
    decoder = a_decoder(DALLE2, a_prior()).eval()
    nn.init.normal_(decoder.ema.average.leave.weight, std=0.1)
    with torch.no_grad():
        image = decoder.generate({"caption": TEXTS}, of_samples())
        other = decoder.generate({"caption": [*TEXTS[:2], "a green bird"]}, of_samples())
    assert image.shape == (3, 3, 16, 16)
    assert image.abs().max() <= 1
    moved = (image - other).flatten(1).abs().amax(dim=1)
    assert moved[:2].max() < 1e-4 < moved[2]


def test_what_is_forgotten_is_forgotten_as_often_as_asked():
    seen = []
    decoder = a_decoder(DALLE2Text, Reader(), forgotten=0.2, captions_forgotten=0.6)
    decoder.network.register_forward_hook(lambda network, told, output: seen.append(told[2]))
    count = 500
    batch = {"image": torch.zeros(count, 3, 8, 8), "caption": ["a bird"] * count}
    decoder.terms({**batch, "noise": of_samples(TrainingNoise, count)})
    (condition,) = seen
    shares = [1 - float(keep.float().mean()) for keep in (condition.image_keep, condition.text_keep)]
    assert shares == pytest.approx([0.2, 0.6], abs=0.07)
    both = 1 - float((condition.image_keep | condition.text_keep).float().mean())
    assert both == pytest.approx(0.12, abs=0.05), "the two are not independent"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 21}, "expected from 2 to 20 sampling steps, as many as the schedule has, found 21: take fewer"),
        (
            {"forgotten": 0.0},
            "expected conditions that are forgotten in training for guidance, found a guidance of 1.5",
        ),
        ({"clip": WideReader()}, "expected words of CLIP of the size of its embeddings, 8, found 9: give"),
    ],
)
def test_what_a_prior_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        a_prior(**changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 9}, "expected from 1 to 8 steps, as many as there are, found 9: take fewer"),
        ({"captions_forgotten": 0.0}, "expected conditions that are forgotten in training for guidance, found"),
        ({"decoder_size": 9}, "expected a decoder_size that is a multiple of 2, found 9: choose one, or fewer"),
        ({"unet": partial(UNET, self_attention=[True])}, "expected self_attention for each of 2 resolutions, found 1"),
    ],
)
def test_what_a_decoder_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        a_decoder(DALLE2Text, Reader(), **changes)
    assert "\n" not in str(refused.value)


def test_without_guidance_nothing_need_be_forgotten():
    decoder = a_decoder(DALLE2Text, Reader(), guidance=1.0, forgotten=0.0, captions_forgotten=0.0)
    assert torch.isfinite(decoder.terms(a_batch())["L_hybrid"])


def test_a_prior_makes_no_images_and_says_so():
    with pytest.raises(ValueError, match="expected a method that makes images, found dalle2_prior: train it, then"):
        a_prior().generate({"caption": TEXTS}, of_samples())
