"""From a range to the numbers of QuantizeLinear."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pargo_calibration.errors import CalibrationError
from pargo_calibration.ranges.compute import Range
from pargo_calibration.ranges.float8 import FLOAT8_MAX

__all__ = ["SMALLEST_SCALE", "QuantizedDType", "scale_and_zero_point"]

QuantizedDType = Literal["int8", "uint8", "float8e4m3"]

# The smallest normal float32: backends flush anything smaller to zero and then divide by it.
SMALLEST_SCALE = np.float32(2.0**-126)

_LARGEST = {"int8": 127.0, "float8e4m3": FLOAT8_MAX}


def scale_and_zero_point(value_range: Range, dtype: QuantizedDType) -> tuple[np.float32, int]:
    """Return the scale and the zero point that map a range onto a quantized type.

    `int8` uses [-127, 127] and `float8e4m3` [-448, 448], both with zero point 0: of an asymmetric range the
    larger magnitude counts. `uint8` uses 0..255 with a whole zero point, so that 0 stays exactly 0. A scale
    below `SMALLEST_SCALE`, as for a tensor of zeros, becomes `SMALLEST_SCALE`.

    Raises:
        CalibrationError: The range is not finite or does not contain 0, or the type is unknown.
    """
    low, high = value_range.low, value_range.high
    if not (np.isfinite([low, high]).all() and low <= 0 <= high):
        raise CalibrationError(
            f"range [{low}, {high}] is not finite or does not contain 0; use compute_range"
        )
    if dtype == "uint8":
        scale = max(np.float32((high - low) / 255), SMALLEST_SCALE)
        return scale, int(np.clip(np.rint(-low / float(scale)), 0, 255))
    if dtype not in _LARGEST:
        raise CalibrationError(f"dtype {dtype!r} is unknown; choose one of {[*_LARGEST, 'uint8']}")
    return max(np.float32(max(-low, high) / _LARGEST[dtype]), SMALLEST_SCALE), 0
