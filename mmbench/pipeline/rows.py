"""Rows of tables: what makes a row what it is."""

from typing import Any

from mmbench.core import hashing
from mmbench.core.protocol import Protocol
from mmbench.pipeline.stages import precision, predecessors

ROW = (("method", "method", "name"), ("data", "data", "name"), ("source", "data", "source"))


def described(plain: dict[str, Any]) -> dict[str, Any]:
    """The part of a plain configuration that makes a row what it is; its hash is the record's `config_hash`."""
    return {
        "data": {**_data_facts(plain), "evaluation": hashing.scientific(plain["data"]["evaluation"])},
        "protocol": hashing.scientific(Protocol.of(plain["protocol"]).facts()),
        "method": _method_facts(plain),
        **{key: plain[key] for key in ("weights", "scale", "seed")},
        **precision(plain),  # other weights where it trains, other images of the same weights where it generates
    }


def _data_facts(plain: dict[str, Any]) -> dict[str, Any]:
    # The seed of training is `seed` already, and the protocol's metrics have the parts.
    facts = {key: item for key, item in plain["data"].items() if key not in ("evaluation", "parts")}
    return hashing.scientific(
        {**facts, "module": {key: item for key, item in facts["module"].items() if key != "seed"}}
    )


def _method_facts(plain: dict[str, Any]) -> dict[str, Any]:
    """What makes the method, and the stages before it, what they are with the weights that are asked for."""
    method = plain["method"]
    facts = hashing.scientific({key: method[key] for key in ("name", "module", "sampling") if key in method})
    if plain["weights"] == "trained":
        facts |= {key: method[key] for key in ("start", "training") if key in method}
        if "keep" in facts.get("training", {}):  # which epochs are kept beside the one that is used
            facts["training"] = {key: item for key, item in facts["training"].items() if key != "keep"}
    if plain["weights"] == "official":
        facts["official"] = method.get("official", {}).get(plain["data"]["name"])
    stages = {}
    for argument, before in predecessors(plain).items():
        stages[argument] = _method_facts(before)
        if plain["weights"] == "trained" and before["data"]["module"] != plain["data"]["module"]:
            stages[argument]["data"] = _data_facts(before)
    return {**facts, "stages": stages} if stages else facts
