"""Records of what samples say."""

from __future__ import annotations

from pargo_export.config import Record

__all__ = ["Interval", "Steadiness", "Summary"]


class Interval(Record):
    """A confidence interval.

    Attributes:
        low: Lower end.
        high: Upper end.
        level: Confidence, for example 0.95.
        method: How it was computed, for example `"BCa bootstrap, 2000 resamples"`.
    """

    low: float
    high: float
    level: float
    method: str


class Summary(Record):
    """Times of some runs, milliseconds.

    Attributes:
        num_samples: Runs.
        min_ms: Fastest.
        mean_ms: Mean.
        median_ms: Median.
        p90_ms: 90th percentile.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile; below 100 runs little more than the slowest.
        max_ms: Slowest.
        std_ms: Standard deviation of the sample.
        median_interval: Confidence interval of the median; `None` with fewer than five runs.
        num_outliers: Runs outside of Tukey's fences (1.5 interquartile ranges); they are counted everywhere.
    """

    num_samples: int
    min_ms: float
    mean_ms: float
    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    std_ms: float
    median_interval: Interval | None
    num_outliers: int


class Steadiness(Record):
    """Whether the times of a measurement settled.

    Attributes:
        is_steady: Whether they did.
        first_steady: Index of the first sample of the steady part; `None` if there is none.
        drift: Median of the last third by that of the first third.
        reason: What was found, for people.
    """

    is_steady: bool
    first_steady: int | None
    drift: float
    reason: str
