"""Whether a load was more than the runtime could take.

Above its capacity a queue grows for as long as the load lasts, so the latency says how long that was and nothing about
the runtime. Three signs are looked for: requests that were turned away, a queue that takes long to empty after the last
request, and latencies that rise throughout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pargo_export.optional import require

__all__ = ["KEPT_UP", "find_saturation"]

KEPT_UP = 0.95  # of the offered load must be achieved
_BACKLOG = 3.0  # waiting at the end, in shortest latencies; bunched arrivals alone seldom leave more
_WINDOWS = 10
_MIN_FOR_TREND = 5 * _WINDOWS
_SIGNIFICANT = 0.01


def find_saturation(
    planned_s: NDArray[np.float64], latencies_ms: NDArray[np.float64], *, num_requests: int
) -> str | None:
    """Return why a load was too much, or `None` if it was not.

    Latencies of neighbours in a queue resemble each other, which would make a test of single ones see trends where there
    are none: medians of ten windows are tested (Mann-Kendall, one-sided), and the trend (Theil-Sen) has to amount to the
    shortest latency. At nine tenths of the capacity and above, a queue that starts empty fills for so long that a
    short load may be taken for too much.

    Args:
        planned_s: When the answered requests were planned to arrive, seconds, ascending.
        latencies_ms: From then to their answers, milliseconds.
        num_requests: All requests, with those that were refused or expired.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    answered = len(latencies_ms)
    if answered < KEPT_UP * num_requests:
        return f"{num_requests - answered} of {num_requests} requests were refused or expired"
    shortest_s = float(latencies_ms.min()) / 1e3
    span_s = float(planned_s[-1] - planned_s[0])
    took_s = float((planned_s + latencies_ms / 1e3).max() - planned_s[0])
    waiting_s = took_s - span_s - shortest_s
    if waiting_s <= _BACKLOG * shortest_s:
        return None  # the queue was all but empty at the end
    if span_s + shortest_s < KEPT_UP * took_s:
        return f"after the last request it took {took_s - span_s:.3g} s to empty the queue"
    if answered < _MIN_FOR_TREND:
        return None
    stats: Any = require("scipy.stats", extra="bench", purpose="detect saturation")
    medians = np.array([np.median(window) for window in np.array_split(latencies_ms, _WINDOWS)])
    order = np.arange(_WINDOWS)
    p_value = float(stats.kendalltau(order, medians, alternative="greater").pvalue)
    rise_ms = float(stats.theilslopes(medians, order).slope) * (_WINDOWS - 1)
    if p_value < _SIGNIFICANT and rise_ms > shortest_s * 1e3:
        return f"the latency rose by {rise_ms:.3g} ms while the load went on"
    return None
