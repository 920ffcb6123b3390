"""Pictures of one sample: what a method makes of it after several captions, between two of them, in several draws or
stage by stage, where it looks, and how it combines what it makes with what it is given.

A kind of picture is a function of a configuration and of what is asked for, and a line of `KINDS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mmbench.core import application, construction
from mmbench.core.images import to_uint8
from mmbench.core.method import Batch
from mmbench.core.noise import Noise, Sample, random_stream
from mmbench.core.outputs import IMAGES
from mmbench.core.task import Task
from mmbench.pipeline.generation import Run, prepared, with_noise
from mmbench.pipeline.grid import ACROSS, Tile, coloured, laid_over, write_tiles
from mmbench.pipeline.stages import trainer_of

NUM_STEPS = 8  # from one caption to another, both ends among them
NUM_OTHERS = 2  # captions of other images, where nobody asks for any
LEAST = 1e-6  # of the largest attention, which maps are divided by


@runtime_checkable
class Attentive(Protocol):
    """A method that can say where it looks for each word."""

    def words(self, captions: list[str]) -> list[list[str]]:
        """The known words of N captions, in the order of `word_attention`."""

    def word_attention(self, batch: Batch) -> Tensor:
        """(N, L, h, w), 0 or larger, of a batch with `noise` and the fields that `task.inputs` names."""


@runtime_checkable
class Interpolating(Protocol):
    """A method that can make an image after a text between two."""

    def interpolated(self, batch: Batch, others: list[str], share: Tensor, noise: Noise) -> Tensor:
        """As `generate`, after texts that lie `share` (N,), in [0, 1], of the way from the batch's to N `others`."""


@runtime_checkable
class Staged(Protocol):
    """A method that makes an image in several sizes, from small to large."""

    def generate_stages(self, batch: Batch, noise: Noise) -> list[Tensor]:
        """As `generate`, the images of all stages (N, 3, s, s); the last ones are what `generate` gives."""


