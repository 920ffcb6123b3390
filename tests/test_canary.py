"""The drift canary: silent as long as nothing changes, and one line that names what did."""

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from mmbench.core import results
from mmbench.metrics.suite import MetricSuite
from mmbench.pipeline import canary


@pytest.fixture
def suite():
    return MetricSuite.named("fid", "is", "sim", "lpips", "psnr", extractor="toy")


@pytest.fixture
def looked(suite, tmp_path, monkeypatch, capsys):
    """Checks as another process would; the changes it found and what it printed."""

    def again():
        monkeypatch.setattr(canary, "_checked", {})
        changed = canary.check(suite, tmp_path)["changed"]
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.splitlines() == [f"mmbench: warning: {line}" for line in changed]
        return changed

    return again


def test_the_pictures_are_eight_of_many_kinds():
    pictures = [Image.open(path) for path in canary.FOLDER.iterdir()]
    assert len(pictures) == 8
    assert {picture.format for picture in pictures} == {"PNG", "JPEG"}
    assert {picture.mode for picture in pictures} == {"RGB", "L", "P", "RGBA"}
    assert any(picture.width % 2 and picture.height % 2 for picture in pictures)
    assert sum(path.stat().st_size for path in canary.FOLDER.iterdir()) < 300_000


def test_what_is_first_seen_is_kept_for_each_network_and_nothing_is_said(looked, tmp_path):
    assert looked() == []
    kept = {path.name.partition("-")[2] or path.name for path in (tmp_path / "canary").rglob("*.safetensors")}
    assert kept == {
        "decoded.safetensors",
        "resized.safetensors",
        "ToyInception.safetensors",
        "ToyCLIP.safetensors",
        "ToyLPIPS.safetensors",
    }
    with safe_open(next((tmp_path / "canary").rglob("*ToyCLIP*")), "pt") as file:
        assert file.get_tensor("image.embedding").shape == (8, 64)
        assert file.get_tensor("text.embedding").shape == (len(canary.CAPTIONS), 64)
    assert looked() == []


def test_another_decoder_is_named_with_the_release_that_changed(looked, monkeypatch):
    looked()
    decode, versions = canary.read_rgb, results.versions
    monkeypatch.setattr(
        canary, "read_rgb", lambda path: decode(path) ^ (torch.tensor(1, dtype=torch.uint8) * (path.suffix == ".jpg"))
    )
    monkeypatch.setattr(results, "versions", lambda: {**versions(), "pillow": "99.0"})
    first, *_ = looked()
    assert first.startswith("the decoding of images changed by ")
    assert f"pillow {versions()['pillow']} -> 99.0" in first
    assert "torch " not in first


def test_another_resize_is_named(looked, monkeypatch):
    looked()
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda image, size, kind: resize(image, size, Image.Resampling.BOX))
    changed = looked()
    assert changed[0].startswith("the resizing of images changed")
    assert not any("decoding" in line for line in changed)


def test_features_may_change_by_rounding_and_not_by_more(looked, suite):
    looked()
    judge = suite.metrics["fid"].extractor.network
    assert looked() == []
    for relative, silent in ((1e-6, True), (1e-2, False)):
        with torch.no_grad():
            judge.attributes.weight.mul_(1 + relative)
        assert (looked() == []) == silent
    (line,) = looked()
    assert line.startswith("the features of ToyInception changed by ")
    assert "no library, device or switch that is known did" in line


def test_a_network_is_looked_through_once_per_process(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(canary, "_checked", {})
    canary.check(suite, tmp_path)
    monkeypatch.setattr(canary, "_features", None)
    assert canary.check(suite, tmp_path)["changed"] == []


def test_a_damaged_file_is_named(looked, tmp_path):
    looked()
    (tmp_path / f"canary/{canary.VERSION}/decoded.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"decoded.safetensors: expected what the canary kept, found a damaged file"):
        looked()
