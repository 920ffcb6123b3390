"""From the keys of taming-transformers' and latent diffusion's checkpoints to those of `mmbench.networks.vqgan`."""

from mmbench.core.weights import KeyMap

_PARTS = {"nin_shortcut": "shortcut", "q": "query", "k": "key", "v": "value", "proj_out": "project"}
_BOTH = {
    r"conv_in": "entry",
    r"mid\.block_1": "middle.0",
    r"mid\.attn_1": "middle.1",
    r"mid\.block_2": "middle.2",
    r"norm_out": "norm",
    r"conv_out": "exit",
}
_LEVELS = {
    r"\.(?P<level>\d+)\.block": r"levels.\g<level>.blocks",
    r"\.(?P<level>\d+)\.attn": r"levels.\g<level>.attentions",
}


def _renamed(direction: str, resampled: dict[str, str], prefix: str) -> dict[str, str]:
    """Patterns of an encoder's (`down`) or a decoder's (`up`) keys behind a prefix, and what they become."""
    places = _BOTH | {rf"{direction}{theirs}": ours for theirs, ours in _LEVELS.items()} | resampled
    inner = {rf"\.{theirs}\.(?P<kind>weight|bias)": rf".{ours}.\g<kind>" for theirs, ours in _PARTS.items()}
    inner |= {r"\.(?P<rest>.*)": r".\g<rest>"}
    start = prefix.replace(".", r"\.")
    renamed = {}
    for theirs, ours in places.items():
        numbered, number = (r"\.(?P<place>\d+)", r".\g<place>") if ours in _LEVELS.values() else ("", "")
        for their_part, our_part in inner.items():
            renamed[f"{start}{theirs}{numbered}{their_part}"] = f"{prefix}{ours}{number}{our_part}"
    return renamed


def encoder_renamed(prefix: str = "") -> dict[str, str]:
    """What a `KeyMap` renames of an encoder whose keys begin with `prefix`, theirs and ours."""
    return _renamed("down", {r"down\.(?P<level>\d+)\.downsample": r"halvings.\g<level>"}, prefix)


def decoder_renamed(prefix: str = "") -> dict[str, str]:
    """As `encoder_renamed`, of a decoder."""
    return _renamed("up", {r"up\.(?P<level>\d+)\.upsample": r"doublings.\g<level>"}, prefix)


ENCODER, DECODER = KeyMap(rename=encoder_renamed()), KeyMap(rename=decoder_renamed())
AUTOENCODER = KeyMap(
    drop={r"loss\..*": "discriminator and LPIPS, with which it was trained"},
    rename=encoder_renamed("encoder.")
    | decoder_renamed("decoder.")
    | {
        r"quantize\.(embedding\.weight|embed\.weight)": "quantiser.vectors",
        r"quantize\.proj\.(.*)": r"quantiser.to_logits.\1",
        r"quant_conv\.(.*)": r"to_codes.\1",
        r"post_quant_conv\.(.*)": r"from_codes.\1",
    },
)


def discriminator_keys(num_layers: int) -> KeyMap:
    """Of a `PatchDiscriminator`, whose keys are places in one sequence: two modules, then three for each layer."""
    renamed = {r"main\.0\.(.*)": r"layers.0.0.\1"}
    for layer in range(1, num_layers + 1):
        for part in range(2):
            renamed[rf"main\.{3 * layer - 1 + part}\.(.*)"] = rf"layers.{layer}.{part}.\1"
    return KeyMap(rename=renamed | {rf"main\.{3 * num_layers + 2}\.(.*)": r"exit.\1"})
