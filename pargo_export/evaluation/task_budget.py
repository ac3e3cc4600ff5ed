"""MME as the judge of a quantization: `quantize(..., budget="mme-drop=1.0", task=open_mme_drop(...))`.

Every candidate graph encodes the images once, a language model answers their questions, and the total is held against
that of the float32 graph. The total here is over every task in the data, also those that MME does not have.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from pargo_export.bundle import ScorePair, TaskEvidence, recipe_sha256
from pargo_export.evaluation.language_model import language_model_sha256
from pargo_export.evaluation.mme.answering import Answerer, answer_task
from pargo_export.evaluation.mme.compare import mcnemar_p
from pargo_export.evaluation.mme.data import MmeData, read_mme
from pargo_export.evaluation.mme.records import LanguageModelFacts
from pargo_export.evaluation.mme.scoring import Answer, score_answers
from pargo_export.llm import GREEDY, MME_TEMPLATE, Chat, GenerationSettings, open_language_model
from pargo_export.llm.prompts import check_template
from pargo_export.optional import require
from pargo_export.quantization.task import Encode, TaskOutcome

__all__ = ["MmeDrop", "open_mme_drop"]


class MmeDrop:
    """The budget `mme-drop`: how much of its MME total a graph loses; a context manager, which frees what answers.

    The language model is opened when the first graph is scored, so that a variant that is up to date costs no more than
    hashing the files.

    Args:
        data: Images and questions.
        language_model: What answers, for the manifest and the hash.
        open_answerer: Opens it.
        batch_size: Images in memory at a time.
        progress: Called with a short text before each task of each graph.
    """

    metric = "mme-drop"

    def __init__(
        self,
        data: MmeData,
        language_model: LanguageModelFacts,
        open_answerer: Callable[[ExitStack], Answerer],
        *,
        batch_size: int = 8,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        require(
            "scipy.stats", extra="evaluation", purpose="compare answers"
        )  # now, not after hours of answers
        self._data = data
        self._language_model = language_model
        self._open_answerer = open_answerer
        self._batch_size = batch_size
        self._progress = progress
        self._resources = ExitStack()
        self._num_graphs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the language model; a further graph would open it again."""
        self.__dict__.pop("_answerer", None)
        self._resources.close()

    def fingerprint(self) -> str:
        """Hash of questions, images, language model, template and settings.

        Raises:
            ImageError: An image cannot be read.
        """
        facts = self._language_model
        return recipe_sha256(
            {
                "benchmark": "mme",
                "data": self._data.sha256,
                "language_model": facts.sha256,
                "template": facts.template,
                "settings": facts.settings,
            }
        )

    def run(self, encode: Encode) -> TaskOutcome:
        """Answer every question with the visual tokens of a graph.

        Raises:
            ImageError: A picture cannot be read.
            InputError: The width of the visual tokens is not that of the language model.
        """
        self._num_graphs += 1
        answers: dict[str, tuple[Answer, ...]] = {}
        for name, task in self._data.tasks.items():
            self._progress(f"graph {self._num_graphs}: {name}, {len(task.images)} images")
            answers[name] = answer_task(task, encode, self._answerer, batch_size=self._batch_size)
        scores = score_answers(answers)
        return TaskOutcome(
            total=scores.total_with_additional,
            scores={name: task.score for name, task in scores.tasks.items()},
            correct={
                f"{name}/{answer.image}/{index % 2}": answer.is_right
                for name, found in answers.items()
                for index, answer in enumerate(found)
            },
        )

    def evidence(self, baseline: TaskOutcome, found: TaskOutcome, *, limit_percent: float) -> TaskEvidence:
        """Hold a graph against the float32 one: totals, tasks, and the answers that changed between right and wrong."""
        num_lost = sum(right and not found.correct[key] for key, right in baseline.correct.items())
        num_gained = sum(found.correct[key] and not right for key, right in baseline.correct.items())
        facts = self._language_model
        settings = {name: value for name, value in facts.settings.items() if value is not None}
        return TaskEvidence(
            benchmark="mme",
            baseline=baseline.total,
            value=found.total,
            limit_percent=limit_percent,
            tasks={
                name: ScorePair(baseline=score, value=found.scores[name])
                for name, score in baseline.scores.items()
            },
            num_images=self._data.num_images,
            num_questions=self._data.num_questions,
            num_lost=num_lost,
            num_gained=num_gained,
            p_value=mcnemar_p(num_gained, num_lost),
            data_sha256=self._data.sha256,
            language_model=facts.name,
            language_model_sha256=facts.sha256,
            settings={"template": facts.template, **settings},
        )

    @cached_property
    def _answerer(self) -> Answerer:
        return self._open_answerer(self._resources)


def open_mme_drop(
    data: MmeData | str | os.PathLike[str],
    language_model: str | os.PathLike[str],
    *,
    adapters: str | os.PathLike[str] | None = None,
    lora_alpha: float | None = None,
    template: str = MME_TEMPLATE,
    settings: GenerationSettings = GREEDY,
    batch_size: int = 8,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> MmeDrop:
    """Read a data set in the form of MME and name the language model that is to answer.

    Args:
        data: Folder of MME, or of data in its layout; or what `read_mme` read there.
        language_model: Directory of transformers, or one that `export_language_model` wrote.
        adapters: ParGo checkpoint whose `llm_model.*` tensors are put into the language model.
        lora_alpha: Numerator of the scale of the adapters; by default from the JSON beside them.
        template: Text around image and question.
        settings: How answers are generated; greedy by default, since a search asks every question several times. The
            official evaluation takes four beams (`OFFICIAL`).
        batch_size: Images in memory at a time.
        threads: CPU threads of the language model.
        progress: Called with a short text before each task of each graph.

    Raises:
        ConfigError: The template has not one place for image and question each, or the directory holds no files.
        InputError: There is no such data, or it is malformed; the message has file and line.
        MissingDependencyError: SciPy is not installed.
    """
    directory = Path(language_model)

    def open_chat(resources: ExitStack) -> Answerer:
        model = open_language_model(directory, adapters=adapters, lora_alpha=lora_alpha, threads=threads)
        return Chat(None, resources.enter_context(model), template=template, settings=settings)

    facts = LanguageModelFacts(
        name=directory.resolve().name,
        sha256=language_model_sha256(directory, adapters),
        template=check_template(template),
        settings={**asdict(settings), **({} if lora_alpha is None else {"lora_alpha": lora_alpha})},
    )
    questions = data if isinstance(data, MmeData) else read_mme(data)
    return MmeDrop(questions, facts, open_chat, batch_size=batch_size, progress=progress)
