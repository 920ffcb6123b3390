"""ManiGAN's networks at the toy size; at the published sizes they are compared with the authors' in tests/parity."""

import pytest
import torch

from mmbench.networks.manigan import DetailCorrection, MainModule

BASE, WIDTH, TEXT, REGIONS = 16, 6, 10, 8


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    main = MainModule(WIDTH, TEXT, noise_dim=7, condition_dim=4, num_residual=1, base_size=BASE)
    detail = DetailCorrection(WIDTH, 4 * BASE, TEXT, feature_channels=5, num_residual=1)
    return main.eval(), detail.eval()


@pytest.fixture
def given():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([5, 2, 8])
    shapes = {
        "noise": (7,),
        "eps": (4,),
        "sentence": (TEXT,),
        "words": (8, TEXT),
        "image_code": (TEXT,),
        "regions": (TEXT, REGIONS, REGIONS),
        "features": (5, 2 * BASE, 2 * BASE),
    }
    inputs = {name: torch.randn(3, *shape, generator=generator) for name, shape in shapes.items()}
    return inputs | {"word_mask": torch.arange(8) < lengths[:, None]}


def edit(networks, given):
    main, detail = networks
    given = dict(given)
    features = given.pop("features")
    with torch.no_grad():
        output = main(**given)
        return output, detail(output.hidden, given["words"], given["word_mask"], features)


def test_sizes_follow_from_the_base_size(networks, given):
    output, image = edit(networks, given)
    assert [tuple(one.shape) for one in output.images] == [(3, 3, size, size) for size in (16, 32, 64)]
    assert output.hidden.shape == (3, WIDTH, 64, 64)
    assert image.shape == (3, 3, 64, 64)
    assert image.abs().max() <= 1


def test_every_input_changes_the_image_and_nothing_else_does(networks, given):
    state = torch.random.get_rng_state()
    _, image = edit(networks, given)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(image, edit(networks, given)[1])
    for name in given.keys() - {"word_mask"}:
        _, changed = edit(networks, given | {name: given[name].flip(0)})
        assert (changed - image).abs().max() > 1e-4, name


def test_the_condition_is_at_its_mean_without_eps(networks, given):
    main, _ = networks
    output, _ = edit(networks, given)
    condition, mu, log_variance = main.augmentation(given["sentence"], torch.zeros(3, 4))
    torch.testing.assert_close((condition, mu), (output.mu, output.mu))
    torch.testing.assert_close(log_variance, output.log_variance)
