"""VQGAN's transformer: logits, loss, decoding with a cache, and windows of maps larger than it was trained with."""

import torch
from fixture import inputs, outputs_of, state
from torch import Tensor, nn

from mmbench.core.categorical import drawn
from mmbench.core.weights import KeyMap, load_strictly
from mmbench.networks.token_transformer import TRANSFORMER, TokenTransformer, places, sampled, token_cross_entropy


def _network(config: dict) -> TokenTransformer:
    sizes = (config[key] for key in ("vocab_size", "block_size", "n_embd", "n_layer", "n_head"))
    return TokenTransformer(*sizes, num_unmasked=config.get("n_unmasked", 0)).eval()


def _loaded(fixture: dict) -> TokenTransformer:
    network = _network(fixture["config"])
    load_strictly(network, TRANSFORMER(state(fixture), network), fixture["name"])
    return network


def transformer(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _loaded(fixture)
    condition, tokens, caches = given["cond"], given["tokens"], network.caches()
    with torch.no_grad(), outputs_of({f"block{n}": block for n, block in enumerate(network.blocks)}) as seen:
        found = {"logits": network.predicted(network.embedding(condition), tokens), **seen}
        vectors = torch.cat((given["embeddings"], network.embedding(tokens[:, :5])), dim=1)
        found["with_embeddings"] = network.head(network.features(vectors))
        for part in (condition, *tokens[:, :-1].split(1, dim=1)):
            found["cached_last"] = network(part, caches)[:, -1]
    return found | {"loss": token_cross_entropy(found["logits"], tokens).mean()}


def sliding_window(fixture: dict) -> dict[str, Tensor]:
    config, network, condition = fixture["config"], _loaded(fixture), inputs(fixture)["cond"]
    size, window = (config["height"], config["width"]), config["window"]

    def shown(top: int, left: int) -> Tensor:
        return network.embedding(condition[:, top : top + window, left : left + window].flatten(1))

    def likeliest(logits: Tensor, number: int) -> Tensor:
        # Of what the recording's settings leave the likeliest is taken there.
        assert config["top_k"] > 1
        return drawn(logits, torch.zeros(len(logits)), config["temperature"], top_k=1)

    visited = list(places(*size, window))
    flat = torch.arange(size[0] * size[1]).view(size)
    with torch.no_grad():
        tokens = sampled(network, shown, size, window, likeliest)
    return {
        "tokens": tokens,
        "windows": torch.stack([flat[p.top : p.top + window, p.left : p.left + window].flatten() for p in visited]),
        "row_start": torch.tensor([p.top for p in visited]).view(size),
        "column_start": torch.tensor([p.left for p in visited]).view(size),
        "local_row": torch.tensor([p.local // window for p in visited]).view(size),
        "local_column": torch.tensor([p.local % window for p in visited]).view(size),
    }


def layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    with torch.device("meta"):
        return _network(fixture["config"]), TRANSFORMER


ADAPTERS = {
    "vqgan/transformer": transformer,
    "vqgan/transformer-unmasked": transformer,
    "vqgan/transformer-drin-full-layout": layout,
    "vqgan/sliding-window": sliding_window,
}
