"""What an evaluation found, as typed records: the JSON of `pargo-export eval mme`.

The schema version is `MAJOR.MINOR`. A minor version adds fields, which older readers keep; a major version changes the
meaning of existing ones. What could not be computed is `None`, never zero.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pargo_export.bench.records import BundleFacts, Environment, Interval
from pargo_export.config import Record
from pargo_export.evaluation.mme.scores import MmeScores

__all__ = [
    "SCHEMA_VERSION",
    "Comparison",
    "DataFacts",
    "EncodeTimes",
    "Flip",
    "LanguageModelFacts",
    "MmeEvaluation",
    "Settings",
    "TaskDifference",
    "TokenAgreement",
    "VariantResult",
    "Verdict",
]

SCHEMA_VERSION = "1.0"
# By McNemar's test at 5 %: "no change" is no proof that there is none.
Verdict = Literal["identical answers", "no significant change", "significantly better", "significantly worse"]


class LanguageModelFacts(Record):
    """What answered.

    Attributes:
        name: For people.
        sha256: Hash that tells it from others: files of its directory, adapters.
        template: Text around the question; its `{}` is the place of the question.
        settings: How it generates.
    """

    name: str
    sha256: str
    template: str
    settings: dict[str, str | int | float | None] = Field(default_factory=dict)


class DataFacts(Record):
    """What was asked.

    Attributes:
        path: Folder of the data, as it was given.
        layout: `pargo` or `release`.
        tasks: Images of each task.
        sha256: Hash of questions, answers and images.
        skipped: Images that are missing, and were left out because that was asked for.
    """

    path: str
    layout: str
    tasks: dict[str, int]
    sha256: str
    skipped: tuple[str, ...] = ()


class Settings(Record):
    """How it was evaluated.

    Attributes:
        command: The command line; empty from Python.
        batch_size: Images at a time.
        limit: Images of each task at most; `None`: all.
        num_token_images: Images on which tokens and times are compared, at most.
        seed: Of the bootstrap.
        threads: CPU threads; `None`: every physical core.
    """

    command: str = ""
    batch_size: int
    limit: int | None = None
    num_token_images: int
    seed: int
    threads: int | None = None


class VariantResult(Record):
    """One variant, or one folder of results.

    Attributes:
        name: Its name; of a folder of results, its path.
        backend: What computed the visual tokens; empty if unknown.
        precision: Of the products.
        description: For people.
        sha256: Hash of what decides the visual tokens; empty if unknown.
        results: Folder of the result files.
        scores: What it scores.
        encode_ms: Median over the tasks' medians: an image to visual tokens while answering, milliseconds.
        seconds: Time for answering, of all tasks.
        reused: Tasks whose answers an earlier run gave.
    """

    name: str
    backend: str = ""
    precision: str = ""
    description: str = ""
    sha256: str = ""
    results: str
    scores: MmeScores
    encode_ms: float | None = None
    seconds: float | None = None
    reused: tuple[str, ...] = ()


class TaskDifference(Record):
    """A task beside the baseline.

    Attributes:
        baseline: Score of the baseline.
        score: Score of the variant.
        difference: `score - baseline`.
        num_gained: Questions that only the variant answers right.
        num_lost: Questions that only the baseline answers right.
    """

    baseline: float
    score: float
    difference: float
    num_gained: int
    num_lost: int


class Flip(Record):
    """A question that one of the two answers right and the other wrong.

    Attributes:
        task: Its task.
        image: File name of the image.
        prompt: What was asked.
        truth: `"yes"` or `"no"`.
        baseline_answer: Answer of the baseline.
        answer: Answer of the variant.
        is_gain: Whether the variant is right.
    """

    task: str
    image: str
    prompt: str
    truth: str
    baseline_answer: str
    answer: str
    is_gain: bool


class TokenAgreement(Record):
    """How close the visual tokens are to those of the baseline.

    Attributes:
        num_images: Images.
        mean_cosine: Mean over tokens and images.
        worst_cosine: Of the worst token.
        max_abs: Largest absolute difference.
        sqnr_db: Signal-to-noise ratio of the worst image, decibels.
    """

    num_images: int
    mean_cosine: float
    worst_cosine: float
    max_abs: float
    sqnr_db: float | None


class EncodeTimes(Record):
    """How long an image takes to visual tokens, beside the baseline, in turns. An indication, not a benchmark.

    Attributes:
        num_images: Images.
        baseline_ms: Median of the baseline, batch 1, reading and decoding included.
        variant_ms: Median of the variant.
        ratio: Median of the ratios of each image, variant by baseline.
        boundary: What was timed, by which clock.
    """

    num_images: int
    baseline_ms: float
    variant_ms: float
    ratio: float
    boundary: str = "file to visual tokens, batch 1, host clock; not a benchmark: see pargo-export bench"


class Comparison(Record):
    """A variant beside the baseline.

    Attributes:
        variant: The variant.
        baseline: The baseline.
        verdict: In words; `identical answers` if every text is the same.
        difference: Of the official totals.
        interval: Confidence interval of `difference`; `None` if a task has a single image.
        difference_with_additional: Of the totals with the tasks that MME does not have.
        interval_with_additional: Confidence interval of that.
        tasks: Task by task.
        num_questions: Questions.
        num_same_text: Answers that are the same to the letter.
        num_same_reading: Answers that are read the same (yes, no, other).
        num_gained: Questions that only the variant answers right.
        num_lost: Questions that only the baseline answers right.
        p_value: Exact two-sided McNemar p of these two numbers; 1 if both are 0.
        flips: These questions.
        tokens: Agreement of the visual tokens; `None` if it was not measured.
        times: Times beside those of the baseline; `None` if not measured.
    """

    variant: str
    baseline: str
    verdict: Verdict
    difference: float
    interval: Interval | None = None
    difference_with_additional: float
    interval_with_additional: Interval | None = None
    tasks: dict[str, TaskDifference]
    num_questions: int
    num_same_text: int
    num_same_reading: int
    num_gained: int
    num_lost: int
    p_value: float
    flips: tuple[Flip, ...] = ()
    tokens: TokenAgreement | None = None
    times: EncodeTimes | None = None


class MmeEvaluation(Record):
    """Everything that one run of `pargo-export eval mme` found.

    Attributes:
        kind: Tells such a file from others.
        schema_version: `MAJOR.MINOR`.
        created: When it ended, ISO 8601, UTC.
        settings: How it was evaluated; `None` if only result files were scored.
        environment: On what; `None` if only result files were scored.
        bundle: Of which bundle; `None` likewise.
        data: On which data; `None` likewise.
        language_model: What answered; `None` likewise.
        variants: What was evaluated, in the order in which it was asked for.
        comparisons: Every variant but the baseline beside it.
        warnings: What makes the numbers doubtful.
    """

    kind: Literal["pargo-export mme evaluation"] = "pargo-export mme evaluation"
    schema_version: str = SCHEMA_VERSION
    created: str
    settings: Settings | None = None
    environment: Environment | None = None
    bundle: BundleFacts | None = None
    data: DataFacts | None = None
    language_model: LanguageModelFacts | None = None
    variants: tuple[VariantResult, ...]
    comparisons: tuple[Comparison, ...] = ()
    warnings: tuple[str, ...] = ()
