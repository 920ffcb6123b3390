"""Char-CNN-RNN: letters, the three encoders, and the structured joint embedding loss."""

import torch
from fixture import gradients, inputs, outputs_of, state
from torch import Tensor, nn

from mmbench.core.weights import KeyMap, load_strictly
from mmbench.losses.ranking import structured_joint_embedding_loss
from mmbench.networks.char_cnn_rnn import TEXT_ENCODER, CharCNNGRU, CharCNNRNN, one_hot, spelt


def _network(config: dict, widths: list[int], embedding_dim: int) -> nn.Module:
    is_gated = (config["model_type"], config["dataset"]) == ("icml", "birds")
    return (CharCNNGRU if is_gated else CharCNNRNN)(widths, embedding_dim)


def encoder(fixture: dict) -> dict[str, Tensor]:
    config, characters = fixture["config"], inputs(fixture)["chars"]
    network = _network(config, config["widths"], config["out"]).eval()
    load_strictly(network, TEXT_ENCODER(state(fixture), network), fixture["name"])
    _, second, third = network.convolutions
    with torch.no_grad(), outputs_of({"maxpool2": second, "conv3": third, "rnn": network.recurrent}) as seen:
        pooled = []
        handles = [one.register_forward_pre_hook(lambda _, args: pooled.append(args[0])) for one in (second, third)]
        embedding = network(characters)
        for handle in handles:
            handle.remove()
    return {
        "onehot": one_hot(characters),
        "maxpool1": pooled[0],
        "maxpool2": pooled[1],
        "conv3": seen["conv3"],
        "rnn": seen["rnn"].mean(dim=1),
        "embedding": embedding,
    }


def layout(fixture: dict) -> tuple[nn.Module, KeyMap]:
    width = 256 if fixture["config"]["model_type"] == "cvpr" else 512
    with torch.device("meta"):
        return _network(fixture["config"], [384, 512, width], 1024), TEXT_ENCODER


def text(fixture: dict) -> dict[str, Tensor]:
    letters = spelt(fixture["config"]["texts"])
    counts = torch.stack([row.bincount(minlength=71) for row in letters])
    return {f"labels/{n}": row.float() for n, row in enumerate(letters)} | {"counts": counts.float()}


def loss(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    image = (given["image"] + given["text"]).detach().requires_grad_()
    image_to_text, text_to_image = structured_joint_embedding_loss(image, given["text"], class_ids=None)
    products = (image @ given["text"].mT).detach()
    truth = torch.arange(len(image))
    total = image_to_text + text_to_image
    return {
        "text_image": image_to_text,
        "image_text": text_to_image,
        "accuracy1": 100 * (products.argmax(dim=1) == truth).float().mean(),
        "accuracy2": 100 * (products.argmax(dim=0) == truth).float().mean(),
        "loss": total,
        **gradients(fixture, total, {"text": given["text"], "image": image}),
    }


ADAPTERS = {
    **{f"charcnnrnn/encoder-{name}": encoder for name in ("birds", "cvpr", "flowers")},
    **{f"charcnnrnn/encoder-{name}-full-layout": layout for name in ("birds", "cvpr", "flowers")},
    "charcnnrnn/text": text,
    "charcnnrnn/loss": loss,
}
