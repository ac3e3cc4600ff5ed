"""Weights: scales per channel, rounding, and what `mse` gains."""

from __future__ import annotations

import time

import ml_dtypes
import numpy as np
import pytest

from pargo_calibration import SMALLEST_SCALE, CalibrationError, quantize_weight, weight_scales


@pytest.fixture
def weight():
    """A matrix `[K, N]` = [64, 5] with heavy tails, a channel of zeros and one of the tiniest numbers."""
    found = np.random.default_rng(0).standard_t(4, (64, 5)).astype(np.float32)
    found[:, 3] = 0
    found[:, 4] = 1e-44
    return found


def test_max_maps_the_largest_of_a_channel_to_127(weight):
    """Each channel has its own scale; zeros have 1, the tiniest numbers the smallest scale."""
    scales = weight_scales(weight, 1, "max", "int8")
    assert scales.dtype == np.float32
    assert np.array_equal(scales[:3], np.abs(weight).max(axis=0)[:3] / np.float32(127))
    assert scales[3:].tolist() == [1, SMALLEST_SCALE]
    quantized = quantize_weight(weight, scales, 1, "int8")
    assert np.abs(quantized).max(axis=0).tolist() == [127, 127, 127, 0, 0]


@pytest.mark.parametrize("dtype", ["int8", "float8e4m3"])
@pytest.mark.parametrize("method", ["max", "mse"])
def test_the_axis_is_where_the_channels_lie(weight, dtype, method):
    """The transpose along the other axis is the same weight."""
    scales = weight_scales(weight, 1, method, dtype)
    turned = np.ascontiguousarray(weight.T)
    for axis in (0, -2):
        assert np.array_equal(weight_scales(turned, axis, method, dtype), scales)
        assert np.array_equal(
            quantize_weight(turned, scales, axis, dtype).T, quantize_weight(weight, scales, -1, dtype)
        )


def error(weight, scales, dtype):
    """Measure the squared error of each channel."""
    return ((quantize_weight(weight, scales, 1, dtype).astype(np.float32) * scales - weight) ** 2).sum(axis=0)


@pytest.mark.parametrize("dtype", ["int8", "float8e4m3"])
def test_mse_is_the_best_of_all_factors(dtype):
    """For each channel apart, no threshold between half and all of the largest magnitude costs less."""
    weight = np.random.default_rng(1).standard_t(4, (20_000, 7)).astype(np.float32)
    largest = weight_scales(weight, 1, "max", dtype)
    found = error(weight, weight_scales(weight, 1, "mse", dtype), dtype)
    tried = np.min(
        [error(weight, largest * np.float32(factor), dtype) for factor in np.linspace(1, 0.5, 21)], axis=0
    )
    assert (found <= tried * (1 + 1e-3)).all()
    assert found.sum() < 0.999 * error(weight, largest, dtype).sum()


def test_rounds_half_to_even_and_clips():
    """As ONNX QuantizeLinear rounds; -128 is never used."""
    weight = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 300, -300]], np.float32)
    quantized = quantize_weight(weight, np.ones(1, np.float32), 0, "int8")
    assert quantized.dtype == np.int8
    assert quantized.tolist() == [[0, 2, 2, 0, -2, 126, 127, -127]]


def test_float8_clips_instead_of_overflowing():
    """Beyond 448 the type has only NaN."""
    weight = np.array([[1000, -1000, 17, 0.3]], np.float32)
    quantized = quantize_weight(weight, np.ones(1, np.float32), 0, "float8e4m3")
    assert quantized.dtype == ml_dtypes.float8_e4m3fn
    assert quantized.astype(np.float32).tolist() == [[448, -448, 16, 0.3125]]


def test_a_matrix_of_full_size_is_quick():
    """The largest weight of the tower takes well under the five seconds that this allows a slow machine."""
    weight = np.random.default_rng(0).standard_normal((1024, 5460)).astype(np.float32)
    start = time.process_time()
    weight_scales(weight, 1, "mse", "int8")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": np.zeros(3, np.float32)}, r"float32\[3\], expected a float32 matrix"),
        ({"weight": np.zeros((0, 3), np.float32)}, r"float32\[0, 3\], expected a float32 matrix"),
        ({"weight": np.zeros((2, 3))}, r"float64\[2, 3\], expected a float32 matrix"),
        ({"weight": np.full((2, 3), np.nan, np.float32)}, "has NaN or infinite values"),
        ({"axis": 2}, "axis is 2, expected 0 or 1"),
        ({"dtype": "uint8"}, r"dtype 'uint8' is unknown; choose one of \['int8', 'float8e4m3'\]"),
        ({"method": "entropy"}, r"method 'entropy' is unknown; choose one of \['max', 'mse'\]"),
    ],
)
def test_refuses_what_is_no_weight(weight, change, message):
    """Each message names what was found and what was expected."""
    with pytest.raises(CalibrationError, match=message):
        weight_scales(**{"weight": weight, "axis": 1, "method": "max", "dtype": "int8", **change})


@pytest.mark.parametrize("scales", [np.ones(64), np.ones((5, 1)), np.zeros(5), np.full(5, np.nan)])
def test_refuses_scales_that_do_not_belong(weight, scales):
    """One positive scale per channel of that axis, nothing else."""
    with pytest.raises(CalibrationError, match="expected 5 positive numbers, one for each channel of axis 1"):
        quantize_weight(weight, scales.astype(np.float32), 1, "int8")
