"""KID, precision and recall: torch-fidelity's numbers on equal features, and facts that hold for any features."""

import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from mmbench.core.images import from_uint8
from mmbench.metrics import MetricSuite
from mmbench.metrics.kid import KID, kernel_distance
from mmbench.metrics.precision_recall import Precision, Recall, share_among


def features(count, dim, seed, shift=0.0):
    """As after a rectifier: not negative."""
    return (torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift).abs()


def fidelity_kid(first, second, subsets, subset_size):
    found = kid_features_to_metric(first, second, kid_subsets=subsets, kid_subset_size=subset_size, verbose=False)
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


@pytest.mark.parametrize("shift", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("subsets", "subset_size"), [(20, 50), (3, 120), (100, 7)])  # the last: subset by subset
def test_kid_equals_torch_fidelity(shift, subsets, subset_size):
    first, second = features(150, 32, 0), features(131, 32, 1, shift)
    mean, std = fidelity_kid(first.double(), second.double(), subsets, subset_size)
    found = kernel_distance(first, second, subsets, subset_size)
    assert found.value == pytest.approx(mean, rel=1e-9)
    assert found.std == pytest.approx(std, rel=1e-9)
    assert found.count == 150
    # On float32 features its sums are rounded to float32: kernels here are below 30.
    assert found.value == pytest.approx(fidelity_kid(first, second, subsets, subset_size)[0], abs=30 * 2**-23)


def test_kid_of_one_distribution_is_about_zero_and_may_be_negative():
    values = [kernel_distance(features(200, 16, 2 * n), features(200, 16, 2 * n + 1), 10, 100).value for n in range(8)]
    assert min(values) < 0 < max(values)
    assert max(abs(value) for value in values) < 0.1


def test_kid_of_known_features():
    """Two sets of one point each, many times: the kernel's values by hand."""
    first, second = torch.zeros(6, 2), torch.full((6, 2), 2.0)
    # k(0, 0) = 1, k(y, y) = (8 / 2 + 1)^3 = 125, k(0, y) = 1
    assert kernel_distance(first, second, 4, 3).value == pytest.approx(1 + 125 - 2)


def test_precision_and_recall_equal_torch_fidelity():
    for seed, dim in ((0, 8), (1, 64), (2, 3)):
        generated, real = features(140, dim, seed, 0.3), features(170, dim, seed + 10)
        expected = prc_features_to_metric(generated, real, verbose=False)
        assert share_among(generated, real, 3) == pytest.approx(expected["precision"], abs=1e-6)
        assert share_among(real, generated, 3) == pytest.approx(expected["recall"], abs=1e-6)
        assert 0.01 < expected["precision"] < 0.99


def test_precision_and_recall_over_more_than_one_block(monkeypatch):
    generated, real = features(140, 8, 0, 0.3), features(170, 8, 10)
    whole = share_among(generated, real, 3), kernel_distance(generated, real, 5, 100).value
    monkeypatch.setattr("mmbench.metrics.precision_recall.BLOCK", 13)
    monkeypatch.setattr("mmbench.metrics.kid.BLOCK", 13)
    assert share_among(generated, real, 3) == whole[0]
    assert kernel_distance(generated, real, 5, 100).value == pytest.approx(whole[1], rel=1e-12)


def test_precision_of_far_and_of_equal_sets():
    points = features(30, 4, 0)
    assert share_among(points, points.flip(0), 3) == 1
    assert share_among(points + 100, points, 3) == 0
    line = torch.arange(6.0)[:, None]  # radii by the 2nd neighbour: 2 1 1 1 1 2
    assert share_among(torch.tensor([[-2.0], [-2.1], [2.5], [7.0], [9.0]]), line, 2) == pytest.approx(3 / 5)


def suite(make_extractor):
    extractor = make_extractor()
    metrics = {
        "kid": KID(extractor, subsets=8, subset_size=20),
        "precision": Precision(extractor, 3),
        "recall": Recall(extractor, 3),
    }
    return MetricSuite(metrics)


def scores(one, images, batch, real, real_batch, rows_of, size):
    for rows in torch.arange(len(images)).split(size):
        one.update(images[rows], rows_of(batch, rows))
    for rows in torch.arange(len(real)).split(size):
        one.update_reference(rows_of(real_batch, rows))
    return one.compute()


@pytest.mark.parametrize("size", [1, 7, 41])
def test_batch_size_and_order_do_not_matter(make_extractor, pixels, batch_of, rows_of, size):
    images, real = pixels(41), pixels(37, 1)
    batch, real_batch = batch_of(images), batch_of(real)
    expected = scores(suite(make_extractor), images, batch, real, real_batch, rows_of, 41)
    order, real_order = (torch.randperm(n, generator=torch.Generator().manual_seed(size)) for n in (41, 37))
    shuffled = rows_of(batch, order), rows_of(real_batch, real_order)
    found = suite(make_extractor)
    assert scores(found, images[order], shuffled[0], real[real_order], shuffled[1], rows_of, size) == expected
    kept = found.metrics["kid"].reference_states()
    assert torch.equal(kept["reference_features"], real.flatten(1)[:, :5].float())  # sorted by id


def test_metrics_of_equal_features_share_their_memory(make_extractor, pixels, batch_of):
    metrics = suite(make_extractor)
    metrics.update(pixels(9), batch_of(pixels(9)))
    kept = [metric.features[0].data_ptr() for metric in metrics.metrics.values()]
    assert len(set(kept)) == 1


def test_what_kid_and_precision_refuse(make_extractor, pixels, batch_of):
    metric = KID(make_extractor(), subsets=2, subset_size=5)
    metric.update(pixels(5), batch_of(pixels(5)))
    with pytest.raises(ValueError, match=r"at least 5 real images for KID, found 0"):
        metric.compute()
    metric.update(pixels(5), batch_of(pixels(5)))
    with pytest.raises(ValueError, match="each sample once for KID, found 5 again"):
        metric.compute()
    metric = Recall(make_extractor(), 3)
    metric.update(pixels(3), batch_of(pixels(3)))
    metric.update_reference({"id": ["one"], "image": from_uint8(pixels(1))})
    with pytest.raises(ValueError, match=r"at least 4 generated images for recall, found 3"):
        metric.compute()
