"""The range of least expected squared error at the outputs of the linears that read an activation.

With errors e_j of the channels that do not depend on each other, the outputs y_k = sum_j x_j W_jk err by

    sum_k E (sum_j e_j W_jk)^2 = sum_j g_j E e_j^2,    g_j = sum_k W_jk^2

so a channel counts by its gain g_j. Where the gains are alike this is the error of the values. Where they are not, as
behind smoothing, which multiplies into the weights what it divides out of an activation, counting every value alike
clips the few channels that matter most.

A histogram does not say which channel a value is from, but that is not needed: rounding errs alike in every
channel, and only channels that reach beyond an end t can be clipped there. With the mean gain set to 1,

    cost = error of the values + sum over the ends (G(t) - 1) clipped(t)
    clipped(t) = E max(x - t, 0)^2,    G(t) = sum_j g_j r_j^2 / sum_j r_j^2,    r_j = max(max |x_j| - t, 0)

G(t) is the gain of the channels beyond t, each counted by the largest error that clipping makes in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self

from pargo_calibration.ranges.error import Density

__all__ = ["ClippingGain"]


@dataclass(frozen=True, eq=False)
class ClippingGain:
    """What clipping costs beyond its squared error, because of the channels that it hits.

    Attributes:
        largest: Largest magnitude of each channel, ascending, `[C]`.
        gain: Gain of each channel in that order; the mean is 1, `[C]`.
    """

    largest: NDArray[np.float64]
    gain: NDArray[np.float64]

    @classmethod
    def of(cls, channel_max_abs: ArrayLike, channel_gain: ArrayLike) -> Self:
        """Sort the channels.

        Args:
            channel_max_abs: Largest magnitude of each channel, `[C]`.
            channel_gain: Sum of the squared weights that read each channel, `[C]`; not negative. All zeros count
                as all alike.
        """
        largest, gain = np.asarray(channel_max_abs, np.float64), np.asarray(channel_gain, np.float64)
        mean = gain.mean()
        gain = gain / mean if mean > 0 else np.ones_like(gain)
        order = np.argsort(largest, kind="stable")
        return cls(largest[order], gain[order])

    def beyond(self, end: float) -> float:
        """G(t) for the channels whose magnitudes exceed `end`; 1 if there is none."""
        first = int(np.searchsorted(self.largest, end, side="right"))
        if first == self.largest.size:
            return 1.0
        # Relative to the largest one, so that neither tiny nor huge values leave the range of float64.
        reach = (self.largest[first:] - end) / (self.largest[-1] - end)
        reach *= reach
        return float(self.gain[first:] @ reach / reach.sum())

    def extra_above(self, density: Density, end: float) -> float:
        """Cost added to the squared error of the values if they are clipped at `end` >= 0 from above."""
        return self._extra(density.edges - end, density, end)

    def extra_below(self, density: Density, end: float) -> float:
        """Cost added to the squared error of the values if they are clipped at `end` <= 0 from below."""
        return self._extra(density.edges - end, density, -end, sign=-1)

    def _extra(self, distance: NDArray[np.float64], density: Density, end: float, *, sign: int = 1) -> float:
        # max(x - t, 0)^3 / 3 is an antiderivative of the squared error, as in error.py.
        cube = np.maximum(sign * distance, 0) ** 3 / 3
        clipped = max(float(sign * cube @ density.drops), 0.0)
        return (self.beyond(end) - 1) * clipped
