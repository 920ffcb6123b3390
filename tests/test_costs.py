"""What a row costs: parameters that images are made with, steps and CPU time of training; and how a table shows it."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import process_time

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from mmbench.core import catalogue, config, results
from mmbench.core.adversarial import Adversarial
from mmbench.core.ema import EMA
from mmbench.core.frozen import Frozen
from mmbench.core.task import TEXT_GUIDED_EDITING
from mmbench.pipeline import assembly, cells, costs, evaluation, experiment_files, generation, stages, tables, training
from mmbench.pipeline.cells import Cell, Value, Verdict
from mmbench.pipeline.experiment_files import load, parsed
from mmbench.pipeline.lookup import Found

WORDS = ["data.source=toy", "data.toy_images=40", "trainer=cpu", "protocol.count=4"]  # 30 images to train on
STEP = 5.0  # seconds of a clock that training steps move


class Clock:
    seconds = 0.0


class Painter(Adversarial):
    """A generator of 3 * 3 + 3 = 12 parameters, its average, which paints, and a discriminator of 48 + 1 = 49."""

    task = TEXT_GUIDED_EDITING
    trains_on = frozenset({"image"})

    def __init__(self, **stages):
        super().__init__({name: partial(torch.optim.SGD, lr=0.01) for name in ("generator", "discriminator")})
        self.generator, self.discriminator = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 1, 4, 4)
        self.ema = EMA(self.generator, 0.5)
        for name, stage in stages.items():
            self.add_module(name, Frozen(stage))

    def training_step(self, batch, batch_idx):
        Clock.seconds += STEP
        made = self.generator(batch["image"])
        self.minimise("discriminator", {"D": (self.discriminator(made.detach()) - 1).square().mean()})
        with self.held(self.discriminator):
            self.minimise("generator", {"G": self.discriminator(made).square().mean()})
        self.follow(self.ema, self.generator)

    def generate(self, batch, noise):
        return self.ema(batch["image"]).clamp(-1, 1)


class Repainter(Painter):
    """Paints through its two stages, which stand on one and the same."""

    def generate(self, batch, noise):
        image = self.second.network.ema(self.first.network.ema(batch["image"]))
        return super().generate({"image": image}, noise)


@pytest.fixture
def painters(conf, monkeypatch):
    """`base`, `first` and `second`, which stand on it, and `last`, which stands on both."""
    before = {"base": "", "first": "{base: base}", "second": "{base: base}", "last": "{first: first, second: second}"}
    for name, told in before.items():
        kind = "Repainter" if name == "last" else "Painter"
        (conf.folder / f"method/{name}.yaml").write_text(
            f"# Small\nname: {name}\nmodule: {{_target_: test_costs.{kind}}}\n"
            "training: {epochs: 2, batch_size: 10}\n" + (f"stages: {told}\n" if told else "")
        )
    monkeypatch.setattr(costs, "cpu_seconds", lambda: Clock.seconds)
    return conf


def trained(method, *words):
    plain = config.composed([f"method={method}", *WORDS, *words])
    done = training.trained(plain, assembly.prepared_data(plain))
    return done, json.loads((done.folder / "training.json").read_text())


def told_of(method, *words):
    """What is told of costs after images were made."""
    run = generation.prepared(config.composed([f"method={method}", *WORDS, *words]))
    generation.generate(run)
    return costs.of_run(run.plain, run.data, run.folder)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_training_says_its_steps_parameters_and_time(painters, parts):
    _, facts = trained("base", f"+method.training.accumulate={parts}")
    # 30 images in batches of 10, twice, each in so many parts; two optimisers make one step of a method.
    assert (facts["steps"], facts["trained_parameters"]) == (6, 12 + 49)
    assert facts["cpu_seconds"] == 6 * parts * STEP


def test_stages_are_summed_each_once(painters):
    trained("last")
    # Four trainings although two stand on the base; images are made by three averages, and none by the base.
    assert told_of("last", "weights=trained") == {
        "parameters": 3 * 12, "trained_parameters": 4 * 61, "steps": 4 * 6, "cpu_seconds": 4 * 6 * STEP,
    }  # fmt: skip
    assert told_of("base", "weights=trained")["steps"] == 6


def test_what_is_not_known_of_a_stage_is_not_summed(painters):
    trained("first")
    base, facts = trained("base")
    (base.folder / "training.json").write_text(json.dumps({key: facts[key] for key in ("seconds", "steps")}))
    assert told_of("first", "weights=trained") == {"parameters": 12, "steps": 12}


def test_weights_that_were_not_trained_here_have_parameters_alone(painters):
    assert told_of("base", "weights=none") == {"parameters": 12}
    weights, _ = trained("base")
    assert told_of("base", f"weights={weights.weights}") == {"parameters": 12}
    assert told_of("identity") == {"parameters": 0}


def test_images_say_how_long_they_took_in_all_runs_that_made_some(painters, monkeypatch):
    """Four images one by one; of the first, parameters are counted, and it is not timed."""
    monkeypatch.setattr(costs, "process_time", lambda: Clock.seconds)
    monkeypatch.setattr(Painter, "at_once", 1)
    generate, made = Painter.generate, []

    def slow(self, batch, noise):
        made.append(batch["id"])
        Clock.seconds += 10 * len(made)
        return generate(self, batch, noise)

    monkeypatch.setattr(Painter, "generate", slow)
    run = generation.prepared(config.composed(["method=base", *WORDS, "weights=none"]))
    generation.generate(run)
    assert costs.of_run(run.plain, run.data, run.folder)["image_cpu_seconds"] == (20 + 30 + 40) / 3
    for sample in run.samples[:2]:
        run.file(sample).unlink()
    generation.generate(run)
    assert costs.of_run(run.plain, run.data, run.folder)["image_cpu_seconds"] == (20 + 30 + 40 + 50 + 60) / 5


def _stopped_in_the_second_epoch(method):
    step = Painter.training_step

    def stopped(self, batch, batch_idx):
        step(self, batch, batch_idx)
        if self.current_epoch == 1:
            raise OSError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Painter, "training_step", stopped)
        with pytest.raises(OSError):  # noqa: PT011
            trained(method)


def test_a_training_that_goes_on_adds_to_what_was_spent_before(painters):
    _stopped_in_the_second_epoch("base")
    _, facts = trained("base")
    assert (facts["steps"], facts["cpu_seconds"]) == (6, 6 * STEP), "the step after the checkpoint was lost"


def test_a_checkpoint_that_does_not_say_its_time_leaves_it_unknown(painters):
    _stopped_in_the_second_epoch("base")
    plain = config.composed(["method=base", *WORDS])
    path = stages.stage(plain, assembly.prepared_data(plain)).folder / "last.ckpt"
    kept = torch.load(path, weights_only=True)
    assert kept["callbacks"].pop("CpuTime") == {"seconds": 3 * STEP}
    torch.save(kept, path)
    _, facts = trained("base")
    assert "cpu_seconds" not in facts
    assert facts["steps"] == 6


def test_cpu_time_is_that_of_this_process_and_its_workers():
    tensor, start = torch.rand(300, 300), costs.cpu_seconds()
    while costs.cpu_seconds() - start < 0.05:
        tensor = (tensor @ tensor).softmax(dim=0)
    with torch.multiprocessing.get_context("fork").Pool(1) as pool:
        before = costs.cpu_seconds()
        spent = pool.apply(_busy, (0.2,))
        assert costs.cpu_seconds() - before > 0.9 * spent - 0.02, "it is alive"
    assert costs.cpu_seconds() - before > 0.9 * spent - 0.02, "it has ended"


def _busy(seconds):
    start = process_time()
    while process_time() - start < seconds:
        pass
    return process_time() - start


def test_parameters_are_counted_that_an_operation_reads_each_once():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(7, 2)  # 14
            self.recurrent = nn.LSTM(2, 3, batch_first=True)  # 4 * (3 * 2 + 3 * 3 + 3 + 3) = 84
            self.norm = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 5))  # 20
            self.tied, self.idle = self.norm, nn.Linear(9, 9)  # the same 20, and 90 that nothing reads

        def forward(self, ids):
            hidden, _ = self.recurrent(F.embedding(ids, self.words.weight.detach()))
            assert self.idle.weight.device == hidden.device
            return self.tied(self.norm(hidden)[..., :3])

    network = Mixed().eval()
    with torch.inference_mode(), costs.Reads() as reads:
        network(torch.tensor([[1, 2, 6]]))
    assert reads.parameters_of(network) == 14 + 84 + 20


def test_a_method_that_fails_leaves_nothing_watching(painters, monkeypatch):
    monkeypatch.setattr(Painter, "generate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        told_of("base", "weights=none")
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


def test_a_record_has_its_costs_and_one_of_before_has_none(painters, home):
    words = ["method=base", *WORDS, "weights=trained", "protocol.draws=3"]  # 12 images
    trained("base")
    record, run = evaluation.evaluate(config.composed(words))
    known = {"parameters": 12, "trained_parameters": 61, "steps": 6, "cpu_seconds": 6 * STEP}
    assert record.costs == known
    assert results.read("results", "base")[0].costs == known
    (path,) = (home / "results/base").glob("*.json")
    path.write_text(json.dumps({key: item for key, item in asdict(record).items() if key != "costs"}))
    before, _ = evaluation.evaluate(config.composed(words))
    assert before.costs == {}
    assert before.run_key == run.run_key, "it is the record of this run as it was"


def test_seconds_and_memory_of_an_image_are_those_of_the_images_that_count(monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "perf_counter", lambda: Clock.seconds)
    monkeypatch.setattr(costs, "PROCESS", tmp_path)
    (tmp_path / "status").write_text("VmPeak:\t9999999 kB\nVmHWM:\t  524288 kB\n")
    painter, seen = Painter().eval(), []

    def slow(batch, noise):
        assert torch.is_inference_mode_enabled()
        seen.append((batch["image"], (tmp_path / "clear_refs").is_file()))
        Clock.seconds += len(seen)  # 1 and 2 seconds to warm up, then 3 to 10
        return batch["image"]

    monkeypatch.setattr(painter, "generate", slow)
    batches = [{"image": torch.full((1, 3, 4, 4), place / 10), "noise": None} for place in range(10)]
    assert costs.on_card(painter, batches) == {"image_seconds": 6.5, "process_memory_GiB": 0.5}
    assert [cleared for _, cleared in seen] == [False, False, *[True] * 8], "peaks begin after the warm-up"
    monkeypatch.setattr(costs, "PROCESS", tmp_path / "none")  # another system than Linux
    assert costs.on_card(painter, batches).keys() == {"image_seconds"}


@pytest.mark.skipif(not costs.PROCESS.is_dir(), reason="not run: another system than Linux")
def test_the_peak_is_that_of_the_images_and_not_of_what_was_before(monkeypatch):
    painter = Painter().eval()
    batches = [{"image": torch.zeros(1, 3, 4, 4), "noise": None}] * 3
    kept = []
    monkeypatch.setattr(painter, "generate", lambda batch, noise: kept.append(torch.zeros(0)) or batch["image"])
    before = torch.ones(2**26)  # 0.25 GiB
    del before
    without = costs.on_card(painter, batches)["process_memory_GiB"]
    monkeypatch.setattr(painter, "generate", lambda batch, noise: torch.ones(2**26)[:48].view(1, 3, 4, 4))
    assert 0.2 < costs.on_card(painter, batches)["process_memory_GiB"] - without < 0.35


def test_an_evaluation_measures_by_the_card_where_its_table_asks_for_it_and_once(painters, monkeypatch):
    words = ["method=base", *WORDS, "weights=none", "protocol.draws=3"]  # 12 images
    record, run = evaluation.evaluate(config.composed(words))
    assert not record.costs.keys() & set(costs.OF_CARD)
    monkeypatch.setattr(evaluation, "costs_of", lambda name: {"image_seconds"} if name == "other" else set())
    record, again = evaluation.evaluate(config.composed([*words, "experiment=other"]))
    assert again.run_key == run.run_key, "a cost is part of no hash"
    told = json.loads((run.folder / costs.CARD).read_text())
    assert told["image_seconds"] > 0
    assert {key: record.costs[key] for key in told} == told
    monkeypatch.setattr(generation, "on_card", lambda *_: 1 / 0)
    generation.measure(run, torch.device("cpu"))
    assert evaluation.evaluate(config.composed([*words, "experiment=other"]))[0].costs == record.costs


def test_a_table_says_which_costs_it_shows():
    assert experiment_files.costs_of("tokens_diffusion_toy") >= {"image_seconds", "process_memory_GiB", "parameters"}
    assert experiment_files.costs_of("none of ours") == set()


CONTENT = {
    "citation": "Nobody. 2026.",
    "protocol": "manigan",
    "metrics": {"diff": "diff", "IS": "is@standard"},
    "costs": ["parameters", "steps", "CPU seconds"],
    "sources": ["toy"],
    "seeds": [0, 1],
    "rows": [
        {"method": "manigan", "data": "cub", "shown": {"method": name, "dataset": "birds"}} for name in ("new", "old")
    ]
    + [{"method": "identity", "data": "cub", "reference": True, "shown": {"method": "idle", "dataset": "birds"}}],
}
SPENT = {"parameters": 1_249_999, "steps": 3000}


def _records(*of_seeds):
    score = {"value": 0.5, "std": None, "count": 1, "weights": None}
    row, protocol = {"method": "manigan", "data": "cub", "source": "toy"}, {"name": "manigan", "hash": "h"}
    facts = ("k", "c", {"verified": True}, {}, {})
    return [
        results.Result("x", row, seed, protocol, {"diff": score, "is@toy": score}, *facts, costs=told)
        for seed, told in enumerate(of_seeds)
    ]


def _cells(monkeypatch, experiment):
    found = {
        "new": _records({**SPENT, "cpu_seconds": 598.4}, {**SPENT, "cpu_seconds": 601.8}),
        "old": _records({}, {}),
        "idle": _records({"parameters": 0}),
    }
    monkeypatch.setattr(cells, "records_of", lambda _, row, *__: {"manigan": Found(found[row.label])})
    return cells.cells_of(experiment, "toy", [0, 1], [], {"assets": "home"}, {}, experiment.rows)


def _lines(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]


def test_a_table_shows_costs_behind_its_metrics_and_judges_them_by_nothing(monkeypatch):
    experiment = parsed("x", CONTENT)
    found = _cells(monkeypatch, experiment)
    head, _, new, old, idle = _lines(tables.glance(found))
    assert head[4:] == ["diff", "IS", "parameters", "steps", "CPU seconds"]
    assert new[6:] == ["1.2 M", "3,000", "600"]  # the mean of 598.4 and 601.8
    assert old[6:] == ["-", "-", "-"]
    assert idle[6:] == ["0", "-", "-"]
    assert {line["verdict"] for line in tables.texts(found) if line["metric"] in experiment.costs} == {"cost"}
    page = tables.document(experiment, "toy", [0, 1], found)
    assert "Costs, a mean over seeds each, which nothing judges: parameters, those that images are made with" in page
    assert "1.2 M" in tables.rendered(found, "latex")
    counted = tables.summarised({Path("here/x.md"): found}, Path())
    assert _lines(counted)[2][1] == "6", "two metrics of three rows"
    brief = tables.summary(replace(experiment, brief=["diff", "steps"]), found)
    assert _lines(brief)[0][4:] == ["diff", "steps"]


def test_costs_are_no_part_of_what_did_not_learn(monkeypatch):
    experiment = parsed("x", {**CONTENT, "learned": {"below": ["diff"], "of": ["idle"]}})
    found = _cells(monkeypatch, experiment)
    assert {cell.metric for cell in found if cell.unlearned} == {"diff", "IS"}


@pytest.mark.parametrize(
    ("name", "mean", "text"),
    [
        ("parameters", 999.0, "999"),
        ("parameters", 1000.0, "1.0 k"),
        ("trained parameters", 999_960.0, "1.0 M"),  # and not 1000.0 k
        ("parameters", 19_040_000.0, "19.0 M"),
        ("parameters", 2.5e12, "2500.0 G"),
        ("steps", 25000.0, "25,000"),
        ("CPU seconds", 0.6, "1"),
        ("seconds an image", 0.5, "0.5"),
        ("process memory GiB", 1.25, "1.2"),
    ],
)
def test_a_cost_is_written_by_its_kind(name, mean, text):
    cell = Cell("a", "birds", None, 2, name, None, Value({0: mean - 0.1, 1: mean + 0.1}, mean), Verdict.COST)
    assert tables.texts([cell])[0]["reproduced"] == text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"costs": ["parameter"]}, "expected a name for costs in .*found 'parameter': did you mean parameters"),
        ({"brief": ["trained parameters"]}, "expected a name for brief in .*found 'trained parameters'"),
        ({"judged": {"metrics": ["diff"], "by": ["steps"]}}, "expected a metric for judged in .*found 'steps'"),
        ({"learned": {"above": ["steps"], "of": ["idle"]}}, "expected a metric for learned in .*found 'steps'"),
    ],
)
def test_a_mistake_about_costs_is_named(tmp_path, monkeypatch, change, said):
    shipped = catalogue.shipped
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({**CONTENT, **change}))
    monkeypatch.setattr(catalogue, "shipped", lambda name: tmp_path if "conf" not in name else shipped(name))
    with pytest.raises(ValueError, match=said):
        load("x")
