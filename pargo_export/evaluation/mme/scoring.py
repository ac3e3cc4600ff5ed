"""From answers to scores, in the way of the official calculator (ParGo, `eval/calculation_mme.py`, commit 60b5bd0).

An answer in lower case is yes if `yes` occurs in its first 20 characters, else no if `no` occurs there (so `unknown` is a
no), else other. MME's own calculator differs in one point: it looks at the first 4 characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pargo_export.errors import InputError
from pargo_export.evaluation.mme.scores import GroupScore, MmeScores, TaskScore
from pargo_export.evaluation.mme.tasks import GROUPS, group_of, in_order

__all__ = [
    "NUM_CHARACTERS",
    "Answer",
    "Pair",
    "Reading",
    "pair_by_image",
    "read_answer",
    "score_answers",
    "score_pairs",
]

Reading = Literal["yes", "no", "other"]

NUM_CHARACTERS = 20  # of an answer that are looked at
_MOST_EXAMPLES = 3


@dataclass(frozen=True)
class Answer:
    """One line of a result file.

    Attributes:
        image: File name of the image.
        prompt: What was asked; the official code writes the question within its template.
        truth: `"yes"` or `"no"`.
        text: The answer as it was given.
    """

    image: str
    prompt: str
    truth: str
    text: str

    @property
    def is_right(self) -> bool:
        """Whether the answer is read as the truth."""
        return read_answer(self.text) == self.truth


# The two answers about an image.
Pair = tuple[Answer, Answer]


def read_answer(text: str) -> Reading:
    """Read an answer as yes, no or other; white space at its start counts among the characters."""
    start = text.lower()[:NUM_CHARACTERS]
    if "yes" in start:
        return "yes"
    return "no" if "no" in start else "other"


def score_answers(answers: Mapping[str, Sequence[Answer]]) -> MmeScores:
    """Score answers, task by task.

    Args:
        answers: The answers of each task, two for every image, in any order.

    Raises:
        InputError: A task has no answers, a ground truth is neither yes nor no, or an image has not two questions.
    """
    return score_pairs({task: pair_by_image(found, task) for task, found in answers.items()})


def score_pairs(pairs: Mapping[str, Sequence[Pair]], *, strict_official: bool = False) -> MmeScores:
    """Score pairs of answers; each pair stands for an image.

    Args:
        pairs: Of each task at least one.
        strict_official: How they were paired, for the record.
    """
    scores = {task: _score_task(pairs[task]) for task in in_order(pairs)}
    groups = {}
    for group, official in GROUPS.items():
        tasks = {task: score for task, score in scores.items() if group_of(task) == group}
        if tasks or group != "Additional":
            missing = tuple(task for task in official if task not in tasks)
            groups[group] = GroupScore(total=_sum(tasks), tasks=tasks, missing=missing)
    return MmeScores(
        groups=groups,
        total=groups["Perception"].total + groups["Cognition"].total,
        total_with_additional=sum(group.total for group in groups.values()),
        strict_official=strict_official,
        warnings=(*_silence(scores), *_doubts(pairs)),
    )


def pair_by_image(answers: Sequence[Answer], task: str) -> list[Pair]:
    """Bring the two answers about each image together, in the order in which the images come first.

    Raises:
        InputError: There are no answers, a ground truth is neither yes nor no, or an image has not two questions.
    """
    if not answers:
        raise InputError(f"task {task}: found no answers, expected two for every image")
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.truth not in {"yes", "no"}:
            raise InputError(
                f"task {task}, image {answer.image}: found the ground truth {answer.truth!r}, expected yes or no"
            )
        found.setdefault(answer.image, []).append(answer)
    odd = [f"{image} ({len(items)})" for image, items in found.items() if len(items) != 2]
    if odd:
        raise InputError(
            f"task {task}: expected two questions about every image, found another number for {len(odd)}: "
            f"{', '.join(odd[:_MOST_EXAMPLES])}{' ...' if len(odd) > _MOST_EXAMPLES else ''}; add the missing lines, or "
            "remove the image"
        )
    return [(items[0], items[1]) for items in found.values()]


def _score_task(pairs: Sequence[Pair]) -> TaskScore:
    read = [(answer.truth, read_answer(answer.text)) for pair in pairs for answer in pair]
    count = {key: read.count(key) for key in dict.fromkeys(read)}
    tp, fn = count.get(("yes", "yes"), 0), count.get(("yes", "no"), 0)
    tn, fp = count.get(("no", "no"), 0), count.get(("no", "yes"), 0)
    acc = (tp + tn) / len(read)
    acc_plus = sum(first.is_right and second.is_right for first, second in pairs) / len(pairs)
    return TaskScore(
        score=acc * 100 + acc_plus * 100,
        acc=acc,
        acc_plus=acc_plus,
        precision=tp / (tp + fp) if tp + fp else 0.0,
        recall=tp / (tp + fn) if tp + fn else 0.0,
        other_num=len(read) - tp - fn - tn - fp,
        TP=tp,
        FN=fn,
        TN=tn,
        FP=fp,
        num_images=len(pairs),
        num_questions=len(read),
    )


def _sum(tasks: Mapping[str, TaskScore]) -> float:
    return float(sum(task.score for task in tasks.values()))


def _silence(scores: Mapping[str, TaskScore]) -> list[str]:
    """Say so if most answers are neither yes nor no: then something else than the visual tokens is wrong."""
    others, questions = (
        sum(task.other_num for task in scores.values()),
        sum(task.num_questions for task in scores.values()),
    )
    if 2 * others <= questions:
        return []
    return [
        (
            f"{others} of {questions} answers are neither yes nor no; see that template, language model and adapters are "
            "those that the projector was trained with"
        )
    ]


def _doubts(pairs: Mapping[str, Sequence[Pair]]) -> list[str]:
    """Count answers that the official reading takes for a yes or a no that they hardly are."""
    texts = {
        task: [answer.text for pair in items for answer in pair if _is_doubtful(answer.text)]
        for task, items in pairs.items()
    }
    counts = [f"{task} {len(found)}" for task, found in texts.items() if found]
    if not counts:
        return []
    examples = list(dict.fromkeys(text[:40] for found in texts.values() for text in found))[:_MOST_EXAMPLES]
    return [
        (
            f"{sum(map(len, texts.values()))} answer(s) hold yes or no within another word, or both, and were read as the "
            f"official calculator reads them, for example {', '.join(map(repr, examples))}; by task: {', '.join(counts)}"
        )
    ]


def _is_doubtful(text: str) -> bool:
    start = text.lower()[:NUM_CHARACTERS]
    words = set(re.findall(r"\b(yes|no)", start))
    return read_answer(text) != "other" and len(words) != 1
