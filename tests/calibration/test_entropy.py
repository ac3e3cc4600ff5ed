"""The fast entropy threshold is that of the published algorithm."""

from __future__ import annotations

import numpy as np
import pytest

from pargo_calibration.ranges.entropy import _divergences, entropy_threshold


def published(bins, num_levels):
    """The divergences of the algorithm of the GTC 2017 slides, word by word and slow."""
    divergences = []
    for i in range(num_levels, len(bins) + 1):
        reference = bins[:i].astype(float)
        reference[i - 1] += bins[i:].sum()
        level = np.arange(i) * num_levels // i
        candidate = np.zeros(i)
        for k in range(num_levels):
            inside = (level == k) & (bins[:i] > 0)
            if inside.any():
                candidate[inside] = bins[:i][inside].sum() / inside.sum()
        p, q = reference / reference.sum(), candidate / candidate.sum()
        used = p > 0
        with np.errstate(divide="ignore"):
            divergences.append(np.sum(p[used] * np.log(p[used] / q[used])))
    return np.array(divergences)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("num_levels", [8, 13])
def test_agrees_with_the_published_algorithm(seed, num_levels):
    """For tails of all weights, with empty bins and without, every divergence and the threshold agree."""
    generator = np.random.default_rng(seed)
    decay = np.exp(-np.arange(100) / generator.uniform(3, 40))
    bins = generator.poisson(1000 * decay) * (generator.random(100) > 0.1 * (seed % 3))
    bins[-1] = 1
    expected = published(bins, num_levels)
    found = _divergences(bins, np.arange(num_levels, len(bins) + 1), num_levels)
    assert found == pytest.approx(expected, abs=1e-12)
    kept = num_levels + expected.argmin()
    assert entropy_threshold(bins, 0.5, num_levels) == pytest.approx((kept + 0.5) * 0.5)


def test_outliers_are_clipped():
    """A single value far away does not decide the range; without it the whole bulk is kept."""
    bins = np.zeros(2048, np.int64)
    bins[:500] = 10_000 * np.exp(-((np.arange(500) / 200) ** 2))
    assert entropy_threshold(bins, 1.0) > 400
    bins[-1] = 1
    assert 400 < entropy_threshold(bins, 1.0) < 600


def test_few_bins_are_all_kept():
    """With fewer bins than levels nothing is gained by clipping."""
    assert entropy_threshold(np.array([5, 0, 3, 0]), 2.0, 4) == 6.0
    assert entropy_threshold(np.array([5, 0, 3, 1]), 2.0, 4) == 8.0
