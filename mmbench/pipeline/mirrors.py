"""Mirrors of a run beside what lies in its folder: Weights & Biases, TensorBoard, MLflow, any of Lightning's loggers.

`conf/logger/NAME.yaml` says how one is built; its texts may name facts of the run in braces (`FACTS`). A mirror works
in a thread of its own, so that nothing that happens to it, an outage or a full disk say, stops a run or makes it wait.
"""

import os
import queue
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import Logger, rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from mmbench.core import catalogue, construction
from mmbench.core.files import sha256_json
from mmbench.core.progress import console
from mmbench.pipeline.cells import Cell
from mmbench.pipeline.experiments import Experiment
from mmbench.pipeline.tables import COLUMNS, page, texts

FACTS = {
    "job": "train, evaluate or table",
    "group": "the experiment, or the method where there is none",
    "name": "what tells the run from others of its job",
    "id": "the same whenever this run goes on",
    "seed": "of the run; of a table all of them",
    "method": "name of the method; of a table empty",
    "data": "name of the data set and its source",
    "folder": "where everything of the run lies",
}
HELD = 10_000  # calls that wait for a mirror which is slow; more are lost
PATIENCE, HURRY = 30.0, 5.0  # seconds that a run waits for a mirror when all else is done, and when it was stopped
ANSWER = 3.0  # seconds that a server has to say anything before a run is kept offline


