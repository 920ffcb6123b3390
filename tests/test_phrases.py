"""Words joined with their neighbours, and sentences of them."""

import torch

from mmbench.networks.phrases import Phrases, Sentence


def test_a_word_is_joined_with_two_on_each_side():
    torch.manual_seed(0)
    phrases, words = Phrases(9, 4), torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
    other = words.clone()
    other[0, 3] = 8
    changed = (phrases(words) - phrases(other)).abs().amax(2)[0] > 1e-6
    assert changed.tolist() == [False, True, True, True, True, True, False]


def test_a_sentence_depends_on_its_own_words_and_their_order_alone():
    torch.manual_seed(0)
    sentence = Sentence(9, 4, 3)
    alone = sentence(torch.tensor([[1, 2]]), torch.tensor([2]))
    together = sentence(torch.tensor([[1, 2, 0, 0, 0], [3, 4, 5, 6, 7]]), torch.tensor([2, 5]))
    torch.testing.assert_close(together[:1], alone)
    assert not torch.allclose(sentence(torch.tensor([[2, 1]]), torch.tensor([2])), alone)
