"""Density, coverage, Vendi and MMD: others' values on equal features, facts of the field, and any network."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from vendi_score import vendi

from mmbench.core import composition, config
from mmbench.core.images import from_uint8
from mmbench.metrics import MetricSuite, build_suite
from mmbench.metrics.density_coverage import Coverage, Density, density_and_coverage
from mmbench.metrics.mmd import BiasedMMD, UnbiasedMMD, kernel_sum
from mmbench.metrics.vendi import Vendi, vendi_score


def features(count, dim, seed, shift=0.0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


def plain_mmd(x, y, sigma, factor, biased):
    """Pair by pair, as the formula has it."""
    x, y = x.double(), y.double()

    def mean(first, second, is_one_set):
        kernels = [
            torch.exp(-(one - other).square().sum() / (2 * sigma**2))
            for i, one in enumerate(first)
            for j, other in enumerate(second)
            if biased or not is_one_set or i != j
        ]
        return torch.stack(kernels).mean()

    return float(factor * (mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)))


class Given(torch.nn.Module):
    """Features by the first pixel of an image: which row of a table it is."""

    def __init__(self, table):
        super().__init__()
        self.table, self.num_features = table, table.shape[1]

    def load(self, path):
        pass

    def forward(self, images):
        return {"features": self.table[images[:, 0, 0, 0].long()]}


@pytest.fixture
def scored(make_extractor, batch_of):
    """A metric's score of features of both sets."""

    def score(metric, generated, real, size=16):
        extractor = make_extractor(Given(torch.cat((generated, real))))
        suite = MetricSuite({"one": metric(extractor)})
        count = len(generated)
        images = torch.arange(count + len(real)).byte()[:, None, None, None].expand(-1, 3, 4, 4)
        keys = batch_of(images)
        for part in torch.arange(count).split(size):
            suite.update(images[part], {"sample": [keys["sample"][row] for row in part]})
        if metric is not Vendi:
            ids = [keys["id"][row] for row in range(count, len(images))]
            suite.update_reference({"id": ids, "image": from_uint8(images[count:])})
        return suite.compute()["one@toy"]

    return score


@pytest.mark.parametrize(("seed", "dim", "shift"), [(0, 8, 0.3), (1, 40, 0.0), (2, 3, 1.0)])
def test_density_and_coverage_equal_the_authors(seed, dim, shift):
    generated, real = features(60, dim, seed, shift), features(70, dim, seed + 10)
    for neighbours in (1, 5):
        theirs = compute_prdc(real.double().numpy(), generated.double().numpy(), neighbours)
        found = density_and_coverage(generated, real, neighbours)
        assert found == pytest.approx((theirs["density"], theirs["coverage"]), abs=1e-12)
        assert 0 < found[1] < 1


def test_density_and_coverage_of_equal_and_of_far_sets(monkeypatch):
    points = features(50, 4, 0)
    assert density_and_coverage(points.flip(0), points, 5) == (1.0, 1.0)
    assert density_and_coverage(points + 100, points, 5) == (0.0, 0.0)
    # All samples in one place: some balls hold them all, most none.
    crowd = points[:1].expand(50, -1)
    density, coverage = density_and_coverage(crowd, points, 5)
    assert coverage < 0.3
    assert density == pytest.approx(coverage * 50 / 5)
    other = features(40, 4, 1)
    whole = density_and_coverage(other, points, 5)
    monkeypatch.setattr("mmbench.metrics.density_coverage.BLOCK", 13)
    monkeypatch.setattr("mmbench.metrics.precision_recall.BLOCK", 13)
    assert density_and_coverage(other, points, 5) == whole


@pytest.mark.parametrize("dim", [3, 30, 90])
def test_vendi_equals_the_authors(dim):
    values = features(60, dim, dim, 0.5)
    assert vendi_score(values) == pytest.approx(vendi.score_dual(values.double().numpy()), rel=1e-9)
    kernel = torch.nn.functional.normalize(values.double(), dim=1)
    shares = np.linalg.eigvalsh((kernel @ kernel.T / len(values)).numpy())
    shares = shares[shares > 1e-15]
    assert vendi_score(values) == pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())), rel=1e-9)


