"""A task whose score decides a budget: what is asked of it, and what runs a graph for it.

The tasks themselves are of a later stage (`evaluation/task_budget.py`), which knows language models and benchmarks. Here
a task is whatever can score something that turns pictures into visual tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from pargo_export.bundle import TaskEvidence
from pargo_export.errors import AccuracyError, ConfigError
from pargo_export.graph.emulate_half import emulated
from pargo_export.preprocessing import ImageSource, PreprocessSpec, normalize, preprocess_uint8
from pargo_export.quantization.sessions import open_session

__all__ = ["Encode", "Task", "TaskBaseline", "TaskOutcome", "describe_task", "open_encoder"]

# Below this McNemar p the changed answers are taken for more than chance; it decides nothing, the note says it.
_SIGNIFICANT_P = 0.05

# From B pictures to visual tokens, float32 `[B, Q, C]`.
Encode = Callable[[Sequence[ImageSource]], NDArray[np.float32]]


@dataclass(frozen=True)
class TaskOutcome:
    """What a graph came to.

    Attributes:
        total: The score, higher is better.
        scores: Its parts, by name.
        correct: Whether each question was answered right, by a key that identifies the question.
    """

    total: float
    scores: Mapping[str, float]
    correct: Mapping[str, bool]


class Task(Protocol):
    """Something to be good at."""

    @property
    def metric(self) -> str:
        """The budget that this is for, for example `"mme-drop"`."""
        ...

    def fingerprint(self) -> str:
        """Hash of everything that decides the score but the graph: questions, images, language model, settings."""
        ...

    def run(self, encode: Encode) -> TaskOutcome:
        """Score a graph; called once for the float32 graph, then for each candidate.

        Args:
            encode: Runs the graph; to be called with a few pictures at a time.
        """
        ...

    def evidence(self, baseline: TaskOutcome, found: TaskOutcome, *, limit_percent: float) -> TaskEvidence:
        """Say how two outcomes differ, for the manifest."""
        ...


@dataclass(frozen=True)
class TaskBaseline:
    """A task with the score of the float32 graph, which candidates are held against.

    Attributes:
        task: The task.
        outcome: What the float32 graph came to.
        spec: How pictures are prepared.
        takes_uint8: Whether the graphs normalise by themselves.
        max_batch: Largest batch that they were made for; `None`: any.
        threads: CPU threads; by default those that ONNX Runtime takes.
    """

    task: Task
    outcome: TaskOutcome
    spec: PreprocessSpec
    takes_uint8: bool
    max_batch: int | None = None
    threads: int | None = None

    @classmethod
    def of(
        cls,
        task: Task,
        graph: Path,
        spec: PreprocessSpec,
        *,
        takes_uint8: bool,
        max_batch: int | None = None,
        threads: int | None = None,
    ) -> TaskBaseline:
        """Score the float32 graph.

        Args:
            task: The task.
            graph: File of the float32 graph.
            spec: How pictures are prepared.
            takes_uint8: Whether the graph normalises by itself.
            max_batch: Largest batch that it was made for; `None`: any.
            threads: CPU threads.

        Raises:
            AccuracyError: It has no score that could drop.
            ConfigError: The score is no number.
        """
        encode = open_encoder(graph, spec, takes_uint8=takes_uint8, max_batch=max_batch, threads=threads)
        outcome = task.run(encode)
        if not math.isfinite(outcome.total):
            raise ConfigError(f"the score for {task.metric} is {outcome.total!r}; expected a finite number")
        if outcome.total <= 0:
            raise AccuracyError(
                f"the float32 graph has a score of {outcome.total:g}, of which no percentage can be kept; see that language "
                "model, adapters and prompt template are those of the checkpoint, or set a budget on cosine or sqnr"
            )
        return cls(task, outcome, spec, takes_uint8, max_batch, threads)

    def measure(self, graph: Path, *, limit_percent: float) -> TaskEvidence:
        """Score a candidate, and hold it against the float32 graph."""
        encode = open_encoder(
            graph, self.spec, takes_uint8=self.takes_uint8, max_batch=self.max_batch, threads=self.threads
        )
        return self.task.evidence(self.outcome, self.task.run(encode), limit_percent=limit_percent)


def open_encoder(
    graph: Path,
    spec: PreprocessSpec,
    *,
    takes_uint8: bool,
    max_batch: int | None = None,
    threads: int | None = None,
) -> Encode:
    """Return a function that takes pictures through a graph in ONNX Runtime.

    BFloat16 parts are emulated. Pictures are prepared as `Runtime` does it.

    Args:
        graph: The `.onnx` file, from pixels to visual tokens.
        spec: How pictures are prepared.
        takes_uint8: Whether the graph normalises by itself.
        max_batch: Largest batch that it was made for: more pictures are split; `None`: they are not.
        threads: CPU threads; by default those that ONNX Runtime takes.

    Raises:
        QuantizationError: ONNX Runtime refuses the graph.
    """
    model = onnx.load(graph, load_external_data=False)
    if any(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in model.graph.initializer):
        model = emulated(model, "bfloat16")
    session = open_session(model, graph.parent, threads=threads)
    feed, output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def run(pictures: Sequence[ImageSource]) -> NDArray[np.float32]:
        pixels = preprocess_uint8(pictures, spec)
        values = pixels if takes_uint8 else normalize(pixels, spec)
        tokens: NDArray[np.float32] = session.run([output], {feed: values})[0].astype(np.float32)
        return tokens

    def encode(pictures: Sequence[ImageSource]) -> NDArray[np.float32]:
        size = max_batch or len(pictures)
        parts = [run(pictures[start : start + size]) for start in range(0, len(pictures), size)]
        return np.concatenate(parts)

    return encode


def describe_task(evidence: TaskEvidence) -> str:
    """Say in one line what a variant came to on a task, and whether chance explains it."""
    noise = "more than chance explains" if evidence.p_value < _SIGNIFICANT_P else "within noise"
    return (
        f"{evidence.benchmark} total {evidence.value:.2f} of {evidence.baseline:.2f} with float32, drop "
        f"{evidence.drop_percent:.2f} %, allowed {evidence.limit_percent:g} %; of {evidence.num_questions} answers "
        f"{evidence.num_lost} lost and {evidence.num_gained} gained, McNemar p {evidence.p_value:.2g}: {noise}; "
        f"language model {evidence.language_model}"
    )
