"""Scores anybody's images, videos or texts under mmbench's metrics and protocols."""

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mmbench.core import catalogue, composition, config, construction, hashing
from mmbench.core.cards import MissingNetwork
from mmbench.core.files import sha256_json
from mmbench.core.noise import Sample
from mmbench.core.outputs import MASKS, OUTPUTS, Output
from mmbench.core.results import Result
from mmbench.core.task import TASKS
from mmbench.data.batches import as_floats, collate
from mmbench.data.views import View
from mmbench.metrics.suite import MetricSuite, build_suite, described, with_files
from mmbench.pipeline import canary, scoring
from mmbench.pipeline.captions import read_captions, read_references
from mmbench.pipeline.inspection import Folder, Problems, Source, Table, alike, inspect, noted, opened
from mmbench.pipeline.request import Request

READERS = {"prompt": read_captions, "captions": read_references}  # of the file of captions, by the field that it fills


class Scored(Dataset):
    """What was generated with what it is compared with; what cannot be read becomes {"bad": [(source, name, why)]}.

    Args:
        names: of the generated ones.
        sources: batch field to where it is from.
        size: what pictures that were not generated are resized to; None: they are as large.
    """

    def __init__(self, names: Sequence[str], sources: Mapping[str, Source], size: int | None) -> None:
        self.names, self.sources, self.size = names, sources, size

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        found, bad = {}, []
        for batch_field, source in self.sources.items():
            try:
                found[batch_field] = source.item(name)
            except ValueError as error:
                bad.append((source.what, name, str(error)))
        if bad:
            return {"bad": bad}
        generated = {"generated": found.pop("generated")} if "generated" in found else {}
        if self.size is not None:
            found = {
                batch_field: _sized(value, self.size) if isinstance(value, Tensor) else value
                for batch_field, value in found.items()
            }
        if "mask" in found:
            found["mask"] = (found["mask"][:1] > 127).float()
        return {"id": name, "sample": Sample(name, 0, 0), **generated, **as_floats(found)}


def _sized(pictures: Tensor, size: int) -> Tensor:
    """A picture or the frames of a video, (..., 3, H, W) uint8, as (..., 3, size, size)."""
    resized = []
    for pixels in pictures.reshape(-1, *pictures.shape[-3:]):
        picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        view = View.centred((0, 0, *picture.size), size)
        resized.append(torch.from_numpy(view(picture).copy()).permute(2, 0, 1))
    return torch.stack(resized).reshape(*pictures.shape[:-2], size, size)


class _Real(Dataset):
    """The real set: `id`, `sample` and the field of the real ones, `image` say."""

    def __init__(self, batch_field: str, source: Source, size: int | None) -> None:
        self.items = Scored(sorted(source.names), {batch_field: source}, size)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        for what, name, why in item.get("bad", ()):
            raise ValueError(f"{what}/{name}: {why}")
        return item


