"""Weights from files: the authors' keys, strict loading, and what a file may hold."""

import os
import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmbench.core.cards import Card
from mmbench.core.weights import KeyMap, load_strictly, read_state, with_averages


@pytest.fixture
def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def authors_state(network, prefix="net."):
    return {f"{prefix}{key}": value.clone() for key, value in network.state_dict().items()}


def test_a_key_map_gives_back_what_the_authors_wrote(network):
    state = KeyMap(rename={r"net\.(.*)": r"\1"})(authors_state(network), nn.Sequential(*network))
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in state.items())


def test_the_first_pattern_that_matches_applies_and_only_to_whole_keys():
    keys = KeyMap(rename={r"a\.(.)": r"first.\1", r"a\..*": "second", r"b": "never"})
    assert [keys.name(key) for key in ("a.x", "a.xy", "bb")] == ["first.x", "second", "bb"]


def test_a_prefix_of_data_parallel_is_removed_only_where_every_key_has_it(network):
    wrapped = {f"module.{key}": value for key, value in network.state_dict().items()}
    assert KeyMap()(wrapped, network).keys() == network.state_dict().keys()
    inner = {"module.weight": torch.zeros(1), "other.weight": torch.zeros(1)}
    assert KeyMap()(inner, network).keys() == inner.keys()


def test_what_old_checkpoints_lack_is_filled_and_what_they_have_is_kept(network):
    network[1].num_batches_tracked.fill_(7)
    keys = KeyMap(fill={r".*num_batches_tracked": 0})
    state = dict(network.state_dict())
    assert keys(state, network)["1.num_batches_tracked"] == 7
    del state["1.num_batches_tracked"]
    filled = keys(state, network)["1.num_batches_tracked"]
    assert filled == 0
    assert filled.dtype == torch.int64


def test_keys_are_dropped_converted_and_merged(network):
    authors = {"q": torch.ones(1, 3), "k": torch.zeros(1, 3), "dead": torch.zeros(9), "b": torch.zeros(1, 1)}
    keys = KeyMap(
        drop={"dead": "never used"},
        rename={"b": "0.bias"},
        merge={"0.weight": (("q", "k"), lambda *parts: torch.cat(parts))},
        convert={r"0\.bias": lambda bias: bias.flatten()},
    )
    state = keys(authors, network)
    assert torch.equal(state["0.weight"], torch.tensor([[1.0, 1, 1], [0, 0, 0]]))
    assert state["0.bias"].shape == (1,)
    assert state.keys() == {"0.weight", "0.bias"}


@pytest.mark.parametrize(
    ("keys", "authors", "message"),
    [
        (KeyMap(rename={"b": "a"}), {"a": 0, "b": 0}, "found a second one, b"),
        (KeyMap(merge={"qk": (("q", "k"), torch.cat)}), {"q": 0}, "found no k"),
        (KeyMap(alias=[("a", "b")]), {"a": 0, "b": 1}, "found them to differ"),
        (KeyMap(alias=[("a", "b")]), {"a": 0}, "found no b"),
    ],
)
def test_a_key_map_that_does_not_fit_says_where(network, keys, authors, message):
    with pytest.raises(ValueError, match=message):
        keys({key: torch.tensor(float(value)) for key, value in authors.items()}, network)


def test_of_two_equal_aliases_the_second_stays(network):
    state = KeyMap(alias=[("a", "b")])({"a": torch.ones(2), "b": torch.ones(2)}, network)
    assert state.keys() == {"b"}


def test_strict_loading_copies_every_value(network):
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    load_strictly(other, network.state_dict(), "a file")
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), network.state_dict().values()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("0.weight"), r"1 missing \(first 0\.weight\)"),
        (lambda state: state.update(extra=torch.zeros(1)), r"1 unexpected \(first extra\)"),
        (lambda state: state.update({"0.bias": torch.zeros(5)}), r"0\.bias has shape \(5,\) instead of \(4,\)"),
    ],
)
def test_strict_loading_is_strict_in_both_directions_and_about_shapes(network, change, message):
    state = dict(network.state_dict())
    before = {key: value.clone() for key, value in state.items()}
    change(state)
    with pytest.raises(ValueError, match=message) as caught:
        load_strictly(network, state, "netG.pth")
    assert str(caught.value).startswith("netG.pth: expected")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before PyTorch 1.6"])
def test_both_formats_of_pytorch_are_read(network, tmp_path, zipped):
    torch.save(network.state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    state = read_state(tmp_path / "net.pth")
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in state.items())


