"""The pictures of a study: what the rows of an experiment have made, and what stands beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps

from mmbench.core.download import MissingAsset
from mmbench.core.images import to_uint8
from mmbench.core.noise import Sample, random_stream
from mmbench.core.outputs import IMAGES
from mmbench.core.task import Task
from mmbench.data.base import DataModule
from mmbench.people.questions import has_input
from mmbench.pipeline.experiments import Experiment, Row
from mmbench.pipeline.generation import prepared
from mmbench.pipeline.lookup import row_config

STRIPES = (96, 160)  # levels of a hole
TRUTH = "Ground truth"  # as published studies call the real pictures


@dataclass(frozen=True)
class Made:
    """What a row has made.

    Attributes:
        label: what the table calls the row.
        facts: what the row is: method, data, source, protocol, seed and weights.
        files: sample to its picture, of those that are there.
        missing: how many samples of the protocol have no picture.
    """

    label: str
    facts: dict[str, Any]
    files: dict[Sample, Path]
    missing: int


@dataclass(frozen=True)
class Item:
    """What a person is asked about at once.

    Attributes:
        sample: of whose pictures.
        prompt: the text that they are to follow; None of a task without.
        given: (H, W, 3) uint8, what the task starts from; None where there is nothing.
        real: (H, W, 3) uint8, the real picture; None where the data set shows none.
        made: (H, W, 3) uint8 of each row.
    """

    sample: Sample
    prompt: str | None
    given: np.ndarray | None
    real: np.ndarray | None
    made: list[np.ndarray]


@dataclass(frozen=True)
class Gathered:
    """Rows of an experiment whose pictures are there.

    Attributes:
        task: of all of them.
        rows: at least two of them, unless real pictures stand beside one.
        left_out: why other rows are not among them, a line for each.
    """

    task: Task
    rows: list[Made]
    left_out: list[str]
    data: DataModule
    split: str
    seed: int

    @property
    def given(self) -> str:
        """What the task starts from, in words; "" where it is nothing that can be seen."""
        if "mask" in self.task.inputs:
            return "Given: the striped part was missing"
        return "Given" if {"image", "layout"} & set(self.task.inputs) else ""

    def items(self, count: int, seed: int) -> list[Item]:
        """As many items, drawn by the seed: the first draw of different images, the same for all rows.

        Raises:
            ValueError: there are fewer.
        """
        shared = set.intersection(*[set(row.files) for row in self.rows])
        of_image: dict[str, Sample] = {}
        for sample in sorted(shared):
            of_image.setdefault(sample.id, sample)
        if len(of_image) < count:
            raise ValueError(
                f"expected n of at most {len(of_image)}, the images that all rows have made, found {count}: lower it, "
                "or run more of the rows"
            )
        chosen = sorted(of_image.values(), key=lambda sample: random_stream(seed, sample.id, "study").random())[:count]
        task = self.task
        fields = {field for field in (*task.inputs, task.prompt, task.target) if field} & self.data.fields
        seen = self.data.evaluation(self.split, chosen, self.seed, fields)
        return [self._item(seen[place], sample) for place, sample in enumerate(chosen)]

    def _item(self, seen: dict[str, Any], sample: Sample) -> Item:
        task = self.task
        real = to_pixels(seen[task.target]) if task.target in seen else None
        made = [IMAGES.cell(IMAGES.read(row.files[sample])) for row in self.rows]
        return Item(sample, seen[task.prompt] if task.prompt else None, given(task, seen), real, made)


def to_pixels(image: Any) -> np.ndarray:
    """(3, H, W) in [-1, 1] to (H, W, 3) uint8."""
    return IMAGES.cell(to_uint8(image))


def given(task: Task, seen: dict[str, Any]) -> np.ndarray | None:
    """What a task starts from as a picture: with stripes where it has a hole, or a layout in colours."""
    if "mask" in task.inputs:
        pixels, hole = to_pixels(seen["image"]), seen["mask"][0].numpy() > 0
        rows, columns = np.indices(hole.shape)
        width = max(2, hole.shape[0] // 24)
        stripes = np.where((rows + columns) // width % 2 == 0, *STRIPES).astype(np.uint8)
        return np.where(hole[..., None], stripes[..., None], pixels)
    if has_input(task):
        return to_pixels(seen["image"])
    if "layout" in task.inputs:
        colours = np.array([colormaps["tab20"](number % 20)[:3] for number in range(256)])
        return (colours[seen["layout"].numpy() % 256] * 255).round().astype(np.uint8)
    return None


def gather(
    experiment: Experiment,
    source: str,
    runs: str,
    data: str | None,
    column: str | None,
    rows: Sequence[str],
    words: Sequence[str],
) -> Gathered:
    """The pictures that rows of an experiment have made; none is made here.

    Args:
        runs: `paths.runs` of the configuration.
        data: the data set, of which a study has one; None: the first with pictures.
        column: the part of the table, of which a study has one; None: the first.
        rows: labels or methods of the rows; none: all that have pictures.
        words: other overrides.

    Raises:
        ValueError: no row is called so, one that was asked for has no pictures, or they are no still pictures.
    """
    wanted = [row for row in experiment.rows if not rows or {row.label, row.method} & set(rows)]
    left_out: list[str] = []
    names = dict.fromkeys(row.data for row in wanted) if data is None else [data]
    for name in names:
        found, left_out = [], []
        for row in (row for row in wanted if row.data == name):
            column_name = column if column is not None else next(iter(experiment.columns))
            protocol = experiment.columns[column_name].protocol_on(name)
            try:
                found.append(_made(experiment, row, protocol, source, runs, words))
            except (MissingAsset, ValueError) as error:
                left_out.append(f"{row.label} on {name}: {' '.join(str(error).split())}")
        if found and rows and left_out:
            raise ValueError(f"{left_out[0]}: {_remedy(experiment, source)}")
        if found:
            task, module, split, seed, _ = found[0]
            return Gathered(task, [one[4] for one in found], left_out, module, split, seed)
    why = f" ({left_out[0]})" if left_out else ""
    raise ValueError(
        f"expected rows of {experiment.name} with pictures, found none{why}: {_remedy(experiment, source)}"
    )


def _remedy(experiment: Experiment, source: str) -> str:
    return f"`mmbench reproduce experiment={experiment.name} data.source={source}` makes them"


def _made(
    experiment: Experiment, row: Row, protocol: str, source: str, runs: str, words: Sequence[str]
) -> tuple[Task, DataModule, str, int, Made]:
    """What a row has made with the first of its seeds, and the data that it was made of; the method is let go."""
    folder = Path(runs) / f"{row.method}-{row.data}-{source}"
    if not folder.is_dir():  # said before anything is composed or loaded
        raise ValueError(f"expected its pictures below {folder}, found none")
    plain = row_config(experiment, row, protocol, source, [*row.seeds_of(experiment.seeds), 0][0], words)
    run = prepared(plain)
    if run.output is not IMAGES:
        raise ValueError(f"expected still pictures to judge, found {run.output.name}: choose another experiment")
    files = {sample: run.file(sample) for sample in run.samples if run.file(sample).is_file()}
    if not files:
        raise ValueError(f"expected its pictures in {run.folder}, found none")
    facts = {**run.row, "protocol": run.protocol.name, "seed": plain["seed"], "run_key": run.run_key}
    facts["weights"] = run.weights
    made = Made(row.label, facts, files, len(run.samples) - len(files))
    return run.method.task, run.data, run.protocol.split, run.protocol.seed, made
