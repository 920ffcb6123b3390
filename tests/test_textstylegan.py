"""textStyleGAN: what its mapping, synthesis and discriminator are told, and the losses of cross-modal projection."""

import math

import pytest
import torch

from mmbench.losses.projection import projection_classification, projection_matching
from mmbench.methods.synthesis.textstylegan import ClassVectors, TextDiscriminator, TextGenerator
from mmbench.networks.damsm import EncodedText

SIZE, STYLE, TEXT, BATCH = 32, 8, 6, 3


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def generator():
    return TextGenerator(SIZE, STYLE, mapping_layers=2, channel_base=128, channel_max=8, embedding_dim=TEXT)


@pytest.fixture
def given(generator):
    mask = torch.arange(5) < torch.tensor([5, 2, 4])[:, None]
    return {
        "z": torch.randn(BATCH, STYLE),
        "noise": [torch.randn(BATCH, 1, size, size) for size in generator.synthesis.noise_sizes],
        "text": EncodedText(torch.randn(BATCH, 5, TEXT) * mask[..., None], mask, torch.randn(BATCH, TEXT)),
    }


def test_latent_and_sentence_make_the_style_whatever_their_lengths(generator, given):
    z, sentence = given["z"], given["text"].sentence
    w = generator.mapping(z, sentence)
    assert w.shape == (BATCH, STYLE)
    assert torch.allclose(generator.mapping(3 * z, sentence / 2), w, atol=1e-5)
    assert (generator.mapping(z.flip(0), sentence) - w).abs().max() > 1e-3
    assert (generator.mapping(z, sentence.flip(0)) - w).abs().max() > 1e-3


@pytest.mark.parametrize("part", ["z", "words", "sentence"])
def test_images_hang_on_latent_words_and_sentence(generator, given, part):
    image, text = generator(**given), given["text"]
    assert image.shape == (BATCH, 3, SIZE, SIZE)
    other = (
        {"z": given["z"].roll(1, 0)}
        if part == "z"
        else {"text": text._replace(**{part: getattr(text, part).roll(1, 0)})}
    )
    assert (generator(**given | other)[0] - image[0]).abs().max() > 1e-4


def test_attention_is_at_a_quarter_and_at_half_of_the_image(generator, given):
    text, styles = given["text"], generator.styles(generator.mapping(given["z"], given["text"].sentence))
    _, attention = generator.synthesis(styles, given["noise"], text.words, text.word_mask)
    assert [tuple(one.shape) for one in attention] == [(BATCH, 5, 8, 8), (BATCH, 5, 16, 16)]
    for one in attention:
        assert torch.allclose(one.sum(dim=1), torch.ones_like(one[:, 0]), atol=1e-5)
        assert one[1, 2:].abs().max() == 0, "nothing looks at padding"


def test_too_small_an_image_is_refused():
    with pytest.raises(ValueError, match="expected an image_size of at least 32 for textStyleGAN, found 16: raise it"):
        TextGenerator(16, STYLE, mapping_layers=2, channel_base=128, channel_max=8, embedding_dim=TEXT)


def test_one_of_two_logits_knows_of_the_sentence():
    judge, image = (
        TextDiscriminator(SIZE, channel_base=128, channel_max=8, embedding_dim=TEXT),
        torch.randn(4, 3, SIZE, SIZE),
    )
    sentence = torch.randn(4, TEXT)
    alone, paired = judge(image, sentence)
    other_alone, other_paired = judge(image, sentence.roll(1, 0))
    assert alone.shape == paired.shape == (4,)
    assert torch.equal(alone, other_alone)
    assert (paired - other_paired).abs().max() > 1e-4


def test_matching_is_the_divergence_of_two_distributions_over_the_batch():
    image, text = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    found = projection_matching(image, text, torch.tensor([7, 9])).item()

    def divergence(scores, place):
        shares = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
        wanted = [float(at == place) + 1e-8 for at in range(2)]
        return sum(share * math.log(share / one) for share, one in zip(shares, wanted, strict=True))

    # Each side is projected onto the other's direction: the images' lengths are 2 and 1, the texts' 3 and 4.
    expected = sum(divergence(*row) / 2 for row in (([2, 0], 0), ([0, 1], 1), ([3, 0], 0), ([0, 4], 1)))
    assert found == pytest.approx(expected, rel=1e-4)


def test_what_is_of_one_class_belongs_together():
    alike = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    same, other = (projection_matching(alike, alike, torch.tensor([4, last])).item() for last in (4, 5))
    assert same == pytest.approx(0, abs=1e-6)
    assert other == pytest.approx(2 * (math.log(0.5) - math.log(1e-8) / 2), rel=1e-3)


def test_classification_sees_only_what_lies_along_the_other_side():
    vectors = torch.tensor([[5.0, 0.0], [0.0, 0.1]])  # directions are those of the axes
    image, text = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]])
    found = projection_classification(image, text, vectors, torch.tensor([0])).item()
    # The image along the text is (3, 0); the text along the image, (0.6, 0.8), is 1.2 times that.
    first = math.log(1 + math.exp(0 - 3))
    second = math.log(1 + math.exp(1.2 * 0.8 - 1.2 * 0.6))
    assert found == pytest.approx(first + second, rel=1e-5)


def test_a_batch_that_is_learned_by_heart_ends_near_zero():
    text, class_id = torch.randn(4, TEXT), torch.tensor([0, 1, 2, 3])
    image = torch.randn(4, TEXT).requires_grad_()
    classes = ClassVectors([10, 20, 30, 40], TEXT)
    optimizer = torch.optim.Adam([image, text.requires_grad_(), *classes.parameters()], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss = projection_matching(image, text, class_id)
        loss = loss + projection_classification(image, text, classes.vectors, class_id)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2


def test_class_numbers_need_not_follow_each_other():
    classes = ClassVectors([3, 17, 580000], TEXT)
    assert classes.vectors.shape == (3, TEXT)
    assert classes.rows(torch.tensor([580000, 3, 17])).tolist() == [2, 0, 1]
