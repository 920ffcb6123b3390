"""Values by sample: scores are their means, any number of processes writes the same file, and the file is checked."""

import math

import numpy as np
import pytest
import torch
import torch.multiprocessing
from torch import nn

from mmbench.core import composition, config, construction, results
from mmbench.core.files import sha256_file
from mmbench.core.images import from_uint8
from mmbench.core.noise import Sample
from mmbench.core.results import Result
from mmbench.metrics import MetricSuite
from mmbench.metrics.base import row_sums
from mmbench.metrics.clip_score import CLIPScore
from mmbench.metrics.diff import Diff
from mmbench.metrics.dists import DISTS
from mmbench.metrics.edit_accuracy import EditAccuracy
from mmbench.metrics.fid import FID
from mmbench.metrics.identity import Identity
from mmbench.metrics.inception_score import InceptionScore
from mmbench.metrics.lpips import LPIPS
from mmbench.metrics.lpips_diversity import LPIPSDiversity
from mmbench.metrics.mp import MP
from mmbench.metrics.outside_mask import L1OutsideMask, LPIPSOutsideMask, PSNROutsideMask, SSIMOutsideMask
from mmbench.metrics.pie import PieLPIPS, PiePSNR, PieSSIM
from mmbench.metrics.preservation import Preservation
from mmbench.metrics.r_precision import RPrecision
from mmbench.metrics.ssim import SSIM
from mmbench.metrics.structure_distance import StructureDistance
from mmbench.metrics.tdanet import TDANetL1, TDANetTV
from mmbench.pipeline import by_sample, evaluation, kept_features, scoring

SAMPLES = [Sample(f"Vögel/{number:02d}", caption, draw) for number in range(7) for caption in (0, 3) for draw in (0, 1)]
PARTS = ["crown", "bill"]
OVER_DRAWS = {"tdanet_l1"}  # a value for each prompt, at its first draw
PASSES_OVER = {
    "edit_accuracy",
    "preservation",
    "l1_outside_mask",
    "psnr_outside_mask",
    "ssim_outside_mask",
    "lpips_outside_mask@toy",
    "pie_psnr",
    "pie_lpips@toy",
}
NO_MEAN = {"fid@toy", "is@toy", "mp@toy", "diversity@toy"}


def suite_of(extractor):
    return MetricSuite(
        {
            "fid": FID(extractor),
            "is": InceptionScore(extractor, splits=3),
            "mp": MP(extractor),
            "diversity": LPIPSDiversity(extractor, draws=2),
            "diff": Diff(),
            "ssim": SSIM(against="image"),
            "lpips": LPIPS(extractor, against="image"),
            "clip_score": CLIPScore(extractor, factor=100),
            "r_precision": RPrecision(extractor, candidates=4, apart="id"),
            "tdanet_l1": TDANetL1(),
            "edit_accuracy": EditAccuracy(PARTS, {"red": (200, 0, 0), "blue": (0, 0, 200)}),
            "preservation": Preservation(PARTS),
            "l1_outside_mask": L1OutsideMask(PARTS),
            "psnr_outside_mask": PSNROutsideMask(PARTS),
            "ssim_outside_mask": SSIMOutsideMask(PARTS),
            "lpips_outside_mask": LPIPSOutsideMask(extractor, PARTS),
            "structure_distance": StructureDistance(extractor, against="image"),
            "dists": DISTS(extractor, against="image"),
            "identity": Identity(extractor, against="image"),
            "pie_psnr": PiePSNR(covered=0),
            "pie_lpips": PieLPIPS(covered=0, extractor=extractor),
            "pie_ssim_in_mask": PieSSIM(covered=1),
        }
    )


