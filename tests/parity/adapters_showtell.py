"""Show and Tell's decoder, with the paper's cell and with the maxout cell of FC models."""

from functools import partial

import torch
from fixture import inputs, state
from torch import Tensor, nn

from mmbench.core.weights import load_strictly
from mmbench.methods.captioning.show_and_tell import DECODER, END, Decoder, MaxoutLSTM, beam_search, lstm


def _decoder(config: dict, cell) -> Decoder:
    return Decoder(
        config["vocab_size"] + 1, config["fc_feat_size"], config["input_encoding_size"], config["rnn_size"], cell
    )


def _filled(fixture: dict, cell) -> Decoder:
    network = _decoder(fixture["config"], cell)
    load_strictly(network, DECODER(state(fixture), network), fixture["name"])
    return network.eval()


def _read(network: Decoder, given: dict[str, Tensor]) -> Tensor:
    """Log-probabilities up to the first column behind which no caption goes on, as they break off."""
    words = given["seq"].flatten(0, -2)
    rows = given["fc_feats"].repeat_interleave(len(words) // len(given["fc_feats"]), dim=0)
    over = (words[:, 1:].sum(dim=0) == 0).nonzero()
    return network(rows, words[:, : 1 + int(over[0])] if len(over) else words)


def _told(network: Decoder, features: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N, T, V) at each place of found words (N, T), and which places are not behind an end."""
    before = nn.functional.pad(words[:, :-1], (1, 0), value=END)
    running = nn.functional.pad((words[:, :-1] != END).long().cumprod(dim=1), (1, 0), value=1)
    return network(features, before), running


def released(cell, fixture: dict):
    with torch.device("meta"):
        return _decoder(fixture["config"], cell), DECODER


@torch.no_grad()
def decoder(cell, fixture: dict) -> dict[str, Tensor]:
    network, given = _filled(fixture, cell), inputs(fixture)
    found = {"logprobs": _read(network, given)}
    if "greedy/tokens" in fixture["outputs"]:
        words = beam_search(network, given["fc_feats"], 1, fixture["config"]["max_length"]).words[:, 0]
        told, running = _told(network, given["fc_feats"], words)
        any_runs = running.amax(dim=0)
        found |= {
            "greedy/tokens": words,
            "greedy/token_logprobs": told.amax(dim=2) * any_runs,
            "greedy/logprobs": told * running[..., None],
        }
    return found


@torch.no_grad()
def maxout(fixture: dict) -> dict[str, Tensor]:
    found = decoder(MaxoutLSTM, fixture)
    recorded = fixture["outputs"]["logprobs"]["shape"][1]  # theirs are filled up with zeros
    found["logprobs"] = nn.functional.pad(found["logprobs"], (0, 0, 0, recorded - found["logprobs"].shape[1]))
    network, features, config = _filled(fixture, MaxoutLSTM), inputs(fixture)["fc_feats"], fixture["config"]
    search = partial(beam_search, network, features, max_words=config["max_length"])
    beam, average = search(config["beam_size"]), search(config["beam_size"], by_length=True)
    told, running = _told(network, features, beam.words[:, 0])
    return found | {
        "greedy-no-repeat/tokens": search(1, repeats=False).words[:, 0],
        "beam/tokens": beam.words[:, 0],
        "beam/logprobs": told * running[..., None],
        "beam/all_tokens": beam.words,
        "beam/scores": beam.scores,
        "beam-average/all_tokens": average.words,
        "beam-average/scores": average.scores,
    }


ADAPTERS = {
    "showtell/decoder": partial(decoder, lstm),
    "showtell/decoder-fc": partial(decoder, MaxoutLSTM),
    "showtell/decoder-maxout": maxout,
    "showtell/decoder-full-layout": partial(released, lstm),
    "showtell/decoder-maxout-full-layout": partial(released, MaxoutLSTM),
}
