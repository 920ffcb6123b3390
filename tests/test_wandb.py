"""Weights & Biases mirrors a run; without a key it is kept offline and can be read back."""

import json
import struct
import time

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from mmbench.core import config
from mmbench.pipeline import evaluation

BLOCK, HEADER = 32768, 7


def _records(path):
    """Records of an offline run: LevelDB's log format (blocks of 32 KiB; checksum, length, kind before a piece)."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    place, pieces = HEADER, b""
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + HEADER])
        pieces += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(pieces)
            pieces = b""
            yield record


def _finished(path, seconds=30):
    """All records, once the last is there: W&B's own process may still be writing when `finish` returns."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        records = list(_records(path))
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        time.sleep(0.1)
    pytest.fail(f"no last record within {seconds} s")


def test_an_offline_run_holds_metrics_table_and_grid(home, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(home / "none"))
    monkeypatch.setenv("HOME", str(home))
    wandb.teardown()  # it remembers the key of whoever asked before
    words = ["method=real", "data.source=toy", "trainer=cpu", "data.toy_images=80", "protocol.count=12", "logger=wandb"]
    record, run = evaluation.evaluate(config.composed(words))
    (path,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    logged = {}
    for entry in _finished(path):
        for item in entry.history.item:
            logged[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    for name, score in record.metrics.items():
        assert logged[f"score/{name}"] == score["value"]
    assert logged["metrics._type"] == "table-file"
    table = json.loads((path.parent / "files" / logged["metrics.path"]).read_text())
    assert {row[table["columns"].index("metric")] for row in table["data"]} == set(record.metrics)
    (grid,) = logged["grid.filenames"]
    assert (path.parent / "files" / grid).read_bytes() == (run.folder / "grid.png").read_bytes()
