"""CSA: attention by its definition, images of a batch apart, what training teaches whom, and bad input."""

import mmbench.core.torchvision_schema  # noqa: F401  (before torchvision)

# isort: split
import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmbench.benchmarks import attention as benchmark
from mmbench.core.frozen import Frozen
from mmbench.core.noise import Noise, Sample
from mmbench.layers.coherent_attention import coherent_attention, feature_mask, fill
from mmbench.methods.inpainting.csa import CSA, CSAPaper, decayed, relativistic_least_squares, taught_by
from mmbench.networks.vgg_levels import Levels

SIZE = 32
NETWORKS = ("coarse", "refinement", "discriminator", "feature_discriminator")


class Look(nn.Module):
    """A stand-in for VGG-16 that gradients pass."""

    pool3_channels = 3

    def forward(self, image):
        return Levels(F.avg_pool2d(image, 8), F.avg_pool2d(image, 8).repeat(1, 11, 1, 1)[:, :32])


def method(kind=CSA, **changes):
    torch.manual_seed(0)
    given = {
        "width": 4,
        "num_halvings": 4,
        "discriminator_width": 4,
        "feature_width": 6,
        "lambda_reconstruction": 100.0,
        "lambda_adversarial": 0.2,
        "constant_epochs": 20,
        "decay_epochs": 100,
    }
    optimizers = {name: partial(torch.optim.Adam, lr=2e-4) for name in NETWORKS}
    return kind(vgg=Frozen(Look()), optimizers=optimizers, **given | changes)


def batch(count=3, height=SIZE, width=SIZE):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(count, 3, height, width, generator=generator) * 2 - 1
    mask = torch.zeros(count, 1, height, width)
    for row in range(count):  # holes of several sizes in several places
        mask[row, :, 4 * row : 4 * row + 12 + 4 * row, 8 : 24 - 4 * row] = 1
    return {"image": image, "mask": mask, "noise": Noise(0, [Sample(f"{n}", 0, 0) for n in range(count)])}


def features(count=3, channels=24, side=6):
    """Mostly of positive products, as the layer is stable for."""
    return 2 * torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(2)) - 0.5


def holes(count=3, side=6):
    """Of 8, 14, ... places."""
    ranks = torch.rand(count, side**2, generator=torch.Generator().manual_seed(3)).argsort(dim=1).argsort(dim=1)
    return (ranks < 8 + 6 * torch.arange(count)[:, None]).view(count, 1, side, side)


def test_attention_is_the_plain_recursion_for_each_image_with_a_hole_of_its_own():
    seen, hole = features(), holes()
    assert len({int(count) for count in hole.sum(dim=(1, 2, 3))}) == 3, "holes of one size would show nothing"
    cotangent = torch.randn(seen.shape, generator=torch.Generator().manual_seed(4))
    expected, found = benchmark.plain(seen, hole, cotangent), benchmark.ours(seen, hole, cotangent)
    torch.testing.assert_close(found.output, expected.output)
    torch.testing.assert_close(found.gradient, expected.gradient)


def test_the_benchmark_ends_where_values_differ(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "SIDE", 8)
    monkeypatch.setattr(benchmark, "inputs", lambda channels, side=8: (features(2), holes(2), torch.ones(2, 24, 6, 6)))
    assert benchmark.main(["6"]) == 0
    assert len(re.findall(r"times as fast", capsys.readouterr().out)) == 2
    monkeypatch.setattr(benchmark, "coherent_attention", lambda seen, hole: 1.001 * coherent_attention(seen, hole))
    assert benchmark.main(["6"]) == 1


def test_filled_patches_are_their_weights_of_known_ones_of_sum_one():
    seen, hole = features(), holes().flatten(1)
    filled = fill(seen.flatten(2), hole)
    weights = filled.weights(36)
    torch.testing.assert_close(filled.patches, seen.flatten(2) @ weights.mT)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(weights.shape[:2]))
    assert not weights.masked_select(hole[:, None, :]).any(), "of a hole's own patches there is nothing"


@pytest.mark.parametrize("everything", [False, True])
def test_without_a_hole_or_without_anything_known_attention_changes_nothing(everything):
    seen = features(2).requires_grad_()
    hole = torch.stack((torch.full((1, 6, 6), everything), holes(1)[0]))
    made = coherent_attention(seen, hole)
    assert torch.equal(made[0], seen[0])
    assert not torch.equal(made[1], seen[1])
    (gradient,) = torch.autograd.grad(made.sum(), seen)
    assert torch.equal(gradient[0], torch.full_like(gradient[0], 2)), "that of a patch that copies itself"
    assert torch.equal(coherent_attention(seen, torch.full_like(hole, everything)), seen)


def test_attention_is_of_full_precision_under_autocast():
    seen, hole = features(), holes()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(coherent_attention(seen, hole), coherent_attention(seen.float(), hole))


@pytest.mark.parametrize(("pixels", "expected"), [(5, False), (6, True)])
def test_a_feature_is_of_the_hole_where_more_than_five_sixteenths_of_what_it_sees_are(pixels, expected):
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, 1:5, 1:5] = (torch.arange(16) < pixels).float().view(4, 4)  # what the second of each row and column sees
    assert bool(feature_mask(mask, 1)[0, 0, 1, 1]) == expected


