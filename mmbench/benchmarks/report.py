"""How long the site takes to build, and how large it is: of toy tables with made-up records, values and pictures.

Each row has three seeds, with values of every image of the toy data, and pictures of five. The seconds are those of the
site alone, without those that loading Python's packages takes.
"""

import csv
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from mmbench.core import catalogue, composition, config
from mmbench.core.files import write_json
from mmbench.core.noise import Sample, random_stream
from mmbench.core.results import Result
from mmbench.pipeline import by_sample, experiment_files, lookup
from mmbench.pipeline.assembly import prepared_data
from mmbench.pipeline.rows import described
from mmbench.site import building

HELP = """usage: python -m mmbench.benchmarks.report [TABLES] [key=value ...]

Prints the seconds and MB of a site of so many tables (45) with ten rows each beside the goals; ends with 1 where one is
missed. Words are as `mmbench report` takes them.
"""

TABLES, SEEDS, PICTURES, SIDE = 45, (0, 1, 2), 5, 64
METHODS = ("sisgan", "tagan", "controlgan", "manigan", "manigan_main", "manigan_concat", "manigan_without_acm",
           "manigan_without_main", "manigan_direct", "lightweight_manigan")  # fmt: skip
METRICS = ("l1", "psnr", "ssim", "diff", "edit_accuracy", "preservation")
SCORES = ("is@standard", "fid@standard")  # of a whole set, without values by image
GOALS = {"seconds": 60.0, "MB": 50.0}
PUBLISHED = ("paper", "table", "method", "variant", "dataset", "metric", "value", "uncertainty", "higher_is_better",
             "protocol", "confidence")  # fmt: skip


def write_experiments(folder: Path, num_tables: int) -> list[str]:
    """Files of experiments, and one of the published numbers of all; returns their names."""
    rows = [{"method": name, "data": "cub", "published": {"method": name, "dataset": "toy CUB"}} for name in METHODS]
    claim = {"text": "It edits better", "where": "Section 1", "rows": [*METHODS[:3]], "metrics": ["edit_accuracy"]}
    content = {
        "citation": "Nobody. 2026.", "published": "bench", "select": {"paper": "Bench"}, "protocol": "strict",
        "metrics": {name: name for name in (*METRICS, *SCORES)}, "tolerance": {"relative": 0.02, "absolute": {}},
        "sources": ["toy"], "seeds": [*SEEDS], "claims": [claim], "rows": rows,
    }  # fmt: skip
    for name in ("experiments", "published"):
        (folder / name).mkdir()
    names = [f"bench_{place:02d}" for place in range(num_tables)]
    for name in names:
        (folder / f"experiments/{name}.yaml").write_text(f"# Made up\n{yaml.safe_dump(content)}", encoding="utf-8")
    with (folder / "published/bench.csv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(PUBLISHED)
        lines.writerows(["Bench", "one", method, "", "toy CUB", metric, "0.5", "", "true", "as here", "read"]
                        for method in METHODS for metric in content["metrics"])  # fmt: skip
    return names


def write_records(names: list[str], words: list[str]) -> None:
    """Records of the rows of all experiments, and run folders with pictures."""
    experiment, samples = experiment_files.load(names[0]).on("toy"), None
    for row in experiment.rows:
        plain = lookup.row_config(experiment, row, "strict", "toy", SEEDS[0], words)  # the same of all experiments
        if samples is None:
            data = prepared_data(plain, evaluation=True)
            data.setup("predict")
            samples = data.samples("test")
        keys = lookup.keys_of(plain, SEEDS)
        for name in names:
            for seed, key in keys.items():
                write_record(name, plain, seed, key, samples)
            write_pictures(Path(plain["paths"]["runs"]) / row.method / name, f"{name} {row.method} {SEEDS[0]}", samples)


def write_record(name: str, plain: dict[str, Any], seed: int, key: str, samples: list[Sample]) -> None:
    method, results = plain["method"]["name"], plain["paths"]["results"]
    rng = random_stream("record", name, method, seed)
    values = {metric: dict(zip(samples, rng.normal(0.5, 0.1, len(samples)).tolist(), strict=True))
              for metric in METRICS}  # fmt: skip
    means = {metric: float(np.mean([*of_sample.values()])) for metric, of_sample in values.items()}
    means |= {metric: float(rng.normal(10, 1)) for metric in SCORES}
    scores = {
        metric: {"value": mean, "std": None, "count": len(samples), "weights": None} for metric, mean in means.items()
    }
    record = Result(
        experiment=name,
        row={"method": method, "data": "cub", "source": "toy"},
        seed=seed,
        protocol={"name": "strict", "hash": "made up"},
        metrics=scores,
        run_key=f"{name} {method} {seed}",
        config_hash=key,
        weights={"choice": "trained", "sha256": None, "verified": True},
        data={"fingerprint": "made up"},
        config=described(plain),
    )
    by_sample.keep(record, values, results).write(results)


def write_pictures(folder: Path, run_key: str, samples: list[Sample]) -> None:
    """A run folder with smooth pictures of its own of a few samples."""
    (folder / "samples").mkdir(parents=True)
    entries = []
    for place, sample in enumerate(samples[:: len(samples) // PICTURES][:PICTURES]):
        small = random_stream("picture", run_key, sample.name).integers(0, 256, (8, 8, 3), np.uint8)
        file = f"samples/{place}.png"
        Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / file)
        told = {"id": sample.id, "caption": sample.caption, "draw": sample.draw, "prompt": "a red bird"}
        entries.append({**told, "file": file})
    write_json(folder / "manifest.json", {"run_key": run_key, "count": len(entries), "samples": entries})


def measured(folder: Path, num_tables: int, words: list[str]) -> tuple[float, float, int]:
    """Seconds that a site took, its MB, and its number of pages."""
    words = [*words, *(f"paths.{name}={folder / name}" for name in ("assets", "runs", "results"))]
    names = write_experiments(folder, num_tables)
    write_records(names, words)
    composition.forget()
    start, computed = time.perf_counter(), time.process_time()
    pages = building.build(names, words, config.folders(words), folder / "site")
    seconds = time.perf_counter() - start
    print(f"{time.process_time() - computed:.1f} s of the processor")
    return seconds, sum(path.stat().st_size for path in (folder / "site").rglob("*") if path.is_file()) / 1e6, pages


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    num_tables = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else TABLES
    shipped = catalogue.shipped
    with tempfile.TemporaryDirectory(prefix="mmbench-bench-") as temporary:
        folder = Path(temporary).resolve()
        own = {"experiments": folder / "experiments", "results/published": folder / "published"}
        try:
            catalogue.shipped = lambda name: own.get(name) or shipped(name)
            *found, pages = measured(folder, num_tables, arguments)
        finally:
            catalogue.shipped = shipped
    print(f"{num_tables} tables of {len(METHODS)} rows, {len(SEEDS)} seeds each: {pages} pages")
    for (what, goal), value in zip(GOALS.items(), found, strict=True):
        print(f"{what:<8} {value:7.1f}   goal < {goal:.0f}   {value / goal:5.2f} x")
    return int(any(value >= goal for value, goal in zip(found, GOALS.values(), strict=True)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
