"""FID and Inception score: the numbers of torch-fidelity on equal features, and facts that hold for any features."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric

from mmbench.core.images import from_uint8
from mmbench.metrics.fid import FID, frechet_distance
from mmbench.metrics.inception_score import InceptionScore, inception_score


def features(count, dim, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, dim)) @ rng.standard_normal((dim, dim)) + rng.standard_normal(dim)


def fid(metric, images, real):
    metric.update(images, {})
    metric.update_reference({"image": from_uint8(real)})
    return metric.compute()


def torch_fidelity_fid(first, second):
    statistics = [fid_features_to_statistics(torch.from_numpy(values)) for values in (first, second)]
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


def ours(first, second):
    gaussians = [(torch.from_numpy(x.mean(0)), torch.from_numpy(np.cov(x, rowvar=False))) for x in (first, second)]
    return frechet_distance(*gaussians[0], *gaussians[1])


@pytest.mark.parametrize(("count", "dim"), [(500, 12), (400, 64), (30, 64)])  # the last: fewer images than features
def test_frechet_distance_equals_torch_fidelity(count, dim):
    first, second = features(count, dim, 0), features(count + 7, dim, 1)
    assert ours(first, second) == pytest.approx(torch_fidelity_fid(first, second), rel=1e-6)


def test_frechet_distance_of_known_gaussians():
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    assert frechet_distance(zero, eye, zero + 2, eye) == pytest.approx(12)
    assert frechet_distance(zero, 4 * eye, zero, 9 * eye) == pytest.approx(3)  # (2 - 3)^2 in each direction


def test_fid_through_an_extractor_equals_torch_fidelity(make_extractor, pixels):
    generated, real = pixels(40), pixels(50, 1)
    expected = torch_fidelity_fid(*(x.flatten(1)[:, :5].double().numpy() for x in (generated, real)))
    found = fid(FID(make_extractor()), generated, real)
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert (found.std, found.count) == (None, 40)


@pytest.mark.parametrize("count", [3, 40])
def test_fid_of_a_set_with_itself_is_zero(make_extractor, pixels, count):
    images = pixels(count)
    assert fid(FID(make_extractor()), images, images.flip(0)).value == pytest.approx(0, abs=1e-8)


def test_fid_needs_two_images_of_each_kind(make_extractor, pixels):
    with pytest.raises(ValueError, match=r"at least 2 generated images .* found 1"):
        fid(FID(make_extractor()), pixels(1), pixels(5))
    metric = FID(make_extractor())
    metric.update(pixels(5), {})
    with pytest.raises(ValueError, match=r"at least 2 real images .* found 0"):
        metric.compute()


@pytest.mark.parametrize(("count", "splits"), [(100, 10), (103, 10), (40, 1)])
def test_inception_score_equals_torch_fidelity(count, splits):
    logits = torch.from_numpy(features(count, 20, 2)).float()
    expected = isc_features_to_metric(logits, splits=splits)
    found = inception_score(logits, splits)
    assert found.value == pytest.approx(expected["inception_score_mean"], rel=1e-9)
    assert found.std == pytest.approx(expected["inception_score_std"], rel=1e-6, abs=1e-12)
    assert found.count == count


def test_inception_score_of_certain_and_diverse_images_is_the_number_of_classes():
    logits = 1000 * torch.eye(5).repeat(20, 1)
    assert inception_score(logits, 1).value == pytest.approx(5)
    assert inception_score(logits * 0, 1).value == pytest.approx(1)
    assert inception_score(1000 * torch.eye(5)[:1].repeat(20, 1), 2).value == pytest.approx(1)


def test_inception_score_takes_samples_in_any_order(make_extractor, pixels, batch_of, rows_of):
    images = pixels(30)
    batch = batch_of(images)
    expected = isc_features_to_metric(images.flatten(1)[:, :7].float() / 50, splits=3)["inception_score_mean"]
    for order in (torch.arange(30), torch.randperm(30, generator=torch.Generator().manual_seed(1))):
        metric = InceptionScore(make_extractor(), splits=3)
        for rows in order.split(8):
            metric.update(images[rows], rows_of(batch, rows))
        assert metric.compute().value == pytest.approx(expected, rel=1e-9)


def test_fid_does_not_depend_on_batch_size_or_order(make_extractor, pixels):
    images, real = pixels(30), pixels(30, 1)
    expected = fid(FID(make_extractor()), images, real).value
    metric = FID(make_extractor())
    for part in images.flip(0).split(7):
        metric.update(part, {})
    for part in real.flip(0).split(11):
        metric.update_reference({"image": from_uint8(part)})
    assert metric.compute().value == pytest.approx(expected, rel=1e-10)  # of real images sums are kept


@pytest.mark.parametrize("size", [1, 7, 30])
def test_fid_of_generated_images_in_any_order_and_batches_is_the_same_to_the_bit(make_extractor, pixels, size):
    images, real = torch.cat((pixels(30), pixels(2))), pixels(30, 1)  # two of them twice
    metric = FID(make_extractor())
    for part in images.flip(0).split(size):
        metric.update(part, {})
    metric.update_reference({"image": from_uint8(real)})
    assert metric.compute() == fid(FID(make_extractor()), images, real)


def test_inception_score_errors(make_extractor, pixels, batch_of):
    metric = InceptionScore(make_extractor(), splits=4)
    metric.update(pixels(3), batch_of(pixels(3)))
    with pytest.raises(ValueError, match=r"at least 4 images, .* found 3"):
        metric.compute()
    metric.update(pixels(3), batch_of(pixels(3)))
    with pytest.raises(ValueError, match="each sample once for IS, found 3 again"):
        metric.compute()


def spread(count, dim, seed, decades):
    """Features whose directions' deviations fall by so many powers of ten."""
    return np.random.default_rng(seed).standard_normal((count, dim)) * np.logspace(0, -decades, dim)


