"""The suite: each extractor runs once per batch, names, shared reference statistics, and what it refuses."""

import hashlib

import pytest
import torch
import yaml
from torch import nn

from mmbench.core.cards import MissingAsset
from mmbench.core.catalogue import shipped
from mmbench.core.composition import node
from mmbench.core.construction import construct
from mmbench.core.images import from_uint8
from mmbench.metrics import Metric, MetricSuite, Score, build_suite
from mmbench.metrics.clip_score import CLIPScore
from mmbench.metrics.diff import Diff
from mmbench.metrics.fid import FID
from mmbench.metrics.inception_score import InceptionScore
from mmbench.metrics.lpips import LPIPS
from mmbench.metrics.mp import MP
from mmbench.metrics.sim import Sim
from mmbench.metrics.suite import described

METRICS = sorted(path.stem for path in (shipped("conf") / "metric").glob("*.yaml"))
WITHOUT_TOY = {"identity"}  # its network has no toy counterpart
METRIC_OF = {
    "inception": {"_target_": "mmbench.metrics.fid.FID", "extractor": "inception"},
    "clip": {"_target_": "mmbench.metrics.sim.Sim", "extractor": "clip"},
    "lpips": {"_target_": "mmbench.metrics.lpips.LPIPS", "extractor": "lpips", "against": "image"},
    "lpips_squeeze": {"_target_": "mmbench.metrics.pie.PieLPIPS", "extractor": "lpips_squeeze", "covered": 0},
    "face": {"_target_": "mmbench.metrics.identity.Identity", "extractor": "face", "against": "image"},
}


def config(group, name):
    return yaml.safe_load((shipped("conf") / group / f"{name}.yaml").read_text(encoding="utf-8"))


def suite_of(inception, clip):
    return MetricSuite(
        {
            "fid": FID(inception),
            "is": InceptionScore(inception, splits=2),
            "sim": Sim(clip),
            "mp": MP(clip),
            "clip_score": CLIPScore(clip, factor=100),
            "diff": Diff(),
        }
    )


def test_each_extractor_runs_once_per_batch(make_extractor, pixels, batch_of):
    inception, clip = make_extractor(), make_extractor(name="standard")
    suite = suite_of(inception, clip)
    for seed in range(3):
        suite.update(pixels(4, seed), batch_of(pixels(4, seed + 10), prompt=["one", "two", "six", "ten"]))
    assert inception.network.calls == 3
    assert clip.network.calls == 6  # images and texts
    suite.update_reference({"id": ["1", "2", "3", "4"], "image": from_uint8(pixels(4))})
    assert inception.network.calls == 4


def test_names_carry_the_extractor(make_extractor, pixels, batch_of):
    suite = suite_of(make_extractor(), make_extractor(name="standard"))
    batch = batch_of(pixels(4, 1), prompt=["one", "two", "six", "ten"])
    suite.update(pixels(4), batch)
    suite.update_reference(batch)
    scores = suite.compute()
    assert list(scores) == ["fid@toy", "is@toy", "sim@standard", "mp@standard", "clip_score@standard", "diff"]
    assert all(isinstance(score, Score) and score.count == 4 for score in scores.values())
    assert suite.keys == dict(zip(suite.metrics, scores, strict=True))
    assert suite.metrics["fid"].extractor.weights_sha256 == hashlib.sha256(b"known").hexdigest()
    assert suite.needs == {"prompt", "image"}
    assert suite.needs_reference
    suite.reset()
    with pytest.raises(ValueError, match="at least 2 generated"):
        suite.compute()


def test_an_extractor_remembers_the_tensor_and_not_its_values(make_extractor, pixels):
    extractor = make_extractor()
    images = pixels(2)
    first = extractor(images)
    assert extractor(images) is first
    assert extractor.network.calls == 1
    extractor(images.clone())
    assert extractor.network.calls == 2
    images += 1
    assert torch.equal(extractor(images)["features"], images.flatten(1)[:, :5].float())
    with torch.inference_mode():
        inside = images * 1
        assert extractor(inside) is extractor(inside)
    assert extractor(["ab c"]) is extractor(["ab c"])
    assert extractor(from_uint8(images))["features"].equal(extractor(images)["features"])  # real images are rounded
    extractor.forget()
    calls = extractor.network.calls
    extractor(images)
    assert extractor.network.calls == calls + 1


@pytest.mark.parametrize("shape", [(3, 8, 8), (4, 3, 8, 8)], ids=["images", "videos of 4 frames"])
def test_a_batch_is_filled_up_along_its_first_axis(make_extractor, shape):
    seen = []

    class Whole(nn.Module):
        def load(self, path):
            pass

        def forward(self, source):
            seen.append(tuple(source.shape))
            return {"features": source.flatten(1).float()}

    images = torch.randint(0, 256, (11, *shape), generator=torch.Generator().manual_seed(0)).byte()
    features = make_extractor(Whole())(images)["features"]
    assert seen == [(8, *shape)] * 2
    assert torch.equal(features, images.flatten(1).float())


def test_features_do_not_depend_on_how_an_image_lies_in_memory(tmp_path):
    """A file's pixels have their colours together, and a real image that was rounded has them so in another way."""
    extractor = construct(node("network/clip/toy"), assets=str(tmp_path))
    file = torch.randint(0, 256, (70, 70, 3), generator=torch.Generator().manual_seed(0)).byte().permute(2, 0, 1)[None]
    expected = extractor(file.contiguous())["embedding"]
    assert torch.equal(extractor(file)["embedding"], expected)
    assert torch.equal(extractor(from_uint8(file))["embedding"], expected)


