"""A configuration shown to edit edits as it did, with the losses that it had; and no injected fault passes for it.

Faults are injected into the network or its training, and are to be caught by the comparison that guards the real one.
"""

import os
import shutil
import statistics
from pathlib import Path

import pytest

from mmbench.core import config
from mmbench.maintenance import regression
from mmbench.methods.manipulation.manigan_direct import DirectEditor, ManiGANDirect
from mmbench.pipeline import assembly, stages, training

NO_BASELINE = not (regression.BASELINES / "slow.json").is_file()
SLOW = [pytest.mark.slow, pytest.mark.skipif(NO_BASELINE, reason="no baseline: make regression-baseline ARGS=slow")]
SIZES = ["fast", pytest.param("slow", marks=SLOW)]
CHANCE = 0.1  # edit accuracy of colours guessed among ten

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder of all runs; test processes that work at once share it, and so the stages and the data."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "regression"
    own = folder / f"conf{os.getpid()}"
    with pytest.MonkeyPatch.context() as patch, regression.own_methods(own):
        patch.setenv("MMBENCH_HOME", str(folder / "home"))
        yield folder


def before(place: Path) -> list[Path]:
    """The folders of the stages that the method stands on, trained now if they have not been."""
    plain = config.composed(regression.words("fast", "seed=0", f"paths.runs={place}"))
    first = stages.predecessors(plain).values()
    return [training.trained(one, assembly.prepared_data(one)).folder for one in first]


def measured_beside(trained: list[Path], place: Path, name: str) -> dict[str, float]:
    """What is measured in a folder of its own, to which the trainings that are not to be run again are copied."""
    for folder in trained:
        shutil.copytree(folder, place / name / folder.relative_to(place), dirs_exist_ok=True)
    found = regression.measured("fast", 0, place / name)
    print(name, found, *regression.differences(found, regression.baseline("fast")), sep="\n")
    return found


@pytest.mark.parametrize("size", SIZES)
def test_it_edits_as_it_did(place, size):
    found = regression.measured(size, 0, place)
    assert regression.differences(found, regression.baseline(size)) == []


def broken_sign(patch):
    """The words of a caption are to match its image as badly as they can."""
    terms = ManiGANDirect.generator_terms

    def fault(self, *given):
        found = terms(self, *given)
        return found | {"DAMSM_words": -found["DAMSM_words"]}

    patch.setattr(ManiGANDirect, "generator_terms", fault)


def frozen_generator(patch):
    """Its losses are computed, and it is never stepped."""
    minimise = ManiGANDirect.minimise

    def fault(self, name, terms):
        if name == "generator":
            self.total(name, terms)
        else:
            minimise(self, name, terms)

    patch.setattr(ManiGANDirect, "minimise", fault)


def swapped_prompts(patch):
    """Images are made from the prompts of other images of their batch, by a network that was trained as it is."""
    generate = ManiGANDirect.generate

    def fault(self, batch, noise):
        prompts = batch[self.task.prompt]
        return generate(self, {**batch, self.task.prompt: [*prompts[1:], prompts[0]]}, noise)

    patch.setattr(ManiGANDirect, "generate", fault)


def swapped_captions(patch):
    """The generator is given other texts of the batch than its losses are, in training and afterwards."""
    forward = DirectEditor.forward

    def fault(self, image, regions, words, word_mask):
        return forward(self, image, regions, words.roll(1, dims=0), word_mask.roll(1, dims=0))

    patch.setattr(DirectEditor, "forward", fault)


def caught_by_edits(found: dict[str, float]) -> bool:
    differences = regression.differences(found, regression.baseline("fast"))
    return any(difference.startswith("edit_accuracy") for difference in differences)


@pytest.mark.slow  # a training each; in CI what is caught is a fault of generation
@pytest.mark.parametrize("fault", [broken_sign, frozen_generator, swapped_captions], ids=lambda fault: fault.__name__)
def test_a_fault_of_training_is_caught(place, monkeypatch, fault):
    trained = before(place)
    fault(monkeypatch)
    assert caught_by_edits(measured_beside(trained, place, fault.__name__))


def test_a_fault_of_generation_is_caught(place, monkeypatch):
    regression.measured("fast", 0, place)
    trained = [folder for folder in place.glob("train/*/*") if folder.is_dir()]
    swapped_prompts(monkeypatch)
    assert caught_by_edits(measured_beside(trained, place, "swapped_prompts"))


@pytest.mark.parametrize("size", SIZES)
def test_what_does_nothing_is_far_outside_the_tolerance(size):
    baseline = regression.baseline(size)
    edits = baseline["values"]["edit_accuracy"]
    idle = (baseline[method]["edit_accuracy"] for method in ("untrained", "identity"))
    assert edits["mean"] - edits["tolerance"] > max(CHANCE, *idle)


@pytest.mark.parametrize("size", SIZES)
def test_a_tolerance_is_the_spread_of_the_seeds(size):
    for name, value in regression.baseline(size)["values"].items():
        assert len(value["seeds"]) == len(regression.SEEDS) >= 5, name
        assert value["mean"] == pytest.approx(statistics.fmean(value["seeds"])), name
        assert value["tolerance"] == pytest.approx(regression.DEVIATIONS * statistics.stdev(value["seeds"])), name
