"""What is kept of one activation tensor over all calibration images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self

from pargo_calibration.errors import CalibrationError
from pargo_calibration.histogram import MAX_EXPONENT, MIN_EXPONENT, SignedHistogram

__all__ = ["TensorStatistics"]

_SHAPES = {
    "histogram": SignedHistogram().counts.shape,
    "exponent": (),
    "count": (),
    "num_nonfinite": (),
    "minimum": (),
    "maximum": (),
}


class TensorStatistics:
    """Extremes, a signed histogram and per-channel magnitudes of a tensor `[..., C]`, in one pass.

    The result depends on the values alone, not on their order or on how they were cut into batches, so
    shards computed apart and merged equal one pass bit for bit.

    Attributes:
        count: Finite values seen.
        num_nonfinite: NaN and infinite values seen; they are in nothing else.
        minimum: Smallest finite value; +inf before the first.
        maximum: Largest finite value; -inf before the first.
        channel_max_abs: float32 `[C]`, largest magnitude of each channel (SmoothQuant needs it).
        histogram: Counts of the finite values.
    """

    __slots__ = ("channel_max_abs", "count", "histogram", "maximum", "minimum", "num_nonfinite")

    def __init__(self, num_channels: int) -> None:
        if num_channels < 1:
            raise CalibrationError(f"num_channels is {num_channels}, expected the last axis of the tensor")
        self.count = 0
        self.num_nonfinite = 0
        self.minimum = float("inf")
        self.maximum = float("-inf")
        self.channel_max_abs: NDArray[np.float32] = np.zeros(num_channels, np.float32)
        self.histogram = SignedHistogram()

    @property
    def num_channels(self) -> int:
        """C, the size of the last axis."""
        return self.channel_max_abs.size

    @property
    def max_abs(self) -> float:
        """Largest magnitude of a finite value; 0 before the first."""
        return float(self.channel_max_abs.max())

    def update(self, values: ArrayLike) -> None:
        """Take in values `[..., C]`; they are read as float32 and not kept.

        Raises:
            CalibrationError: The last axis is not C.
        """
        array = np.asarray(values, np.float32)
        if array.ndim < 1 or array.shape[-1] != self.num_channels:
            raise CalibrationError(
                f"values have shape {list(array.shape)}, expected [..., {self.num_channels}]; "
                "keep one TensorStatistics per tensor"
            )
        if array.size:
            self._update_rows(array.reshape(-1, self.num_channels))

    def merge(self, other: TensorStatistics) -> None:
        """Take in everything another shard has seen; `other` stays as it is.

        Raises:
            CalibrationError: The channels differ.
        """
        if other.num_channels != self.num_channels:
            raise CalibrationError(
                f"statistics of {other.num_channels} channels cannot be merged into {self.num_channels}; "
                "merge shards of the same tensor of the same model"
            )
        self.count += other.count
        self.num_nonfinite += other.num_nonfinite
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        np.maximum(self.channel_max_abs, other.channel_max_abs, out=self.channel_max_abs)
        self.histogram.merge(other.histogram)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything as arrays that safetensors can store."""
        return {
            "histogram": self.histogram.counts.copy(),
            "exponent": np.array(self.histogram.exponent, np.int64),
            "count": np.array(self.count, np.int64),
            "num_nonfinite": np.array(self.num_nonfinite, np.int64),
            "minimum": np.array(self.minimum, np.float32),
            "maximum": np.array(self.maximum, np.float32),
            "channel_max_abs": self.channel_max_abs.copy(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Inverse of `to_arrays`.

        Raises:
            CalibrationError: An array is missing, misshapen or contradicts another.
        """
        _check(arrays)
        found = cls(arrays["channel_max_abs"].size)
        found.count = int(arrays["count"].item())
        found.num_nonfinite = int(arrays["num_nonfinite"].item())
        found.minimum = float(arrays["minimum"].item())
        found.maximum = float(arrays["maximum"].item())
        found.channel_max_abs[:] = arrays["channel_max_abs"]
        found.histogram.exponent = int(arrays["exponent"].item())
        found.histogram.counts[:] = arrays["histogram"]
        if found.histogram.counts.sum() != found.count or found.histogram.counts.min() < 0:
            raise CalibrationError(
                f"the histogram holds {found.histogram.counts.sum()} values, expected count = {found.count}; "
                "collect the statistics again"
            )
        return found

    def _update_rows(self, rows: NDArray[np.float32]) -> None:
        """Take in rows `[R, C]`."""
        # NaN spreads through max and min, so two passes that are needed anyway also find non-finite values.
        low, high = rows.min(axis=0), rows.max(axis=0)
        if np.isfinite(low).all() and np.isfinite(high).all():
            values = rows.ravel()
        else:
            finite = np.isfinite(rows)
            self.num_nonfinite += rows.size - int(finite.sum())
            low = rows.min(axis=0, where=finite, initial=np.inf)
            high = rows.max(axis=0, where=finite, initial=-np.inf)
            values = rows[finite]
        if not values.size:
            return
        self.count += values.size
        self.minimum = min(self.minimum, float(low.min()))
        self.maximum = max(self.maximum, float(high.max()))
        # -inf where a channel has no finite value: smaller than anything.
        channel_max_abs = np.maximum(-low, high)
        np.maximum(self.channel_max_abs, channel_max_abs, out=self.channel_max_abs)
        self.histogram.add(values, float(channel_max_abs.max()))


def _check(arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Refuse arrays that `to_arrays` did not make."""
    missing = sorted({*_SHAPES, "channel_max_abs"} - arrays.keys())
    if missing:
        raise CalibrationError(f"statistics lack {missing}, found {sorted(arrays)}; collect them again")
    for name, shape in _SHAPES.items():
        if arrays[name].shape != shape:
            raise CalibrationError(
                f"{name} has shape {list(arrays[name].shape)}, expected {list(shape)}; collect the statistics again"
            )
    if arrays["channel_max_abs"].ndim != 1:
        raise CalibrationError(
            f"channel_max_abs has shape {list(arrays['channel_max_abs'].shape)}, expected [C]; "
            "collect the statistics again"
        )
    if not MIN_EXPONENT <= arrays["exponent"].item() <= MAX_EXPONENT:
        raise CalibrationError(
            f"exponent is {arrays['exponent']}, expected {MIN_EXPONENT} to {MAX_EXPONENT}; collect the statistics again"
        )
