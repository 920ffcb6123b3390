"""Trains the direct variant of ManiGAN and compares what comes out with a baseline: shared by test and baseline.

    python -m mmbench.maintenance.regression [fast] [slow]

writes `tests/baselines/<size>.json` from the seeds 0 to 4. Trainings are kept below `runs/regression`: stopped and
started again it goes on.
"""

import json
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmbench.core import catalogue, config, results
from mmbench.core.files import write_json
from mmbench.metrics.suite import build_suite
from mmbench.pipeline import assembly, evaluation, generation, training

BASELINES = Path(__file__).resolve().parents[2] / "tests/baselines"  # of a checkout
RUNS = Path("runs/regression")
METRICS = ("edit_accuracy", "preservation")
SEEDS = (0, 1, 2, 3, 4)
DEVIATIONS = 4  # standard deviations over the seeds that a value may be off

# Method and further words; the slow one is the demo's own.
SIZES = {"fast": ("manigan_direct_regression", ["data.module.image_size=32"]), "slow": ("manigan_direct", [])}


def words(size: str, *more: str, method: str | None = None) -> list[str]:
    """The words of a configuration of that size, of its own method or of another one."""
    own, further = SIZES[size]
    common = ["data=cub", "data.source=toy", "data.module.cache=true", "trainer=cpu"]
    return [f"method={method or own}", *further, *common, *more]


@contextmanager
def own_methods(folder: Path) -> Iterator[None]:
    """Inside, runs are composed from a copy of conf/ in `folder` that has the YAMLs of `BASELINES` besides."""
    shipped = catalogue.shipped
    shutil.copytree(shipped("conf"), folder, dirs_exist_ok=True)
    shutil.copytree(BASELINES / "method", folder / "method", dirs_exist_ok=True)
    catalogue.shipped = lambda name: folder if name == "conf" else shipped(name)
    try:
        yield
    finally:
        catalogue.shipped = shipped


def trained_terms(chosen: list[str]) -> dict[str, float]:
    """Trains what is not trained yet; the loss terms, each averaged over the last epoch."""
    plain = config.composed(chosen)
    folder = training.trained(plain, assembly.prepared_data(plain)).folder
    return json.loads((folder / "training.json").read_text(encoding="utf-8"))["terms"]


def scores(chosen: list[str]) -> dict[str, float]:
    """Edit accuracy and preservation of the test images under the strict protocol."""
    run = generation.prepared(config.composed(chosen))
    generation.generate(run)
    metrics = {name: run.protocol.metrics[name] for name in METRICS}
    suite = build_suite(metrics, {}, Path(run.plain["paths"]["assets"]))
    found, _ = evaluation.score(run, suite)
    return {name: found[name]["value"] for name in METRICS}


def measured(size: str, seed: int, runs: Path) -> dict[str, float]:
    """Everything that is compared, of one training below `runs`: the metrics, and the loss terms of the last epoch."""
    chosen = words(size, f"seed={seed}", f"paths.runs={runs}")
    terms = trained_terms(chosen)
    return {**scores([*chosen, "weights=trained"]), **terms}


def baseline(size: str) -> dict[str, Any]:
    """What `write_baseline` wrote."""
    return json.loads((BASELINES / f"{size}.json").read_text(encoding="utf-8"))


def differences(found: Mapping[str, float], expected: Mapping[str, Any]) -> list[str]:
    """The values that lie further from the baseline's than its tolerance allows, each in words; none if all is well."""
    assert found.keys() == expected["values"].keys()
    return [
        f"{name}: expected {value['mean']:.4f} +- {value['tolerance']:.4f}, found {found[name]:.4f}"
        for name, value in expected["values"].items()
        if not abs(found[name] - value["mean"]) <= value["tolerance"]
    ]


def write_baseline(size: str) -> None:
    """Trains every seed, and writes mean, standard deviation and tolerance of everything that is compared."""
    found = [measured(size, seed, RUNS) for seed in SEEDS]
    values = {}
    for name in found[0]:
        of_seeds = [one[name] for one in found]
        spread = statistics.stdev(of_seeds)
        tolerance = DEVIATIONS * spread
        values[name] = {"mean": statistics.fmean(of_seeds), "std": spread, "tolerance": tolerance, "seeds": of_seeds}
    write_json(
        BASELINES / f"{size}.json",
        {
            "made_by": f"make regression-baseline ARGS={size}",
            "tolerance": f"{DEVIATIONS} standard deviations over the seeds",
            "configuration": words(size),
            "seeds": list(SEEDS),
            "commit": results.commit(),
            "versions": results.versions(),
            "untrained": scores(words(size, "weights=none", f"paths.runs={RUNS}")),
            "identity": scores(words(size, f"paths.runs={RUNS}", method="identity")),
            "values": values,
        },
    )


def main(sizes: list[str]) -> None:
    with own_methods((RUNS / "conf").absolute()):
        for size in sizes or SIZES:
            write_baseline(size)


if __name__ == "__main__":
    main(sys.argv[1:])
