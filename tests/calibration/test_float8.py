"""FP8 numbers and rounding agree with ml_dtypes."""

from __future__ import annotations

import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pargo_calibration import CalibrationError
from pargo_calibration.ranges.float8 import float8_magnitudes, float8_type, round_to_float8

unhurried = settings(deadline=None)  # other work on the machine is no failure


def test_magnitudes_are_all_the_codes():
    """The 127 codes without sign and without NaN, in order."""
    codes = np.arange(127, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn)
    assert np.array_equal(float8_magnitudes(), codes.astype(np.float64))


@unhurried
@given(st.lists(st.floats(-448, 448, width=32), min_size=1))
def test_rounds_like_ml_dtypes(values):
    """Rounding in float32 and converting give the same number, subnormal or not."""
    array = np.array(values, np.float32)
    expected = array.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    assert np.array_equal(round_to_float8(array), expected)


def test_ties_round_to_even():
    """Midpoints of all neighbours go to the one with an even mantissa."""
    levels = float8_magnitudes()
    ties = ((levels[1:] + levels[:-1]) / 2).astype(np.float32)
    found = round_to_float8(ties)
    assert np.array_equal(found, ties.astype(ml_dtypes.float8_e4m3fn).astype(np.float32))
    assert np.array_equal(found, levels[np.arange(126) + np.arange(126) % 2])


def test_clips_to_the_largest():
    """There is no infinity to overflow to."""
    assert round_to_float8(np.array([1e30, -449], np.float32)).tolist() == [448, -448]


def test_says_what_is_missing(monkeypatch):
    """Without ml_dtypes the message says what to install."""
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(CalibrationError, match=r"pip install 'pargo-export\[export\]'"):
        float8_type()
