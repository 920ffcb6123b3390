"""Trains a method, and the stages it stands on first."""

from typing import Any

from mmbench.core import application, command_line, composition, config
from mmbench.core.files import RUNS, require_assets, require_writable


def report(plain: dict[str, Any]) -> None:
    """Trains and says where the weights are."""
    from pytorch_lightning.utilities import rank_zero_only

    from mmbench.pipeline.assembly import prepared_data, protocols_for
    from mmbench.pipeline.mirrors import require_loggers
    from mmbench.pipeline.stages import require_hardware
    from mmbench.pipeline.training import require_training, trained

    require_training(plain)  # before any data are made
    require_hardware(plain)
    require_loggers(plain["logger"])
    require_writable(plain["paths"]["runs"], RUNS)
    require_assets(plain["paths"])
    done = trained(plain, prepared_data(plain))
    if rank_zero_only.rank > 0:
        return
    method, data = plain["method"]["name"], plain["data"]
    if "training" in plain["method"]:
        print(f"weights: {done.weights}\nlog: {done.folder / 'log'}")
    else:
        before = ", ".join(str(stage.weights) for stage in done.before.values())
        print(f"weights: {method} has those of the stages it stands on, {before}")
    words = [f"method={method}", f"data={data['name']}", f"data.source={data['source']}", f"seed={plain['seed']}"]
    if plain["scale"] != ("toy" if data["source"] == "toy" else "published"):
        words.append(f"scale={plain['scale']}")
    if (fitting := protocols_for(plain)) and plain["protocol"]["task"] != composition.node(f"protocol/{fitting[0]}")[
        "task"
    ]:
        words.append(f"protocol={fitting[0]}")
    print(f"next: mmbench evaluate {' '.join(words)} weights=trained, and the words that changed this training")


job = application.application(report)

HELP = """usage: mmbench train method=NAME [data=NAME] [data.source=toy|real] [seed=N] [key=value ...]

Trains a method, the stages it stands on first. What has been trained with the same configuration, data and seed is
used as it is; a run that was stopped goes on from its last checkpoint.

  method.training.epochs=N   any key of the method's YAML can be set; a changed one is another training
  trainer                    auto (default, one accelerator), cpu, or ddp (all accelerators)
  trainer.precision          32-true (default), bf16-mixed or 16-mixed: faster on a GPU; losses and images stay float32
  logger                     csv (default), wandb (offline where no key is set), tensorboard or mlflow
  profile=true               says at the end which share of the time went into data, forward, backward, optimiser,
                             metrics and writing; on a GPU it waits for the device at each change, and takes longer
  --multirun                 sweep: method=a,b seed=0,1,2;  --cfg job: print the configuration
  hydra/launcher             of a sweep: joblib, slurm or ray in the place of one job after the other
"""


def _require_heard(arguments: list[str]) -> None:
    """Refuses what is said of the evaluation alone.

    Raises:
        ValueError: names the key.
    """
    for word in command_line.parse([word for word in arguments if "=" in word and not word.startswith("-")]):
        key = word.get_key_element().lstrip("+~")
        if key in ("weights", "judges", "objective") or key.startswith("protocol.") or "@protocol." in key:
            raise ValueError(
                f"expected options of a training, found {key}, which is for `mmbench evaluate`: leave it out"
            )


def main(arguments: list[str]) -> int:
    command_line.require_once(arguments)
    _require_heard(arguments)
    require_writable(config.folders(arguments)["runs"], RUNS)  # Hydra makes a folder there before it starts
    return application.start(job, arguments)
