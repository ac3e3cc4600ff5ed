"""Weights: one symmetric scale per output channel, and rounding."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pargo_calibration.errors import CalibrationError
from pargo_calibration.ranges.affine import SMALLEST_SCALE
from pargo_calibration.ranges.float8 import FLOAT8_MAX, float8_type, round_to_float8

__all__ = ["WeightDType", "WeightMethod", "quantize_weight", "weight_scales"]

WeightDType: TypeAlias = Literal["int8", "float8e4m3"]
WeightMethod: TypeAlias = Literal["max", "mse"]

_LARGEST = {"int8": np.float32(127), "float8e4m3": np.float32(FLOAT8_MAX)}

# Thresholds tried by `mse`, relative to the largest magnitude of the channel. Weights have short tails: less
# than half is never best for INT8. FP8 repeats itself every octave until subnormals matter.
_FACTORS = np.linspace(1.0, 0.5, 21, dtype=np.float32)

# Values worked on at a time; the handful of temporaries then fits the second-level cache.
_BLOCK_SIZE = 1 << 15


def weight_scales(
    weight: NDArray[np.float32], axis: int, method: WeightMethod, dtype: WeightDType
) -> NDArray[np.float32]:
    """Return the scale of each channel, `[N]`.

    Args:
        weight: A matrix, `[K, N]` for `axis` 1 or `[N, K]` for `axis` 0.
        axis: Where the output channels lie; scales differ along it.
        method: `max`: nothing is clipped. `mse`: least squared error of rounding and clipping together.
        dtype: What the weights become. A channel of zeros has scale 1.

    Raises:
        CalibrationError: The weight is no finite matrix, or an option is unknown.
    """
    channels = _channels(weight, axis)
    _check_choice("dtype", dtype, get_args(WeightDType))
    _check_choice("method", method, get_args(WeightMethod))
    max_abs = np.maximum(channels.max(axis=1), -channels.min(axis=1))
    scales = max_abs / _LARGEST[dtype]
    if method == "mse":
        step = max(1, _BLOCK_SIZE // channels.shape[1])
        for start in range(0, len(scales), step):
            block = slice(start, start + step)
            scales[block] *= _best_factors(np.ascontiguousarray(channels[block]), scales[block], dtype)
    scales = np.maximum(scales, SMALLEST_SCALE)
    scales[max_abs == 0] = 1
    return scales


def quantize_weight(
    weight: NDArray[np.float32], scales: NDArray[np.float32], axis: int, dtype: WeightDType
) -> NDArray[np.generic]:
    """Divide by the scales, round half to even and clip; the layout of `weight` is kept.

    Returns:
        int8 in [-127, 127], or float8_e4m3fn in [-448, 448].

    Raises:
        CalibrationError: The weight is no finite matrix, there is not one scale per channel, or the type is unknown.
    """
    num_channels = len(_channels(weight, axis))
    _check_choice("dtype", dtype, get_args(WeightDType))
    if scales.shape != (num_channels,) or not (np.isfinite(scales) & (scales > 0)).all():
        raise CalibrationError(
            f"scales have shape {list(scales.shape)}, expected {num_channels} positive numbers, one for each channel "
            f"of axis {axis}; use weight_scales"
        )
    scaled = weight / (scales if axis % 2 else scales[:, None])
    largest = _LARGEST[dtype]
    if dtype == "int8":
        return np.clip(np.rint(scaled), -largest, largest).astype(np.int8)
    rounded: NDArray[np.generic] = np.clip(scaled, -largest, largest).astype(float8_type())
    return rounded


def _channels(weight: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return a view `[N, K]`."""
    if weight.ndim != 2 or not weight.size or weight.dtype != np.float32:
        raise CalibrationError(
            f"weight is {weight.dtype}{list(weight.shape)}, expected a float32 matrix; convert or reshape it"
        )
    if axis not in (-2, -1, 0, 1):
        raise CalibrationError(f"axis is {axis}, expected 0 or 1, the axis of the output channels")
    if not np.isfinite(weight).all():
        raise CalibrationError(
            f"weight {list(weight.shape)} has NaN or infinite values; check the checkpoint, nothing can be mended here"
        )
    return weight.T if axis % 2 else weight


def _check_choice(name: str, found: str, choices: tuple[str, ...]) -> None:
    if found not in choices:
        raise CalibrationError(f"{name} {found!r} is unknown; choose one of {list(choices)}")


def _best_factors(
    channels: NDArray[np.float32], scales: NDArray[np.float32], dtype: WeightDType
) -> NDArray[np.float32]:
    """Return for each channel `[R, K]` the factor on its scale that gives the smallest squared error."""
    largest = _LARGEST[dtype]
    unit = channels / np.maximum(scales, SMALLEST_SCALE)[:, None]
    costs = np.empty((len(_FACTORS), len(channels)), np.float32)
    for cost, factor in zip(costs, _FACTORS, strict=True):
        scaled = unit * (1 / factor)
        if dtype == "int8":
            rounded = np.rint(scaled)
            np.clip(rounded, -largest, largest, out=rounded)
        else:
            rounded = round_to_float8(scaled)
        rounded -= scaled
        cost[:] = np.einsum("rk,rk->r", rounded, rounded) * factor**2
    return _FACTORS[costs.argmin(axis=0)]
