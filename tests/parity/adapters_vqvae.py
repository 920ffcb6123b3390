"""VQ-VAE: the codebook that follows moving means."""

from fixture import gradients, inputs
from torch import Tensor

from mmbench.core.weights import load_strictly
from mmbench.layers.quantisers import EMAQuantiser, perplexity


def quantiser(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    network = EMAQuantiser(config["n_embed"], config["embedding_dim"], config["beta"], config["decay"])
    assert config["eps"] == network.EPS
    # The note: the state before the call.
    state = {
        "vectors": given["codebook"],
        "counts": 20 * given["cluster_size"],
        "sums": 10 * given["embed_sum"],
    }
    load_strictly(network, state, fixture["name"])
    found = network(given["z"])
    network.collect(given["z"], found.indices)
    network.update()
    loss = found.loss + (found.codes * given["w"]).mean()
    return {
        "quantised": found.codes,
        "indices": found.indices.flatten(),
        "codebook_loss": found.loss,
        "perplexity": perplexity(found.indices, config["n_embed"]),
        "new_cluster_size": network.counts,
        "new_embed_sum": network.sums,
        "new_codebook": network.vectors,
        "loss": loss,
    } | gradients(fixture, loss, given)


ADAPTERS = {"vqvae/quantizer-ema": quantiser}
