"""The range with the smallest expected squared error: of rounding inside it and of clipping outside."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pargo_calibration.histogram import SignedHistogram
from pargo_calibration.ranges.error import Density, float8_antiderivative, integer_antiderivative
from pargo_calibration.ranges.float8 import FLOAT8_MAX
from pargo_calibration.ranges.output import ClippingGain

__all__ = ["best_float8_threshold", "best_range", "best_threshold"]

# Two steps: factors 2^-8 .. 1 in eighths of an octave, then evenly between the winner's neighbours.
_COARSE = np.exp2(-np.arange(65) / 8)
_FINE = 2.0 ** (1 / 8)
_NUM_FINE = 17
_MAX_ROUNDS = 4


def best_threshold(
    histogram: SignedHistogram, max_abs: float, num_levels: int, gain: ClippingGain | None = None
) -> float:
    """Threshold t of the symmetric integer range [-t, t]; with `gain` for the outputs, not for the values."""
    density = Density.of_magnitudes(histogram)
    highest = (num_levels - 1) // 2

    def cost(threshold: float) -> float:
        scale = threshold / highest
        antiderivative = integer_antiderivative(density.edges / scale, -highest, highest)
        extra = gain.extra_above(density, threshold) if gain else 0.0
        return density.mean_squared_error(scale, antiderivative) + extra

    return _search(cost, max_abs)


def best_float8_threshold(
    histogram: SignedHistogram, max_abs: float, gain: ClippingGain | None = None
) -> float:
    """Threshold t that is mapped to 448, the largest FP8 E4M3 number; with `gain` for the outputs."""
    density = Density.of_magnitudes(histogram)

    def cost(threshold: float) -> float:
        scale = threshold / FLOAT8_MAX
        extra = gain.extra_above(density, threshold) if gain else 0.0
        return density.mean_squared_error(scale, float8_antiderivative(density.edges / scale)) + extra

    return _search(cost, max_abs)


def best_range(
    histogram: SignedHistogram,
    minimum: float,
    maximum: float,
    num_levels: int,
    gain: ClippingGain | None = None,
) -> tuple[float, float]:
    """Low <= 0 and high >= 0 of an asymmetric integer range, whose zero point is a whole number.

    With `gain`, the cost is that of the outputs, not of the values.

    Each end in turn, until neither helps: the cost is close to (high - low)^2 plus what clipping costs at
    either end, which is convex, so there is one valley.
    """
    density = Density.of_values(histogram)

    def cost(low: float, high: float) -> float:
        scale = (high - low) / (num_levels - 1)
        lowest = round(low / scale)
        antiderivative = integer_antiderivative(density.edges / scale, lowest, lowest + num_levels - 1)
        extra = 0.0
        if gain and high < maximum:
            extra += gain.extra_above(density, high)
        if gain and low > minimum:
            extra += gain.extra_below(density, low)
        return density.mean_squared_error(scale, antiderivative) + extra

    low, high = min(minimum, 0.0), max(maximum, 0.0)
    lowest_cost = cost(low, high)
    for _ in range(_MAX_ROUNDS):
        if maximum > 0:
            high = _search(partial(cost, low), maximum)
        if minimum < 0:
            low = -_search(lambda end, high=high: cost(-end, high), -minimum)  # type: ignore[misc]
        found = cost(low, high)
        if found >= lowest_cost:
            break
        lowest_cost = found
    return low, high


def _search(cost: Callable[[float], float], largest: float) -> float:
    """Return the cheapest number in (0, largest]; of equals the largest, which clips least."""
    coarse = largest * _COARSE
    best = _cheapest(cost, coarse)
    fine = np.linspace(min(best * _FINE, largest), best / _FINE, _NUM_FINE)
    return _cheapest(cost, np.append(fine, best))


def _cheapest(cost: Callable[[float], float], candidates: NDArray[np.float64]) -> float:
    # One candidate at a time: its arrays stay in the first-level cache, where 65 at once would not.
    return float(min(candidates, key=cost))
