"""Keep blocks in float until the graph is as accurate as asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import onnx

from pargo_export.bundle import StageEvidence, TaskEvidence
from pargo_export.errors import AccuracyError, ConfigError, QuantizationError
from pargo_export.quantization.build import BuiltGraph, GraphBuilder
from pargo_export.quantization.measure import Reference, measure
from pargo_export.quantization.scorer import Score
from pargo_export.quantization.sensitivity import Accuracy, Sensitivity, candidate_blocks, run_images
from pargo_export.quantization.task import Task, TaskBaseline

__all__ = ["TASK_METRICS", "Budget", "BudgetResult", "BudgetStep", "fit_budget", "require_measure"]

Metric = Literal["cosine", "worst_cosine", "sqnr", "score", "mme-drop"]
TASK_METRICS = ("mme-drop",)

_MEANING: dict[str, str] = {
    "cosine": "mean cosine of the tokens on the worst image, above 0 and up to 1",
    "worst_cosine": "cosine of the worst token of all images, above 0 and up to 1",
    "sqnr": "signal-to-noise ratio on the worst image in dB, above 0",
    "score": "what a function of your own returns, any number",
    "mme-drop": "drop of the MME total, percent of that of the float32 graph, from 0 to below 100",
}


@dataclass(frozen=True)
class Budget:
    """Accuracy that the graph must keep: of its output on the evaluation images, or on a task.

    Attributes:
        metric: `cosine` (mean over the tokens, worst image), `worst_cosine` (worst token of all), `sqnr` (worst
            image, dB), `score` (a function of the caller's; higher is better) or `mme-drop` (percent of the float32
            graph's MME total that may be lost).
        limit: Lowest value that holds the budget; of `mme-drop` the highest.

    Raises:
        ConfigError: The metric is unknown or the limit out of its range.
    """

    metric: Metric
    limit: float

    def __post_init__(self) -> None:
        valid = "; ".join(f"{name} ({meaning})" for name, meaning in _MEANING.items())
        if self.metric not in get_args(Metric):
            raise ConfigError(f"a budget cannot be set on {self.metric!r}; known: {valid}")
        ranges = {"score": True, "sqnr": self.limit > 0, "mme-drop": 0 <= self.limit < 100}
        in_range = ranges.get(self.metric, 0 < self.limit <= 1)
        if not in_range or not math.isfinite(self.limit):
            raise ConfigError(f"the budget is {self}; {self.metric} is the {_MEANING[self.metric]}")

    def __str__(self) -> str:
        return f"{self.metric}={self.limit:g}"

    @property
    def is_on_task(self) -> bool:
        """Whether the value is a drop of a score on a task; then lower is better."""
        return self.metric in TASK_METRICS

    def holds(self, value: float) -> bool:
        """Whether a value of the metric is within the budget; the limit itself is."""
        return value <= self.limit if self.is_on_task else value >= self.limit

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a budget such as `cosine=0.995`.

        Raises:
            ConfigError: The text is of another form; the message lists the metrics.
        """
        metric, _, number = (part.strip() for part in text.partition("="))
        try:
            limit = float(number)
        except ValueError:
            raise ConfigError(
                f"the budget is {text!r}; expected METRIC=NUMBER, for example cosine=0.995; metrics: "
                f"{', '.join(get_args(Metric))}"
            ) from None
        return cls(metric, limit)  # type: ignore[arg-type]  # checked there


@dataclass(frozen=True)
class BudgetStep:
    """One graph that was tried.

    Attributes:
        kept: Blocks kept in float, the most sensitive first.
        value: What the metric of the budget came to.
        holds: Whether that holds the budget.
    """

    kept: tuple[str, ...]
    value: float
    holds: bool

    @property
    def num_kept(self) -> int:
        """Number of blocks kept in float."""
        return len(self.kept)


@dataclass(frozen=True)
class BudgetResult:
    """A graph that holds its budget.

    Attributes:
        built: The graph, on disk.
        evidence: Its accuracy at every stage on every evaluation image.
        keep: Linears that the budget keeps in float, with the reason, by module path.
        steps: The graphs that were tried, in order.
        value: What the metric of the budget came to, measured on this graph.
        task: Its score on a task, if the budget is on one.
    """

    built: BuiltGraph
    evidence: tuple[StageEvidence, ...]
    keep: dict[str, str]
    steps: tuple[BudgetStep, ...]
    value: float
    task: TaskEvidence | None = None


def fit_budget(
    builder: GraphBuilder,
    reference: Reference,
    path: Path,
    budget: Budget,
    *,
    sensitivities: Sequence[Sensitivity],
    keep: Mapping[str, str] | None = None,
    score: Score | None = None,
    task: TaskBaseline | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> BudgetResult:
    """Write the graph that keeps as few of the most sensitive blocks in float as the budget allows.

    The number of blocks is doubled until the budget holds and then halved between the last two, so that 30 blocks
    need at most eleven graphs. Whatever is returned was measured to hold.

    Args:
        builder: Decides the graphs.
        reference: What they are held against.
        path: The `.onnx` file; weights may come beside it.
        budget: What to hold.
        sensitivities: From `block_sensitivity` of this builder: the order in which blocks are given up.
        keep: Linears that stay in float anyway, by module path, with the reason.
        score: For a budget on `score`: takes the output of the graph for every evaluation image, `[1, Q, C]` each.
        task: For a budget on a task: the task, scored with the float32 graph.
        threads: CPU threads.
        progress: Called with a short text after each graph.
        advance: Called with the graphs tried, and the most that it may take.

    Raises:
        AccuracyError: Even with all blocks but one in float the budget does not hold; no file is left.
        ConfigError: The budget is on `score` or a task and there is none, or it returned no number.
        ParityError: A value is NaN or infinite.
        QuantizationError: The sensitivities are those of another graph, or it cannot be quantized.
    """
    require_measure(budget, score, task.task if task else None)
    blocks = candidate_blocks(builder, keep)
    search = _Search(builder, reference, path, budget, score, task, threads, dict(keep or {}), blocks)
    order = _order(sensitivities, blocks)
    most = 2 * len(order).bit_length() + 1
    tried: dict[int, _Trial] = {}

    def holds(count: int) -> bool:
        trial = tried[count] = search.build(order[:count])
        advance(len(tried), max(most, len(tried)))
        progress(
            f"{count} of {len(order)} blocks in float: {budget.metric} {trial.step.value:.6g}, asked for {budget}"
        )
        return trial.step.holds

    try:
        count = _fewest(len(order) - 1, holds)
        if count is not None and count != list(tried)[-1]:
            search.write(order[:count])  # another graph lies there; building is repeatable, bit for bit
    except BaseException:
        search.clear()
        raise
    steps = tuple(trial.step for trial in tried.values())
    if count is None:
        search.clear()
        raise _missed(budget, steps, order)
    advance(most, most)
    return BudgetResult(
        built=tried[count].built,
        evidence=tried[count].evidence,
        keep=search.reasons(order[:count]),
        steps=steps,
        value=tried[count].step.value,
        task=tried[count].task,
    )


def require_measure(budget: Budget, score: Score | None, task: Task | None) -> None:
    """See that a score, or a task, is there if, and only if, the budget is on one.

    Raises:
        ConfigError: It is not.
    """
    if budget.is_on_task and task is None:
        raise ConfigError(
            f"the budget {budget} needs questions and a language model that answers them: --data MME_DIR --llm LLM_DIR, or "
            "task=pargo_export.evaluation.task_budget.MmeDrop(...)"
        )
    if task is not None and task.metric != budget.metric:
        raise ConfigError(
            f"a task for {task.metric} was given, but the budget is {budget}; ask for {task.metric}=NUMBER, or leave it out"
        )
    if budget.metric == "score" and score is None:
        raise ConfigError(
            f"the budget {budget} needs a function that scores the visual tokens: score=..., or on the command line "
            "package.module:function"
        )
    if budget.metric != "score" and score is not None:
        raise ConfigError(
            f"a score was given, but the budget is {budget}; ask for score=NUMBER, or leave it out"
        )


def _fewest(most: int, holds: Callable[[int], bool]) -> int | None:
    """Return a number in 0 ... `most` that holds, the smallest if those above it hold too; `None` if `most` fails."""
    failing, count = -1, 0
    while not holds(count):
        if count == most:
            return None
        failing, count = count, min(max(1, 2 * count), most)
    while count - failing > 1:
        middle = (failing + count) // 2
        failing, count = (failing, middle) if holds(middle) else (middle, count)
    return count


@dataclass(frozen=True)
class _Trial:
    built: BuiltGraph
    evidence: tuple[StageEvidence, ...]
    step: BudgetStep
    task: TaskEvidence | None


@dataclass(frozen=True)
class _Search:
    """Builds and measures graphs at one place; the last one stays."""

    builder: GraphBuilder
    reference: Reference
    path: Path
    budget: Budget
    score: Score | None
    task: TaskBaseline | None
    threads: int | None
    keep: dict[str, str]
    blocks: Mapping[str, tuple[str, ...]]

    def build(self, kept: Sequence[str]) -> _Trial:
        """Write and measure the graph that keeps these blocks."""
        built = self.write(kept)
        evidence = measure(built, self.reference, threads=self.threads)
        on_task = self.task.measure(built.path, limit_percent=self.budget.limit) if self.task else None
        value = on_task.drop_percent if on_task else self._value(built, evidence)
        step = BudgetStep(tuple(kept), value, holds=self.budget.holds(value))
        return _Trial(built, evidence, step, on_task)

    def write(self, kept: Sequence[str]) -> BuiltGraph:
        """Write the graph that keeps these blocks."""
        self.clear()  # a smaller graph needs no file of weights, and must not leave that of a larger one
        return self.builder.build(self.path, {**self.reasons(kept), **self.keep})

    def reasons(self, kept: Sequence[str]) -> dict[str, str]:
        """Return the linears of these blocks, each with the reason to keep it."""
        among = "the most sensitive" if len(kept) == 1 else f"among the {len(kept)} most sensitive"
        return {path: f"budget: block {block} is {among}" for block in kept for path in self.blocks[block]}

    def clear(self) -> None:
        """Remove what was written."""
        for file in (self.path, self.path.with_name(f"{self.path.name}.data")):
            file.unlink(missing_ok=True)

    def _value(self, built: BuiltGraph, evidence: tuple[StageEvidence, ...]) -> float:
        if self.score is not None:
            return self._scored(built, self.score)
        own = list(built.stages)[-1]
        accuracy = Accuracy.of(item for item in evidence if item.stage == own)
        values = {
            "cosine": accuracy.mean_cosine,
            "worst_cosine": accuracy.worst_cosine,
            "sqnr": accuracy.sqnr_db,
        }
        return values[self.budget.metric]

    def _scored(self, built: BuiltGraph, score: Score) -> float:
        model = onnx.load(built.path, load_external_data=False)
        images = range(len(self.reference.images))
        outputs = run_images(model, built.path.parent, self.reference, images, threads=self.threads)
        found = score(outputs)
        try:
            value = float(found)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(f"the score returned {found!r}; expected a finite number, higher for better")
        return value


def _order(sensitivities: Sequence[Sensitivity], blocks: Mapping[str, object]) -> list[str]:
    order = [item.name for item in sensitivities]
    if sorted(order) != sorted(blocks):
        raise QuantizationError(
            f"the sensitivities are of {', '.join(order) or 'nothing'}, but the graph quantizes {', '.join(blocks)}; "
            "measure them with the same recipe and the same graph"
        )
    return order


def _missed(budget: Budget, steps: Sequence[BudgetStep], order: Sequence[str]) -> AccuracyError:
    best = (min if budget.is_on_task else max)(steps, key=lambda step: step.value)
    path = ", ".join(f"{step.num_kept}: {step.value:.6g}" for step in steps)
    return AccuracyError(
        f"the budget {budget} cannot be held: {order[-1]}, the least sensitive of {len(order)} blocks, misses it even "
        f"with all others in float. {budget.metric} by blocks kept in float: {path}; the best is {best.value:.6g} with "
        f"{best.num_kept} blocks kept. {'Raise' if budget.is_on_task else 'Lower'} the budget, calibrate on more images, choose another recipe, quantize "
        "weights only (--int8-weight-only), or leave it at half precision (--fp16)"
    )
