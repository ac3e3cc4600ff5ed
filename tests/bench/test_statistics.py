"""Percentiles, outliers and intervals."""

from __future__ import annotations

import numpy as np
import pytest

from pargo_export.bench.statistics import median_interval, summarize


def test_a_summary_of_known_times():
    """Every number is the one that can be computed by hand."""
    found = summarize([float(value) for value in range(1, 102)], seed=0)
    assert (found.num_samples, found.min_ms, found.max_ms) == (101, 1, 101)
    assert (found.mean_ms, found.median_ms) == (51, 51)
    assert (found.p90_ms, found.p95_ms, found.p99_ms) == (91, 96, 100)
    assert found.std_ms == pytest.approx(np.sqrt(101 * 102 / 12))
    assert found.num_outliers == 0


def test_outliers_are_counted_and_kept():
    """Times beyond Tukey's fences on either side count as outliers, and stay in every number."""
    found = summarize([10.0, 11.0, 12.0, 13.0, 14.0, 100.0, 0.0], seed=0)
    assert (found.num_outliers, found.num_samples, found.min_ms, found.max_ms) == (2, 7, 0, 100)


def test_the_interval_is_the_same_for_the_same_seed_and_holds_the_median():
    """The bootstrap is seeded."""
    values = np.random.default_rng(1).lognormal(size=80)
    first, again, other = (median_interval(values, seed=seed) for seed in (3, 3, 4))
    assert first == again != other
    assert first is not None
    assert first.low < float(np.median(values)) < first.high
    assert first.level == 0.95


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    """Of 100 intervals at 80 % about 80 hold the median that the times were drawn with."""
    random = np.random.default_rng(7)
    hits = 0
    for seed in range(100):
        found = median_interval(random.lognormal(size=60), seed=seed, level=0.8)
        assert found is not None
        hits += found.low <= 1.0 <= found.high
    assert 68 <= hits <= 92  # three standard deviations of a binomial


def test_rounds_are_drawn_as_a_whole():
    """Where rounds differ and runs within a round do not, the interval is as wide as the rounds say."""
    rounds = np.repeat(np.arange(8), 50)
    values = 10 + rounds + np.random.default_rng(2).normal(0, 0.01, len(rounds))
    by_round = median_interval(values, seed=0, rounds=rounds.tolist())
    by_sample = median_interval(values, seed=0)
    assert by_round is not None
    assert by_sample is not None
    assert by_round.high - by_round.low > 2 * (by_sample.high - by_sample.low)
    assert "over rounds" in by_round.method
    assert "over samples" in by_sample.method


def test_few_rounds_are_not_drawn():
    """With four rounds there are too few to draw from: samples are drawn, and the method says so."""
    found = median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], seed=0, rounds=[0, 0, 1, 1, 2, 2, 3, 3])
    assert found is not None
    assert "over samples" in found.method


def test_few_samples_have_no_interval():
    """Four times say nothing about how sure their median is; one has no spread."""
    assert summarize([1.0, 2.0, 3.0, 4.0], seed=0).median_interval is None
    assert summarize([2.5], seed=0).std_ms == 0


def test_identical_samples_have_an_interval_without_width():
    """A clock that is too coarse gives the same time again and again; nothing warns or fails."""
    found = summarize([3.0] * 20, seed=0)
    assert found.median_interval is not None
    assert (found.median_interval.low, found.median_interval.high, found.num_outliers) == (3, 3, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "at least one time"), ([1.0, float("nan")], "not finite"), ([[1.0]], "in a row")],
)
def test_what_is_no_series_is_refused(values, message):
    """Nothing is made up for missing or broken times."""
    with pytest.raises(ValueError, match=message):
        summarize(values, seed=0)


def test_rounds_of_another_length_are_refused():
    """Each sample has one round."""
    with pytest.raises(ValueError, match="one for each of 6 samples"):
        median_interval([1.0] * 5 + [2.0], seed=0, rounds=[0, 1])
