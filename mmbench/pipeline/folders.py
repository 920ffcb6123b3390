"""Scores anybody's folder of images under mmbench's metrics and protocols."""

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mmbench.core import config
from mmbench.core.files import sha256_json
from mmbench.core.images import read_rgb
from mmbench.core.noise import Sample
from mmbench.core.results import Result
from mmbench.data.batches import collate
from mmbench.data.views import View
from mmbench.metrics.suite import build_suite, described, with_files
from mmbench.pipeline import canary, scoring
from mmbench.pipeline.inspection import Folder, Problems, inspect, opened, read_captions
from mmbench.pipeline.request import Request

GIVEN_BY = {"image": "input= or real=", "prompt": "captions=", "mask": "mask="}


class Scored(Dataset):
    """Generated images with what they are compared with; an image that cannot be read becomes {"bad": (name, why)}."""

    def __init__(
        self, names: Sequence[str], sources: Mapping[str, Folder], captions: Mapping[str, str] | None, size: int | None
    ) -> None:
        self.names, self.sources, self.captions, self.size = names, sources, captions, size

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        item: dict[str, Any] = {"id": name, "sample": Sample(name, 0, 0)}
        try:
            for batch_field, folder in self.sources.items():
                pixels = _sized(read_rgb(folder.files[name]), None if batch_field == "generated" else self.size)
                item[batch_field] = (pixels[:1] > 127).float() if batch_field == "mask" else pixels
        except ValueError as error:
            return {"bad": (name, str(error))}
        if self.captions is not None:
            item["prompt"] = self.captions[name]
        return item


def _sized(pixels: Tensor, size: int | None) -> Tensor:
    if size is None:
        return pixels
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    view = View.centred((0, 0, *picture.size), size)
    return torch.from_numpy(view(picture).copy()).permute(2, 0, 1)


class _Real(Dataset):
    """The real set: `id`, `sample` and `image`."""

    def __init__(self, folder: Folder, size: int | None) -> None:
        self.items = Scored(list(folder.files), {"image": folder}, None, size)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        if "bad" in item:
            raise ValueError(f"real image {item['bad'][1]}")
        return item


