"""Whether the times of a measurement settled, and when: detected, not hoped for.

Two questions, two published methods, both on medians of batches of consecutive runs so that single outliers do not
decide:

- Where does the warm-up end? MSER-5 (White, "An effective truncation heuristic for bias reduction in simulation output",
  Simulation 69(6), 1997): cut where the standard error of what remains is smallest. If that would cut more than half,
  there is no steady part (the rule of Hoad, Robinson and Davies, "Automating warm-up length estimation", WSC 2008).
  With few or noisy runs the cut is often chance, so it counts only if what it cuts off differs from the rest: by the
  Mann-Whitney test, and by more than 2 % of the median.
- Does it drift afterwards? The Mann-Kendall test (Mann, Econometrica 13, 1945). A long series proves drifts that matter
  to nobody, and runs close to each other in time resemble each other, so a trend counts only if the medians of the
  first and the last third also differ by more than 2 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pargo_export.bench.records import Steadiness
from pargo_export.optional import require

__all__ = ["MIN_SAMPLES", "assess"]

MIN_SAMPLES = 10  # below, no trend but a very steep one would be found
_BATCH = 5  # runs in a batch, as in MSER-5
_MIN_BATCHES = (
    10  # with fewer, single runs are compared instead of batches, and the cut is sought in running medians
)
_RUNNING = 3
_LARGEST_CUT = 0.75  # of the series; what a shorter rest says is chance
_SIGNIFICANT = 0.01
_DRIFT = 0.02


def assess(samples_ms: Sequence[float] | NDArray[np.float64]) -> Steadiness:
    """Judge a series of times, in the order in which they were taken.

    Args:
        samples_ms: One or more times, milliseconds.

    Raises:
        ValueError: There are no samples.
        MissingDependencyError: SciPy is not installed.
    """
    values = np.asarray(samples_ms, np.float64)
    if not values.size:
        raise ValueError("samples_ms: found none, expected at least one time")
    drift = _drift(values)
    if len(values) < MIN_SAMPLES:
        reason = f"{len(values)} runs are too few to tell, at least {MIN_SAMPLES} are needed"
        return Steadiness(is_steady=False, first_steady=None, drift=drift, reason=reason)
    size = _BATCH if len(values) >= _BATCH * _MIN_BATCHES else 1
    batches = np.median(values[: len(values) // size * size].reshape(-1, size), axis=1)
    cut = _find_cut(batches, size)
    if not _differ(batches[:cut], batches[cut:]):
        cut = 0
    if cut > len(batches) / 2:
        reason = f"no steady part: the times settled after run {cut * size} of {len(values)} at the earliest"
        return Steadiness(is_steady=False, first_steady=None, drift=drift, reason=reason)
    rest = values[cut * size :]
    trend, remaining = _trend(batches[cut:]), _drift(rest)
    if trend < _SIGNIFICANT and abs(remaining - 1) > _DRIFT:
        reason = (
            f"the times keep {'rising' if remaining > 1 else 'falling'}: last third {100 * (remaining - 1):+.1f} % beside "
            f"the first (Mann-Kendall p = {trend:.1g})"
        )
        return Steadiness(is_steady=False, first_steady=None, drift=drift, reason=reason)
    begin = "from the first run on" if cut == 0 else f"from run {cut * size} on"
    reason = f"steady {begin} (MSER-5), without a trend of more than {100 * _DRIFT:.0f} % (Mann-Kendall)"
    return Steadiness(is_steady=True, first_steady=cut * size, drift=drift, reason=reason)


def _find_cut(batches: NDArray[np.float64], size: int) -> int:
    """Return the number of leading batches without which the standard error of the mean is smallest."""
    if size == 1:
        batches = np.median(np.lib.stride_tricks.sliding_window_view(batches, _RUNNING), axis=1)
    cuts = np.arange(int(len(batches) * _LARGEST_CUT) + 1)
    return int(np.argmin([batches[cut:].var() / (len(batches) - cut) for cut in cuts]))


def _differ(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    """Whether the times before a cut are others than those after it."""
    if not len(before) or abs(float(np.median(before)) - float(np.median(after))) <= _DRIFT * float(
        np.median(after)
    ):
        return False
    return float(_stats().mannwhitneyu(before, after).pvalue) < _SIGNIFICANT


def _trend(batches: NDArray[np.float64]) -> float:
    """Return the p-value of the Mann-Kendall test: Kendall's tau between the times and their order."""
    if batches.min() == batches.max():
        return 1.0
    return float(_stats().kendalltau(np.arange(len(batches)), batches).pvalue)


def _stats() -> Any:
    return require("scipy.stats", extra="bench", purpose="detect whether times settled")


def _drift(values: NDArray[np.float64]) -> float:
    """Return the median of the last third by that of the first."""
    third = max(1, len(values) // 3)
    first, last = float(np.median(values[:third])), float(np.median(values[-third:]))
    return last / first if first > 0 else 1.0
