"""A small data set in the form of MME, and a stand-in for a language model that answers from the visual tokens."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from pargo_export.evaluation.mme.records import LanguageModelFacts

__all__ = ["FACTS", "TASKS", "TokenReader", "write_data", "write_results"]

TASKS = {
    "existence": 3,
    "code_reasoning": 3,
    "fine_detail": 3,
}  # a perception, a cognition and a task of ours
FACTS = LanguageModelFacts(
    name="token reader", sha256="0" * 64, template="USER: <ImageHere> {}\nASSISTANT:", settings={"beams": 1}
)


class TokenReader:
    """Answers from the tokens: the sign of their product with numbers that belong to the question.

    Attributes:
        asked: Every question, in order.
        shapes: Shapes of the tokens of every call.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.shapes: list[tuple[int, ...]] = []

    def answer(self, visual_tokens: NDArray[np.float32], questions: Sequence[str]) -> list[str]:
        """Answer each question from its row."""
        self.asked += questions
        self.shapes.append(visual_tokens.shape)
        return [self._answer(row, text) for row, text in zip(visual_tokens, questions, strict=True)]

    def _answer(self, row: NDArray[np.float32], question: str) -> str:
        direction = np.random.default_rng(zlib.crc32(question.encode())).normal(size=row.shape)
        return "Yes" if float((row * direction).sum()) > 0 else "No, it\tis\nnot"


def write_data(root: Path, tasks: Mapping[str, int]) -> Path:
    """Write so many images of each task with their questions, in ParGo's layout."""
    (root / "Data_json").mkdir(parents=True)
    picture = data.astronaut()
    for offset, (task, count) in enumerate(tasks.items()):
        folder = root / "images" / task
        folder.mkdir(parents=True)
        lines = []
        for index in range(count):
            crop = picture[40 * index + 9 * offset :, 60 * index :][:90, :100]
            Image.fromarray(crop).save(folder / f"{index}.png")
            lines += [
                f"{index}.png\tIs {task} {index} {word}? Please answer yes or no.\t{truth}\n"
                for word, truth in (("right", "Yes"), ("wrong", "No"))
            ]
        (root / "Data_json" / f"{task}.txt").write_text("".join(lines))
    return root


def write_results(folder: Path, answers: Mapping[str, Sequence[tuple[str, str]]]) -> Path:
    """Write result files: of each task, for every image the answers to a question that is true and to one that is not."""
    folder.mkdir(parents=True, exist_ok=True)
    for task, pairs in answers.items():
        lines = [
            f"{index}.png\tIs {task} {index} {word}?\t{truth}\t{text}\n"
            for index, pair in enumerate(pairs)
            for word, truth, text in (("right", "Yes", pair[0]), ("wrong", "No", pair[1]))
        ]
        (folder / f"{task}.txt").write_text("".join(lines))
    return folder