def test_a_network_says_what_it_does_not_give(make_extractor, pixels):
    given = "features, logits, embedding, keys, distance"
    with pytest.raises(ValueError, match=f"gives attributes, found Known, which gives {given}: choose"):
        make_extractor()(pixels(2))["attributes"]

    class OfImages(nn.Module):
        def load(self, path):
            pass

        def forward(self, images):
            return {"features": images.flatten(1).float()}

    with pytest.raises(ValueError, match="expected a network that reads texts, found OfImages: choose clip, say"):
        make_extractor(OfImages())(["a text"])


def test_a_long_evaluation_does_not_remember_old_batches(make_extractor, pixels):
    extractor = make_extractor()
    for seed in range(10):
        extractor(pixels(1, seed))
    assert len(extractor._seen) <= 4


def test_reference_statistics_can_be_kept_and_given_back(make_extractor, pixels):
    suites = [MetricSuite({"fid": FID(make_extractor()), "diff": Diff()}) for _ in range(2)]
    suites[0].update_reference({"image": from_uint8(pixels(9, 1))})
    suites[1].load_reference_state("fid", suites[0].reference_state("fid"))
    for suite in suites:
        suite.update(pixels(9), {"image": from_uint8(pixels(9))})
    assert suites[0].compute() == suites[1].compute()
    with pytest.raises(ValueError, match="remove their file"):
        suites[0].load_reference_state("fid", {"reference_sum": torch.zeros(5)})


def test_the_real_set_is_asked_for(make_extractor, pixels):
    suite = MetricSuite({"fid": FID(make_extractor())})
    suite.update(pixels(3), {})
    with pytest.raises(ValueError, match="at least 2 real images"):
        suite.compute()
    with pytest.raises(NotImplementedError):
        Diff().update_reference({})


def test_metrics_reset_and_extractors_are_not_saved(make_extractor, pixels, batch_of):
    metric = LPIPS(make_extractor(), against="image")
    metric.update(pixels(2), batch_of(pixels(2, 1)))
    metric.reset()
    with pytest.raises(ValueError, match="found none"):
        metric.compute()
    assert not metric.state_dict()


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_yaml_builds(name, tmp_path, make_extractor):
    cfg = node(f"metric/{name}")
    if name in WITHOUT_TOY:
        with pytest.raises(ValueError, match=f"expected an extractor of standard for the metric {name}, found toy"):
            described([name], "toy")
        metric = construct({**cfg, "extractor": make_extractor()})
        assert isinstance(metric, Metric)
        return
    _, extractors = described([name], "toy")
    suite = build_suite({name: cfg}, extractors, tmp_path)
    metric = suite.metrics[name]
    assert isinstance(metric, Metric)
    assert isinstance(metric.higher_is_better, bool)
    assert suite.keys == {name: f"{name}@toy" if "extractor" in cfg else name}


def test_only_what_a_metric_names_is_built(tmp_path):
    extractors = {"inception": config("network/inception", "standard"), "clip": config("network/clip", "toy")}
    metrics = {name: config("metric", name) for name in ("sim", "mp", "diff")}
    before = torch.random.get_rng_state()
    suite = build_suite(metrics, extractors, tmp_path)
    assert suite.metrics["sim"].extractor is suite.metrics["mp"].extractor
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(ValueError, match=r"metric fid: expected an extractor among .* found 'inception'"):
        build_suite({"fid": config("metric", "fid")}, {"clip": extractors["clip"]}, tmp_path)


@pytest.fixture
def offline(monkeypatch):
    """Nothing can be fetched."""

    def no_network(origin, path, **options):
        raise OSError("no network")

    monkeypatch.setattr("mmbench.core.cards.download", no_network)


def test_toy_networks_are_advised_where_every_metric_has_one(tmp_path, offline):
    with pytest.raises(MissingAsset, match=r'put it there.*; extractor="toy" needs none$'):
        MetricSuite.named("fid", "dists", "psnr", assets=tmp_path)
    for metrics in (["identity"], ["fid", "identity"]):
        with pytest.raises(MissingAsset, match=r"no toy network stands in for that of identity$") as error:
            MetricSuite.named(*metrics, assets=tmp_path)
        assert "needs none" not in str(error.value)


@pytest.mark.parametrize("name", ["inception", "clip", "lpips", "lpips_squeeze", "face"])
def test_standard_weights_that_cannot_be_had_are_one_line(name, tmp_path, offline):
    cfg = config(f"network/{name}", "standard")
    with pytest.raises(MissingAsset) as error:
        build_suite({"metric": METRIC_OF[name]}, {name: cfg}, tmp_path)
    message = str(error.value)
    assert "\n" not in message
    for part in (
        cfg["card"]["file"],
        f"{cfg['card']['size']:,} bytes; sha256 {cfg['card']['sha256']}",
        f"terms: {cfg['card']['licence']}",
        cfg["card"]["origin"],
        str(tmp_path),
        "no toy network stands in for that of metric" if name == "face" else "data.source=toy needs none",
    ):
        assert part in message
