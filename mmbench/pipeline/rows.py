"""Rows of tables: what makes a row what it is."""

from typing import Any

from mmbench.core import config
from mmbench.pipeline.stages import predecessors

ROW = (("method", "method", "name"), ("data", "data", "name"), ("source", "data", "source"))
# What the images themselves depend on, among the keys of a protocol. (The data module is told `mask`, `preprocessing`
# and `bird_crop`.)
SAMPLE_SET = ("split", "captions_per_image", "draws", "count", "drop_partial_batch")
SAMPLING = (*SAMPLE_SET, "seed", "rounding", "composite")
TO_NEAREST = {"_target_": "mmbench.core.images.to_uint8"}  # how a protocol rounds that does not say


def described(plain: dict[str, Any]) -> dict[str, Any]:
    """The part of a plain configuration that makes a row what it is; its hash is the record's `config_hash`."""
    facts = config.scientific({key: plain[key] for key in ("data", "protocol", "weights", "seed")})
    facts["data"]["module"].pop("seed", None)  # of training, and `seed` already
    facts["data"].pop("parts", None)  # the protocol's metrics have them
    return {**facts, "method": _method_facts(plain)}


def _method_facts(plain: dict[str, Any]) -> dict[str, Any]:
    """What makes the method, and the stages before it, what they are with the weights that are asked for."""
    method = plain["method"]
    facts = config.scientific({key: method[key] for key in ("name", "module")})
    if plain["weights"] == "trained":
        facts |= {key: method[key] for key in ("start", "training") if key in method}
    if plain["weights"] == "official":
        facts["official"] = method.get("official", {}).get(plain["data"]["name"])
    stages = {argument: _method_facts(before) for argument, before in predecessors(plain).items()}
    return {**facts, "stages": stages} if stages else facts
