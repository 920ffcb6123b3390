"""The authors' schedule that training is timed against, and ours, compute the same."""

import pytest

from mmbench.benchmarks import training
from mmbench.benchmarks.training import main
from mmbench.core import config
from mmbench.methods.manipulation.tagan import TAGAN


def test_both_train_the_same(home, capsys):
    methods = [
        "manigan_main",
        "manigan",
        "attngan",
        "tagan",
        "sisgan",
        "tdanet",
        "picnet",
        "csa",
        "stackganpp",
        "dfgan",
        "vqgan",
        "ldm",
        "dalle",
    ]
    assert main(["check", *(f"{name}=4" for name in methods)]) == 0
    assert capsys.readouterr().out.count("in 3 steps losses change by") == len(methods)


@pytest.mark.parametrize("name", training.CASES)
def test_what_a_case_changes_composes(name):
    config.composed([f"method={name}", "scale=published", *training.CASES[name].changes])
    config.composed([f"method={name}", "scale=tiny", *training.CASES[name].small_changes])


def test_another_loss_is_a_difference(home, monkeypatch, capsys):
    terms = TAGAN.generator_terms

    def larger(self, *given):
        found = terms(self, *given)
        return found | {"L_rec": 1.001 * found["L_rec"]}

    monkeypatch.setattr(TAGAN, "generator_terms", larger)
    assert main(["check", "tagan"]) == 1
    assert "differ by 1.0e-03" in capsys.readouterr().out


def test_a_misspelt_method_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="expected a method, found 'tagann': did you mean tagan"):
        main(["tagann"])
