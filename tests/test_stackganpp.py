"""StackGAN++ at a small size, and as configured; its networks are compared with the authors' in parity."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mmbench.core import catalogue, config
from mmbench.core.noise import Noise, Sample
from mmbench.core.weights import load_strictly
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real
from mmbench.losses.colour import colour_consistency, colour_statistics
from mmbench.methods.synthesis.stackganpp import StackGANPP, StackGANPPPairs, TreeGenerator, features_first
from mmbench.networks.attngan import Discriminator
from mmbench.pipeline import training

PARITY = Path(__file__).parent / "parity/fixtures/stackganpp"
TEXT, NOISE, CONDITION, BASE = 6, 5, 4, 16
SIZES = [BASE, 2 * BASE, 4 * BASE]


class Letters(nn.Module):
    """A text encoder that counts letters."""

    embedding_dim = TEXT

    def encode_text(self, captions):
        return torch.tensor([[float(caption.count(letter)) for letter in "abderu"] for caption in captions])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tree(num_branches=3):
    """A generator whose statistics of a batch are those that it has seen, as after training."""
    network = TreeGenerator(8, TEXT, NOISE, CONDITION, num_residual=1, base_size=BASE, num_branches=num_branches)
    for _ in range(3):
        network(torch.randn(8, TEXT), torch.randn(8, NOISE), torch.randn(8, CONDITION))
    return network.eval().requires_grad_(False)


def method(kind=StackGANPP, num_branches=3, lambda_colour=0.0):
    names = ("generator", "discriminators")
    return kind(
        Letters(),
        optimizers={name: lambda parameters: torch.optim.Adam(parameters, lr=0.001) for name in names},
        width=8,
        noise_dim=NOISE,
        condition_dim=CONDITION,
        num_residual=1,
        base_size=BASE,
        num_branches=num_branches,
        discriminator_width=4,
        lambda_kl=2.0,
        lambda_colour=lambda_colour,
        decay=0.9,
    )


def images(sizes=SIZES):
    return [torch.rand(3, 3, size, size) * 2 - 1 for size in sizes]


CAPTIONS = ["a red bird", "a blue bird", "a bird"]
NOISE_OF_THREE = Noise(0, [Sample(str(n), 0, 0) for n in range(3)])


def drawn(of):
    return of.drawn(of.generator, of.encoded(CAPTIONS), NOISE_OF_THREE)


@pytest.mark.parametrize("changed", ["sentence", "noise", "eps"])
def test_all_branches_draw_after_all_that_the_tree_is_given(changed):
    network = tree()
    given = {"sentence": torch.randn(3, TEXT), "noise": torch.randn(3, NOISE), "eps": torch.randn(3, CONDITION)}
    before, after = network(**given).images, network(**given | {changed: given[changed].flip(0)}).images
    assert [tuple(one.shape) for one in before] == [(3, 3, size, size) for size in SIZES]
    assert max(one.abs().max() for one in before) <= 1
    assert min((one - other).abs().max() for one, other in zip(before, after, strict=True)) > 1e-4


@pytest.mark.parametrize("num_branches", [1, 2, 3])
def test_fewer_branches_are_the_largest_and_grow_from_the_same_features(num_branches):
    network = tree(num_branches)
    found = network(torch.randn(3, TEXT), torch.randn(3, NOISE), torch.randn(3, CONDITION)).images
    assert [one.shape[-1] for one in found] == SIZES[-num_branches:]
    kept = network.state_dict().keys()
    assert {key for key in tree().state_dict() if not key.startswith("to_rgb")} == {
        key for key in kept if not key.startswith("to_rgb")
    }
    of = method(num_branches=num_branches)
    assert [judge.blocks[0][0].in_channels for judge in of.discriminators] == [3] * num_branches
    assert set(of.generator_terms(drawn(of))) == {*(f"L_G{size}" for size in SIZES[-num_branches:]), "KL"}


def test_a_real_image_with_anothers_sentence_is_false_as_a_pair_and_real_alone():
    of, output = method(), drawn(method())
    real, mismatched = images(), images()
    terms = of.discriminator_terms(real, mismatched, output)
    assert list(terms) == [f"L_D{size}" for size in SIZES]
    for judge, size, *shown in zip(of.discriminators, SIZES, real, mismatched, output.images, strict=True):
        alone, paired = zip(*(judge.judge(image.detach(), output.mu.detach()) for image in shown), strict=True)
        expected = sum(map(cross_entropy_real, (alone[0], alone[1], paired[0])))
        expected += sum(map(cross_entropy_fake, (alone[2], paired[1], paired[2])))
        torch.testing.assert_close(terms[f"L_D{size}"], expected)


def test_the_discriminators_teach_the_generator_nothing_in_their_own_step():
    of = method()
    output = drawn(of)
    sum(of.discriminator_terms(images(), images(), output).values()).backward()
    assert all(parameter.grad is None for parameter in of.generator.parameters())
    assert all(parameter.grad is not None for parameter in of.discriminators.parameters())


def test_without_judging_images_alone_pairs_are_all_that_is_judged():
    of = method(StackGANPPPairs)
    assert not any("alone" in key for key in of.discriminators.state_dict())
    output, real, mismatched = drawn(of), images(), images()
    terms = of.discriminator_terms(real, mismatched, output)
    for judge, size, *shown in zip(of.discriminators, SIZES, real, mismatched, output.images, strict=True):
        true, *false = (judge.conditional(judge(image.detach()), output.mu.detach()) for image in shown)
        expected = cross_entropy_real(true) + sum(map(cross_entropy_fake, false)) / 2
        torch.testing.assert_close(terms[f"L_D{size}"], expected)
        fooled = cross_entropy_real(judge.conditional(judge(output.images[SIZES.index(size)]), output.mu))
        torch.testing.assert_close(of.generator_terms(output)[f"L_G{size}"], fooled)


def test_the_last_stage_is_the_image():
    of, batch = method().eval(), {"caption": CAPTIONS}
    made = of.generate(batch, NOISE_OF_THREE)
    stages = of.generate_stages(batch, NOISE_OF_THREE)
    assert [one.shape[-1] for one in stages] == SIZES
    assert torch.equal(stages[-1], made)


def test_colour_statistics_are_those_of_the_pixels():
    image = torch.rand(2, 3, 5, 7)
    mean, covariance = colour_statistics(image)
    for one, its_mean, its_covariance in zip(image, mean, covariance, strict=True):
        pixels = one.flatten(1)
        torch.testing.assert_close(its_mean, pixels.mean(dim=1))
        torch.testing.assert_close(its_covariance, torch.cov(pixels, correction=0))


def test_colours_agree_whatever_the_size_and_only_the_larger_image_learns():
    small = torch.rand(2, 3, 4, 4, requires_grad=True)
    large = small.detach().repeat_interleave(2, 2).repeat_interleave(2, 3).requires_grad_()
    assert colour_consistency(large, small) < 1e-12
    brighter = colour_consistency(large + 0.5, small)
    assert float(brighter.detach()) == pytest.approx(0.25, rel=1e-4)
    brighter.backward()
    assert large.grad.any()
    assert small.grad is None


def test_colour_consistency_pairs_neighbouring_sizes_where_it_weighs_anything():
    plain, coloured = method(), method(lambda_colour=50.0)
    output = drawn(coloured)
    terms = coloured.generator_terms(output)
    assert set(terms) - set(plain.generator_terms(output)) == {f"colour{size}" for size in SIZES[1:]}
    torch.testing.assert_close(terms[f"colour{SIZES[1]}"], 50 * colour_consistency(output.images[1], output.images[0]))


def test_weights_of_a_condition_before_the_features_do_the_same_behind_them():
    channels, condition_dim = 7, 3
    theirs = nn.Conv2d(condition_dim + channels, channels, 3, padding=1, bias=False)
    ours = nn.Conv2d(channels + condition_dim, channels, 3, padding=1, bias=False)
    ours.weight.data = features_first(theirs.weight.data)
    features, condition = torch.randn(2, channels, 4, 4), torch.randn(2, condition_dim, 4, 4)
    found = ours(torch.cat((features, condition), dim=1))
    torch.testing.assert_close(found, theirs(torch.cat((condition, features), dim=1)))


def test_weights_for_embeddings_of_another_dimension_are_refused_in_one_line():
    other = TreeGenerator(8, TEXT + 1, NOISE, CONDITION, num_residual=1, base_size=BASE, num_branches=3).state_dict()
    with pytest.raises(
        ValueError, match=rf"project.weight has shape \(16, {TEXT + 1}\) instead of \(16, {TEXT}\)"
    ) as caught:
        load_strictly(tree(), other, "netG.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["stackgan_stage1", "stackgan", "stackganpp"])
def test_a_batch_of_one_is_refused_in_one_line(conf, name):
    plain = config.composed([f"method={name}", "data=cub", "data.source=toy", "method.training.batch_size=1"])
    with pytest.raises(ValueError, match=f"expected batches of 2 images or more to train {name}, found 1") as caught:
        training.require_training(plain)
    assert "\n" not in str(caught.value)


def test_networks_have_the_size_that_was_published(conf):
    module = config.composed(["method=stackganpp", "data=cub"])["method"]["module"]
    published = json.loads((PARITY / "generator-full-layout.json").read_text())["config"]
    assert module["width"] == published["GF_DIM"]
    assert module["num_residual"] == published["R_NUM"]
    assert module["num_branches"] == published["BRANCH_NUM"]
    assert (module["noise_dim"], module["condition_dim"]) == (published["Z_DIM"], published["EMBEDDING_DIM"])
    judge = json.loads((PARITY / "discriminator64-full-layout.json").read_text())["config"]
    assert module["discriminator_width"] == judge["DF_DIM"]


def test_released_weights_are_those_of_the_whole_method_alone_whatever_gives_embeddings(conf):
    names = [name for name in catalogue.names("method") if name.startswith("stackganpp")]
    plain = {name: config.composed([f"method={name}", "data=cub"])["method"] for name in names}
    cards = {name: one.get("official") or {} for name, one in plain.items()}
    assert {name for name, card in cards.items() if card} == {"stackganpp", "stackganpp_published"}
    assert cards["stackganpp"]["cub"]["ema.average"]["member"].endswith("netG_210000.pth")


def test_the_judge_of_each_size_sees_that_size():
    of = method()
    for judge, size in zip(of.discriminators, SIZES, strict=True):
        assert isinstance(judge, Discriminator)
        assert judge(torch.rand(2, 3, size, size)).shape[2:] == (4, 4)
