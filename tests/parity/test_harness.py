"""The comparison itself can fail, and reads a recording's options."""

import json
from pathlib import Path

import masks
import paritykit
import pytest
import torch
from fixture import RECORDED, deviations, gradients, state

from mmbench.layers.word_attention import SpatialAttention

FIXTURE = {
    "name": "family/part",
    "seed": 3,
    "mode": "eval",
    "note": "",
    "source": "",
    "config": {},
    "state": [["a.weight", [2, 2], "float32"], ["b.weight", [3, 2], "float32"]],
    "inputs": {"x": {"kind": "normal", "shape": [4]}},
    "outputs": {},
}


def recorded(**changes):
    x = paritykit.inputs(FIXTURE)["x"]
    return FIXTURE | {"outputs": {"y": paritykit.probe("y", 2 * x)}} | changes


def test_a_deviation_is_measured_in_units_of_the_spread():
    fixture = recorded()
    y = 2 * paritykit.inputs(fixture)["x"]
    assert deviations(fixture, {"y": y})["y"] < 1e-6
    off = deviations(fixture, {"y": y + 0.01 * y.std(correction=0)})["y"]
    assert off == pytest.approx(0.01, rel=1e-3)
    assert not deviations(fixture, {"y": y * float("nan")})["y"] < 1e-3


def test_an_output_that_an_adapter_leaves_out_is_an_error():
    with pytest.raises(KeyError):
        deviations(recorded(), {})


def test_complete_values_are_compared_too():
    fixture = recorded(config={"values": {"y": [1.0, 2.0]}})
    y = 2 * paritykit.inputs(fixture)["x"]
    fixture["config"]["values"]["y"] = y.tolist()
    assert deviations(fixture, {"y": y})["values/y"] < 1e-6


def test_weights_are_scaled_in_order_and_adjusted_by_the_first_that_matches():
    plain = state(recorded())
    scaled = state(recorded(config={"state_scale": [["a.*", 2.0], [".*weight", 3.0], ["weight", 9.0]]}))
    assert torch.equal(scaled["a.weight"], 6 * plain["a.weight"])
    assert torch.equal(scaled["b.weight"], 3 * plain["b.weight"])
    adjusted = state(recorded(config={"state_adjust": [["^b", 2, 1], ["weight$", 5, 0]]}))
    assert torch.equal(adjusted["a.weight"], 5 * plain["a.weight"])
    assert torch.equal(adjusted["b.weight"], 2 * plain["b.weight"] + 1)


def test_gradients_are_those_of_the_scaled_loss():
    x = torch.ones(3, requires_grad=True)
    fixture = recorded(config={"grad_scale": 10.0}, outputs={"grad/x": {}})
    assert torch.equal(gradients(fixture, (2 * x).sum(), {"x": x})["grad/x"], torch.full((3,), 20.0))


def test_the_authors_mask_is_ours_where_a_batch_has_one_length_and_another_captions_elsewhere():
    torch.manual_seed(0)
    layer, hidden, words = SpatialAttention(4, 5), torch.randn(2, 4, 3, 3), torch.randn(2, 6, 5)
    equal = torch.arange(6).expand(2, 6) >= 4
    ragged = torch.arange(6) >= torch.tensor([[6], [2]])
    for padding, same in ((equal, True), (ragged, False)):
        ours, _ = layer(hidden, words, ~padding[:, None])
        theirs, _ = layer(hidden, words, masks.spatial(padding, 9))
        assert torch.allclose(ours, theirs, atol=1e-6) is same


@pytest.mark.parametrize("known_only", [False, True])
def test_another_folder_is_run_and_an_unknown_name_fails_unless_left_out(tmp_path, capsys, known_only):
    known = paritykit.load(RECORDED / "attngan" / "kl-loss.json")
    for name, fixture in {"known": known, "unknown": known | {"name": "attngan/new-loss"}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(fixture))
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", "--parity-dir", str(tmp_path)]
    options += ["--parity-known-only"] * known_only
    # Within this process, which has imported what takes seconds.
    test = f"{Path(__file__).with_name('test_parity.py')}::test_equals_the_recorded_numbers"
    code = pytest.main([*options, test])
    printed = capsys.readouterr().out
    assert code == (0 if known_only else 1), printed
    assert "3 recorded outputs compared" in printed
    assert ("1 fixtures left out" in printed) is known_only
    assert ("found attngan/new-loss" in printed) is not known_only