def test_vendi_counts_what_differs():
    assert vendi_score(torch.ones(7, 5)) == pytest.approx(1)
    assert vendi_score(3 * torch.eye(6)) == pytest.approx(6)
    assert vendi_score(torch.eye(6).repeat(4, 1)) == pytest.approx(6), "copies add nothing"
    with pytest.raises(ValueError, match="length above 0 for the Vendi score, found 2 of length 0"):
        vendi_score(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize(("metric", "biased"), [(BiasedMMD, True), (UnbiasedMMD, False)])
@pytest.mark.parametrize(("sigma", "factor"), [(10, 1000), (1, 1)])
def test_mmd_is_the_formula(scored, metric, biased, sigma, factor):
    x, y = (torch.nn.functional.normalize(features(count, 6, count, 0.4), dim=1) for count in (17, 23))
    found = scored(lambda extractor: metric(extractor, sigma=sigma, factor=factor), x, y)
    assert found.value == pytest.approx(plain_mmd(x, y, sigma, factor, biased), rel=1e-9, abs=1e-9)
    assert (found.std, found.count) == (None, 17)


def test_mmd_of_one_set_and_of_one_distribution(scored, monkeypatch):
    def biased(extractor):
        return BiasedMMD(extractor, sigma=10, factor=1000)

    def unbiased(extractor):
        return UnbiasedMMD(extractor, sigma=10, factor=1000)

    x = features(40, 6, 0)
    assert scored(biased, x, x).value == pytest.approx(0, abs=1e-9)
    assert scored(unbiased, x, x).value < 0, "pairs of an image with itself are in one of its terms alone"
    pairs = [(features(40, 6, 2 * seed), features(40, 6, 2 * seed + 1)) for seed in range(1, 9)]
    too_large = [scored(biased, *pair).value for pair in pairs]
    right = [scored(unbiased, *pair).value for pair in pairs]
    assert min(too_large) > 0
    assert min(right) < 0 < max(right)
    assert abs(np.mean(right)) < np.mean(too_large) / 3
    assert scored(biased, x + 3, pairs[0][1]).value > 10 * max(too_large)
    assert scored(biased, *pairs[0], size=7) == scored(biased, *pairs[0], size=40)
    whole = kernel_sum(*pairs[0], 10)
    monkeypatch.setattr("mmbench.metrics.mmd.BLOCK", 13)
    assert kernel_sum(*pairs[0], 10) == pytest.approx(whole, rel=1e-12)


DISTRIBUTION = ["fid", "kid", "precision", "recall", "density", "coverage", "vendi", "cmmd_biased", "cmmd_unbiased"]


@pytest.mark.parametrize("name", ["inception", "clip", "dinov2", "dino", "clip/toy_scenes", "inception/toy_flowers"])
def test_every_distribution_score_takes_any_network(name, pixels, batch_of, tmp_path):
    metrics = {metric: composition.node(f"metric/{metric}") | {"extractor": name} for metric in DISTRIBUTION}
    metrics["kid"] |= {"subsets": 3, "subset_size": 6}
    suite = build_suite(metrics, config.with_extractors(metrics, {}, "toy"), tmp_path)
    real, made = pixels(12, 0, 64), pixels(12, 1, 64) // 2
    suite.update(made, batch_of(made))
    suite.update_reference(batch_of(real))
    scores = suite.compute()
    assert set(scores) == {f"{metric}@toy" for metric in DISTRIBUTION}
    assert scores["fid@toy"].value > 0
    assert 1 < scores["vendi@toy"].value <= 12
    assert len({id(metric.extractor) for metric in suite.metrics.values()}) == 1


def test_networks_that_give_no_features_are_refused(tmp_path):
    lpips = composition.node("network/lpips/toy")
    for metric in ("fid", "vendi", "density"):
        with pytest.raises(ValueError, match=r"features of whole images for .*, found ToyLPIPS: choose another"):
            build_suite(
                {"one": composition.node(f"metric/{metric}") | {"extractor": "lpips"}}, {"lpips": lpips}, tmp_path
            )


def test_too_few_images_are_refused(scored):
    few, enough = features(5, 4, 0), features(9, 4, 1)
    with pytest.raises(ValueError, match="at least 6 generated images for density, found 5"):
        scored(lambda extractor: Density(extractor, 5), few, enough)
    with pytest.raises(ValueError, match="at least 6 real images for coverage, found 5"):
        scored(lambda extractor: Coverage(extractor, 5), enough, few)
    with pytest.raises(ValueError, match="at least 2 real images for MMD, found 1"):
        scored(lambda extractor: BiasedMMD(extractor, sigma=10, factor=1000), few, enough[:1])


def test_the_command_line_points_a_score_at_another_network():
    words = ["method=identity", "data=cub", "data.source=toy", "protocol.metrics.fid.extractor=dinov2"]
    plain = config.composed(words)
    assert plain["protocol"]["extractors"]["dinov2"] == composition.node("network/dinov2/toy")
    assert plain["settings"] == {"fid": "(extractor=dinov2)"}, "fid@toy is through the toy Inception"
    real = config.composed(["method=identity", "data=cub", words[3].replace("dinov2", "clip/vitl14")])
    assert real["protocol"]["extractors"]["clip/vitl14"]["name"].startswith("clip-vitl14")
    added = config.composed(["method=identity", "data=cub", "data.source=toy", "+metric@protocol.metrics.dino=dino"])
    assert added["protocol"]["extractors"]["dino"] == composition.node("network/dino/toy")
    assert set(config.composed(words[:3])["protocol"]["extractors"]) == {"inception", "clip", "lpips"}
    assert Density.needs_reference
    assert Coverage.needs_reference
    assert not Vendi.needs_reference
