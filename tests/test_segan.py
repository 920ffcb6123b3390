"""SEGAN: its attention regularisation and its semantic consistency, on cases worked out by hand."""

import pytest
import torch

from mmbench.core import config
from mmbench.layers.word_attention import SpatialAttention
from mmbench.methods.synthesis.segan import attention_regularisation, semantic_consistency

ALONE = torch.tensor([0, 1])  # classes of two images that have nothing to do with each other


def test_attention_counts_up_to_the_threshold():
    one, other = torch.tensor([[0.7, 0.25, 0.05]]), torch.tensor([[0.5, 0.5, 0.0]])
    attention = torch.cat((one, other))[..., None, None]  # (2, 3, 1, 1)
    found = attention_regularisation(attention, threshold=0.3)
    # min(0.7, 0.3)^2 + 0.25^2 + 0.05^2, and twice min(0.5, 0.3)^2
    assert found.item() == pytest.approx(((0.09 + 0.0625 + 0.0025) + (0.09 + 0.09)) / 2)
    assert attention_regularisation(attention.repeat(1, 1, 2, 3), 0.3).item() == pytest.approx(6 * found.item())


def test_only_words_below_the_threshold_are_pushed_down():
    attention = torch.tensor([0.7, 0.25, 0.05, 0.0]).view(1, 4, 1, 1).requires_grad_()
    attention_regularisation(attention, threshold=0.3).backward()
    assert torch.allclose(attention.grad.flatten(), torch.tensor([0.0, 0.5, 0.1, 0.0]))


def test_words_compete_until_few_are_looked_at():
    torch.manual_seed(0)
    layer, hidden = SpatialAttention(4, 6), torch.randn(1, 4, 2, 2)
    words, mask = torch.randn(1, 5, 6), torch.ones(1, 1, 5, dtype=torch.bool)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    spent = []  # on words below the threshold, at a position
    for _ in range(100):
        _, attention = layer(hidden, words, mask)
        spent.append((attention * (attention < 0.3)).sum(dim=1).mean().item())
        optimizer.zero_grad()
        attention_regularisation(attention, threshold=0.3).backward()
        optimizer.step()
    assert spent[-1] < spent[0] / 2


def test_consistency_pulls_the_own_image_and_pushes_that_of_another_class():
    own = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
    opposite = own.flip(0)
    # Own images are at a distance of 0, the others at sqrt(2); and the other way round. Lengths do not count.
    assert semantic_consistency(own, own, ALONE, margin=1.0).item() == pytest.approx(0, abs=1e-6)
    assert semantic_consistency(own, own, ALONE, margin=2.0).item() == pytest.approx((2 - 2**0.5) ** 2, rel=1e-5)
    assert semantic_consistency(own, opposite, ALONE, margin=1.0).item() == pytest.approx(2 + 1, rel=1e-5)
    assert semantic_consistency(own, opposite, torch.zeros(2), margin=1.0).item() == pytest.approx(2, rel=1e-5)


def test_consistency_has_a_gradient_where_two_images_mean_the_same():
    fake = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    semantic_consistency(fake, fake.detach().clone(), ALONE, margin=1.0).backward()
    assert fake.grad.isfinite().all()


def test_the_published_size_is_attngans():
    ours, theirs = (config.composed([f"method={name}", "data=coco"])["method"] for name in ("segan", "attngan"))
    assert ours["training"] == theirs["training"]
    shared = (ours["module"].keys() & theirs["module"].keys()) - {"_target_"}
    assert {"width", "num_residual", "discriminator_width", "max_words", "gamma3"} <= shared
    assert all(ours["module"][name] == theirs["module"][name] for name in shared)
    assert ours["module"]["lambda_acm"] == theirs["module"]["lambda_damsm"]
