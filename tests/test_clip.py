"""CLIP: texts and images in one space."""

import pytest
import torch
from torch import Tensor

from mmbench.core.text import Vocabulary
from mmbench.methods.synthesis.clip import CLIP
from mmbench.networks import clip as networks

WORDS = ["a", "bird", "with", "red", "blue", "crown", "wings", "belly", "and"]


def small(**changes) -> CLIP:
    torch.manual_seed(0)
    sizes = {
        "max_words": 8,
        "text_dim": 16,
        "text_depth": 2,
        "text_heads": 1,
        "image_size": 16,
        "patch_size": 4,
        "image_dim": 16,
        "image_depth": 1,
        "image_heads": 1,
        "embedding_dim": 12,
        "log_scale": 1.0,
        "optimizer": torch.optim.Adam,
    }
    return CLIP(Vocabulary.from_captions([" ".join(WORDS)]), **{**sizes, **changes}).eval()


def largest(difference: Tensor) -> float:
    return float(difference.abs().max())


@torch.no_grad()
def test_texts_and_images_are_unit_vectors_of_one_space():
    method, images = small(), torch.rand(3, 3, 16, 16) * 2 - 1
    texts = method.encode_text(["a red bird", "a bird with blue wings and belly", "crown"])
    pictures = method.encode_image(images)
    assert texts.shape == pictures.shape == (3, method.embedding_dim)
    for vectors in (texts, pictures):
        assert largest(vectors.norm(dim=1) - 1) < 1e-6
    assert largest(texts[0] - texts[1]) > 0.01
    assert largest(pictures[0] - pictures[1]) > 0.001


@torch.no_grad()
def test_a_text_does_not_depend_on_how_far_its_batch_is_padded():
    method = small()
    alone = method.encode_text(["a red bird"])[0]
    together, _ = method.encode_text(["a red bird", " ".join(WORDS[:8])])
    assert largest(alone - together) < 1e-6


@torch.no_grad()
def test_of_a_longer_caption_the_beginning_is_read():
    method = small(max_words=3)
    one, other, different = method.encode_text(
        ["a red bird with a crown", "a red bird and wings", "a blue bird and wings"]
    )
    assert torch.equal(one, other)
    assert largest(one - different) > 0.01


def test_the_right_pairs_have_the_smaller_loss():
    """A batch whose embeddings are told apart perfectly costs nothing, and one of nothing the logarithm of its size."""
    method = small()
    vectors = torch.eye(12)[:4]
    method.network.log_scale.data.fill_(4.0)
    losses = []
    for texts in (vectors, vectors.roll(1, dims=0), torch.ones(4, 12) / 12**0.5):
        method.encode_text = lambda captions, texts=texts: texts
        method.encode_image = lambda images: vectors
        losses.append(float(sum(method.terms({"image": None, "caption": [""] * 4}).values())))
    assert losses[0] < 1e-6
    assert losses[1] == pytest.approx(torch.tensor(4.0).exp().item(), rel=0.01)
    assert losses[2] == pytest.approx(torch.tensor(4.0).log().item(), rel=1e-5)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"expected images of 16x16 pixels, .*, found 24x32: train it with"):
        small().encode_image(torch.zeros(1, 3, 32, 24))


def test_patches_that_do_not_fill_an_image_are_refused():
    with pytest.raises(ValueError, match=r"expected an image_size that patches of 5 pixels fill, found 16: choose"):
        small(patch_size=5)


def test_a_caption_of_unknown_words_is_refused():
    with pytest.raises(ValueError, match="expected captions of known words, found none in caption 1"):
        small().encode_text(["a bird", "xylophone"])


def test_it_makes_no_images():
    with pytest.raises(ValueError, match="expected a method that makes images, found clip"):
        small().generate({}, None)


def test_the_branches_of_deep_layers_begin_small():
    blocks = networks._encoder(8, 25, 1)
    scales = [float(block.attention.scale[0]) for block in blocks]
    assert scales[17] == pytest.approx(0.1)
    assert scales[18] == scales[23] == pytest.approx(1e-5)
    assert scales[24] == pytest.approx(1e-6)
