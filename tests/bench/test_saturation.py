"""When a load counts as too much."""

from __future__ import annotations

import numpy as np
import pytest

from pargo_export.bench.arrivals import plan_arrivals
from pargo_export.bench.saturation import find_saturation


def queue(load, *, count, seed, arrivals="poisson"):
    """Return arrivals and latencies, milliseconds, at a server that takes a second for each request (Lindley)."""
    planned = plan_arrivals(arrivals, rate=load, duration_s=count / load, seed=seed)
    order = np.arange(len(planned))
    ends = np.maximum.accumulate(planned - order) + order + 1
    return planned, (ends - planned) * 1e3


def share_of_saturated(load, *, count, arrivals="poisson"):
    """Return how many of 100 such loads are found to be too much, as a share."""
    found = 0
    for seed in range(100):
        planned, latencies = queue(load, count=count, seed=seed, arrivals=arrivals)
        found += find_saturation(planned, latencies, num_requests=len(planned)) is not None
    return found / 100


@pytest.mark.parametrize(("load", "count"), [(0.5, 20), (0.5, 300), (0.7, 300)])
def test_bunches_of_arrivals_are_not_taken_for_saturation(load, count):
    """Well below the capacity at most a few of a hundred random loads are called too much."""
    assert share_of_saturated(load, count=count) <= 0.05


@pytest.mark.parametrize(("load", "count"), [(1.5, 30), (1.2, 100), (1.1, 1000)])
def test_more_than_the_capacity_is_found(load, count):
    """Above the capacity nearly all are, the sooner the further above."""
    assert share_of_saturated(load, count=count) >= 0.9


def test_a_camera_at_the_capacity_is_borne_and_above_it_is_not():
    """Fixed arrivals at the capacity itself never wait; a twentieth more and the latency rises to the end."""
    assert share_of_saturated(1.0, count=300, arrivals="fixed") == 0
    planned, latencies = queue(1.04, count=300, seed=0, arrivals="fixed")
    reason = find_saturation(planned, latencies, num_requests=len(planned))
    assert reason is not None
    assert reason.startswith("the latency rose by")
    planned, latencies = queue(1.5, count=300, seed=0, arrivals="fixed")
    reason = find_saturation(planned, latencies, num_requests=len(planned))
    assert reason is not None
    assert "to empty the queue" in reason


def test_requests_that_were_turned_away_are_saturation():
    """Six of a hundred refused are too many, five are not."""
    planned, latencies = np.arange(95.0), np.full(95, 10.0)
    assert find_saturation(planned, latencies, num_requests=100) is None
    assert (
        find_saturation(planned, latencies, num_requests=101) == "6 of 101 requests were refused or expired"
    )