@runtime_checkable
class Combining(Protocol):
    """A method that scales and shifts features by those of its input (affine combination)."""

    def combined(self, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        """Name of each combination to its maps (N, h, w) by their symbols, as many of each; arguments as above."""


@dataclass(frozen=True)
class Asked:
    """What a picture is asked to show.

    Attributes:
        sample: place of the sample among those of the protocol, from 0; draws do not count.
        captions: texts in the place of the sample's own; none: what the kind of picture takes.
        draws: number of draws.
    """

    sample: int
    captions: Sequence[str]
    draws: int


class Picture(NamedTuple):
    """Cells with their headings, what stands above all of them, and how many a row has at most."""

    tiles: list[Tile]
    title: str = ""
    across: int = ACROSS


@dataclass(frozen=True)
class Scene:
    """A sample under a protocol, and the method that is told of it.

    Attributes:
        run: of the method.
        sample: its first draw.
        item: what the method is told, and what puts known pixels back.
    """

    run: Run
    sample: Sample
    item: dict[str, Any]

    @classmethod
    def of(cls, plain: dict[str, Any], place: int) -> "Scene":
        """Prepares data and method, and takes the sample of a place.

        Raises:
            MissingAsset, ValueError: as `prepared`; the protocol has fewer samples.
        """
        run = prepared(plain)
        samples = [sample for sample in run.samples if sample.draw == 0]
        if place >= len(samples):
            raise ValueError(
                f"expected sample=N from 0 to {len(samples) - 1}, a place among the samples of protocol "
                f"{run.protocol.name}, found {place}: choose another"
            )
        return cls(run, samples[place], _items(run, [samples[place]])[0])

    @property
    def caption(self) -> str:
        """What the method is told; "" where it follows no text."""
        prompt = self.run.method.task.prompt
        return self.item[prompt] if prompt else ""

    def caption_of(self, asked: Asked) -> str:
        """The caption that is asked for, else the sample's own."""
        return asked.captions[0] if asked.captions else self.caption

    def others(self, count: int) -> list[str]:
        """Captions of other samples of the run, drawn by the sample's id; fewer where there are no more."""
        run = self.run
        samples = [sample for sample in run.samples if sample.draw == 0 and sample.id != self.sample.id]
        order = random_stream(run.protocol.seed, self.sample.id, "other captions").permutation(len(samples))
        shuffled = [samples[place] for place in order]
        texts = run.told.texts(run.protocol.split, shuffled, run.protocol.seed)[run.method.task.prompt or ""]
        return [text for text in dict.fromkeys(texts) if text not in ("", self.caption)][:count]

    def given(self) -> list[Tile]:
        """The pictures that the method is given: the original, and what its hole leaves of it."""
        inputs = self.run.method.task.inputs
        if "image" not in inputs:
            return []
        image = self.item["image"]
        tiles = [Tile("original" if "mask" in inputs else "input", IMAGES.cell(to_uint8(image)))]
        if "mask" in inputs:
            tiles.append(Tile("corrupted", IMAGES.cell(to_uint8(torch.where(self.item["mask"] > 0, 0.0, image)))))
        return tiles

    def told(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The item with each of some texts in the place of what the method is told."""
        prompt = self.run.method.task.prompt
        return [{**self.item, prompt: text} for text in texts] if prompt else [self.item]

    def batch(self, items: list[dict[str, Any]]) -> Batch:
        """Items as the method is given them, on the processor; noise belongs to the sample."""
        return with_noise(items, self.run.plain["seed"])

    @torch.no_grad()
    def shown(self, call: Callable[[Any, Batch], Sequence[Tensor]], items: list[dict[str, Any]]) -> list[Any]:
        """Cells of what `call`, of the method and a batch of items, gives: images (3, H, W) in [-1, 1]."""
        batch = self.batch(items)
        made = call(self.run.method.cpu().eval(), batch)
        rounding = self.run.protocol.rounding
        return [IMAGES.cell(construction.construct(rounding, images=image[None])[0]) for image in made]

    def made(self, items: list[dict[str, Any]]) -> list[np.ndarray | str]:
        """What the method makes of items, as cells; noise belongs to the sample, whatever it is told.

        Raises:
            ValueError: as `generate` of the method.
        """
        run = self.run
        trainer = trainer_of(
            run.plain,
            logger=False,
            enable_checkpointing=False,
            default_root_dir=run.folder,
            inference_mode=not run.method.needs_gradients,
        )
        batch_of = partial(with_noise, seed=run.plain["seed"])
        loader = DataLoader(dataset=items, batch_size=run.data.batch_size, collate_fn=batch_of)  # type: ignore[arg-type]
        with application.within_memory(run.data.batch_size, "lower data.module.batch_size"):
            predicted = trainer.predict(run.method, loader)
        cells = []
        for batch, made in zip(loader, predicted or [], strict=True):
            run.output.check(made, [sample.name for sample in batch["sample"]])
            cells += [run.output.cell(item) for item in run.output.finished(made, batch, run.protocol)]
        return cells


def _items(run: Run, samples: list[Sample]) -> list[dict[str, Any]]:
    """What the method is told of samples, and what puts known pixels back."""
    fields = {*run.method.task.inputs, "image", "mask", "frame_rate"} & run.data.fields
    items = run.items(samples, fields, told=True)
    return [items[place] for place in range(len(samples))]


def captions(plain: dict[str, Any], asked: Asked) -> Picture:
    """What a method makes of a sample after several captions: by default its own and those of two other images.

    A hole is also filled without a text.

    Raises:
        ValueError: the task follows no text, or the method does not do without one.
    """
    task = _task(plain)
    if task.prompt is None:
        raise ValueError(
            f"expected a method that follows texts for kind=captions, found one for {task.name}: choose another"
        )
    scene = Scene.of(plain, asked.sample)
    texts = asked.captions or [*filter(None, [scene.caption]), *scene.others(NUM_OTHERS)]
    if "mask" in task.inputs:
        texts = ["", *texts]
    made = scene.made(scene.told(texts))
    return Picture(
        [*scene.given(), *(Tile(text or "without text", cell) for text, cell in zip(texts, made, strict=True))]
    )


def attention(plain: dict[str, Any], asked: Asked) -> Picture:
    """Where a method looks for each known word of a caption: a map over what it is given, or else over what it makes.

    Behind a word stands its largest attention; the colours of all words have one scale.

    Raises:
        ValueError: the method has no attention to words, or knows no word of the caption.
    """
    _require(plain, Attentive, "`words` and `word_attention`", "attention")
    _require_one_caption(plain, asked, "attention")
    scene = Scene.of(plain, asked.sample)
    text = scene.caption_of(asked)
    items = scene.told([text])
    tiles = [*scene.given(), Tile(plain["method"]["name"], scene.made(items)[0])]
    below = (scene.given() or tiles)[-1].cell
    method = scene.run.method.cpu().eval()
    (words,) = method.words([text])
    if not words:
        raise ValueError(f"expected a caption of known words for kind=attention, found {text!r}: set captions=TEXT")
    maps = method.word_attention(scene.batch(items))[0, : len(words)].numpy()  # (L, h, w)
    tiles += [
        Tile(f"{word} {weights.max():.2f}", laid_over(below, weights / max(maps.max(), LEAST)))
        for word, weights in zip(words, maps, strict=True)
    ]
    return Picture(tiles, text)


def draws(plain: dict[str, Any], asked: Asked) -> Picture:
    """Several draws of one sample, after one caption where the task has any.

    Raises:
        ValueError: the task follows no text, and one is given.
    """
    _require_one_caption(plain, asked, "draws")
    scene = Scene.of(plain, asked.sample)
    text = scene.caption_of(asked)
    items = _items(scene.run, [scene.sample._replace(draw=draw) for draw in range(asked.draws)])
    if prompt := _task(plain).prompt:
        items = [{**item, prompt: text} for item in items]
    cells = scene.made(items)
    return Picture([*scene.given(), *(Tile(f"draw {draw}", cell) for draw, cell in enumerate(cells))], text)


def interpolation(plain: dict[str, Any], asked: Asked) -> Picture:
    """What is made of texts on the way from one caption to another, in even steps, with the noise of the sample.

    Raises:
        ValueError: the method cannot interpolate between texts; other than two captions are given, or there is no
            other one to take.
    """
    _require(plain, Interpolating, "`interpolated`", "interpolation")
    if asked.captions:
        _require_two(asked.captions)
    scene = Scene.of(plain, asked.sample)
    texts = list(asked.captions) or [scene.caption, *scene.others(1)]
    _require_two(texts)
    share = torch.linspace(0, 1, NUM_STEPS)

    def between(method: Interpolating, batch: Batch) -> Tensor:
        return method.interpolated(batch, [texts[1]] * NUM_STEPS, share, batch["noise"])

    cells = scene.shown(between, scene.told(texts[:1] * NUM_STEPS))
    tiles = [Tile(f"{part:.2f}", cell) for part, cell in zip(share.tolist(), cells, strict=True)]
    return Picture(tiles, " | ".join(texts))


def stages(plain: dict[str, Any], asked: Asked) -> Picture:
    """The image of every stage of a stacked method, from small to large, after one caption.

    Raises:
        ValueError: the method has no stages, or one; or several captions are given.
    """
    _require(plain, Staged, "`generate_stages`", "stages")
    _require_one_caption(plain, asked, "stages")
    scene = Scene.of(plain, asked.sample)
    text = scene.caption_of(asked)

    def each(method: Staged, batch: Batch) -> list[Tensor]:
        return [images[0] for images in method.generate_stages(batch, batch["noise"])]

    cells = scene.shown(each, scene.told([text]))
    if len(cells) < 2:
        raise ValueError(
            f"expected a method of several stages for kind=stages, found {plain['method']['name']} of one: choose "
            "another method or kind"
        )
    return Picture([Tile(f"{cell.shape[0]} x {cell.shape[1]}", cell) for cell in cells], text)


@torch.no_grad()
def combination(plain: dict[str, Any], asked: Asked) -> Picture:
    """What each affine combination of a method works with, after one caption: a row of maps, means over channels.

    Each map has all colours from its smallest to its largest value, which stand behind its symbol.

    Raises:
        ValueError: the method has no affine combination; or several captions are given.
    """
    _require(plain, Combining, "`combined`", "combination")
    _require_one_caption(plain, asked, "combination")
    scene = Scene.of(plain, asked.sample)
    text = scene.caption_of(asked)
    items = scene.told([text])
    first = [*scene.given(), Tile(plain["method"]["name"], scene.made(items)[0])]
    rows = scene.run.method.cpu().eval().combined(scene.batch(items))
    if not rows:
        raise ValueError(
            "expected a method with affine combinations for kind=combination, found "
            f"{plain['method']['name']} without: choose another method or kind"
        )
    across = max(len(first), *(len(maps) for maps in rows.values()))
    tiles = [*first, *[Tile("", "")] * (across - len(first))]
    for name, maps in rows.items():
        for symbol, (values, *_) in maps.items():
            heading = f"{name}: {symbol} {values.min():.2g} to {values.max():.2g}"
            tiles.append(Tile(heading, coloured(values.numpy())))
    return Picture(tiles, text, across)


KINDS: Mapping[str, Callable[[dict[str, Any], Asked], Picture]] = {
    "captions": captions,
    "attention": attention,
    "draws": draws,
    "interpolation": interpolation,
    "stages": stages,
    "combination": combination,
}


def write(path: Path, kind: str, plain: dict[str, Any], asked: Asked) -> None:
    """Writes a picture of a kind as PNG.

    Raises:
        MissingAsset, ValueError: as the kind, and `prepared`, say.
        CannotWrite: the file cannot be written.
    """
    picture = KINDS[kind](plain, asked)
    write_tiles(path, picture.tiles, picture.title, picture.across)


def _task(plain: Mapping[str, Any]) -> Task:
    return construction.target(plain["method"]["module"]).task


def _require(plain: Mapping[str, Any], ability: type, wanted: str, kind: str) -> None:
    """Refuses a method that cannot do what a kind of picture wants, before anything is loaded."""
    if not issubclass(construction.target(plain["method"]["module"]), ability):
        raise ValueError(
            f"expected a method with {wanted} for kind={kind}, found {plain['method']['name']}: choose another method "
            "or kind"
        )


def _require_one_caption(plain: Mapping[str, Any], asked: Asked, kind: str) -> None:
    """Refuses several captions, and one for a method that follows none, before anything is loaded."""
    if len(asked.captions) > 1:
        raise ValueError(f"expected one caption for kind={kind}, found {len(asked.captions)}: leave out the others")
    task = _task(plain)
    if asked.captions and task.prompt is None:
        raise ValueError(
            f"expected a method that follows texts with captions=, found one for {task.name}: leave them out"
        )


def _require_two(texts: Sequence[str]) -> None:
    if len(texts) != 2:
        raise ValueError(f"expected two captions for kind=interpolation, found {len(texts)}: set captions='A|B'")
