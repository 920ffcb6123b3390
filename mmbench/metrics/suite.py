"""All metrics of a protocol, fed together."""

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from mmbench.core import catalogue
from mmbench.core.cards import MissingAsset, MissingNetwork
from mmbench.core.composition import node
from mmbench.core.construction import construct
from mmbench.core.files import sha256_file, sha256_json
from mmbench.core.hashing import config_hash
from mmbench.core.home import default_assets
from mmbench.core.noise import Sample
from mmbench.metrics.base import Metric, Score, joined
from mmbench.metrics.batch import Batch, check_batch, check_reference, warn_once
from mmbench.metrics.features import Extractor


class Held(NamedTuple):
    """What metrics of whole sets hold of generated images.

    Attributes:
        samples: N samples, sorted.
        outputs: hash of an extractor's weights to name of its output to (N, ...), in that order.
    """

    samples: list[Sample]
    outputs: dict[str, dict[str, Tensor]]


class MetricSuite(nn.Module):
    """Metrics that see the same batches; a network that several of them look through runs once per batch.

    Attributes:
        metrics: name to metric.
        needs: batch fields that any of them reads.
        needs_reference: whether any of them wants the real set.
        samples: what this process has shown, in the order of the images.
        warned: whether it has warned of real images that are likely to be in another range.
    """

    warned = False

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        super().__init__()
        self.metrics = nn.ModuleDict(metrics)
        self.needs = frozenset(field for metric in metrics.values() for field in metric.needs)
        self.needs_reference = any(metric.needs_reference for metric in metrics.values())
        self.samples: list[Sample] = []

    @classmethod
    def named(cls, *metrics: str, extractor: str = "standard", assets: str | Path | None = None) -> Self:
        """A suite of metrics by their names in `mmbench list group=metric`: `MetricSuite.named("psnr", "fid")`.

        Args:
            metrics: names of files in `conf/metric`.
            extractor: `standard` or `toy`: which networks learned metrics look through.
            assets: the folder that holds `weights/`; by default as on the command line.

        Raises:
            ValueError: there is no such metric or extractor, or no metric is named.
            MissingAsset: as `build_suite`.
        """
        if not metrics or not all(isinstance(name, str) for name in metrics):
            raise ValueError(f'expected names of metrics, named("psnr", "fid"), found {metrics}: give them one by one')
        try:
            return cls(build_suite(*described(metrics, extractor), assets or default_assets()).metrics)
        except MissingNetwork as error:
            raise MissingNetwork(error.problem, 'extractor="toy"') from None

    @property
    def device(self) -> torch.device:
        """Where images are to be."""
        return next(iter(self.metrics.values())).device

    @property
    def keys(self) -> dict[str, str]:
        """Metric name to the name its score is recorded under: `fid@standard`, `is(splits=1)@toy`, `psnr`."""
        return {name: _key(name, metric) for name, metric in self.metrics.items()}

    def update(self, made: Tensor | list[str], batch: Batch) -> None:
        """Shows what was generated to every metric.

        Args:
            made: (N, 3, H, W) uint8 images, (N, F, 3, H, W) uint8 videos, or N texts, as the metrics are `of`.
            batch: the fields that `needs` names, and `sample`.

        Raises:
            ValueError: something of it has another type, shape, range or number of items (see `Metric`).
        """
        for of in sorted({metric.of for metric in self.metrics.values()}):
            batch = check_batch(made, batch, of, self.needs)
        warn_once(self, batch, stacklevel=2)
        if isinstance(made, Tensor):
            self.require_size(*made.shape[:-3:-1])
        for metric in self.metrics.values():
            metric.update(made, batch)
        self.samples += batch.get("sample", ())
        self._forget()

    def update_reference(self, batch: Batch, only: Collection[str] | None = None) -> None:
        """Shows a batch of the real set (`id`, `sample`, `image`) to every metric that wants it, or to `only` those.

        Raises:
            ValueError: as `update`.
        """
        batch = check_reference(batch)
        warn_once(self, batch, stacklevel=2)
        for name, metric in self.metrics.items():
            if metric.needs_reference and (only is None or name in only):
                metric.update_reference(batch)
        self._forget()

    def require(self, output: str) -> None:
        """Refuses metrics of another output than the one that is to be scored.

        Raises:
            ValueError: names the first such metric and what it judges.
        """
        for name, metric in self.metrics.items():
            if metric.of != output:
                raise ValueError(
                    f"expected metrics of {output}, found {name}, which judges {metric.of}: leave it out, or choose "
                    f"another protocol"
                )

    def require_size(self, width: int, height: int) -> None:
        """Refuses pictures that are too small for any of the metrics, as `Metric.require_size`."""
        for metric in self.metrics.values():
            metric.require_size(width, height)

    def require_count(self, generated: int, real: int | None) -> None:
        """Refuses too few images for any of the metrics, as `Metric.require_count`."""
        for metric in self.metrics.values():
            metric.require_count(generated, real)

    def reference_state(self, name: str) -> dict[str, Tensor]:
        """What a metric keeps of the real set, for a file that runs share."""
        return {
            state: value.contiguous().to("cpu", copy=True)
            for state, value in self.metrics[name].reference_states().items()
        }

    def load_reference_state(self, name: str, states: Mapping[str, Tensor]) -> None:
        """Takes the place of `update_reference` with all the real set.

        Raises:
            ValueError: the states are those of another metric.
        """
        metric = self.metrics[name]
        if states.keys() != (wanted := metric.reference_states().keys()):
            raise ValueError(
                f"expected reference statistics {sorted(wanted)} of {name}, found {sorted(states)}: remove their file"
            )
        metric._computed = None  # as after `update_reference`
        for state, value in states.items():
            if isinstance(metric._defaults[state], list):  # rows, which metrics share: others are put beside them
                setattr(metric, state, [value.to(metric.device)])
            else:
                setattr(metric, state, value.to(metric.device, copy=True))  # sums, which are added to in place

    def compute(self) -> dict[str, Score]:
        """The scores by recorded name.

        Raises:
            ValueError: a metric has seen too few images, or no real set.
        """
        return {_key(name, metric): metric.compute() for name, metric in self.metrics.items()}

    def held(self) -> "Held":
        """What metrics of whole sets hold of every generated image, over all processes; every process calls it.

        Raises:
            ValueError: as `by_sample`.
        """
        samples = self._shown()
        order = sorted(range(len(samples)), key=samples.__getitem__)
        found: dict[str, dict[str, Tensor]] = {}
        for metric in self.metrics.values():
            if not metric.holds:
                continue
            of = found.setdefault(metric.extractor.weights_sha256, {})
            if lacking := [state for state in metric.holds if state not in of]:  # metrics of one network hold the same
                with metric.sync_context():
                    of.update({state: joined(getattr(metric, state))[order] for state in lacking})
                for state in lacking:
                    self._require_own(samples, len(of[state]))
        return Held([samples[place] for place in order], found)

    def by_sample(self) -> dict[str, dict[Sample, float]]:
        """The values that scores are means of, over all processes: recorded name to sample, sorted, to value.

        Scores that are no mean over images are left out, and so are samples that a metric has no value of. Every
        process calls it, since they all give their part.

        Raises:
            ValueError: as `compute`; or an image came without `sample`, or a sample came twice.
        """
        self.compute()
        samples = self._shown()
        found = {}
        for name, metric in self.metrics.items():
            if metric.sample_values is not None:
                self._require_own(samples, len(metric.sample_values))
                values = sorted(zip(samples, metric.sample_values.tolist(), strict=True))
                found[_key(name, metric)] = {sample: value for sample, value in values if not math.isnan(value)}
        return found

    def _shown(self) -> list[Sample]:
        """The samples of all processes, one after the other."""
        shares = [self.samples]
        if torch.distributed.is_initialized():
            shares *= torch.distributed.get_world_size()
            torch.distributed.all_gather_object(shares, self.samples)
        return [sample for share in shares for sample in share]

    @staticmethod
    def _require_own(samples: list[Sample], count: int) -> None:
        if not len(set(samples)) == len(samples) == count:
            raise ValueError(
                f"expected a `sample` of its own for each of {count} images, found "
                f"{len(set(samples))}: put it into every batch, and reset the suite before another evaluation"
            )

    def reset(self) -> None:
        """Forgets all images."""
        self.samples = []
        for metric in self.metrics.values():
            metric.reset()

    def _forget(self) -> None:
        for metric in self.metrics.values():
            if metric.extractor is not None:
                metric.extractor.forget()


