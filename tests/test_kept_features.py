"""Features of a run's images: kept beside them, made again when gone, and drawn from."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from mmbench.core import config, results
from mmbench.core.results import _seal
from mmbench.pipeline import by_sample, evaluation, kept_features
from mmbench.pipeline.kept_features import read

WORDS = [
    *("method=identity", "protocol=strict", "data=cub", "data.source=toy", "data.toy_images=80", "trainer=cpu"),
    *("protocol.count=12", "protocol.metrics.is.splits=2"),
]


@pytest.fixture
def evaluated(home):
    record, run = evaluation.evaluate(config.composed(WORDS))
    return record, run, home / "results" / "identity"


def test_features_are_made_again_from_the_images_and_scores_of_whole_sets_vary(evaluated):
    record, run, folder = evaluated
    judge = record.metrics["fid@toy"]["weights"]
    file = kept_features.path(run.folder, "toy", judge)
    samples, outputs = read(file)
    assert samples == sorted(run.samples)
    assert len(outputs["features"]) == len(outputs["logits"]) == 12
    varying = by_sample.varying(record, folder)
    assert varying.deviations.keys() == {"fid@toy", "is(splits=2)@toy"}
    assert varying.count == 12
    assert all(len(one) == 100 and np.ptp(one) > 0 for one in varying.deviations.values())

    before = file.read_bytes()
    file.unlink()
    again, _ = evaluation.evaluate(config.composed(WORDS))
    assert again == record, "no new record"
    assert file.read_bytes() == before, "to the bit"

    # As one of before: what varies is found from the images that are there, and a record is added.
    (path,) = folder.glob("*.json")
    content = {**asdict(record), "samples": {}}
    path.write_text(json.dumps({**content, "sha256": _seal(content)}))
    upgraded, _ = evaluation.evaluate(config.composed(WORDS))
    assert len(results.read(folder.parent, "identity")) == 2
    assert upgraded.metrics == record.metrics
    assert np.array_equal(by_sample.varying(upgraded, folder).deviations["fid@toy"], varying.deviations["fid@toy"])
