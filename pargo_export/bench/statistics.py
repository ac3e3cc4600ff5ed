"""What a series of times says: percentiles, outliers, and how sure its median is.

Percentiles interpolate linearly between the order statistics (NumPy's default). Outliers lie outside of Tukey's fences,
1.5 interquartile ranges beyond the quartiles (Exploratory Data Analysis, 1977); they are counted, never removed.

The interval of the median is a percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13). Runs of one round share what the machine did meanwhile, so they are not independent, and drawing them one by
one gives intervals that are too narrow: where the rounds are known and there are enough of them, whole rounds are
drawn. BCa would correct for skewness, but its acceleration comes from the jackknife, which fails for a median.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pargo_export.bench.records import Interval, Summary
from pargo_export.optional import require

__all__ = ["CONFIDENCE", "MIN_SAMPLES", "RESAMPLES", "median_interval", "summarize"]

CONFIDENCE = 0.95
RESAMPLES = 2000
MIN_SAMPLES = (
    5  # fewer say nothing about how sure a median is; the same number of rounds is needed to draw rounds
)

_Times: TypeAlias = "Sequence[float] | NDArray[np.float64]"
_FENCE = 1.5  # interquartile ranges


def summarize(samples_ms: _Times, *, seed: int, rounds: Sequence[int] | None = None) -> Summary:
    """Summarize times.

    Args:
        samples_ms: One or more times, milliseconds.
        seed: Of the bootstrap.
        rounds: The round of each sample; `None` if they are independent.

    Raises:
        ValueError: There are no samples, or one is not finite.
        MissingDependencyError: SciPy is not installed.
    """
    values = _check(samples_ms)
    p25, median, p75, p90, p95, p99 = (
        float(found) for found in np.percentile(values, (25, 50, 75, 90, 95, 99))
    )
    fence = _FENCE * (p75 - p25)
    return Summary(
        num_samples=len(values),
        min_ms=float(values.min()),
        mean_ms=float(values.mean()),
        median_ms=median,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        max_ms=float(values.max()),
        std_ms=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        median_interval=median_interval(values, seed=seed, rounds=rounds),
        num_outliers=int(np.count_nonzero((values < p25 - fence) | (values > p75 + fence))),
    )


def median_interval(
    samples_ms: _Times, *, seed: int, level: float = CONFIDENCE, rounds: Sequence[int] | None = None
) -> Interval | None:
    """Return a confidence interval of the median, or `None` with fewer than five samples.

    Args:
        samples_ms: Times, milliseconds.
        seed: Of the bootstrap.
        level: Confidence.
        rounds: The round of each sample: with five or more of them rounds are drawn, else samples.

    Raises:
        ValueError: There are no samples, one is not finite, or `rounds` has another length.
        MissingDependencyError: SciPy is not installed.
    """
    values = _check(samples_ms)
    if len(values) < MIN_SAMPLES:
        return None
    groups = _group(values, rounds) if rounds is not None else []
    by_rounds = len(groups) >= MIN_SAMPLES
    method = f"percentile bootstrap over {'rounds' if by_rounds else 'samples'}, {RESAMPLES} resamples"
    if values.min() == values.max():  # nothing to draw from
        return Interval(low=float(values[0]), high=float(values[0]), level=level, method=method)
    stats: Any = require("scipy.stats", extra="bench", purpose="compute confidence intervals")

    def median_of_rounds(drawn: NDArray[np.intp]) -> float:
        return float(np.median(np.concatenate([groups[index] for index in drawn])))

    found = stats.bootstrap(
        (np.arange(len(groups)),) if by_rounds else (values,),
        median_of_rounds if by_rounds else np.median,
        vectorized=not by_rounds,
        n_resamples=RESAMPLES,
        batch=max(1, 2_000_000 // len(values)),  # resamples held in memory at once
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(low=float(found.low), high=float(found.high), level=level, method=method)


def _check(samples_ms: _Times) -> NDArray[np.float64]:
    values = np.asarray(samples_ms, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"samples_ms: found shape {list(values.shape)}, expected at least one time in a row")
    if not np.isfinite(values).all():
        raise ValueError("samples_ms: found a time that is not finite")
    return values


def _group(values: NDArray[np.float64], rounds: Sequence[int]) -> list[NDArray[np.float64]]:
    """Return the samples of each round."""
    indices = np.asarray(rounds)
    if indices.shape != values.shape:
        raise ValueError(f"rounds: found {len(indices)}, expected one for each of {len(values)} samples")
    return [values[indices == index] for index in np.unique(indices)]
