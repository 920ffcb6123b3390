"""Trains a method of each family and compares what comes out with a baseline: shared by test and baseline.

    python -m mmbench.maintenance.regression [fast] [slow] [inpainting] [synthesis]

writes `tests/baselines/<name>.json` from the seeds 0 to 9. Trainings are kept below `runs/regression`: stopped and
started again it goes on.
"""

import json
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mmbench.core import catalogue, config, results
from mmbench.core.files import write_json
from mmbench.metrics.suite import build_suite
from mmbench.pipeline import assembly, evaluation, generation, training

BASELINES = Path(__file__).resolve().parents[2] / "tests/baselines"  # of a checkout
RUNS = Path("runs/regression")
SEEDS = tuple(range(10))  # of 5 the spread was once found a third of what it is
DEVIATIONS = 4  # standard deviations over the seeds that a value may be off


class Regression(NamedTuple):
    """What is trained and compared.

    Attributes:
        method: of conf/method or of `BASELINES`.
        metrics: of the protocol, that are compared.
        idle: a method that does nothing and is not to pass for the trained one; None where there is no such method.
        words: what else its configuration says.
    """

    method: str
    metrics: tuple[str, ...]
    idle: str | None
    words: tuple[str, ...] = ()


EDITS = ("edit_accuracy", "preservation")
# The slow one is the demo's variant.
REGRESSIONS: Mapping[str, Regression] = {
    "fast": Regression("manigan_direct_regression", EDITS, "identity", ("data.module.image_size=32",)),
    "slow": Regression("manigan_direct", EDITS, "identity"),
    "inpainting": Regression(
        "csa_regression",
        ("l1_in_mask", "psnr_in_mask"),
        "grey_hole",
        ("data.toy_images=500", "protocol=strict_inpainting", "protocol.draws=1"),
    ),
    # Stands on the same DAMSM as the fast one.
    "synthesis": Regression(
        "attngan_regression",
        ("r_precision", "clip_score", "fid"),
        None,
        ("data.module.image_size=32", "protocol=strict_synthesis"),
    ),
}


def words(name: str, *more: str, method: str | None = None) -> list[str]:
    """The words of a configuration of that regression, of its own method or of another one."""
    own = REGRESSIONS[name]
    common = ["data=cub", "data.source=toy", "data.module.cache=true", "trainer=cpu"]
    return [f"method={method or own.method}", *own.words, *common, *more]


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


def scores(name: str, chosen: list[str]) -> dict[str, float]:
    """What the metrics of a regression say of the test images, by name, or `name@extractor`."""
    run = generation.prepared(config.composed(chosen))
    generation.generate(run)
    metrics = {metric: run.protocol.metrics[metric] for metric in REGRESSIONS[name].metrics}
    suite = build_suite(metrics, run.protocol.extractors, Path(run.plain["paths"]["assets"]))
    found, _ = evaluation.score(run, suite)
    return {metric: one["value"] for metric, one in found.items()}


def measured(name: str, seed: int, runs: Path) -> dict[str, float]:
    """Everything that is compared, of one training below `runs`: the metrics, and the loss terms of the last epoch."""
    chosen = words(name, f"seed={seed}", f"paths.runs={runs}")
    terms = trained_terms(chosen)
    return {**scores(name, [*chosen, "weights=trained"]), **terms}


def baseline(name: str) -> dict[str, Any]:
    """What `write_baseline` wrote."""
    return json.loads((BASELINES / f"{name}.json").read_text(encoding="utf-8"))


def differences(found: Mapping[str, float], expected: Mapping[str, Any]) -> list[str]:
    """The values that lie further from the baseline's than its tolerance allows, each in words; none if all is well."""
    assert found.keys() == expected["values"].keys()
    return [
        f"{name}: expected {value['mean']:.4f} +- {value['tolerance']:.4f}, found {found[name]:.4f}"
        for name, value in expected["values"].items()
        if not abs(found[name] - value["mean"]) <= value["tolerance"]
    ]


def write_baseline(name: str) -> None:
    """Trains every seed, and writes mean, standard deviation and tolerance of everything that is compared."""
    found = [measured(name, seed, RUNS) for seed in SEEDS]
    values = {}
    for compared in found[0]:
        of_seeds = [one[compared] for one in found]
        mean, spread = statistics.fmean(of_seeds), statistics.stdev(of_seeds)
        values[compared] = {"mean": mean, "std": spread, "tolerance": DEVIATIONS * spread, "seeds": of_seeds}
    idle = REGRESSIONS[name].idle
    write_json(
        BASELINES / f"{name}.json",
        {
            "made_by": f"make regression-baseline ARGS={name}",
            "tolerance": f"{DEVIATIONS} standard deviations over the seeds",
            "configuration": words(name),
            "seeds": list(SEEDS),
            "commit": results.commit(),
            "versions": results.versions(),
            "untrained": scores(name, words(name, "weights=none", f"paths.runs={RUNS}")),
            **({"idle": scores(name, words(name, f"paths.runs={RUNS}", method=idle))} if idle else {}),
            "values": values,
        },
    )


def main(names: list[str]) -> None:
    with own_methods((RUNS / "conf").absolute()):
        for name in names or REGRESSIONS:
            write_baseline(name)


if __name__ == "__main__":
    main(sys.argv[1:])
