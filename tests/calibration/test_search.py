"""The search finds what trying everything finds."""

from __future__ import annotations

import numpy as np
import pytest

from pargo_calibration import Range, TensorStatistics, scale_and_zero_point
from pargo_calibration.ranges.float8 import round_to_float8
from pargo_calibration.ranges.search import best_float8_threshold, best_range, best_threshold

SAMPLES = {
    "normal": lambda generator: generator.standard_normal(20_000),
    "heavy tails": lambda generator: generator.standard_t(2.5, 20_000),
    "one-sided": lambda generator: np.maximum(generator.standard_normal(20_000), -0.1),
    "far from zero": lambda generator: generator.normal(30, 1, 20_000),
    "one outlier": lambda generator: np.append(generator.standard_normal(20_000), 60.0),
}


@pytest.fixture(params=SAMPLES)
def values(request):
    """Samples of different shapes."""
    return SAMPLES[request.param](np.random.default_rng(1)).astype(np.float32)


def statistics_of(values):
    """Take in all values."""
    statistics = TensorStatistics(1)
    statistics.update(values[:, None])
    return statistics


def symmetric_error(values, threshold):
    """Measure what int8 with this threshold costs."""
    scale = threshold / 127
    return np.mean((np.clip(np.rint(values / scale), -127, 127) * scale - values) ** 2)


def asymmetric_error(values, low, high):
    """Measure what uint8 with this range costs, zero point included."""
    scale, zero_point = scale_and_zero_point(Range(low, high), "uint8")
    quantized = np.clip(np.rint(values / scale) + zero_point, 0, 255)
    return np.mean(((quantized - zero_point) * scale - values) ** 2)


def float8_error(values, threshold):
    """Measure what FP8 with this threshold costs."""
    scale = np.float32(threshold / 448)
    return np.mean((round_to_float8(values / scale) * scale - values) ** 2)


def test_symmetric_threshold(values):
    """No other threshold costs noticeably less."""
    statistics = statistics_of(values)
    found = best_threshold(statistics.histogram, statistics.max_abs, 255)
    tried = min(symmetric_error(values, statistics.max_abs * factor) for factor in np.geomspace(0.01, 1, 300))
    assert symmetric_error(values, found) <= tried * 1.03


def test_asymmetric_range(values):
    """No other pair of ends on a fine grid costs noticeably less."""
    statistics = statistics_of(values)
    found = best_range(statistics.histogram, statistics.minimum, statistics.maximum, 256)
    factors = np.geomspace(0.05, 1, 40)
    lows = np.minimum(statistics.minimum, 0) * (factors if statistics.minimum < 0 else factors[:1])
    tried = min(
        asymmetric_error(values, low, high) for low in lows for high in max(statistics.maximum, 0) * factors
    )
    assert asymmetric_error(values, *found) <= tried * 1.03


def test_float8_threshold(values):
    """No other threshold costs noticeably less on the FP8 grid."""
    statistics = statistics_of(values)
    found = best_float8_threshold(statistics.histogram, statistics.max_abs)
    tried = min(float8_error(values, statistics.max_abs * factor) for factor in np.geomspace(0.01, 1, 300))
    assert float8_error(values, found) <= tried * 1.03


def test_clips_where_it_pays_and_only_there():
    """An outlier is given up for the bulk; evenly spread values are not clipped at all."""
    generator = np.random.default_rng(2)
    bulk = generator.uniform(-1, 1, 50_000).astype(np.float32)
    even = statistics_of(bulk)
    assert best_threshold(even.histogram, even.max_abs, 255) == pytest.approx(even.max_abs, rel=0.01)
    outlier = statistics_of(np.append(bulk, np.float32(20)))
    assert best_threshold(outlier.histogram, outlier.max_abs, 255) < 18


@pytest.mark.parametrize("sign", [1, -1])
def test_each_end_is_searched(sign):
    """One end gives up its outlier while the other, with a hard edge, stays where it is."""
    bulk = np.random.default_rng(3).uniform(-1, 0.1, 200_000)
    statistics = statistics_of((sign * np.append(bulk, 20.0)).astype(np.float32))
    ends = best_range(statistics.histogram, statistics.minimum, statistics.maximum, 256)
    edge, given_up = sorted(np.abs(ends))
    assert edge == pytest.approx(1, abs=0.1)
    assert 13 < given_up < 17
    assert ends[0] < 0 < ends[1]
