"""The clipping threshold that loses least information.

The algorithm of TensorRT's entropy calibrator, as published in Szymon Migacz, "8-bit Inference with
TensorRT", GTC 2017: for every number of bins i, compare P, the first i bins with everything beyond them
added to the last, with Q, the same i bins (without what lies beyond) averaged over the quantization levels.
The i with the smallest Kullback-Leibler divergence of P from Q wins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["entropy_threshold"]


def entropy_threshold(magnitudes: NDArray[np.int64], bin_width: float, num_levels: int = 128) -> float:
    """Return the threshold for a histogram of absolute values, as a multiple of half a bin.

    Args:
        magnitudes: Counts; bin j is [j, j+1) times the width.
        bin_width: Width of a bin.
        num_levels: Levels that represent magnitudes, zero included.
    """
    end = int(np.flatnonzero(magnitudes)[-1]) + 1
    if end <= num_levels:
        return end * bin_width
    kept = np.arange(num_levels, end + 1)
    return float(kept[np.argmin(_divergences(magnitudes, kept, num_levels))] + 0.5) * bin_width


def _divergences(counts: NDArray[np.int64], kept: NDArray[np.int64], num_levels: int) -> NDArray[np.float64]:
    """KL(P || Q) for every number of bins in `kept`, from prefix sums instead of a loop over bins.

    With counts c, total T, count inside S and level k holding S_k in z_k non-empty bins, and m = c but for
    the last kept bin, which also holds what lies outside:

        KL = sum m log m / T - log T  -  (sum S_k log(S_k / z_k) + outside * log(S_last / z_last)) / T + log S
    """
    total = int(counts.sum())
    inside = _prefix(counts)
    plogp = _prefix(_xlogx(counts))
    last, outside = counts[kept - 1], total - inside[kept]
    reference = (plogp[kept - 1] + _xlogx(last + outside)) / total - np.log(total)

    # Level k averages the bins from ceil(k i / levels) up to, not including, ceil((k + 1) i / levels).
    bounds = -(-np.arange(num_levels + 1) * kept[:, None] // num_levels)
    level = np.diff(inside[bounds], axis=1)
    nonzero = np.diff(_prefix((counts > 0).astype(np.int64))[bounds], axis=1)
    log_average = np.log(np.maximum(level, 1)) - np.log(np.maximum(nonzero, 1))
    candidate = ((level * log_average).sum(axis=1) + outside * log_average[:, -1]) / total
    with np.errstate(divide="ignore"):
        divergences: NDArray[np.float64] = reference - candidate + np.log(inside[kept])
    # P puts what lies outside into a bin where Q has nothing: infinitely far apart.
    divergences[(last == 0) & (outside > 0)] = np.inf
    return divergences


def _prefix(values: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([np.zeros(1, values.dtype), np.cumsum(values)])


def _xlogx(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(counts * np.log(np.maximum(counts, 1)), np.float64)
