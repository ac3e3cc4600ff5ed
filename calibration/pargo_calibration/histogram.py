"""A histogram whose content does not depend on the order of the data.

The bin width is a power of two, 2**k. Dividing a float32 by it is exact, and a bin of width 2**(k+1) is
exactly two bins of width 2**k. So values may arrive in any order and in any portions: widening the bins
later gives what wide bins would have counted from the start.

Bins are cut towards zero: bin j holds the values whose quotient by the width truncates to j, that is
[j, j+1) times the width for j > 0, (j-1, j] for j < 0, and (-1, 1) for j = 0. Truncation commutes with
halving, for negative quotients too, and a product that underflows to zero still lands in its own bin,
which rounding down would not give.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_EXPONENT", "MIN_EXPONENT", "NUM_BINS", "SignedHistogram"]

# Bins on each side of zero; the two sides share bin 0.
NUM_BINS = 2048
_BITS = NUM_BINS.bit_length() - 1

# Values counted at a time; they and their bin numbers fit the second-level cache (measured in the README).
_PORTION = 1 << 15

# Values smaller than 2**-100 all count as zero: the factor 2**(11 + 100) is still a normal float32.
MIN_EXPONENT = -100
MAX_EXPONENT = 128


class SignedHistogram:
    """Counts of values in (-2**exponent, 2**exponent), in `2 * NUM_BINS - 1` bins.

    Attributes:
        exponent: The smallest exponent that every value fits, at least `MIN_EXPONENT`.
        counts: int64 `[2 * NUM_BINS - 1]`; bin 0 stands at index `NUM_BINS - 1`.
    """

    __slots__ = ("counts", "exponent")

    def __init__(self) -> None:
        self.exponent = MIN_EXPONENT
        self.counts: NDArray[np.int64] = np.zeros(2 * NUM_BINS - 1, np.int64)

    @property
    def bin_width(self) -> float:
        """Width of every bin but the one around zero, which is twice as wide."""
        return 2.0 ** (self.exponent - _BITS)

    @property
    def edges(self) -> NDArray[np.float64]:
        """The `2 * NUM_BINS` edges of the bins, ascending and symmetric."""
        side = np.arange(1, NUM_BINS + 1) * self.bin_width
        return np.concatenate([-side[::-1], side])

    @property
    def magnitude_edges(self) -> NDArray[np.float64]:
        """The `NUM_BINS + 1` edges of the bins of `magnitudes`."""
        return np.arange(NUM_BINS + 1, dtype=np.float64) * self.bin_width

    @property
    def magnitudes(self) -> NDArray[np.int64]:
        """Counts of absolute values, `[NUM_BINS]`; bin j is [j, j+1) times the width."""
        folded = self.counts[NUM_BINS - 1 :].copy()
        folded[1:] += self.counts[NUM_BINS - 2 :: -1]
        return folded

    def add(self, values: NDArray[np.float32], max_abs: float) -> None:
        """Count finite values `[n]`, none of them larger in magnitude than `max_abs`."""
        self.widen(exponent_of(max_abs))
        factor = np.float32(2.0 ** (_BITS - self.exponent))
        # Two buffers for all portions: fresh ones would cost more page faults than the counting takes.
        scaled = np.empty(min(values.size, _PORTION), np.float32)
        index = np.empty(scaled.size, np.intp)
        for start in range(0, values.size, _PORTION):
            portion = values[start : start + _PORTION]
            size = portion.size
            np.multiply(portion, factor, out=scaled[:size])
            # The cast truncates. Adding the offset before it would round, and misplace values near an edge.
            index[:size] = scaled[:size]
            index[:size] += NUM_BINS - 1
            self.counts += np.bincount(index[:size], minlength=self.counts.size)

    def widen(self, exponent: int) -> None:
        """Merge neighbouring bins until values up to 2**exponent fit; does nothing if they already do."""
        if exponent <= self.exponent:
            return
        merged = 1 << min(exponent - self.exponent, _BITS)
        self.exponent = exponent
        up = _merge(self.counts[NUM_BINS - 1 :], merged)
        down = _merge(np.concatenate([[0], self.counts[NUM_BINS - 2 :: -1]]), merged)
        self.counts[:] = 0
        self.counts[NUM_BINS - 1 : NUM_BINS - 1 + up.size] = up
        self.counts[NUM_BINS - down.size : NUM_BINS] += down[::-1]

    def merge(self, other: SignedHistogram) -> None:
        """Add the counts of another histogram, which stays as it is."""
        wide = SignedHistogram()
        wide.exponent, wide.counts = other.exponent, other.counts.copy()
        wide.widen(self.exponent)
        self.widen(wide.exponent)
        self.counts += wide.counts


def exponent_of(max_abs: float) -> int:
    """Return the smallest exponent e with `max_abs` < 2**e, at least `MIN_EXPONENT`."""
    return max(int(np.frexp(max_abs)[1]), MIN_EXPONENT) if max_abs else MIN_EXPONENT


def _merge(counts: NDArray[np.int64], merged: int) -> NDArray[np.int64]:
    """Sum `merged` neighbours of one side, outwards from zero."""
    summed: NDArray[np.int64] = counts.reshape(-1, merged).sum(axis=1)
    return summed
