"""The whole path on toy data: compose, generate, score, record, table; and what happens when it is interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from mmbench.commands import reproduce
from mmbench.core import config, results
from mmbench.core.images import read_rgb
from mmbench.pipeline import evaluation, generation

SMALL = ["trainer=cpu", "data.toy_images=80", "protocol.count=12"]


@pytest.fixture
def demo(home, capsys):
    """Runs the demo's reference rows on a few images; returns exit code, printed text and records."""

    def run(*words, method="identity,real"):
        words = (f"method={method}", *words)
        status = reproduce.main(["experiment=demo", "data.source=toy", *SMALL, *words])
        return status, capsys.readouterr(), results.read(home / "results", "demo")

    return run


def test_the_path_from_configuration_to_table(demo, home):
    status, printed, records = demo()
    assert status == 0
    assert len(records) == 2
    identity, real = sorted(records, key=lambda record: record.row["method"])
    value = {name: score["value"] for name, score in identity.metrics.items()}
    assert value["diff"] == value["l1"] == 0
    assert value["preservation"] == value["ssim"] == 1
    assert value["lpips@toy"] == 0
    assert identity.metrics["edit_accuracy"]["value"] < 0.4  # chance: another bird's colours
    assert real.metrics["sim@toy"]["value"] > identity.metrics["sim@toy"]["value"] + 0.2
    assert all(score["count"] == 12 for score in identity.metrics.values())
    assert identity.size == real.size == [64, 64]
    assert all(score["weights"] for name, score in identity.metrics.items() if "@" in name)
    table = (home / "results/tables/demo-toy.md").read_text()
    assert "| identity | toy CUB | 64 x 64 | diff" in " ".join(table.split())
    assert "grid: " in printed.out
    assert "next: " in printed.out


def test_images_manifest_and_prompts_agree(demo, home):
    demo(method="identity")
    (folder,) = (home / "runs/identity-cub-toy").glob("[!.]*")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["count"] == len(manifest["samples"]) == 12
    assert len({entry["id"] for entry in manifest["samples"]}) == 12
    for entry in manifest["samples"]:
        assert read_rgb(folder / entry["file"]).shape == (3, 64, 64)
        assert entry["prompt"]
    assert (folder / "grid.png").stat().st_size > 10_000
    assert (folder / "metrics.csv").read_text().startswith("metric,value,std,count,weights")


def test_a_second_run_computes_nothing_and_a_lost_image_is_drawn_again(demo, home):
    demo(method="identity")
    images = sorted((home / "runs").rglob("samples/**/*.png"))
    before = {image: image.stat().st_mtime_ns for image in images}
    _, _, records = demo(method="identity")
    assert len(records) == 1
    images[3].unlink()
    _, _, records = demo(method="identity")
    assert len(records) == 2
    assert records[0].metrics == records[1].metrics
    after = {image: image.stat().st_mtime_ns for image in images}
    assert [image for image in images if before[image] != after[image]] == [images[3]]


def test_scores_do_not_depend_on_the_batch(demo):
    _, _, (one,) = demo("data.module.batch_size=1", method="real")
    _, _, records = demo("data.module.batch_size=5", method="real")
    assert records == [one], "the size of a batch is no part of what a run is"


def test_another_protocol_or_seed_is_another_run(demo, home):
    demo(method="identity")
    _, _, records = demo("seeds=1", "protocol.seed=3", method="identity")
    assert len({record.run_key for record in records}) == 2
    assert len({record.protocol["hash"] for record in records}) == 2
    assert len(list((home / "runs/identity-cub-toy").glob("[!.]*"))) == 2


def test_without_data_every_row_says_what_is_missing(home, monkeypatch, capsys):
    monkeypatch.setenv("MMBENCH_HOME", str(home / "empty"))
    assert reproduce.main(["experiment=manigan", "trainer=cpu", "data=cub"]) == 1
    printed = capsys.readouterr()
    rows = [line for line in printed.out.splitlines() if line.startswith(("| SISGAN", "| TAGAN", "| ManiGAN"))]
    assert len(rows) == 7 * 4
    assert all("not run (" in row for row in rows)
    page = (home / "results/tables/manigan.md").read_text()
    assert len([line for line in page.splitlines() if "not run (" in line]) == 14 * 4, "the page has the whole table"
    assert any(
        "CUB_200_2011" in row and "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081" in row
        for row in rows
    )
    assert "Traceback" not in printed.out + printed.err


def test_a_data_set_without_the_needed_fields_fails_at_once(home, monkeypatch):
    from mmbench.data.cub import ToyCUB

    monkeypatch.setattr(ToyCUB, "fields", frozenset({"id", "image", "caption"}))
    cfg = config.composed(["method=identity", "data.source=toy", *SMALL])
    with pytest.raises(ValueError, match="expected the fields caption_mismatched for text-guided"):
        generation.prepared(cfg)
    assert not (home / "runs").exists()


def _command(home, *words):
    command = [sys.executable, "-m", "mmbench", "evaluate", "method=real", "data.source=toy", "trainer=cpu", *words]
    return subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.timeout(120)
def test_a_killed_evaluation_goes_on_and_ends_with_the_same_record(home):
    words = ["data.toy_images=400", "data.module.batch_size=1"]
    run = _command(home, *words)
    while len(found := list(home.glob("runs/real-*/*/samples/**/*.png"))) < 3:
        assert run.poll() is None, run.stdout.read()
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    written = list(home.glob("runs/real-*/*/samples/**/*.png"))
    assert 3 <= len(found) <= len(written) < 100
    assert not list(home.glob("results/real/*.json"))
    before = {path: path.stat().st_mtime_ns for path in written}
    again = _command(home, *words)
    assert again.wait() == 0, again.stdout.read()
    assert {path: path.stat().st_mtime_ns for path in written} == before, "images that were there are used as they are"
    assert not [path for path in home.rglob("samples/**/.*") if path.is_file() and path not in written]
    (record,) = results.read(home / "results", "real")

    evaluation.evaluate(config.composed(["method=real", "data.source=toy", "trainer=cpu", "experiment=whole", *words]))
    for path in home.glob("runs/real-*/*/samples/**/*.png"):
        path.unlink()
    whole, _ = evaluation.evaluate(
        config.composed(["method=real", "data.source=toy", "trainer=cpu", "experiment=whole", *words])
    )
    assert whole.metrics == record.metrics
    assert whole.run_key == record.run_key


@pytest.mark.slow
def test_a_wheel_carries_configuration_and_published_numbers(tmp_path):
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(root)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    for name in ("conf/run.yaml", "experiments/manigan.yaml", "results/published/manipulation.csv"):
        assert f"mmbench/{name}" in held
    assert "mmbench/networks/toy/clip.safetensors" in held
