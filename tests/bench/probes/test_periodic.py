"""Reading at a fixed period in a thread."""

from __future__ import annotations

import threading
import time

import pytest
from waiting import wait_for

from pargo_export.bench.probes.periodic import PeriodicReader
from pargo_export.bench.probes.sensor import SensorError


def names():
    """Names of the threads that are alive."""
    return [thread.name for thread in threading.enumerate()]


def test_readings_are_stamped_and_apart():
    """The readings have ascending times, one in each period, and the thread sleeps meanwhile and ends."""
    count = iter(range(10**6))
    reader = PeriodicReader(lambda: next(count), 0.02)
    begin, busy = time.perf_counter_ns(), time.process_time()
    reader.start()
    time.sleep(0.5)
    reader.stop()
    busy, end = time.process_time() - busy, time.perf_counter_ns()
    times = [stamp for stamp, _ in reader.readings()]
    assert [value for _, value in reader.readings()] == list(range(len(times)))
    assert times == sorted(times)
    assert begin <= times[0]
    assert times[-1] <= end
    assert 3 <= len(times) <= (end - begin) / 2e7 + 2
    assert busy < 0.25
    assert reader.problem == ""
    assert "pargo-bench-probe" not in names()


def test_missed_periods_are_left_out():
    """A reading that takes longer than the period does not make the next ones come in a burst."""
    slow = iter([0.2])

    def read():
        time.sleep(next(slow, 0))

    reader = PeriodicReader(read, 0.02)
    reader.start()
    wait_for(lambda: len(reader.readings()) >= 4)
    reader.stop()
    times = [stamp for stamp, _ in reader.readings()]
    assert times[3] - times[0] > 2 * 20_000_000


def test_failures_are_survived_and_the_first_is_kept():
    """The first failure is the problem; readings go on after it, also if there are many but not in a row."""
    failures = [SensorError("again") for _ in range(9)]
    outcomes = iter([SensorError("bus busy"), 1, *failures, 2, *failures, 3])

    def read():
        outcome = next(outcomes, 4)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    reader = PeriodicReader(read, 0.001)
    reader.start()
    wait_for(lambda: len(reader.readings()) >= 3)
    reader.stop()
    assert reader.problem == "bus busy"
    assert [value for _, value in reader.readings()][:3] == [1, 2, 3]


def test_it_gives_up_on_a_sensor_that_is_gone():
    """Ten failures in a row end the thread."""
    calls = []

    def read():
        calls.append(1)
        raise SensorError("gone")

    reader = PeriodicReader(read, 0.001)
    reader.start()
    wait_for(lambda: "pargo-bench-probe" not in names())
    assert (len(calls), reader.problem, reader.readings()) == (10, "gone", [])
    reader.stop()


def test_a_reading_that_waits_is_released():
    """At the end a reading that waits is made to return, and its failure then is no problem."""
    released = threading.Event()

    def read():
        released.wait(20)
        raise SensorError("was ended")

    reader = PeriodicReader(read, 0.01)
    reader.start()
    begin = time.monotonic()
    reader.stop(released.set)
    assert time.monotonic() - begin < 5
    assert reader.problem == ""
    assert "pargo-bench-probe" not in names()


def test_a_period_of_nothing_is_an_error():
    """A thread that never sleeps would disturb what it looks at."""
    with pytest.raises(ValueError, match="expected more than 0"):
        PeriodicReader(lambda: 0, 0)
