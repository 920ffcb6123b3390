"""StackGAN at a small size, and as configured; its networks are compared with the authors' in parity."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mmbench.core import config
from mmbench.core.noise import Noise, Sample
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real, matching_aware_pairs
from mmbench.methods.synthesis.stackgan import (
    STAGE1_GENERATOR_WITHIN,
    STAGE2_GENERATOR,
    Drawn,
    StackGAN,
    StackGANStage1,
    Stage1Generator,
    Stage2Generator,
)
from mmbench.networks.attngan import ConditionalDiscriminator
from mmbench.pipeline import stages

PARITY = Path(__file__).parent / "parity/fixtures/stackgan"
TEXT, NOISE, CONDITION, BASE = 6, 5, 4, 16
CAPTIONS = ["a red bird", "a blue bird", "a bird"]


class Letters(nn.Module):
    """A text encoder that counts letters."""

    embedding_dim = TEXT

    def encode_text(self, captions):
        return torch.tensor([[float(caption.count(letter)) for letter in "abderu"] for caption in captions])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def settled(network, *shapes):
    """The network with statistics of batches that it has seen, as after training."""
    for _ in range(3):
        network(*(torch.randn(8, *shape) for shape in shapes))
    return network.eval().requires_grad_(False)


@pytest.fixture
def first():
    return settled(Stage1Generator(8, TEXT, NOISE, CONDITION, BASE), (TEXT,), (NOISE,), (CONDITION,))


@pytest.fixture
def second():
    return settled(Stage2Generator(8, TEXT, CONDITION, num_residual=1), (3, BASE, BASE), (TEXT,), (CONDITION,))


def optimizers():
    adam = {name: lambda parameters: torch.optim.Adam(parameters, lr=0.001) for name in ("generator", "discriminator")}
    return {"optimizers": adam, "discriminator_width": 4, "lambda_kl": 2.0, "halving_epochs": 3}


@pytest.fixture
def method():
    """Both stages, untrained."""
    small = StackGANStage1(Letters(), width=8, noise_dim=NOISE, condition_dim=CONDITION, base_size=BASE, **optimizers())
    return StackGAN(small, width=8, condition_dim=CONDITION, num_residual=1, **optimizers()).eval()


@pytest.mark.parametrize("changed", ["sentence", "noise", "eps"])
def test_stage_one_draws_after_all_that_it_is_given(first, changed):
    given = {"sentence": torch.randn(3, TEXT), "noise": torch.randn(3, NOISE), "eps": torch.randn(3, CONDITION)}
    images = [first(**one).image for one in (given, given | {changed: given[changed].flip(0)})]
    assert images[0].shape == (3, 3, BASE, BASE)
    assert images[0].abs().max() <= 1
    assert (images[0] - images[1]).abs().max() > 1e-4


@pytest.mark.parametrize("changed", ["image", "sentence", "eps"])
def test_stage_two_draws_the_image_anew_four_times_as_large(second, changed):
    given = {"image": torch.rand(3, 3, BASE, BASE), "sentence": torch.randn(3, TEXT), "eps": torch.randn(3, CONDITION)}
    images = [second(**one).image for one in (given, given | {changed: given[changed].flip(0)})]
    assert images[0].shape == (3, 3, 4 * BASE, 4 * BASE)
    assert images[0].abs().max() <= 1
    assert (images[0] - images[1]).abs().max() > 1e-4


def test_no_condition_has_a_negative_mean_or_a_variance_below_one(first):
    output = first(torch.randn(50, TEXT), torch.randn(50, NOISE), torch.randn(50, CONDITION))
    assert min(output.mu.min(), output.log_variance.min()) == 0
    assert min(output.mu.max(), output.log_variance.max()) > 0


def test_both_stages_have_the_text_and_each_a_condition_of_its_own(method):
    samples = [Sample(str(n), 0, 0) for n in range(3)]
    noise, small = Noise(0, samples), method.first.network
    assert not torch.equal(noise.normal("eps", CONDITION), noise.normal("eps stage 2", CONDITION))
    image = small.generate({"caption": CAPTIONS}, noise)
    expected = method.generator(image, Letters().encode_text(CAPTIONS), noise.normal("eps stage 2", CONDITION))
    torch.testing.assert_close(method.generate({"caption": CAPTIONS}, noise), expected.image)
    assert all(map(torch.equal, method.generate_stages({"caption": CAPTIONS}, noise), (image, expected.image)))


def test_each_stages_generator_gains_where_its_discriminator_takes_images_for_real(method):
    for stage, size, name in ((method.first.network, BASE, "L_G0"), (method, 4 * BASE, "L_G")):
        stage.discriminator.requires_grad_(True)
        output = Drawn(torch.rand(3, 3, size, size), *torch.randn(2, 3, CONDITION))
        before = stage.generator_terms(output)
        optimizer = torch.optim.SGD(stage.discriminator.parameters(), lr=0.01)
        before[name].backward()
        optimizer.step()
        assert stage.generator_terms(output)[name] < before[name]


def test_the_small_images_discriminator_judges_no_image_alone():
    network = ConditionalDiscriminator(BASE, 4, CONDITION)
    logits = network.conditional(network(torch.rand(2, 3, BASE, BASE)), torch.randn(2, CONDITION))
    assert logits.shape == (2,)
    assert not any(key.startswith("alone") for key in network.state_dict())


def test_the_two_false_kinds_of_pairs_weigh_as_much_as_the_true_one():
    real, mismatched, fake = torch.randn(3, 5)
    expected = cross_entropy_real(real) + (cross_entropy_fake(mismatched) + cross_entropy_fake(fake)) / 2
    torch.testing.assert_close(matching_aware_pairs(real, mismatched, fake), expected)
    undecided = torch.zeros(2)
    torch.testing.assert_close(matching_aware_pairs(undecided, undecided, undecided), 2 * torch.tensor(2.0).log())


def test_one_released_file_fills_both_stages(first, second):
    theirs = {
        "STAGE1_G.ca_net.fc.weight": torch.randn(2 * CONDITION, TEXT),
        "STAGE1_G.upsample2.2.running_mean": torch.randn(4),
        "ca_net.fc.weight": torch.randn(2 * CONDITION, TEXT),
        "upsample2.2.running_mean": torch.randn(8),
    }
    found = STAGE1_GENERATOR_WITHIN(theirs, first), STAGE2_GENERATOR(theirs, second)
    kept = ["augmentation.project.weight", "upsample.1.1.running_mean"]
    for ours, prefix in zip(found, ("STAGE1_G.", ""), strict=True):
        named = [key for key in ours if "num_batches_tracked" not in key]
        assert named == kept
        for key, name in zip(named, ("ca_net.fc.weight", "upsample2.2.running_mean"), strict=True):
            assert ours[key] is theirs[prefix + name]


def test_released_weights_of_both_stages_are_one_file_for_networks_of_the_published_size(conf):
    plain = config.composed(["method=stackgan", "data=coco"])
    (small,) = stages.predecessors(plain).values()
    assert plain["method"]["official"]["coco"] == small["method"]["official"]["coco"]
    published = json.loads((PARITY / "generator-stage2-full-layout.json").read_text())["config"]
    for module in (plain["method"]["module"], small["method"]["module"]):
        assert (module["width"], module["condition_dim"]) == (published["GF_DIM"], published["CONDITION_DIM"])
    assert plain["method"]["module"]["num_residual"] == published["R_NUM"]
    assert small["method"]["module"]["noise_dim"] == published["Z_DIM"]
    judge = json.loads((PARITY / "discriminator-stage2-full-layout.json").read_text())["config"]
    assert plain["method"]["module"]["discriminator_width"] == judge["DF_DIM"]


@pytest.mark.parametrize("scale", ["published", "toy", "tiny"])
def test_stage_two_draws_images_as_large_as_those_of_its_data(conf, scale):
    plain = config.composed(["method=stackgan", "data=cub", "data.source=toy", f"scale={scale}"])
    (small,) = stages.predecessors(plain).values()
    sizes = [one["data"]["module"]["image_size"] for one in (small, plain)]
    assert sizes == [small["method"]["module"]["base_size"], 4 * small["method"]["module"]["base_size"]]
