"""What of a configuration decides a result, and its hash: the name of run folders, run keys and protocols."""

from typing import Any

from mmbench.core.files import sha256_json

# What changes neither an image nor a score: where files lie, and how the work is cut up. Embeddings that lie somewhere
# are in the fingerprint of the data. Of a method's `training` everything counts, the size of its batches first.
NEUTRAL = frozenset({"assets", "root", "batch_size", "num_workers", "cache", "embeddings"})


def config_hash(value: Any) -> str:
    """SHA-256 of plain values, the same on every machine, whatever changes no result in them left out.

    Of the card of a file, what counts is which file it is (name, hash, member) and not where it comes from.
    """
    return sha256_json(identifying(scientific(value)))


def scientific(value: Any) -> Any:
    """A plain configuration without the keys that change no result (`NEUTRAL`)."""
    if isinstance(value, dict):
        return {
            key: item if key == "training" else scientific(item) for key, item in value.items() if key not in NEUTRAL
        }
    if isinstance(value, list):
        return [scientific(item) for item in value]
    return value


def identifying(value: Any) -> Any:
    """Plain values in which each card of a file is only which file it is."""
    if isinstance(value, dict):
        if {"file", "sha256", "origin"} <= value.keys():
            return {key: value[key] for key in ("file", "sha256", "member") if key in value}
        return {key: identifying(item) for key, item in value.items()}
    if isinstance(value, list):
        return [identifying(item) for item in value]
    return value
