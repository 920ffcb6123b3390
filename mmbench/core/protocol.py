"""Protocols: everything beside method and data set that changes a number of a table."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal

Effect = Literal["samples", "images", "scores"]
CAPTIONS = ("right", "mismatched", "own", "none")
TO_NEAREST = "mmbench.core.images.to_uint8"


def _changes(effect: Effect, word: str) -> dict[str, str]:
    return {"changes": effect, "word": word}


@dataclass(frozen=True)
class Protocol:
    """How the values of a table come about; read from `conf/protocol/<name>.yaml`.

    Each field says whether another value of it asks for other samples, makes other images of the same samples, or
    scores the same images in another way, and in which word `mmbench explain` speaks of it; they are explained in
    this order. A field at its default is no part of the hash, so that a protocol stays what it is when fields are
    added.

    Attributes:
        name: of the file; on toy data with `-toy`.
        task: the name of the task whose methods it is for, in `core/task.py`.
        metrics: name to what builds it; `extractor` is a name among `extractors`.
        extractors: name to what builds a network that metrics look through.
        default_preprocessing: how pictures become squares for methods that have no preprocessing of their own.
        preprocessing: the same for all methods.
        data: data set to arguments of its module, of that data set alone (`cub: {bird_crop: false}`).
        mask: the holes of inpainting.
        split: whose images are edited, or whose captions are followed.
        count: number of images; None for all of the split.
        classes: class numbers of the images that are edited, for data of unpaired domains; None for all.
        prompts: texts that no image was captioned with, in the place of the captions; in a YAML also a file of them.
        caption: which caption a method is told: of an image that it fills or draws the right one, that of another
            image, or none, the empty text; of an image that it edits the right one, which is that of another image, or
            its own, after which there is nothing to edit. What it makes is judged by the right one all the same.
        captions_per_image: prompts of each image.
        draws: images for each prompt.
        drop_partial_batch: leaves out the last images, by id, that fill no batch of so many.
        seed: of the choice of captions.
        rounding: what makes uint8 of images in [-1, 1].
        composite: whether known pixels are put back into inpainted images.
        size: side of the squares that images are brought to before they are rounded (bilinear, anti-aliased where they
            shrink), and that the data set is shown at; None: as a method makes them.
        reference: the split that metrics of sets compare with.
        reference_classes: class numbers of its images: of the domain that is wanted, where domains are unpaired.
    """

    name: str
    task: str
    metrics: dict[str, dict[str, Any]]
    extractors: dict[str, dict[str, Any]] = field(default_factory=dict)
    default_preprocessing: dict[str, Any] | None = field(default=None, metadata=_changes("images", "resize"))
    preprocessing: dict[str, Any] | None = field(default=None, metadata=_changes("images", "resize"))
    data: dict[str, dict[str, Any]] = field(default_factory=dict, metadata=_changes("images", "view of the data set"))
    mask: dict[str, Any] | None = field(default=None, metadata=_changes("images", "mask"))
    split: str = field(default="test", metadata=_changes("samples", "split"))
    count: int | None = field(default=None, metadata=_changes("samples", "count of images"))
    classes: list[int] | None = field(default=None, metadata=_changes("samples", "classes"))
    prompts: list[str] | None = field(default=None, metadata=_changes("images", "prompts"))
    caption: str = field(default="right", metadata=_changes("images", "caption that is told"))
    captions_per_image: int = field(default=1, metadata=_changes("samples", "captions of each image"))
    draws: int = field(default=1, metadata=_changes("samples", "draws of each caption"))
    drop_partial_batch: int | None = field(default=None, metadata=_changes("samples", "partial batch"))
    seed: int = field(default=0, metadata=_changes("images", "choice of captions"))
    rounding: dict[str, Any] = field(
        default_factory=lambda: {"_target_": TO_NEAREST}, metadata=_changes("images", "rounding")
    )
    composite: bool = field(default=False, metadata=_changes("images", "known pixels put back"))
    size: int | None = field(default=None, metadata=_changes("images", "size that images are brought to"))
    reference: str = field(default="test", metadata=_changes("scores", "reference set"))
    reference_classes: list[int] | None = field(default=None, metadata=_changes("scores", "its classes"))

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Protocol":
        """The protocol of a plain configuration.

        Raises:
            ValueError: a key is unknown, one that has no default is missing, or a value is none of its own; names it.
        """
        known = [one.name for one in fields(cls)]
        name = plain.get("name", "a protocol")
        if strangers := sorted(plain.keys() - set(known)):
            raise ValueError(
                f"protocol {name}: expected keys of {', '.join(known)}, found {strangers[0]!r}: correct it"
            )
        if lacking := [key for key in ("name", "task", "metrics") if key not in plain]:
            raise ValueError(f"protocol {name}: expected the key {lacking[0]!r}, found none: add it to its file")
        found = cls(**plain)
        for key, least in (
            ("count", 1),
            ("captions_per_image", 1),
            ("draws", 1),
            ("drop_partial_batch", 1),
            ("size", 1),
            ("seed", 0),
        ):
            number = getattr(found, key)
            if number is None and _default(cls.__dataclass_fields__[key]) is None:
                continue
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise ValueError(
                    f"protocol {name}: expected {key} as a whole number of {least} or more, found {number!r}: change"
                )
        if found.caption not in CAPTIONS:
            raise ValueError(
                f"protocol {name}: expected caption as one of {', '.join(CAPTIONS)}, found {found.caption!r}: change it"
            )
        if found.composite and found.size:
            raise ValueError(
                f"protocol {name}: expected size=null with composite, which puts pixels back where they were, found "
                f"{found.size}: leave one of them out"
            )
        for key in ("classes", "reference_classes", "prompts"):
            if not isinstance(values := getattr(found, key), list | None) or values == []:
                raise ValueError(f"protocol {name}: expected {key} as a list, found {values!r}: correct it")
        return found

    def facts(self) -> dict[str, Any]:
        """What differs from the defaults: what a record keeps, and the hash is of."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) != _default(one)}

    def changing(self, *effects: Effect) -> dict[str, Any]:
        """The fields that change samples, images or scores, and differ from their defaults: name to value."""
        return {
            one.name: value
            for one in explained_fields()
            if one.metadata["changes"] in effects and (value := getattr(self, one.name)) != _default(one)
        }


def explained_fields() -> list[Field[Any]]:
    """The fields that have a word for `mmbench explain`, in their order."""
    return [one for one in fields(Protocol) if one.metadata]


def _default(one: Field[Any]) -> Any:
    return one.default_factory() if one.default_factory is not MISSING else one.default
