"""Generation that takes long: it is kept image by image, says how far it is, and goes on where it was stopped."""

import pytest
import torch

from mmbench.core import config, progress
from mmbench.core.method import Method
from mmbench.core.task import TEXT_TO_IMAGE
from mmbench.pipeline import generation

WORDS = ["method=patient", "protocol=strict_synthesis", "data.source=toy", "data.toy_images=80", "trainer=cpu"]


class Patient(Method):
    """Grey of a level that belongs to the sample; is stopped before it has made what `stops_at` says."""

    task = TEXT_TO_IMAGE
    at_once = 2
    made: list[int]
    stops_at = None

    def generate(self, batch, noise):
        if len(Patient.made) == self.stops_at:
            raise ValueError("stopped")
        Patient.made.append(len(batch["id"]))
        return noise.uniform("grey", 1, 1, 1).expand(-1, 3, 8, 8)


@pytest.fixture
def run(tiny, home):
    (tiny.folder / "method/patient.yaml").write_text(
        "# Takes its time\nname: patient\nmodule: {_target_: test_generation.Patient}\n"
    )
    plain = config.composed([*WORDS, "protocol.count=7"])
    plain["protocol"]["metrics"] = {}
    Patient.made, Patient.stops_at = [], None
    return generation.prepared(plain)


def test_what_was_finished_is_kept_and_the_next_run_makes_the_rest(run, monkeypatch):
    monkeypatch.setattr(Patient, "stops_at", 2)
    with pytest.raises(ValueError, match="stopped"):
        generation.generate(run)
    assert [run.file(sample).is_file() for sample in run.samples] == [True] * 4 + [False] * 3
    before = {sample: run.read(sample) for sample in run.samples[:4]}
    monkeypatch.setattr(Patient, "stops_at", None)
    generation.generate(run)
    assert Patient.made == [2, 2, 2, 1]
    assert all(torch.equal(run.read(sample), image) for sample, image in before.items())


def test_it_says_how_far_it_is_and_what_remains(run, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    generation.generate(run)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("generating: ")]
    assert [line.split(",")[0] for line in lines[:-1]] == [f"generating: {made} of 7" for made in (2, 4, 6)]
    assert all("0:00:00 to go" in line for line in lines[:-1])