@pytest.mark.parametrize("decades", [1, 4, 7, 12])
def test_frechet_distance_where_covariances_are_nearly_singular(decades):
    """The covariances share their eigenvectors, so that the distance is known: |s - s'|^2 of the deviations."""
    deviations = torch.logspace(0, -decades, 40, dtype=torch.float64), 2 * torch.logspace(0, -decades, 40).double()
    basis = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(0)).double()).Q
    zero = torch.zeros(40, dtype=torch.float64)
    first, second = ((basis * deviation**2) @ basis.T for deviation in deviations)
    expected = float((deviations[0] - deviations[1]).square().sum())
    assert frechet_distance(zero, first, zero, second) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(zero, first, zero, first) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("count", "dim", "decades"), [(30, 64, 0), (30, 64, 6), (64, 64, 3), (65, 64, 3), (500, 64, 8)]
)
def test_a_set_is_at_no_distance_from_itself(count, dim, decades):
    values = spread(count, dim, 0, decades)
    assert ours(values, values[::-1]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("count", [20, 64, 65])
def test_distance_of_few_images_by_the_singular_values_of_their_features(count):
    """Independent of covariances: with centred features X, Y the trace is the nuclear norm of X Y^T / (N - 1)."""
    first, second = spread(count, 64, 0, 2), spread(count, 64, 1, 3) + 0.1
    centred = [values - values.mean(0) for values in (first, second)]
    root = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum() / (count - 1)
    squares = sum((values**2).sum() for values in centred) / (count - 1)
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + squares - 2 * root
    assert ours(first, second) == pytest.approx(expected, rel=1e-8)


def test_fid_of_constant_images(make_extractor):
    """One picture again and again has no covariance: the distance is that of the means plus the other's trace."""
    black, grey = torch.zeros(8, 3, 16, 16, dtype=torch.uint8), torch.full((8, 3, 16, 16), 3, dtype=torch.uint8)
    assert fid(FID(make_extractor()), black, black).value == 0
    assert fid(FID(make_extractor()), black, grey).value == pytest.approx(5 * 9)
    noise = torch.randint(0, 256, (8, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    features = noise.flatten(1)[:, :5].double()
    expected = float(features.mean(0).square().sum() + features.var(0).sum())
    assert fid(FID(make_extractor()), black, noise).value == pytest.approx(expected, rel=1e-9)