def show(suite, samples, batch_size):
    """Shows images that depend on their samples alone; of the birds 02 and 05 all is named, or nothing."""
    for start in range(0, len(samples), batch_size):
        shown = samples[start : start + batch_size]
        seeds = [100 * int(sample.id[-2:]) + 10 * sample.caption + sample.draw for sample in shown]
        pictures = [
            torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(seed)).byte()
            for seed in seeds
        ]
        images, real = torch.stack(pictures).unbind(1)
        parts = torch.zeros(len(shown), len(PARTS), 16, 16)
        parts[:, 0, :8], parts[:, 1, 4:12] = 1, 1
        named = [{"crown": "red"} for _ in shown]
        for row, sample in enumerate(shown):
            if sample.id.endswith("02"):
                parts[row] = 1
            if sample.id.endswith("05"):
                named[row] = {}
        fields = {"image": from_uint8(real), "parts": parts, "mask": parts[:, :1]}
        texts = {"prompt": [f"{sample.id[-2:]}{sample.caption}" for sample in shown], "prompt_attributes": named}
        suite.update(images, {"id": [sample.id for sample in shown], "sample": shown, **fields, **texts})


def show_real(suite):
    real = torch.randint(0, 256, (9, 3, 16, 16), generator=torch.Generator().manual_seed(1)).byte()
    suite.update_reference({"id": [str(number) for number in range(9)], "image": from_uint8(real)})


def record_of(**changes):
    known = {"experiment": "birds", "row": {"method": "m", "data": "d", "source": "toy"}, "seed": 0}
    facts = {
        "weights": {"verified": True},
        "run_key": "0" * 64,
        "config_hash": "",
        "data": {},
        "config": {},
        "metrics": {},
        "protocol": {},
    }
    return Result(**(known | facts | changes))


@pytest.fixture
def evaluated(make_extractor):
    suite = suite_of(make_extractor())
    show(suite, SAMPLES, 5)
    show_real(suite)
    return suite


def test_a_score_is_the_mean_of_its_values(evaluated):
    scores, values = evaluated.compute(), evaluated.by_sample()
    assert scores.keys() - values.keys() == NO_MEAN
    for name, of_samples in values.items():
        assert math.fsum(of_samples.values()) / len(of_samples) == scores[name].value, name
        assert list(of_samples) == sorted(of_samples)
        if name in OVER_DRAWS:
            assert list(of_samples) == [sample for sample in SAMPLES if sample.draw == 0]
        elif name in PASSES_OVER:
            assert len(of_samples) == scores[name].count < len(SAMPLES)
        else:
            assert list(of_samples) == SAMPLES
    assert {sample.id[-2:] for sample in set(SAMPLES) - values["edit_accuracy"].keys()} == {"05"}
    assert {sample.id[-2:] for sample in set(SAMPLES) - values["preservation"].keys()} == {"02"}


def test_a_value_is_that_of_its_image_alone(evaluated, make_extractor):
    values = evaluated.by_sample()
    for sample in SAMPLES[::9]:
        alone = MetricSuite(
            {"diff": Diff(), "ssim": SSIM(against="image"), "lpips": LPIPS(make_extractor(), against="image")}
        )
        show(alone, [sample], 1)
        for name, score in alone.compute().items():
            assert values[name][sample] == score.value


def test_an_evaluation_begins_anew_after_a_reset(evaluated):
    evaluated.reset()
    assert all(metric.sample_values is None for metric in evaluated.metrics.values())
    show(evaluated, SAMPLES[2:], 4)
    show_real(evaluated)
    assert list(evaluated.by_sample()["diff"]) == SAMPLES[2:]


@pytest.mark.parametrize("samples", [[], SAMPLES[:1] * 3], ids=["no samples", "one sample again"])
def test_images_without_a_sample_of_their_own_are_refused(pixels, samples):
    suite = MetricSuite({"diff": Diff()})
    suite.update(pixels(3), {"image": from_uint8(pixels(3, 1)), **({"sample": samples} if samples else {})})
    with pytest.raises(ValueError, match=r"expected a `sample` of its own for each of 3 images, found [01]: put it"):
        suite.by_sample()


def _write_held(path, suite):
    samples, outputs = suite.held()
    (features,) = outputs.values()
    assert features.keys() == {"features", "logits"}
    kept_features.write(path, samples, features)


