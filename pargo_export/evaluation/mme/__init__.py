"""MME: two yes-or-no questions about every image, scored as the official calculator does.

Scoring needs neither a bundle nor a language model; `evaluate_mme` needs both, and is imported by its own module.
"""

from __future__ import annotations

from pargo_export.evaluation.mme.data import MmeData, MmeImage, MmeTask, Question, read_mme
from pargo_export.evaluation.mme.results import read_results, score_results
from pargo_export.evaluation.mme.scores import GroupScore, MmeScores, TaskScore
from pargo_export.evaluation.mme.scoring import Answer, read_answer, score_answers

__all__ = [
    "Answer",
    "GroupScore",
    "MmeData",
    "MmeImage",
    "MmeScores",
    "MmeTask",
    "Question",
    "TaskScore",
    "read_answer",
    "read_mme",
    "read_results",
    "score_answers",
    "score_results",
]
