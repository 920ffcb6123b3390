"""What edits, inpaints or draws after captions does so as it did, with the losses it had; no injected fault passes.

Faults are injected into the network or its training, and are to be caught by the comparison that guards the real one.
"""

import os
import shutil
import statistics
from pathlib import Path

import pytest

from mmbench.core import config
from mmbench.maintenance import regression
from mmbench.methods.inpainting.csa import CSA
from mmbench.methods.manipulation.manigan_direct import DirectEditor, ManiGANDirect
from mmbench.methods.synthesis.attngan import AttnGAN
from mmbench.networks.attngan import Discriminator
from mmbench.networks.damsm import EncodedText
from mmbench.pipeline import assembly, stages, training

NO_BASELINE = not (regression.BASELINES / "slow.json").is_file()
SLOW = [pytest.mark.slow, pytest.mark.skipif(NO_BASELINE, reason="no baseline: make regression-baseline ARGS=slow")]
NAMES = ["fast", pytest.param("slow", marks=SLOW), "inpainting", "synthesis"]
CHANCE = 0.1  # edit accuracy of colours guessed among ten; R-precision, in per cent, of captions guessed among ten
# What a trained method is to be better at than one that does nothing, and what nothing does.
JUDGED = {
    "fast": ("edit_accuracy", CHANCE),
    "slow": ("edit_accuracy", CHANCE),
    "inpainting": ("psnr_in_mask", 0.0),
    "synthesis": ("r_precision@toy", 100 * CHANCE),
}

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


def before(place: Path, name: str) -> list[Path]:
    """The folders of the stages that the method stands on, trained now if they have not been."""
    plain = config.composed(regression.words(name, "seed=0", f"paths.runs={place}"))
    first = stages.predecessors(plain).values()
    return [training.trained(one, assembly.prepared_data(one)).folder for one in first]


def measured_beside(trained: list[Path], place: Path, fault: str, name: str) -> dict[str, float]:
    """What is measured in a folder of its own, to which the trainings that are not to be run again are copied."""
    for folder in trained:
        shutil.copytree(folder, place / fault / folder.relative_to(place), dirs_exist_ok=True)
    found = regression.measured(name, 0, place / fault)
    print(fault, found, *regression.differences(found, regression.baseline(name)), sep="\n")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_it_does_as_it_did(place, name):
    found = regression.measured(name, 0, place)
    assert regression.differences(found, regression.baseline(name)) == []


KINDS = {"fast": ManiGANDirect, "inpainting": CSA, "synthesis": AttnGAN}


def broken_sign(patch, kind):
    """The words of a caption are to match its image as badly as they can."""
    terms = kind.generator_terms

    def fault(self, *given):
        found = terms(self, *given)
        return found | {"DAMSM_words": -found["DAMSM_words"]}

    patch.setattr(kind, "generator_terms", fault)


def frozen_generator(patch, kind):
    """Its losses are computed, and it is never stepped."""
    minimise = kind.minimise

    def fault(self, name, terms):
        if name == "generator":
            self.total(name, terms)
        else:
            minimise(self, name, terms)

    patch.setattr(kind, "minimise", fault)


def swapped_prompts(patch, kind):
    """Images are made from the prompts of other images of their batch, by a network that was trained as it is."""
    generate = kind.generate

    def fault(self, batch, noise):
        prompts = batch[self.task.prompt]
        return generate(self, {**batch, self.task.prompt: [*prompts[1:], prompts[0]]}, noise)

    patch.setattr(kind, "generate", fault)


def swapped_fills(patch, kind):
    """Each hole is filled with what was painted for another image of its batch, by networks trained as they are."""
    generate = kind.generate
    patch.setattr(kind, "generate", lambda self, batch, noise: generate(self, batch, noise).roll(1, dims=0))


def swapped_captions(patch, kind):
    """The generator is given other texts of the batch than its losses are, in training and afterwards."""
    forward = DirectEditor.forward

    def fault(self, image, regions, words, word_mask):
        return forward(self, image, regions, words.roll(1, dims=0), word_mask.roll(1, dims=0))

    patch.setattr(DirectEditor, "forward", fault)


def swapped_texts(patch, kind):
    """As `swapped_captions`, of a generator that is given texts encoded."""
    drawn = kind.drawn

    def fault(self, network, text, noise):
        return drawn(self, network, EncodedText(*(part.roll(1, dims=0) for part in text)), noise)

    patch.setattr(kind, "drawn", fault)


def dropped_mismatched_pairs(patch, kind):
    """Real images with others' sentences are no false pairs for the discriminators: generated ones count twice."""
    judge_pairs = Discriminator.judge_pairs

    def fault(self, *given):
        logits = judge_pairs(self, *given)
        return logits._replace(real_mismatched=logits.fake_matched)

    patch.setattr(Discriminator, "judge_pairs", fault)


def caught(found: dict[str, float], name: str, by: str | None = None) -> bool:
    differences = regression.differences(found, regression.baseline(name))
    return any(difference.startswith(by or JUDGED[name][0]) for difference in differences)


TRAINING = [
    *(("fast", fault, None) for fault in (broken_sign, frozen_generator, swapped_captions)),
    *(("synthesis", fault, None) for fault in (broken_sign, frozen_generator, swapped_texts)),
    ("synthesis", dropped_mismatched_pairs, "discriminators/"),
]


@pytest.mark.slow  # a training each; in CI what is caught is a fault of generation
@pytest.mark.parametrize(
    ("name", "fault", "by"), TRAINING, ids=[f"{name}-{fault.__name__}" for name, fault, _ in TRAINING]
)
def test_a_fault_of_training_is_caught(place, monkeypatch, name, fault, by):
    trained = before(place, name)
    fault(monkeypatch, KINDS[name])
    assert caught(measured_beside(trained, place, fault.__name__, name), name, by)


@pytest.mark.parametrize(
    ("name", "fault"), [("fast", swapped_prompts), ("inpainting", swapped_fills), ("synthesis", swapped_prompts)]
)
def test_a_fault_of_generation_is_caught(place, monkeypatch, name, fault):
    regression.measured(name, 0, place)
    trained = [folder for folder in place.glob("train/*/*") if folder.is_dir()]
    fault(monkeypatch, KINDS[name])
    assert caught(measured_beside(trained, place, fault.__name__, name), name)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_nothing_is_far_outside_the_tolerance(name):
    baseline, (metric, nothing) = regression.baseline(name), JUDGED[name]
    value = baseline["values"][metric]
    idle = (baseline[which][metric] for which in ("untrained", "idle") if which in baseline)
    assert value["mean"] - value["tolerance"] > max(nothing, *idle)


@pytest.mark.parametrize("name", NAMES)
def test_a_tolerance_is_the_spread_of_the_seeds(name):
    for compared, value in regression.baseline(name)["values"].items():
        assert len(value["seeds"]) == len(regression.SEEDS) >= 5, compared
        assert value["mean"] == pytest.approx(statistics.fmean(value["seeds"])), compared
        assert value["tolerance"] == pytest.approx(regression.DEVIATIONS * statistics.stdev(value["seeds"])), compared