def _batch(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    good = [item for item in items if "bad" not in item]
    return {**(collate(good) if good else {}), "bad": [item["bad"] for item in items if "bad" in item]}


class _Readable:
    """Batches without what cannot be read; all of that is found before anything is given up."""

    def __init__(self, dataset: Scored, problems: Problems, request: Request) -> None:
        self.batches, self.problems = scoring.loader(dataset, request.workers, _batch), problems
        self.allowed = request.skip_bad

    def require(self) -> None:
        """Raises ValueError if more is known to be wrong than may be; looks into all the images first, to say all."""
        if len(self.problems.found) > self.allowed:
            for _ in self:
                pass
        self.problems.require(self.allowed)

    def __len__(self) -> int:  # a progress bar asks for it
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.batches:
            for name, why in batch.pop("bad"):
                self.problems.add(name, why)
            if "sample" in batch and len(self.problems.found) <= self.allowed:
                yield batch


def _chosen(request: Request, has: Set[str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Metrics and extractors asked for; of a protocol's, those that the folders allow, and why the others are left out.

    Raises:
        ValueError: a metric asked for by name needs something that was not given.
    """
    metrics, extractors = _asked(request)
    lacking = {name: _lacks(node, has, request.has_reference) for name, node in metrics.items()}
    left_out = {name: what for name, what in lacking.items() if what}
    if request.metrics and left_out:
        name, what = next(iter(left_out.items()))
        raise ValueError(f"expected {what} for the metric {name}, found none: give it, or leave the metric out")
    if len(left_out) == len(metrics):
        raise ValueError(f"expected a metric that {request.protocol} can score, found none: give more folders")
    metrics = {name: node for name, node in metrics.items() if name not in left_out}
    used = {node["extractor"] for node in metrics.values() if "extractor" in node}
    extractors = {name: node for name, node in extractors.items() if name in used}
    return metrics, with_files(extractors, request.judges), left_out


def _asked(request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics, and the extractors that they name, by `metrics=` or `protocol=`, and `extractor=`."""
    if request.metrics:
        return described(request.metrics, request.extractor)
    # A named data set may have judges of its own, which its composed protocol knows.
    if request.data and request.plain["data"]["source"] == "real" and request.extractor == "standard":
        return request.plain["protocol"]["metrics"], request.plain["protocol"]["extractors"]
    protocol = config.node(f"protocol/{request.protocol}")
    toy = protocol.get("toy", {}).get("extractors", {}) if request.extractor == "toy" else {}
    return protocol["metrics"], {**protocol["extractors"], **toy}


def _lacks(node: Mapping[str, Any], has: Set[str], has_reference: bool) -> str:
    """What a metric needs and was not given, in words; empty where there is nothing."""
    target: Any = config.target(node)
    needs = {*target.needs, *([node["against"]] if "against" in node else [])}
    lacking = [GIVEN_BY.get(wanted, f"{wanted}, which only mmbench's own data have") for wanted in sorted(needs - has)]
    if target.needs_reference and not has_reference:
        lacking.append("real= or data=")
    return " and ".join(lacking)


def _reference(folders: Mapping[str, Folder], request: Request) -> tuple[Dataset, Any]:
    """The real set, and everything that its images depend on."""
    if "real" in folders:
        return _Real(folders["real"], request.size), [folders["real"].sha256(), request.size]
    node = request.plain["data"]
    data = config.construct({**node["module"], **node["evaluation"]})
    data.prepare_data()
    data.setup("predict")
    split = request.plain["protocol"]["reference"]
    return data.reference(split), [config.scientific(node), data.fingerprint(), split]


def score(request: Request) -> tuple[Result, dict[str, dict[Sample, float]]]:
    """Scores the folders that a request names; the record of it, unwritten, and the values by sample.

    Its `data` are hashes of the folders, the real set and the captions; "skipped": image to why it was left out; "not
    scored": metric of the protocol to what it needs.

    Raises:
        MissingAsset: weights of an extractor, or the data set, are not there and could not be fetched.
        ValueError: a folder, a file or what a metric needs is wrong or missing; of single images, all are named.
    """
    assets = Path(request.plain["paths"]["assets"]).expanduser()
    captions = read_captions(request.captions) if request.captions else None
    with opened(request.folders) as folders:
        compared = {"generated": "fake", "image": "input" if "input" in folders else "real", "mask": "mask"}
        sources = {name: folders[what] for name, what in compared.items() if what in folders}
        has = {*sources, *(() if captions is None else ("prompt",))}
        metrics, extractors, left_out = _chosen(request, has)
        suite = build_suite(metrics, extractors, assets)
        if torch.cuda.is_available() and request.plain["trainer"]["accelerator"] != "cpu":
            suite.cuda()
        sources = {name: folder for name, folder in sources.items() if name == "generated" or name in suite.needs}
        prompts = captions if "prompt" in suite.needs else None
        problems = inspect(
            folders, [sources[name].what for name in sources if name != "generated"], prompts, request.size
        )
        names = sorted(folders["fake"].files.keys() - problems.found.keys())
        batches = _Readable(Scored(names, sources, prompts, request.size), problems, request)
        batches.require()
        drift = canary.check(suite, assets)
        shown = scoring.show(suite, batches, "scoring")
        problems.require(request.skip_bad)
        covered = scoring.coverage(shown, [Sample(name, 0, 0) for name in names if name not in problems.found])
        reference = None
        if suite.needs_reference:
            real, reference = _reference(folders, request)
            scoring.add_reference(suite, real, reference, assets, request.workers)
        data = {what: folder.sha256() for what, folder in folders.items()} | {"reference": reference}
    data |= {"captions": None if captions is None else sha256_json(captions), "size": request.size}
    data |= {"skipped": dict(sorted(problems.found.items())), "not scored": left_out}
    judges = {name: {key: node[key] for key in ("name", "network")} for name, node in extractors.items()}
    facts = {"metrics": metrics, "extractors": judges, "size": request.size}
    record = _record(request, data, facts, metrics=scoring.results_of(suite), coverage=covered, canary=drift)
    return record, suite.by_sample()


def _record(request: Request, data: dict[str, Any], facts: dict[str, Any], **found: Any) -> Result:
    """The record of what was found in `data` under `facts`, which say what the values mean."""
    weights = {key: score["weights"] for key, score in found["metrics"].items()}
    return Result(
        experiment="score",
        row={"method": Path(request.folders["fake"]).stem, "data": request.data or "folder", "source": "folder"},
        seed=0,
        protocol={"name": request.protocol or "score", "hash": config.config_hash(facts)},
        run_key=sha256_json([data, facts, weights]),
        config_hash=config.config_hash(facts),
        weights={"choice": "none needed", "sha256": None, "verified": True},
        data=data,
        config=facts,
        **found,
    )
