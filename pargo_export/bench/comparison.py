"""Two subjects that were measured in turns: how long one takes beside the other.

In each round both work within seconds of each other, A B A B. What slows the machine down for longer than that slows
both, and cancels in the ratio of the two medians of the round; two runs on different days have no such luck (see
`regression`). Over the rounds the *median* of the ratios counts, not their geometric mean: a round in which
something else woke up during one of the two is common on a machine that is not alone, moves a mean, and hardly a median;
where nothing disturbs, the interval of the median is a tenth wider.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from pargo_export.bench.records import Comparison, Interval, Measurement
from pargo_export.bench.round_statistics import interval_of_median, log_round_medians

__all__ = ["compare_rounds"]


def compare_rounds(baseline: Measurement, candidate: Measurement) -> Comparison | None:
    """Return how long the candidate takes beside the baseline, or `None` if fewer than two rounds say so.

    Only rounds in which both were measured count. A round whose median is 0 ms, as of a copy that is none, does not.

    Raises:
        ValueError: The two differ in batch, concurrency, boundary or clock.
        MissingDependencyError: SciPy is not installed.
    """
    for name in ("batch", "concurrency", "boundary", "clock"):
        one, other = getattr(baseline, name), getattr(candidate, name)
        if one != other:
            raise ValueError(
                f"{name}: found {other!r} of {candidate.subject} and {one!r} of {baseline.subject}"
            )
    before, after = log_round_medians(baseline), log_round_medians(candidate)
    shared = sorted(before.keys() & after.keys())
    if len(shared) < 2:
        return None
    ratio, interval = interval_of_median(np.array([after[index] - before[index] for index in shared]))
    return Comparison(
        baseline=baseline.subject,
        candidate=candidate.subject,
        batch=candidate.batch,
        concurrency=candidate.concurrency,
        boundary=candidate.boundary,
        ratio=ratio,
        interval=interval,
        num_rounds=len(shared),
        verdict=_judge(interval),
    )


def _judge(interval: Interval) -> Literal["faster", "slower", "no difference shown"]:
    """Say what an interval of a ratio of times shows."""
    if interval.low <= 1 <= interval.high:
        return "no difference shown"
    return "faster" if interval.high < 1 else "slower"
