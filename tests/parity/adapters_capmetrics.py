"""Metrics of captions and the words that they count, as COCO's tool has them."""

import math

import pytest
import torch
from torch import Tensor

from mmbench.core.noise import Sample
from mmbench.core.ptb import ptb_words
from mmbench.metrics.bleu import BLEU
from mmbench.metrics.captions import Captioned, CaptionMetric
from mmbench.metrics.cider import CIDEr, CIDErD, document_frequencies
from mmbench.metrics.rouge_l import ROUGEL


def _rows(config: dict, behind: tuple[str, ...] = ()) -> list[Captioned]:
    """Captions that are split into words already, in the order of the recording."""
    keys = config.get("order", range(len(config["candidates"])))
    return [
        Captioned(
            Sample(f"{place:03d}", 0, 0),
            (*config["candidates"][key].split(), *behind),
            tuple((*reference.split(), *behind) for reference in config["references"][key]),
        )
        for place, key in enumerate(keys)
    ]


def _numbers(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def bleu(fixture: dict) -> dict[str, Tensor]:
    rows = _rows(fixture["config"])
    found = [BLEU(order).score(rows) for order in (1, 2, 3, 4)]
    corpus = _numbers([total for total, _ in found])
    by_order = {f"corpus/bleu-{order}": corpus[order - 1] for order in (1, 2, 3, 4)}
    return {"corpus": corpus, "per_image": _numbers([values for _, values in found]), **by_order}


def _averaged(values: list[float]) -> dict[str, Tensor]:
    return {"corpus": _numbers(math.fsum(values) / len(values)), "per_image": _numbers(values)}


def _scored(metric: CaptionMetric, fixture: dict) -> dict[str, Tensor]:
    return _averaged(metric.score(_rows(fixture["config"]))[1])


def rouge_l(fixture: dict) -> dict[str, Tensor]:
    return _scored(ROUGEL(), fixture)


def cider(fixture: dict) -> dict[str, Tensor]:
    return _scored(CIDEr(), fixture)


def cider_d(fixture: dict) -> dict[str, Tensor]:
    return _scored(CIDErD(), fixture)


def cider_d_as_a_reward(fixture: dict) -> dict[str, Tensor]:
    config, end = fixture["config"], ("<eos>",)
    training = [[(*text.split(), *end) for text in references] for references in config["training_references"]]
    return _averaged(CIDErD().against(_rows(config, end), document_frequencies(training), len(training)))


def edge_cases(fixture: dict) -> dict[str, Tensor]:
    scores = {"bleu": bleu(fixture), "rouge-l": rouge_l(fixture), "cider-d": cider_d(fixture)}
    return {f"{metric}/{kind}": value for metric, found in scores.items() for kind, value in found.items()}


def tokenizer(fixture: dict) -> dict[str, Tensor]:
    wanted = [words.split(" ") for _, words in fixture["config"]["pairs"]]
    found = [list(ptb_words(caption)) for caption, _ in fixture["config"]["pairs"]]
    assert found == wanted
    characters = [len(" ".join(words)) for words in found]
    return {"words": _numbers([len(words) for words in found]), "characters": _numbers(characters)}


def meteor(fixture: dict) -> dict[str, Tensor]:
    pytest.skip("not run: METEOR needs Java and the authors' meteor-1.5.jar")


ADAPTERS = {
    "capmetrics/bleu": bleu,
    "capmetrics/bleu-second-set": bleu,
    "capmetrics/rouge-l": rouge_l,
    "capmetrics/rouge-l-second-set": rouge_l,
    "capmetrics/cider": cider,
    "capmetrics/cider-coco": cider_d,
    "capmetrics/cider-d": cider_d,
    "capmetrics/cider-d-cached": cider_d_as_a_reward,
    "capmetrics/edge-cases": edge_cases,
    "capmetrics/ptb-tokenizer": tokenizer,
    "capmetrics/ptb-tokenizer-odd": tokenizer,
    "capmetrics/meteor": meteor,
    "capmetrics/meteor-second-set": meteor,
}
