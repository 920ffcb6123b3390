"""Generates a method's images under a protocol, scores them, and writes one record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmbench.core import application


def report(plain: dict[str, Any]) -> None:
    """Evaluates one row and says where everything is."""
    from mmbench.pipeline.evaluation import evaluate

    record, run = evaluate(plain)
    if record is None:
        return
    print_scores(record.metrics)
    print(f"{run.output.name}: {run.folder / 'samples'}\ngrid: {run.folder / 'grid.png'}")
    print(f"record: {Path(run.plain['paths']['results']) / record.experiment}")
    print("next: another method (`mmbench list`), or a whole table: mmbench reproduce experiment=NAME")


def print_scores(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the scores of a record, one a line."""
    for name, found in sorted(metrics.items()):
        spread = "" if found["std"] is None else f" (std {found['std']:.4f})"
        print(f"{name:<28} {found['value']:.4f}{spread} over {found['count']}")


job = application.application(report)

HELP = """usage: mmbench evaluate method=NAME [data=NAME] [data.source=toy|real] [protocol=NAME] [key=value ...]

Generates the images that the protocol asks for, scores them and writes one record below results/.

  method, data, protocol   names that `mmbench list` shows
  data.source              real (default) or toy: procedural data in the same layout, made on first use
  weights                  official (default), trained, none (as initialised), or a file
  seed                     of training and of the noise (default 0)
  logger                   csv (default) or wandb (offline where no key is set)
  experiment               folder below results/ that the record goes to (default: the method's name)
  --multirun               sweep: method=a,b seed=0,1,2;  --cfg job: print the configuration
"""


def main(arguments: list[str]) -> int:
    return application.start(job, arguments)
