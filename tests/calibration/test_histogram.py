"""The histogram counts every value in its bin, and widening it loses nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pargo_calibration.histogram import MIN_EXPONENT, NUM_BINS, SignedHistogram, exponent_of

unhurried = settings(deadline=None)  # other work on the machine is no failure

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
values_of_all_sizes = st.lists(finite, min_size=1, max_size=30)


def histogram_of(values):
    """Count all values at once."""
    array = np.array(values, np.float32)
    histogram = SignedHistogram()
    histogram.add(array, float(np.abs(array).max()))
    return histogram


@unhurried
@given(values_of_all_sizes)
def test_every_value_lies_in_its_bin(values):
    """The bin of a value is its quotient by the bin width, cut towards zero, in exact arithmetic."""
    histogram = histogram_of(values)
    expected = np.zeros_like(histogram.counts)
    for value in values:
        expected[NUM_BINS - 1 + math.trunc(math.ldexp(value, 11 - histogram.exponent))] += 1
    assert np.array_equal(histogram.counts, expected)


@unhurried
@given(values_of_all_sizes, values_of_all_sizes)
def test_order_does_not_matter(first, second):
    """Two portions in either order, or at once, or merged, give the same histogram."""
    together = histogram_of(first + second)
    for one, other in ((first, second), (second, first)):
        apart = histogram_of(one)
        apart.add(np.array(other, np.float32), float(np.abs(np.array(other, np.float32)).max()))
        merged = histogram_of(one)
        merged.merge(histogram_of(other))
        for found in (apart, merged):
            assert found.exponent == together.exponent
            assert np.array_equal(found.counts, together.counts)


@unhurried
@given(st.integers(MIN_EXPONENT, 128), st.integers(0, 14))
def test_widening_equals_wide_bins(exponent, steps):
    """Counts of narrow bins, widened, are what wide bins count, however far they are widened."""
    wide = min(exponent + steps, 128)
    quotients = np.arange(-NUM_BINS + 1, NUM_BINS)
    values = np.ldexp(quotients.astype(np.float64) / NUM_BINS, exponent).astype(np.float32)
    narrow, expected = SignedHistogram(), SignedHistogram()
    narrow.widen(exponent)
    expected.widen(wide)
    for histogram in (narrow, expected):
        histogram.add(values, 0.0)
    narrow.widen(wide)
    assert np.array_equal(narrow.counts, expected.counts)
    assert narrow.counts.sum() == 2 * NUM_BINS - 1


def test_merging_leaves_the_other_alone():
    """The histogram that is merged in keeps its own width and counts."""
    small, large = histogram_of([0.1]), histogram_of([100.0])
    before = small.counts.copy()
    large.merge(small)
    assert small.exponent == exponent_of(0.1)
    assert np.array_equal(small.counts, before)
    assert large.counts.sum() == 2


@pytest.mark.parametrize(
    ("max_abs", "exponent"), [(0.0, MIN_EXPONENT), (1e-40, MIN_EXPONENT), (0.99, 0), (1.0, 1), (3.4e38, 128)]
)
def test_exponent_is_the_smallest_that_fits(max_abs, exponent):
    """A power of two itself needs the next exponent; zero and the tiniest numbers share the smallest."""
    assert exponent_of(max_abs) == exponent


def test_magnitudes_fold_both_sides():
    """A value and its negative share a bin of magnitudes, with the edges that belong to it."""
    histogram = histogram_of([-1.5, 1.5, 1.5, -0.25, 0.0])
    magnitudes, edges = histogram.magnitudes, histogram.magnitude_edges
    used = np.flatnonzero(magnitudes)
    assert magnitudes[used].tolist() == [1, 1, 3]
    assert edges[used].tolist() == [0.0, 0.25, 1.5]
    assert magnitudes.size == edges.size - 1 == NUM_BINS


def test_edges_enclose_the_bins():
    """Edges are symmetric; the bin of a value lies between two neighbouring ones."""
    histogram = histogram_of([-1.5, 0.7])
    edges = histogram.edges
    assert np.array_equal(edges, -edges[::-1])
    assert edges.size == histogram.counts.size + 1
    for value, index in zip([-1.5, 0.7], np.flatnonzero(histogram.counts), strict=True):
        assert edges[index] <= value <= edges[index + 1]


def test_large_arrays_are_counted_in_portions():
    """More values than one portion holds are all counted, the last short portion too."""
    values = np.linspace(-1, 1, 200_001, dtype=np.float32)
    histogram = histogram_of(values)
    expected = np.bincount(np.trunc(values * np.float32(1024)).astype(int) + NUM_BINS - 1, minlength=4095)
    assert np.array_equal(histogram.counts, expected)
