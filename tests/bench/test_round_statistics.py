"""Intervals whose unit is the round."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bench_cases import measurement_of

from pargo_export.bench.round_statistics import interval_of_means, interval_of_median, log_round_medians


def test_each_round_counts_by_its_median():
    """However many runs a round has, it is one observation; a round that took no time is none."""
    times = np.array([[1.0, 9.0, 2.0], [4.0, 4.0, 80.0], [0.0, 0.0, 5.0]])
    assert log_round_medians(measurement_of(times)) == pytest.approx({0: math.log(2), 1: math.log(4)})


@pytest.mark.parametrize(("count", "depth", "weight"), [(6, 0, 5 * 0.1 / 1.4), (10, 1, 0.6577)])
def test_the_interval_of_a_median_lies_between_order_statistics(count, depth, weight):
    """The depth and the interpolation are those of Hettmansperger and Sheather's formula, worked out by hand."""
    logs = np.random.default_rng(0).permutation(np.arange(count) / 10)
    ratio, interval = interval_of_median(logs)
    assert ratio == pytest.approx(math.exp((count - 1) / 20))
    assert math.log(interval.low) == pytest.approx((depth + weight) / 10, abs=1e-3)
    assert math.log(interval.high) == pytest.approx((count - 1 - depth - weight) / 10, abs=1e-3)
    assert "order statistics of" in interval.method


def test_two_to_five_rounds_take_student_t():
    """For few rounds the interval is that of Student's t: 12.7 standard errors on either side for two rounds."""
    ratio, interval = interval_of_median(np.array([0.0, 0.2]))
    assert ratio == pytest.approx(math.exp(0.1))
    assert math.log(interval.high) == pytest.approx(0.1 + 12.706 * 0.1, abs=1e-3)
    assert "Student's t of 2 rounds" in interval.method
    assert "Student's t of 5 rounds" in interval_of_median(np.arange(5.0))[1].method


@pytest.mark.parametrize("count", [3, 6, 10, 25])
def test_an_inverse_ratio_has_the_inverse_interval(count):
    """Nothing depends on which of the two is called the baseline."""
    logs = np.random.default_rng(count).normal(0.1, 0.05, count)
    (ratio, interval), (inverse, inverted) = interval_of_median(logs), interval_of_median(-logs)
    assert ratio == pytest.approx(1 / inverse)
    assert (interval.low, interval.high) == pytest.approx((1 / inverted.high, 1 / inverted.low))


@pytest.mark.parametrize("count", [5, 10])
@pytest.mark.parametrize("is_disturbed", [False, True])
def test_the_interval_of_a_median_holds_it_as_often_as_it_says(count, is_disturbed):
    """Of 200 intervals at 95 % about 190 hold the true ratio, also if every tenth round is badly disturbed."""
    random = np.random.default_rng(11)
    hits = 0
    for _ in range(200):
        logs = random.normal(0, 0.02, count)
        logs += is_disturbed * (random.random(count) < 0.1) * random.normal(0, 0.2, count)
        interval = interval_of_median(logs)[1]
        hits += interval.low <= 1 <= interval.high
    assert 180 <= hits <= 199


def test_one_disturbed_round_hardly_moves_the_median():
    """A round ten times as slow for one of the two neither moves the ratio nor spreads the interval."""
    logs = np.random.default_rng(2).normal(math.log(0.8), 0.01, 12)
    disturbed = logs.copy()
    disturbed[3] = math.log(8)
    ratio, interval = interval_of_median(disturbed)
    assert ratio == pytest.approx(0.8, rel=0.01)
    assert interval.high < 0.83


def test_rounds_of_separate_runs_are_held_against_each_other_by_welch():
    """Without autocorrelation the interval is Welch's, as SciPy computes it."""
    from scipy import stats

    old, new = np.array([0.0, 2.0, 0.0, 2.5, 0.5, 2.0]), np.array([3.0, 1.0, 3.5, 1.0, 3.0])
    ratio, interval = interval_of_means(old, new)
    expected = stats.ttest_ind(new, old, equal_var=False).confidence_interval(0.95)
    assert math.log(ratio) == pytest.approx(new.mean() - old.mean())
    assert (math.log(interval.low), math.log(interval.high)) == pytest.approx((expected.low, expected.high))


def test_rounds_that_resemble_each_other_count_less():
    """The same times in an order that drifts say less than in one that alternates."""
    alternating, drifting = np.array([0.0, 1.0] * 5), np.array([0.0] * 5 + [1.0] * 5)
    wide, narrow = (interval_of_means(values, values + 1)[1] for values in (drifting, alternating))
    assert math.log(wide.high) - math.log(wide.low) > 1.5 * (math.log(narrow.high) - math.log(narrow.low))


def test_identical_rounds_have_an_interval_without_width():
    """Nothing varies, nothing is divided by zero."""
    ratio, interval = interval_of_means(np.zeros(4), np.full(4, math.log(2)))
    assert (ratio, interval.low, interval.high) == pytest.approx((2, 2, 2))
    assert interval_of_median(np.zeros(8))[1].low == 1
