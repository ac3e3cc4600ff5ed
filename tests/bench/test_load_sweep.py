"""The search for the capacity."""

from __future__ import annotations

import numpy as np
import pytest
from bench_cases import summary_of

from pargo_export.bench.load_sweep import MAX_POINTS, load_warnings, sweep
from pargo_export.bench.records import LoadPoint
from pargo_export.errors import ConfigError


def point_of(rate, *, capacity, late_ms=0.0, num_requests=30):
    """Return the point that a server of this capacity has at a load."""
    samples = np.full(10, 20.0)
    return LoadPoint(
        offered_per_s=rate,
        achieved_per_s=min(rate, capacity),
        duration_s=1,
        num_requests=num_requests,
        samples_ms=samples.tolist(),
        summary=summary_of(samples),
        is_saturated=rate > capacity,
        late_ms=late_ms,
    )


def swept(capacity, *, start=10.0, rates=(), **fields):
    """Sweep a server of this capacity."""
    asked = []

    def measure(rate):
        asked.append(rate)
        return point_of(rate, capacity=capacity, **fields)

    return sweep(measure, subject="fp32", start=start, rates=rates, deadline_ms=50, max_batch=4), asked


@pytest.mark.parametrize("capacity", [0.9, 3.0, 9.7, 10.0, 31.0, 150.0])
def test_the_capacity_is_bracketed_within_a_tenth(capacity):
    """Wherever the capacity is beside the closed loop, few loads find it, from below."""
    found, asked = swept(capacity)
    assert len(asked) <= MAX_POINTS
    assert found.capacity_per_s is not None
    assert capacity / 1.1 <= found.capacity_per_s <= capacity
    offered = [point.offered_per_s for point in found.points]
    assert offered == sorted(asked)
    assert (found.deadline_ms, found.max_batch, found.arrivals) == (50, 4, "poisson")
    assert not load_warnings(found)


def test_the_search_begins_with_an_easy_load_and_grows():
    """The first loads are four tenths of the closed loop, then half as much again each."""
    _, asked = swept(9.7)
    assert asked[:4] == pytest.approx([4, 6, 9, 13.5])


def test_the_search_gives_up_where_nothing_is_borne_or_nothing_too_much():
    """Either way it ends, has no capacity to tell or only a lower bound, and warns."""
    nothing, asked = swept(0.0)
    assert nothing.capacity_per_s is None
    assert min(asked) == pytest.approx(0.25)
    assert "its capacity is below all of them" in load_warnings(nothing)[0]
    everything, asked = swept(1e9)
    assert len(asked) == MAX_POINTS
    assert everything.capacity_per_s == max(asked)
    assert "its capacity is above all of them" in load_warnings(everything)[0]


def test_given_loads_are_measured_in_order_and_no_others():
    """Named loads replace the search."""
    found, asked = swept(5.0, rates=(8, 2, 4, 2))
    assert asked == [2, 4, 8]
    assert found.capacity_per_s == 4


def test_a_late_generator_is_a_warning():
    """A generator that is later than a tenth of the usual latency is told with its load."""
    assert not load_warnings(swept(5.0, rates=(4, 8), late_ms=1.9)[0])
    found = load_warnings(swept(5.0, rates=(4, 8), late_ms=2.5)[0])
    assert len(found) == 2
    assert found[0].startswith("fp32: at 4 requests/s the load generator was up to 2.5 ms late")


def test_few_requests_are_a_warning():
    """Fewer than thirty say little about a queue."""
    found = load_warnings(swept(5.0, rates=(4, 8), num_requests=29)[0])
    assert len(found) == 1
    assert "a load of 29 requests is short" in found[0]


@pytest.mark.parametrize(("start", "rates"), [(0.0, ()), (1.0, (2.0, -1.0)), (float("nan"), ())])
def test_loads_must_be_positive(start, rates):
    """The message names what was found."""
    with pytest.raises(ConfigError, match="expected positive numbers"):
        swept(1.0, start=start, rates=rates)
