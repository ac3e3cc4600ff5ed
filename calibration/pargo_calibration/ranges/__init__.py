"""From statistics to ranges, from ranges to scales."""

from pargo_calibration.ranges.affine import SMALLEST_SCALE, QuantizedDType, scale_and_zero_point
from pargo_calibration.ranges.compute import Range, RangeMethod, compute_range
from pargo_calibration.ranges.weights import WeightDType, WeightMethod, quantize_weight, weight_scales

__all__ = [
    "SMALLEST_SCALE",
    "QuantizedDType",
    "Range",
    "RangeMethod",
    "WeightDType",
    "WeightMethod",
    "compute_range",
    "quantize_weight",
    "scale_and_zero_point",
    "weight_scales",
]
