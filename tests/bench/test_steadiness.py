"""Steady state: warm-up is cut off, drift is found, noise is not taken for either."""

from __future__ import annotations

import numpy as np
import pytest

from pargo_export.bench.steadiness import assess


def noise(num: int, seed: int = 0) -> np.ndarray:
    """Times as they are: skewed, a few outliers."""
    random = np.random.default_rng(seed)
    return 10 * random.lognormal(0, 0.03, num) + 8 * (random.random(num) < 0.02)


@pytest.mark.parametrize("num", [20, 200, 3000])
def test_noise_is_steady(num):
    """Of 100 series without a trend nearly all are steady, nearly from the beginning."""
    found = [assess(noise(num, seed)) for seed in range(100)]
    assert sum(item.is_steady for item in found) >= 95
    starts = [item.first_steady for item in found if item.first_steady is not None]
    assert np.median(starts) < num / 4


@pytest.mark.parametrize("num", [40, 400])
def test_a_warm_up_is_cut_off(num):
    """Slow first runs are not steady; what follows is."""
    length = num // 5
    values = noise(num)
    values[:length] *= np.linspace(3, 1.3, length)
    found = assess(values)
    assert found.is_steady
    assert found.first_steady is not None
    assert 0.7 * length <= found.first_steady <= 2 * length
    assert found.drift < 0.9


def test_a_drift_is_found():
    """A device that becomes 20 % slower over the measurement is not steady, and the reason says how much."""
    found = assess(noise(300) * np.linspace(1, 1.2, 300))
    assert not found.is_steady
    assert found.drift == pytest.approx(1.13, abs=0.03)
    assert "rising" in found.reason or "no steady part" in found.reason


def test_a_late_step_is_found():
    """Throttling that begins near the end is no steady state."""
    values = noise(300)
    values[200:] *= 1.3
    assert not assess(values).is_steady


def test_a_trend_that_does_not_matter_is_not_held_against_it():
    """A long series proves a drift of 0.5 %; it is steady all the same."""
    values = np.random.default_rng(0).normal(10, 0.01, 2000) * np.linspace(1, 1.005, 2000)
    assert assess(values).is_steady


def test_few_runs_cannot_tell():
    """Nine runs are not said to be steady."""
    found = assess([5.0] * 9)
    assert not found.is_steady
    assert found.first_steady is None
    assert "9 runs are too few" in found.reason


def test_identical_times_are_steady():
    """Times that a coarse clock cannot tell apart are steady from the first on."""
    found = assess([5.0] * 60)
    assert (found.is_steady, found.first_steady, found.drift) == (True, 0, 1)


def test_no_times_are_refused():
    """An empty series is a mistake of the caller."""
    with pytest.raises(ValueError, match="at least one time"):
        assess([])
