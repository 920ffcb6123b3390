"""Draws of tokens from logits by given uniform numbers."""

import numpy as np
import pytest
import torch

from mmbench.core.categorical import drawn, gumbel, probabilities, require_settings


def evenly(count):
    """So many numbers in the middle of equal parts of [0, 1)."""
    return (torch.arange(count) + 0.5) / count


def test_it_draws_as_often_as_the_softmax_says():
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0])
    tokens = drawn(logits.expand(10_000, 4), evenly(10_000), temperature=0.7)
    shares = np.bincount(tokens.numpy(), minlength=4) / 10_000
    assert shares == pytest.approx((logits / 0.7).softmax(0).numpy(), abs=2e-4)


def test_a_row_is_drawn_by_its_own_number_alone():
    generator = torch.Generator().manual_seed(0)
    logits, uniform = torch.randn(6, 5, 30, generator=generator), torch.rand(6, 5, generator=generator)
    together = drawn(logits, uniform, 1.3, top_k=12, top_p=0.8)
    alone = [[int(drawn(logits[n, place], uniform[n, place], 1.3, 12, 0.8)) for place in range(5)] for n in range(6)]
    assert together.tolist() == alone


def test_what_is_impossible_is_never_drawn_not_even_at_the_ends():
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf])
    ends = torch.tensor([0.0, 0.5, 1 - 2**-24])
    assert drawn(logits.expand(3, 5), ends).tolist() == [1, 3, 3]


def test_the_only_one_left_is_the_likeliest():
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(1))
    likeliest = logits.argmax(dim=-1)
    assert torch.equal(drawn(logits, evenly(50), top_k=1), likeliest)
    assert torch.equal(drawn(logits, evenly(50), top_p=1e-6), likeliest)
    assert torch.equal(drawn(logits, evenly(50), temperature=1e-4), likeliest)


def test_top_k_and_top_p_leave_the_likeliest():
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    assert probabilities(logits, top_k=2).tolist() == pytest.approx([0, 4 / 7, 0, 3 / 7])
    # 0.4 alone does not reach a half, with 0.3 it does.
    assert probabilities(logits, top_p=0.5).tolist() == pytest.approx([0, 4 / 7, 0, 3 / 7])
    assert probabilities(logits, top_p=0.75).tolist() == pytest.approx([0, 4 / 9, 2 / 9, 3 / 9])
    # Of what top_k leaves, 4/7 reaches a half.
    assert probabilities(logits, top_k=2, top_p=0.5).tolist() == pytest.approx([0, 1, 0, 0])
    assert probabilities(logits).tolist() == pytest.approx([0.1, 0.4, 0.2, 0.3])


def test_a_large_codebook_loses_nothing_at_its_end():
    logits = torch.zeros(1, 16384)
    assert int(drawn(logits, torch.tensor([1 - 2**-24]))) == 16383
    assert int(drawn(logits, torch.tensor([0.5]))) == 8192


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": 0.0}, "expected a temperature above 0, found 0.0: for the likeliest set top_k to 1"),
        ({"temperature": float("nan")}, "expected a temperature above 0, found nan"),
        ({"top_k": 0}, "expected top_k from 1 to 8, the number of tokens, found 0"),
        ({"top_k": 9}, "expected top_k from 1 to 8, the number of tokens, found 9"),
        ({"top_p": 0.0}, "expected top_p above 0 and at most 1, found 0.0"),
        ({"top_p": 1.1}, "expected top_p above 0 and at most 1, found 1.1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    for refusing in (lambda: require_settings(8, **settings), lambda: drawn(torch.zeros(1, 8), evenly(1), **settings)):
        with pytest.raises(ValueError, match="expected") as error:
            refusing()
        assert str(error.value).startswith(said)


def test_the_largest_with_gumbel_numbers_is_a_draw():
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0])
    uniform = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(2))
    shares = np.bincount((logits + gumbel(uniform)).argmax(dim=1).numpy(), minlength=4) / 20_000
    assert shares == pytest.approx(logits.softmax(0).numpy(), abs=0.01)
    assert gumbel(torch.tensor([0.0, 1 - 2**-24])).isfinite().all()
