"""Latent diffusion: its first stages, what it is told, what it makes, and what it refuses."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmbench.core.cards import Card
from mmbench.core.noise import Noise, Sample
from mmbench.core.text import Vocabulary
from mmbench.core.weights import load_strictly, read_state
from mmbench.core.wordpiece import WordPieces, words
from mmbench.diffusion import samplers
from mmbench.diffusion.denoisers import predicted_noise, predicted_velocity
from mmbench.diffusion.latent import NormalLatents, QuantisedLatents
from mmbench.diffusion.objectives import simple_noise, simple_velocity
from mmbench.diffusion.schedules import scaled_linear
from mmbench.layers.quantisers import LegacyVectorQuantiser
from mmbench.methods.inpainting.ldm import LDMInpainting
from mmbench.methods.synthesis.ldm import LDM, LDMClass, LDMUpsampler
from mmbench.networks.adm import PlainBlocks
from mmbench.networks.ldm import (
    Attention,
    ConcatenatingUNet,
    ConditionedBlocks,
    ConditionedUNet,
    KLAutoencoder,
    Posterior,
    TextEncoder,
)
from mmbench.networks.vqgan import Autoencoder

LEVELS = {"width": 4, "multipliers": [1, 2], "num_blocks": 1, "attention_factors": [], "num_groups": 2}
UNET = {"image_size": 8, "width": 4, "multipliers": [1, 2], "num_blocks": 1, "attention_sizes": [4]}
CAPTIONS = ["a red bird", "a bird with blue wings"]


def noise_of(count=2, seed=0):
    return Noise(seed, [Sample(f"bird {number}", 0, 0) for number in range(count)])


def pictures(size=16, count=2):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def kl_stage():
    return SimpleNamespace(autoencoder=KLAutoencoder(hidden_channels=4, latent_channels=4, **LEVELS))


def vq_stage(num_codes=8):
    quantiser = LegacyVectorQuantiser(num_codes, 3)
    return SimpleNamespace(autoencoder=Autoencoder(latent_channels=3, quantiser=quantiser, **LEVELS))


def conditioned(channels):
    blocks = ConditionedBlocks(num_heads=2, dropout=0.0, groups=2, context_dim=6)
    return enlivened(ConditionedUNet(blocks, in_channels=channels, out_channels=channels, **UNET))


def concatenating(channels, beside):
    blocks = PlainBlocks(num_heads=2, dropout=0.0, groups=2)
    return enlivened(ConcatenatingUNet(blocks, in_channels=channels + beside, out_channels=channels, **UNET))


def enlivened(network):
    """Layers that start at zero start elsewhere, so that what is told shows."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


def shared(**changes):
    return {
        "noise_schedule": scaled_linear(1000, 0.0015, 0.0195),
        "sampler": samplers.ddim,
        "num_steps": 4,
        "guidance": 1.0,
        "scale": 1.0,
        "decay": 0.9,
        "optimizer": torch.optim.AdamW,
    } | changes


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def text_to_image(**changes):
    settings = {
        "image_size": 16,
        "max_tokens": 5,
        "left_out": 0.5,
        "predicts": predicted_noise(),
        **shared(),
        **changes,
    }
    return LDM(
        vocabulary=Vocabulary.from_captions(CAPTIONS),
        text_encoder=partial(TextEncoder, depth=1),
        unet=conditioned(4),
        first_stage=kl_stage(),
        latents=NormalLatents,
        **settings,
    ).eval()


def upsampler(**changes):
    return LDMUpsampler(
        unet=concatenating(3, 3), first_stage=vq_stage(), latents=QuantisedLatents, **shared(**changes)
    ).eval()


def inpainting():
    return LDMInpainting(unet=concatenating(3, 4), first_stage=vq_stage(), latents=QuantisedLatents, **shared()).eval()


def batch(size=16, count=2):
    return {"image": pictures(size, count), "caption": CAPTIONS[:count], "noise": noise_of(count)}


