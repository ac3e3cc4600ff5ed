"""Ranges contain zero, keep to what was seen, and follow their method."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnxruntime.quantization.calibrate import HistogramCollector

from pargo_calibration import CalibrationError, Range, TensorStatistics, compute_range
from pargo_calibration.ranges.entropy import entropy_threshold

unhurried = settings(deadline=None)  # other work on the machine is no failure

METHODS = ["max", "percentile", "entropy", "mse"]
arrays = hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-(2.0**100), 2.0**100, width=32))


def statistics_of(values):
    """Take in all values."""
    statistics = TensorStatistics(1)
    statistics.update(np.asarray(values, np.float32)[:, None])
    return statistics


@unhurried
@given(arrays, st.sampled_from(METHODS), st.booleans())
def test_contains_zero_and_keeps_to_what_was_seen(values, method, symmetric):
    """Every range is finite and usable, whatever the values."""
    found = compute_range(statistics_of(values), method, symmetric=symmetric, percentile=90)
    assert found.low <= 0 <= found.high
    assert 0 <= found.clipped_fraction <= 1
    largest = np.abs(values).max()
    if symmetric:
        assert found.low == -found.high
        assert found.high <= largest
    else:
        assert min(values.min(), 0) <= found.low
        assert found.high <= max(values.max(), 0)
    assert (found.low < found.high) == (largest > 0)


@unhurried
@given(arrays, st.sampled_from(METHODS), st.booleans(), st.integers(-20, 20))
def test_scaling_by_a_power_of_two_scales_the_range(values, method, symmetric, exponent):
    """No method depends on the unit that the values are measured in."""
    assume(np.abs(values).max() == 0 or np.abs(values[values != 0]).min() > 1e-20)
    found = compute_range(statistics_of(values), method, symmetric=symmetric, percentile=90)
    scaled = compute_range(
        statistics_of(np.ldexp(values, exponent)), method, symmetric=symmetric, percentile=90
    )
    assert scaled == Range(
        np.ldexp(found.low, exponent), np.ldexp(found.high, exponent), found.clipped_fraction
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_have_no_range(method, symmetric):
    """A tensor of zeros has the empty range; what to do with it is the caller's decision."""
    assert compute_range(statistics_of([0.0, -0.0]), method, symmetric=symmetric) == Range(0.0, 0.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [3.0, -0.7, 1e-41])
def test_a_constant_is_nearly_kept(method, value):
    """One value over and over, of either sign and of any size, stays inside its range or at its edge."""
    found = compute_range(statistics_of([value] * 100), method, symmetric=False)
    assert found.low + found.high == pytest.approx(value, rel=0.01)
    assert found.low == 0 or found.high == 0


def test_max_is_what_was_seen():
    """Nothing is clipped, and the symmetric range has the larger magnitude."""
    statistics = statistics_of([-3.0, 1.0, 2.0])
    assert compute_range(statistics, "max", symmetric=False) == Range(-3.0, 2.0)
    assert compute_range(statistics, "max", symmetric=True) == Range(-3.0, 3.0)
    assert compute_range(statistics_of([1.0, 2.0]), "max", symmetric=False) == Range(0.0, 2.0)
    assert compute_range(statistics_of([-2.0, -1.0]), "max", symmetric=False) == Range(-2.0, 0.0)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 100.0])
def test_percentile_agrees_with_numpy(percentile):
    """Both tails together, or the tail of the magnitudes, hold what the percentile leaves over."""
    values = np.random.default_rng(0).gamma(2, 1, 50_000).astype(np.float32) - 1
    statistics = statistics_of(values)
    both = compute_range(statistics, "percentile", symmetric=False, percentile=percentile)
    tail = (100 - percentile) / 2
    assert [both.low, both.high] == pytest.approx(np.percentile(values, [tail, 100 - tail]), rel=0.01)
    one = compute_range(statistics, "percentile", symmetric=True, percentile=percentile)
    assert one.high == pytest.approx(np.percentile(np.abs(values), percentile), rel=0.01)
    for found in (both, one):
        assert found.clipped_fraction == pytest.approx(1 - percentile / 100, abs=1e-6)


