"""ADM: what its models do, at sizes of milliseconds; the networks are compared with the authors' in parity."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmbench.core import config, construction
from mmbench.core.noise import Noise, Sample, TrainingNoise
from mmbench.core.schedules import declining
from mmbench.core.text import END, Vocabulary
from mmbench.core.weights import load_strictly
from mmbench.diffusion.denoisers import denoised_from_velocity, predicted_velocity
from mmbench.diffusion.schedules import linear
from mmbench.layers.classes import Classes
from mmbench.layers.timesteps import sinusoids
from mmbench.methods.synthesis.adm import (
    ADM,
    ADMClassifier,
    ADMText,
    ADMUnconditional,
    ADMUpsampler,
    GuidedADM,
    by_ancestral_sampling,
    by_ddim,
)
from mmbench.networks.adm import Blocks, Classifier, HeadsBlocks, SuperResolutionUNet, UNet

PARITY = Path(__file__).parent / "parity/fixtures/adm"
HALF = {"image_size": 8, "width": 8, "multipliers": [1, 1], "num_blocks": 1, "attention_sizes": [4]}
BLOCKS = Blocks(head_dim=4, dropout=0.0, groups=4)
SAMPLES = [Sample(f"bird {number}", 0, 0) for number in range(3)]
CLASS_IDS = [3, 7, 20]
ROUNDING = 1e-4  # of an image, as in test_contract: sums over another batch are added up in another order


def small(kind=UNet, **changes):
    return partial(kind, **{"blocks": BLOCKS, **HALF, **changes})


def model(kind, unet=None, **changes):
    """With layers that start at zero set to something, so that all that goes in is seen in what comes out."""
    torch.manual_seed(0)
    made = kind(
        unet=unet or small(),
        **{
            "noise_schedule": linear(100),
            "num_steps": 4,
            "sampler": by_ancestral_sampling,
            "decay": 0.5,
            "optimizer": partial(torch.optim.SGD, lr=0.1),
            **changes,
        },
    )
    for parameter in made.ema.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return made.eval()


def text_model(**changes):
    vocabulary = Vocabulary((END, "a", "bird", "blue", "red"))
    sizes = {"sentence_dim": 8, "token_dim": 8, "max_words": 5}
    return model(ADMText, vocabulary=vocabulary, **{**sizes, "left_out": 0.25, "guidance": 2.0, **changes})


def test_a_network_that_predicts_velocity_is_sampled_as_one():
    made, step = text_model(predicts=predicted_velocity()), torch.zeros(2, dtype=torch.int64)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    sentence = made.encoded(["a red bird", "blue"])
    said = made.ema(x, made.steps.timesteps[step], sentence)[:, :3]
    expected = denoised_from_velocity(made.steps, x, step, said)
    torch.testing.assert_close(made.denoiser()(x, step, sentence).denoised, expected)


class Recording(Noise):
    """Remembers what is drawn."""

    def __init__(self, *of_samples):
        super().__init__(*of_samples)
        self.names = []

    def normal(self, name, *shape):
        self.names.append(name)
        return super().normal(name, *shape)


def images(made, **batch):
    with torch.inference_mode():
        return made.generate(batch, Noise(0, SAMPLES))


def test_time_is_told_by_cosines_before_sines():
    found = sinusoids(torch.tensor([0.0, 2.5]), 6)
    torch.testing.assert_close(found[0], torch.tensor([1.0, 1, 1, 0, 0, 0]))
    rates = 10000 ** -(torch.arange(3) / 3)
    torch.testing.assert_close(found[1], torch.cat(((2.5 * rates).cos(), (2.5 * rates).sin())))


def test_a_network_begins_by_saying_nothing_whatever_it_sees():
    torch.manual_seed(0)
    unet = small()(in_channels=3, out_channels=6)
    assert not unet(torch.randn(2, 3, 8, 8), torch.tensor([1, 50])).any()
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(BLOCKS.attention(8)(x), x)
    assert torch.equal(BLOCKS.residual(8, 8, 16)(x, torch.randn(2, 16)), x)


def test_a_number_of_heads_and_their_width_make_the_same_network():
    one, other = (small(blocks=blocks)(in_channels=3, out_channels=6) for blocks in (BLOCKS, HeadsBlocks(2, 0.0, 4)))
    other.load_state_dict(one.state_dict())
    nn.init.ones_(one.out[2].weight)
    nn.init.ones_(other.out[2].weight)
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(one(x, torch.tensor([5])), other(x, torch.tensor([5])))


def test_sizes_that_cannot_be_halved_are_refused_in_one_line():
    unet = small()(in_channels=3, out_channels=6)
    with pytest.raises(ValueError, match=r"^expected images .* that 2 divides, .* 1 times, found 6 x 7: choose"):
        unet(torch.zeros(1, 3, 6, 7), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"^expected images .* that 2 divides, .* found 9 x 9: choose another size"):
        small(image_size=9)(in_channels=3, out_channels=6)


def test_more_steps_than_the_schedule_has_are_refused_when_a_model_is_built():
    with pytest.raises(ValueError, match=r"^expected from 1 to 100 steps, as many as there are, found 101: take fewer"):
        model(ADMUnconditional, num_steps=101)


def test_pictures_of_another_size_are_refused_in_training():
    batch = {"image": torch.zeros(3, 3, 16, 16), "noise": TrainingNoise(0, SAMPLES)}
    with pytest.raises(ValueError, match=r"^expected images of 8 pixels, found 16: set data\.module\.image_size"):
        model(ADMUnconditional).terms(batch)


def test_classes_have_their_data_sets_numbers_and_others_are_refused():
    classes = Classes(CLASS_IDS)
    assert classes(torch.tensor([20, 3, 7, 3])).tolist() == [2, 0, 1, 0]
    with pytest.raises(ValueError, match=r"^expected one of the 3 classes that were trained on, found class 8: choose"):
        classes(torch.tensor([7, 8]))


@pytest.mark.parametrize("sampler", [by_ancestral_sampling, by_ddim])
def test_an_image_is_of_its_class_and_of_its_sample_alone(sampler):
    made = model(ADM, class_ids=CLASS_IDS, sampler=sampler)
    found = images(made, class_id=torch.tensor([3, 7, 7]))
    assert found.shape == (3, 3, 8, 8)
    assert found.abs().max() <= 1
    with torch.inference_mode():
        alone = made.generate({"class_id": torch.tensor([7])}, Noise(0, SAMPLES[2:]))
    torch.testing.assert_close(alone[0], found[2], atol=ROUNDING, rtol=0)
    other = images(made, class_id=torch.tensor([3, 7, 20]))
    assert torch.allclose(other[:2], found[:2], atol=1e-6)
    assert (other[2] - found[2]).abs().max() > 1e-3


def names_drawn(made, **batch):
    noise = Recording(0, SAMPLES)
    with torch.inference_mode():
        made.generate(batch, noise)
    return noise.names


def test_ddim_draws_the_beginning_alone_and_ancestral_sampling_every_step():
    assert names_drawn(model(ADMUnconditional, sampler=by_ddim)) == ["start"]
    names = names_drawn(model(ADMUnconditional))
    assert names[:4] == ["start", "step 3", "step 2", "step 1"]
    assert len(names) == len(set(names))


class Brightness(nn.Module):
    """A classifier that knows two classes by how bright an image is, and another that it never names."""

    def forward(self, x, timesteps):
        bright = x.mean(dim=(1, 2, 3))
        return torch.stack((-20 * bright, 20 * bright, torch.full_like(bright, -100)), dim=1)


@pytest.mark.parametrize("sampler", [by_ancestral_sampling, by_ddim])
def test_a_classifier_guides_to_what_it_is_surer_of(sampler):
    # Of what no class is told to the network, so that only guidance tells them apart.
    guided = partial(model, GuidedADM, classifier=Brightness(), class_ids=CLASS_IDS, sampler=sampler)
    dark, bright = torch.tensor([3] * 3), torch.tensor([7] * 3)

    def difference(guidance):
        made = guided(guidance=guidance)
        nn.init.zeros_(made.ema.average.condition.weight)
        return float((images(made, class_id=bright) - images(made, class_id=dark)).mean())

    none, some, more = (difference(guidance) for guidance in (0, 1, 4))
    assert none == 0
    assert 0.001 < some < more


def test_without_guidance_the_classifier_is_not_asked():
    plain, guided = (
        model(ADM, class_ids=CLASS_IDS),
        model(GuidedADM, classifier=nn.Module(), guidance=0, class_ids=CLASS_IDS),
    )
    guided.load_state_dict(plain.state_dict())
    of = torch.tensor([3, 7, 20])
    assert torch.equal(images(plain, class_id=of), images(guided, class_id=of))


def test_a_classifier_learns_from_noisy_images_at_their_times():
    torch.manual_seed(0)
    made = ADMClassifier(
        class_ids=CLASS_IDS,
        classifier=partial(Classifier, blocks=BLOCKS, **HALF),
        noise_schedule=linear(100),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        schedule=declining(10),
    )
    seen = []
    made.classifier.register_forward_pre_hook(lambda module, args: seen.append(args))
    batch = {"image": torch.ones(3, 3, 8, 8), "class_id": torch.tensor([3, 7, 20]), "noise": TrainingNoise(0, SAMPLES)}
    (loss,) = made.terms(batch).values()
    assert 0.2 < float(loss.detach()) < 5
    ((x, timesteps),) = seen
    spread = x.std(dim=(1, 2, 3))
    torch.testing.assert_close(spread, linear(100).sqrt_one_minus_alphas_cumprod[timesteps].float(), rtol=0.25, atol=0)
    with pytest.raises(ValueError, match=r"^expected a method that makes images, found adm_classifier: train it"):
        made.generate({}, Noise(0, SAMPLES))


def test_a_learning_rate_declines_evenly_to_nothing():
    assert [declining(4)(0.4, epoch) for epoch in range(5)] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0])


def enlarging(**changes):
    low = model(ADM, class_ids=CLASS_IDS)
    unet = small(SuperResolutionUNet, image_size=16, multipliers=[1, 1, 1])
    return model(ADMUpsampler, low=low, unet=unet, class_ids=CLASS_IDS, **changes)


def test_what_is_enlarged_is_made_by_the_stage_before_with_numbers_of_its_own():
    made, given = enlarging(), []
    made.ema.average.register_forward_pre_hook(lambda module, args: given.append(args[2][1]))
    batch = {"class_id": torch.tensor([3, 7, 20])}
    assert images(made, **batch).shape == (3, 3, 16, 16)
    small_images = images(made.low.network, **batch)
    assert all(torch.equal(seen, small_images) for seen in given)
    names, of_stage = names_drawn(made, **batch), names_drawn(made.low.network, **batch)
    assert len(names) == len(set(names)) == 2 * len(of_stage)


def test_in_training_the_small_image_is_the_mean_of_the_pixels_that_it_stands_for():
    picture = torch.arange(3 * 3 * 16 * 16.0).reshape(3, 3, 16, 16) / 3000
    _, low = enlarging().condition({"image": picture, "class_id": torch.tensor([3, 7, 20])})
    torch.testing.assert_close(low, picture.unflatten(3, (8, 2)).unflatten(2, (8, 2)).mean(dim=(3, 5)))


def test_a_stage_whose_images_do_not_fit_is_refused_in_one_line():
    unet = small(SuperResolutionUNet, image_size=12)
    with pytest.raises(ValueError, match=r"^expected images of a multiple of 8 pixels, .* found 12: change stages"):
        model(ADMUpsampler, low=SimpleNamespace(image_size=8), unet=unet, class_ids=CLASS_IDS)


def test_guidance_without_an_unconditional_branch_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^expected guidance 1 where no caption is left out .* found 2\.0: there is"):
        text_model(left_out=0.0)
    assert text_model(left_out=0.0, guidance=1).guidance == 1


def test_captions_are_followed_and_with_no_weight_at_all_they_are_not():
    some, others = ["a red bird"] * 3, ["a blue bird"] * 3
    for guidance, far in ((0, 0.0), (1, 1e-4), (4, 1e-3)):
        made = text_model(guidance=guidance, sampler=by_ddim)  # a variance that is learned is the caption's in any case
        difference = (images(made, caption=some) - images(made, caption=others)).abs().max()
        assert difference > far if far else difference < 1e-5


def test_a_share_of_captions_is_left_out_of_training():
    made = text_model()
    samples = [Sample(f"bird {number}", 0, 0) for number in range(400)]
    batch = {"caption": ["a red bird"] * 400, "noise": TrainingNoise(0, samples)}
    with torch.no_grad():
        found, nothing = made.condition(batch), made.sentences(made.unet, [[0]])
        full = made.sentences(made.unet, made.tokens(["a red bird"]))
    left_out = (found - nothing).abs().amax(dim=1) < 1e-6
    assert (found[~left_out] - full).abs().max() < 1e-6
    assert 0.17 < float(left_out.float().mean()) < 0.33


@pytest.mark.parametrize(
    ("name", "kind", "layout"),
    [
        ("adm", GuidedADM, "unet-256-full-layout"),
        ("adm_64", ADM, "unet-64-full-layout"),
        ("adm_unconditional", ADMUnconditional, "unet-256-uncond-full-layout"),
        ("adm_classifier", ADMClassifier, "classifier-256-full-layout"),
    ],
)
def test_released_checkpoints_fill_the_networks_of_their_cards(name, kind, layout):
    method = config.composed([f"method={name}", "data.source=real"])["method"]
    recorded = json.loads((PARITY / f"{layout}.json").read_text())["state"]
    ((part, keys),) = kind.official.items()
    assert method["official"]["imagenet"].keys() == {part}
    with torch.device("meta"):
        if kind is ADMClassifier:
            network = construction.construct(method["module"]["classifier"], in_channels=3, num_classes=1000)
        else:
            condition = None if kind is ADMUnconditional else partial(nn.Embedding, 1000)
            channels = {"in_channels": 3, "out_channels": 6}
            network = construction.construct(method["module"]["unet"], **channels, condition=condition)
        released = {key: torch.empty(shape) for key, shape, _ in recorded}
        load_strictly(network, keys(released, network), layout)
