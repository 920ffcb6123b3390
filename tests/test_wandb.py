"""Weights & Biases mirrors a run; without a key it is kept offline and can be read back."""

import json
import socket
import struct
import time

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from mmbench.core import config
from mmbench.pipeline import evaluation, mirrors

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


@pytest.fixture
def server(home, monkeypatch):
    """Has a key for a server on this machine that says nothing; its socket, which refuses nobody until it is closed."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "none"))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(mirrors, "ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        wandb.teardown()  # it remembers keys and addresses
        yield listening
    wandb.teardown()


def _mirror(folder, **options):
    """A training's mirror on Weights & Biases."""
    node = config.composed(["method=identity", "logger=wandb"])["logger"]["wandb"]
    facts = {**dict.fromkeys(mirrors.FACTS, "any"), "job": "train", "group": "mine", "id": "train-7", "seed": "5"}
    (mirror,) = mirrors.mirrors({"wandb": {**node, **options}}, {**facts, "folder": str(folder)}, {"seed": 5})
    return mirror


@pytest.mark.parametrize("refuses", [True, False])
def test_without_an_answer_a_run_is_kept_offline(server, refuses, capfd):
    if refuses:
        server.close()
    assert mirrors.wandb_mode() == "offline"
    assert "Weights & Biases does not answer: this run is kept offline" in capfd.readouterr().err


def test_a_run_that_goes_on_is_the_same_run_also_when_the_server_goes_away(server, home, monkeypatch):
    server.close()
    monkeypatch.setattr(mirrors, "wandb_mode", lambda: "online")  # as it was when the run began
    for step in range(2):
        mirror = _mirror(home)
        mirror.log_metrics({"damsm/L1_w": 2.5}, step)
        mirror.finalize("success")
    paths = sorted(home.glob("wandb/offline-run-*-train-7*/*.wandb"))  # `-1` behind the second one of a second
    assert len(paths) == 2
    for step, path in enumerate(paths):
        records = _finished(path)
        (run,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
        assert (run.run_id, run.run_group, run.job_type, run.project) == ("train-7", "mine", "train", "mmbench")
        assert "seed 5" in run.tags
        logged = {
            item.key or ".".join(item.nested_key): json.loads(item.value_json)
            for record in records
            for item in record.history.item
        }
        assert (logged["damsm/L1_w"], logged["trainer/global_step"]) == (2.5, step)


def test_a_folder_that_cannot_be_written_ends_no_run(home, monkeypatch):
    (home / "file").touch()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(home / "file" / "below"))
    mirror = _mirror(home, save_dir=str(home / "file" / "below"))
    mirror.log_metrics({"damsm/L1_w": 2.5}, 0)
    mirror.finalize("success")
    assert not mirror._worker.is_alive()


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
