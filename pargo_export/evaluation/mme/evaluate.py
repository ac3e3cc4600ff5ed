"""Evaluate the variants of a bundle on MME, through a language model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pargo_export.bench.benchmark import describe_bundle
from pargo_export.bench.environment import describe_environment
from pargo_export.bundle import Bundle
from pargo_export.errors import ConfigError
from pargo_export.evaluation.mme.agreement import compare_sources
from pargo_export.evaluation.mme.answering import Answerer, answer_task
from pargo_export.evaluation.mme.compare import compare_answers
from pargo_export.evaluation.mme.data import MmeData
from pargo_export.evaluation.mme.records import (
    Comparison,
    DataFacts,
    LanguageModelFacts,
    MmeEvaluation,
    Settings,
    VariantResult,
)
from pargo_export.evaluation.mme.scoring import Pair, pair_by_image, score_pairs
from pargo_export.evaluation.mme.sources import EMULATED, PYTORCH, Subject, TokenSource, open_source
from pargo_export.evaluation.mme.store import RECORD_NAME, ResultStore, TaskRecord
from pargo_export.optional import require
from pargo_export.runtime.selection import select

__all__ = ["MmeOptions", "evaluate_mme"]

Progress = Callable[[str], None]
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class MmeOptions:
    """How to evaluate.

    Attributes:
        variants: `VARIANT`, `VARIANT@BACKEND` or `pytorch`; by default every variant of the whole model that this
            machine can run.
        baseline: What the others are compared with; by default `pytorch` if there is a checkpoint, else the first one.
        backend: What runs variants that do not name one; `emulated` runs FP8 and BF16 on a CPU, in float32 products.
        checkpoint: What the bundle was made from: adds the reference in PyTorch, float32.
        batch_size: Images at a time.
        num_token_images: Images on which tokens and times are compared, at most; 0: none.
        threads: CPU threads of the visual part; by default every physical core.
        seed: Of the bootstrap.
        resume: Go on with the results that are there.
        force: Replace them.

    Raises:
        ConfigError: A number is out of range, or a name stands twice.
    """

    variants: tuple[str, ...] = ()
    baseline: str | None = None
    backend: str = "auto"
    checkpoint: Path | None = None
    batch_size: int = 8
    num_token_images: int = 32
    threads: int | None = None
    seed: int = 0
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("num_token_images", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected at least {least}")
        twice = sorted({name for name in self.variants if self.variants.count(name) > 1})
        if twice:
            raise ConfigError(f"found the variant {', '.join(twice)} twice, expected each once")


def evaluate_mme(
    bundle: Bundle,
    answerer: Answerer,
    data: MmeData,
    results: Path,
    options: MmeOptions | None = None,
    *,
    language_model: LanguageModelFacts,
    limit: int | None = None,
    command: str = "",
    progress: Progress = lambda _: None,
    advance: Advance = lambda done, total: None,  # noqa: ARG005 - named for its callers
) -> MmeEvaluation:
    """Answer every question with every variant, score, and compare with the baseline.

    One variant is open at a time, for the comparison of tokens two; images are read batch by batch. Answers are written
    task by task to `RESULTS/VARIANT/TASK.txt`, in the official layout.

    Args:
        bundle: The bundle.
        answerer: Answers questions about visual tokens, such as a `Chat`.
        data: The questions.
        results: Folder for the result files.
        options: How.
        language_model: What the answerer is; results of another one are not gone on with.
        limit: The limit that `data` was read with, for the record.
        command: The command line, for the record.
        progress: Called with a short text before each step.
        advance: Called with the number of images of a step that are done, and of all.

    Raises:
        BackendError: Nothing can run a variant here, or the execution failed.
        BundleError: There is no such variant, or it does not compute visual tokens from pictures.
        CheckpointError: The bundle was made from another checkpoint.
        ConfigError: Options contradict each other, or results are there that cannot be gone on with.
        ImageError: A picture cannot be read.
        InputError: The visual tokens do not fit the language model.
        MissingDependencyError: A package is not installed.
    """
    options = options or MmeOptions()
    require("scipy.stats", extra="evaluation", purpose="compare answers")
    warnings: list[str] = []
    subjects = _choose(bundle, options, warnings)
    baseline = _find_baseline(subjects, options)
    _check_free(results, subjects, options)
    progress("hashing the data")
    facts = DataFacts(
        path=str(data.root),
        layout=data.layout,
        tasks={name: len(task.images) for name, task in data.tasks.items()},
        sha256=data.sha256,
        skipped=data.skipped,
    )
    run = _Run(bundle, answerer, data, results, options, language_model, progress, advance)
    variants, pairs = [], {}
    for subject in subjects:
        found, pairs[subject.name] = run.answer(subject)
        variants.append(found)
        warnings += [f"{found.name}: {warning}" for warning in found.scores.warnings]
    comparisons = run.compare(subjects, baseline, pairs)
    return MmeEvaluation(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        settings=Settings(
            command=command,
            batch_size=options.batch_size,
            limit=limit,
            num_token_images=options.num_token_images,
            seed=options.seed,
            threads=options.threads,
        ),
        environment=describe_environment(),
        bundle=describe_bundle(bundle),
        data=facts,
        language_model=language_model,
        variants=tuple(variants),
        comparisons=comparisons,
        warnings=tuple(warnings),
    )


def _choose(bundle: Bundle, options: MmeOptions, warnings: list[str]) -> list[Subject]:
    subjects = [Subject.parse(text, options.backend) for text in options.variants]
    for subject in subjects:
        if subject.variant is not None:
            bundle.variant(subject.variant)  # before anything is loaded
    if not subjects:
        whole = [variant for variant in bundle.manifest.variants.values() if variant.component == "all"]
        whole.sort(key=lambda variant: variant.precision != "float32")  # what the others come from first
        for variant in whole:
            if options.backend == EMULATED or (
                select(bundle, backend=options.backend, variant=variant.name).candidates
            ):
                subjects.append(Subject(variant.name, variant.name, options.backend))
            else:
                warnings.append(f"{variant.name} is left out: no backend of this machine runs it")
    if options.checkpoint is not None and all(subject.variant is not None for subject in subjects):
        subjects.insert(0, Subject.parse(PYTORCH))
    if not subjects:
        raise ConfigError(f"bundle {bundle.path}: found no variant that runs here: {'; '.join(warnings)}")
    return subjects


def _find_baseline(subjects: list[Subject], options: MmeOptions) -> Subject:
    names = {subject.name: subject for subject in subjects}
    if options.baseline is None:
        return names.get(PYTORCH, subjects[0])
    if options.baseline not in names:
        raise ConfigError(f"baseline: found {options.baseline!r}, expected one of {', '.join(names)}")
    return names[options.baseline]


def _check_free(results: Path, subjects: list[Subject], options: MmeOptions) -> None:
    """Find out before the work, not after a part of it, that results are in the way."""
    if options.resume or options.force:
        return
    for subject in subjects:
        folder = results / subject.name
        if (folder / RECORD_NAME).exists() or any(folder.glob("*.txt")):
            ResultStore(folder, {})  # raises, with the mend


@dataclass(frozen=True)
class _Run:
    """What all variants of an evaluation share."""

    bundle: Bundle
    answerer: Answerer
    data: MmeData
    results: Path
    options: MmeOptions
    language_model: LanguageModelFacts
    progress: Progress
    advance: Advance

    def answer(self, subject: Subject) -> tuple[VariantResult, dict[str, list[Pair]]]:
        """Answer all tasks with a variant, but for those that are finished already."""
        self.progress(f"{subject.name}: opening")
        with self._open(subject) as source:
            store = ResultStore(
                self.results / subject.name,
                self._identify(source),
                resume=self.options.resume,
                force=self.options.force,
            )
            records, reused = [], []
            for name, task in self.data.tasks.items():
                record = store.finished(name, task.sha256)
                if record is None:
                    record = self._answer_task(source, store, name)
                else:
                    reused.append(name)
                records.append(record)
        # From the files: what is scored is what was written.
        pairs = {name: pair_by_image(store.read(name), name) for name in self.data.tasks}
        return VariantResult(
            name=source.name,
            backend=source.backend,
            precision=source.precision,
            description=source.description,
            sha256=source.sha256,
            results=str(store.directory),
            scores=score_pairs(pairs),
            encode_ms=statistics.median(record.encode_ms for record in records),
            seconds=sum(record.seconds for record in records),
            reused=tuple(reused),
        ), pairs

    def compare(
        self, subjects: list[Subject], baseline: Subject, pairs: dict[str, dict[str, list[Pair]]]
    ) -> tuple[Comparison, ...]:
        """Compare every variant with the baseline: answers, then tokens on some images."""
        images = self.data.sample(self.options.num_token_images)
        others = [subject for subject in subjects if subject is not baseline]
        found = [
            compare_answers(
                pairs[baseline.name],
                pairs[subject.name],
                baseline_name=baseline.name,
                name=subject.name,
                seed=self.options.seed,
            )
            for subject in others
        ]
        if not images or not others:
            return tuple(found)
        with self._open(baseline) as reference:
            for index, subject in enumerate(others):
                self.progress(f"{subject.name}: tokens beside those of {baseline.name}")
                with self._open(subject) as source:
                    tokens, times = compare_sources(reference, source, images, advance=self.advance)
                found[index] = found[index].model_copy(update={"tokens": tokens, "times": times})
        return tuple(found)

    def _open(self, subject: Subject) -> TokenSource:
        return open_source(
            subject, self.bundle, checkpoint=self.options.checkpoint, threads=self.options.threads
        )

    def _identify(self, source: TokenSource) -> dict[str, str]:
        model = self.language_model
        return {
            "visual tokens": source.sha256,
            "language model": model.sha256,
            "template": model.template,
            **{name: str(value) for name, value in model.settings.items()},
        }

    def _answer_task(self, source: TokenSource, store: ResultStore, name: str) -> TaskRecord:
        task = self.data.tasks[name]
        self.progress(f"{source.name}: {name}")
        times: list[float] = []

        def encode(paths: list[Path]) -> NDArray[np.float32]:
            begin = time.perf_counter()
            tokens = source.encode(paths)
            times.append(1e3 * (time.perf_counter() - begin) / len(paths))
            return tokens

        start = time.perf_counter()
        answers = answer_task(
            task,
            encode,
            self.answerer,
            template=self.language_model.template,
            batch_size=self.options.batch_size,
            advance=self.advance,
        )
        return store.write(
            name,
            answers,
            data_sha256=task.sha256,
            encode_ms=statistics.median(times),
            seconds=time.perf_counter() - start,
        )
