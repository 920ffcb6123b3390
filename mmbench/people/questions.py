"""What people are asked, in words; and how published studies call it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmbench.core.task import Task  # which imports torch, and help needs none

KINDS: Mapping[str, str] = {
    "ranks": "all pictures of an item at once, to be put in order from the best to the worst",
    "pairs": "two pictures of an item, of which one is better, or none",
    "rubric": "one picture at a time, judged by itself: no (0), partly (1/2) or yes (1)",
}
GRADES = (0, 0.5, 1)  # of a rubric


@dataclass(frozen=True)
class Question:
    """A question that is put to people.

    Attributes:
        asked: kind of study to its words.
        explained: what is meant, a sentence.
        published: what papers call it, in the column `protocol` of published numbers.
        needs: what a task must have for it, of `prompt` and `input`.
    """

    asked: Mapping[str, str]
    explained: str
    published: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


QUESTIONS: Mapping[str, Question] = {
    "naturalness": Question(
        {
            "ranks": "Which pictures look most natural?",
            "pairs": "Which picture looks more natural?",
            "rubric": "Does this picture look natural?",
        },
        "Look for smears, seams, odd colours and broken shapes.",
        ("naturalness", "realism"),
    ),
    "text": Question(
        {
            "ranks": "Which pictures match the text best?",
            "pairs": "Which picture matches the text better?",
            "rubric": "Does this picture match the text?",
        },
        "Go by what the text says, not by how pretty a picture is.",
        ("semantic consistency", "text match"),
        ("prompt",),
    ),
    "preservation": Question(
        {
            "ranks": "Which pictures keep best what the text does not speak of?",
            "pairs": "Which picture keeps better what the text does not speak of?",
            "rubric": "Does this picture keep what the text does not speak of?",
        },
        "Compare with the given picture: all that the text does not change should be as it was.",
        ("background preservation",),
        ("prompt", "input"),
    ),
}


def has_input(task: "Task") -> bool:
    """Whether a task is given a whole picture to change; one with a hole is to be filled, and keeps the rest anyway."""
    return "image" in task.inputs and "mask" not in task.inputs


def of_task(task: "Task") -> list[str]:
    """The questions that a task allows, the default ones of a study."""
    has = {"prompt": task.prompt is not None, "input": has_input(task)}
    return [name for name, question in QUESTIONS.items() if all(has[need] for need in question.needs)]