def test_the_divergence_of_a_latent_is_that_of_its_normal_distribution():
    posterior = Posterior(torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4))
    own = torch.distributions.Normal(posterior.mean, (posterior.log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(dim=1)
    assert torch.allclose(posterior.divergence(), expected, rtol=1e-4)


def test_a_latent_of_a_normal_distribution_is_drawn_by_its_sample_alone():
    latents, image = NormalLatents(kl_stage().autoencoder), pictures()
    both = latents.drawn(image, noise_of())
    assert both.shape == (2, 4, 8, 8)
    assert torch.allclose(both[:1], latents.drawn(image[:1], noise_of(1)), atol=1e-5)
    assert not torch.allclose(both, latents.drawn(image, noise_of(seed=1)))


def test_decoding_quantises_a_latent_that_is_not_quantised():
    latents = QuantisedLatents(vq_stage().autoencoder)
    quantiser = latents.network.quantiser
    latent = latents.drawn(pictures(), noise_of())
    nearest = quantiser.embedded(quantiser.indices(latent))
    assert not torch.allclose(latent, nearest)
    assert torch.equal(latents.images(latent), latents.images(nearest))


@pytest.mark.parametrize(
    "sampler", [partial(samplers.ddim, eta=1.0), samplers.ddim, samplers.plms, samplers.dpm_solver_pp_2m]
)
def test_every_sampler_makes_images_of_texts(sampler):
    method = text_to_image(sampler=sampler, guidance=2.0)
    with torch.no_grad():
        images = method.generate(batch(), noise_of())
        others = method.generate(batch() | {"caption": CAPTIONS[::-1]}, noise_of())
    assert images.shape == (2, 3, 16, 16)
    assert images.abs().max() <= 1
    assert not torch.allclose(images, others, atol=1e-4), "what is said shows"


def test_guidance_leads_away_from_the_empty_text():
    method = text_to_image()

    def made(scale, texts):
        method.guidance = scale
        with torch.no_grad():
            return method.generate(batch() | {"caption": texts}, noise_of())

    plain, guided, empty = made(1.0, CAPTIONS), made(2.0, CAPTIONS), made(1.0, ["", ""])
    assert torch.allclose(made(0.0, CAPTIONS), empty, atol=1e-4), "without any of it, no text is followed"
    assert not torch.allclose(guided, plain, atol=1e-4)


def test_captions_are_left_out_by_their_samples_noise():
    method, many = text_to_image(), noise_of(64)
    told = {"caption": [CAPTIONS[1]] * 64, "noise": many}
    with torch.no_grad():
        context = method.condition(told)
        full, empty = method.context([CAPTIONS[1]]), method.context([""])
    followed, left_out = (torch.isclose(context, one, atol=1e-5).all(dim=(1, 2)) for one in (full, empty))
    assert bool((followed ^ left_out).all())
    assert torch.equal(left_out, many.uniform("left out") < 0.5)
    assert 16 < int(left_out.sum()) < 48


@pytest.mark.parametrize(
    ("predicts", "objective"), [(predicted_noise(), simple_noise), (predicted_velocity(), simple_velocity)]
)
def test_what_the_network_predicts_is_trained_and_sampled_alike(predicts, objective):
    method, given = text_to_image(predicts=predicts, guidance=1.0), batch()
    noise = given["noise"]
    latent = method.scale * method.latent(given["image"], noise)
    step, eps = method.noise_schedule.drawn(noise.uniform("step")), noise.normal("noise", *latent.shape[1:])
    expected = objective(method.unet, method.noise_schedule, latent, step, eps, method.condition(given)).mean()
    torch.testing.assert_close(method.terms(given)["L"], expected)

    # A network that says what was added to a latent is led back to it.
    schedule = method.sampling
    x = schedule.noised(latent, step := torch.zeros(2, dtype=torch.int64), eps)
    told = predicts.target(schedule, latent, step, eps)
    method.ema.forward = lambda *seen: told
    torch.testing.assert_close(method.denoiser()(x, step, None).denoised, latent, atol=1e-4, rtol=0)


def test_a_class_that_is_left_out_is_a_token_of_its_own():
    settings = {"image_size": 16, "left_out": 1.0, **shared(guidance=2.0)}
    method = LDMClass(
        class_ids=[3, 7], unet=conditioned(3), first_stage=vq_stage(), latents=QuantisedLatents, **settings
    ).eval()
    told = batch() | {"class_id": torch.tensor([7, 3])}
    assert torch.equal(method.condition(told), method.tokens.weight[[2, 2]][:, None])
    assert torch.equal(method.context(method.classes(told["class_id"])), method.tokens.weight[[1, 0]][:, None])
    with torch.no_grad():
        assert method.generate(told, noise_of()).shape == (2, 3, 16, 16)
    with pytest.raises(ValueError, match="expected one of the 2 classes that were trained on, found class 5"):
        method.condition(told | {"class_id": torch.tensor([5, 3])})


def test_attention_to_one_token_is_that_token_whatever_asks():
    """Which is why no gradient reaches what a class is asked with."""
    attention, token = Attention(8, 6, num_heads=2, head_width=4).double(), torch.randn(2, 1, 6).double()
    queries = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    told = attention(queries, token)
    torch.testing.assert_close(told, told[:, :1].expand_as(told))
    told.square().sum().backward()
    assert queries.grad.abs().max() < 1e-12


def test_latents_of_the_first_batch_get_a_deviation_of_one():
    method = text_to_image(scale=None)
    given = batch()
    method.trainer = SimpleNamespace(current_epoch=0)
    method.on_train_batch_start(given, 0)
    scaled = method.scale * method.latent(given["image"], given["noise"])
    assert float(scaled.std()) == pytest.approx(1, abs=1e-4)
    before = method.scale.clone()
    method.on_train_batch_start(given | {"image": given["image"] / 2}, 1)
    assert torch.equal(method.scale, before)


def test_what_a_hole_hides_shows_nowhere_and_what_is_known_stays():
    method, given = inpainting(), batch()
    mask = torch.zeros(2, 1, 16, 16)
    mask[..., 4:12, 6:14] = 1
    hidden = torch.where(mask.bool(), -given["image"], given["image"])
    with torch.no_grad():
        first, second = (
            method.generate({"image": image, "mask": mask}, noise_of()) for image in (given["image"], hidden)
        )
    outside = mask.expand_as(first) == 0
    assert torch.equal(first[outside], given["image"][outside])
    assert torch.equal(first, second)
    assert not torch.allclose(first[~outside], given["image"][~outside])


def test_an_image_is_enlarged_from_one_that_the_autoencoders_stride_makes_small():
    method, given = upsampler(), batch()
    small = method.small(given["image"])
    assert small.shape == (2, 3, 8, 8)
    with torch.no_grad():
        first = method.generate(given, noise_of())
        second = method.generate(given | {"image": -given["image"]}, noise_of())
    assert first.shape == given["image"].shape
    assert not torch.allclose(first, second, atol=1e-4)


def test_every_part_of_the_authors_file_fills_its_network(tmp_path):
    """Of an autoencoder, a U-Net and a text encoder in one file, beside what nobody needs."""
    method, whole = text_to_image(), {"betas": torch.zeros(1000)}
    parts = {"unet": "model.diffusion_model.", "text_encoder": "cond_stage_model."}
    theirs = {
        "unet": {"out.2.bias": "out.2.bias", "middle.1.out.bias": "middle_block.1.proj_out.bias"},
        "text_encoder": {"words.weight": "transformer.token_emb.weight", "norm.bias": "transformer.norm.bias"},
    }
    for part, prefix in parts.items():
        state = method.get_submodule(part).state_dict()
        whole |= {f"{prefix}{name}": torch.full_like(state[key], 0.5) for key, name in theirs[part].items()}
    torch.save({"state_dict": whole}, tmp_path / "model.ckpt")
    for part, prefix in parts.items():
        keys = LDM.official["ema.average" if part == "unet" else part]
        found = keys(read_state(tmp_path / "model.ckpt", "state_dict", prefix), method.get_submodule(part))
        assert found.keys() == theirs[part].keys()


def test_a_size_that_the_autoencoders_stride_does_not_divide_is_refused():
    method = text_to_image()
    with pytest.raises(ValueError, match="multiples of 2, the autoencoder's stride, found 15 x 15"):
        method.latent(pictures(15), noise_of())
    with pytest.raises(ValueError, match="multiples of 2, the autoencoder's stride, found 17 x 16"):
        method.sampled(method.context(CAPTIONS), None, noise_of(), 17, 16)


def test_a_latent_that_is_no_number_names_its_step():
    method = text_to_image()
    nn.init.constant_(method.ema.average.out[-1].bias, float("nan"))
    with pytest.raises(ValueError, match="found NaN or infinity after step 3"), torch.no_grad():
        method.generate(batch(), noise_of())


def test_a_codebook_of_another_size_is_refused():
    stored = vq_stage(num_codes=16).autoencoder.state_dict()
    with pytest.raises(ValueError, match=r"quantiser\.vectors has shape \(16, 3\) instead of \(8, 3\)"):
        load_strictly(vq_stage(num_codes=8).autoencoder, stored, "vq.ckpt")


def test_guidance_without_an_unconditional_branch_is_refused():
    with pytest.raises(ValueError, match=r"expected an unconditional branch .* scale of 3\.0"), torch.no_grad():
        upsampler(guidance=3.0).generate(batch(), noise_of())


def test_more_steps_than_the_schedule_has_are_refused():
    with pytest.raises(ValueError, match="expected from 1 to 1000 steps, as many as there are, found 1001"):
        text_to_image(num_steps=1001)


PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "bird", "##s", "!", "ne", "人"]


@pytest.fixture
def pieces(tmp_path):
    path = tmp_path / "weights/vocab.txt"
    path.parent.mkdir()
    path.write_text("\n".join(PIECES), encoding="utf-8")
    return WordPieces(Card("vocab.txt", None, "written here", "none"), tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["[CLS]", "[SEP]"]),
        ("Unaffable birds!", ["[CLS]", "un", "##aff", "##able", "bird", "##s", "!", "[SEP]"]),
        ("né人 xyz", ["[CLS]", "ne", "人", "[UNK]", "[SEP]"]),
        ("bird" * 30, ["[CLS]", "[UNK]", "[SEP]"]),
        ("bird bird bird bird bird bird bird", ["[CLS]", *["bird"] * 6, "[SEP]"]),
    ],
)
def test_texts_are_read_in_the_longest_pieces_that_are_known(pieces, text, expected):
    assert [PIECES[place] for place in pieces.encode(text, 8)] == expected


def test_signs_and_accents_and_spaces_are_taken_apart():
    assert words("A\tcafé,\u200bwell-known\u00a0$5") == ["a", "cafe", ",", "well", "-", "known", "$", "5"]


def test_a_file_without_the_pieces_that_every_text_needs_is_refused(tmp_path):
    path = tmp_path / "weights/vocab.txt"
    path.parent.mkdir()
    path.write_text("[PAD]\n[UNK]\n[CLS]\n")
    with pytest.raises(ValueError, match=r"expected pieces of words, one a line, found no \[SEP\]"):
        WordPieces(Card("vocab.txt", None, "written here", "none"), tmp_path)
