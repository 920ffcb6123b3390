"""The demo's own values, from records to the lines of the published CSV."""

import pandas as pd
import pytest
import torch

from mmbench.core import catalogue, config
from mmbench.core.results import Result
from mmbench.maintenance import publish
from mmbench.pipeline.lookup import Found


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The CSV that is rewritten, as it was, and a function that makes the records that are found."""
    shipped, path = catalogue.shipped, tmp_path / "toy.csv"
    path.write_bytes((shipped("results/published") / "toy.csv").read_bytes())
    monkeypatch.setattr(catalogue, "shipped", lambda name: tmp_path if name == "results/published" else shipped(name))

    def found(*complete):
        def of(*asked):
            experiment, row, source, seeds = asked[:4]
            made = records(experiment, row, source, seeds) if experiment.name in complete else []
            return {protocol: Found(made) for protocol in experiment.protocols(row.data)}

        monkeypatch.setattr(publish, "records_of", of)

    return path, found


def records(experiment, row, source, seeds):
    """One record for each seed, in which every metric is a tenth of the seed, and a hundred for identity's."""
    names = [experiment.metric(metric, row, source) for metric in experiment.metrics]
    value = 100.0 if row.method == "identity" else 0.0
    words = ["method=identity", "data.source=toy", f"protocol={experiment.protocols(row.data)[0]}"]
    protocol = config.composed(words)["protocol"]
    return [
        Result(
            experiment=experiment.name,
            row={},
            seed=seed,
            protocol={"name": "strict-toy", "hash": "0" * 64},
            metrics={name: {"value": value + seed / 10} for name in names},
            run_key="",
            config_hash="",
            weights={},
            data={"split": "test"},
            config={"protocol": protocol},
            size=[64, 64],
            commit="1" * 40,
        )
        for seed in seeds
    ]


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_without_records_nothing_changes(own, capsys):
    path, found = own
    found()
    before = read(path)
    assert publish.main([]) == 0
    pd.testing.assert_frame_equal(read(path), before)
    assert "demo: left as it is, since records are missing of identity" in capsys.readouterr().out


def test_every_row_and_metric_is_published_once_with_its_spread_over_seeds(own):
    path, found = own
    before = read(path)
    found("demo", "demo_seeds")
    assert publish.main([]) == 0
    lines = read(path)
    assert list(lines.columns) == list(before.columns)
    key = ["table", "method", "variant", "dataset", "metric"]
    assert not lines.duplicated(key).any()
    assert sorted(lines[key].itertuples(index=False)) == sorted(before[key].itertuples(index=False))
    identity = lines[(lines.table == "demo-seeds") & (lines.method == "identity")]
    assert set(identity.value) == {"100.1000"}
    assert set(identity.uncertainty) == {"0.1000"}
    once = lines[(lines.table == "demo") & (lines.method == "identity")]
    assert set(once.value) == {"100.0000"}
    assert set(once.uncertainty) == {"0.1000"}, "what the table of several seeds found"
    assert set(lines[lines.variant == "main module untrained"].uncertainty) == {""}, "no other table has it"
    assert set(lines.source) == {f"this repository at 111111111111, torch {torch.__version__}"}
    assert set(lines[lines.metric == "FID"].higher_is_better) == {"false"}
    assert set(lines[lines.metric == "IS"].higher_is_better) == {"true"}


def test_a_table_without_all_its_records_keeps_its_lines(own):
    path, found = own
    before = read(path)
    found("demo_seeds")
    publish.main([])
    after = read(path)
    kept, was = (frame[frame.table == "demo"].sort_values(["method", "variant", "metric"]) for frame in (after, before))
    assert kept.value.tolist() == was.value.tolist()
    assert set(after[after.table == "demo-seeds"].value) == {"0.1000", "100.1000"}
