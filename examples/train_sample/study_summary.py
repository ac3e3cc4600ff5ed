"""From the results of single runs to means, intervals and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["interval", "summarise"]

_CONFIDENCE = 0.95
_OURS = "pargo"


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and the 95 % interval of the mean by Student's t; no interval for a single value."""
    mean = float(np.mean(values))
    low = high = None
    if len(values) > 1:
        half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))
        low, high = mean - half, mean + half
    return {"mean": mean, "low": low, "high": high, "values": [float(value) for value in values]}


def summarise(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise runs.

    Args:
        results: Contents of `result.json`, in any order.

    Returns:
        `scores[projector][task]`: interval of the score over the seeds; `differences[projector][task]`: of ParGo's score
        minus that projector's at the same seed, for the seeds that both have.
    """
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for result in results:
        found.setdefault(result["projector"], {})[result["seed"]] = result["tasks"]
    tasks = list(next(iter(next(iter(found.values())).values()))) if found else []
    scores = {
        kind: {task: interval([runs[seed][task]["score"] for seed in sorted(runs)]) for task in tasks}
        for kind, runs in found.items()
    }
    differences = {}
    for kind, runs in found.items():
        common = sorted(set(runs) & set(found.get(_OURS, {})))
        if kind != _OURS and common:
            differences[kind] = {
                task: interval(
                    [found[_OURS][seed][task]["score"] - runs[seed][task]["score"] for seed in common]
                )
                for task in tasks
            }
    return {"tasks": tasks, "scores": scores, "differences": differences}