def described(metrics: Iterable[str], extractor: str) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The configuration of metrics by their names, and of the extractors that they want, for `build_suite`.

    Args:
        metrics: names of files in `conf/metric`.
        extractor: `standard` or `toy`.

    Raises:
        ValueError: there is no such metric or extractor.
    """
    wanted = {name: node(f"metric/{name}") for name in metrics}
    names = sorted({config["extractor"] for config in wanted.values() if "extractor" in config})
    for name, metric in wanted.items():
        kind = metric.get("extractor")
        if kind and extractor not in (known := catalogue.names(f"network/{kind}")):
            raise ValueError(
                f"expected an extractor of {', '.join(known)} for the metric {name}, found {extractor}: choose one of "
                "those, or leave the metric out"
            )
    return wanted, {name: node(f"network/{name}/{extractor}") for name in names}


def with_files(extractors: Mapping[str, dict[str, Any]], files: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The extractors with files of weights that stand for those on their cards.

    Args:
        extractors: as `described` gives them.
        files: extractor to a path.

    Raises:
        ValueError: there is no such file, or none of the metrics wants that extractor.
    """
    found = dict(extractors)
    for name, file in files.items():
        path = Path(file).expanduser().resolve()
        if name not in extractors:
            raise ValueError(
                f"expected files for {', '.join(extractors) or 'no extractor'}, found one for {name}: leave "
                f"extractor.{name}.file= out"
            )
        if not path.is_file():
            raise ValueError(f"expected the weights of {name} at {path}, found no file: correct the path")
        card = {**extractors[name]["card"], "file": str(path), "sha256": sha256_file(path), "origin": "given by path"}
        found[name] = {**extractors[name], "card": card}
    return found


