"""Score a written sample on the MME-form test set: pixels to answers in PyTorch float32, greedy generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from exporting import CHECKPOINT, LLM
from numpy.typing import NDArray
from PIL import Image
from tower_training import normalised

from pargo_export import load_checkpoint
from pargo_export.evaluation.mme import Answer, MmeData, MmeImage, MmeScores, read_mme, score_answers
from pargo_export.evaluation.mme.scoring import NUM_CHARACTERS
from pargo_export.llm import GREEDY, Chat, open_language_model

__all__ = ["answer_mme", "score_sample", "table_of"]

_BATCH_IMAGES = 30
# The calculator reads 20 characters, and no token has less than one but the first, which may be a space.
_SETTINGS = replace(GREEDY, max_new_tokens=NUM_CHARACTERS + 1)


def score_sample(sample: Path, mme: Path) -> MmeScores:
    """Answer every question of `mme` with the sample that lies in `sample`, as it lies there, and score the answers."""
    with open_language_model(sample / LLM) as language_model:
        chat = Chat(None, language_model, settings=_SETTINGS)
        return score_answers(answer_mme(load_checkpoint(sample / CHECKPOINT), chat, read_mme(mme)))


def answer_mme(front_end: Any, chat: Chat, data: MmeData) -> dict[str, list[Answer]]:
    """Return the answers of each task.

    Args:
        front_end: The reference: `encode_images(pixel_values)` gives visual tokens.
        chat: Answers from visual tokens.
        data: Questions and images of the input size of the model.
    """
    answers: dict[str, list[Answer]] = {}
    for task in data.tasks.values():
        for start in range(0, len(task.images), _BATCH_IMAGES):
            images = task.images[start : start + _BATCH_IMAGES]
            tokens = front_end.encode_images(normalised(_pixels(images))).numpy()
            asked = [(image, question) for image in images for question in image.questions]
            found = chat.answer(np.repeat(tokens, 2, axis=0), [question.text for _, question in asked])
            answers.setdefault(task.name, []).extend(
                Answer(image.name, question.text, question.truth, text)
                for (image, question), text in zip(asked, found, strict=True)
            )
    return answers


def _pixels(images: Sequence[MmeImage]) -> NDArray[np.uint8]:
    pixels = []
    for image in images:
        with Image.open(image.path) as picture:
            pixels.append(np.asarray(picture.convert("RGB")))
    return np.stack(pixels)


def table_of(scores: MmeScores) -> dict[str, dict[str, float]]:
    """Return score (0 to 200), acc and acc_plus (0 to 1) of each task, and the total of all under `total`."""
    table = {
        name: {"score": task.score, "acc": task.acc, "acc_plus": task.acc_plus}
        for name, task in scores.tasks.items()
    }
    return table | {"total": {"score": sum(row["score"] for row in table.values())}}
