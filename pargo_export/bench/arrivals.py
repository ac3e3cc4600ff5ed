"""When requests arrive: planned before the load begins, so that no answer can delay them.

`"poisson"`: many independent users; the gaps are exponential, so requests come in bunches. `"fixed"`: a camera; all
gaps are equal, and a queue grows only if the model is too slow.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pargo_export.errors import ConfigError

__all__ = ["MAX_ARRIVALS", "Arrivals", "plan_arrivals"]

Arrivals: TypeAlias = Literal["poisson", "fixed"]

MAX_ARRIVALS = 1_000_000  # each costs a future and a sample; more is a mistake in the units


def plan_arrivals(arrivals: Arrivals, *, rate: float, duration_s: float, seed: int) -> NDArray[np.float64]:
    """Return the planned times of arrival, seconds from the begin, ascending, all below `duration_s`; float64 `[n]`.

    The first request arrives at 0, so that there is at least one. One seed gives the same pattern at every rate, only
    faster or slower: two rates then differ by the rate alone, not by the luck of their gaps (common random numbers).

    Args:
        arrivals: `"poisson"` or `"fixed"`.
        rate: Requests in a second, on average.
        duration_s: Seconds in which requests arrive.
        seed: Of the gaps; unused for `"fixed"`.

    Raises:
        ConfigError: `arrivals` is unknown, `rate` or `duration_s` is not positive and finite, or they make more than a
            million requests.
    """
    for name, value in (("rate", rate), ("duration_s", duration_s)):
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name}: found {value}, expected a positive number")
    if rate * duration_s > MAX_ARRIVALS:
        raise ConfigError(
            f"rate {rate:g}/s for {duration_s:g} s: found {rate * duration_s:.3g} requests, expected at most "
            f"{MAX_ARRIVALS}; make the load shorter"
        )
    if arrivals == "fixed":
        times = np.arange(math.ceil(rate * duration_s)) / rate
    elif arrivals == "poisson":
        expected = rate * duration_s
        # So many that the last lies behind the end but for one case in ten thousand millions.
        gaps = np.random.default_rng(seed).standard_exponential(int(expected + 7 * math.sqrt(expected) + 30))
        times = np.concatenate(([0.0], np.cumsum(gaps) / rate))
    else:
        raise ConfigError(f"arrivals: found {arrivals!r}, expected 'poisson' or 'fixed'")
    return np.asarray(times[times < duration_s], np.float64)
