"""Many rows by two processes at once: one record of each, none lost or doubled, and memory that does not grow."""

import time

import psutil
import pytest

from mmbench.core import results
from mmbench.maintenance import drill
from mmbench.pipeline import curves, evaluation, experiments, reproducing, tables  # noqa: F401  (once, before forks)

WORDS = ["experiment=rows", *drill.TOY[1:], "trainer=cpu", "scale=tiny"]
GROWTH = 20_000  # bytes a row: what is said of it in the table, and nothing of its pictures, networks or data


def of_rows(count):
    """An experiment of so many rows, each with a seed of its own."""
    rows = [
        {"method": "identity", "data": "cub", "seeds": [seed], "shown": {"method": f"row {seed}", "dataset": "birds"}}
        for seed in range(count)
    ]
    facts = {"protocol": "strict", "metrics": {"L1": "l1", "PSNR": "psnr"}, "sources": ["toy"], "grid": 1}
    return {"citation": "None: many rows.", **facts, "seeds": list(range(count)), "rows": rows}


STRICT = {"defaults": [{"/metric@metrics.l1": "l1"}, {"/metric@metrics.psnr": "psnr"}, "_self_"], "count": 2}


@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize(
    "count", [8, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])], ids=["few", "thousand"]
)
def test_two_processes_share_rows(tmp_path, monkeypatch, count):
    monkeypatch.setitem(drill.WORDS, "reproduce", WORDS)
    monkeypatch.delenv("MMBENCH_RUNS", raising=False)
    monkeypatch.delenv("MMBENCH_RESULTS", raising=False)
    place = drill.Place(tmp_path)

    def started(number):
        folder, changes = tmp_path / f"shipped-{number}", {"protocol/strict": STRICT}
        return place.start("reproduce", before=lambda: drill.ship(folder, {"rows": of_rows(count)}, changes))

    start = time.monotonic()
    runs = [started(number) for number in range(2)]
    memory = {}
    while any(run.poll() is None for run in runs):
        made = len(list((tmp_path / "results/rows").glob("[!.]*.json")))
        if made not in memory:
            memory[made] = [psutil.Process(run.pid).memory_info().rss for run in runs if run.poll() is None]
        time.sleep(0.05)
    seconds = time.monotonic() - start
    assert [run.code for run in runs] == [0, 0], [run.errors.read_text() for run in runs]
    records = results.read(tmp_path / "results", "rows")
    assert sorted(record.seed for record in records) == list(range(count))
    assert all(record.metrics["l1"] == records[0].metrics["l1"] for record in records)
    page = (tmp_path / "results/tables/rows-toy.md").read_text()
    assert all(f"| row {seed} " in page for seed in range(count))
    sampled = {made: max(sizes) for made, sizes in memory.items() if sizes and made >= count // 10}
    first, last = sampled[min(sampled)], sampled[max(sampled)]
    print(
        f"{count} rows in {seconds:.0f} s, {first / 2**20:.0f} MiB after {min(sampled)}, {last / 2**20:.0f} at the end"
    )
    print({made: size // 2**20 for made, size in sampled.items()})
    if count >= 1000:
        assert last - first < GROWTH * count