def _batch(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    good = [item for item in items if "bad" not in item]
    return {**(collate(good) if good else {}), "bad": [bad for item in items for bad in item.get("bad", ())]}


class _Readable:
    """Batches without what cannot be read; all of that is found before anything is given up."""

    def __init__(self, dataset: Scored, problems: Problems, request: Request) -> None:
        width, height = problems.size or (1, 1)
        self.pixels = max(width * height, (request.size or 1) ** 2)  # of each picture
        self.batches, self.problems = scoring.loader(dataset, request.workers, _batch, self.pixels), problems
        self.allowed = request.skip_bad

    def look(self) -> None:
        """Reads all of them, to know what is wrong."""
        for _ in self:
            pass

    def require(self) -> None:
        """Raises ValueError if more is known to be wrong than may be; looks into all of them first, to say all."""
        if len(self.problems.found) > self.allowed:
            self.look()
        self.problems.require(self.allowed)

    def __len__(self) -> int:  # a progress bar asks for it
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.batches:
            for bad in batch.pop("bad"):
                self.problems.add(*bad)
            if "sample" in batch and len(self.problems.found) <= self.allowed:
                yield batch


def _output(request: Request) -> Output:
    """What is scored: what all the metrics judge that are asked for, or methods of the protocol's task return.

    Raises:
        ValueError: metrics judge more than one, or there is no such task.
    """
    if request.protocol:
        name = request.plain["protocol"]["task"]
        return TASKS[name].output if name in TASKS else catalogue.unknown("task", name, TASKS)
    judged = {name: construction.target(composition.node(f"metric/{name}")).of for name in request.metrics}
    first, of = next(iter(judged.items()))
    if others := [name for name, kind in judged.items() if kind != of]:
        raise ValueError(
            f"expected metrics of one output, found {first}, which judges {of}, and {others[0]}, which judges "
            f"{judged[others[0]]}: score them apart"
        )
    return OUTPUTS[of]


def _sources(output: Output, folders: Mapping[str, Source], captions: Table | None) -> dict[str, Source]:
    """Batch field to where it is from, of all that the generated ones can be compared with.

    Raises:
        ValueError: there is a folder of real ones, and this output has no field for them.
    """
    found: dict[str, Source] = {}
    if "real" in folders:
        found[_real_field(output)] = folders["real"]
    if "input" in folders:  # rather than real images, which are the reference set then
        found["image"] = folders["input"]
    if "mask" in folders:
        found["mask"] = folders["mask"]
    if captions is not None:
        found[output.captions] = captions
    return found


def _real_field(output: Output) -> str:
    if output.real is None:
        raise ValueError(f"expected what {output.name} are compared with by captions=, found real=: give that")
    return output.real


def _chosen(request: Request, output: Output, has: Set[str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Metrics and extractors asked for; of a protocol's, those that the folders allow, and why the others are left out.

    Raises:
        ValueError: a metric asked for by name needs something that was not given.
    """
    metrics, extractors = _asked(request)
    metrics = {name: {**node, **request.settings.get(name, {})} for name, node in metrics.items()}
    extractors = config.with_extractors(metrics, extractors, request.extractor)
    given_by = _given_by(output)
    lacking = {name: _lacks(node, has, request.has_reference, given_by) for name, node in metrics.items()}
    left_out = {name: what for name, what in lacking.items() if what}
    if request.metrics and left_out:
        name, what = next(iter(left_out.items()))
        raise ValueError(f"expected {what} for the metric {name}, found none: give it, or leave the metric out")
    if unused := sorted(request.settings.keys() & left_out):
        raise ValueError(
            f"expected {left_out[unused[0]]} for the metric {unused[0]}, whose settings are given, found none: give it"
        )
    if (
        request.metrics
        and request.data
        and not any(construction.target(node).needs_reference for node in metrics.values())
    ):
        raise ValueError(
            f"expected a metric that compares with a real set (fid, kid) with data=, found {', '.join(metrics)}: leave "
            "data= out"
        )
    if len(left_out) == len(metrics):
        raise ValueError(f"expected a metric that {request.protocol} can score, found none: give more folders")
    metrics = {name: node for name, node in metrics.items() if name not in left_out}
    used = {node["extractor"] for node in metrics.values() if "extractor" in node}
    extractors = {name: node for name, node in extractors.items() if name in used}
    return metrics, with_files(extractors, request.judges), left_out


def _given_by(output: Output) -> dict[str, str]:
    """Batch field to the options that give it."""
    options = {"image": ["input="], "mask": ["mask="], output.captions: ["captions="]}
    if output.real:
        options.setdefault(output.real, []).append("real=")
    return {batch_field: " or ".join(words) for batch_field, words in options.items()}


def _asked(request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics, and the extractors that they name, by `metrics=` or `protocol=`, and `extractor=`."""
    if request.metrics:
        return described(request.metrics, request.extractor)
    # A named data set may have judges of its own, which its composed protocol knows.
    if request.data and request.plain["data"]["source"] == "real" and request.extractor == "standard":
        return request.plain["protocol"]["metrics"], request.plain["protocol"].get("extractors", {})
    protocol = composition.node(f"protocol/{request.protocol}")
    toy = protocol.get("toy", {}).get("extractors", {}) if request.extractor == "toy" else {}
    return protocol["metrics"], {**protocol.get("extractors", {}), **toy}


def _lacks(node: Mapping[str, Any], has: Set[str], has_reference: bool, given_by: Mapping[str, str]) -> str:
    """What a metric needs and was not given, in words; empty where there is nothing."""
    target: Any = construction.target(node)
    needs = set(target.needed(node)) - has
    lacking = [given_by.get(wanted, f"{wanted}, which only mmbench's own data have") for wanted in sorted(needs)]
    if target.needs_reference and not has_reference:
        lacking.append("real= or data=")
    return " and ".join(lacking)


def _left(output: Output, folders: Mapping[str, Source], problems: Problems, request: Request) -> Folder | None:
    """The folder of the real set without what is left out of it; None where a data set is that.

    Files are decoded for it only where some may be left out: statistics of the real set may be kept, and need none.

    Raises:
        ValueError: more is wrong than may be left out, or fewer than 2 are left.
    """
    if "real" not in folders:
        return None
    real = folders["real"]
    assert isinstance(real, Folder)
    if request.skip_bad:
        _read_all(output, real, problems, request)
    bad = sorted(problems.of("real"))
    left = real.without(bad)
    if len(left.names) < 2:
        why = f" beside {len(bad)} left out (real/{bad[0]}: {problems.found['real', bad[0]]})" if bad else ""
        raise ValueError(f"expected at least 2 {real.one}s to compare with, found {len(left.names)}{why}: add some")
    return left


def _read_all(output: Output, real: Folder, problems: Problems, request: Request) -> None:
    """Decodes all the real set.

    Raises:
        ValueError: more is wrong than may be left out; names all of it.
    """
    names = sorted(real.names - problems.of("real"))
    _Readable(Scored(names, {_real_field(output): real}, request.size), problems, request).look()
    problems.require(request.skip_bad)


def _reference(output: Output, real: Folder | None, request: Request) -> tuple[Dataset, Any]:
    """The real set, and everything that it depends on."""
    if real is not None:
        return _Real(_real_field(output), real, request.size), [real.sha256(), request.size]
    node = request.plain["data"]
    data = construction.construct({**node["module"], **node["evaluation"]})
    data.prepare_data()
    data.setup("predict")
    split, classes = (request.plain["protocol"][key] for key in ("reference", "reference_classes"))
    identity = [hashing.scientific(node), data.fingerprint(), split, *([classes] if classes else [])]
    return data.reference(split, classes), identity


def _unread(given: Mapping[str, Source], compared: Mapping[str, Source], suite: MetricSuite) -> dict[str, int]:
    """What was given and no metric looks at: a sentence to the number of files or texts."""
    return {
        f"{what}= was given, and none of these metrics looks at it": len(source.names)
        for what, source in given.items()
        if what != "fake" and all(source is not one for one in compared.values())
        if what != "real" or not suite.needs_reference
    }


def score(request: Request) -> tuple[Result, dict[str, dict[Sample, float]]]:
    """Scores the folders that a request names; the record of it, unwritten, and the values by sample.

    Its `data` are hashes of the folders, the real set and the captions; "skipped": what was left out, `05` or
    `real/05`, to why; "not scored": metric of the protocol to what it needs; "notes": sentence to a number
    of files or texts.

    Raises:
        MissingAsset: weights of an extractor, or the data set, are not there and could not be fetched.
        ValueError: a folder, a file or what a metric needs is wrong or missing (of single files, all are named), or
            metrics judge more than one output.
    """
    assets = Path(request.plain["paths"]["assets"]).expanduser()
    output = _output(request)
    captions = Table("caption", READERS[output.captions](request.captions)) if request.captions else None
    contents = {"fake": output, "real": output, "mask": MASKS}
    with opened(request.folders, contents, captions) as folders:
        sources = _sources(output, folders, captions)
        metrics, extractors, left_out = _chosen(request, output, sources.keys())
        try:
            suite = build_suite(metrics, extractors, assets, request.told)
        except MissingNetwork as error:
            raise MissingNetwork(error.problem, "extractor=toy") from None
        suite.require(output.name)
        scoring.place_suite(suite, request.plain["trainer"]["accelerator"])
        compared = {name: source for name, source in sources.items() if name in suite.needs}
        whole = {"real"} if suite.needs_reference else set()
        problems = inspect(output, folders, list(compared.values()), request.size, whole)
        if problems.size:
            suite.require_size(*problems.size)
        notes = noted(folders)
        names = sorted(folders["fake"].names - problems.spoilt)
        scored = Scored(names, {"generated": folders["fake"], **compared}, request.size)
        batches = _Readable(scored, problems, request)
        batches.require()
        left = _left(output, folders, problems, request) if suite.needs_reference else None
        suite.require_count(len(names), len(left.names) if left else None)
        drift = canary.check(suite, assets)
        shown = scoring.show(suite, batches, "scoring")
        problems.require(request.skip_bad)
        covered = scoring.coverage(shown, [Sample(name, 0, 0) for name in names if name not in problems.spoilt])
        reference = None
        if suite.needs_reference:
            real, reference = _reference(output, left, request)
            try:
                scoring.add_reference(suite, real, reference, assets, request.workers, batches.pixels)
            except ValueError:
                if left is not None:  # a file is damaged: all that are can be named
                    _read_all(output, left, problems, request)
                raise
        notes |= _unread({**folders, **({"captions": captions} if captions else {})}, compared, suite)
        if "prompt" in compared:
            notes |= scoring.cut_captions(suite, [compared["prompt"].item(sample.id) for sample in shown])
            notes |= scoring.foreign_captions([compared["prompt"].item(sample.id) for sample in shown])
        data = {what: source.sha256() for what, source in folders.items()} | {"reference": reference}
        notes |= alike(folders, problems.paired | whole)
    data |= {"captions": None if captions is None else sha256_json(captions.texts), "size": request.size}
    data |= {"skipped": problems.said, "not scored": left_out, "notes": notes}
    judges = {name: {key: node[key] for key in ("name", "network")} for name, node in extractors.items()}
    facts = {"metrics": metrics, "extractors": judges, "size": request.size}
    record = _record(request, data, facts, metrics=scoring.results_of(suite), coverage=covered, canary=drift)
    return record, suite.by_sample()


def _record(request: Request, data: dict[str, Any], facts: dict[str, Any], **found: Any) -> Result:
    """The record of what was found in `data` under `facts`, which say what the values mean."""
    weights = {key: score["weights"] for key, score in found["metrics"].items()}
    return Result(
        experiment="score",
        row={"method": _called(request.folders["fake"]), "data": request.data or "folder", "source": "folder"},
        seed=0,
        protocol={"name": request.protocol or "score", "hash": hashing.config_hash(facts)},
        run_key=sha256_json([data, facts, weights]),
        config_hash=hashing.config_hash(facts),
        weights={"choice": "none needed", "sha256": None, "verified": True},
        data=data,
        config=facts,
        **found,
    )


def _called(fake: str) -> str:
    """What a row calls the generated ones: their folder, with all dots of its name, or their file without extension."""
    path = Path(fake).expanduser().resolve()
    return path.name if path.is_dir() else path.stem