def _one_of(rank, ranks, folder, extractor):
    torch.set_num_threads(1)
    store = f"file://{folder}/store-{ranks}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    suite = suite_of(extractor)
    show(suite, scoring.share(SAMPLES), 2 + ranks)
    if rank == 0:
        show_real(suite)
    suite.compute()
    (folder / f"{ranks}-{rank}.safetensors").write_bytes(by_sample.encoded(suite.by_sample()))
    _write_held(folder / f"{ranks}-{rank}.features", suite)
    torch.distributed.destroy_process_group()


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore:.*fork", "ignore:The ``compute`` method")
def test_any_number_of_processes_gives_the_same_file(tmp_path, make_extractor, evaluated):
    extractor, expected = make_extractor(), by_sample.encoded(evaluated.by_sample())
    _write_held(tmp_path / "expected", evaluated)
    for ranks in (1, 2, 3):
        torch.multiprocessing.start_processes(_one_of, (ranks, tmp_path, extractor), nprocs=ranks, start_method="fork")
        for rank in range(ranks):
            assert (tmp_path / f"{ranks}-{rank}.safetensors").read_bytes() == expected, (ranks, rank)
            features = (tmp_path / f"{ranks}-{rank}.features").read_bytes()
            assert features == (tmp_path / "expected").read_bytes(), (ranks, rank)


def test_what_is_kept_is_read_again(tmp_path, evaluated):
    values = evaluated.by_sample()
    record = by_sample.keep(record_of(), values, tmp_path)
    path = record.write(tmp_path)
    file = path.with_name(f"{path.stem}.samples.safetensors")
    assert record.samples == {"file": file.name, "sha256": sha256_file(file)}
    assert results.read(tmp_path, "birds") == [record]
    found = by_sample.read(record, path.parent)
    assert found == values
    assert all(list(one) == list(values[name]) for name, one in found.items())
    apart = by_sample.keep(record_of(), values, tmp_path, tmp_path / "elsewhere" / "mine.json")
    assert (tmp_path / "elsewhere" / "mine.samples.safetensors").read_bytes() == file.read_bytes()
    assert by_sample.read(apart, tmp_path / "elsewhere") == values


def test_a_record_without_means_has_no_file(tmp_path):
    record = by_sample.keep(record_of(), {}, tmp_path)
    assert record.samples == {}
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="expected a record of birds with values by sample, found one without"):
        by_sample.read(record, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, damage):
    record = by_sample.keep(record_of(), {"diff": {Sample("a", 0, 0): 0.5, Sample("b", 0, 0): 0.25}}, tmp_path)
    path = tmp_path / "birds" / record.samples["file"]
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-3] ^= 1
    path.write_bytes(content[:-5] if damage == "cut" else content)
    if damage == "missing":
        path.unlink()
    with pytest.raises(ValueError, match=f"{path.name}: expected .*, found .*: .*evaluate") as error:
        by_sample.read(record, path.parent)
    assert "\n" not in str(error.value)


def test_ids_are_written_once_and_values_in_eight_bytes():
    samples = [
        Sample(f"{number:03d}.A_bird_of_a_long_name/{number:04d}", 0, draw) for number in range(99) for draw in range(5)
    ]
    values = {f"metric{number}@standard": dict.fromkeys(samples, number / 7) for number in range(10)}
    content = by_sample.encoded(values)
    ids = sum(len(sample.id) + 3 for sample in samples[::5])
    assert len(content) < len(samples) * (10 * 8 + 3 * 4) + ids + 1500
    assert by_sample.decoded(content) == values


WORDS = ("method=identity", "data=cub", "data.source=toy", "trainer=cpu", "protocol.count=12")


def test_an_evaluation_keeps_its_values_beside_the_record(home):
    record, run = evaluation.evaluate(config.composed(list(WORDS)))
    assert results.read(home / "results", "identity") == [record]
    values = by_sample.read(record, home / "results" / "identity")
    assert list(values["diff"]) == run.samples
    for name, of_samples in values.items():
        assert math.fsum(of_samples.values()) / len(of_samples) == record.metrics[name]["value"]
    again, _ = evaluation.evaluate(config.composed(list(WORDS)))
    assert again == record


