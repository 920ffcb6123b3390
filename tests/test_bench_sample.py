"""The plain transcription that sampling is timed against, and ours, sample the same."""

import pytest
import torch

from mmbench.benchmarks import sampling
from mmbench.benchmarks.sampling import main


def test_both_sample_the_same(capsys):
    assert main(["check"]) == 0
    assert capsys.readouterr().out.count("results differ by") == 2


@pytest.mark.parametrize("name", ["denoising", "decoding"])
def test_another_result_is_a_difference(name, monkeypatch, capsys):
    if name == "denoising":
        monkeypatch.setattr(sampling, "plain_attention", lambda query, key, value: value)
    else:
        draws = iter(range(10**6))
        monkeypatch.setattr(sampling, "drawn", lambda logits, uniform: torch.full((len(logits),), next(draws)))
    assert main(["check", name]) == 1
    assert "differ by" in capsys.readouterr().out


def test_a_misspelt_case_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="expected a case, found 'denoise': did you mean denoising"):
        main(["denoise"])
