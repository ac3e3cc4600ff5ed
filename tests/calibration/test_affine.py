"""Scales and zero points are those of ONNX Runtime, and zero stays exactly zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization.quant_utils import compute_scale_zp

from pargo_calibration import SMALLEST_SCALE, CalibrationError, Range, scale_and_zero_point

unhurried = settings(deadline=None)  # other work on the machine is no failure

low = st.floats(-(2.0**100), 0, width=32)
high = st.floats(0, 2.0**100, width=32)


@unhurried
@given(low, high)
def test_agrees_with_onnxruntime(low, high):
    """Both integer types, for every range that is not too small for ONNX Runtime."""
    for dtype, (lowest, highest), symmetric in (("uint8", (0, 255), False), ("int8", (-127, 127), True)):
        scale, zero_point = scale_and_zero_point(Range(low, high), dtype)
        if scale == SMALLEST_SCALE:
            continue
        expected_zero_point, expected_scale = compute_scale_zp(
            np.float32(low), np.float32(high), np.int64(lowest), np.int64(highest), symmetric
        )
        assert scale == pytest.approx(float(expected_scale), rel=1e-6)
        assert abs(zero_point - int(expected_zero_point)) <= (0 if symmetric else 1)


@unhurried
@given(low, high)
def test_the_ends_are_representable(low, high):
    """Both ends lie within half a step of the quantized interval, and 0 is a level."""
    scale, zero_point = scale_and_zero_point(Range(low, high), "uint8")
    assert 0 <= zero_point <= 255
    assert float(scale) * (0 - zero_point) <= low + 0.501 * float(scale)
    assert float(scale) * (255 - zero_point) >= high - 0.501 * float(scale)
    symmetric, none = scale_and_zero_point(Range(low, high), "int8")
    assert none == 0
    assert float(symmetric) * 127 >= max(-low, high) * (1 - 1e-6)


def test_float8_maps_the_largest_to_448():
    """The magnitude decides, whichever end it is."""
    assert scale_and_zero_point(Range(-896.0, 1.0), "float8e4m3") == (np.float32(2), 0)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float8e4m3"])
@pytest.mark.parametrize("end", [0.0, 1e-44])
def test_no_scale_is_too_small_to_divide_by(dtype, end):
    """Zeros and the tiniest ranges get the smallest scale, which is a normal number with a finite inverse."""
    scale, zero_point = scale_and_zero_point(Range(0.0, end), dtype)
    assert scale == SMALLEST_SCALE == np.finfo(np.float32).tiny
    assert zero_point == 0
    assert np.isfinite(1 / scale)
    assert scale.dtype == np.float32


@pytest.mark.parametrize("ends", [(1.0, 2.0), (-2.0, -1.0), (0.0, np.inf), (np.nan, 0.0)])
def test_refuses_ranges_without_zero(ends):
    """A range that compute_range would not return has no zero point."""
    with pytest.raises(CalibrationError, match="not finite or does not contain 0"):
        scale_and_zero_point(Range(*ends), "uint8")


def test_refuses_other_types():
    """The choices are listed."""
    with pytest.raises(
        CalibrationError, match=r"'int4' is unknown; choose one of \['int8', 'float8e4m3', 'uint8'\]"
    ):
        scale_and_zero_point(Range(0.0, 1.0), "int4")
