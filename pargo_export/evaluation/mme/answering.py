"""Ask the questions of a task: every image is encoded once, its two questions share the visual tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pargo_export.errors import BackendError, InputError
from pargo_export.evaluation.mme.data import MmeTask
from pargo_export.evaluation.mme.scoring import Answer

__all__ = ["QUESTION_PLACE", "Answerer", "Encode", "answer_task"]

QUESTION_PLACE = "{}"

# From B pictures to visual tokens, float32 `[B, Q, C]`; `Runtime.encode` is one.
Encode = Callable[[list[Path]], NDArray[np.float32]]


class Answerer(Protocol):
    """Answers questions about visual tokens; `pargo_export.llm.Chat` is one."""

    def answer(self, visual_tokens: NDArray[np.float32], questions: Sequence[str]) -> list[str]:
        """Answer one question a row.

        Args:
            visual_tokens: float32 `[B, Q, C]`.
            questions: B questions.
        """
        ...


def answer_task(
    task: MmeTask,
    encode: Encode,
    answerer: Answerer,
    *,
    template: str = QUESTION_PLACE,
    batch_size: int = 8,
    advance: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005 - named for its callers
) -> tuple[Answer, ...]:
    """Answer every question of a task; at most `batch_size` images are in memory.

    Args:
        task: The task.
        encode: Computes visual tokens.
        answerer: Answers.
        template: With one `{}`, the place of the question; only written into the result, as the official code does.
        batch_size: Images at a time; twice as many questions.
        advance: Called with the number of images that are done, and of all.

    Returns:
        Two answers for each image, in order.

    Raises:
        ImageError: A picture cannot be read.
        InputError: `batch_size` is not positive, or the widths of tokens and language model differ.
        BackendError: The answerer gave another number of answers, or the execution failed.
    """
    if batch_size < 1:
        raise InputError(f"batch_size: found {batch_size}, expected at least 1")
    answers: list[Answer] = []
    for first in range(0, len(task.images), batch_size):
        images = task.images[first : first + batch_size]
        tokens = np.repeat(encode([image.path for image in images]), 2, axis=0)
        asked = [(image.name, question) for image in images for question in image.questions]
        texts = answerer.answer(tokens, [question.text for _, question in asked])
        if len(texts) != len(asked):
            raise BackendError(
                f"task {task.name}: asked {len(asked)} questions, found {len(texts)} answers; expected one for each"
            )
        answers += [
            Answer(name, template.replace(QUESTION_PLACE, question.text), question.truth, text)
            for (name, question), text in zip(asked, texts, strict=True)
        ]
        advance(first + len(images), len(task.images))
    return tuple(answers)