class Mirror(Logger):
    """One of Lightning's loggers, of which nothing is waited for; what it cannot do is left out.

    Args:
        name: of the node, in messages.
        node: how the logger is built.
    """

    def __init__(self, name: str, node: Mapping[str, Any]) -> None:
        super().__init__()
        self._name, self._node = name, node
        self._calls: queue.Queue[tuple[str, tuple[Any, ...], dict[str, Any]]] = queue.Queue(HELD)
        self._worker = threading.Thread(target=self._work, name=f"mirror {name}", daemon=True)
        self._is_over = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._later("log_metrics", dict(metrics), step=step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._later("log_hyperparams", params)

    def log_table(self, key: str, columns: list[str], rows: list[list[Any]]) -> None:
        """A table, where this kind of mirror has tables."""
        self._later("log_table", key, columns=columns, data=rows)

    def log_image(self, key: str, path: Path) -> None:
        """A picture, where this kind of mirror has pictures."""
        self._later("log_image", key, [str(path)])

    def save(self) -> None:
        self._later("save")

    def finalize(self, status: str) -> None:
        """Ends the mirror, and waits for it as long as `PATIENCE` lasts."""
        patience = PATIENCE if status == "success" else HURRY
        if self._is_over or not self._worker.is_alive():
            return
        self._later("finalize", status)
        self._is_over = True
        self._worker.join(patience)
        if self._worker.is_alive():
            self._say(f"not done within {patience:.0f} s, and not waited for any longer")

    @rank_zero_only
    def _later(self, method: str, *args: Any, **kwargs: Any) -> None:
        if self._is_over:
            return
        if self._worker.ident is None:
            self._worker.start()
        try:
            self._calls.put_nowait((method, args, kwargs))
        except queue.Full:
            self._is_over = True
            self._say(f"{HELD} calls behind, so that the rest is left out")

    def _work(self) -> None:
        try:
            logger = construction.construct(self._node)
            method = ""
            while method != "finalize":
                method, args, kwargs = self._calls.get()
                if hasattr(logger, method):
                    getattr(logger, method)(*args, **kwargs)
        except Exception as error:  # whatever befalls a mirror, the run is not to notice
            self._is_over = True
            self._say(f"lost ({type(error).__name__}: {' '.join(str(error).split())[:300]})")

    def _say(self, what: str) -> None:
        console.print(
            f"logger {self._name}: {what}; the run goes on, and its files have everything",
            style="yellow",
            highlight=False,
            markup=False,
        )


class Wandb(WandbLogger):
    """Lightning's logger of Weights & Biases.

    It is offline, in the run's own folder, where the user has no key or the server does not answer; `wandb sync`
    uploads that later.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"mode": wandb_mode(), **options})

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None and self._wandb_init["mode"] == "online" and not _answers():
            self._wandb_init["mode"] = "offline"
        return super().experiment

    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)


def wandb_mode() -> str:
    """Weights & Biases' mode: what WANDB_MODE says, else `online` where it takes this user's key.

    Where there is no key, or no answer within seconds, it is `offline`.

    Raises:
        ValueError: it does not take the key.
    """
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    import wandb

    try:
        if not wandb.login(prompt=False, verify=False) or not _answers():
            return "offline"
        return "online" if _within(HURRY, wandb.login, prompt=False) else "offline"
    except wandb.Error as error:
        raise ValueError(
            f"expected a key that Weights & Biases takes, found {' '.join(str(error).split())}: correct WANDB_API_KEY, "
            "or set WANDB_MODE=offline"
        ) from None


def _answers() -> bool:
    """Whether the server of Weights & Biases says anything at all; if not, it is told that the run is kept offline."""
    import wandb

    try:
        requests.head(wandb.setup().settings.base_url, timeout=ANSWER)
    except requests.RequestException:
        console.print("Weights & Biases does not answer: this run is kept offline, for `wandb sync`", markup=False)
        return False
    return True


def _within(seconds: float, function: Callable[..., Any], **arguments: Any) -> Any:
    """What a function returns or raises; None where it takes longer than so many seconds, and is left to itself."""
    came: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()

    def work() -> None:
        try:
            came.put((function(**arguments), None))
        except Exception as error:  # handed on to who waits for it
            came.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        value, error = came.get(timeout=seconds)
    except queue.Empty:
        return None
    if error:
        raise error
    return value


def mirrors(nodes: Mapping[str, Any], facts: Mapping[str, Any], described: Mapping[str, Any]) -> list[Mirror]:
    """The mirrors of one run.

    Args:
        nodes: the block `logger` of a configuration.
        facts: a text for each of `FACTS`.
        described: the configuration that a mirror keeps.
    """
    made = [Mirror(name, _filled(node, facts, f"logger.{name}")) for name, node in nodes.items()]
    for mirror in made:
        mirror.log_hyperparams(described)
    return made


def show_table(
    experiment: Experiment,
    source: str,
    seeds: Sequence[int],
    plain: Mapping[str, Any],
    cells: Sequence[Cell],
    pictures: Sequence[Path],
) -> None:
    """Shows mirrors the table of an experiment, how many of its values have each verdict, and its pictures.

    Args:
        plain: a configuration, for its blocks `logger` and `paths`.
    """
    name = page(experiment, source, seeds, "").stem
    told = {"experiment": experiment.name, "source": source, "seeds": list(seeds)}
    facts = {
        "job": "table",
        "group": experiment.name,
        "name": name,
        "id": identity("table", name),
        "seed": ",".join(map(str, seeds)),
        "method": "",
        "data": source,
        "folder": str(Path(plain["paths"]["runs"]) / "tables" / name),
    }
    lines = texts(cells)
    for mirror in mirrors(plain["logger"], facts, told):
        counts = Counter(str(cell.verdict) for cell in cells)
        mirror.log_metrics({f"verdict/{verdict}": count for verdict, count in counts.items()}, step=0)
        mirror.log_table("table", list(COLUMNS), [[line[column] for column in COLUMNS] for line in lines])
        for picture in pictures:
            mirror.log_image(picture.stem, picture)
        mirror.finalize("success")


def identity(job: str, *key: Any) -> str:
    """A short name for a run that is the same on every machine, whenever it goes on."""
    return f"{job}-{sha256_json(list(key))[:16]}"


def require_loggers(nodes: Mapping[str, Any]) -> None:
    """Refuses mirrors that cannot be built, before anything is done.

    Args:
        nodes: the block `logger` of a configuration.

    Raises:
        ValueError: a package is missing, or an option or a fact is none; or as `wandb_mode`.
    """
    with tempfile.TemporaryDirectory() as folder:
        facts = {**dict.fromkeys(FACTS, "none"), "folder": folder}
        for name, node in nodes.items():
            try:
                construction.construct(_filled(node, facts, f"logger.{name}"))
            except ImportError as error:
                found = str(error).splitlines()[0].rstrip(".")
                raise ValueError(
                    f"expected what logger={name} needs, found none ({found}): pip install 'mmbench[{name}]'"
                ) from None


def _filled(node: Any, facts: Mapping[str, Any], where: str) -> Any:
    """A node whose texts have facts in the place of their names in braces."""
    if isinstance(node, Mapping):
        return {key: _filled(item, facts, f"{where}.{key}") for key, item in node.items()}
    if isinstance(node, list):
        return [_filled(item, facts, where) for item in node]
    if not isinstance(node, str):
        return node
    try:
        return node.format_map(facts)
    except KeyError as error:
        catalogue.unknown(f"fact in {where}={node}", error.args[0], FACTS)
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"expected facts in braces in {where}, found {node!r} ({error}): correct it") from None