def test_there_is_no_record_where_the_values_could_not_be_written(home, monkeypatch):
    def full(path):
        raise OSError("no space left on device")

    monkeypatch.setattr(by_sample, "written_atomically", full)
    with pytest.raises(OSError, match="no space"):
        evaluation.evaluate(config.composed(list(WORDS)))
    assert results.read(home / "results", "identity") == []


class Wide(nn.Module):
    """Embeddings as long as those of LPIPS."""

    def load(self, path):
        pass

    def forward(self, images):
        return {"embedding": (images.flatten(1).float() / 255).repeat(1, 300)}


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_values_depend_on_no_batch_and_on_no_number_of_threads(threads, make_extractor):
    extractor = make_extractor(Wide())
    found = []
    for number, batch_size in ((1, 5), (2, 1)):
        threads(number)
        suite = MetricSuite(
            {"lpips": LPIPS(extractor, against="image"), "outside": LPIPSOutsideMask(extractor), "tv": TDANetTV()}
        )
        show(suite, SAMPLES[:5], batch_size)
        found.append(suite.by_sample())
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("shape", [(5,), (3, 100, 200), (400_001,)])
def test_rows_are_summed_the_same_alone_and_on_any_number_of_threads(threads, shape):
    values = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    expected = row_sums(values)
    assert torch.allclose(expected, values.double().flatten(1).sum(dim=1), rtol=1e-14)
    for number in (1, 2, 3):
        threads(number)
        assert torch.equal(torch.cat([row_sums(part) for part in values.split(1)]), expected)
        assert torch.equal(torch.cat([row_sums(part) for part in values.split(3)]), expected)


@pytest.mark.parametrize("name", ["toy", "toy_scenes"])
def test_a_text_is_embedded_the_same_beside_any_other(name, tmp_path):
    extractor = construction.construct(composition.node(f"network/clip/{name}"), assets=str(tmp_path))
    texts = [f"this bird has a {word} crown{more}" for word in ("red", "blue") for more in ("", " and a yellow belly")]
    together = extractor(texts)["embedding"]
    for row, text in enumerate(texts):
        assert torch.equal(extractor([text])["embedding"][0], together[row])
        assert torch.equal(extractor([*texts[2:], text, "a"])["embedding"][2], together[row])


def test_what_varies_is_kept_beside_values_by_sample(tmp_path, evaluated):
    """A file without it has the bytes that it had before."""
    values = evaluated.by_sample()
    found = kept_features.varying(evaluated, evaluated.held())
    assert found.deviations.keys() == {"fid@toy", "is@toy"}
    assert found.count == 7
    for kept in (values, {}):
        record = by_sample.keep(record_of(), kept, tmp_path, varying=found)
        folder = record.write(tmp_path).parent
        assert by_sample.read(record, folder) == kept
        again = by_sample.varying(record, folder)
        assert again[:2] == found[:2]
        assert all(np.array_equal(again.deviations[name], found.deviations[name]) for name in found.deviations)
    record = by_sample.keep(record_of(), values, tmp_path)
    assert by_sample.varying(record, record.write(tmp_path).parent) is None


def test_a_score_of_a_part_is_that_of_a_suite_which_saw_the_part_alone(make_extractor, evaluated):
    rows = [row for row, sample in enumerate(SAMPLES) if sample.id[-1] in "135"]
    held, alone = evaluated.held(), suite_of(make_extractor())
    show(alone, [SAMPLES[row] for row in rows], 5)
    show_real(alone)
    whole = evaluated.metrics["fid"].score()
    for name in ("fid", "is"):
        metric = evaluated.metrics[name]
        outputs = held.outputs[metric.extractor.weights_sha256]
        part = metric.part([SAMPLES[row] for row in rows], {state: outputs[state][rows] for state in metric.holds})
        assert part.score() == alone.metrics[name].compute()
    assert evaluated.metrics["fid"].compute() == whole, "the metric itself is as it was"
