"""The numbers of FP8 E4M3 (arXiv 2209.05433): 4 exponent bits, 3 mantissa bits, no infinity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pargo_calibration.errors import CalibrationError

__all__ = ["FLOAT8_MAX", "float8_magnitudes", "float8_type", "round_to_float8"]

FLOAT8_MAX = 448.0
_SMALLEST_NORMAL_EXPONENT = -6
_MANTISSA_BITS = 3


def float8_magnitudes() -> NDArray[np.float64]:
    """All 127 magnitudes from 0 to 448, ascending."""
    codes = np.arange(127)
    exponents, mantissas = codes >> _MANTISSA_BITS, codes & 7
    subnormal = exponents == 0
    steps = np.exp2(np.maximum(exponents, 1) - 1 + _SMALLEST_NORMAL_EXPONENT - _MANTISSA_BITS)
    return np.where(subnormal, mantissas, 8 + mantissas) * steps


def float8_type() -> Any:
    """The NumPy scalar type of FP8 E4M3.

    Raises:
        CalibrationError: The package that defines it is not installed.
    """
    try:
        import ml_dtypes
    except ImportError as error:
        raise CalibrationError(
            "FP8 weights need the package ml_dtypes, which is not installed; it comes with "
            "pip install 'pargo-export[export]'"
        ) from error
    return ml_dtypes.float8_e4m3fn


def round_to_float8(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to the nearest FP8 number, ties to even, and clip to [-448, 448]; the result is still float32.

    Many times faster than converting to the eight-bit type and back.
    """
    clipped = np.clip(values, np.float32(-FLOAT8_MAX), np.float32(FLOAT8_MAX))
    # Adding and taking away 1.5 * 2**23 steps makes float32 itself round to a whole number of steps, ties to even.
    exponents = np.maximum((clipped.view(np.int32) >> 23 & 0xFF) - 127, np.int32(_SMALLEST_NORMAL_EXPONENT))
    magic = ((exponents + (23 - _MANTISSA_BITS + 127)) << 23 | 1 << 22).view(np.float32)
    rounded: NDArray[np.float32] = (clipped + magic) - magic
    return rounded
