"""Each sample is scored exactly once on any number of processes; the real set is read once and kept in a file."""

import pytest
import torch
import torch.multiprocessing
from torch import nn
from torch.utils.data import Dataset

from mmbench.core.cards import Card
from mmbench.core.noise import Sample
from mmbench.metrics import Extractor, MetricSuite, build_suite
from mmbench.metrics.fid import FID
from mmbench.metrics.kid import KID
from mmbench.metrics.precision_recall import Precision
from mmbench.pipeline import scoring

SAMPLES = [Sample(f"bird/{number:03d}", caption, draw) for number in range(7) for caption in (0, 3) for draw in (0, 1)]


def _one_of(rank, ranks, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    mine = scoring.share(SAMPLES)
    found = {"mine": mine, "covered": scoring.coverage(mine, SAMPLES)}
    for what, shown in (("again", [*mine, *SAMPLES[:1]]), ("fewer", mine[1:])):
        try:
            scoring.coverage(shown, SAMPLES)
        except ValueError as error:
            found[what] = str(error)
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 17])
def test_every_sample_is_scored_once_on_any_number_of_processes(tmp_path, ranks):
    torch.multiprocessing.start_processes(_one_of, (ranks, tmp_path), nprocs=ranks, start_method="fork")
    with torch.serialization.safe_globals([Sample]):
        found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(ranks)]
    assert sorted(sample for one in found for sample in one["mine"]) == SAMPLES
    for one in found:
        assert one["covered"] == found[0]["covered"], "all processes know the same"
        assert one["covered"]["processes"] == [len(other["mine"]) for other in found]
        assert one["covered"]["count"] == len(SAMPLES)
        assert "scored again" in one["again"]
        assert "left out" in one["fewer"]
        for sample in one["mine"]:  # all draws of a prompt stay together
            assert sample._replace(draw=1 - sample.draw) in one["mine"]
    assert len({one["covered"]["sha256"] for one in found}) == 1


def test_what_was_left_out_is_named():
    with pytest.raises(ValueError, match=r"28 samples to be scored exactly once, found bird/002.c3.k1 left out"):
        scoring.coverage([sample for sample in SAMPLES if sample != Sample("bird/002", 3, 1)], SAMPLES)
    with pytest.raises(ValueError, match=r"found bird/009.c0.k0 scored again, or not asked for \(1 in all\)"):
        scoring.coverage([*SAMPLES, Sample("bird/009", 0, 0)], SAMPLES)


class Pooled(nn.Module):
    num_features = 4

    def load(self, path):
        pass

    def forward(self, images):
        return {"features": images.float().flatten(1)[:, :4] / 255}


class Sized(Pooled):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, images):
        return super().forward(images[..., : self.size, : self.size])


class Real(Dataset):
    """Counts how often its images are read."""

    def __init__(self):
        self.reads = 0
        self.images = torch.randint(0, 256, (9, 3, 4, 4), generator=torch.Generator().manual_seed(0)).byte()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.reads += 1
        return {"id": f"{index:03d}", "sample": Sample(f"{index:03d}", 0, 0), "image": self.images[index]}


@pytest.fixture
def make(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/pooled.bin").write_bytes(b"known")

    def made(*names):
        extractor = Extractor("toy", Pooled(), Card("pooled.bin", None, "a test", "none"), tmp_path)
        kid = KID(extractor, subsets=2, subset_size=5)
        metrics = {"fid": FID(extractor), "kid": kid, "precision": Precision(extractor, 3)}
        return MetricSuite({name: metrics[name] for name in names})

    return made


def _scores(suite):
    images = torch.randint(0, 256, (8, 3, 4, 4), generator=torch.Generator().manual_seed(1)).byte()
    suite.update(images, {"sample": SAMPLES[:8]})
    return {name: score.value for name, score in suite.compute().items()}


def test_the_real_set_is_read_once_for_all_methods(make, tmp_path):
    real = Real()
    first = make("fid", "kid")
    scoring.add_reference(first, real, ["birds"], tmp_path, 0)
    assert real.reads == 9
    second = make("fid", "kid")
    scoring.add_reference(second, real, ["birds"], tmp_path, 0)
    assert real.reads == 9
    assert _scores(first) == _scores(second)
    scoring.add_reference(make("fid"), real, ["other birds"], tmp_path, 0)
    assert real.reads == 18


def test_metrics_that_keep_the_same_of_the_real_set_share_it(make, tmp_path):
    scoring.add_reference(make("kid", "precision"), Real(), ["birds"], tmp_path, 0)
    assert len(list((tmp_path / "statistics").glob("*.safetensors"))) == 1
    suite, real = make("kid", "precision"), Real()
    scoring.add_reference(suite, real, ["birds"], tmp_path, 0)
    assert real.reads == 0
    kept = [suite.metrics[name].reference_features[0].data_ptr() for name in ("kid", "precision")]
    assert kept[0] == kept[1]


def test_another_metric_reads_the_real_set_for_itself_alone(make, tmp_path):
    real = Real()
    scoring.add_reference(make("fid"), real, ["birds"], tmp_path, 0)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "statistics").glob("*.safetensors")}
    suite = make("fid", "kid")
    scoring.add_reference(suite, real, ["birds"], tmp_path, 0)
    assert real.reads == 18
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    whole = make("fid", "kid")
    scoring.add_reference(whole, real, ["elsewhere"], tmp_path, 0)
    assert _scores(suite) == _scores(whole)


def test_statistics_are_of_a_network_as_it_was_built(tmp_path):
    """Of one name and one file of weights, but with pictures resized to another size."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/net.bin").write_bytes(b"known")
    card = {
        "_target_": "mmbench.core.cards.Card",
        "file": "net.bin",
        "sha256": None,
        "origin": "none",
        "licence": "none",
    }
    real, read = Real(), []
    for size in (2, 3, 2):
        network = {"_target_": f"{Sized.__module__}.Sized", "size": size}
        node = {"_target_": "mmbench.metrics.features.Extractor", "name": "one", "network": network, "card": card}
        suite = build_suite(
            {"fid": {"_target_": "mmbench.metrics.fid.FID", "extractor": "one"}}, {"one": node}, tmp_path
        )
        scoring.add_reference(suite, real, ["birds"], tmp_path, 0)
        read.append(real.reads)
    assert read == [9, 18, 18]


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_statistics_are_named_and_not_used(make, tmp_path, damage):
    real = Real()
    scoring.add_reference(make("fid"), real, ["birds"], tmp_path, 0)
    (path,) = (tmp_path / "statistics").glob("*.safetensors")
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-3] ^= 1
    path.write_bytes(content[:-5] if damage == "cut" else content)
    with pytest.raises(ValueError, match=f"{path.name}: expected statistics of real images, found a damaged file"):
        scoring.add_reference(make("fid"), real, ["birds"], tmp_path, 0)


def test_scores_are_made_in_full_precision():
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with torch.autocast("cpu", torch.bfloat16), scoring.full_precision():
            assert not torch.backends.cuda.matmul.allow_tf32
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