def test_tensors_as_pytorch_0_3_pickled_them_are_read(tmp_path):
    class AsIn2017(torch.Tensor):
        def __reduce_ex__(self, protocol):
            return torch._utils._rebuild_tensor, (self.untyped_storage_typed(), 0, (2, 3), (3, 1))

        def untyped_storage_typed(self):
            return self.as_subclass(torch.Tensor)._typed_storage()

    values = torch.arange(6.0).reshape(2, 3)
    state = OrderedDict(weight=values.as_subclass(AsIn2017))
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=False)
    assert b"_rebuild_tensor\n" in (tmp_path / "net.pth").read_bytes()
    assert torch.equal(read_state(tmp_path / "net.pth")["weight"], values)


def test_safetensors_are_read(network, tmp_path):
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    assert read_state(tmp_path / "net.safetensors").keys() == network.state_dict().keys()


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, zipped):
    payload = {"weight": Payload(tmp_path / "made")}
    torch.save(payload, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"also needs \w+\.mkdir: save its state dict alone"):
        read_state(tmp_path / "net.pth")
    assert not (tmp_path / "made").exists()


def test_a_whole_module_is_refused_by_its_class(network, tmp_path):
    torch.save(network, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"also needs torch\.nn\.modules\.container\.Sequential"):
        read_state(tmp_path / "net.pth")


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>quota exceeded</html>", "first half"])
def test_a_damaged_file_is_one_line_that_names_it(network, tmp_path, name, content):
    path = tmp_path / name
    if content == "first half":
        (save_file if name.endswith(".safetensors") else torch.save)(network.state_dict(), path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: expected .*: fetch it again$") as caught:
        read_state(path)
    assert "weights_only" not in str(caught.value)


def test_an_absent_file_is_an_error_of_its_own(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        read_state(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("content", "found"),
    [([torch.zeros(1)], "found list"), ({"state_dict": {"a": torch.zeros(1)}}, "'state_dict' of type dict")],
)
def test_tensors_in_another_shape_than_a_state_dict_are_refused(tmp_path, content, found):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=found):
        read_state(tmp_path / "net.pth")


class Callback:
    """What Lightning's old checkpoints name in `callbacks`, some as classes, some as objects."""

    def __init__(self, path=None):
        self.path = path


def lightning(network, **beside):
    """A checkpoint as Lightning writes one of latent diffusion: three networks, averages of one, objects beside."""
    prefixes = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")
    state = {}
    for shift, prefix in enumerate(prefixes):
        state |= {f"{prefix}{key}": value.clone() + shift for key, value in network.state_dict().items()}
    for name, value in network.named_parameters():
        state[f"model_ema.diffusion_model{name.replace('.', '')}"] = value.detach() + 10
    state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    state["betas"] = torch.linspace(0, 1, 4)
    optimizers = [{"state": {0: {"step": 3}}, "param_groups": [{"lr": 1e-4}]}]
    return {"epoch": 3, "global_step": 99, "state_dict": state, "optimizer_states": optimizers, **beside}


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "first_stage_model.", "cond_stage_model."])
@pytest.mark.parametrize("foreign", [None, Callback, Callback("runs/last.ckpt"), OrderedDict(best={1.5, 2.5})])
def test_each_network_of_a_lightning_checkpoint_fills_ours(network, tmp_path, prefix, foreign):
    torch.save(
        lightning(network, callbacks={foreign: foreign} if foreign is Callback else foreign), tmp_path / "m.ckpt"
    )
    state = read_state(tmp_path / "m.ckpt", "state_dict", prefix)
    shift = ["model.diffusion_model.", "first_stage_model.", "cond_stage_model."].index(prefix)
    assert all(torch.equal(state[key], value + shift) for key, value in network.state_dict().items())
    load_strictly(network, state, "m.ckpt")


def test_averages_over_training_take_the_place_of_parameters_and_buffers_stay(network, tmp_path):
    torch.save(lightning(network), tmp_path / "m.ckpt")
    state = read_state(tmp_path / "m.ckpt", "state_dict", "model.diffusion_model.", averaged=True)
    parameters = dict(network.named_parameters())
    for key, value in network.state_dict().items():
        assert torch.equal(state[key], value + 10 * (key in parameters)), key
    load_strictly(network, state, "m.ckpt")


