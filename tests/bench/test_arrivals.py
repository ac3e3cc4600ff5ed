"""Planned arrivals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pargo_export.bench.arrivals import plan_arrivals
from pargo_export.errors import ConfigError


def test_fixed_arrivals_come_at_equal_gaps():
    """A camera of 4 pictures a second sends 8 of them in 2 seconds."""
    found = plan_arrivals("fixed", rate=4, duration_s=2, seed=0)
    np.testing.assert_allclose(found, np.arange(8) / 4)


@pytest.mark.parametrize(
    ("rate", "duration_s", "count"), [(0.1, 30, 3), (0.1, 31, 4), (0.01, 5, 1), (3, 1 / 3, 1)]
)
def test_fixed_arrivals_are_counted_without_rounding_errors(rate, duration_s, count):
    """Every arrival that is due before the end is there, the first one always."""
    assert len(plan_arrivals("fixed", rate=rate, duration_s=duration_s, seed=0)) == count


def test_poisson_gaps_are_exponential():
    """Their number is that of a Poisson process, and their distribution passes a Kolmogorov-Smirnov test."""
    found = plan_arrivals("poisson", rate=50, duration_s=200, seed=3)
    assert abs(len(found) - 10_000) < 4 * np.sqrt(10_000)
    assert found[0] == 0
    assert found[-1] < 200
    assert stats.kstest(np.diff(found) * 50, "expon").pvalue > 0.01


def test_one_seed_is_one_pattern_at_every_rate():
    """Twice the rate are the same gaps at half the length; another seed has other gaps."""
    slow = plan_arrivals("poisson", rate=5, duration_s=10, seed=1)
    fast = plan_arrivals("poisson", rate=10, duration_s=10, seed=1)
    np.testing.assert_allclose(fast[: len(slow)] * 2, slow)
    assert len(fast) > len(slow)
    assert not np.array_equal(slow, plan_arrivals("poisson", rate=5, duration_s=10, seed=2))


@pytest.mark.parametrize(
    ("arrivals", "rate", "duration_s", "says"),
    [
        ("poisson", 0, 1, "rate: found 0"),
        ("fixed", 1, float("inf"), "duration_s: found inf"),
        ("fixed", 1e6, 60, "found 6e\\+07 requests"),
        ("bursts", 1, 1, "found 'bursts', expected 'poisson' or 'fixed'"),
    ],
)
def test_what_cannot_be_planned_is_refused(arrivals, rate, duration_s, says):
    """The message names what was found."""
    with pytest.raises(ConfigError, match=says):
        plan_arrivals(arrivals, rate=rate, duration_s=duration_s, seed=0)
