"""What a variant came to on a task, beside the float graph: evidence of another kind than agreement of tensors."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pargo_export.bundle.fields import Count, Positive, Sha256
from pargo_export.config import Record

__all__ = ["ScorePair", "TaskEvidence"]


class ScorePair(Record):
    """A score with the float graph and with the variant.

    Attributes:
        baseline: Of the float graph.
        value: Of the variant.
    """

    baseline: float
    value: float


class TaskEvidence(Record):
    """The score of a variant on a benchmark, held against that of the float32 graph.

    Attributes:
        benchmark: What was scored, for example `"mme"`.
        baseline: Total of the float32 graph over the tasks.
        value: Total of the variant.
        limit_percent: Largest drop that was allowed, percent of `baseline`.
        tasks: Both scores of every task.
        num_images: Images that were encoded.
        num_questions: Questions that were answered.
        num_lost: Questions that the float32 graph answers right and the variant wrong.
        num_gained: The reverse.
        p_value: Exact two-sided McNemar p of these two numbers; 1 if no answer changed between right and wrong.
        data_sha256: Hash of questions and images.
        language_model: Name of the language model that answered.
        language_model_sha256: Hash of its files, adapters included.
        settings: Template and generation settings.
    """

    benchmark: str
    baseline: Annotated[float, Field(gt=0)]
    value: float
    limit_percent: Annotated[float, Field(ge=0)]
    tasks: dict[str, ScorePair]
    num_images: Positive
    num_questions: Positive
    num_lost: Count
    num_gained: Count
    p_value: Annotated[float, Field(ge=0, le=1)]
    data_sha256: Sha256
    language_model: str
    language_model_sha256: Sha256
    settings: dict[str, str | int | float]

    @property
    def drop_percent(self) -> float:
        """By how much the total is lower than that of the float32 graph, percent; negative if it is higher."""
        return 100 * (self.baseline - self.value) / self.baseline
