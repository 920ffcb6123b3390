"""Generates a method's images under a protocol, scores them, and writes one record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmbench.core import application, catalogue, command_line, config
from mmbench.core.files import RESULTS, RUNS, require_assets, require_writable
from mmbench.core.results import Result, Unwritten


def report(plain: dict[str, Any]) -> float | None:
    """Evaluates one row and says where everything is; returns the score that a sweep looks for, if it does."""
    if plain["profile"]:
        raise ValueError("expected profile of a training, found it for an evaluation: leave it out, or `mmbench train`")
    paths = plain["paths"]
    require_writable(Path(paths["results"]) / (plain["experiment"] or plain["method"]["name"]), RESULTS)
    require_writable(paths["runs"], RUNS)
    require_assets(paths)
    from mmbench.pipeline.evaluation import evaluate
    from mmbench.pipeline.mirrors import require_loggers
    from mmbench.pipeline.stages import require_hardware

    require_hardware(plain)
    require_loggers(plain["logger"])
    try:
        if plain["objective"] is not None:
            _train(plain)
        record, run = evaluate(plain)
    except Unwritten as error:
        print_scores(error.record)
        raise
    if record is None:
        return None
    print_scores(record)
    for sentence, count in record.data.get("notes", {}).items():
        print(f"note: {sentence}: {count}")
    print(f"{run.output.name}: {run.folder / 'samples'}\ngrid: {run.folder / 'grid.png'}")
    print(f"record: {Path(run.plain['paths']['results']) / record.experiment}")
    print("next: another method (`mmbench list`), or a whole table: mmbench reproduce experiment=NAME")
    return _objective(plain["objective"], record.metrics)


def _train(plain: dict[str, Any]) -> None:
    """What a sweeper proposes was not trained before."""
    from mmbench.pipeline.assembly import prepared_data
    from mmbench.pipeline.stages import learns
    from mmbench.pipeline.training import trained

    if plain["weights"] == "trained" and learns(plain):
        trained(plain, prepared_data(plain))


def _objective(name: str | None, metrics: Mapping[str, Mapping[str, Any]]) -> float | None:
    if name is not None and name not in metrics:
        catalogue.unknown("objective among the scores", name, metrics)
    return None if name is None else metrics[name]["value"]


def print_scores(record: Result) -> None:
    """Prints the scores of a record, one a line."""
    for name, found in sorted(record.metrics.items()):
        spread = "" if found["std"] is None else f" (std {_shown(found['std'])})"
        count, images = record.counts(name)
        of = "" if count == images else f" of {images}"
        print(f"{name:<28} {_shown(found['value'])}{spread} over {count}{of}")


def _shown(value: float) -> str:
    """Four decimals; what these would show as 0 and is not, KID of near sets say, in two digits of its own."""
    return f"{value:.1e}" if 0 < abs(value) < 5e-5 else f"{value:.4f}"


job = application.application(report)

HELP = """usage: mmbench evaluate method=NAME [data=NAME] [data.source=toy|real] [protocol=NAME] [key=value ...]

Generates the images that the protocol asks for, scores them and writes one record below results/.

  method, data, protocol   names that `mmbench list` shows
  data.source              real (default) or toy: procedural data in the same layout, made on first use
  weights                  official (default), trained, none (as initialised), or a file
  protocol.KEY=VALUE       any key of the protocol's YAML; protocol.metrics.is.splits=1 gives a score is(splits=1)
  seed                     of training and of the noise (default 0)
  logger                   csv (default), wandb (offline where no key is set), tensorboard or mlflow
  experiment               folder below results/ that the record goes to (default: the method's name)
  --multirun               sweep: method=a,b seed=0,1,2;  --cfg job: print the configuration
  hydra/launcher           of a sweep: joblib, slurm or ray in the place of one job after the other
  hydra/sweeper=optuna     looks for the words under which objective=SCORE (fid@toy, say) is least, by training and
                           evaluating: weights=trained 'method.training.epochs=choice(1,2,4)' hydra.sweeper.n_trials=20
"""


def main(arguments: list[str]) -> int:
    command_line.require_once(arguments)
    require_writable(config.folders(arguments)["runs"], RUNS)  # Hydra makes a folder there before it starts
    return application.start(job, arguments)
