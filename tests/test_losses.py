"""Losses against their definitions, written the slow way."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, kl_divergence

from mmbench.losses.adversarial import (
    cross_entropy_fake,
    cross_entropy_real,
    matching_aware_discriminator,
    matching_aware_generator,
)
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.losses.matching import region_attention, sentence_loss, word_correlation, words_loss
from mmbench.losses.perceptual import perceptual_loss

GAMMAS = {"gamma1": 4.0, "gamma2": 5.0, "gamma3": 10.0}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def pairs():
    """Regions, words, mask and classes of four images and captions, lengths in no order."""
    lengths = torch.tensor([3, 6, 1, 5])
    word_mask = torch.arange(6) < lengths[:, None]
    return torch.randn(4, 8, 3, 2), torch.randn(4, 6, 8), word_mask, torch.tensor([0, 1, 0, 2])


def slow_words_loss(regions, words, word_mask, class_ids, gamma1, gamma2, gamma3):
    """DAMSM's loss over words, one pair at a time and each caption cut to its length."""
    scores = torch.empty(len(regions), len(words))
    for i, image in enumerate(regions.flatten(2)):
        for n, caption in enumerate(words):
            caption = caption[word_mask[n]]
            attention = (gamma1 * (caption @ image).softmax(0)).softmax(1)
            relevance = F.cosine_similarity(attention @ image.T, caption, dim=1)
            same = class_ids is not None and i != n and class_ids[i] == class_ids[n]
            scores[i, n] = float("-inf") if same else gamma3 * (gamma2 * relevance).exp().sum().log()
    target = torch.arange(len(regions))
    return F.cross_entropy(scores, target), F.cross_entropy(scores.T, target)


@pytest.mark.parametrize("with_classes", [True, False])
def test_words_loss_over_all_pairs_at_once_equals_one_pair_at_a_time(pairs, with_classes):
    regions, words, word_mask, class_ids = pairs
    class_ids = class_ids if with_classes else None
    leaves = regions.requires_grad_(), words.requires_grad_()
    ours = words_loss(regions, words, word_mask, class_ids, **GAMMAS)
    slow = slow_words_loss(regions, words, word_mask, class_ids, **GAMMAS)
    torch.testing.assert_close(ours, slow)
    torch.testing.assert_close(torch.autograd.grad(sum(ours), leaves), torch.autograd.grad(sum(slow), leaves))


def test_what_stands_at_padding_has_no_influence_and_no_gradient(pairs):
    regions, words, word_mask, class_ids = pairs
    changed = torch.where(word_mask[..., None], words, torch.full_like(words, 100)).requires_grad_()
    ours = words_loss(regions, changed, word_mask, class_ids, **GAMMAS)
    assert torch.equal(ours[0], words_loss(regions, words, word_mask, class_ids, **GAMMAS)[0])
    (gradient,) = torch.autograd.grad(sum(ours), changed)
    assert torch.isfinite(gradient).all()
    assert not gradient[~word_mask].any()
    context, attention = region_attention(words, word_mask, regions, gamma1=4.0)
    alone, attention_alone = region_attention(words[:1, :3], word_mask[:1, :3], regions[:1], gamma1=4.0)
    torch.testing.assert_close((context[:1, :3], attention[:1, :3]), (alone, attention_alone))


def test_matching_losses_do_not_depend_on_the_order_of_the_batch(pairs):
    order = torch.tensor([2, 0, 3, 1])
    shuffled = [tensor[order] for tensor in pairs]
    torch.testing.assert_close(words_loss(*pairs, **GAMMAS), words_loss(*shuffled, **GAMMAS))
    code, sentence, class_ids = torch.randn(4, 8), torch.randn(4, 8), pairs[3]
    torch.testing.assert_close(
        sentence_loss(code, sentence, class_ids, 10.0),
        sentence_loss(code[order], sentence[order], class_ids[order], 10.0),
    )


def test_sentence_loss_is_zero_where_pairs_match_and_others_are_opposite():
    code = torch.eye(2)[[0, 0]] * torch.tensor([[1.0], [-1.0]])
    assert max(sentence_loss(code, 3 * code, None, gamma3=20.0)) < 1e-6
    # Of one class, there is nothing to tell apart.
    assert max(sentence_loss(code, -code, torch.tensor([5, 5]), gamma3=20.0)) == 0


def test_word_correlation_is_high_where_words_are_among_the_regions_and_has_no_gradient():
    regions = torch.randn(2, 8, 4, 4, requires_grad=True)
    words = 3 * regions.flatten(2).mT[:, :3].detach()
    word_mask = torch.ones(2, 3, dtype=torch.bool)
    own = word_correlation(regions, words, word_mask, gamma1=100.0, gamma2=5.0)
    opposite = word_correlation(regions, -words, word_mask, gamma1=100.0, gamma2=5.0)
    assert (own > opposite).all()
    assert own.shape == (2,)
    assert not own.requires_grad


def test_cross_entropies_are_those_of_probabilities_and_stay_finite():
    logits = torch.randn(9)
    expected = F.binary_cross_entropy(logits.sigmoid(), torch.ones(9))
    torch.testing.assert_close(cross_entropy_real(logits), expected)
    torch.testing.assert_close(cross_entropy_fake(logits), F.binary_cross_entropy(logits.sigmoid(), torch.zeros(9)))
    assert cross_entropy_real(torch.tensor([-1e4])) == 1e4
    assert cross_entropy_fake(torch.tensor([-1e4])) == 0


def test_an_undecided_discriminator_loses_two_bits_and_so_does_its_generator():
    undecided = torch.zeros(3)
    two_bits = 2 * torch.tensor(2.0).log()
    torch.testing.assert_close(matching_aware_discriminator(*[undecided] * 5), two_bits)
    torch.testing.assert_close(matching_aware_generator(undecided, undecided), two_bits)


@pytest.mark.parametrize("kind", ["real", "real_matched", "real_mismatched", "fake", "fake_matched"])
def test_the_discriminator_gains_from_every_kind_that_it_judges_rightly(kind):
    logits = dict.fromkeys(("real", "real_matched", "real_mismatched", "fake", "fake_matched"), torch.zeros(2))
    undecided = matching_aware_discriminator(**logits)
    logits[kind] = torch.ones(2) if kind in ("real", "real_matched") else -torch.ones(2)
    assert matching_aware_discriminator(**logits) < undecided


def test_kl_is_that_of_normal_distributions():
    mu, log_variance = torch.randn(4, 6), torch.randn(4, 6)
    expected = kl_divergence(Normal(mu, (log_variance / 2).exp()), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_to_standard_normal(mu, log_variance), expected)
    assert kl_to_standard_normal(torch.zeros(2, 3), torch.zeros(2, 3)) == 0


def test_perceptual_loss_is_zero_for_equal_images_and_reaches_the_generated_one_only():
    features, real = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8, requires_grad=True)
    fake = torch.randn(2, 3, 8, 8, requires_grad=True)
    assert perceptual_loss(features, real, real) == 0
    perceptual_loss(features, fake, real).backward()
    assert fake.grad.any()
    assert real.grad is None
