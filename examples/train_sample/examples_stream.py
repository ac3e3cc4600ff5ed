"""One example of the data: a scene, its image, its questions. The same seed, split and index give the same."""

from __future__ import annotations

from dataclasses import dataclass

from backgrounds import Split, background
from drawing import Drawing, draw
from questions import Pair, pairs, question_pair
from scenes import TASKS, Scene, generator, make_scene

__all__ = ["Example", "make_example"]


@dataclass(frozen=True)
class Example:
    """One image and what is known about it.

    Attributes:
        task: The task for which the scene was made.
        photograph: Name of the photograph behind it.
        scene: What is in it.
        drawing: How it looks.
        pairs: One pair of questions for the task, first, then one for each other task that the scene allows. Only
            scenes made for it are asked for numbers: in others most things occur once, and "only one" would be right
            without looking.
    """

    task: str
    photograph: str
    scene: Scene
    drawing: Drawing
    pairs: tuple[Pair, ...]


def make_example(seed: int, split: Split, index: int, task: str | None = None) -> Example:
    """Return example `index` of a split.

    Args:
        seed: Of the whole data set.
        split: Chooses photographs and the stream of layouts.
        index: Position in the split.
        task: What the scene is made for; `None`: the tasks in turn.
    """
    layout, questions, look = (
        generator(seed, split, index, name) for name in ("layout", "questions", "look")
    )
    task = task or TASKS[index % len(TASKS)]
    first = None
    while (
        first is None
    ):  # a random layout may leave nothing to ask, if things lie in the middle or found no room
        scene = make_scene(layout, task)
        first = question_pair(questions, scene, task)
    others = tuple(pair for pair in pairs(questions, scene) if pair.task not in (task, "count"))
    name, pixels = background(look, split)
    return Example(task, name, scene, draw(look, scene, pixels), (first, *others))
