"""Write examples in the layout of MME: `Data_json/TASK.txt` beside `images/TASK/`, two questions an image."""

from __future__ import annotations

from pathlib import Path

from examples_stream import make_example
from PIL import Image
from scenes import TASKS

from pargo_export.bundle import atomic_write

__all__ = ["write_mme"]


def write_mme(directory: Path, *, seed: int, images_per_task: int) -> int:
    """Write the test set.

    Files are PNG, so that the pixels are those that were drawn. Which of the two questions comes first alternates.

    Returns:
        Number of questions.
    """
    num_questions = 0
    for number, task in enumerate(TASKS):
        folder = directory / "images" / task
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for index in range(images_per_task):
            example = make_example(seed, "test", number * images_per_task + index, task)
            name = f"{index:04d}.png"
            Image.fromarray(example.drawing.pixels).save(folder / name)
            pair = example.pairs[0]
            answered = [(pair.yes, "Yes"), (pair.no, "No")]
            lines += [
                f"{name}\t{question}\t{answer}" for question, answer in answered[:: 1 if index % 2 else -1]
            ]
        text = "".join(line + "\n" for line in lines)
        questions = directory / "Data_json" / f"{task}.txt"
        questions.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(questions, lambda stream, text=text: stream.write(text.encode()))  # type: ignore[misc]
        num_questions += len(lines)
    return num_questions