def test_a_card_reads_the_state_dict_that_it_names(network, tmp_path):
    torch.save(lightning(network), tmp_path / "m.ckpt")
    card = Card("m.ckpt", None, "its authors", "none", entry="state_dict", prefix="cond_stage_model.")
    state = card.state(tmp_path / "m.ckpt")
    assert all(torch.equal(state[key], value + 2) for key, value in network.state_dict().items())
    state = replace(card, prefix="model.diffusion_model.", averaged=True).state(tmp_path / "m.ckpt")
    assert torch.equal(state["0.weight"], network[0].weight + 10)


def test_averages_of_a_first_stage_are_those_of_the_whole_module(network):
    """A first stage averages itself, not a part that is called `model`."""
    averages = {f"model_ema.{key.replace('.', '')}": value + 1 for key, value in network.named_parameters()}
    found = with_averages(network.state_dict() | averages)
    assert found.keys() == network.state_dict().keys()
    assert all(torch.equal(found[key], value + 1) for key, value in network.named_parameters())


WHOLE = {"model.a.b": torch.zeros(2), "model.ab": torch.zeros(2), "model.c": torch.zeros(2)}


@pytest.mark.parametrize(
    ("averages", "message"),
    [
        ({}, r"expected averages over training \(model_ema\.\*\), found none"),
        ({"model_ema.decay": torch.ones(())}, "expected averages over training .* found none"),
        ({"model_ema.d": torch.ones(2)}, "expected one tensor that model_ema.d is the average of, found none"),
        ({"model_ema.ab": torch.ones(2)}, "model_ema.ab is the average of, found model.a.b and model.ab"),
        ({"model_ema.c": torch.ones(3)}, "model_ema.c is the average of, found model.c of another shape"),
    ],
)
def test_averages_that_do_not_fit_are_refused(averages, message, tmp_path):
    torch.save(WHOLE | averages, tmp_path / "m.pt")
    with pytest.raises(ValueError, match=message) as caught:
        read_state(tmp_path / "m.pt", averaged=True)
    assert str(caught.value).startswith(f"{tmp_path / 'm.pt'}: ")
    assert "\n" not in str(caught.value)


def test_a_prefix_is_of_bare_and_of_safetensors_files_as_well(network, tmp_path):
    state = authors_state(network, "first_stage_model.") | {"other": torch.zeros(1)}
    torch.save(state, tmp_path / "m.pt")
    save_file(state, tmp_path / "m.safetensors")
    for name in ("m.pt", "m.safetensors"):
        load_strictly(network, read_state(tmp_path / name, prefix="first_stage_model."), name)
        with pytest.raises(
            ValueError, match=r"expected keys that start with model\., found first_stage_model\.0\.bias:"
        ):
            read_state(tmp_path / name, prefix="model.")
        with pytest.raises(ValueError, match="expected state_dict in it, found no state_dict"):
            read_state(tmp_path / name, "state_dict")


def make_folder(path):
    Path(path).mkdir()


class OwnPayload(Payload):
    def __reduce__(self):
        return make_folder, (self.path,)


@pytest.mark.parametrize("place", ["beside", "within"])
def test_what_would_run_code_beside_a_state_dict_runs_none(network, tmp_path, place):
    content = lightning(network)
    (content if place == "beside" else content["state_dict"])["callbacks"] = OwnPayload(tmp_path / "made")
    torch.save(content, tmp_path / "m.ckpt")
    if place == "beside":
        read_state(tmp_path / "m.ckpt", "state_dict")
    else:
        with pytest.raises(ValueError, match="'callbacks' of type make_folder among them"):
            read_state(tmp_path / "m.ckpt", "state_dict")
    assert not (tmp_path / "made").exists()
    with pytest.raises(ValueError, match=r"also needs .*: save its state dict alone"):
        read_state(tmp_path / "m.ckpt")


def test_a_call_of_the_system_is_refused_wherever_it_stands(network, tmp_path):
    torch.save(lightning(network, callbacks=Payload(tmp_path / "made")), tmp_path / "m.ckpt")
    with pytest.raises(ValueError, match=r"also needs \w+\.mkdir"):
        read_state(tmp_path / "m.ckpt", "state_dict")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["m.ckpt", "m.safetensors"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.98])
def test_a_truncated_checkpoint_is_one_line(network, tmp_path, name, kept):
    path = tmp_path / name
    if name.endswith(".ckpt"):
        torch.save(lightning(network, callbacks={Callback: {"best": 1.0}}), path)
    else:
        save_file(lightning(network)["state_dict"], path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: expected .*: fetch it again$"):
        read_state(path, "state_dict", "first_stage_model.", averaged=True)
