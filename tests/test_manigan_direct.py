"""The direct variant of ManiGAN: where it starts, and what its images depend on."""

import pytest
import torch

from mmbench.methods.manipulation.manigan_direct import DirectEditor, first_of
from mmbench.networks.damsm import EncodedText

SIZE, WIDTH, TEXT = 32, 6, 10


def editor():
    torch.manual_seed(0)
    return DirectEditor(WIDTH, SIZE, TEXT, num_residual=1, shared_width=8).eval()


@pytest.fixture
def trained():
    """An editor whose last convolution is no longer zero."""
    network = editor()
    torch.nn.init.orthogonal_(network.to_change.weight)
    return network


@pytest.fixture
def given():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([5, 2, 8])
    return {
        "image": torch.rand(3, 3, SIZE, SIZE, generator=generator) * 2 - 1,
        "regions": torch.randn(3, TEXT, 8, 8, generator=generator),
        "words": torch.randn(3, 8, TEXT, generator=generator),
        "word_mask": torch.arange(8) < lengths[:, None],
    }


def test_training_starts_from_the_image_itself(given):
    torch.testing.assert_close(editor()(**given), given["image"], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["image", "regions", "words"])
def test_the_change_depends_on_every_input(trained, given, name):
    def change(inputs):
        with torch.no_grad():
            return trained(**inputs) - inputs["image"]

    flipped = given | {name: given[name].flip(0)}
    assert (change(flipped) - change(given)).abs().max() > 1e-3


def test_the_published_size_is_built_as_configured():
    with torch.device("meta"):
        network = DirectEditor(32, 256, 256, num_residual=2, shared_width=128)
        image, regions, words = torch.empty(2, 3, 256, 256), torch.empty(2, 256, 17, 17), torch.empty(2, 18, 256)
        assert network(image, regions, words, torch.ones(2, 18, dtype=torch.bool)).shape == (2, 3, 256, 256)


def test_half_of_each_batch_follows_captions_of_other_images():
    def encoded(length, value):
        mask = torch.arange(length) < torch.tensor([length, 1, 1, length])[:, None]
        return EncodedText(mask[..., None] * torch.full((4, length, 3), value), mask, torch.full((4, 3), value))

    own, other = encoded(3, 1.0), encoded(5, 2.0)
    prompt = first_of(own, other, 2)
    assert prompt.words.shape == (4, 5, 3)
    assert prompt.word_mask.sum(dim=1).tolist() == [3, 1, 1, 5]
    assert prompt.sentence[:, 0].tolist() == [1, 1, 2, 2]
    assert not prompt.words[~prompt.word_mask].any()
    torch.testing.assert_close(prompt.words[0, :3], own.words[0])
    torch.testing.assert_close(prompt.words[3], other.words[3])