@pytest.mark.parametrize("kind", [CSA, partial(CSAPaper, lambda_consistency=1.0)])
def test_an_image_does_not_depend_on_its_batch_or_on_the_order_of_calls(kind):
    made, full = method(kind).eval(), batch()
    with torch.no_grad():
        together = made.generate(full, full["noise"])
        for row in (2, 0, 1):
            one = {name: full[name][row : row + 1] for name in ("image", "mask")}
            torch.testing.assert_close(made.generate(one, full["noise"])[0], together[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(48, 32), (16, 16), (64, 80)])
def test_sides_are_any_multiples_of_what_the_network_halves(height, width):
    made = method().eval()
    given = batch(1, height, width)
    with torch.no_grad():
        assert made.generate(given, given["noise"]).shape == (1, 3, height, width)


def test_without_a_hole_an_image_is_painted_all_the_same():
    made, given = method().eval(), batch()
    with torch.no_grad():
        assert made.generate({**given, "mask": torch.zeros_like(given["mask"])}, given["noise"]).isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": (0, 0, 40, 36)}, "expected images with sides of a multiple of 16 pixels, found 36 x 40"),
        ({"mask": (16, 16)}, r"expected masks of shape \(3, 1, 32, 32\), as the images are, found \(3, 1, 16, 16\)"),
        ({"mask": 0.5}, "expected masks of 1 .hole. and 0 .known., found 0.5: compare them with a threshold"),
        ({"mask": 1.0}, "expected masks that leave something of an image, found that of image 1 of the batch to cover"),
    ],
)
def test_bad_input_is_one_line(change, message):
    given = batch()
    if "image" in change:
        given |= {name: F.interpolate(given[name], change["image"][2:]) for name in ("image", "mask")}
    elif isinstance(change["mask"], tuple):
        given["mask"] = F.interpolate(given["mask"], change["mask"])
    else:
        given["mask"][1] = change["mask"]
    with pytest.raises(ValueError, match=message) as caught:
        method().generate(given, given["noise"])
    assert "\n" not in str(caught.value)


def test_attention_has_to_be_above_the_bottom():
    with pytest.raises(ValueError, match="expected more than 3 halvings, the depth of attention, found 3"):
        method(num_halvings=3)


def lessons(made, full, monkeypatch):
    """For both turns of a step how large the gradient of each term is to the networks whose turn it is."""
    turns = []

    def size(value, parameters):
        if not value.requires_grad:
            return 0
        found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        return sum(float(each.abs().sum()) for each in found if each is not None)

    def minimise(names, terms):
        parameters = [p for name in names for p in made.get_submodule(name).parameters()]
        turns.append({term: size(value, parameters) for term, value in terms.items()})

    monkeypatch.setattr(made, "minimise", minimise)
    made.train().training_step(full, 0)
    return turns


def test_what_the_paper_describes_teaches_the_generators_and_in_the_code_does_not(monkeypatch):
    as_code = lessons(method(), batch(3, 64, 64), monkeypatch)
    as_paper = lessons(method(CSAPaper, lambda_consistency=1.0), batch(3, 64, 64), monkeypatch)
    assert as_code[1].pop("D_R_feature") == 0
    assert {"D_R_feature", "L_c"} <= as_paper[1].keys()
    assert all(value > 0 for turns in (as_code, as_paper) for terms in turns for value in terms.values())


def test_the_refinement_teaches_the_coarse_network_nothing():
    made, full = method(), batch()
    painted = made.painted(full["image"], full["mask"])
    assert not painted.refinement_input.requires_grad
    known, hole = painted.refinement_input[:, 3:], full["mask"].expand(-1, 3, -1, -1) > 0
    assert not known[hole].any()
    assert torch.equal(known[~hole], full["image"][~hole])


def test_a_layer_is_taught_by_another_image_than_it_sees():
    layer, (one, other) = nn.Conv2d(3, 2, 3).double(), torch.rand(2, 4, 3, 5, 5).double()
    made = taught_by(layer, one, other)
    torch.testing.assert_close(made, layer(one))
    expected = torch.autograd.grad((layer(other) * made.detach()).sum(), layer.weight)
    torch.testing.assert_close(torch.autograd.grad((made * made.detach()).sum(), layer.weight), expected)


def test_each_side_of_the_relativistic_loss_is_content_one_apart():
    real, fake = torch.full((2, 3), 0.5), torch.full((2, 4), -0.5)
    assert relativistic_least_squares(real, fake) == 0
    assert relativistic_least_squares(fake, real) == 4


def test_the_learning_rate_falls_from_the_twentieth_epoch_to_the_last():
    rate = decayed(20, 100)
    assert [rate(1.0, epoch) for epoch in (0, 18)] == [1, 1]
    assert rate(1.0, 19) == pytest.approx(1 - 1 / 101)
    assert rate(1.0, 119) == pytest.approx(0)
