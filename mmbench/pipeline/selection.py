"""Choosing the best checkpoint of a training by a metric on a validation split."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from mmbench.core import catalogue, hashing
from mmbench.core.files import sha256_json, write_json, written_atomically
from mmbench.core.method import Method
from mmbench.core.noise import Noise
from mmbench.core.protocol import Protocol
from mmbench.core.weights import encoded
from mmbench.data.base import DataModule
from mmbench.data.batches import collate
from mmbench.metrics.suite import MetricSuite, build_suite, described
from mmbench.pipeline import scoring
from mmbench.pipeline.stages import Stage

KEYS = {"split", "metric", "every", "count"}


def check(select: dict[str, Any], splits: dict[str, Any]) -> None:
    """Refuses a `training.select` that cannot be done, before anything is trained.

    Raises:
        ValueError: a key is unknown or missing, the split is the one that tables are scored on, or there is none of
            that name.
    """
    if not isinstance(select, dict):
        raise ValueError(f"expected training.select as {{split, metric, every}}, found {select!r}: correct it")
    if strangers := sorted(select.keys() - KEYS):
        catalogue.unknown("key of training.select", strangers[0], KEYS)
    if lacking := sorted({"split", "metric", "every"} - select.keys()):
        raise ValueError(f"expected training.select with {lacking[0]}, found none: add it")
    if select["split"] == "test":
        raise ValueError(
            "expected training.select by a split that no table is scored on, found test: choose from "
            f"{', '.join(sorted(splits.keys() - {'test'}))}"
        )
    if select["split"] not in splits:
        catalogue.unknown("split", select["split"], splits)


class Selection(Callback):
    """Scores what the method makes for a split every so many epochs, and keeps the weights of the best time.

    What it found is part of checkpoints, so that a resumed training chooses as one that was not stopped.

    Args:
        wanted: the training, whose YAML has `training.select`: `split`, `metric` (a name in `conf/metric`), `every`
            (epochs), and `count` of images, if not all.
        data: the data module.
    """

    def __init__(self, wanted: Stage, data: DataModule) -> None:
        self.wanted, self.data = wanted, data
        self.select = wanted.plain["method"]["training"]["select"]
        check(self.select, data.records)
        self.found: dict[str, float] = {}  # epoch to score, in the order of epochs
        self._suite: MetricSuite | None = None

    @property
    def weights(self) -> Path:
        """Where the best weights lie while training goes on."""
        return self.wanted.folder / "best.safetensors"

    def state_dict(self) -> dict[str, Any]:
        return {"found": self.found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.found = dict(state_dict["found"])

    @property
    def suite(self) -> MetricSuite:
        if self._suite is None:
            plain = self.wanted.plain
            kind = "toy" if plain["data"]["source"] == "toy" else "standard"
            self._suite = build_suite(*described([self.select["metric"]], kind), plain["paths"]["assets"])
        return self._suite

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.select["every"] and epoch != trainer.max_epochs:
            return
        assert isinstance(pl_module, Method)
        value = self.score(pl_module)
        (metric,) = self.suite.metrics.values()
        sign = 1 if metric.higher_is_better else -1
        is_best = all(sign * value > sign * before for before in self.found.values())
        self.found[str(epoch)] = value
        if is_best and trainer.is_global_zero:
            with written_atomically(self.weights) as partial_file:
                partial_file.write_bytes(encoded(pl_module.state_dict()))
        if trainer.is_global_zero:
            write_json(self.wanted.folder / "selection.json", {**self.select, "found": self.found})

    def score(self, method: Method) -> float:
        """What the metric says of the method as it is now."""
        split, task = self.select["split"], method.task
        self.suite.to(method.device)
        self.suite.reset()
        self.suite.require(task.output.name)
        samples = self.data.samples(split, count=self.select.get("count"))
        prompt = {task.prompt} if task.prompt else set()
        fields = {*task.inputs, *prompt, *(self.suite.needs & self.data.fields)}
        items = self.data.evaluation(split, scoring.share(samples), 0, fields)
        protocol = Protocol("selection", task.name, {})
        training = method.training
        method.eval()
        for batch in scoring.loader(items, 0, partial(_batch, seed=self.wanted.plain["seed"])):
            batch = method.transfer_batch_to_device(batch, method.device, 0)
            with torch.inference_mode(not method.needs_gradients):
                made = method.predict_step(batch)
            names = [sample.name for sample in batch["sample"]]
            task.output.check(made, names)
            judged = collate([{"made": task.output.judged(one)} for one in task.output.finished(made, batch, protocol)])
            made = judged["made"].to(method.device) if isinstance(judged["made"], torch.Tensor) else judged["made"]
            with scoring.range_known():
                self.suite.update(made, {**batch, **({"prompt": batch[task.prompt]} if task.prompt else {})})
        method.train(training)
        if self.suite.needs_reference and scoring.place()[0] == 0:
            plain = self.wanted.plain
            identity = [hashing.config_hash(plain["data"]["module"]), self.data.fingerprint(), split]
            assets = Path(plain["paths"]["assets"]).expanduser()
            scoring.add_reference(self.suite, self.data.reference(split), sha256_json(identity), assets, 0)
        (score,) = self.suite.compute().values()
        return score.value


def _batch(items: Any, seed: int) -> dict[str, Any]:
    batch = collate(items)
    return {**batch, "noise": Noise(seed, batch["sample"])}


def told(folder: Path) -> str:
    """What the metric said after each epoch that it saw, in words, of a training that is done."""
    kept = json.loads((folder / "selection.json").read_text(encoding="utf-8"))
    return f"{kept['metric']} on {kept['split']} by epoch: " + ", ".join(
        f"{epoch} {value:.4g}" for epoch, value in sorted(kept["found"].items(), key=lambda pair: int(pair[0]))
    )
