"""The expected squared error of quantizing what a histogram has counted.

Inside a bin the values are taken as evenly spread. For a grid of levels v_n (in units of the scale s) and
u = x / s, the squared rounding error has the antiderivative

    G(u) = C_n + (u - v_n)^3 / 3,    v_n the level nearest to u,    C_n = G(v_n)

which is continuous and needs no case for clipping: beyond the last level, the nearest one is the last.
For whole numbers C_n = n / 12. A bin [a, b) of density d costs d * s^3 * (G(b/s) - G(a/s)), so the cost of
the whole histogram is a dot product of G at the edges with the steps of the density.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pargo_calibration.histogram import SignedHistogram
from pargo_calibration.ranges.float8 import float8_magnitudes

__all__ = ["Density", "float8_antiderivative", "integer_antiderivative"]

_LEVELS = float8_magnitudes()
_MIDPOINTS = (_LEVELS[1:] + _LEVELS[:-1]) / 2
_CUMULATIVE = np.concatenate([[0.0], np.cumsum(np.diff(_LEVELS) ** 3) / 12])


@dataclass(frozen=True)
class Density:
    """A piecewise constant density that integrates to one.

    Attributes:
        edges: Where it changes, ascending, `[E]`.
        drops: By how much it falls at each edge, `[E]`.
    """

    edges: NDArray[np.float64]
    drops: NDArray[np.float64]

    @classmethod
    def of_values(cls, histogram: SignedHistogram) -> Density:
        """Density of the values."""
        return cls._of_bins(histogram.edges, histogram.counts)

    @classmethod
    def of_magnitudes(cls, histogram: SignedHistogram) -> Density:
        """Density of the absolute values: half the work where the grid is symmetric."""
        counts = histogram.magnitudes
        return cls._of_bins(histogram.magnitude_edges, counts)

    @classmethod
    def _of_bins(cls, edges: NDArray[np.float64], counts: NDArray[np.int64]) -> Density:
        used = np.flatnonzero(counts)
        first, last = used[0], used[-1] + 1
        density = counts[first:last] / np.diff(edges[first : last + 1]) / counts.sum()
        return cls(edges[first : last + 1], -np.diff(density, prepend=0, append=0))

    def mean_squared_error(self, scale: float, antiderivative: NDArray[np.float64]) -> float:
        """Expected error, from the antiderivative G at `edges / scale`, `[E]`."""
        return float(scale**3 * (antiderivative @ self.drops))


def integer_antiderivative(u: NDArray[np.float64], lowest: int, highest: int) -> NDArray[np.float64]:
    """G for the whole numbers from `lowest` to `highest`."""
    nearest = np.rint(u)
    np.clip(nearest, lowest, highest, out=nearest)
    distance = u - nearest
    cube = distance * distance
    cube *= distance
    cube /= 3
    nearest /= 12
    cube += nearest
    return cube


def float8_antiderivative(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """G for the FP8 E4M3 grid; `u` is not negative."""
    nearest = np.searchsorted(_MIDPOINTS, u)
    distance = u - _LEVELS[nearest]
    cubic: NDArray[np.float64] = _CUMULATIVE[nearest] + distance**3 / 3
    return cubic