def build_suite(
    metrics: Mapping[str, Mapping[str, Any]],
    extractors: Mapping[str, Mapping[str, Any]],
    assets: str | Path,
    told: Mapping[str, str] | None = None,
) -> MetricSuite:
    """Builds the metrics of a protocol, and of its extractors those that some metric names, each once.

    Args:
        metrics: name to `_target_` and arguments; `extractor` is a name among `extractors`.
        extractors: name to the configuration of an `Extractor`, all but `assets`.
        assets: the folder that holds `weights/`.
        told: metric to the settings that a command line changed, as `config.settings_told` says them.

    Raises:
        MissingNetwork: an extractor's weights are not there and could not be fetched; plain MissingAsset where toy
            networks are no way out, since a metric has none.
        ValueError: a metric names an extractor that the protocol lacks.
    """
    built: dict[str, Extractor] = {}
    suite: dict[str, Metric] = {}
    with torch.random.fork_rng(devices=[]):  # networks start with random weights; that must not move a run's own stream
        for name, config in metrics.items():
            wanted = config.get("extractor")
            if wanted is None:
                suite[name] = construct(config)
                continue
            if wanted not in extractors:
                raise ValueError(
                    f"metric {name}: expected an extractor among {sorted(extractors)}, found {wanted!r}: "
                    "add it to the protocol's extractors, or name a folder of conf/network, or a file in one"
                )
            if extractors[wanted].get("_target_") != f"{Extractor.__module__}.{Extractor.__qualname__}":
                raise ValueError(
                    f"metric {name}: expected an extractor, found {wanted}, which judges nothing: name another"
                )
            facts = sha256_json(extractors[wanted])  # two names of one network are one
            if facts not in built:
                built[facts] = _built(extractors[wanted], assets, metrics)
                built[facts].settings_sha256 = config_hash(extractors[wanted]["network"])
            suite[name] = construct(
                {key: value for key, value in config.items() if key != "extractor"}, extractor=built[facts]
            )
    for name, text in (told or {}).items():
        suite[name].told = text
    return MetricSuite(suite)


def _built(extractor: Mapping[str, Any], assets: str | Path, metrics: Mapping[str, Mapping[str, Any]]) -> Extractor:
    """An extractor; where its file is missing, toy networks are only spoken of if every one of the metrics has one."""
    try:
        found: Extractor = construct(extractor, assets=str(assets))
    except MissingNetwork as error:
        folders = {name: str(node.get("extractor")).partition("/")[0] for name, node in metrics.items()}
        known = {name: catalogue.names(f"network/{folder}") for name, folder in folders.items()}
        if lacking := [name for name, files in known.items() if files and "toy" not in files]:
            raise MissingAsset(f"{error.problem}; no toy network stands in for that of {', '.join(lacking)}") from None
        raise
    return found


def _key(name: str, metric: Metric) -> str:
    name += metric.told
    return name if metric.extractor is None else f"{name}@{metric.extractor.name}"
