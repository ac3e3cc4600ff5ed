"""Runs without a pause."""

from __future__ import annotations

import numpy as np
import pytest

from pargo_export.bench.sustained import MIN_RUNS, DeviceState, RunLog, describe_sustained, run_sustained
from pargo_export.errors import ConfigError


class Clock:
    """Time that passes only in runs."""

    def __init__(self, run_ms):
        self.time_ns, self.run_ms, self.asked = 7_000_000_000, run_ms, []

    def now_ns(self):
        """Return the time."""
        return self.time_ns

    def run(self, index):
        """Let a run pass."""
        self.asked.append(index)
        self.time_ns += round(self.run_ms * 1e6)


def log_of(samples_ms):
    """Return runs of these times that follow each other at once."""
    ends = np.cumsum(samples_ms)
    starts = np.concatenate(([0], ends[:-1]))
    return RunLog((5e9 + starts * 1e6).astype(np.int64), np.asarray(samples_ms, np.float64))


def test_runs_follow_each_other_until_the_time_is_over():
    """A run that began within the time is finished, none begins after it."""
    clock = Clock(30.0)
    log = run_sustained(clock.run, duration_s=1.0, now_ns=clock.now_ns)
    assert clock.asked == list(range(34))  # 34 * 30 ms = 1.02 s
    np.testing.assert_allclose(log.samples_ms, 30)
    assert log.starts_ns[0] == 7_000_000_000
    np.testing.assert_allclose(np.diff(log.starts_ns), 30_000_000)


def test_slow_runs_go_on_until_there_are_enough():
    """A time that is too short for 25 runs is extended."""
    clock = Clock(1000.0)
    assert len(run_sustained(clock.run, duration_s=2.0, now_ns=clock.now_ns).samples_ms) == MIN_RUNS
    with pytest.raises(ConfigError, match="duration_s: found 0"):
        run_sustained(clock.run, duration_s=0)


@pytest.mark.parametrize(("count", "num_windows"), [(25, 25), (60, 25), (200, 40), (10_000, 100)])
def test_windows_hold_all_runs_in_order(count, num_windows):
    """There are 25 to 100 windows, of at least five runs where there are enough of them."""
    found = describe_sustained(log_of(np.full(count, 10.0)), subject="fp32", batch=2)
    assert len(found.windows) == num_windows
    assert sum(window.num_runs for window in found.windows) == count
    starts = [window.start_s for window in found.windows]
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert found.duration_s == pytest.approx(count / 100)
    assert (found.subject, found.batch, found.slowdown, found.throttled) == ("fp32", 2, 1, None)


def test_a_device_that_slows_down_is_found_and_a_steady_one_is_not():
    """The slowdown of a run that heats up excludes 1, that of noise does not, outliers or not."""
    random = np.random.default_rng(3)
    noise = 20 * random.lognormal(0, 0.05, 2000)
    noise[::97] *= 10
    steady = describe_sustained(log_of(noise), subject="a", batch=1)
    assert steady.interval.low < 1 < steady.interval.high
    heating = noise * (1 + 0.3 / (1 + np.exp(-(np.arange(2000) - 1000) / 100)))
    found = describe_sustained(log_of(heating), subject="a", batch=1)
    assert found.slowdown == pytest.approx(1.3, rel=0.02)
    assert 1.25 < found.interval.low < found.slowdown < found.interval.high < 1.35
    assert "windows" in found.interval.method


def test_what_the_device_said_is_joined_by_time():
    """Clock, temperature and power of a window are those within it; reasons of before and after do not count."""
    log = log_of(np.full(MIN_RUNS, 100.0))
    states = [
        DeviceState(4_900_000_000, 1.0, 1.0, ("before",)),
        DeviceState(5_010_000_000, 1500.0, 60.0, ()),
        DeviceState(5_090_000_000, 1400.0, 61.0, None),
        DeviceState(5_150_000_000, None, 70.0, ("heat", "power")),
        DeviceState(9_000_000_000, 1.0, 99.0, ("after",)),
    ]
    power = [(5_000_000_000 + index * 20_000_000, 10.0 + (index >= 5) * 5) for index in range(11)]
    found = describe_sustained(log, subject="a", batch=1, states=states, power=power)
    first, second, third = found.windows[:3]
    assert (first.clock_mhz, first.temperature_c) == (1450, 61)
    assert first.power_w == pytest.approx(10.5)  # 10 W, then from 80 ms on a line to the 15 W at 100 ms
    assert (second.clock_mhz, second.temperature_c, second.power_w) == (None, 70, 15)
    assert (third.clock_mhz, third.temperature_c, third.power_w) == (None, None, None)
    assert found.throttled == ("heat", "power")


def test_whether_nothing_throttled_or_nobody_knows_is_told_apart():
    """No reasons are not the same as no answer."""
    log = log_of(np.full(MIN_RUNS, 100.0))
    quiet, mute = DeviceState(5_010_000_000, throttled=()), DeviceState(5_010_000_000)
    assert describe_sustained(log, subject="a", batch=1, states=[quiet]).throttled == ()
    assert describe_sustained(log, subject="a", batch=1, states=[mute]).throttled is None


def test_too_few_runs_are_refused():
    """The message says how many are needed."""
    with pytest.raises(ConfigError, match="found 24 runs, expected at least 25"):
        describe_sustained(log_of(np.full(24, 1.0)), subject="a", batch=1)
