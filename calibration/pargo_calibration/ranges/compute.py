"""The range of an activation tensor, by one of five methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pargo_calibration.errors import CalibrationError
from pargo_calibration.histogram import SignedHistogram
from pargo_calibration.ranges.entropy import entropy_threshold
from pargo_calibration.ranges.output import ClippingGain
from pargo_calibration.ranges.search import best_float8_threshold, best_range, best_threshold
from pargo_calibration.statistics import TensorStatistics

__all__ = ["Range", "RangeMethod", "compute_range"]

RangeMethod = Literal["max", "percentile", "entropy", "mse", "output_mse"]

_DEFAULT_PERCENTILE = 99.99


@dataclass(frozen=True)
class Range:
    """What a tensor's values are taken to be; values outside are clipped.

    Attributes:
        low: At most 0.
        high: At least 0; `low == high == 0` for a tensor of zeros, which no scale describes.
        clipped_fraction: Part of the counted values that lies outside, by the histogram.
    """

    low: float
    high: float
    clipped_fraction: float = 0.0


def compute_range(
    statistics: TensorStatistics,
    method: RangeMethod,
    *,
    symmetric: bool,
    percentile: float | None = None,
    num_levels: int | None = None,
    grid: Literal["integer", "fp8"] = "integer",
    channel_gain: ArrayLike | None = None,
) -> Range:
    """Choose a range that contains 0 and never exceeds the values seen.

    Args:
        statistics: What calibration saw of the tensor; its non-finite values are not in it.
        method: `max`: everything seen. `percentile`: cuts off the extremes. `entropy`: loses least
            information (magnitudes only, also where the range is not symmetric). `mse`: least squared
            error of rounding and clipping together. `output_mse`: least squared error at the outputs of the
            linears that read the tensor.
        symmetric: Whether `low == -high`.
        percentile: Percentage of the values that `percentile` keeps, 99.99 unless given; of what it cuts
            off, one half lies at each end, or all of it in magnitude if symmetric.
        num_levels: Integers available; 255 if symmetric, else 256.
        grid: What the range is for; `fp8` (E4M3) is symmetric and has no `entropy`.
        channel_gain: Sum of the squared weights that read each channel, `[C]`; `output_mse` needs it, the others
            do not look at it.

    Raises:
        CalibrationError: No finite value was seen, or the options contradict each other.
    """
    if not statistics.count:
        raise CalibrationError(
            f"no finite value was seen ({statistics.num_nonfinite} are NaN or infinite), expected at least one; "
            "calibrate on more images, and look for an overflow before this tensor"
        )
    percentile = _DEFAULT_PERCENTILE if percentile is None else percentile
    _check_options(method, percentile, symmetric=symmetric, grid=grid)
    levels = num_levels or (255 if symmetric else 256)
    gain = _clipping_gain(statistics, channel_gain) if method == "output_mse" else None
    low, high = min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)
    if low < high and method != "max":
        if symmetric:
            threshold = _threshold(statistics, method, percentile, levels, grid, gain)
            low, high = -threshold, threshold
        else:
            low, high = _low_and_high(statistics, method, percentile, levels, gain)
    if symmetric:
        high = min(max(-low, high), statistics.max_abs)
        low = -high
    else:
        low, high = min(max(low, statistics.minimum), 0.0), max(min(high, statistics.maximum), 0.0)
    return Range(low, high, _clipped_fraction(statistics, low, high))


def _check_options(method: str, percentile: float, *, symmetric: bool, grid: str) -> None:
    if method not in get_args(RangeMethod):
        raise CalibrationError(
            f"range method {method!r} is unknown; choose one of {list(get_args(RangeMethod))}"
        )
    if not 0 < percentile <= 100:
        raise CalibrationError(f"percentile is {percentile}, expected more than 0 and at most 100")
    if grid == "fp8" and (not symmetric or method == "entropy"):
        raise CalibrationError(
            f"method {method!r} with symmetric={symmetric} has no meaning for fp8, whose levels are symmetric and "
            "unevenly spaced; use a symmetric 'max', 'percentile', 'mse' or 'output_mse'"
        )


def _clipping_gain(statistics: TensorStatistics, channel_gain: ArrayLike | None) -> ClippingGain:
    gain = np.asarray([] if channel_gain is None else channel_gain, np.float64)
    channels = statistics.num_channels
    if gain.shape != (channels,) or not np.isfinite(gain).all() or gain.min() < 0:
        found = "nothing" if channel_gain is None else f"shape {list(gain.shape)}"
        raise CalibrationError(
            f"channel_gain is {found}, expected {channels} finite numbers, none negative: method 'output_mse' weighs "
            "each channel by the sum of the squared weights that read it"
        )
    return ClippingGain.of(statistics.channel_max_abs, gain)


def _threshold(
    statistics: TensorStatistics,
    method: RangeMethod,
    percentile: float,
    num_levels: int,
    grid: str,
    gain: ClippingGain | None = None,
) -> float:
    """Return the largest magnitude that is not clipped."""
    histogram = statistics.histogram
    if method == "percentile":
        return _quantile(histogram.magnitudes, histogram.magnitude_edges, percentile / 100)
    if method == "entropy":
        return entropy_threshold(histogram.magnitudes, histogram.bin_width, (num_levels + 1) // 2)
    if grid == "fp8":
        return best_float8_threshold(histogram, statistics.max_abs, gain)
    return best_threshold(histogram, statistics.max_abs, num_levels, gain)


def _low_and_high(
    statistics: TensorStatistics,
    method: RangeMethod,
    percentile: float,
    num_levels: int,
    gain: ClippingGain | None,
) -> tuple[float, float]:
    """Return both ends of a range that need not be symmetric."""
    histogram = statistics.histogram
    if method == "percentile":
        tail = (100 - percentile) / 200
        return tuple(_quantile(histogram.counts, histogram.edges, part) for part in (tail, 1 - tail))  # type: ignore[return-value]
    if method == "entropy":
        threshold = _threshold(statistics, method, percentile, num_levels, "integer")
        return -threshold, threshold
    return best_range(histogram, statistics.minimum, statistics.maximum, num_levels, gain)


def _quantile(counts: NDArray[np.int64], edges: NDArray[np.float64], part: float) -> float:
    """Return the value below which `part` of the counted values lie; they are evenly spread inside a bin."""
    return float(np.interp(part * counts.sum(), np.concatenate([[0], np.cumsum(counts)]), edges))


def _clipped_fraction(statistics: TensorStatistics, low: float, high: float) -> float:
    histogram: SignedHistogram = statistics.histogram
    below = np.interp([low, high], histogram.edges, np.concatenate([[0], np.cumsum(histogram.counts)]))
    clipped = 0.0
    if low > statistics.minimum:
        clipped += below[0]
    if high < statistics.maximum:
        clipped += statistics.count - below[1]
    return float(clipped / statistics.count)
