"""Two sets of answers to the same questions: differences, flips, and whether chance explains them.

McNemar's exact test (Psychometrika 12, 1947) looks at the questions that exactly one of the two answers right: by chance
alone each side has half of them. The interval of a difference of scores is a percentile bootstrap in which the images of
each task are drawn anew, the same for both, since both saw the same images (Efron and Tibshirani, 1993).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pargo_export.bench.records import Interval
from pargo_export.errors import InputError
from pargo_export.evaluation.mme.records import Comparison, Flip, TaskDifference, Verdict
from pargo_export.evaluation.mme.scoring import Answer, Pair, read_answer, score_pairs
from pargo_export.evaluation.mme.tasks import OFFICIAL_TASKS, in_order
from pargo_export.optional import require

__all__ = ["CONFIDENCE", "RESAMPLES", "SIGNIFICANT_P", "compare_answers", "mcnemar_p"]

CONFIDENCE = 0.95
RESAMPLES = 2000
SIGNIFICANT_P = 0.05

_Pairs = Mapping[str, Sequence[Pair]]


def compare_answers(
    baseline: _Pairs, found: _Pairs, *, baseline_name: str, name: str, seed: int = 0
) -> Comparison:
    """Compare the answers to the same questions.

    Args:
        baseline: Of each task the pairs of the baseline.
        found: Of each task the pairs of the variant.
        baseline_name: Its name.
        name: Of the variant.
        seed: Of the bootstrap.

    Raises:
        InputError: Tasks or questions differ.
        MissingDependencyError: SciPy is not installed.
    """
    matched = _match(baseline, found, f"{baseline_name} and {name}")
    both = [
        (task, one, other)
        for task, pairs in matched.items()
        for first, second in pairs
        for one, other in zip(first, second, strict=True)
    ]
    flips = tuple(_flip(task, one, other) for task, one, other in both if one.is_right is not other.is_right)
    num_gained = sum(flip.is_gain for flip in flips)
    num_lost = len(flips) - num_gained
    p_value = mcnemar_p(num_gained, num_lost)
    num_same_text = sum(one.text == other.text for _, one, other in both)
    official = {task: pairs for task, pairs in matched.items() if task in OFFICIAL_TASKS}
    old, new = score_pairs(dict(baseline)), score_pairs(dict(found))
    return Comparison(
        variant=name,
        baseline=baseline_name,
        verdict="identical answers" if num_same_text == len(both) else _judge(num_gained, num_lost, p_value),
        difference=new.total - old.total,
        interval=_interval(official, seed),
        difference_with_additional=new.total_with_additional - old.total_with_additional,
        interval_with_additional=_interval(matched, seed),
        tasks={
            task: TaskDifference(
                baseline=old.tasks[task].score,
                score=new.tasks[task].score,
                difference=new.tasks[task].score - old.tasks[task].score,
                num_gained=sum(flip.is_gain for flip in flips if flip.task == task),
                num_lost=sum(not flip.is_gain for flip in flips if flip.task == task),
            )
            for task in matched
        },
        num_questions=len(both),
        num_same_text=num_same_text,
        num_same_reading=sum(read_answer(one.text) == read_answer(other.text) for _, one, other in both),
        num_gained=num_gained,
        num_lost=num_lost,
        p_value=p_value,
        flips=flips,
    )


def mcnemar_p(num_gained: int, num_lost: int) -> float:
    """Return the exact two-sided p of McNemar's test; 1 if no question flipped.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    if not num_gained + num_lost:
        return 1.0
    stats: Any = require("scipy.stats", extra="evaluation", purpose="compare answers")
    return float(stats.binomtest(num_gained, num_gained + num_lost, 0.5).pvalue)


def _match(baseline: _Pairs, found: _Pairs, names: str) -> dict[str, list[tuple[Pair, Pair]]]:
    """Bring the pairs about the same image together, the answers within a pair in the order of the baseline's.

    Raises:
        InputError: Tasks or questions differ.
    """
    if set(baseline) != set(found):
        only = in_order(set(baseline) ^ set(found))
        raise InputError(
            f"{names}: the tasks differ, {', '.join(only)} is in one of them only; compare results of the same tasks"
        )
    return {task: _match_task(task, baseline[task], found[task], names) for task in in_order(baseline)}


def _match_task(
    task: str, baseline: Sequence[Pair], found: Sequence[Pair], names: str
) -> list[tuple[Pair, Pair]]:
    others = {_key(pair): pair for pair in found}
    missing = [pair for pair in baseline if _key(pair) not in others]
    if missing or not len(baseline) == len(found) == len(others):
        example = f", for example about {missing[0][0].image}" if missing else ""
        raise InputError(
            f"{names}: the questions of task {task} differ{example}; compare answers to the same questions, asked with the "
            "same template"
        )
    matched = []
    for pair in baseline:
        first, second = others[_key(pair)]
        # Two questions of the same wording keep their order.
        swapped = _question(pair[0]) != _question(first)
        matched.append((pair, (second, first) if swapped else (first, second)))
    return matched


def _key(pair: Pair) -> tuple[tuple[str, str, str], ...]:
    return tuple(sorted(_question(answer) for answer in pair))


def _question(answer: Answer) -> tuple[str, str, str]:
    return answer.image, answer.prompt, answer.truth


def _flip(task: str, one: Answer, other: Answer) -> Flip:
    return Flip(
        task=task,
        image=one.image,
        prompt=one.prompt,
        truth=one.truth,
        baseline_answer=one.text,
        answer=other.text,
        is_gain=other.is_right,
    )


def _judge(num_gained: int, num_lost: int, p_value: float) -> Verdict:
    if p_value >= SIGNIFICANT_P:
        return "no significant change"
    return "significantly better" if num_gained > num_lost else "significantly worse"


def _interval(matched: Mapping[str, Sequence[tuple[Pair, Pair]]], seed: int) -> Interval | None:
    """Return the interval of the difference of totals; `None` without tasks, or if a task has a single image."""
    samples = [
        np.array([_image_score(other) - _image_score(one) for one, other in pairs], np.float64)
        for pairs in matched.values()
    ]
    if not samples or min(map(len, samples)) < 2:
        return None
    method = f"percentile bootstrap over the images of each task, {RESAMPLES} resamples"
    if all(sample.min() == sample.max() for sample in samples):  # nothing to draw from
        value = float(sum(sample[0] for sample in samples))
        return Interval(low=value, high=value, level=CONFIDENCE, method=method)
    stats: Any = require("scipy.stats", extra="evaluation", purpose="compute confidence intervals")
    found = stats.bootstrap(
        tuple(samples),
        _sum_of_means,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, 2_000_000 // sum(map(len, samples))),  # resamples held in memory at once
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(low=float(found.low), high=float(found.high), level=CONFIDENCE, method=method)


def _image_score(pair: Pair) -> float:
    """What an image adds to the score of its task, times the number of images: acc and acc+, each 0 to 100."""
    right = sum(answer.is_right for answer in pair)
    return 100.0 * (right / 2 + (right == 2))


def _sum_of_means(*samples: NDArray[np.float64], axis: int = -1) -> Any:
    return sum(np.mean(sample, axis=axis) for sample in samples)
