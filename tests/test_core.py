"""Files, noise, images, tasks and frozen networks: the ground everything stands on."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from mmbench.core import torchvision_schema
from mmbench.core.files import (
    CannotWrite,
    locked,
    sha256_file,
    sha256_json,
    write_json,
    write_text,
    written_atomically,
)
from mmbench.core.frozen import Frozen
from mmbench.core.images import from_uint8, pyramid, read_rgb, to_uint8, write_png
from mmbench.core.noise import Noise, Sample, TrainingNoise, random_stream
from mmbench.core.task import TEXT_GUIDED_EDITING, Task


def test_rounding_rule_is_the_nearest_level_and_its_own_inverse():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(levels)), levels)
    assert to_uint8(torch.tensor([-1.5, -1.0, 0.999, 1.0, 1.5])).tolist() == [0, 0, 255, 255, 255]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_image_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="expected finite pixel values"):
        to_uint8(torch.tensor([0.0, bad]))


def test_png_round_trip_is_exact(tmp_path):
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 5, 7), dtype=np.uint8))
    write_png(tmp_path / "class/bird.png", image)
    assert torch.equal(read_rgb(tmp_path / "class/bird.png"), image)


def test_a_truncated_or_absent_image_is_one_error_that_names_it(tmp_path):
    path = tmp_path / "bird.png"
    with pytest.raises(ValueError, match=r"bird\.png: expected an image, found no file"):
        read_rgb(path)
    write_png(path, torch.zeros(3, 64, 64, dtype=torch.uint8))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"bird\.png: expected a whole image"):
        read_rgb(path)


def test_pyramid_keeps_the_full_size_untouched_and_means_of_flat_images():
    image = torch.full((1, 3, 64, 64), 0.25)
    small, full = pyramid(image, [32, 64])
    assert full is image
    torch.testing.assert_close(small, torch.full((1, 3, 32, 32), 0.25))


def test_noise_of_a_sample_does_not_depend_on_its_batch():
    samples = [Sample("a/1", 0, 0), Sample("a/1", 0, 1), Sample("b/2", 3, 0)]
    whole = Noise(7, samples).normal("z", 4, 2)
    alone = torch.cat([Noise(7, [sample]).normal("z", 4, 2) for sample in reversed(samples)]).flip(0)
    assert torch.equal(whole, alone)
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole, Noise(8, samples).normal("z", 4, 2))
    assert not torch.equal(whole, Noise(7, samples).normal("eps", 4, 2))


def test_noise_is_standard_normal_and_uniform():
    noise = Noise(0, [Sample(str(index), 0, 0) for index in range(64)])
    normal, uniform = noise.normal("z", 256), noise.uniform("u", 256)
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
    assert 0 <= uniform.min() < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.02


def test_random_streams_are_frozen():
    # A change here changes every toy picture and every sample: records made before could not be met again.
    assert random_stream(0, "id", 1).integers(0, 2**31, 3).tolist() == [2139598006, 505978450, 1584109853]
    assert random_stream("1").random() != random_stream(1).random()


def test_a_task_speaks_the_vocabulary_of_batches():
    assert TEXT_GUIDED_EDITING.missing(frozenset({"image", "caption"})) == ["caption_mismatched"]
    with pytest.raises(AssertionError, match="vocabulary"):
        Task("sculpting", ("marble",), None, "image")


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"value": 1})
    with pytest.raises(TypeError), written_atomically(path) as partial:
        partial.write_bytes([b"half", None])
    assert path.read_text() == '{\n  "value": 1\n}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_what_is_written_goes_where_a_link_leads_and_never_in_the_place_of_a_pipe(tmp_path):
    (tmp_path / "link").symlink_to("target")
    write_text(tmp_path / "link", "first")
    write_text(tmp_path / "link", "second")
    assert (tmp_path / "target").read_text() == "second"
    assert (tmp_path / "link").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CannotWrite, match=r"pipe as a file, found what is no regular one: name another place$"):
        write_text(tmp_path / "pipe", "lost")
    assert (tmp_path / "pipe").is_fifo()


def test_json_refuses_what_is_not_a_number(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "record.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


def test_canonical_hash_ignores_the_order_of_keys():
    assert sha256_json({"a": 1, "b": [2, None]}) == sha256_json({"b": [2, None], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": "1"})


def test_file_hash_is_sha256(tmp_path):
    (tmp_path / "empty").touch()
    assert sha256_file(tmp_path / "empty").startswith(
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


def _hold(path, acquired):
    with locked(path):
        acquired.set()
        time.sleep(60)


@pytest.mark.timeout(30)
def test_a_lock_survives_its_killed_owner(tmp_path):
    context = multiprocessing.get_context("spawn")
    acquired = context.Event()
    owner = context.Process(target=_hold, args=(tmp_path / "data", acquired), daemon=True)
    owner.start()
    acquired.wait(20)
    os.kill(owner.pid, signal.SIGKILL)
    owner.join(5)
    with locked(tmp_path / "data"):
        pass


class _Owner(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2)
        self.judge = Frozen(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


def test_a_frozen_network_is_neither_trained_nor_saved():
    owner = _Owner().train()
    before = {name: value.clone() for name, value in owner.judge.network.state_dict().items()}
    assert sorted(owner.state_dict()) == ["head.bias", "head.weight"]
    inputs = torch.randn(4, 2, requires_grad=True)
    owner.judge(inputs).square().sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in owner.judge.parameters())
    other = _Owner()
    other.judge = owner.judge
    other.load_state_dict(owner.state_dict(), strict=True)
    after = owner.judge.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_torchvision_imports_beside_a_torch_of_another_build():
    code = (
        "import mmbench.core.torchvision_schema as schema, torchvision, lpips, torch_fidelity, open_clip\n"
        "assert schema.declare_missing_operators() == []"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_schemas_are_declared_only_where_the_compiled_part_cannot_load(monkeypatch):
    monkeypatch.setattr(torchvision_schema, "compiled_part_loads", lambda: True)
    monkeypatch.setattr(torchvision_schema, "MISSING", {"never": "never(Tensor a) -> Tensor"})
    assert torchvision_schema.declare_missing_operators() == []
    assert not hasattr(torch.ops.torchvision, "never")
    monkeypatch.setattr(torchvision_schema, "compiled_part_loads", lambda: False)
    assert torchvision_schema.declare_missing_operators() == ["never"]
    assert hasattr(torch.ops.torchvision, "never")


def test_the_noise_of_training_belongs_to_a_sample_whatever_its_batch():
    samples = [Sample(name, 0, epoch) for name in "ab" for epoch in (0, 1)]
    whole = TrainingNoise(0, samples).normal("z", 50, 40)
    assert torch.equal(whole[1:3], TrainingNoise(0, samples[1:3]).normal("z", 50, 40))
    others = [TrainingNoise(1, samples).normal("z", 50, 40), TrainingNoise(0, samples).normal("eps", 50, 40)]
    assert len({value for noise in (whole, *others) for value in noise[:, 0, 0].tolist()}) == 12
    assert abs(whole.mean()) < 0.05
    assert abs(whole.std() - 1) < 0.05
    uniform = TrainingNoise(0, samples).to("cpu").uniform("u", 50, 40)
    assert 0 <= uniform.min() < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.02


@pytest.mark.gpu
def test_the_noise_of_training_is_drawn_on_the_device_that_uses_it():
    assert TrainingNoise(0, [Sample("a", 0, 0)]).to("cuda").normal("z", 3).device.type == "cuda"
