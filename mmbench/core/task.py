"""Tasks, and the one vocabulary that every batch is written in."""

from collections.abc import Mapping
from dataclasses import dataclass

from mmbench.core.outputs import OF_TARGET, Output

BATCH_FIELDS = {
    "id": "list[str], the image's key within its data set",
    "image": "(N, 3, H, W) float32 in [-1, 1]",
    "caption": "list[str], raw text that describes `image`",
    "caption_mismatched": "list[str], raw text that describes `image_mismatched`, another image of the same split",
    "image_mismatched": "(N, 3, H, W) float32 in [-1, 1], the image that `caption_mismatched` was written for",
    "image_edited": "as `image`, drawn again with the parts that `caption_mismatched` names in the colours it names",
    "image_edited_elsewhere": "as `image`, drawn again with those colours on parts that the text does not name",
    "image_edited_everywhere": "as `image_edited`, with every other part and the background drawn otherwise, too",
    "class_id": "(N,) int64, the data set's own class number",
    "label": "(N,) int64, a class given as a condition",
    "layout": "(N, H, W) int64, class of every pixel of `image`",
    "instances": "(N, H, W) int64, object of every pixel of `image`: 0 none, k the k-th of `boxes`",
    "boxes": "list[(K, 4) float32], x, y, width and height of the objects in pixels of `image`, clipped to it",
    "box_labels": "list[(K,) int64], class of each of `boxes`",
    "mask": "(N, 1, H, W) float32, 1 = hole, 0 = known",
    "video": "(N, F, 3, H, W) float32 in [-1, 1]",
    "frame_rate": "list[float], frames a second of `video`",
    "motion": "list[dict[str, str]], how what `video` shows moves, as its captions say: `direction` and `speed`",
    "captions": "list[list[str]], all texts that describe `image`",
    "text_embedding": "(N, D) float32, a sentence embedding that comes with the data set",
    "parts": "(N, P, H, W) float32 in [0, 1], how much of a pixel each part of `image` covers",
    "attributes": "list[dict[str, str]], what the data set, or toy data's ground truth, says of `image`",
    "caption_attributes": "list[dict[str, str]], the attributes that `caption` names",
    "caption_mismatched_attributes": "list[dict[str, str]], the attributes that `caption_mismatched` names",
    "prompt": "list[str], at evaluation: the text that the generated image is to follow",
    "prompt_attributes": "list[dict[str, str]], at evaluation: the attributes that `prompt` names",
    "sample": "list[Sample]; in training the draw is the epoch",
    "noise": "Noise, the random numbers of the samples",
}


@dataclass(frozen=True)
class Task:
    """What goes into a method and what is wanted from it.

    Attributes:
        name: the field's name of the task.
        inputs: batch fields that `Method.generate` reads.
        prompt: the batch field with the text that the generated image is to follow; None for tasks without text.
        target: the batch field that a perfect method would return; it says which `output` it is.
    """

    name: str
    inputs: tuple[str, ...]
    prompt: str | None
    target: str

    def __post_init__(self) -> None:
        fields = {*self.inputs, self.target} | ({self.prompt} if self.prompt else set())
        assert fields <= BATCH_FIELDS.keys(), f"not in the vocabulary of batches: {fields - BATCH_FIELDS.keys()}"
        assert self.target in OF_TARGET, f"no kind of output for {self.target}"

    @property
    def output(self) -> Output:
        """What a method of this task returns."""
        return OF_TARGET[self.target]

    @property
    def example(self) -> str:
        """What the example of a sample is that stands beside what is made: its input, or the real one of a text."""
        return "input" if any(name in OF_TARGET and name != self.prompt for name in self.inputs) else "real"

    def missing(self, fields: frozenset[str]) -> list[str]:
        """Fields that a method of this task reads and a data set with `fields` lacks, sorted.

        The target is for metrics to ask for.
        """
        return sorted(set(self.inputs) - fields)


TEXT_TO_IMAGE = Task("text-to-image synthesis", ("caption",), "caption", "image")
TEXT_GUIDED_EDITING = Task(
    "text-guided editing", ("image", "caption_mismatched"), "caption_mismatched", "image_mismatched"
)
TEXT_GUIDED_INPAINTING = Task("text-guided inpainting", ("image", "mask", "caption"), "caption", "image")
CAPTIONING = Task("captioning", ("image",), None, "caption")
TEXT_TO_VIDEO = Task("text-to-video synthesis", ("caption",), "caption", "video")
RECONSTRUCTION = Task("reconstruction by inversion", ("image",), None, "image")
CLASS_TO_IMAGE = Task("class-conditional synthesis", ("class_id",), None, "image")
LAYOUT_TO_IMAGE = Task("layout-to-image synthesis", ("layout",), None, "image")
SUPER_RESOLUTION = Task("super-resolution", ("image",), None, "image")
IMAGE_SYNTHESIS = Task("image synthesis", (), None, "image")
# Name to task, of all that stand above.
TASKS: Mapping[str, Task] = {value.name: value for value in list(globals().values()) if isinstance(value, Task)}
