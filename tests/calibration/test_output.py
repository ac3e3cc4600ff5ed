"""Ranges that are best for what the linears make of an activation."""

from __future__ import annotations

import numpy as np
import pytest

from pargo_calibration import CalibrationError, TensorStatistics, compute_range, scale_and_zero_point
from pargo_calibration.ranges.error import Density
from pargo_calibration.ranges.output import ClippingGain

CHANNELS, OUTPUTS = 64, 48
DTYPES = {True: "int8", False: "uint8"}


def sample(outlier_gain):
    """Return values `[T, C]` with one channel 30 times larger, and weights `[C, K]` that read it `outlier_gain` fold."""
    generator = np.random.default_rng(20240828)
    values = generator.standard_normal((4000, CHANNELS)).astype(np.float32)
    weight = generator.standard_normal((CHANNELS, OUTPUTS))
    values[:, 5] *= 30
    weight[5] *= outlier_gain
    return values, weight


def statistics_of(values):
    """Take in values `[T, C]`."""
    statistics = TensorStatistics(values.shape[1])
    statistics.update(values)
    return statistics


def output_error(values, weight, found, *, symmetric):
    """Measure the mean squared error of `values @ weight` with quantized values."""
    scale, zero = scale_and_zero_point(found, DTYPES[symmetric])
    low, high = (-127, 127) if symmetric else (0, 255)
    restored = (np.clip(np.rint(values / scale) + zero, low, high) - zero) * scale
    return np.mean(((restored - values) @ weight) ** 2)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("outlier_gain", [0.0, 0.1, 1.0, 5.0])
def test_no_other_method_errs_less_at_the_output(symmetric, outlier_gain):
    """Whether the outlier channel is hardly read or read most: least error, by the values themselves."""
    values, weight = sample(outlier_gain)
    statistics = statistics_of(values)
    gain = (weight**2).sum(axis=1)
    error = {
        method: output_error(
            values,
            weight,
            compute_range(statistics, method, symmetric=symmetric, channel_gain=gain),
            symmetric=symmetric,
        )
        for method in ("max", "mse", "percentile", "output_mse")
    }
    assert error["output_mse"] <= 1.02 * min(error.values()), error


def test_the_choice_depends_on_who_reads_the_outliers():
    """What is hardly read is clipped, what is read most is not."""
    high = {}
    for outlier_gain in (0.1, 5.0):
        values, weight = sample(outlier_gain)
        gain = (weight**2).sum(axis=1)
        found = compute_range(statistics_of(values), "output_mse", symmetric=True, channel_gain=gain)
        high[outlier_gain] = found.high
        largest = np.abs(values).max()
    assert high[0.1] < 0.5 * largest
    assert high[5.0] > 0.8 * largest


@pytest.mark.parametrize(
    "options", [{"symmetric": True}, {"symmetric": False}, {"symmetric": True, "grid": "fp8"}]
)
@pytest.mark.parametrize("gain", [1.0, 3e-30, 0.0])
def test_like_gains_are_least_squared_error(options, gain):
    """If every channel counts alike, the range is that of `mse`, whatever the size of the gains."""
    statistics = statistics_of(sample(1.0)[0])
    found = compute_range(statistics, "output_mse", channel_gain=np.full(CHANNELS, gain), **options)
    assert found == compute_range(statistics, "mse", **options)


def test_float8_takes_gains_too():
    """Also on the unevenly spaced grid: values that nothing reads do not push the others below the smallest level."""
    values, weight = sample(1e-9)
    values[:, 5] *= 1e5
    statistics = statistics_of(values)
    options = {"symmetric": True, "grid": "fp8", "channel_gain": (weight**2).sum(axis=1)}
    plain, weighed = (compute_range(statistics, method, **options) for method in ("mse", "output_mse"))
    assert weighed.high < 0.2 * plain.high


def test_each_end_counts_its_own_clipping():
    """The extra cost is the clipped squared error at that end times the gain beyond it, less one."""
    generator = np.random.default_rng(3)
    values = generator.uniform(-2, 1, (20_000, 2)).astype(np.float32)
    values[:, 1] *= 4
    statistics = statistics_of(values)
    gain = ClippingGain.of(statistics.channel_max_abs, [1.0, 3.0])
    density = Density.of_values(statistics.histogram)
    above = np.mean(np.maximum(values - 3, 0) ** 2)
    below = np.mean(np.maximum(-5 - values, 0) ** 2)
    assert (
        gain.beyond(3) == gain.beyond(5) == pytest.approx(1.5)
    )  # the second channel alone: 3 of a mean of 2
    assert gain.beyond(9) == 1
    assert gain.extra_above(density, 3.0) == pytest.approx(0.5 * above, rel=0.02)
    assert gain.extra_below(density, -5.0) == pytest.approx(0.5 * below, rel=0.02)


def test_channels_count_by_how_far_they_reach():
    """Beyond 2 the channels of magnitude 3 and 12 reach 1 and 10: weights 1 and 100; the one of magnitude 2 is not hit."""
    gain = ClippingGain.of([12.0, 2.0, 3.0], [4.0, 100.0, 1.0])
    mean = (4 + 100 + 1) / 3
    assert gain.beyond(2.0) == pytest.approx((1 * 1 + 100 * 4) / 101 / mean)
    assert gain.beyond(5.0) == pytest.approx(4 / mean)


@pytest.mark.parametrize(
    ("gain", "message"),
    [
        (None, "channel_gain is nothing, expected 64 finite numbers"),
        (np.ones(63), r"shape \[63\]"),
        (-np.ones(64), "none negative"),
        (np.full(64, np.nan), "finite"),
    ],
)
def test_refuses_gains_that_do_not_fit(gain, message):
    """The message says what was found and what a gain is."""
    statistics = statistics_of(sample(1.0)[0])
    with pytest.raises(CalibrationError, match=message):
        compute_range(statistics, "output_mse", symmetric=True, channel_gain=gain)
