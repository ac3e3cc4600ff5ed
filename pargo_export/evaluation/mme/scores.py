"""Scores as records, with the official calculator's names."""

from __future__ import annotations

from pydantic import Field

from pargo_export.config import Record
from pargo_export.evaluation.mme.tasks import Group

__all__ = ["GroupScore", "MmeScores", "TaskScore"]


class TaskScore(Record):
    """The score of one task, in the official calculator's words.

    Attributes:
        score: `100 * acc + 100 * acc_plus`, 0 to 200.
        acc: Share of questions that were answered right.
        acc_plus: Share of images of which both questions were answered right.
        precision: Of yes, among the answers that are yes or no; 0 if there is no yes.
        recall: Of yes, among the answers that are yes or no; 0 if there is no yes to find.
        other_num: Answers that are neither yes nor no; they count as wrong.
        TP: Yes, answered yes.
        FN: Yes, answered no.
        TN: No, answered no.
        FP: No, answered yes.
        num_images: Images.
        num_questions: Questions.
    """

    score: float
    acc: float
    acc_plus: float
    precision: float
    recall: float
    other_num: int
    TP: int
    FN: int
    TN: int
    FP: int
    num_images: int
    num_questions: int


class GroupScore(Record):
    """The scores of a group.

    Attributes:
        total: Sum over its tasks.
        tasks: The tasks, in the official order.
        missing: Official tasks without results; they add nothing to the total.
    """

    total: float
    tasks: dict[str, TaskScore] = Field(default_factory=dict)
    missing: tuple[str, ...] = ()


class MmeScores(Record):
    """What a set of answers scores.

    Attributes:
        groups: `Perception` (at most 2000) and `Cognition` (at most 800); `Additional` if there are tasks that MME does
            not have.
        total: Perception and Cognition together, at most 2800.
        total_with_additional: The sum over every task.
        strict_official: Whether results were read and paired just as the official calculator does.
        warnings: What makes the numbers doubtful, such as answers that were read as no for the letters within a word.
    """

    groups: dict[Group, GroupScore]
    total: float
    total_with_additional: float
    strict_official: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def tasks(self) -> dict[str, TaskScore]:
        """Every task by its name."""
        return {name: task for group in self.groups.values() for name, task in group.tasks.items()}