def test_one_in_ten_thousand_is_cut_off_by_default():
    """The default percentile, also for `None`, which is what a recipe of another method holds."""
    statistics = statistics_of(np.random.default_rng(0).standard_normal(50_000))
    found = compute_range(statistics, "percentile", symmetric=True)
    assert found.clipped_fraction == pytest.approx(1e-4)
    assert compute_range(statistics, "percentile", symmetric=True, percentile=None) == found


def test_percentile_agrees_with_onnxruntime():
    """ONNX Runtime's percentile calibrator cuts at the same places, within a bin of either."""
    values = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    for symmetric in (False, True):
        collector = HistogramCollector("percentile", symmetric, 2048, 128, 99.0, "same")
        collector.collect({"x": [values]})
        low, high = collector.compute_collection_result()["x"][:2]
        found = compute_range(statistics_of(values), "percentile", symmetric=symmetric, percentile=99.0)
        assert [found.low, found.high] == pytest.approx([float(low), float(high)], abs=0.01)


def test_entropy_has_one_level_per_magnitude():
    """Of 255 integers, 128 are magnitudes; the threshold is that of the magnitudes, at either end."""
    statistics = statistics_of(np.append(np.random.default_rng(0).standard_normal(50_000), [20, -20]))
    histogram = statistics.histogram
    expected = entropy_threshold(histogram.magnitudes, histogram.bin_width, 128)
    assert expected < statistics.max_abs
    for symmetric in (True, False):
        found = compute_range(statistics, "entropy", symmetric=symmetric)
        assert (found.low, found.high) == (-expected, expected)


def test_clipped_fraction_is_what_lies_outside():
    """The reported fraction is that of the values beyond either end."""
    values = np.append(np.random.default_rng(0).standard_normal(10_000), [50, -60]).astype(np.float32)
    for method in ("entropy", "mse"):
        found = compute_range(statistics_of(values), method, symmetric=False)
        outside = np.mean((values < found.low) | (values > found.high))
        assert outside > 0
        assert found.clipped_fraction == pytest.approx(outside, abs=5e-3)


def test_mse_uses_the_levels_there_are():
    """Fewer levels are worth more clipping."""
    statistics = statistics_of(np.random.default_rng(0).standard_normal(50_000))
    few, many = (
        compute_range(statistics, "mse", symmetric=True, num_levels=levels).high for levels in (15, 255)
    )
    assert few < 0.8 * many
    lopsided = statistics_of(np.random.default_rng(0).gamma(2, 1, 50_000))
    for symmetric, levels in ((True, 255), (False, 256)):
        found, same, other = (
            compute_range(lopsided, "mse", symmetric=symmetric, num_levels=number)
            for number in (None, levels, 253)
        )
        assert found == same != other


def test_float8_needs_less_clipping_than_int8():
    """FP8 levels reach far with little loss near zero."""
    statistics = statistics_of(np.append(np.random.default_rng(0).standard_normal(50_000), 40.0))
    int8 = compute_range(statistics, "mse", symmetric=True)
    fp8 = compute_range(statistics, "mse", symmetric=True, grid="fp8")
    assert fp8.high > 1.1 * int8.high


def test_no_finite_value_is_an_error():
    """Nothing seen, or only NaN, gives no range; the message says which."""
    for values, found in (([], 0), ([np.nan, np.inf], 2)):
        with pytest.raises(CalibrationError, match=rf"no finite value was seen \({found} are NaN"):
            compute_range(statistics_of(values), "max", symmetric=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "median"}, "'median' is unknown; choose one of"),
        ({"percentile": 0}, "percentile is 0"),
        ({"percentile": 100.5}, "percentile is 100.5"),
        ({"method": "entropy", "grid": "fp8"}, "'entropy' with symmetric=True has no meaning for fp8"),
        ({"symmetric": False, "grid": "fp8"}, "'max' with symmetric=False has no meaning for fp8"),
    ],
)
def test_refuses_options_without_meaning(options, message):
    """Options that contradict each other are refused by name."""
    with pytest.raises(CalibrationError, match=message):
        compute_range(statistics_of([1.0]), **{"method": "max", "symmetric": True, **options})
